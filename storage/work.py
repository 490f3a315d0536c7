"""What a worker and the store hand to each other: a job, how far it is, and what was made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from storage.remakes import Release
from storage.sources import SourceFile


@dataclass(frozen=True)
class ClaimedJob:
    """A job that this worker owns until its lease ends.

    attempt counts failures and this attempt; device_faults, deaths: as in the store, before this attempt. produced_at:
    the moment that its result names: that of the claim, or of an earlier one whose files were sent and are made again.
    release: what a person said of that result, which stands in its files. patient: identity by DICOM keyword. case: how
    people call the job. slices: how many the sources hold, of which a multi-frame one has many.
    """

    id: int
    series_id: int
    series_uid: str
    study_uid: str
    bundle: str
    job_key: str
    repeat: int
    version: int
    doubt: str
    attempt: int
    sources: tuple[SourceFile, ...]
    produced_at: datetime
    device_faults: int = 0
    deaths: int = 0
    release: Release | None = None
    patient: Mapping[str, str] = field(default_factory=dict, repr=False)
    case: str = ""
    slices: int = 0


@dataclass(frozen=True)
class ProducedInstance:
    """One derived instance as written into the published folder."""

    sop_instance_uid: str
    source_sop_instance_uid: str
    file_name: str
    sha256: str


@dataclass(frozen=True)
class ProducedSeries:
    """The outcome of a job: a published folder and what is in it."""

    series_uid: str
    product_dir: str
    instances: tuple[ProducedInstance, ...]
    measurements: dict[str, Any]
    remarks: tuple[str, ...] = ()
    series_number: int | None = None
    series_description: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a running job is: `done` of `total` steps of a stage that began at `started_at` (an aware datetime)."""

    stage: str
    done: int
    total: int
    started_at: datetime


@dataclass(frozen=True)
class RewrittenFiles:
    """The same derived instances under the same file names in another folder; sha256 by SOP Instance UID, of each."""

    product_dir: str
    sha256: Mapping[str, str]

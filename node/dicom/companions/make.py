"""Makes the companions of a derived series as files beside it; importing this module imports highdicom.

A companion is made when it is first asked for, kept, and sent again in the same bytes. It is made of what lies in the
folder of the derived series and of what the store knows, so the same result always gives the same companion.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from config.syntax import Companion
from node.dicom.charsets import own_encoding, writable
from node.dicom.companions.kinds import KINDS, companion_path, companion_series_uid
from node.dicom.companions.parametric_map import build_parametric_map
from node.dicom.companions.presentation import build_presentation
from node.dicom.companions.report import build_report
from node.dicom.companions.segmentation import build_segmentation
from node.dicom.companions.series import DerivedSeries, Frame
from node.dicom.doubt_file import DOUBT_FILE, Doubt, read_doubt
from node.dicom.elements import charset_of, write_part10
from node.dicom.uids import UidFactory


@dataclass(frozen=True)
class CompanionFile:
    """One companion on the disk."""

    kind: Companion
    sop_instance_uid: str
    path: Path


@dataclass(frozen=True)
class CompanionMaker:
    """Makes the companions of the derived series in `folder`.

    measurements: of the gates, by key. decision: of the person who released the series against a doubt, in a sentence
    without patient data; "" where nobody had to.
    """

    folder: Path
    uids: UidFactory
    measurements: Mapping[str, Any] = field(default_factory=dict)
    decision: str = ""

    @property
    def has_doubt(self) -> bool:
        """Whether the doubt of every pixel was kept; whether it can be read shows when it is."""
        return (self.folder / DOUBT_FILE).is_file()

    def make(self, kind: Companion) -> CompanionFile:
        """The companion of this kind, from the disk where it was made before.

        Raises ValueError and the like for a series of which it cannot be made, and OSError.
        """
        path = companion_path(self.folder, kind)
        uid = _uid_of(path)
        if not uid:
            ds = self._build(kind)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write(ds, path)
            uid = str(ds.SOPInstanceUID)
        return CompanionFile(kind, uid, path)

    def choose(self, kinds: Sequence[Companion]) -> list[Companion]:
        """Those of these kinds that there can be of this series: without a kept doubt, none that shows it."""
        return [kind for kind in kinds if not KINDS[kind].needs_doubt or self.has_doubt]

    @cached_property
    def _doubt(self) -> Doubt | None:
        return read_doubt(self.folder)

    @cached_property
    def _series(self) -> DerivedSeries:
        return DerivedSeries.read(sorted(self.folder.glob("*.dcm")))

    def _build(self, kind: Companion) -> Dataset:
        series_uid = companion_series_uid(self.uids, self._series.uid, kind)
        frame = Frame(self._series, self.uids, series_uid, KINDS[kind].words, KINDS[kind].number)
        if kind == "report":
            return build_report(frame, self.measurements, self._written_decision())
        if kind == "presentation":
            return build_presentation(frame)
        if self._doubt is None:
            raise ValueError("no doubt was kept for this result")
        if kind == "segmentation":
            return build_segmentation(frame, self._doubt.mask)
        return build_parametric_map(frame, self._doubt.doubt_hu)

    def _written_decision(self) -> str:
        """In the character set of the series, which pydicom has to know as well to write it."""
        charset = charset_of(self._series.slices[0])
        encoding = own_encoding(charset) if python_encoding.keys() >= set(charset) else "ascii"
        return writable(self.decision, encoding)


def _uid_of(path: Path) -> str:
    """SOPInstanceUID of a companion that was made before; "" where there is none, or no whole file."""
    try:
        return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except (OSError, InvalidDicomError, AttributeError, ValueError):
        return ""


def _write(ds: Dataset, path: Path) -> None:
    """Whole or not at all, also where two senders make the same companion at once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{id(ds):x}")
    try:
        write_part10(ds, draft)
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

"""One job: the files of a non-contrast CT series become those of a synthetic contrast-enhanced one; no store.

read -> translate (meanwhile: is it really without contrast?) -> composite -> is it plausible? -> build, write, prove.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.translator import TranslationError, Translator
from node.dicom.constants import HEADER_POLICY_VERSION
from node.dicom.derived import build_slice, write_part10
from node.dicom.derived_plan import DerivedSeriesPlan, EquipmentIdentity, ModelIdentity, SeriesOptions
from node.dicom.headers import SliceHeader
from node.dicom.uids import UidFactory, join_parts
from node.dicom.volume import CTVolume, read_volume
from node.errors import Permanent
from node.pipeline.composite import Composite, composite
from node.pipeline.native_contrast import find_native_contrast
from node.pipeline.proof import flush_and_digest, prove_series, prove_slice
from node.pipeline.quality import judge_result

Progress = Callable[[str, int, int], None]

STAGES: Final = ("read", "translate", "check input", "check output", "write")
# Packages whose version may change a pixel or a header: they belong to the identity of a result.
_RESULT_PACKAGES: Final = ("syncect", "torch", "numpy", "scipy", "highdicom")
_FLUSHING_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What the settings and the moment add to a job.

    produced_at: an aware datetime, UTC. run: 1 for the first production of an input, one more for each wanted re-run.
    site_timezone: for DA and TM values where the source names no offset.
    """

    equipment: EquipmentIdentity
    produced_at: datetime
    series: SeriesOptions = field(default_factory=SeriesOptions)
    uids: UidFactory = field(default_factory=UidFactory)
    run: int = 1
    site_timezone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class DerivedFile:
    """One written slice; sha256 is that of the file's bytes, hex."""

    sop_instance_uid: str
    source_sop_instance_uid: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """A whole derived series, in ascending order along the slice normal.

    held_reason: None, or why a person must look at it before it is sent. measurements: figures of both gates and of the
    proof.
    """

    series_uid: str
    study_uid: str
    files: tuple[DerivedFile, ...]
    held_reason: str | None
    measurements: dict[str, float]


def run_job(
    paths: Sequence[Path],
    translator: Translator,
    options: JobOptions,
    out_dir: Path,
    *,
    progress: Progress | None = None,
) -> JobResult:
    """Turn the files of one series into 0001.dcm, 0002.dcm ... in `out_dir`, which exists and is empty.

    The files are flushed to the disk and read back before this returns; moving `out_dir` to its place is the caller's.
    The same files, translator and options give byte-identical files, in whatever order `paths` come. A result that a
    gate doubts is written all the same, with `held_reason`. progress(stage, done, total) is called with the names of
    STAGES; what it raises ends the job. Raises Permanent (UnreadableInstance, UnusableSeries) for an input that cannot
    become a volume, for a model's answer that is no image, and where the proof of the written files fails.
    """
    report = progress or (lambda _stage, _done, _total: None)
    volume = read_volume(paths, progress=lambda done, total: report("read", done, total))
    with ThreadPoolExecutor(1) as beside:  # a doubtful scan is translated all the same, so nothing waits for the answer
        looking = beside.submit(find_native_contrast, volume)
        predicted = _translate(volume, translator, report)
        native = looking.result()
    report("check input", 1, 1)
    result = composite(volume, predicted, translator.card.hu_window)
    verdict = judge_result(volume, predicted, result)
    report("check output", 1, 1)
    plan = plan_series(volume, translator, options)
    files = _write(volume, result, plan, out_dir, report)
    proof = prove_series(volume, [made.path for made in files], result.stored, plan.series_uid)
    return JobResult(
        series_uid=plan.series_uid,
        study_uid=volume.headers[0].study_uid,
        files=files,
        held_reason=native.reason if native.is_enhanced else verdict.reason,
        measurements={
            "native_enhanced_ml": native.enhanced_ml,
            "native_enhanced_mean_hu": native.mean_hu,
            **verdict.measurements,
            **proof,
        },
    )


def processing_digest(arithmetic: str) -> str:
    """Hex SHA-256 over all of ours that may change a pixel or a header, the bundle apart.

    arithmetic as the translator reports it, such as "cpu AVX512, 2 threads, fp32": other arithmetic gives other pixels,
    and other pixels never share a UID.
    """
    packages = [f"{name}={version(name)}" for name in _RESULT_PACKAGES]
    parts = ("processing", f"headers={HEADER_POLICY_VERSION}", *packages, arithmetic)
    return hashlib.sha256(join_parts(parts).encode()).hexdigest()


def job_key(headers: Iterable[SliceHeader], bundle_digest: str, processing: str) -> str:
    """Hex SHA-256 that is the same for the same images, bundle and processing, in whatever order they arrived."""
    return hashlib.sha256(join_parts(("job", *_content_parts(headers), bundle_digest, processing)).encode()).hexdigest()


def seed_of(headers: Iterable[SliceHeader]) -> int:
    """Seed of the noise, 0 to 2**63 - 1: a function of the series' images alone."""
    digest = hashlib.sha256(join_parts(("seed", *_content_parts(headers))).encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def plan_series(volume: CTVolume, translator: Translator, options: JobOptions) -> DerivedSeriesPlan:
    """What the slices of the derived series will have in common."""
    card, first = translator.card, volume.headers[0]
    series_uid = options.uids.series_uid(
        first.series_uid,
        [(header.sop_instance_uid, header.content_sha256) for header in volume.headers],
        bundle_digest=card.digest,
        processing_digest=processing_digest(translator.arithmetic),
        run=options.run,
    )
    return DerivedSeriesPlan(
        series_uid=series_uid,
        series_number=options.series.series_number(first.series_number),
        series_description=options.series.series_description(first.series_description),
        uids=options.uids,
        equipment=options.equipment,
        model=ModelIdentity(
            name=card.name,
            version=card.version,
            method=card.method,
            weights_sha256=card.weights_sha256,
            device=translator.device,
            precision=translator.precision,
            hu_window_hu=card.hu_window,
        ),
        produced_at=options.produced_at,
        slice_spacing_mm=volume.spacing_mm[0],
        site_timezone=options.site_timezone,
    )


def _content_parts(headers: Iterable[SliceHeader]) -> list[str]:
    pairs = sorted({(h.series_uid, h.sop_instance_uid, h.content_sha256) for h in headers})
    return [str(len(pairs)), *(part for pair in pairs for part in pair)]


def _translate(volume: CTVolume, translator: Translator, report: Progress) -> NDArray[np.float32]:
    try:
        return translator.translate(
            volume.hu, seed_of(volume.headers), progress=lambda done, total: report("translate", done, total)
        )
    except TranslationError as error:
        raise Permanent(str(error)) from error


def _write(
    volume: CTVolume, result: Composite, plan: DerivedSeriesPlan, out_dir: Path, report: Progress
) -> tuple[DerivedFile, ...]:
    paths = [out_dir / f"{z + 1:04d}.dcm" for z in range(len(volume.slices))]
    uids: list[str] = []
    with ThreadPoolExecutor(_FLUSHING_THREADS) as disk:  # pydicom stays here: its silenced warnings are the process's
        digests = []
        for z, (source, path) in enumerate(zip(volume.slices, paths, strict=True)):
            write_part10(build_slice(plan, source, result.stored[z]), path, flush=False)
            digests.append(disk.submit(flush_and_digest, path))
            uids.append(prove_slice(path, source, result.stored[z]))
            report("write", z + 1, len(paths))
    return tuple(
        DerivedFile(uid, source.header.sop_instance_uid, path, digest.result())
        for uid, source, path, digest in zip(uids, volume.slices, paths, digests, strict=True)
    )

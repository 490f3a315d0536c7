"""One job: the files of a non-contrast CT series become those of a synthetic contrast-enhanced one.

read -> translate and look again (meanwhile: is it really without contrast, and does the model know such scans?) ->
composite -> is it plausible, and does the model agree with itself? -> build, write, prove.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final, Literal, Protocol

from models.bundle import BundleCard
from models.proven import why_unproven
from models.translator import Translator
from node.dicom.derived import build_slice
from node.dicom.derived_plan import DerivedSeriesPlan, EquipmentIdentity, ModelIdentity, SeriesOptions
from node.dicom.doubt_file import Doubt, write_doubt
from node.dicom.elements import write_part10
from node.dicom.headers import SliceHeader
from node.dicom.lattice import POSITION_TOLERANCE_MM
from node.dicom.pixels import StoredPixels
from node.dicom.source_values import Remarks, doubt_of_text
from node.dicom.uids import UidFactory, processing_digest
from node.dicom.volume import CTVolume, read_volume
from node.errors import Doubtful
from node.translate.composite import Composite, composite
from node.translate.envelope import describe_outside, judge_envelope
from node.translate.native_contrast import NativeContrast, find_native_contrast
from node.translate.proof import flush_and_digest, prove_slice
from node.translate.proof_by_highdicom import load_tables, prove_by_highdicom
from node.translate.proof_by_simpleitk import prove_by_simpleitk
from node.translate.quality import judge_result
from node.translate.second_look import Contradiction, DoubtMode, compare_looks, predict

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) with the names of STAGES; what it raises ends the job."""

STAGES: Final = ("read", "translate", "second look", "check input", "check output", "write")
_FLUSHING_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the store says of the files of a job, against which each header is compared.

    sop_instance_uids: as the receiver read them, by file name. patient: the identity under which the job was queued, by
    DICOM keyword; empty where it is not known.
    """

    study_uid: str
    series_uid: str
    sop_instance_uids: Mapping[str, str]
    patient: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What the settings, the store and the moment add to a job.

    produced_at: an aware datetime, UTC. run: 1 for the first production of an input, one more for each wanted re-run.
    version: 1 for the first result of a source series, one more for each that follows it, also of other contents.
    position_tolerance_mm: how far a slice may lie from the lattice of its series.
    timezone: that of the site, None for the machine's. outside_envelope: what becomes of the result of a scan that lies
    outside what the bundle was trained on. sha256: hex, of the source files by their names, as they were received.
    recorded: None where no store knows the files. doubt: whether the model looks twice, and whether a result that it
    contradicts itself in is held, see `second_look`.
    """

    equipment: EquipmentIdentity
    produced_at: datetime
    series: SeriesOptions = field(default_factory=SeriesOptions)
    uids: UidFactory = field(default_factory=UidFactory)
    run: int = 1
    version: int = 1
    position_tolerance_mm: float = POSITION_TOLERANCE_MM
    timezone: tzinfo | None = None
    outside_envelope: Literal["hold", "warn"] = "hold"
    sha256: Mapping[str, str] = field(default_factory=dict)
    recorded: Recorded | None = None
    doubt: DoubtMode = "hold"


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

    held_reason: None, or why a person must look at it before it is sent. measurements: figures of the gates and of the
    proof. remarks: that the bundle is unproven, what lies outside its envelope where the site is only warned, and which
    values of the source were not simply kept, without patient data, at most 22. doubt: what was kept beside
    the files as DOUBT_FILE, None where the model was not asked twice.
    """

    series_uid: str
    study_uid: str
    files: tuple[DerivedFile, ...]
    held_reason: str | None
    measurements: dict[str, float]
    remarks: tuple[str, ...] = ()
    series_number: int | None = None
    series_description: str = ""
    doubt: Doubt | None = field(default=None, repr=False)


def join_reasons(*reasons: str | None) -> str | None:
    """All reasons to hold a result as one text; None where there is none."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None


def run_job(
    paths: Sequence[Path],
    translator: Translator,
    options: JobOptions,
    out_dir: Path,
    *,
    progress: Progress | None = None,
) -> JobResult:
    """Turn the files of one series into 0001.dcm, 0002.dcm ... in `out_dir`, which exists and is empty.

    Where the model looks twice, DOUBT_FILE stands beside them.

    The files are flushed to the disk and read back before this returns; moving `out_dir` to its place is the caller's.
    The same files, translator and options give byte-identical files, in whatever order `paths` come. A result that a
    gate doubts is written all the same, with `held_reason`. Raises Permanent (UnreadableInstance, DamagedInstance for
    a file that is not as it was received, DecoderStopped where its images take too long to be decoded,
    UnusableSeries) for an input that cannot become a volume of transverse
    slices, for a model's answer that is no image, and where the proof of the written files fails; Doubtful for an input
    whose pixels contradict its header, or whose headers contradict what the store recorded of them.
    """
    report = progress or (lambda _stage, _done, _total: None)
    volume = read_volume(
        paths,
        position_tolerance_mm=options.position_tolerance_mm,
        sha256=options.sha256,
        judge=lambda header: _compare_identity(header, options.recorded),
        progress=lambda done, total: report("read", done, total),
    )
    with ThreadPoolExecutor(1) as beside:  # a doubtful scan is translated all the same, so nothing waits for the answer
        looking = beside.submit(find_native_contrast, volume)
        knowing = beside.submit(judge_envelope, volume, translator.card.envelope)
        predicted = predict(volume, translator, lambda *at: report("translate", *at), again=False)
        second = None
        if options.doubt != "off":
            second = predict(volume, translator, lambda *at: report("second look", *at), again=True)
        native, envelope = looking.result(), knowing.result()
    warned = bool(envelope.outside) and options.outside_envelope == "warn"
    if warned:
        log.warning("%s", describe_outside(envelope.outside), extra={"event": "input_outside_envelope"})
    report("check input", 1, 1)
    result = composite(volume, predicted, translator.card.hu_window)
    verdict = judge_result(volume, predicted, result, level_hu=translator.level_hu)
    contradicted = Contradiction.none()
    if second is not None:
        contradicted = compare_looks(volume, predicted, second, result.inside, translator.level_hu)
    report("check output", 1, 1)
    plan = _plan_series(volume, translator, options)
    remarks = Remarks()
    files = _write(volume, result, plan, out_dir, report, remarks=remarks)
    unsure_text = doubt_of_text(source.dataset for source in volume.slices)
    proof = prove_series(volume, [made.path for made in files], result.stored, plan.series_uid)
    if contradicted.doubt is not None:  # after the proofs, whose readers are shown a folder of slices only
        write_doubt(out_dir, contradicted.doubt)
    return JobResult(
        series_uid=plan.series_uid,
        study_uid=volume.headers[0].study_uid,
        files=files,
        held_reason=join_reasons(
            native.reason if native.is_enhanced else verdict.reason,
            None if warned else envelope.reason,
            contradicted.reason if options.doubt == "hold" else None,
            unsure_text,
        ),
        measurements={
            **envelope.measurements,
            "native_enhanced_ml": native.enhanced_ml,
            "native_enhanced_mean_hu": native.mean_hu,
            **_place_of(volume, native),
            **verdict.measurements,
            **contradicted.measurements,
            **proof,
        },
        remarks=_of_bundle(translator.card)
        + ((envelope.reason,) if warned and envelope.reason else ())
        + remarks.lines(),
        series_number=plan.series_number,
        series_description=plan.series_description,
        doubt=contradicted.doubt,
    )


def _of_bundle(card: BundleCard) -> tuple[str, ...]:
    """What has to be said of a bundle that is used although its card does not show that it is worth it."""
    why = why_unproven(card)
    return (f"bundle {card.name} {card.version} is UNPROVEN: {why}",) if why else ()


class AnyExecutor(Protocol):
    """What runs jobs, here or elsewhere: `Executor`, or that of a cluster.

    bundle: its label, as it stands in the rows of jobs. description: method, device and precision in words.
    spare_devices: how many more devices of the same kind there are to try in turn. digest: of the bundle, hex.
    arithmetic: all of the translator that may change the last bit of a result. device: "cpu" or "cuda".
    """

    bundle: str
    description: str
    spare_devices: int
    digest: str
    arithmetic: str
    device: str

    @property
    def card(self) -> BundleCard: ...

    def run(self, paths: Sequence[Path], options: JobOptions, out_dir: Path, progress: Progress) -> JobResult: ...


class Executor:
    """Runs jobs in the calling thread, with one translator that is loaded once.

    spare_devices: how many more devices of the same kind this machine has. The rest: see `AnyExecutor`.
    """

    def __init__(self, bundle: str, translator: Translator, spare_devices: int = 0) -> None:
        self.bundle, self.description, self.spare_devices = bundle, translator.description, spare_devices
        self.digest, self.arithmetic, self.device = translator.card.digest, translator.arithmetic, translator.device
        self._translator = translator
        load_tables()

    @property
    def card(self) -> BundleCard:
        """The card of the loaded bundle."""
        return self._translator.card

    def run(self, paths: Sequence[Path], options: JobOptions, out_dir: Path, progress: Progress) -> JobResult:
        """Run one job; raises NodeError, or what `progress` raises."""
        return run_job(paths, self._translator, options, out_dir, progress=progress)


def _compare_identity(header: SliceHeader, recorded: Recorded | None) -> None:
    """Raise Doubtful where the worker reads another identity than the receiver read, and the gate judged."""
    if recorded is None:
        return
    received = recorded.sop_instance_uids[header.path.name]
    for keyword, known, read in (
        ("SOPInstanceUID (0008,0018)", received, header.sop_instance_uid),
        ("SeriesInstanceUID (0020,000E)", recorded.series_uid, header.series_uid),
        ("StudyInstanceUID (0020,000D)", recorded.study_uid, header.study_uid),
    ):
        if known != read:
            raise Doubtful(f"in instance {received} the {keyword} was received as {known} and is read as {read}")
    patient = header.patient.by_keyword()
    other = [key for key, known in recorded.patient.items() if _printable(known) != _printable(patient.get(key, ""))]
    if other:  # the values are the patient's, and this reason is for everybody
        raise Doubtful(f"in instance {received} {', '.join(other)} differs from that for which the job was queued")


def _printable(text: str) -> str:
    """What is left of a text by which the store can keep it, on either side."""
    return "".join(c for c in text if c.isprintable() and c != "\N{REPLACEMENT CHARACTER}")


def _plan_series(volume: CTVolume, translator: Translator, options: JobOptions) -> DerivedSeriesPlan:
    """What the slices of the derived series will have in common."""
    card, first = translator.card, volume.headers[0]
    series_uid = options.uids.series_uid(
        first.series_uid,
        [(header.image_name, header.content_sha256) for header in volume.headers],
        bundle_digest=card.digest,
        processing_digest=processing_digest(translator.arithmetic),
        run=options.run,
    )
    version, names = options.version, options.series
    return DerivedSeriesPlan(
        series_uid=series_uid,
        series_number=names.series_number(first.series_number, version),
        series_description=names.series_description(first.series_description, version),
        version=version,
        replaced_number=names.series_number(first.series_number, version - 1) if version > 1 else None,
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
            blood_level_hu=translator.level_hu,
        ),
        produced_at=options.produced_at,
        slice_spacing_mm=volume.spacing_mm[0],
        site_timezone=options.timezone,
    )


def _place_of(volume: CTVolume, native: NativeContrast) -> dict[str, float]:
    """Where a person should look first in a scan that looks enhanced: z of the slice with most of such tissue, mm."""
    if native.fullest_slice is None:
        return {}
    position_mm = volume.headers[native.fullest_slice].image_position_mm
    assert position_mm is not None  # a slice without has no place in a volume
    return {"native_enhanced_z_mm": position_mm[2]}


def _write(
    volume: CTVolume, result: Composite, plan: DerivedSeriesPlan, out_dir: Path, report: Progress, *, remarks: Remarks
) -> tuple[DerivedFile, ...]:
    paths = [out_dir / f"{z + 1:04d}.dcm" for z in range(len(volume.slices))]
    uids: list[str] = []
    with ThreadPoolExecutor(_FLUSHING_THREADS) as disk:  # pydicom stays here: its silenced warnings are the process's
        digests = []
        for z, (source, path) in enumerate(zip(volume.slices, paths, strict=True)):
            write_part10(build_slice(plan, source, result.stored[z], remarks), path)
            digests.append(disk.submit(flush_and_digest, path))
            uids.append(prove_slice(path, source, result.stored[z]))
            report("write", z + 1, len(paths))
    return tuple(
        DerivedFile(uid, source.header.sop_instance_uid, path, digest.result())
        for uid, source, path, digest in zip(uids, volume.slices, paths, digests, strict=True)
    )


def prove_series(volume: CTVolume, written: Sequence[Path], stored: StoredPixels, series_uid: str) -> dict[str, float]:
    """Let highdicom and SimpleITK, which are not ours, read a written series and its source, and compare what they see.

    written: all files of the series, in one folder and in the order of z. stored: [z, y, x], the values meant. Returns
    figures of both readers. Raises ProofFailed that names the reader and the figure that differs: number or order of
    slices, position, orientation, pixel spacing, slice spacing, size, HU.
    """
    # One after the other: beside highdicom, which is Python, SimpleITK's threads would wait for the interpreter's lock.
    return prove_by_highdicom(volume, written) | prove_by_simpleitk(volume, written, stored, series_uid)

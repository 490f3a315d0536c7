"""One commissioning, from a bundle to the report that is signed: report.html, report.pdf and report.json."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import models
from models.cohort import Cohort, CohortPatient
from models.evaluation import evaluate
from models.evaluation.regions import RegionFile, read_regions
from models.translator import Device, Precision, Translator
from node.cohorts.phantom import write_phantom
from node.commission import REPORT_MARK, measured, node_side
from node.commission.pages import Document, write_html, write_pdf
from node.commission.parts import Section
from node.commission.subjects import Made, Subject, make, of_folder, of_patient
from node.version import software_version

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Phantom:
    """The patients that are made where no cohort is given: enough for a look, far too few for a decision."""

    patients: int = 8
    slices: int = 10
    rows: int = 512
    slice_spacing_mm: float = 8.0
    seed: int = 2026


@dataclass(frozen=True)
class Wish:
    """What to commission, on what. cohort: None for phantom patients made on the spot. data, regions: both or none.

    whole_jobs: so many test patients of the cohort go through whole jobs.
    """

    bundle: str
    cohort: Cohort | None = None
    data: Path | None = None
    regions: Path | None = None
    device: Device = "auto"
    precision: Precision = "auto"
    patients: int | None = None
    whole_jobs: int = 2
    phantom: Phantom = Phantom()


@dataclass(frozen=True)
class Written:
    """The files of a report, and the SHA-256 of the one that is signed."""

    folder: Path
    digest: str
    pdf_sha256: str
    sections: tuple[Section, ...]


def commission(wish: Wish, out: Path, progress: Progress) -> Written:
    """Make the report in the folder `out`, which exists and is empty.

    progress(what) tells in words what is being done. Raises ModelsError and NodeError where a bundle, a cohort or a
    series cannot be used.
    """
    path = models.find_bundle(wish.bundle)
    models.verify_bundle(path)
    translator = models.load_bundle(path, device=wish.device, precision=wish.precision)
    named = read_regions(wish.regions) if wish.regions is not None else RegionFile()
    with TemporaryDirectory(dir=out, prefix=".commission-") as name:
        work = Path(name)
        cohort, where = _cohort(wish, work, progress)
        progress("evaluation")
        report = evaluate(
            cohort,
            [path],
            work / "evaluation",
            device=wish.device,
            precision=wish.precision,
            patients=wish.patients,
        )
        patients, real = _make(wish, cohort, translator, named=named, work=work, progress=progress)
        own = next(row.name for row in report.rows if row.name not in ("identity", "mean_enhancement"))
        progress("gates, drills and dose")
        sections = [
            node_side.identity(translator),
            measured.evaluation(report, where, own),
            measured.agreement(report, own),
            *([measured.regions(real, named)] if real else []),
            node_side.gates([*patients, *real], translator, work / "attacks"),
            node_side.delivered(patients[0], work),
            node_side.timing([*patients, *real]),
            node_side.drills(patients[0].subject, path, translator),
            measured.dose([patients[0], *real]),
        ]
    return _write(wish, translator, cohort, sections, out)


def _cohort(wish: Wish, work: Path, progress: Progress) -> tuple[Cohort, str]:
    """The cohort, and in words what it is."""
    if wish.cohort is not None:
        made = wish.cohort
        return made, f"Measured on the test patients of a cohort of kind {made.kind}, digest {made.digest[:16]}."
    progress("phantom patients")
    size = wish.phantom
    made = write_phantom(
        work / "phantom",
        size.patients,
        size.seed,
        slices=size.slices,
        rows=size.rows,
        slice_spacing_mm=size.slice_spacing_mm,
        external_share=0.25,
        dicom=False,
    )
    return made, (
        f"NO PATIENTS: measured on {size.patients} invented phantom patients made on the spot (seed "
        f"{size.seed}, digest "
        f"{made.digest[:16]}), since no cohort was given. This says that the installation works. It does not "
        f"say how the "
        "bundle does on the department's own patients; for that, build a cohort and give it with --cohort."
    )


def _make(
    wish: Wish, cohort: Cohort, translator: Translator, *, named: RegionFile, work: Path, progress: Progress
) -> tuple[list[Made], list[Made]]:
    """Whole jobs on test patients of the cohort, and on the real series that the regions name."""
    tested: Sequence[CohortPatient] = [*cohort.split("internal"), *cohort.split("external")]
    subjects: list[Subject] = [of_patient(one, work / "scans" / one.id) for one in tested[: wish.whole_jobs]]
    real = [of_folder(wish.data / name, name) for name in named.series] if wish.data is not None else []
    made = []
    for place, subject in enumerate([*subjects, *real]):
        progress(f"whole job: {subject.name}")
        made.append(make(subject, translator, work / "made" / str(place)))
    return made[: len(subjects)], made[len(subjects) :]


def _write(wish: Wish, translator: Translator, cohort: Cohort, sections: Sequence[Section], out: Path) -> Written:
    card = translator.card
    contents: dict[str, Any] = {
        "bundle": {"name": card.name, "version": card.version, "digest": card.digest, "weights": card.weights_sha256},
        "software": software_version(),
        "device": translator.description,
        "cohort": {"kind": cohort.kind, "digest": cohort.digest, "given": wish.cohort is not None},
        "sections": [one.to_mapping() for one in sections],
        "pictures": [hashlib.sha256(one.png).hexdigest() for section in sections for one in section.pictures],
    }
    digest = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
    made_at = datetime.now(UTC)
    document = Document(
        f"Commissioning of {card.name} {card.version}",
        (
            f"Made on {made_at:%Y-%m-%d} at {made_at:%H:%M} UTC by syncect {software_version()}. A physicist reads it, "
            "decides and signs at its end. Results of this bundle are synthetic images for planning; they are not for "
            "dose calculation.",
        ),
        tuple(sections),
        digest,
        f"{REPORT_MARK}{card.digest}",
        f"syncect models accept {wish.bundle} --report report.pdf --who NAME",
    )
    write_html(out / "report.html", document)
    write_pdf(out / "report.pdf", document)
    files = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in ("report.html", "report.pdf")}
    listed = {"mark": document.mark, "made_at": made_at.isoformat(), "contents_sha256": digest, "files_sha256": files}
    (out / "report.json").write_text(json.dumps(listed | contents, indent=1) + "\n", encoding="utf-8")
    return Written(out, digest, files["report.pdf"], tuple(sections))

"""One evaluation, from cohort and bundles to a folder of results."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.bundle import HU_WINDOW
from models.cohort import Cohort, CohortError, CohortPatient
from models.evaluation.figures import PanelRow, write_bland_altman, write_panel
from models.evaluation.measure import PatientBench, PatientFigures
from models.evaluation.predictors import Bundle, Identity, MeanEnhancement, Predictor
from models.evaluation.summary import PAPERS_COHORTS, PairedTest, Row, run_tests, summarise
from models.evaluation.tables import (
    comparison_table,
    detail_table,
    dump_json,
    metrics_table,
    papers_tables,
    slice_table,
    structure_table,
    write_page,
    write_table,
)
from models.frame import Frame
from models.translator import Device, Precision, Translator, load_bundle

MATRIX = 256
"""The literature's matrix; all pictures are compared at it and in HU_WINDOW, whatever a bundle's own are."""
PLOTTED = (
    "blood_pool",
    "aorta",
    "pulmonary_artery",
    "svc",
    "subclavian_axillary",
    "lymph_nodes",
    "myocardium",
    "liver",
    "muscle",
    "lung_mass",
)
_PANEL_PATIENTS = 3
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """What an evaluation found and wrote: rows of metrics.json, paired tests, files, figures of each patient."""

    path: Path
    rows: tuple[Row, ...]
    tests: tuple[PairedTest, ...]
    files: tuple[Path, ...]
    figures: tuple[PatientFigures, ...] = field(default=(), repr=False)


@dataclass
class _Findings:
    """Figures and panel rows as patients go by."""

    figures: list[PatientFigures] = field(default_factory=list)
    panels: dict[str, list[PanelRow]] = field(default_factory=dict)


def evaluate(
    cohort: Cohort,
    bundles: Sequence[Path],
    out: Path,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    matrix: int = MATRIX,
    patients: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure bundles on the test patients of a cohort, beside `identity` and `mean_enhancement`, and write a report.

    Splits `internal` and `external` are measured, each against the registered second scan and, where the cohort knows
    it, in a second reading (`internal_misregistered`, ...) against the scan as it was taken. `mean_enhancement` learns
    from the split `train`. Pictures are compared in the window [-40, 400] HU at `matrix` (256 in the literature).
    `patients`: only the first so many of each test split, for a quick look. progress(done, total) counts patients.

    Writes to the folder `out`, which should be new, since nothing is removed from it: metrics.json {"rows": [...]} and
    metrics.csv; report.json (what was measured on what, paired tests); report.html, all of it in one file;
    table_internal, table_external, structures, details and comparisons as .html, .csv and .json; slices.csv;
    panel_*.png and bland_altman_*.png. Patients whose source is a virtual non-contrast image are rows of their own,
    `internal_virtual` and `external_virtual`. Raises CohortError where the cohort has no patient to learn from or to
    test on, BundleError for a damaged bundle, DeviceUnavailable, TranslationError, ValueError where two bundles are the
    same.
    """
    tested = [p for split in PAPERS_COHORTS for p in cohort.split(split)[:patients]]
    trained = cohort.split("train")
    if not tested or not trained:
        raise CohortError(f"{cohort.path}: evaluation needs patients in split train and in internal or external.")
    models = _named([load_bundle(path, device=device, precision=precision) for path in bundles])
    predictors: list[Predictor] = [Identity(HU_WINDOW), MeanEnhancement.learn(trained, HU_WINDOW), *models]
    findings = _Findings()
    for done, patient in enumerate(tested, 1):
        _measure(patient, predictors, Frame(HU_WINDOW, matrix), findings)
        if progress is not None:
            progress(done, len(tested))
    rows, tests = summarise(findings.figures), run_tests(findings.figures)
    out.mkdir(parents=True, exist_ok=True)
    described = {m.name: _describe(m) for m in models}
    facts = {"matrix": matrix, "patients_of_each_split": patients, "bundles": described}
    pictures = _write_pictures(out, findings)
    files = [
        *_write_json(out, cohort, (rows, tests), facts),
        *pictures,
        *_write_tables(out, cohort, (rows, tests), findings.figures, pictures),
    ]
    return Report(out, tuple(rows), tuple(tests), tuple(files), tuple(findings.figures))


def _measure(patient: CohortPatient, predictors: Sequence[Predictor], frame: Frame, findings: _Findings) -> None:
    bench = PatientBench(patient, frame)
    shown, slice_ = {}, bench.telling_slice()
    for predictor in predictors:
        prediction = predictor.predict(bench.ncct_hu, patient.record)
        findings.figures += bench.measure(predictor.name, prediction)
        shown[predictor.name] = prediction[slice_].copy()
    panel = findings.panels.setdefault(bench.cohort, [])
    if len(panel) < _PANEL_PATIENTS:
        panel.append(PanelRow(f"{patient.id}, slice {slice_}", bench.clean_hu[slice_].copy(), shown))


def _named(translators: Sequence[Translator]) -> list[Bundle]:
    """Bundles under the names of their cards; a name that two share, or that a baseline has, gets the digest too."""
    taken = Counter([*(t.card.name for t in translators), "identity", "mean_enhancement"])
    names = [f"{t.card.name}@{t.card.digest[:8]}" if taken[t.card.name] > 1 else t.card.name for t in translators]
    if len(set(names)) < len(names):
        raise ValueError("the same bundle was given twice")
    return [Bundle(name, t, HU_WINDOW) for name, t in zip(names, translators, strict=True)]


def _describe(bundle: Bundle) -> dict[str, object]:
    card = bundle.translator.card
    return {
        "name": card.name,
        "version": card.version,
        "method": card.method,
        "digest": card.digest,
        "matrix": card.matrix,
        "hu_window": list(card.hu_window),
        "training": dict(card.training),
        "ran_on": bundle.translator.device,
        "precision": bundle.translator.precision,
    }


def _write_json(
    out: Path, cohort: Cohort, results: tuple[Sequence[Row], Sequence[PairedTest]], facts: Mapping[str, object]
) -> list[Path]:
    report: dict[str, object] = {
        "cohort": {"kind": cohort.kind, "digest": cohort.digest, "provenance": dict(cohort.provenance)},
        "excluded": [{"id": name, "reason": reason} for name, reason in cohort.excluded],
        "window_hu": list(HU_WINDOW),
        **facts,
        "tests": [test.to_mapping() for test in results[1]],
    }
    metrics: dict[str, object] = {"rows": [row.to_mapping() for row in results[0]]}
    texts = {"metrics.json": metrics, "report.json": report}
    for name, value in texts.items():
        (out / name).write_text(dump_json(value), encoding="utf-8")
    return [out / name for name in texts]


def _write_pictures(out: Path, findings: _Findings) -> list[Path]:
    files = []
    for cohort, rows in findings.panels.items():
        files.append(out / f"panel_{cohort}.png")
        write_panel(files[-1], rows, title=f"{cohort}: registered truth without noise, and what each row predicts")
    # Against a displaced scan the spread would show motion, not the model.
    for cohort in findings.panels:
        figures = [f for f in findings.figures if f.cohort == cohort]
        structures = [s for s in PLOTTED if any(s in f.structures for f in figures)]
        if structures:
            files.append(out / f"bland_altman_{cohort}.png")
            write_bland_altman(files[-1], figures, structures, title=f"{cohort}: mean HU per structure and patient")
    return files


def _write_tables(
    out: Path,
    cohort: Cohort,
    results: tuple[Sequence[Row], Sequence[PairedTest]],
    figures: Sequence[PatientFigures],
    pictures: Sequence[Path],
) -> list[Path]:
    rows, tests = results
    tables = papers_tables(rows, tests) | {
        "structures": structure_table(rows),
        "details": detail_table(rows),
        "comparisons": comparison_table(tests),
    }
    files = [file for stem, table in tables.items() for file in write_table(out, stem, table)]
    (out / "slices.csv").write_text(slice_table(figures).to_csv(), encoding="utf-8", newline="")
    intro = f"Cohort: {cohort.kind}, digest {cohort.digest}. Test patients were not seen in training where the bundles "
    intro += "were trained on the split train of this cohort; report.json says what each was trained on."
    (out / "metrics.csv").write_text(metrics_table(rows).to_csv(), encoding="utf-8", newline="")
    write_page(out / "report.html", "Evaluation", intro, tables=tables.values(), rows=rows, pictures=pictures)
    return [*files, out / "slices.csv", out / "metrics.csv", out / "report.html"]

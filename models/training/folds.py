"""What the folds of a cross-validation came to, as one table."""

import csv
import io
import json
import statistics
from pathlib import Path

from models.bundle import CARD_FILE, read_card
from models.training.checkpoint import write_whole
from models.training.journal import FIGURES, VALIDATIONS_FILE
from models.training.loop import BUNDLE_FOLDER

FOLDS_FILE = "folds.csv"
_COLUMNS = ("fold", "patients", "slices", "epoch", "steps", *FIGURES)


def fold_folder(out: Path, fold: int) -> Path:
    """Where the run of a fold, counted from 1, lies."""
    return out / f"fold-{fold}"


def summarise_folds(out: Path, folds: int) -> list[dict[str, object]] | None:
    """Write `out`/folds.csv: a row for each fold, then mean and SD of the sample; None before all folds have a bundle.

    The figures are those of each fold's best epoch on the patients that it left out, by which that epoch was chosen:
    they compare settings, and flatter the model a little. Returns the rows.
    """
    bundles = [fold_folder(out, fold) / BUNDLE_FOLDER for fold in range(1, folds + 1)]
    if not all((bundle / CARD_FILE).exists() for bundle in bundles):
        return None
    rows = [_row(fold, bundle) for fold, bundle in enumerate(bundles, 1)]
    for name, summary in (("mean", statistics.fmean), ("sd", statistics.stdev)):
        means = {key: round(summary([float(str(row[key])) for row in rows[:folds]]), 5) for key in FIGURES}
        rows.append({**dict.fromkeys(_COLUMNS, ""), "fold": name, **means})
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_whole(out / FOLDS_FILE, text.getvalue())
    return rows


def _row(fold: int, bundle: Path) -> dict[str, object]:
    training = read_card(bundle).training
    lines = (bundle.parent / VALIDATIONS_FILE).read_text(encoding="utf-8").splitlines()
    best = min((json.loads(line) for line in lines), key=lambda figures: float(figures["nmae"]))
    plain = {key: training[key] for key in ("patients", "slices", "epoch", "steps")}
    return {"fold": fold, **plain, **{key: round(best[key], 5) for key in FIGURES}}

"""Promises of a cross-validation: whole patients, each validated on once, equal folds every time, one table."""

import csv
import statistics
from pathlib import Path

import pytest

from models.cohort import Cohort
from models.training import TrainingError, fold_folder, summarise_folds, train
from models.training.journal import FIGURES
from models.training.people import choose_people
from tests.component.models.training_cohort import lines, options


def test_each_patient_is_left_out_once_and_test_patients_never_come_in(cohort: Cohort) -> None:
    folds = [choose_people(cohort, options(folds=3, fold=fold)) for fold in (1, 2, 3)]
    left_out = [patient.id for fold in folds for patient in fold.validation]
    assert sorted(left_out) == ["P0", "P1", "P2", "P3"]  # P4 is a test patient
    for fold in folds:
        assert sorted(p.id for p in (*fold.train, *fold.validation)) == ["P0", "P1", "P2", "P3"]
    assert sorted(len(fold.validation) for fold in folds) == [1, 1, 2]
    again = [choose_people(cohort, options(folds=3, fold=fold, regime={"seed": 9})) for fold in (1, 2, 3)]
    assert [[p.id for p in fold.validation] for fold in again] == [[p.id for p in fold.validation] for fold in folds]


def test_folds_that_cannot_be_are_refused(cohort: Cohort) -> None:
    with pytest.raises(TrainingError, match="5 folds need as many patients; train and validation have 4"):
        choose_people(cohort, options(folds=5, fold=1))
    with pytest.raises(TrainingError, match="one of the 3 folds must be named"):
        choose_people(cohort, options(folds=3))
    with pytest.raises(TrainingError, match="fold is 4 of 3"):
        options(folds=3, fold=4)
    with pytest.raises(TrainingError, match="does not go with folds"):
        options(folds=3, fold=1, without_validation=True)


def test_the_table_has_each_fold_mean_and_spread(cohort: Cohort, tmp_path: Path) -> None:
    for fold in (1, 2):
        assert summarise_folds(tmp_path, 2) is None
        result = train(
            cohort, fold_folder(tmp_path, fold), options("pix2pix", regime={"epochs": 2}, folds=2, fold=fold)
        )
        assert result.card.training["fold"] == f"{fold} of 2, by patient"
        assert result.card.training["patients"] == 2
    summarise_folds(tmp_path, 2)
    with (tmp_path / "folds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["1", "2", "mean", "sd"]
    for key in FIGURES:
        best = []
        for fold, row in zip((1, 2), rows, strict=False):
            line = min(lines(fold_folder(tmp_path, fold), "validations.jsonl"), key=lambda one: one["nmae"])
            assert float(row[key]) == pytest.approx(line[key], abs=1e-5)
            assert int(row["epoch"]) == line["epoch"]
            best.append(line[key])
        assert float(rows[2][key]) == pytest.approx(statistics.fmean(best), abs=2e-5)
        assert float(rows[3][key]) == pytest.approx(statistics.stdev(best), abs=2e-5)

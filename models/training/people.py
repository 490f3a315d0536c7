"""Which patients train and which validate: as the cohort's splits say, or in folds; always whole patients."""

from dataclasses import dataclass

import numpy as np

from models.cohort import Cohort, CohortPatient
from models.training.options import TrainingError, TrainOptions

_ORDER_SEED = 0  # of the order in which patients are dealt to folds: equal for every run on a cohort


@dataclass(frozen=True)
class People:
    """Patients whose slices are trained on, and others by whose slices the best epoch is chosen."""

    train: tuple[CohortPatient, ...]
    validation: tuple[CohortPatient, ...]


def choose_people(cohort: Cohort, options: TrainOptions) -> People:
    """The patients of a run; raises TrainingError where nobody is left to train or to validate on.

    Folds share out the patients of the splits "train" and "validation", in an order drawn from their number alone: the
    same cohort gives the same folds, their sizes differ by one patient at most, and test patients are in none of them.
    """
    train, validation = cohort.split("train"), cohort.split("validation")
    if not train:
        raise TrainingError(f"{cohort.path} has no patient in the split train.")
    if options.folds:
        return _fold([*train, *validation], options)
    if options.without_validation:
        return People(train, ())
    if not validation:
        raise TrainingError(
            f"{cohort.path} has no patient in the split validation, so no epoch can be called the best. Build the "
            "cohort of more patients, or train in folds (--folds) or with --without-validation: the last epoch counts."
        )
    return People(train, validation)


def _fold(patients: list[CohortPatient], options: TrainOptions) -> People:
    if not options.fold:
        raise TrainingError(f"fold is 0; one of the {options.folds} folds must be named.")
    if len(patients) < options.folds:
        raise TrainingError(f"{options.folds} folds need as many patients; train and validation have {len(patients)}.")
    by_id = sorted(patients, key=lambda patient: patient.id)
    order = np.random.Generator(np.random.Philox(_ORDER_SEED)).permutation(len(by_id))
    chosen = {by_id[int(k)].id for k in order[options.fold - 1 :: options.folds]}
    return People(
        tuple(patient for patient in patients if patient.id not in chosen),
        tuple(patient for patient in patients if patient.id in chosen),
    )

"""One loop that trains every method of `models.registry` on a cohort and ends in a bundle; needs the extra `train`."""

from models.training.accelerated import OfOneProcess, is_first, is_spokesman
from models.training.estimate import Estimate, estimate
from models.training.folds import FOLDS_FILE, fold_folder, summarise_folds
from models.training.loop import Observer, TrainResult, train
from models.training.options import Diverged, TrainingError, TrainOptions
from models.training.runfile import SETTINGS_FILE, read_options, render
from models.training.slices import UnreadableSlice

__all__ = [
    "FOLDS_FILE",
    "SETTINGS_FILE",
    "Diverged",
    "Estimate",
    "Observer",
    "OfOneProcess",
    "TrainOptions",
    "TrainResult",
    "TrainingError",
    "UnreadableSlice",
    "estimate",
    "fold_folder",
    "is_first",
    "is_spokesman",
    "read_options",
    "render",
    "summarise_folds",
    "train",
]

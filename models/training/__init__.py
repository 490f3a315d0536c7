"""One loop that trains every method of `models.registry` on a cohort and ends in a bundle; needs the extra `train`."""

from models.training.loop import Observer, TrainResult, train
from models.training.options import Diverged, TrainingError, TrainOptions

__all__ = ["Diverged", "Observer", "TrainOptions", "TrainResult", "TrainingError", "train"]

"""Measurement of bundles on a cohort beside two rows that know no model."""

from models.evaluation.card import write_metrics
from models.evaluation.run import Report, evaluate
from models.evaluation.summary import Row

__all__ = ["Report", "Row", "evaluate", "write_metrics"]

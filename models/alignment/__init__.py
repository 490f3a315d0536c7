"""Registration of two scans of one patient, by SimpleITK, with a report on how well they fit; knows no DICOM."""

from models.alignment.quality import AlignmentQuality
from models.alignment.register import Alignment, align
from models.alignment.search import AlignmentError, Grid

__all__ = ["Alignment", "AlignmentError", "AlignmentQuality", "Grid", "align"]

"""A procedural thorax phantom: invented patients with a true pair of scans."""

from models.phantom.patient import PhantomPatient, make_patient
from models.phantom.teaching import make_teaching_patient
from models.phantom.tissues import HOSPITALS, Hospital, Label

__all__ = ["HOSPITALS", "Hospital", "Label", "PhantomPatient", "make_patient", "make_teaching_patient"]

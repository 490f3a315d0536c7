"""An anatomy that teaches what lights in a contrast scan and what does not."""

from models.phantom.teaching.patient import make_teaching_patient

__all__ = ["make_teaching_patient"]

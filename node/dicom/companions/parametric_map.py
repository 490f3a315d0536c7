"""The doubt as a DICOM Parametric Map: one frame for each derived slice, 16 bits, mapped to HU."""

from typing import Final

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.dicom.companions.codes import DOUBT, HU, own_scheme
from node.dicom.companions.series import BODY_PART, SPACE, Frame

_LARGEST_HU: Final = 255
_SHOWN_HU: Final = 100.0


def build_parametric_map(frame: Frame, doubt_hu: NDArray[np.uint8]) -> Dataset:
    """The doubt of every pixel in whole HU, 0 to 255: a stored value is the doubt itself. The window shows 0 to 100 HU.

    doubt_hu: [z, y, x] of the derived series, in its order of slices. Raises ValueError for another shape.
    """
    first = frame.series.slices[0]
    if doubt_hu.shape != (len(frame.series.slices), first.Rows, first.Columns):
        raise ValueError(f"a doubt of shape {doubt_hu.shape} does not fit the derived series")
    mapping = RealWorldValueMapping(
        lut_label="DOUBT_HU",
        lut_explanation="Difference of two looks of the model at a pixel",
        unit=HU,
        value_range=(0, _LARGEST_HU),
        slope=1.0,
        intercept=0.0,
        quantity_definition=DOUBT,
    )
    built = ParametricMap(
        source_images=frame.series.evidence,
        pixel_array=doubt_hu.astype(np.uint16),  # this kind of object has 16 bits at least
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=_SHOWN_HU / 2, window_width=_SHOWN_HU)],
        content_label="DOUBT",
        content_description="Doubt of a synthetic image in HU. Not for dose.",
        coding_schemes=own_scheme(),
        **frame.arguments,
    )
    return frame.finished(built, *BODY_PART, *SPACE)

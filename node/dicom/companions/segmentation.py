"""The doubt mask as a DICOM Segmentation: binary, one segment, on the pixels of the derived slices."""

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from node.dicom.companions.codes import REGION_OF_DOUBT, own_scheme
from node.dicom.companions.series import SPACE, Frame


def build_segmentation(frame: Frame, mask: NDArray[np.bool_]) -> Dataset:
    """Segment 1 is where the result is doubtful. mask: [z, y, x] of the derived series, in its order of slices.

    A slice without a doubtful pixel has no frame, unless no slice has one. Raises ValueError for a mask of another
    shape.
    """
    first = frame.series.slices[0]
    if mask.shape != (len(frame.series.slices), first.Rows, first.Columns):
        raise ValueError(f"a mask of shape {mask.shape} does not fit the derived series")
    name, version = frame.series.model
    segment = SegmentDescription(
        segment_number=1,
        segment_label="Region of doubt",
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=REGION_OF_DOUBT,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=name, family=codes.DCM.ArtificialIntelligence, version=version
        ),
    )
    built = Segmentation(
        source_images=frame.series.evidence,
        pixel_array=mask.astype(np.uint8),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        omit_empty_frames=bool(mask.any()),
        content_label="DOUBT",
        content_description="Where a synthetic image is doubtful. Not for dose.",
        coding_schemes=own_scheme(),
        **frame.arguments,
    )
    return frame.finished(built, "BodyPartExamined", *SPACE)  # dciodvfy refuses Laterality here

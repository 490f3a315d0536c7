"""How the derived slices are shown: the window of planning, and in words that they are synthetic (PS3.3 A.33.1)."""

from typing import Final

from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextJustificationValues,
    TextObject,
)
from pydicom.dataset import Dataset

from node.dicom.companions.series import BODY_PART, Frame

WINDOW_HU: Final = (60.0, 400.0)  # centre and width: -140 to 260 HU, as in the derived slices themselves
LABEL: Final = "SYNTHETIC, NOT FOR DOSE"
# Left, top, right and bottom as fractions of what is displayed: the upper edge, whatever the size or zoom of the image.
_PLACE: Final = (0.25, 0.01, 0.75, 0.06)


def build_presentation(frame: Frame) -> Dataset:
    """A grayscale softcopy presentation state of all slices; the words are a graphic, no pixel is touched."""
    images = frame.series.evidence
    layer = GraphicLayer(layer_name="LABEL", order=1, description="What every image is")
    words = TextObject(
        text_value=LABEL,
        units=AnnotationUnitsValues.DISPLAY,
        bounding_box=_PLACE,
        text_justification=TextJustificationValues.CENTER,
    )
    built = GrayscaleSoftcopyPresentationState(
        referenced_images=images,
        content_label="SYNTHETIC",
        content_description=LABEL,
        graphic_layers=[layer],
        graphic_annotations=[GraphicAnnotation(referenced_images=images, graphic_layer=layer, text_objects=[words])],
        voi_lut_transformations=[SoftcopyVOILUTTransformation(window_center=WINDOW_HU[0], window_width=WINDOW_HU[1])],
        **frame.arguments,
    )
    return frame.finished(built, *BODY_PART)

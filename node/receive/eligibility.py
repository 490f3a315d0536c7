"""The input gate: which series is translated, which is left alone and why. It judges headers that others read.

Read KINDS, IDENTITY, the geometry, then the site's own rules: the first rule that a series breaks is its reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from config.syntax import MAX_UID_CHARS
from node.dicom.attribute_rules import Rule
from node.dicom.constants import (
    CT_IMAGE_STORAGE,
    MULTI_FRAME_CT_CLASSES,
    PRODUCT_NAME,
    SECONDARY_CAPTURE_CLASSES,
)
from node.dicom.geometry import Flaw, FlawKind, describe_stack, is_transverse
from node.dicom.headers import SliceHeader
from node.dicom.lattice import POSITION_TOLERANCE_MM
from node.dicom.pixels import can_decode
from node.dicom.volume import plane_of

DEFAULT_MIN_SLICES: Final = 8


@dataclass(frozen=True, slots=True)
class Accept:
    """The series is a non-contrast CT on one gap-free lattice; spacing_mm is the step between its slices."""

    slices: int
    spacing_mm: float


@dataclass(frozen=True, slots=True)
class Skip:
    """The series is not for this node. code: a stable name of the rule. reason: a clause without patient data.

    depends_on_count: True where more slices could change the verdict, so that a broken-off transfer proves nothing.
    """

    code: str
    reason: str
    depends_on_count: bool = False


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Slices are missing between those that arrived; more of them may still come."""

    reason: str


Verdict = Accept | Skip | Incomplete


@dataclass(frozen=True, slots=True)
class EligibilityPolicy:
    """What a site decides. Raises ValueError for min_slices below 2, which would leave no geometry to check.

    position_tolerance_mm: how far a slice may lie from the lattice of its series.
    """

    min_slices: int = DEFAULT_MIN_SLICES
    position_tolerance_mm: float = POSITION_TOLERANCE_MM
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if self.min_slices < 2:
            raise ValueError(f"min_slices must be at least 2, not {self.min_slices}")

    @property
    def keywords(self) -> tuple[str, ...]:
        """Attributes that the site rules look at: `read_header` must be asked for them."""
        return tuple(sorted({rule.keyword for rule in self.rules}))


@dataclass(frozen=True, slots=True)
class SliceRule:
    """Something that no slice of a translatable series is or has."""

    code: str
    breaks: Callable[[SliceHeader], bool]
    reason: str


@dataclass(frozen=True, slots=True)
class SeriesRule:
    """Something that all slices of a series must share, or must not."""

    code: str
    breaks: Callable[[Sequence[SliceHeader]], bool]
    reason: str


_NOT_SCANS: Final = frozenset({"SCREEN SAVE", "SCREENSAVE", "DOSE", "DOSE_INFO", "PROT", "PATIENT_PROTOCOL"})
_REFORMATS: Final = frozenset({"MPR", "MIP", "MINIP", "AVERAGE", "AVG", "VRT", "PROJECTION IMAGE", "REFORMATTED"})
# Head or feet first, supine, prone or on a side; empty (type 2C) is allowed, as the images' orientation says the same.
_POSITIONS: Final = frozenset({"HFS", "HFP", "HFDL", "HFDR", "FFS", "FFP", "FFDL", "FFDR", ""})


def _image_type(header: SliceHeader, index: int) -> str:
    return header.image_type[index].upper() if len(header.image_type) > index else ""


def _type_words(header: SliceHeader) -> set[str]:
    """Values of ImageType from the third on, also without a vendor's prefix ("CT_SOM5 MPR" gives "MPR" too)."""
    values = {value.upper() for value in header.image_type[2:]}
    return values | {value.split(" ", 1)[-1] for value in values}


def _is_ours(header: SliceHeader) -> bool:
    ours = PRODUCT_NAME in (header.manufacturer.lower(), header.manufacturer_model_name.lower())
    return ours or header.synthetic_data.upper() == "YES"


def _has_odd_pixels(header: SliceHeader) -> bool:
    shape = (header.samples_per_pixel, header.photometric_interpretation, header.bits_allocated)
    bits = header.bits_stored or 0
    in_range = 12 <= bits <= 16 and header.high_bit == bits - 1 and header.pixel_representation in (0, 1)
    return shape != (1, "MONOCHROME2", 16) or not in_range


def _has_no_hu(header: SliceHeader) -> bool:
    return header.rescale_intercept is None or header.rescale_slope is None or header.rescale_slope <= 0


# What a series is, whatever its geometry. The first rule that it breaks becomes the reason, so the clearest come first.
KINDS: Final = (
    SliceRule(
        "enhanced_multi_frame",
        lambda h: h.sop_class_uid in MULTI_FRAME_CT_CLASSES or (h.number_of_frames or 1) > 1,
        "the series is an enhanced (multi-frame) CT object, which this node does not read",
    ),
    SliceRule(
        "screen_capture",
        lambda h: h.sop_class_uid in SECONDARY_CAPTURE_CLASSES or bool(_type_words(h) & _NOT_SCANS),
        "the series is a screen capture, dose or protocol page, not a scan",
    ),
    SliceRule(
        "not_ct_image",
        lambda h: h.sop_class_uid != CT_IMAGE_STORAGE or h.modality != "CT",
        "the series holds no CT images",
    ),
    SliceRule(
        "synthetic",
        _is_ours,
        "the series is itself synthetic (made by this node or another one), not a scan",
    ),
    SliceRule(
        "localizer",
        lambda h: "LOCALIZER" in _type_words(h),
        "the series is a localizer (scout, topogram), not an axial scan",
    ),
    SliceRule(
        "derived",
        lambda h: (
            _image_type(h, 0) == "DERIVED" or _image_type(h, 1) == "SECONDARY" or bool(_type_words(h) & _REFORMATS)
        ),
        "the images are derived from others (reformat, projection, re-compressed copy), not as they were measured",
    ),
    SliceRule(
        "not_original_axial",
        lambda h: _image_type(h, 0) != "ORIGINAL" or _image_type(h, 2) != "AXIAL",
        "the images do not declare themselves as an original axial scan (ImageType)",
    ),
    SliceRule(
        "contrast_agent",
        lambda h: bool(h.contrast_agent),
        "a contrast agent was given (ContrastBolusAgent is filled), so there is nothing to synthesise",
    ),
    SliceRule(
        "multi_energy",
        lambda h: h.multienergy.upper() == "YES",
        "the series is a multi-energy CT acquisition, whose values are no ordinary HU",
    ),
    SliceRule(
        "not_hu",
        lambda h: h.rescale_type.upper() not in ("", "HU") or _has_no_hu(h),
        "the pixel values are not in HU (RescaleType, RescaleSlope or RescaleIntercept)",
    ),
    SliceRule(
        "transfer_syntax",
        lambda h: not can_decode(h.transfer_syntax_uid),
        "the images are compressed with loss, or in a way that this node cannot decode; send them uncompressed",
    ),
    SliceRule(
        "pixel_format",
        _has_odd_pixels,
        "the images have an unusual pixel format (expected: MONOCHROME2, 16 bits allocated, 12 to 16 stored)",
    ),
    SliceRule(
        "no_geometry",
        lambda h: plane_of(h) is None,
        "an image has no position, orientation, pixel spacing or size",
    ),
    SliceRule(
        "patient_position",
        lambda h: h.patient_position not in _POSITIONS,
        "the patient position is not one of HFS, HFP, HFDL, HFDR, FFS, FFP, FFDL, FFDR",
    ),
)

# Whose series it is. Nothing is ever made from images of two patients.
IDENTITY: Final = (
    SeriesRule(
        "long_study_uid",
        lambda hs: any(len(h.study_uid) > MAX_UID_CHARS for h in hs),
        f"the StudyInstanceUID is longer than {MAX_UID_CHARS} characters (PS3.5 9.1)",
    ),
    SeriesRule(
        "long_series_uid",
        lambda hs: any(len(h.series_uid) > MAX_UID_CHARS for h in hs),
        f"the SeriesInstanceUID is longer than {MAX_UID_CHARS} characters (PS3.5 9.1)",
    ),
    SeriesRule(
        "long_frame_uid",
        lambda hs: any(len(h.frame_of_reference_uid) > MAX_UID_CHARS for h in hs),
        f"the FrameOfReferenceUID is longer than {MAX_UID_CHARS} characters (PS3.5 9.1)",
    ),
    SeriesRule(
        "mixed_patients",
        lambda hs: len({h.patient for h in hs}) > 1,
        "the images carry more than one patient identity (ID, issuer, name, birth date or sex differ)",
    ),
    SeriesRule(
        "mixed_studies",
        lambda hs: len({h.study_uid for h in hs}) > 1,
        "the images belong to more than one study",
    ),
    SeriesRule(
        "mixed_series",
        lambda hs: len({h.series_uid for h in hs}) > 1,
        "the images belong to more than one series",
    ),
    SeriesRule(
        "frame_of_reference",
        lambda hs: len({h.frame_of_reference_uid for h in hs}) > 1 or not hs[0].frame_of_reference_uid,
        "the images have no frame of reference, or more than one",
    ),
    SeriesRule(
        "repeated_instance",
        lambda hs: len({h.sop_instance_uid for h in hs}) < len(hs),
        "an image occurs twice in the series",
    ),
    SeriesRule(
        "mixed_pixel_format",
        lambda hs: len({h.pixel_representation for h in hs}) > 1,
        "the images mix signed and unsigned pixels",
    ),
)


def judge(headers: Sequence[SliceHeader], policy: EligibilityPolicy) -> Verdict:
    """Decide over all headers of one series, read with `policy.keywords`.

    The first broken rule decides: kind, identity, number of slices, geometry, site rules. Slices that are missing at
    either end cannot be seen. Raises KeyError where a header was not read with the policy's keywords.
    """
    if not headers:
        return Skip("too_few_slices", "the series holds no readable image")
    for rule in KINDS:
        if broken := sum(1 for header in headers if rule.breaks(header)):
            return Skip(rule.code, rule.reason + _how_many(broken, len(headers)))
    for series_rule in IDENTITY:
        if series_rule.breaks(headers):
            return Skip(series_rule.code, series_rule.reason)
    if len(headers) < policy.min_slices:
        reason = f"the series has only {_images(len(headers))} of {policy.min_slices} needed"
        return Skip("too_few_slices", reason, depends_on_count=True)
    geometry = _judge_geometry(headers, policy.position_tolerance_mm)
    if not isinstance(geometry, Accept):
        return geometry
    for site_rule in policy.rules:
        if broken := sum(1 for header in headers if not site_rule.holds(header.attribute(site_rule.keyword))):
            return Skip("site_rule", site_rule.reason + _how_many(broken, len(headers)))
    return geometry


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _how_many(broken: int, total: int) -> str:
    """Says so where only a part of the series breaks a rule: a mixed series is another case than a wrong one."""
    return "" if broken == total else f" ({broken} of {total} images)"


def _judge_geometry(headers: Sequence[SliceHeader], position_tolerance_mm: float) -> Verdict:
    planes = [plane for header in headers if (plane := plane_of(header)) is not None]
    stack = describe_stack(planes, position_tolerance_mm)
    if isinstance(stack, Flaw) and not stack.more_slices_could_mend_it:
        return Skip(stack.kind.value, stack.reason)
    if not all(is_transverse(plane.orientation) for plane in planes):
        return Skip("not_transverse", "the images are not transverse (sagittal, coronal, oblique or tilted)")
    if not isinstance(stack, Flaw):
        return Accept(len(headers), stack.spacing_mm)
    if stack.kind is FlawKind.INTERIOR_GAP:
        return Incomplete(stack.reason)
    return Skip(stack.kind.value, stack.reason, depends_on_count=True)

"""What the rules of the input gate find in headers, where a list of words is not enough.

Each function returns a clause that names the attribute and what was found, or "". Clauses quote numbers of the scan and
words of our own tables; free text of a header never enters them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from node.dicom.constants import PRODUCT_NAME
from node.dicom.headers import SliceHeader
from node.dicom.terms import Terms, find_word
from node.receive.words import (
    INTRAVENOUS,
    ORAL,
    amount,
    denies_agent,
    is_unknown,
    names_amount,
    says_contrast,
)

PROJECTIONS: Final[Terms] = (
    *("MPR", "MIP", "MIN IP", "T MIP", "T MIN IP", "AIP", "AVE IP", "AVE", "AVG", "T AVG", "AVERAGE", "MEAN"),
    *("MAXIMUM", "MINIMUM", "VRT", "PROJECTION IMAGE"),
)
VIRTUAL_NATIVE: Final[Terms] = (
    *("VNC", "VUE", "VIRTUAL NON CONTRAST", "VIRTUAL NONCONTRAST", "VIRTUAL NON ENHANCED", "VIRTUAL UNENHANCED"),
    *("VIRTUAL NATIVE", "VIRTUELL NATIV"),
)
# Other results of a spectral scan, whose descriptions may name the virtual non-contrast image that they were made with.
_OTHER_SPECTRAL: Final[Terms] = (
    *("VNCA", "CALCIUM", "VMI", "MONO", "MONO*", "MONOENERGETIC", "IODINE", "IODINE*", "IODINE_MAP", "MAT_SPECIFIC"),
    *("ELECTRON_DENSITY", "EFF_ATOMIC_NUM", "RHO", "ZEFF", "Z EFF", "OVERLAY", "FUSION"),
)
_PHANTOM_NAMES: Final[Terms] = (
    *("PHANTOM", "PHANTOMS", "PHANTOME", "FANTOM", "FANTOME", "FANTOMA", "FANTOOM", "CATPHAN", "CATPHAN #"),
)
PHANTOMS: Final[Terms] = (*_PHANTOM_NAMES, "CIRS", "GAMMEX", "ARCCHECK", "QA", "QC", "DAILY QA", "ファントム")
DUAL_ENERGY: Final[Terms] = ("DE_", "DUAL ENERGY", "DECT", "LOW KV", "HIGH KV", "GSI")
TIME_ATTRIBUTES: Final = (
    "NominalPercentageOfRespiratoryPhase",
    "RespiratoryTriggerType",
    "NominalRespiratoryTriggerDelayTime",
    "ActualRespiratoryTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
    "RespiratoryMotionCompensationTechnique",
    "CardiacSynchronizationTechnique",
    "ScanOptions",
    "NumberOfTemporalPositions",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
)
_AMOUNTS: Final = (
    *("ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastFlowRate", "ContrastFlowDuration"),
    *("ContrastBolusStartTime", "ContrastBolusStopTime", "ContrastBolusIngredientConcentration"),
)
_NAMES: Final = ("ContrastBolusRoute", "ContrastBolusIngredient", "ContrastBolusAdministrationRouteSequence")
BOLUS_ATTRIBUTES: Final = ("ContrastBolusAgent", *_AMOUNTS, *_NAMES)
SERIES_TEXTS: Final = ("SeriesDescription", "ImageComments", "DerivationDescription")
TEXTS: Final = (*SERIES_TEXTS, "ProtocolName")
CONSTANT_ATTRIBUTES: Final = ("ConvolutionKernel", "KVP", "FilterType", "ReconstructionDiameter")
EXPOSURE_ATTRIBUTES: Final = ("Exposure", "XRayTubeCurrent", "ExposureTime")
ACQUISITION_ATTRIBUTES: Final = ("AcquisitionNumber", "ScanOptions", "ImageType", "SpiralPitchFactor")

MAX_TILT_DEG: Final = 0.5
# A CT tube runs at 70 to 150 kV; single-energy planning scans of the chest at 100 to 130.
_HIGHEST_TUBE_KV: Final = 200.0
_USUAL_KV: Final = (95.0, 130.0)
_HU_NAMES: Final = frozenset({"", "HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS", "HOUNSFIELDUNITS", "H.U."})
# Respiratory Motion Compensation Technique (0018,9170): those that leave one state of the breath, or none.
_STILL: Final = frozenset({"", "NONE", "BREATH_HOLD", "UNKNOWN"})
_GATED_OPTIONS: Final[Terms] = (
    *("RG", "CG", "RESP", "RESP_GATED", "GATED", "4D", "CARDIAC", "SPIRAL_RESP", "CINE", "PERFUSION", "DYNAMIC"),
)
_SPIRAL: Final[Terms] = ("HELIX", "HELICAL", "SPIRAL", "SPI", "HELICAL MODE", "HELICAL_CT", "SPI DUAL")
_MAX_PARTS: Final = 1 << 16  # InConcatenationNumber has 16 bits
_STEP_RATIO: Final = 1.1  # neighbours of one modulated scan differ by less, all along the scan


@lru_cache(maxsize=1024)
def _type_values(image_type: tuple[str, ...]) -> tuple[str, ...]:
    """Values of ImageType in capitals; a Python list that an exporter wrote as one text is taken apart."""
    text = "\\".join(image_type)
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].replace(",", "\\")
    return tuple(value.strip(" '\"").upper() for value in text.split("\\")) if text else ()


def image_type(header: SliceHeader, index: int) -> str:
    """Value of ImageType at an index, in capitals without blanks around it; "" where there is none."""
    values = _type_values(header.image_type)
    return values[index] if len(values) > index else ""


def type_words(header: SliceHeader) -> set[str]:
    """Values of ImageType from the third on, also without a vendor's prefix ("CT_SOM5 MPR" gives "MPR" too)."""
    values = set(_type_values(header.image_type)[2:])
    return values | {value.split(" ", 1)[-1] for value in values}


def text_of(header: SliceHeader, keyword: str) -> str:
    """All values of an attribute as one text; of ImageType those that name a kind of image, from the third on."""
    if keyword == "ImageType":
        return "\\".join(_type_values(header.image_type)[2:])
    return "\\".join(header.attribute(keyword))


def is_ours(header: SliceHeader) -> bool:
    """True for what this node, or any other synthesis, made."""
    ours = PRODUCT_NAME in (header.manufacturer.lower(), header.manufacturer_model_name.lower())
    return ours or header.synthetic_data.upper() == "YES"


def why_odd_pixels(header: SliceHeader) -> str:
    """The first attribute of the pixels that is another than a CT scanner's."""
    bits = header.bits_stored
    if header.photometric_interpretation != "MONOCHROME2":
        return "PhotometricInterpretation is not MONOCHROME2"
    for keyword, value, allowed in (
        ("SamplesPerPixel", header.samples_per_pixel, (1,)),
        ("BitsAllocated", header.bits_allocated, (16,)),
        ("BitsStored", bits, range(12, 17)),
        ("PixelRepresentation", header.pixel_representation, (0, 1)),
    ):
        if value not in allowed:
            return f"{keyword} is {'absent' if value is None else value}"
    if bits is None or header.high_bit == bits - 1:
        return ""
    return f"HighBit is {'absent' if header.high_bit is None else header.high_bit} and BitsStored {bits}"


def why_single_line(header: SliceHeader) -> str:
    """Rows and columns, where one of them is no more than 1."""
    if header.rows is None or header.columns is None or min(header.rows, header.columns) > 1:
        return ""
    return f"Rows is {header.rows} and Columns {header.columns}"


def why_no_hu(header: SliceHeader) -> str:
    """What hinders turning the stored values into HU."""
    slope = header.rescale_slope
    if " ".join(header.rescale_type.upper().split()) not in _HU_NAMES:
        return "RescaleType names another unit"
    if header.rescale_intercept is None:
        return "RescaleIntercept is absent or not a number"
    if slope is None:
        return "RescaleSlope is absent or not a number"
    return f"RescaleSlope is {slope:g}" if slope <= 0 else ""


def why_no_geometry(header: SliceHeader) -> str:
    """The first attribute without which a slice has no place."""
    for keyword, value in (
        ("ImagePositionPatient", header.image_position_mm),
        ("ImageOrientationPatient", header.image_orientation),
        ("PixelSpacing", header.pixel_spacing_mm),
        ("Rows", header.rows),
        ("Columns", header.columns),
    ):
        if value is None:
            return f"{keyword} is absent or not a number"
    return ""


def why_mixed_patients(headers: Sequence[SliceHeader]) -> str:
    """The attributes of the patient in which the slices differ."""
    values = [header.patient.by_keyword() for header in headers]
    differing = [keyword for keyword in values[0] if len({value[keyword] for value in values}) > 1]
    return f"{' and '.join(differing)} {'differ' if len(differing) > 1 else 'differs'}" if differing else ""


def _is_lossless_copy(header: SliceHeader) -> bool:
    """Nothing but a lossless compression made the image a derived one."""
    if header.attribute("LossyImageCompression") == ("01",):
        return False
    return any(
        find_word(("LOSSLESS",), text_of(header, keyword)) and not find_word(("LOSSY",), text_of(header, keyword))
        for keyword in ("ImageType", "DerivationDescription")
    )


def why_derived(header: SliceHeader, *, metal_reduced: bool) -> str:
    """Reformats and projections, and DERIVED unless a metal reduction or a lossless copy explains it."""
    words = type_words(header)
    if projection := find_word(PROJECTIONS, text_of(header, "ImageType")):
        return f"ImageType names {projection}"
    if "REFORMATTED" in words and not metal_reduced:
        return "ImageType names REFORMATTED"
    if image_type(header, 0) != "DERIVED" or metal_reduced or _is_lossless_copy(header):
        return ""
    return "ImageType names DERIVED"


def is_virtual_native(header: SliceHeader) -> bool:
    """True for a virtual non-contrast image: a scan with contrast agent from which iodine was calculated away."""
    texts = [text_of(header, keyword) for keyword in ("ImageType", "SeriesDescription", "DerivationDescription")]
    other = any(find_word((*_OTHER_SPECTRAL, *PROJECTIONS), text) for text in texts)
    return not other and any(find_word(VIRTUAL_NATIVE, text) for text in texts)


def why_not_axial(header: SliceHeader, *, metal_reduced: bool) -> bool:
    """True where ImageType is absent, or its third value names another kind of image than an axial scan."""
    axial = {"", "AXIAL", "VOLUME", "OTHER", "HELIX", "HELICAL"} | ({"REFORMATTED"} if metal_reduced else set())
    return image_type(header, 0) not in ("ORIGINAL", "DERIVED") or image_type(header, 2) not in axial


def why_half_of_dual_energy(header: SliceHeader) -> str:
    """One of the two tubes of a dual-source scan that is not single-energy, or 80 or 140 kV in a dual-energy series."""
    words = type_words(header)
    tube = sorted(words & {"DET_A", "DET_B"})
    if tube and "SNRG" not in words:
        return f"ImageType names {tube[0]}"
    low, high = _USUAL_KV
    kv = amount(header.attribute("KVP"))
    if not kv or low <= kv <= high:
        return ""
    for keyword in ("ImageType", "SeriesDescription", "ImageComments", "ProtocolName"):
        if word := find_word((*DUAL_ENERGY, "DE") if keyword == "ImageType" else DUAL_ENERGY, text_of(header, keyword)):
            return f"KVP is {kv:g} and {keyword} names {word}"
    return ""


def why_megavoltage(header: SliceHeader) -> str:
    """KVP, kV, beyond any CT tube."""
    kv = amount(header.attribute("KVP"))
    return f"KVP is {kv:g}" if kv >= _HIGHEST_TUBE_KV else ""


def names_agent(header: SliceHeader) -> bool:
    """True where the header names a contrast agent, and not that there was none or that nobody knows."""
    agent = header.attribute("ContrastBolusAgent")
    if header.attribute("ContrastBolusAgentSequence"):
        return True
    return any(agent) and not denies_agent(agent) and not is_unknown(agent)


def why_agent_unknown(header: SliceHeader) -> str:
    """ContrastBolusAgent says that nobody knows."""
    return "ContrastBolusAgent names UNKNOWN" if is_unknown(header.attribute("ContrastBolusAgent")) else ""


def why_oral(header: SliceHeader) -> str:
    """The agent or its route is oral or rectal, and neither says intravenous."""
    for keyword in ("ContrastBolusRoute", "ContrastBolusAgent"):
        if find_word(INTRAVENOUS, text_of(header, keyword)):
            return ""
    if denies_agent(header.attribute("ContrastBolusAgent")):
        return ""
    for keyword in ("ContrastBolusRoute", "ContrastBolusAgent"):
        if word := find_word(ORAL, text_of(header, keyword)):
            return f"{keyword} names {word}"
    return ""


def why_bolus(header: SliceHeader) -> str:
    """A volume, dose, rate, time, route or ingredient of contrast agent without its name."""
    for keyword in _AMOUNTS:
        if names_amount(header.attribute(keyword)):
            return f"{keyword} is filled"
    if denies_agent(header.attribute("ContrastBolusAgent")):
        return ""  # a template's route of an agent that was not given
    for keyword in _NAMES:
        values = header.attribute(keyword)
        if any(values) and not denies_agent(values):
            return f"{keyword} is filled"
    return ""


def why_contrast_said(header: SliceHeader) -> str:
    """The first text that says whether there was contrast agent says yes."""
    return says_contrast([(keyword, text_of(header, keyword)) for keyword in TEXTS])


def why_time_resolved(header: SliceHeader) -> str:
    """A phase of breathing or heart, a trigger, or one of several moments."""
    for keyword in TIME_ATTRIBUTES[:5]:
        if any(header.attribute(keyword)):
            return f"{keyword} is filled"
    for keyword in ("RespiratoryMotionCompensationTechnique", "CardiacSynchronizationTechnique"):
        if not {value.upper() for value in header.attribute(keyword)} <= _STILL:
            return f"{keyword} is filled"
    if word := find_word(_GATED_OPTIONS, text_of(header, "ScanOptions")):
        return f"ScanOptions names {word}"
    for keyword in ("NumberOfTemporalPositions", "TemporalPositionIdentifier", "TemporalPositionIndex"):
        if (count := amount(header.attribute(keyword))) > 1:
            return f"{keyword} is {count:g}"
    return ""


def why_phantom(header: SliceHeader) -> str:
    """A text names a phantom, or the name of the patient does by a word that is nobody's name."""
    if word := find_word(_PHANTOM_NAMES, header.patient.name):
        return f"PatientName names {word}"
    said = ((keyword, find_word(PHANTOMS, text_of(header, keyword))) for keyword in TEXTS)
    return next((f"{keyword} names {word}" for keyword, word in said if word), "")


def why_tilted(header: SliceHeader) -> str:
    """A tilt in degrees that the geometry, which other rules have found straight, does not have."""
    tilt_deg = amount(header.attribute("GantryDetectorTilt"))
    return f"GantryDetectorTilt is {tilt_deg:g} degrees" if abs(tilt_deg) > MAX_TILT_DEG else ""


def why_mixed_reconstructions(headers: Sequence[SliceHeader]) -> str:
    """An attribute that one reconstruction holds constant has several values; slices without a value say nothing."""
    for keyword in CONSTANT_ATTRIBUTES:
        values = {_plain(header.attribute(keyword)) for header in headers} - {()}
        if len(values) > 1:
            return f"{keyword} has {len(values)} values"
    return ""


def _plain(values: tuple[str, ...]) -> tuple[str | float, ...]:
    return tuple(amount((value,)) or value.upper() for value in values if value)


def why_mixed_exposures(headers: Sequence[SliceHeader]) -> str:
    """Neighbouring slices belong to two exposures in turn, as those of two interleaved scans do."""
    ordered = _by_position(headers)
    for keyword in EXPOSURE_ATTRIBUTES:
        values = [amount(header.attribute(keyword)) for header in ordered]
        if len(values) >= 4 and all(values) and _alternates(values):
            return f"{keyword} alternates from slice to slice"
    return ""


def _alternates(values: Sequence[float]) -> bool:
    steps = [b / a for a, b in pairwise(values)]
    up = [step > _STEP_RATIO for step in steps]
    down = [step < 1 / _STEP_RATIO for step in steps]
    return all(up[0::2] + down[1::2]) or all(down[0::2] + up[1::2])


def why_calculated_volume(header: SliceHeader) -> str:
    """A frame that was not made as a plane of a volume that was scanned, or was calculated from one."""
    technique = header.attribute("VolumeBasedCalculationTechnique")
    if technique and technique != ("NONE",):
        return "VolumeBasedCalculationTechnique names a calculation"
    if header.attribute("VolumetricProperties") not in ((), ("VOLUME",)):
        return "VolumetricProperties is not VOLUME"
    return ""


def why_parts_missing(headers: Sequence[SliceHeader]) -> str:
    """Which parts of a concatenation, one object in several instances, did not come; "" where none is known to be."""
    parts: dict[str, set[int]] = {}
    totals: dict[str, int] = {}
    for header in headers:
        if uid := "".join(header.attribute("ConcatenationUID")):
            parts.setdefault(uid, set()).add(int(amount(header.attribute("InConcatenationNumber"))))
            totals[uid] = max(totals.get(uid, 0), int(amount(header.attribute("InConcatenationTotalNumber"))))
    for uid, numbers in parts.items():
        total = min(max(totals[uid], *numbers, 1), _MAX_PARTS)
        if lacking := [str(number) for number in range(1, total + 1) if number not in numbers]:
            named = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
            return f"of the {total} parts of a concatenation (InConcatenationNumber) did not come: {named}"
    return ""


def why_several_acquisitions(headers: Sequence[SliceHeader]) -> str:
    """Several numbers in one spiral scan, or of acquisitions whose slices lie between each other."""
    numbers = {header.attribute("AcquisitionNumber") for header in headers} - {()}
    if len(numbers) < 2:
        return ""
    if any(_is_spiral(header) for header in headers) or _interleave(_by_position(headers), _acquisition):
        return f"AcquisitionNumber has {len(numbers)} values"
    return ""


def _acquisition(header: SliceHeader) -> tuple[str, ...]:
    return header.attribute("AcquisitionNumber")


def _is_spiral(header: SliceHeader) -> bool:
    named = any(find_word(_SPIRAL, text_of(header, keyword)) for keyword in ("ScanOptions", "ImageType"))
    return named or amount(header.attribute("SpiralPitchFactor")) > 0


def _interleave(ordered: Sequence[SliceHeader], group: Callable[[SliceHeader], tuple[str, ...]]) -> bool:
    """True where a group is left and entered again along the stack."""
    groups = [group(header) for header in ordered]
    changes = sum(a != b for a, b in pairwise(groups))
    return changes >= len(set(groups))


def _by_position(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Slices along the patient's axis, as far as they have a position; a rough order is enough here."""
    placed = [header for header in headers if header.image_position_mm is not None]
    return sorted(placed, key=lambda header: header.image_position_mm[2] if header.image_position_mm else 0.0)

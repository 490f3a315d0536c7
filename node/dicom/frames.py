"""One multi-frame CT object becomes data sets of single slices, so that everything behind sees slices as always.

Each frame of an Enhanced CT Image (PS3.3 A.38) or a Legacy Converted Enhanced CT Image (A.70) gets a data set with the
attributes that a CT Image of its own would have. What the functional groups say (PS3.3 C.7.6.16, C.8.15.3) stands
under the keyword of the CT Image; a group is shared by all frames or belongs to one. The attributes of `_GROUPS` are
never taken from the top of the object, where they have no meaning in these classes. Nothing is decoded here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag

from node.dicom.constants import MULTI_FRAME_CT_CLASSES, UNCOMPRESSED
from node.dicom.elements import (
    NUMBER_FORMATS,
    element_bytes,
    element_items,
    public_tags,
    raw_element,
    tag_of,
    unpack_numbers,
    vr_of,
)
from node.dicom.pixels import MAX_SLICE_PIXELS, pixel_format_of
from node.errors import UnreadableInstance

MAX_FRAMES: Final = 2000
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_ITEM: Final = b"\xfe\xff\x00\xe0"
_UNIQUE: Final = frozenset({"PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"})

# Functional group -> its attributes, each under the keyword that it has in a CT Image.
_GROUPS: Final[dict[str, dict[str, str]]] = {
    "PixelMeasuresSequence": {
        "PixelSpacing": "PixelSpacing",
        "SliceThickness": "SliceThickness",
        "SpacingBetweenSlices": "SpacingBetweenSlices",
    },
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelValueTransformationSequence": {
        "RescaleIntercept": "RescaleIntercept",
        "RescaleSlope": "RescaleSlope",
        "RescaleType": "RescaleType",
    },
    "FrameVOILUTSequence": {"WindowCenter": "WindowCenter", "WindowWidth": "WindowWidth"},
    "FrameContentSequence": {
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "FrameAcquisitionDateTime": "AcquisitionDateTime",
        "FrameComments": "ImageComments",
        "TemporalPositionIndex": "TemporalPositionIndex",
    },
    "CTImageFrameTypeSequence": {
        "FrameType": "ImageType",
        "VolumetricProperties": "VolumetricProperties",
        "VolumeBasedCalculationTechnique": "VolumeBasedCalculationTechnique",
    },
    "CTAcquisitionTypeSequence": {"AcquisitionType": "ScanOptions"},
    "CTAcquisitionDetailsSequence": {
        "DataCollectionDiameter": "DataCollectionDiameter",
        "GantryDetectorTilt": "GantryDetectorTilt",
        "TableHeight": "TableHeight",
        "RotationDirection": "RotationDirection",
        "RevolutionTime": "RevolutionTime",
    },
    "CTTableDynamicsSequence": {"SpiralPitchFactor": "SpiralPitchFactor"},
    "CTReconstructionSequence": {
        "ConvolutionKernel": "ConvolutionKernel",
        "ReconstructionDiameter": "ReconstructionDiameter",
    },
    "CTExposureSequence": {
        "ExposureTimeInms": "ExposureTime",
        "XRayTubeCurrentInmA": "XRayTubeCurrent",
        "ExposureInmAs": "Exposure",
    },
    "CTXRayDetailsSequence": {"KVP": "KVP", "FilterType": "FilterType", "FocalSpots": "FocalSpots"},
    "IrradiationEventIdentificationSequence": {"IrradiationEventUID": "IrradiationEventUID"},
    "CardiacSynchronizationSequence": {"NominalPercentageOfCardiacPhase": "NominalPercentageOfCardiacPhase"},
    "RespiratorySynchronizationSequence": {
        "NominalPercentageOfRespiratoryPhase": "NominalPercentageOfRespiratoryPhase",
        "NominalRespiratoryTriggerDelayTime": "NominalRespiratoryTriggerDelayTime",
        "ActualRespiratoryTriggerDelayTime": "ActualRespiratoryTriggerDelayTime",
    },
    "DerivationImageSequence": {"DerivationDescription": "DerivationDescription"},
}
# Attributes of a CT Image that a converter found no place for (PS3.3 C.7.6.16.2.25.3); they are asked last.
_UNASSIGNED: Final = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")
# The gate searches these for words: what is said at several places counts together. What joins two of their values.
_JOINED: Final = {"ImageComments": b" ", "DerivationDescription": b" ", "ScanOptions": b"\\"}
# These stand at the top of an enhanced object too, and count where the frame says nothing else.
_ALSO_AT_TOP: Final = frozenset({"AcquisitionNumber", "AcquisitionDateTime", *_JOINED})
# Only their own functional group tells them: a converter that leaves them elsewhere has not said where a pixel lies.
_OWN_GROUP_ONLY: Final = frozenset(
    keyword
    for group in (*_UNIQUE, "PixelValueTransformationSequence", "CTImageFrameTypeSequence")
    for keyword in _GROUPS[group].values()
)
_NEVER_UNASSIGNED: Final = frozenset(map(tag_of, (*_OWN_GROUP_ONLY, "NumberOfFrames", "PixelData")))
_SHARED, _PER_FRAME = tag_of("SharedFunctionalGroupsSequence"), tag_of("PerFrameFunctionalGroupsSequence")
_PIXEL_DATA: Final = tag_of("PixelData")
_NOT_OF_A_SLICE: Final = frozenset(
    {
        *(_SHARED, _PER_FRAME, _PIXEL_DATA),
        *map(tag_of, ("NumberOfFrames", "ExtendedOffsetTable", "ExtendedOffsetTableLengths")),
        *(tag_of(keyword) for group in _GROUPS.values() for keyword in group.values() if keyword not in _ALSO_AT_TOP),
    }
)


class Frame(Dataset):
    """The data set of one frame as a CT Image has it; number: of the frame in its object, from 1."""

    number: int
    file_meta: FileMetaDataset


class SlicesOfFile(Sequence[Dataset]):
    """The slices of one parsed file, in the order in which they stand there, each made when it is asked for."""

    def __init__(self, ds: FileDataset) -> None:
        """Raises UnreadableInstance where a multi-frame object contradicts itself or is too large."""
        is_multi_frame = (element_bytes(ds, tag_of("SOPClassUID")) or b"").decode("latin-1") in MULTI_FRAME_CT_CLASSES
        self._single = None if is_multi_frame else ds
        self._object = _MultiFrame.of(ds) if is_multi_frame else None

    def __len__(self) -> int:
        return 1 if self._object is None else len(self._object.pixels)

    def __getitem__(self, index: int) -> Dataset:  # type: ignore[override]  # nobody slices it
        if self._object is not None:
            return self._object.frame(index)
        if index or self._single is None:
            raise IndexError(index)
        return self._single


@dataclass(frozen=True, slots=True)
class _MultiFrame:
    """A multi-frame object taken apart. pixels: of each frame, as the pixel data of a CT Image of its own."""

    file_meta: FileMetaDataset
    top: Mapping[BaseTag, DataElement | RawDataElement]
    shared: Dataset
    per_frame: Sequence[Dataset]
    pixels: Sequence[memoryview | bytes]

    @classmethod
    def of(cls, ds: FileDataset) -> "_MultiFrame":
        count = _frame_count(ds)
        shared, per_frame = element_items(ds, _SHARED), element_items(ds, _PER_FRAME)
        if len(per_frame) != count:
            raise UnreadableInstance(
                f"the multi-frame object says NumberOfFrames {count} and describes {len(per_frame)} frames "
                "(PerFrameFunctionalGroupsSequence)"
            )
        if len(shared) > 1:
            raise UnreadableInstance(
                f"the multi-frame object has {len(shared)} items in SharedFunctionalGroupsSequence, where one may be"
            )
        common = shared[0] if shared else Dataset()
        if count > 1 and element_items(common, tag_of("PlanePositionSequence")):
            raise UnreadableInstance(
                f"the multi-frame object gives its {count} frames one position in common "
                "(PlanePositionSequence in SharedFunctionalGroupsSequence)"
            )
        top = {tag: ds.get_item(tag) for tag in ds.keys() if tag not in _NOT_OF_A_SLICE}  # noqa: SIM118  # decodes none
        return cls(ds.file_meta, top, common, per_frame, _pixels_of_frames(ds, count))

    def frame(self, index: int) -> Frame:
        number, own = range(1, len(self.pixels) + 1)[index], self.per_frame[index]
        made = Frame(dict(self.top))
        made.number, made.file_meta = number, self.file_meta
        for group, keywords in _GROUPS.items():
            for item in _items_of_group(group, own, self.shared, number):
                _copy_group(item, keywords, made)
        _add_contrast_usage(made, own, self.shared)
        for key, of in zip(_UNASSIGNED, (own, self.shared), strict=True):
            for item in element_items(of, tag_of(key)):
                _add_unassigned(item, made)
        _split_date_and_time(made)
        _put(made, "InstanceNumber", str(number))
        pixels = bytes(self.pixels[index])
        made[_PIXEL_DATA] = RawDataElement(_PIXEL_DATA, "OW", len(pixels), pixels, 0, False, True)
        return made


def _frame_count(ds: FileDataset) -> int:
    """NumberOfFrames; raises UnreadableInstance where it is none or too large, or nobody sends such an object."""
    form = pixel_format_of(ds)
    count = form.number_of_frames
    if count is None or count < 1:
        raise UnreadableInstance("the multi-frame object has no usable NumberOfFrames")
    if count > MAX_FRAMES:
        raise UnreadableInstance(
            f"the multi-frame object has {count} frames, and this node reads at most {MAX_FRAMES} of one object"
        )
    if form.transfer_syntax_uid == _BIG_ENDIAN:
        raise UnreadableInstance("the multi-frame object is big endian, which this node reads of single slices only")
    if not 0 < (form.rows or 0) * (form.columns or 0) <= MAX_SLICE_PIXELS or form.bits_allocated != 16:
        raise UnreadableInstance("the multi-frame object has an implausible size or pixel format")
    return count


def _pixels_of_frames(ds: FileDataset, count: int) -> Sequence[memoryview | bytes]:
    """The pixel data of each frame; raises UnreadableInstance where NumberOfFrames says another number of them."""
    form, data = pixel_format_of(ds), element_bytes(ds, _PIXEL_DATA)
    if data is None:
        raise UnreadableInstance("the multi-frame object has no pixel data")
    if form.transfer_syntax_uid not in UNCOMPRESSED:
        return _codestreams(ds, data, count)
    size, row = (form.rows or 0) * (form.columns or 0) * 2, (form.columns or 0) * 2
    if not size * count <= len(data) < size * count + row:
        raise UnreadableInstance(
            f"the multi-frame object has {len(data)} bytes of pixel data, and its {count} frames need {size * count}"
        )
    whole = memoryview(data)
    return [whole[size * index : size * (index + 1)] for index in range(count)]


def _codestreams(ds: FileDataset, data: bytes, count: int) -> list[bytes]:
    """Each frame as encapsulated pixel data of one frame (PS3.5 A.4)."""
    table = [element_bytes(ds, tag_of(key)) for key in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    extended = (table[0], table[1]) if table[0] and table[1] else None
    try:
        found = list(islice(generate_frames(data, number_of_frames=count, extended_offsets=extended), count + 1))
    except Exception as error:  # pydicom raises whatever a damaged offset table makes it stumble over
        raise UnreadableInstance("the multi-frame object has compressed pixel data that are damaged") from error
    if len(found) != count or not all(found):
        raise UnreadableInstance(
            f"the multi-frame object says NumberOfFrames {count} and has {sum(map(bool, found))} compressed frames"
        )
    return [_ITEM + bytes(4) + _ITEM + len(one).to_bytes(4, "little") + one for one in found]


def _items_of_group(group: str, own: Dataset, shared: Dataset, number: int) -> Iterator[Dataset]:
    """The item of a functional group that counts for a frame, its own before the shared one; none where it has none.

    Raises UnreadableInstance for a second position, and for several X-ray sources of different voltage.
    """
    tag = tag_of(group)
    items = element_items(own, tag) or element_items(shared, tag)
    if len(items) > 1 and group in _UNIQUE:
        raise UnreadableInstance(f"frame {number} of the multi-frame object has {len(items)} items in {group}")
    if len({element_bytes(item, tag_of("KVP")) for item in items}) > 1:
        raise UnreadableInstance(f"frame {number} of the multi-frame object was made with several tube voltages (KVP)")
    yield from items[:1]


def _copy_group(item: Dataset, keywords: Mapping[str, str], made: Frame) -> None:
    for keyword, classic in keywords.items():
        tag, target = tag_of(keyword), tag_of(classic)
        raw = element_bytes(item, tag)
        if not raw:
            continue
        vr, wanted = vr_of(tag), vr_of(target)
        if classic in _JOINED:
            _say_too(made, classic, raw)
        elif vr in NUMBER_FORMATS and vr != wanted:  # a binary number where a CT Image has a text
            numbers = unpack_numbers(raw, vr)
            if len(numbers) == 1 and abs(numbers[0]) < 2**31:
                _put(made, classic, str(round(numbers[0])))
        else:
            made[target] = raw_element(target, wanted, raw)


def _put(made: Frame, keyword: str, value: str) -> None:
    tag = tag_of(keyword)
    made[tag] = raw_element(tag, vr_of(tag), value.encode("ascii"))


def _say_too(made: Frame, keyword: str, raw: bytes) -> None:
    """Add a value to what is said already, once."""
    tag = tag_of(keyword)
    said = element_bytes(made, tag) or b""
    if raw not in said:
        made[tag] = raw_element(tag, vr_of(tag), _JOINED[keyword].join(filter(None, (said, raw))))


def _add_contrast_usage(made: Frame, own: Dataset, shared: Dataset) -> None:
    """A frame that was made with contrast agent (PS3.3 C.7.6.16.2.12) names it, also where the object forgets to."""
    usage, agent = tag_of("ContrastBolusUsageSequence"), tag_of("ContrastBolusAgentSequence")
    used = [
        item
        for item in element_items(own, usage) or element_items(shared, usage)
        for keyword in ("ContrastBolusAgentAdministered", "ContrastBolusAgentDetected")
        if element_bytes(item, tag_of(keyword)) == b"YES"
    ]
    if used and not element_items(made, agent):
        made[agent] = DataElement(agent, "SQ", DicomSequence(used[:1]))


def _add_unassigned(item: Dataset, made: Frame) -> None:
    for tag in public_tags(item):
        keyword = keyword_for_tag(tag)
        if keyword in _JOINED and (raw := element_bytes(item, tag)):
            _say_too(made, keyword, raw)
        elif tag not in made and tag not in _NEVER_UNASSIGNED:
            made[tag] = item.get_item(tag)


def _split_date_and_time(made: Frame) -> None:
    """AcquisitionDate and AcquisitionTime, which enhanced objects lack, from AcquisitionDateTime without an offset."""
    text = (element_bytes(made, tag_of("AcquisitionDateTime")) or b"").decode("latin-1").strip()
    with suppress(ValueError):
        if int(text[:14]) and len(text) >= 14 and not {"+", "-"} & set(text):
            _put(made, "AcquisitionDate", text[:8])
            _put(made, "AcquisitionTime", text[8:])

"""The files of one series become a volume on its native lattice: nothing is resampled, clipped or changed.

Each file is read and parsed once, and no slice is decoded before its size and that of the volume are checked.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from node.dicom.constants import AIR_HU, UNCOMPRESSED
from node.dicom.content import DIGESTED
from node.dicom.elements import element_bytes, tag_of, unpack_numbers
from node.dicom.geometry import Flaw, SlicePlane, describe_stack
from node.dicom.headers import SliceHeader, read_instance
from node.errors import Permanent, UnreadableInstance

# 10 bytes per voxel are held (HU, stored value, a model's answer): about 8 GB at this limit.
MAX_VOXELS: Final = 3000 * 512 * 512
MAX_SLICE_PIXELS: Final = 4096 * 4096
# Lossless syntaxes whose pixels equal the scanner's; a lossy one never enters, whatever could decode it.
LOSSLESS_COMPRESSED: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.5",
    }
)
_JPEG_FAMILY: Final = LOSSLESS_COMPRESSED - {"1.2.840.10008.1.2.5"}
_JPEG_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}

StoredPixels = NDArray[np.uint16] | NDArray[np.int16]
Progress = Callable[[int, int], None]


class UnusableSeries(Permanent):
    """The files do not form one volume that can be processed."""


@dataclass(frozen=True, slots=True)
class SourceSlice:
    """One source slice: its header, the elements that matter later, and the stored values that mean padding."""

    header: SliceHeader
    dataset: Dataset
    padding: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class CTVolume:
    """A CT series on its native lattice.

    hu: float32 [z, y, x], HU; padding is AIR_HU. stored: uint16 or int16 [z, y, x], the values as received. z ascends
    along the slice normal, which is not the order of InstanceNumber. padding: bool [z, y, x], or None where no slice
    declares padding. slices: as many as z, in the same order. spacing_mm: (z, y, x).
    """

    hu: NDArray[np.float32]
    stored: StoredPixels
    padding: NDArray[np.bool_] | None
    slices: tuple[SourceSlice, ...]
    spacing_mm: tuple[float, float, float]

    @property
    def headers(self) -> tuple[SliceHeader, ...]:
        """Headers of the slices, in the order of z."""
        return tuple(source.header for source in self.slices)


def plane_of(header: SliceHeader) -> SlicePlane | None:
    """The image plane of a slice, None where its geometry is incomplete."""
    if header.image_position_mm is None or header.image_orientation is None or header.pixel_spacing_mm is None:
        return None
    if header.rows is None or header.columns is None:
        return None
    return SlicePlane(
        header.image_position_mm, header.image_orientation, header.pixel_spacing_mm, header.rows, header.columns
    )


def read_volume(paths: Sequence[Path], *, progress: Progress | None = None) -> CTVolume:
    """Read, sort and decode the slices of one series; progress(done, total) counts slices.

    HU is stored value x RescaleSlope + RescaleIntercept of the same slice (PS3.3 C.11.1). Raises UnreadableInstance for
    a damaged file and UnusableSeries where the slices belong to several series, mix pixel formats, form no gap-free
    lattice or are too many.
    """
    words, slices, damage = _read_slices(paths, progress)
    order, spacing_z = _lattice([source.header for source in slices])
    slices = [slices[index] for index in order]
    _check_formats([source.header for source in slices])
    if damage:
        raise damage
    first = slices[0].header
    words = words[list(order)]
    stored: StoredPixels = words.view(np.int16) if first.pixel_representation == 1 else words
    hu = np.empty(stored.shape, dtype=np.float32)
    for z, source in enumerate(slices):
        np.multiply(stored[z], np.float32(source.header.rescale_slope), out=hu[z])
        hu[z] += np.float32(source.header.rescale_intercept)
    padding = _padding_mask(stored, slices)
    if padding is not None:
        hu[padding] = AIR_HU
    in_plane = first.pixel_spacing_mm or (0.0, 0.0)
    return CTVolume(hu, stored, padding, tuple(slices), (spacing_z, *in_plane))


def _read_slices(
    paths: Sequence[Path], progress: Progress | None
) -> tuple[NDArray[np.uint16], list[SourceSlice], UnreadableInstance | None]:
    """Read each file once: stored values as 16 bit words and slices, in the order of `paths`, and the first damage.

    A slice that cannot be decoded, or has another size than the first one, leaves its words unset: what is wrong with
    the series as a whole is a better reason. The volume's size is checked before anything is decoded.
    """
    words = np.empty((0, 0, 0), dtype=np.uint16)
    slices: list[SourceSlice] = []
    damage: UnreadableInstance | None = None
    for number, path in enumerate(paths):
        header, parsed = read_instance(path)
        size = header.rows or 0, header.columns or 0
        if number == 0:
            if len(paths) * size[0] * size[1] > MAX_VOXELS or size[0] * size[1] > MAX_SLICE_PIXELS:
                raise UnusableSeries(
                    f"{len(paths)} slices of {size[0]} x {size[1]} pixels are more than this node processes"
                )
            words = np.empty((len(paths), *size), dtype=np.uint16)
        try:
            if size == words.shape[1:]:
                words[number] = decode_stored(parsed, header).view(np.uint16)
        except UnreadableInstance as error:
            damage = damage or error
        needed = Dataset()  # not `parsed` without its pixels: that would hold on to the whole file's bytes
        for tag in (tag_of(keyword) for keyword in DIGESTED):
            if tag in parsed:
                needed[tag] = parsed.get_item(tag)
        slices.append(SourceSlice(header, needed, padding_range(parsed, header)))
        if progress:
            progress(number + 1, len(paths))
    return words, slices, damage


def _lattice(headers: Sequence[SliceHeader]) -> tuple[tuple[int, ...], float]:
    if not headers:
        raise UnusableSeries("there are no images")
    if len({(header.study_uid, header.series_uid, header.frame_of_reference_uid) for header in headers}) > 1:
        raise UnusableSeries("the images belong to more than one series or frame of reference")
    planes = [plane for header in headers if (plane := plane_of(header)) is not None]
    if len(planes) != len(headers):
        raise UnusableSeries("an image has no position, orientation or pixel spacing")
    stack = describe_stack(planes)
    if isinstance(stack, Flaw):
        raise UnusableSeries(f"the slices form no regular stack ({stack.kind})")
    spacing_mm = stack.spacing_mm or headers[0].slice_thickness_mm or 1.0
    return stack.order, spacing_mm


def _check_formats(headers: Sequence[SliceHeader]) -> None:
    formats = {(h.bits_allocated, h.bits_stored, h.high_bit, h.pixel_representation) for h in headers}
    allocated, bits, high_bit, representation = next(iter(formats))
    if len(formats) > 1 or allocated != 16 or representation not in (0, 1) or bits is None or high_bit != bits - 1:
        raise UnusableSeries("the images mix pixel formats, or are not of 16 bits with the high bit on top")
    if any(not h.rescale_slope or h.rescale_slope < 0 or h.rescale_intercept is None for h in headers):
        raise UnusableSeries("an image has no usable rescale slope and intercept, so its values are not HU")


def _padding_mask(stored: StoredPixels, slices: Sequence[SourceSlice]) -> NDArray[np.bool_] | None:
    if all(source.padding is None for source in slices):
        return None
    mask = np.zeros(stored.shape, dtype=np.bool_)
    for z, source in enumerate(slices):
        if source.padding is not None:
            low, high = source.padding
            mask[z] = (stored[z] >= low) & (stored[z] <= high)
    return mask


def can_decode(transfer_syntax_uid: str) -> bool:
    """True for a lossless transfer syntax that the installed decoders can read."""
    if transfer_syntax_uid in UNCOMPRESSED:
        return True
    if transfer_syntax_uid not in LOSSLESS_COMPRESSED:
        return False
    try:
        return bool(get_decoder(UID(transfer_syntax_uid)).is_available)
    except NotImplementedError:
        return False


def decode_stored(ds: Dataset, header: SliceHeader) -> NDArray[np.uint16] | NDArray[np.int16]:
    """Stored values [rows, columns] of a single-frame 16 bit slice, as uint16 or int16 by PixelRepresentation.

    Bits above BitsStored are cleared or sign extended (PS3.5 8.1.1). Raises UnreadableInstance where the sizes of
    header and pixel data disagree, the slice is implausibly large, or the pixel data cannot be decoded.
    """
    rows, columns, bits = header.rows or 0, header.columns or 0, header.bits_stored or 0
    if not (0 < rows * columns <= MAX_SLICE_PIXELS and header.bits_allocated == 16 and 1 <= bits <= 16):
        raise UnreadableInstance("the image has an implausible size or pixel format")
    data = element_bytes(ds, tag_of("PixelData"))
    if data is None:
        raise UnreadableInstance("the instance has no pixel data")
    if header.transfer_syntax_uid in UNCOMPRESSED:
        if len(data) != rows * columns * 2:
            raise UnreadableInstance(f"the pixel data has {len(data)} bytes instead of {rows * columns * 2}")
        words: NDArray[np.uint16] = np.frombuffer(data, dtype="<u2").reshape(rows, columns).astype(np.uint16)
    else:
        words = _decompress(ds, header, data, rows, columns)
    return _within_bits(words, bits, signed=header.pixel_representation == 1)


def _decompress(ds: Dataset, header: SliceHeader, data: bytes, rows: int, columns: int) -> NDArray[np.uint16]:
    if not can_decode(header.transfer_syntax_uid):
        raise UnreadableInstance(f"the transfer syntax {header.transfer_syntax_uid} cannot be decoded here")
    try:
        if header.transfer_syntax_uid in _JPEG_FAMILY:
            frame = next(iter(generate_frames(data, number_of_frames=1)))
            if codestream_size(frame) != (rows, columns):
                raise UnreadableInstance("the compressed image has another size than its header says")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoded = pixel_array(ds, raw=True)
    except UnreadableInstance:
        raise
    except Exception as error:  # decoders of third parties raise anything on damaged data
        raise UnreadableInstance(f"the pixel data cannot be decoded ({type(error).__name__})") from error
    if decoded.shape != (rows, columns) or decoded.dtype.itemsize != 2:
        raise UnreadableInstance("the decoded image has another size than its header says")
    return np.ascontiguousarray(decoded).view(np.uint16)


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream declares; None where it declares nothing.

    Decoders allocate by these numbers, so they are compared with Rows and Columns first (ISO/IEC 15444-1 A.5.1,
    10918-1 B.2.2, 14495-1 C.2.2).
    """
    if frame[:4] == b"\xff\x4f\xff\x51":
        x, y, x0, y0 = (int.from_bytes(frame[i : i + 4]) for i in (8, 12, 16, 20))
        return y - y0, x - x0
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4])
        if marker in _JPEG_FRAME_MARKERS:
            return int.from_bytes(frame[position + 5 : position + 7]), int.from_bytes(
                frame[position + 7 : position + 9]
            )
        position += 2 + max(length, 2)
    return None


def _within_bits(words: NDArray[np.uint16], bits: int, *, signed: bool) -> NDArray[np.uint16] | NDArray[np.int16]:
    shift = 16 - bits
    if not signed:
        return words & np.uint16(0xFFFF >> shift)
    shifted = (words << np.uint16(shift)).view(np.int16)
    return shifted >> np.int16(shift)


def padding_range(ds: Dataset, header: SliceHeader) -> tuple[int, int] | None:
    """Lowest and highest stored value that mean padding (PS3.3 C.7.5.1.1.2), None where the slice has none.

    The two bytes are read by PixelRepresentation whatever VR the sender chose: a signed value sent as US is common.
    """
    vr = "SS" if header.pixel_representation == 1 else "US"
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        raw = element_bytes(ds, tag_of(keyword)) or b""
        ends += [int(number) for number in unpack_numbers(raw, vr)[:1]]
    return (min(ends), max(ends)) if ends else None

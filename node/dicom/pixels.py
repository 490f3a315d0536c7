"""Owns decoding of one CT slice to its stored integers; must not decode anything before its size is proven."""

import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from node.dicom.headers import SliceHeader
from node.dicom.raw import element_bytes, tag_of, unpack_numbers
from node.errors import UnreadableInstance

MAX_SLICE_PIXELS: Final = 4096 * 4096
UNCOMPRESSED: Final = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
)
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

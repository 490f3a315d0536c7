"""The stored values of one slice, decoded once: for the digest of its content and for the volume.

Nothing is decoded before its size is checked, and nothing compressed is decoded in this process.
"""

import struct
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import Tag
from pydicom.uid import UID

from config.syntax import UID_ALPHABET
from node.dicom.codestream import why_lossy, why_not_as_declared, why_not_rle
from node.dicom.constants import UNCOMPRESSED
from node.dicom.elements import element_bytes, parse_decimal, tag_of, unpack_numbers
from node.dicom.sandbox import SANDBOX, DecoderStopped
from node.errors import UnreadableInstance

MAX_SLICE_PIXELS: Final = 4096 * 4096
MAX_FRAGMENTS: Final = 4096  # encoders that write fragments at all make one of some 16 kB
_ITEM: Final = 0xE000FFFE  # as two little endian words give it
_RLE: Final = "1.2.840.10008.1.2.5"
# Lossless syntaxes whose pixels equal the scanner's, each with its decoder: pydicom would take whichever it finds
# first. A lossy syntax never enters, whatever could decode it.
LOSSLESS_COMPRESSED: Final = {
    "1.2.840.10008.1.2.4.57": "gdcm",
    "1.2.840.10008.1.2.4.70": "gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",
    _RLE: "pydicom",
}

StoredPixels = NDArray[np.uint16] | NDArray[np.int16]


class Sign(Enum):
    """How the pixels of one slice continue the sign above BitsStored."""

    EITHER = "either"  # no negative value: nothing to see
    EXTENDED = "extended"  # all bits above are the sign
    CLEARED = "cleared"  # all bits above are zero, also of negative values


@dataclass(frozen=True, slots=True)
class DecodedSlice:
    """Stored values [rows, columns] of one slice, uint16 or int16 by PixelRepresentation.

    sign: how a signed slice continues its sign. excess: None, or the value as 16 bits read it, farthest from zero, of a
    slice whose pixels do not fit BitsStored; `stored` means nothing then.
    """

    stored: StoredPixels
    sign: Sign
    excess: int | None

    @property
    def sound(self) -> StoredPixels | None:
        """The stored values, None where they do not fit BitsStored."""
        return self.stored if self.excess is None else None


def can_decode(transfer_syntax_uid: str) -> bool:
    """True for a lossless transfer syntax that the installed decoders can read."""
    if transfer_syntax_uid in UNCOMPRESSED:
        return True
    if transfer_syntax_uid not in LOSSLESS_COMPRESSED:
        return False
    try:
        return LOSSLESS_COMPRESSED[transfer_syntax_uid] in get_decoder(UID(transfer_syntax_uid)).available_plugins
    except NotImplementedError:
        return False


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the pixels of one instance are written; None where an attribute is absent, empty or no number."""

    transfer_syntax_uid: str
    number_of_frames: int | None
    rows: int | None
    columns: int | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    pixel_representation: int | None


def pixel_format_of(ds: Dataset) -> PixelFormat:
    """Read the pixel format of a dataset from a Part 10 file."""
    syntax = str(ds.file_meta.get("TransferSyntaxUID", "") or "") if hasattr(ds, "file_meta") else ""
    keywords = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    frames = parse_decimal(_text(ds, "NumberOfFrames"))
    whole = int(frames) if frames is not None and frames == int(frames) else None
    return PixelFormat(syntax, whole, *(_short(ds, keyword) for keyword in keywords))


def _short(ds: Dataset, keyword: str) -> int | None:
    numbers = unpack_numbers(element_bytes(ds, tag_of(keyword)) or b"", "US")
    return int(numbers[0]) if len(numbers) == 1 else None


def _text(ds: Dataset, keyword: str) -> str:
    return (element_bytes(ds, tag_of(keyword)) or b"").decode("latin-1").strip()


def decode_slice(ds: Dataset, form: PixelFormat) -> DecodedSlice:
    """Decode a single-frame 16 bit slice and read its BitsStored; see `DecodedSlice`.

    Bits above BitsStored must be the sign, or zero in every pixel (PS3.5 8.1.1); those of an overlay that lies in the
    pixels are masked. Bytes behind the last pixel are ignored where they are less than one more row: writers pad.
    Raises UnreadableInstance, which names the slice, where the sizes of header and pixel data disagree, the slice is
    implausibly large, or the pixel data cannot be decoded; DecoderStopped, a kind of it, where decoding took too much.
    """
    try:
        return _decode(ds, form)
    except DecoderStopped as error:
        raise DecoderStopped(f"the slice with {_name(ds)} {error}", error.reason) from error
    except UnreadableInstance as error:
        raise UnreadableInstance(f"the slice with {_name(ds)} {error}") from error


def _name(ds: Dataset) -> str:
    """What tells a slice from its neighbours, in the sender's list of images too."""
    number, uid = parse_decimal(_text(ds, "InstanceNumber")), _text(ds, "SOPInstanceUID")
    named = f"SOP Instance UID {uid}" if UID_ALPHABET.fullmatch(uid) else "no SOP Instance UID"
    return named if number is None else f"InstanceNumber {number:.0f} and {named}"


def _decode(ds: Dataset, form: PixelFormat) -> DecodedSlice:
    rows, columns, bits = form.rows or 0, form.columns or 0, form.bits_stored or 0
    if not (0 < rows * columns <= MAX_SLICE_PIXELS and form.bits_allocated == 16 and 1 <= bits <= 16):
        raise UnreadableInstance("has an implausible size or pixel format")
    if (form.number_of_frames or 1) > 1:
        raise UnreadableInstance("has more than one frame")
    data = element_bytes(ds, tag_of("PixelData"))
    if data is None:
        raise UnreadableInstance("has no pixel data")
    if form.transfer_syntax_uid in UNCOMPRESSED:
        needed = rows * columns * 2
        if not needed <= len(data) < needed + columns * 2:
            raise UnreadableInstance(f"has {len(data)} of {needed} bytes of pixel data")
        words: NDArray[np.uint16] = np.frombuffer(data, dtype="<u2", count=rows * columns).reshape(rows, columns)
    else:
        words = _decompress(form, data, rows, columns)
    overlay = _overlay_bits(ds, bits)
    if overlay:
        words = words & np.uint16(0xFFFF & ~overlay)
    return _within_bits(words, bits, overlay, signed=form.pixel_representation == 1)


def _decompress(form: PixelFormat, data: bytes, rows: int, columns: int) -> NDArray[np.uint16]:
    syntax = form.transfer_syntax_uid
    if not can_decode(syntax):
        raise UnreadableInstance(f"has the transfer syntax {syntax}, which cannot be decoded here")
    frame = _only_frame(data)
    if syntax == _RLE:
        misfit = why_not_rle(frame, rows, columns, 2)
    elif not (misfit := why_not_as_declared(frame, rows, columns, 16)) and (loss := why_lossy(frame)):
        misfit = f"is compressed with loss ({loss}), but its transfer syntax says lossless"
    if misfit:
        raise UnreadableInstance(misfit)
    return SANDBOX.decode(
        frame,
        syntax,
        LOSSLESS_COMPRESSED[syntax],
        rows=rows,
        columns=columns,
        bits_stored=form.bits_stored or 16,
        signed=form.pixel_representation == 1,
    )


def _only_frame(data: bytes) -> bytes:
    """The codestream of encapsulated pixel data that hold one frame (PS3.5 A.4), whatever its offset table says."""
    tag, table_bytes = struct.unpack("<2I", data[:8].ljust(8, b"\0"))
    if tag != _ITEM or table_bytes > 4 * MAX_FRAGMENTS:
        raise UnreadableInstance("has compressed pixel data that do not begin with an offset table")
    try:
        fragments = list(islice(generate_fragments(data[8 + table_bytes :]), MAX_FRAGMENTS + 1))
    except ValueError:
        raise UnreadableInstance("has compressed pixel data whose fragments are damaged") from None
    if len(fragments) > MAX_FRAGMENTS:
        raise UnreadableInstance(f"has compressed pixel data in more than {MAX_FRAGMENTS} fragments")
    return b"".join(fragments)


def _overlay_bits(ds: Dataset, bits: int) -> int:
    """The bits above BitsStored that overlays of the retired kind occupy (60xx,0100 is 16, 60xx,0102 names the bit)."""
    mask = 0
    for group in range(0x6000, 0x6020, 2):
        allocated = unpack_numbers(element_bytes(ds, Tag(group, 0x0100)) or b"", "US")
        position = unpack_numbers(element_bytes(ds, Tag(group, 0x0102)) or b"", "US")
        if allocated and allocated[0] == 16 and position and bits <= position[0] <= 15:
            mask |= 1 << int(position[0])
    return mask


def _within_bits(words: NDArray[np.uint16], bits: int, overlay: int, *, signed: bool) -> DecodedSlice:
    above = 0xFFFF & ~((1 << bits) - 1) & ~overlay
    high = words & np.uint16(above)
    excess = high != 0
    sign = Sign.EITHER
    shift = 16 - bits
    stored: StoredPixels = words & np.uint16(0xFFFF >> shift)
    if signed:
        stored = (words << np.uint16(shift)).view(np.int16) >> np.int16(shift)
        if bits < 16 and (stored < 0).any():
            sign = Sign.EXTENDED if excess.any() else Sign.CLEARED
        if sign is not Sign.CLEARED:
            excess = high != np.where(stored < 0, np.uint16(above), np.uint16(0))
    if not excess.any():
        return DecodedSlice(stored, sign, None)
    read = (words.view(np.int16) if signed else words)[excess].astype(np.int32)
    return DecodedSlice(stored, sign, int(read[np.abs(read).argmax()]))

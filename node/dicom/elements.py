"""Element values as bytes, and the Part 10 file that they are written to.

A source's values are kept as they were received, whatever they are; values of our own are validated before they are
written.
"""

import re
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from pydicom import dcmwrite
from pydicom.charset import convert_encodings, default_encoding
from pydicom.config import RAISE
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from config.syntax import UID_ALPHABET
from node.dicom.charsets import decode_text
from node.dicom.constants import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.dicom.quiet import quiet_pydicom

# Bytes per number; the byte order of these values follows the transfer syntax (PS3.5 7.3).
NUMBER_FORMATS: Final = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d", "AT": "H", "OW": "H",
}  # fmt: skip
_ONE_VALUE_VRS: Final = frozenset({"LT", "ST", "UT", "UR"})
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@cache
def tag_of(keyword: str) -> BaseTag:
    """Tag of a DICOM keyword; raises KeyError for an unknown one."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"{keyword!r} is not a DICOM keyword")
    return Tag(tag)


@cache
def vr_of(tag: BaseTag, *, signed: bool = False) -> str:
    """Value representation in the dictionary; where it depends on PixelRepresentation, `signed` decides."""
    vr = dictionary_VR(tag)
    if vr == "US or SS":
        return "SS" if signed else "US"
    return "OW" if vr == "OB or OW" else vr


def element_bytes(ds: Dataset, tag: BaseTag) -> bytes | None:
    """Value of one element, little endian, without its trailing padding; None where absent or a sequence."""
    if tag not in ds:
        return None
    element: DataElement | RawDataElement = ds.get_item(tag)
    if isinstance(element, DataElement):
        return None if element.VR == "SQ" else _converted_bytes(element)
    return _raw_bytes(element)


def public_tags(ds: Dataset) -> list[BaseTag]:
    """Tags in ascending order, without private elements, group lengths, and what the dictionary does not know."""
    return [tag for tag in sorted(ds.keys()) if not tag.is_private and tag.element and dictionary_has_tag(tag)]


def element_items(ds: Dataset, tag: BaseTag) -> list[Dataset]:
    """Items of a sequence element; empty where absent."""
    if tag not in ds:
        return []
    with quiet_pydicom():  # an item may name a character set that nobody knows
        value = ds[tag].value
    return list(value) if isinstance(value, DicomSequence) else []


def _raw_bytes(element: RawDataElement) -> bytes:
    value = element.value or b""
    vr = element.VR if element.VR not in (None, "UN") else vr_of(element.tag)
    size = struct.calcsize(NUMBER_FORMATS.get(str(vr), "B"))
    if size == 1:
        return value if str(vr) == "OB" else value.rstrip(b" \0")
    if element.is_little_endian:
        return value
    return b"".join(value[i : i + size][::-1] for i in range(0, len(value) - size + 1, size))


def _converted_bytes(element: DataElement) -> bytes:
    """Bytes of an element that pydicom has decoded while reading (in practice the character set)."""
    value = element.value
    if isinstance(value, bytes):
        return value
    parts = [] if value is None else list(value) if isinstance(value, (list, tuple)) or element.VM > 1 else [value]
    if (form := NUMBER_FORMATS.get(element.VR)) is not None:
        return struct.pack(f"<{len(parts)}{form}", *parts)
    return "\\".join(str(part) for part in parts).encode("latin-1", "replace").rstrip(b" \0")


def charset_of(ds: Dataset) -> tuple[str, ...]:
    """Values of SpecificCharacterSet as received, stripped; empty where absent."""
    raw = element_bytes(ds, tag_of("SpecificCharacterSet"))
    return tuple(part.strip(" \0") for part in raw.decode("latin-1").split("\\")) if raw else ()


def split_values(raw: bytes, vr: str, charset: Sequence[str] = ()) -> tuple[str, ...]:
    """Values of a text element, each without surrounding spaces; empty tuple for an empty element."""
    text = decode_text(raw, charset)
    if not text.strip(" \0"):
        return ()
    parts = [text] if vr in _ONE_VALUE_VRS else text.split("\\")
    return tuple(part.strip(" \0") for part in parts)


def values_of(ds: Dataset, keyword: str, charset: Sequence[str]) -> tuple[str, ...]:
    """Values of an attribute as text; of a sequence with items ("present",), and () where it is absent or empty."""
    tag = tag_of(keyword)
    vr = vr_of(tag)
    if vr == "SQ":
        return ("present",) if element_items(ds, tag) else ()
    raw = element_bytes(ds, tag)
    if raw is None:
        return ()
    if vr in NUMBER_FORMATS:
        return tuple(str(number) for number in unpack_numbers(raw, vr))
    return split_values(raw, vr, charset)


def parse_decimal(text: str) -> float | None:
    """Value of one DS or IS string as PS3.5 6.2 spells it; None for anything else, infinities included."""
    if len(text) > 64 or not _DECIMAL.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if abs(value) < 1e30 else None


def unpack_numbers(raw: bytes, vr: str) -> tuple[float, ...]:
    """Numbers of a binary element given as little endian bytes."""
    form = NUMBER_FORMATS[vr]
    count = len(raw) // struct.calcsize(form)
    return struct.unpack(f"<{count}{form}", raw[: count * struct.calcsize(form)])


def is_valid_value(raw: bytes, vr: str, charset: Sequence[str]) -> bool:
    """True where a source value keeps the length and form rules of its VR (PS3.5 6.2).

    A UID may have leading zeros, which are forbidden and common, and whatever else digits and dots can be.
    """
    if vr in NUMBER_FORMATS:
        return len(raw) % struct.calcsize(NUMBER_FORMATS[vr]) == 0
    parts = [part for part in split_values(raw, vr, charset) if part]
    if vr == "UI":
        return all(UID_ALPHABET.fullmatch(part) for part in parts)
    try:
        for part in parts:
            validate_value(vr, part, RAISE)
    except (ValueError, TypeError):
        return False
    return True


def raw_element(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    """An element that is written with exactly these little endian bytes, padded to even length."""
    if len(value) % 2:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    return RawDataElement(tag, vr, len(value), value, 0, False, True)


def seal(ds: Dataset) -> Dataset:
    """Declare that all elements of `ds` are encoded as Explicit VR Little Endian, so that writing copies them.

    An item of a sequence names no character set: pydicom copies its text only where that counts as the default one.
    """
    charset = list(charset_of(ds))
    with quiet_pydicom():
        ds.set_original_encoding(False, True, convert_encodings(charset) if charset else default_encoding)
    return ds


def keep(ds: Dataset, keyword: str, value: str) -> None:
    """Add a UID of somebody else as it came: it is not held to the rules that `put` has for values of our own."""
    tag = tag_of(keyword)
    ds[tag] = raw_element(tag, vr_of(tag), value.encode("ascii"))


def put(ds: Dataset, keyword: str, *values: str) -> None:
    """Add a text element; raises ValueError where a value is not ASCII or breaks its VR (PS3.5 6.2)."""
    tag = tag_of(keyword)
    vr = vr_of(tag)
    for value in values:
        validate_value(vr, value, RAISE)
    try:
        ds[tag] = raw_element(tag, vr, "\\".join(values).encode("ascii"))
    except UnicodeEncodeError as error:
        raise ValueError(f"{keyword} must be ASCII") from error


def put_items(ds: Dataset, keyword: str, items: Sequence[Dataset]) -> None:
    """Add a sequence of sealed items."""
    tag = tag_of(keyword)
    ds[tag] = DataElement(tag, "SQ", DicomSequence(items))


def own_copy(built: Dataset) -> Dataset:
    """What another library built of our own text, each element validated and in the bytes that will be written, sealed.

    Raises ValueError for a value that is not ASCII or breaks its VR.
    """
    copy = Dataset()
    for element in built:
        if element.VR == "SQ":
            put_items(copy, element.keyword, [own_copy(item) for item in element.value])
        else:
            values = element.value if element.VM > 1 else [element.value]
            put(copy, element.keyword, *(str(value) for value in values))
    return seal(copy)


def ascii_text(ds: Dataset, keyword: str) -> str:
    """Value of an element of our own, or of a UID; "" where absent."""
    return (element_bytes(ds, tag_of(keyword)) or b"").decode("ascii")


def write_part10(ds: Dataset, path: Path) -> None:
    """Write a sealed dataset as an Explicit VR Little Endian Part 10 file, which is not yet forced to the disk."""
    with path.open("wb") as stream, quiet_pydicom():
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(ascii_text(ds, "SOPClassUID"))
        meta.MediaStorageSOPInstanceUID = UID(ascii_text(ds, "SOPInstanceUID"))
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        ds.file_meta = meta
        ds.preamble = b"\0" * 128
        dcmwrite(stream, ds, enforce_file_format=True)

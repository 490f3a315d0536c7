"""Owns the digest that tells whether two instances are the same image; must not depend on how they were sent."""

import hashlib
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.dicom.attributes import DIGESTED
from node.dicom.raw import copy_public_items, element_bytes, tag_of, unpack_numbers, vr_of

_UNCOMPRESSED: Final = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
)


def content_sha256(ds: Dataset, transfer_syntax_uid: str) -> str:
    """Hex SHA-256 over all that can influence the derived series: copied and gate attributes, and the pixels.

    Every value goes in as (tag, length, bytes), so no two contents run into each other. Values are taken without
    padding and little endian, so Implicit VR, Explicit VR, Big Endian and Deflated copies of one image agree. The
    pixels of a compressed instance go in as they are encapsulated, with the transfer syntax: the same image, compressed
    by somebody in between, counts as a different content and is never mixed up with the first.
    """
    digest = hashlib.sha256()
    for tag in sorted(tag_of(keyword) for keyword in DIGESTED):
        if tag in ds:
            _feed(digest, f"{tag:08X}".encode(), _canonical(ds, tag))
    pixels = element_bytes(ds, tag_of("PixelData")) or b""
    if transfer_syntax_uid in _UNCOMPRESSED:
        _feed(digest, b"pixels", pixels[: _pixel_bytes(ds, len(pixels))])
    else:
        _feed(digest, b"encapsulated " + transfer_syntax_uid.encode(), pixels)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", name: bytes, value: bytes) -> None:
    digest.update(b"%d:%b%d:" % (len(name), name, len(value)))
    digest.update(value)


def _canonical(ds: Dataset, tag: BaseTag) -> bytes:
    if vr_of(tag) != "SQ":
        return element_bytes(ds, tag) or b""
    return b"".join(_canonical_item(item) for item in copy_public_items(ds, tag))


def _canonical_item(item: Dataset) -> bytes:
    parts = [
        b"%08X%d:%b" % (tag, len(value), value) for tag in sorted(item.keys()) for value in (_canonical(item, tag),)
    ]
    body = b"".join(parts)
    return b"%d:%b" % (len(body), body)


def _pixel_bytes(ds: Dataset, present: int) -> int:
    """Length of the pixel data without a padding byte; all that is present where the header does not say."""
    sizes = [element_bytes(ds, tag_of(keyword)) or b"" for keyword in ("Rows", "Columns", "BitsAllocated")]
    if any(len(size) < 2 for size in sizes):
        return present
    rows, columns, bits = (int(unpack_numbers(size, "US")[0]) for size in sizes)
    expected = rows * columns * bits // 8
    return expected if present - expected == 1 else present

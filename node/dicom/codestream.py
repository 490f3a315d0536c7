"""What the head of a JPEG, JPEG-LS, JPEG 2000 or RLE codestream declares; nothing is decoded, and nothing raises.

Decoders allocate by the size that stands there, and take a lossy codestream under a lossless transfer syntax without a
word, so both are compared with the header first.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_J2K_START: Final = b"\xff\x4f\xff\x51"
_J2K_SSIZ: Final = 42  # where the precision of the first component stands, behind the number of components
_J2K_COD: Final = 0x52
_IRREVERSIBLE: Final = 0  # ISO/IEC 15444-1 table A.20
_JPEG_LOSSLESS: Final = 0xC3
_JPEG_LS: Final = 0xF7
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {_JPEG_LS}
_START_OF_SCAN: Final = 0xDA
_RLE_HEADER_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class CodestreamHead:
    """What a codestream declares: rows, columns, components, and bits per sample."""

    rows: int
    columns: int
    components: int
    precision_bits: int


def codestream_head(frame: bytes) -> CodestreamHead | None:
    """The head of a codestream (ISO/IEC 15444-1 A.5.1, 10918-1 B.2.2, 14495-1 C.2.2); None where there is none."""
    if frame.startswith(_J2K_START):
        return _jpeg_2000_head(frame) if len(frame) > _J2K_SSIZ + 2 else None
    for marker, body in _segments(frame):
        if marker in _JPEG_FRAMES and len(body) >= 6:
            return CodestreamHead(int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), body[5], body[0])
    return None


def _jpeg_2000_head(frame: bytes) -> CodestreamHead:
    x, y, x0, y0 = (int.from_bytes(frame[i : i + 4]) for i in (8, 12, 16, 20))
    components = int.from_bytes(frame[_J2K_SSIZ - 2 : _J2K_SSIZ])
    dx, dy = (max(step, 1) for step in frame[_J2K_SSIZ + 1 : _J2K_SSIZ + 3])  # a component may have fewer samples
    rows, columns = (-(-end // step) + (-start // step) for end, start, step in ((y, y0, dy), (x, x0, dx)))
    return CodestreamHead(rows, columns, components, (frame[_J2K_SSIZ] & 0x7F) + 1)


def why_not_as_declared(frame: bytes, rows: int, columns: int, bits_allocated: int) -> str:
    """How a codestream differs from the header of its slice, a clause with both values; "" where it does not.

    A decoder allocates by what the codestream says: 100 components of 4096 x 4096 pixels fit into 3.6 kB of it.
    """
    head = codestream_head(frame)
    if head is None:
        return "has no codestream that this node knows where its header says that one is"
    if (head.rows, head.columns) != (rows, columns):
        return (
            f"has a codestream of another size than its header says: {head.rows} x {head.columns} pixels, and "
            f"{rows} x {columns} in the header"
        )
    if head.components != 1:
        return f"has a codestream of {head.components} components, and its header says 1 sample per pixel"
    if not 1 < head.precision_bits <= bits_allocated:
        return f"has a codestream of {head.precision_bits} bits per sample, and {bits_allocated} in its header"
    if sum(marker in _JPEG_FRAMES for marker, _ in _segments(frame)) > 1 and not frame.startswith(_J2K_START):
        return "has a codestream that declares its size more than once"
    return ""


def why_not_rle(frame: bytes, rows: int, columns: int, bytes_per_pixel: int) -> str:
    """How an RLE frame (PS3.5 annex G) differs from the header of its slice, a clause; "" where it does not.

    How far its segments expand is known only when they are decoded; here their length bounds it.
    """
    if len(frame) < _RLE_HEADER_BYTES:
        return f"has {len(frame)} bytes of RLE data, and the RLE header alone has {_RLE_HEADER_BYTES}"
    count, *offsets = struct.unpack("<16I", frame[:_RLE_HEADER_BYTES])
    if count != bytes_per_pixel:
        return f"has {count} RLE segments, and its header says {bytes_per_pixel} bytes per pixel, a segment each"
    ends = [*offsets[1:count], len(frame)]
    if offsets[0] != _RLE_HEADER_BYTES or any(a > b for a, b in zip(offsets[:count], ends, strict=True)):
        return "has an RLE header whose offsets do not lie in its data in ascending order"
    longest = max(b - a for a, b in zip(offsets[:count], ends, strict=True))
    limit = 2 * (rows * columns + 1)  # every byte by itself, after a byte that says so, and padding
    if longest > limit:
        return f"has an RLE segment of {longest} bytes, and {rows} x {columns} pixels can take {limit} at most"
    return ""


def why_lossy(frame: bytes) -> str:
    """What in the head of a codestream shows that values were lost, a clause; "" where nothing does.

    JPEG 2000: the irreversible wavelet. JPEG-LS: NEAR above 0. JPEG: another process than the lossless one, or a point
    transform. A reversible JPEG 2000 stream whose last layers were thrown away cannot be told.
    """
    process = 0
    for marker, body in _segments(frame):
        if frame.startswith(_J2K_START):
            if marker == _J2K_COD and len(body) > 9:
                return "the irreversible wavelet 9-7" if body[9] == _IRREVERSIBLE else ""
        elif marker in _JPEG_FRAMES:
            process = marker
            if process not in (_JPEG_LOSSLESS, _JPEG_LS):
                return f"the JPEG process SOF{process - 0xC0}"
        elif marker == _START_OF_SCAN:
            return _loss_of_scan(process, body)
    return ""


def _loss_of_scan(process: int, body: bytes) -> str:
    parameters = body[1 + 2 * body[0] :] if body else b""
    if len(parameters) < 3:
        return ""
    near, point_transform = parameters[0], parameters[2] & 0x0F
    if process == _JPEG_LS:
        return f"NEAR is {near}" if near else ""
    return f"a point transform of {point_transform} bits" if point_transform else ""


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker (second byte) and contents of the segments of a head, until something is no segment."""
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        length = max(int.from_bytes(frame[position + 2 : position + 4]), 2)
        yield frame[position + 1], frame[position + 4 : position + 2 + length]
        position += 2 + length

"""What the head of a JPEG, JPEG-LS or JPEG 2000 codestream declares; nothing is decoded, and nothing raises.

Decoders allocate by the size that stands there, and take a lossy codestream under a lossless transfer syntax without a
word, so both are compared with the header first.
"""

from collections.abc import Iterator
from typing import Final

_J2K_START: Final = b"\xff\x4f\xff\x51"
_J2K_COD: Final = 0x52
_IRREVERSIBLE: Final = 0  # ISO/IEC 15444-1 table A.20
_JPEG_LOSSLESS: Final = 0xC3
_JPEG_LS: Final = 0xF7
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {_JPEG_LS}
_START_OF_SCAN: Final = 0xDA


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a codestream declares (ISO/IEC 15444-1 A.5.1, 10918-1 B.2.2, 14495-1 C.2.2), else None."""
    if frame.startswith(_J2K_START):
        x, y, x0, y0 = (int.from_bytes(frame[i : i + 4]) for i in (8, 12, 16, 20))
        return y - y0, x - x0
    for marker, body in _segments(frame):
        if marker in _JPEG_FRAMES and len(body) >= 5:
            return int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
    return None


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

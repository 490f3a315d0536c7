"""Images and headers that cost whoever reads them far more than they weigh."""

import struct
from pathlib import Path

from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

from tests.builders import make_series


def jpeg_2000(components: int, rows: int, columns: int, *, precision_bits: int = 12, subsampling: int = 1) -> bytes:
    """A JPEG 2000 codestream of one tile without data: some 3 bytes for each component that it declares."""
    of_one = bytes([precision_bits - 1, subsampling, subsampling])
    size = struct.pack(">HIIIIIIIIH", 0, columns, rows, 0, 0, columns, rows, 0, 0, components) + of_one * components
    coding = bytes([0, 0, 0, 1, 0, 0, 4, 4, 0, 1])
    quantization = bytes([0x40, 0x40])
    head = b"\xff\x4f" + b"".join(
        struct.pack(">HH", marker, len(body) + 2) + body
        for marker, body in ((0xFF51, size), (0xFF52, coding), (0xFF5C, quantization))
    )
    tile = struct.pack(">HHHIBB", 0xFF90, 10, 0, 0, 0, 1) + b"\xff\x93" + bytes(64)
    return head + tile + b"\xff\xd9"


def jpeg_ls(components: int, rows: int, columns: int, *, precision_bits: int = 12) -> bytes:
    """The head of a JPEG-LS codestream."""
    frame = struct.pack(">BHHB", precision_bits, rows, columns, components) + bytes([1, 0x11, 0]) * components
    return b"\xff\xd8\xff\xf7" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"


def rle(segment: bytes, count: int = 2) -> bytes:
    """An RLE frame of equal segments."""
    offsets = [64 + k * len(segment) for k in range(count)] + [0] * (15 - count)
    return struct.pack("<16I", count, *offsets) + segment * count


def rle_bomb(size_bytes: int) -> bytes:
    """An RLE segment of that size, which expands to 64 times as much."""
    return b"\x81\x07" * (size_bytes // 2)


def with_frame(folder: Path, frame: bytes, syntax: str, *, slices: int = 11, seed: str = "builder") -> list[Path]:
    """A series whose pixels are this codestream in one fragment."""
    return with_pixel_data(folder, encapsulate([frame]), syntax, slices=slices, seed=seed)


def with_pixel_data(folder: Path, data: bytes, syntax: str, *, slices: int = 11, seed: str = "builder") -> list[Path]:
    """A series with these encapsulated pixel data."""
    paths = make_series(folder, slices=slices, seed=seed)
    for path in paths:
        ds = dcmread(path)
        ds.PixelData = data
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        ds.save_as(path)
    return paths


JPEG_2000, RLE = JPEG2000Lossless, RLELossless

"""Pictures for the review: HU become grey values, differences become colours. Arrays in, the bytes of a PNG out."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from models.bundle import HU_WINDOW

Hu = NDArray[np.float32]  # [H, W]
Mask = NDArray[np.bool_]  # [H, W]


@dataclass(frozen=True, slots=True)
class Window:
    """What is shown from black to white: `centre_hu` and `width_hu`, and what it is for in words."""

    label: str
    centre_hu: float
    width_hu: float


PRESETS: Final = {
    "soft": Window("soft tissue", 40.0, 400.0),
    "vessels": Window("mediastinum and vessels", 50.0, 350.0),
    "lung": Window("lung", -600.0, 1500.0),
    "bone": Window("bone", 400.0, 1800.0),
    "model": Window("what the model sees", sum(HU_WINDOW) / 2, HU_WINDOW[1] - HU_WINDOW[0]),
}
"""By name, in the order of the keys 1 to 5."""

DIFFERENCE_RANGES_HU: Final = (50, 100, 200)

# Blue, white, red as ColorBrewer's RdBu has them, which people with a red-green weakness tell apart as well. No colour
# of it is a dark grey, so that grey is free for a pixel that was not touched.
_STOPS: Final = (
    (5, 48, 97),
    (33, 102, 172),
    (146, 197, 222),
    (247, 247, 247),
    (244, 165, 130),
    (178, 24, 43),
    (103, 0, 31),
)
UNTOUCHED_RGB: Final = (64, 64, 64)
OUTLINE_RGB: Final = (255, 221, 0)
_UNTOUCHED, _LOWEST, _ZERO, _HIGHEST, _OUTLINE = 0, 1, 127, 253, 254
_LEGEND_PX: Final = (256, 16)
_SQUARE_TOLERANCE: Final = 0.001
_COMPRESSION: Final = 1  # of zlib: a fifth of the time of its default, and a picture a tenth larger


def grey_png(
    hu: Hu, window: Window, *, spacing_mm: tuple[float, float] = (1.0, 1.0), outline: Mask | None = None
) -> bytes:
    """A PNG of 8 bit grey values: PS3.3 C.11.2.1.3.2 (LINEAR_EXACT), rounded; what is no number is black.

    spacing_mm: (row, column) distance of the pixels; where they are not square, the shorter side's pixels are repeated.
    outline: the border of this region is drawn in yellow; the picture has colours then.
    """
    image = Image.fromarray(grey_values(hu, window))
    if outline is not None and outline.any():
        coloured = np.asarray(image.convert("RGB")).copy()
        coloured[_border(outline)] = OUTLINE_RGB
        image = Image.fromarray(coloured)
    return _png(_square_pixels(image, spacing_mm))


def grey_values(hu: Hu, window: Window) -> NDArray[np.uint8]:
    """uint8 [H, W]: 0 at the window's lower end and below, 255 at its upper end and above."""
    share = (np.nan_to_num(hu, nan=-np.inf) - window.centre_hu) / window.width_hu + 0.5
    return np.asarray(np.rint(np.clip(share, 0.0, 1.0) * 255), np.uint8)


def difference_png(
    difference_hu: Hu, range_hu: float, *, spacing_mm: tuple[float, float] = (1.0, 1.0), outline: Mask | None = None
) -> bytes:
    """A PNG of a difference: blue below 0 HU, white about 0, red above, grey where it is exactly 0.

    range_hu: the difference of the darkest red, and minus that of the darkest blue; what lies beyond has that colour.
    The other parameters are those of `grey_png`.
    """
    steps = np.rint(np.clip(np.nan_to_num(difference_hu) / range_hu, -1.0, 1.0) * (_HIGHEST - _ZERO))
    indices = (steps + _ZERO).astype(np.uint8)
    indices[difference_hu == 0] = _UNTOUCHED
    if outline is not None:
        indices[_border(outline)] = _OUTLINE
    return _png(_square_pixels(_coloured(indices), spacing_mm))


def legend_png() -> bytes:
    """A PNG of all colours of a difference, from the lowest on the left to the highest on the right."""
    width, height = _LEGEND_PX
    line = np.rint(np.linspace(_LOWEST, _HIGHEST, width)).astype(np.uint8)
    return _png(_coloured(np.repeat(line[None], height, axis=0)))


def _coloured(indices: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette(_palette())  # makes it one of mode P
    return image


def _palette() -> list[int]:
    places = np.linspace(_LOWEST, _HIGHEST, len(_STOPS))
    colours = np.zeros((256, 3))
    for channel in range(3):
        colours[:, channel] = np.interp(np.arange(256), places, [stop[channel] for stop in _STOPS])
    colours[_UNTOUCHED], colours[_OUTLINE] = UNTOUCHED_RGB, OUTLINE_RGB
    return [int(value) for value in np.rint(colours).ravel()]


def _border(region: Mask) -> Mask:
    """The pixels of a region that have a neighbour outside it."""
    return np.asarray(region & ~binary_erosion(region))


def _square_pixels(image: Image.Image, spacing_mm: tuple[float, float]) -> Image.Image:
    """Repeat rows or columns, so that the picture has the proportions of the patient; no grey value is mixed."""
    row_mm, column_mm = spacing_mm
    if abs(row_mm / column_mm - 1) <= _SQUARE_TOLERANCE:
        return image
    step_mm = min(row_mm, column_mm)
    size = round(image.width * column_mm / step_mm), round(image.height * row_mm / step_mm)
    return image.resize(size, Image.Resampling.NEAREST)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=_COMPRESSION)
    return stream.getvalue()

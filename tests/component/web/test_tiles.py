"""A picture of the review shows the HU that its window says, and which pixels were not touched."""

import io

import numpy as np
import pytest
from PIL import Image

from node.web.tiles import (
    OUTLINE_RGB,
    PRESETS,
    UNTOUCHED_RGB,
    Window,
    difference_png,
    grey_png,
    legend_png,
)


def pixels(png: bytes, mode: str = "L") -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert(mode))


def expected_grey(hu: float, centre: float, width: float) -> int:
    """PS3.3 C.11.2.1.3.2, written as the standard has it."""
    if hu <= centre - width / 2:
        return 0
    if hu > centre + width / 2:
        return 255
    return round(((hu - centre) / width + 0.5) * 255)


@pytest.mark.parametrize("name", PRESETS)
def test_every_pixel_has_the_grey_of_its_hu(name: str) -> None:
    window = PRESETS[name]
    hu = np.random.default_rng(3).uniform(-1100, 1500, (20, 30)).astype(np.float32)
    shown = pixels(grey_png(hu, window))
    assert shown.shape == hu.shape
    assert shown.tolist() == [
        [expected_grey(float(value), window.centre_hu, window.width_hu) for value in row] for row in hu
    ]


def test_the_window_of_the_model_is_that_of_its_input() -> None:
    hu = np.array([[-41, -40, 180, 400, 401, np.nan, np.inf]], np.float32)
    assert pixels(grey_png(hu, PRESETS["model"])).tolist() == [[0, 0, 128, 255, 255, 0, 255]]


def test_a_grey_picture_has_one_channel_of_8_bits() -> None:
    assert Image.open(io.BytesIO(grey_png(np.zeros((2, 2), np.float32), PRESETS["soft"]))).mode == "L"


def test_pixels_that_are_not_square_keep_the_proportions_of_the_patient() -> None:
    hu = np.array([[0, 400], [400, 0]], np.float32)
    tall = pixels(grey_png(hu, Window("", 200, 400), spacing_mm=(3.0, 1.0)))
    assert tall.tolist() == [[0, 255]] * 3 + [[255, 0]] * 3
    wide = pixels(grey_png(hu, Window("", 200, 400), spacing_mm=(1.0, 2.0)))
    assert wide.tolist() == [[0, 0, 255, 255], [255, 255, 0, 0]]


def test_exactly_zero_is_grey_and_the_smallest_change_is_not() -> None:
    shown = pixels(difference_png(np.array([[0.0, 0.001, -0.001]], np.float32), 50), "RGB")[0]
    assert tuple(shown[0]) == UNTOUCHED_RGB
    assert min(shown[1].min(), shown[2].min()) > 200


def test_brighter_is_red_and_darker_is_blue_up_to_the_range() -> None:
    difference = np.array([[100, 50, -50, -100, 1000, -1000]], np.float32)
    red, half_red, half_blue, blue, over, under = pixels(difference_png(difference, 100), "RGB")[0].astype(int)
    assert red[0] > red[2]
    assert half_red[0] > half_red[2]
    assert blue[2] > blue[0]
    assert half_blue[2] > half_blue[0]
    assert half_red.sum() > red.sum()
    assert half_blue.sum() > blue.sum()
    assert (over == red).all()
    assert (under == blue).all()


def test_the_two_sides_differ_in_brightness_for_nobody() -> None:
    """The sign is told by hue, blue or red, which no colour weakness mixes up; its size by brightness alone."""
    legend = pixels(legend_png(), "RGB")[0].astype(float)
    luminance = legend @ (0.2126, 0.7152, 0.0722)
    middle = len(luminance) // 2
    assert (np.diff(luminance[:middle]) >= 0).all()
    assert (np.diff(luminance[middle:]) <= 0).all()


def test_the_legend_has_the_colours_of_the_picture() -> None:
    legend = pixels(legend_png(), "RGB")
    shown = pixels(difference_png(np.array([[-80, 80]], np.float32), 80), "RGB")
    assert (legend[0, 0] == shown[0, 0]).all()
    assert (legend[0, -1] == shown[0, 1]).all()


def test_a_region_is_outlined_and_its_inside_stays_visible() -> None:
    region = np.zeros((7, 7), np.bool_)
    region[1:6, 1:6] = True
    for png in (
        grey_png(np.zeros((7, 7), np.float32), PRESETS["soft"], outline=region),
        difference_png(np.ones((7, 7), np.float32), 50, outline=region),
    ):
        yellow = (pixels(png, "RGB") == OUTLINE_RGB).all(axis=2)
        assert yellow.sum() == 16
        assert not yellow[2:5, 2:5].any()
        assert not yellow[0].any()

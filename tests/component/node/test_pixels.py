"""decode_slice and read_volume: bits above BitsStored, and every lossless syntax that is accepted."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import JPEG2000Lossless

from node.dicom.elements import raw_element
from node.dicom.pixels import can_decode
from node.dicom.synthetic_scan import put_number
from node.dicom.volume import MisfitPixels, read_volume
from node.errors import Doubtful, UnreadableInstance
from tests.builders import make_series, put_raw
from tests.conftest import require_program

SIDE = 32
Edit = Callable[[Dataset, int], None]


def pixels(values: np.ndarray | Callable[[int], np.ndarray], *, bits: int, signed: bool) -> Edit:
    """Put these values, as 16 bits write them, under this header, whether they fit or not."""

    def edit(ds: Dataset, z: int) -> None:
        put_number(ds, "BitsStored", bits)
        put_number(ds, "HighBit", bits - 1)
        put_number(ds, "PixelRepresentation", int(signed))
        now = values(z) if callable(values) else values
        put_raw(ds, "PixelData", np.asarray(now).astype("<i4").astype("<u2").tobytes())

    return edit


def ramp(low: int, high: int) -> np.ndarray:
    """Whole numbers from low to high, both there."""
    return np.linspace(low, high, SIDE * SIDE).round().astype(np.int32).reshape(SIDE, SIDE)


@pytest.mark.parametrize(
    ("values", "bits", "signed"),
    [
        (ramp(0, 4095), 12, False),
        (ramp(0, 65535), 16, False),
        (ramp(-2048, 2047), 12, True),
        (ramp(-4096, 4095), 13, True),
        (ramp(-32768, 32767), 16, True),
        (ramp(0, 2047), 12, True),
    ],
)
def test_values_that_fit_are_kept(tmp_path: Path, values: np.ndarray, bits: int, signed: bool) -> None:
    volume = read_volume(make_series(tmp_path, slices=2, edit=pixels(values, bits=bits, signed=signed)))
    np.testing.assert_array_equal(volume.stored[1], values)


@pytest.mark.parametrize("bits", [12, 13, 15])
def test_a_writer_that_never_extends_the_sign_is_understood(tmp_path: Path, bits: int) -> None:
    values = ramp(-1024, 1024)
    volume = read_volume(
        make_series(tmp_path, slices=2, edit=pixels(values & ((1 << bits) - 1), bits=bits, signed=True))
    )
    np.testing.assert_array_equal(volume.stored[0], values)


@pytest.mark.parametrize(
    ("values", "bits", "signed", "says"),
    [
        (
            ramp(-1024, 3071),
            12,
            True,
            r"2 slices do not fit BitsStored \(12\): a pixel has the value 3071, .*-2048 to 2047",
        ),
        (ramp(-3000, 100), 12, True, "the value -3000"),
        (ramp(0, 4096), 12, False, "the value 4096, and 12 bits hold 0 to 4095"),
        (ramp(0, 40000), 15, False, "the value 40000, and 15 bits hold 0 to 32767"),
        (np.full((SIDE, SIDE), 0xF000 | 1064), 12, False, "the value 62504"),
        (ramp(-5000, 4000), 13, True, "the value -5000, and 13 bits hold -4096 to 4095"),
    ],
)
def test_values_that_do_not_fit_are_doubted(
    tmp_path: Path, values: np.ndarray, bits: int, signed: bool, says: str
) -> None:
    paths = make_series(tmp_path, slices=2, edit=pixels(values, bits=bits, signed=signed))
    with pytest.raises(MisfitPixels, match=says) as caught:
        read_volume(paths)
    assert isinstance(caught.value, Doubtful)


def test_one_slice_that_does_not_fit_is_enough(tmp_path: Path) -> None:
    edit = pixels(lambda z: ramp(-1000, 3071 if z == 3 else 2000), bits=12, signed=True)
    with pytest.raises(MisfitPixels, match="1 slice does not fit"):
        read_volume(make_series(tmp_path, slices=5, edit=edit))


def test_slices_that_write_the_sign_in_two_ways_are_doubted(tmp_path: Path) -> None:
    """Slice 2 holds no air: its metal of 3071 reads as -1025 of a writer that does not extend the sign."""
    edit = pixels(lambda z: ramp(0, 3071) if z == 2 else ramp(-1000, 2000), bits=12, signed=True)
    with pytest.raises(MisfitPixels, match="sign"):
        read_volume(make_series(tmp_path, slices=5, edit=edit))


def overlay(bit: int, *, allocated: int = 16, group: int = 0x6000) -> Edit:
    """An overlay of the retired kind in one bit of the pixels, in the middle of the image."""

    def edit(ds: Dataset, _z: int) -> None:
        data = np.frombuffer(bytes(ds.get_item("PixelData").value), "<u2").reshape(SIDE, SIDE).copy()
        data[8:24, 8:24] ^= np.uint16(1 << bit)
        put_raw(ds, "PixelData", data.tobytes())
        for element, number in ((0x0100, allocated), (0x0102, bit)):
            tag = Tag(group, element)
            ds[tag] = raw_element(tag, "US", number.to_bytes(2, "little"))

    return edit


def both(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(ds: Dataset, z: int) -> None:
        for one in edits:
            one(ds, z)

    return edit


@pytest.mark.parametrize(
    ("values", "bits", "signed", "overlays"),
    [
        (ramp(0, 4095), 12, False, [overlay(15)]),
        (ramp(0, 4095), 12, False, [overlay(12), overlay(14, group=0x6002)]),
        (ramp(-1024, 2047), 12, True, [overlay(13)]),
        (ramp(0, 16383), 14, False, [overlay(15, group=0x601E)]),
    ],
)
def test_overlays_in_the_pixels_are_masked(
    tmp_path: Path, values: np.ndarray, bits: int, signed: bool, overlays: list[Edit]
) -> None:
    edit = both(pixels(values, bits=bits, signed=signed), *overlays)
    volume = read_volume(make_series(tmp_path, slices=2, edit=edit))
    np.testing.assert_array_equal(volume.stored[0], values)


@pytest.mark.parametrize("edit", [overlay(15, allocated=1), both(overlay(14), overlay(15, group=0x5000))])
def test_bits_that_no_overlay_names_are_doubted(tmp_path: Path, edit: Edit) -> None:
    with pytest.raises(MisfitPixels):
        read_volume(make_series(tmp_path, slices=2, edit=both(pixels(ramp(0, 4095), bits=12, signed=False), edit)))


FORMATS = [
    (ramp(0, 4095), 12, False),
    (ramp(-2048, 2047), 12, True),
    (ramp(-1024, 3071), 13, True),
    (ramp(0, 65535), 16, False),
    (ramp(-32768, 32767), 16, True),
]
ENCODERS = [
    (["dcmcjpeg", "+e1"], "1.2.840.10008.1.2.4.70"),
    (["dcmcjpeg", "+el", "+sv", "1"], "1.2.840.10008.1.2.4.57"),
    (["dcmcjpeg", "+el", "+sv", "6"], "1.2.840.10008.1.2.4.57"),
    (["dcmcjpls"], "1.2.840.10008.1.2.4.80"),
    (["dcmcrle"], "1.2.840.10008.1.2.5"),
]


@pytest.mark.parametrize(("values", "bits", "signed"), FORMATS)
@pytest.mark.parametrize(("encoder", "syntax"), ENCODERS)
def test_lossless_syntaxes_give_the_scanners_values(
    tmp_path: Path, values: np.ndarray, bits: int, signed: bool, encoder: list[str], syntax: str
) -> None:
    require_program(encoder[0])
    assert can_decode(syntax)
    paths = make_series(tmp_path, slices=3, edit=pixels(values, bits=bits, signed=signed))
    for path in paths[1:]:  # the first stays uncompressed: syntaxes may be mixed in one series
        subprocess.run([*encoder, path, path], check=True)
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    volume = read_volume(paths)
    for z in range(3):
        np.testing.assert_array_equal(volume.stored[z], values)


@pytest.mark.parametrize(("values", "bits", "signed"), FORMATS)
def test_jpeg_2000_whose_codestream_says_unsigned_gives_the_scanners_values(
    tmp_path: Path, values: np.ndarray, bits: int, signed: bool
) -> None:
    paths = make_series(tmp_path, slices=2, edit=pixels(values, bits=bits, signed=signed))
    for path in paths:
        ds = dcmread(path)
        words = (values & ((1 << bits) - 1)).astype(np.uint16)
        ds.PixelData = encapsulate([bytes(encode_array(words, bits_stored=bits, photometric_interpretation=0))])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
        ds.save_as(path)
    np.testing.assert_array_equal(read_volume(paths).stored[0], values)


@pytest.mark.parametrize("syntax", ["+e1", "+el"])
def test_jpeg_lossless_of_another_size_or_damaged_is_an_error_of_the_file(tmp_path: Path, syntax: str) -> None:
    require_program("dcmcjpeg")
    for name, damage in (("size", 0), ("cut", 1)):
        paths = make_series(tmp_path / name, slices=2)
        for path in paths:
            subprocess.run(["dcmcjpeg", syntax, path, path], check=True)
            ds = dcmread(path)
            if damage:
                ds.PixelData = encapsulate([bytes(ds.PixelData)[16:40]])
            else:
                ds.Rows, ds.Columns = 16, 64
            ds.save_as(path)
        with pytest.raises(UnreadableInstance):
            read_volume(paths)


@pytest.mark.parametrize("begin", [0.3, 0.6, 0.9])
def test_damage_inside_a_jpeg_lossless_image_ends_neither_the_node_nor_passes_as_pixels(
    tmp_path: Path, begin: float
) -> None:
    """GDCM ends its process on such data, or guesses; the next image is decoded as if nothing had been."""
    require_program("dcmcjpeg")
    whole, cut = (make_series(tmp_path / name, slices=2) for name in ("whole", "cut"))
    for path in (*whole, *cut):
        subprocess.run(["dcmcjpeg", "+e1", path, path], check=True)
    ds = dcmread(cut[0])
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    end = int(len(frame) * begin)
    ds.PixelData = encapsulate([frame[:end] + b"\xff\xda\xff\xc4" + frame[end : end + 40]])
    ds.save_as(cut[0])
    with pytest.raises(UnreadableInstance, match="cannot be decoded"):
        read_volume(cut)
    assert len(read_volume(whole).slices) == 2

"""A compressed image that its transfer syntax calls lossless and that is not, or that says another size."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jpeg_ls  # type: ignore[import-untyped]
import numpy as np
import pytest
from openjpeg.utils import encode_array
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless

from node.dicom.codestream import codestream_head, why_lossy, why_not_as_declared
from node.dicom.volume import read_volume
from node.errors import UnreadableInstance
from tests.builders import make_series
from tests.conftest import require_program

Frame = Callable[[Dataset], bytes]


def jpeg_2000(ds: Dataset, **options: Any) -> bytes:
    return bytes(encode_array(ds.pixel_array, bits_stored=ds.BitsStored, photometric_interpretation=0, **options))


def jpeg_ls_near(near: int) -> Frame:
    return lambda ds: bytes(jpeg_ls.encode_array(ds.pixel_array, lossy_error=near))


def first_frame(path: Path) -> bytes:
    return next(generate_frames(dcmread(path).PixelData, number_of_frames=1))


def with_frames(folder: Path, frame: Frame, syntax: str) -> list[Path]:
    """A series of two slices whose pixels are these codestreams."""
    paths = make_series(folder, slices=2)
    for path in paths:
        ds = dcmread(path)
        ds.PixelData = encapsulate([frame(ds)])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = UID(syntax)
        ds.save_as(path)
    return paths


def jpeg(folder: Path, *options: str) -> bytes:
    """The codestream that DCMTK makes of a slice."""
    require_program("dcmcjpeg")
    (path,) = make_series(folder, slices=1)
    subprocess.run(["dcmcjpeg", *options, path, path], check=True, capture_output=True)
    return first_frame(path)


@pytest.mark.parametrize(
    ("frame", "syntax", "said"),
    [
        (lambda ds: jpeg_2000(ds, compression_ratios=[20]), JPEG2000Lossless, "wavelet 9-7"),
        (lambda ds: jpeg_2000(ds, signal_noise_ratios=[40]), JPEG2000Lossless, "wavelet 9-7"),
        (jpeg_ls_near(1), JPEGLSLossless, "NEAR is 1"),
        (jpeg_ls_near(3), JPEGLSLossless, "NEAR is 3"),
    ],
)
def test_a_lossy_image_under_a_lossless_syntax_is_refused_with_what_its_codestream_says(
    tmp_path: Path, frame: Frame, syntax: str, said: str
) -> None:
    with pytest.raises(UnreadableInstance, match=rf"InstanceNumber 1 .*{said}.*transfer syntax says lossless"):
        read_volume(with_frames(tmp_path, frame, syntax))


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_a_lossy_jpeg_under_the_syntax_of_lossless_jpeg_is_refused(tmp_path: Path, syntax: str) -> None:
    lossy = jpeg(tmp_path / "made", "+ee")
    with pytest.raises(UnreadableInstance, match="JPEG process SOF1"):
        read_volume(with_frames(tmp_path / "lossy", lambda _: lossy, syntax))


def test_a_point_transform_is_a_loss(tmp_path: Path) -> None:
    """It drops the lowest bits of every pixel (ISO/IEC 10918-1 H.1.2.1)."""
    assert why_lossy(jpeg(tmp_path / "two", "+el", "+pt", "2")) == "a point transform of 2 bits"
    assert why_lossy(jpeg(tmp_path / "none", "+el")) == ""


@pytest.mark.parametrize("frame", [jpeg_2000, jpeg_ls_near(0)])
def test_lossless_codestreams_are_told_from_lossy_ones(tmp_path: Path, frame: Frame) -> None:
    (path,) = make_series(tmp_path, slices=1)
    made = frame(dcmread(path))
    assert why_lossy(made) == ""
    assert why_not_as_declared(made, 32, 32, 16) == ""


@pytest.mark.parametrize("data", [b"", b"\xff\x4f\xff\x51", b"\xff\xd8\xff", bytes(100), b"\xff\xd8" + b"\xff" * 64])
def test_what_is_no_codestream_declares_nothing(data: bytes) -> None:
    assert why_lossy(data) == ""
    assert codestream_head(data[:3]) is None


def test_every_beginning_of_a_codestream_is_read_without_an_error(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, slices=1)
    for frame in (jpeg_2000(dcmread(path)), jpeg_ls_near(2)(dcmread(path))):
        for end in range(120):
            assert why_lossy(frame[:end]) in ("", "NEAR is 2")
            codestream_head(frame[:end])


def test_the_values_of_a_codestream_do_not_matter_to_its_verdict(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 4096, (32, 32), dtype=np.uint16)
    assert why_lossy(bytes(jpeg_ls.encode_array(noise))) == ""

"""read_volume: HU and stored values on the lattice, whatever order and format the files have."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from node.dicom.codestream import CodestreamHead, codestream_head
from node.dicom.constants import AIR_HU
from node.dicom.elements import element_bytes, put, tag_of
from node.dicom.headers import read_header
from node.dicom.pixels import can_decode
from node.dicom.synthetic_scan import put_number
from node.dicom.volume import UnusableSeries, read_volume
from node.errors import UnreadableInstance
from tests.builders import body_hu, make_series, put_raw


def test_order_of_files_does_not_matter_and_z_ascends(tmp_path: Path) -> None:
    hu = body_hu()
    paths = make_series(tmp_path, hu=hu, spacing_mm=(3.0, 1.5, 0.75))
    volume = read_volume([*paths[5:], *paths[:5]])
    np.testing.assert_array_equal(volume.hu, np.rint(hu))
    assert volume.hu.dtype == np.float32
    assert volume.spacing_mm == (3.0, 1.5, 0.75)
    assert [header.image_position_mm and header.image_position_mm[2] for header in volume.headers] == [
        3.0 * z for z in range(10)
    ]


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    def rescale(ds: object, z: int) -> None:
        put(ds, "RescaleIntercept", str(-1000 - z))  # type: ignore[arg-type]
        put(ds, "RescaleSlope", "2")  # type: ignore[arg-type]

    volume = read_volume(make_series(tmp_path, slices=4, edit=rescale))
    for z in range(4):
        np.testing.assert_array_equal(volume.hu[z], volume.stored[z] * 2.0 - 1000 - z)


def declare_padding(low: int, high: int, *, signed: bool = False) -> Callable[[Dataset, int], None]:
    def pad(ds: Dataset, _z: int) -> None:
        put_number(ds, "PixelRepresentation", int(signed))
        put_number(ds, "PixelPaddingValue", low)
        put_number(ds, "PixelPaddingRangeLimit", high)

    return pad


def test_padding_becomes_air_in_hu_and_stays_in_stored(tmp_path: Path) -> None:
    """Outside the round body lies air of -1000 HU, which is 24."""
    volume = read_volume(make_series(tmp_path, slices=3, edit=declare_padding(20, 30, signed=True)))
    assert volume.padding is not None
    np.testing.assert_array_equal(volume.padding, (volume.stored >= 20) & (volume.stored <= 30))
    assert volume.padding.any()
    assert (volume.hu[volume.padding] == -1024).all()


def test_a_padding_value_that_is_also_tissue_is_padding_only_where_it_reaches_the_border(tmp_path: Path) -> None:
    plain = read_volume(make_series(tmp_path / "plain", slices=3))
    tissue = read_volume(make_series(tmp_path / "a", slices=3, edit=declare_padding(1064, 1070)))
    assert ((tissue.stored >= 1064) & (tissue.stored <= 1070)).any()
    assert tissue.padding is None
    np.testing.assert_array_equal(tissue.hu, plain.hu)


@pytest.mark.parametrize("outside_hu", [0.0, 40.0, -40.0, 400.0])
def test_one_value_in_all_corners_that_is_not_air_was_not_measured(tmp_path: Path, outside_hu: float) -> None:
    hu = body_hu(rows=64, columns=64)
    y, x = np.mgrid[-1 : 1 : 64 * 1j, -1 : 1 : 64 * 1j]
    outside = np.broadcast_to(x**2 + y**2 > 1.0, hu.shape)
    hu[outside] = outside_hu
    hu[:, 32, 32] = outside_hu
    volume = read_volume(make_series(tmp_path, hu=hu))
    assert volume.padding is not None
    np.testing.assert_array_equal(volume.padding, outside)
    assert float(volume.hu[outside].max()) == AIR_HU


@pytest.mark.parametrize("corner_hu", [-1000.0, -1024.0, -700.0])
def test_air_in_the_corners_is_measured(tmp_path: Path, corner_hu: float) -> None:
    hu = body_hu(rows=64, columns=64)
    hu[hu == -1000.0] = corner_hu
    assert read_volume(make_series(tmp_path, hu=hu)).padding is None


def test_tissue_that_reaches_one_corner_is_measured(tmp_path: Path) -> None:
    hu = body_hu(rows=64, columns=64)
    hu[:, :20, :20] = 0.0
    assert read_volume(make_series(tmp_path, hu=hu)).padding is None


def test_air_inside_that_equals_padding_outside_is_no_padding(tmp_path: Path) -> None:
    hu = body_hu(3)
    hu[:, 14:18, 14:18] = -1000
    volume = read_volume(make_series(tmp_path, hu=hu, edit=declare_padding(24, 24)))
    assert volume.padding is not None
    assert volume.padding[:, 0].all()
    assert not volume.padding[:, 14:18, 14:18].any()
    assert (volume.hu[:, 14:18, 14:18] == -1000).all()


def test_padding_that_touches_the_border_only_at_a_corner_of_a_pixel_is_tissue(tmp_path: Path) -> None:
    hu = np.full((2, 4, 4), 40, np.float32)
    hu[:, 0, 0] = hu[:, 1, 1] = -1000
    volume = read_volume(make_series(tmp_path, hu=hu, edit=declare_padding(24, 24)))
    assert volume.padding is not None
    np.testing.assert_array_equal(np.argwhere(volume.padding[0]), [[0, 0]])


@pytest.mark.parametrize("sent_as", [(0xF830).to_bytes(2, "little"), (-2000).to_bytes(2, "little", signed=True)])
def test_signed_padding_sent_with_either_vr(tmp_path: Path, sent_as: bytes) -> None:
    def pad(ds: object, _z: int) -> None:
        put_number(ds, "BitsStored", 16)  # type: ignore[arg-type]
        put_number(ds, "HighBit", 15)  # type: ignore[arg-type]
        put_number(ds, "PixelRepresentation", 1)  # type: ignore[arg-type]
        put_raw(ds, "PixelPaddingValue", sent_as)  # type: ignore[arg-type]
        put_raw(ds, "PixelData", np.where(np.tri(32), -2000, 1064).astype("<i2").tobytes())  # type: ignore[arg-type]

    volume = read_volume(make_series(tmp_path, slices=3, edit=pad))
    assert volume.stored.dtype == np.int16
    np.testing.assert_array_equal(volume.padding, np.broadcast_to(np.tri(32, dtype=bool), (3, 32, 32)))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_lossless_compression_gives_the_same_values(tmp_path: Path, syntax: str) -> None:
    paths = make_series(tmp_path, slices=2)
    expected = read_volume(paths).stored
    for path in paths:
        ds = dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path)
    np.testing.assert_array_equal(read_volume(paths).stored, expected)


def test_lossy_and_undecodable_syntaxes_are_known_as_such() -> None:
    assert can_decode("1.2.840.10008.1.2.1")
    assert can_decode("1.2.840.10008.1.2.4.90")
    assert not any(can_decode(f"1.2.840.10008.1.2.4.{n}") for n in (50, 51, 81, 91, 201, 203))
    assert not can_decode("")


@pytest.mark.parametrize("change", [-1000, -2, 64, 2048])
def test_pixel_data_of_another_length_is_refused_with_the_slice_and_both_lengths(tmp_path: Path, change: int) -> None:
    def resize(ds: object, z: int) -> None:
        if z == 4:
            put_raw(ds, "PixelData", b"\0" * (32 * 32 * 2 + change))  # type: ignore[arg-type]

    said = rf"InstanceNumber 5 and SOP Instance UID 2\.25\.\d+ has {2048 + change} of 2048 bytes"
    with pytest.raises(UnreadableInstance, match=said):
        read_volume(make_series(tmp_path, slices=5, edit=resize))


@pytest.mark.parametrize("excess", [1, 2, 62])
def test_bytes_behind_the_last_pixel_are_ignored(tmp_path: Path, excess: int) -> None:
    expected = read_volume(make_series(tmp_path / "a", slices=2))

    def pad(ds: Dataset, _z: int) -> None:
        put_raw(ds, "PixelData", (element_bytes(ds, tag_of("PixelData")) or b"") + b"\x07" * excess)

    padded = read_volume(make_series(tmp_path / "b", slices=2, edit=pad))
    np.testing.assert_array_equal(padded.stored, expected.stored)
    assert [h.content_sha256 for h in padded.headers] == [h.content_sha256 for h in expected.headers]


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=2)
    for path in paths:
        ds = dcmread(path)
        ds.compress(JPEGLSLossless, generate_instance_uid=False)
        ds.Rows, ds.Columns = 16, 64
        ds.save_as(path)
    with pytest.raises(UnreadableInstance, match="another size"):
        read_volume(paths)


def test_codestream_heads() -> None:
    head = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + bytes([0, 0, 2, 0, 0, 0, 1, 0]) + b"\0" * 24 + b"\0\x01\x0b\1\1"
    assert codestream_head(head) == CodestreamHead(256, 512, components=1, precision_bits=12)
    sof = b"\xff\xd8\xff\xf7\x00\x0b\x0c\x01\x00\x02\x00\x01"
    assert codestream_head(sof) == CodestreamHead(256, 512, components=1, precision_bits=12)
    assert codestream_head(b"no image at all") is None


@pytest.mark.parametrize(
    ("oddity", "says"),
    [
        ({"missing": [4]}, "1 image is missing"),
        ({"repeated": [4]}, "at the same position"),
        ({"tilt_deg": 10.0}, "shifted sideways evenly"),
        ({"absent": ["ImagePositionPatient"]}, "no position"),
        ({"absent": ["RescaleSlope"]}, "rescale"),
        ({"raw": {"BitsAllocated": b"\x08\x00"}}, "pixel formats"),
        ({"edit": lambda ds, z: put(ds, "SeriesInstanceUID", f"1.2.{z}")}, "more than one series"),
    ],
)
def test_what_is_no_volume_says_why(tmp_path: Path, oddity: dict[str, object], says: str) -> None:
    with pytest.raises(UnusableSeries, match=says):
        read_volume(make_series(tmp_path, slices=6, **oddity))  # type: ignore[arg-type]


def test_sizes_are_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.volume.MAX_VOXELS", 1000)
    monkeypatch.setattr("node.dicom.volume.decode_slice", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UnusableSeries, match="more than this node processes"):
        read_volume(make_series(tmp_path))


def test_what_is_wrong_with_the_series_is_a_better_reason_than_a_damaged_slice(tmp_path: Path) -> None:
    def damage(ds: Dataset, z: int) -> None:
        if z == 0:
            put_raw(ds, "PixelData", b"\0\0")

    with pytest.raises(UnreadableInstance, match="2 of 2048 bytes"):
        read_volume(make_series(tmp_path / "whole", slices=6, edit=damage))
    with pytest.raises(UnusableSeries, match="1 image is missing"):
        read_volume(make_series(tmp_path / "gap", slices=6, missing=[3], edit=damage))


def test_progress_counts_slices_and_no_files_are_no_series(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_volume(make_series(tmp_path, slices=3), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(UnusableSeries):
        read_volume([])


def test_scan_writer_is_deterministic(tmp_path: Path) -> None:
    first, second = make_series(tmp_path / "a", slices=2), make_series(tmp_path / "b", slices=2)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert {read_header(p).series_uid for p in make_series(tmp_path / "c", seed="x", slices=2)}.isdisjoint(
        {read_header(p).series_uid for p in first}
    )

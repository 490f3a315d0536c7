"""A multi-frame CT is translated like its slices, and ends with its reason where nobody can say what its slices are."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from node.dicom.decoding_apart import with_decoded_digests
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.elements import element_bytes, tag_of
from node.dicom.headers import SliceHeader, read_headers
from node.dicom.uids import job_key
from node.dicom.volume import read_volume
from node.errors import UnreadableInstance
from node.receive.eligibility import Accept, EligibilityPolicy, Incomplete, Skip, judge
from node.translate.job import JobOptions, JobResult, run_job
from tests.builders import FakeTranslator, make_series
from tests.multi_frame import enhanced, legacy_converted

OPTIONS = JobOptions(EquipmentIdentity("1.0"), datetime(2026, 11, 27, tzinfo=UTC))
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "FrameOfReferenceUID")
POLICY = EligibilityPolicy()


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_series(tmp_path_factory.mktemp("classic"), edit=lambda ds, _z: setattr(ds, "KVP", "120"))


def translated(paths: list[Path], out: Path) -> tuple[JobResult, list[Dataset]]:
    out.mkdir()
    result = run_job(paths, FakeTranslator(), OPTIONS, out)
    return result, [dcmread(made.path) for made in result.files]


def verdict_of(path: Path) -> Any:
    return judge(read_headers(path), POLICY)


def groups_of(ds: Dataset, index: int = 0) -> Dataset:
    group: Dataset = ds.PerFrameFunctionalGroupsSequence[index]
    return group


def shared_of(ds: Dataset) -> Dataset:
    group: Dataset = ds.SharedFunctionalGroupsSequence[0]
    return group


def as_rle(pixels: list[bytes]) -> list[bytes]:
    found = []
    for one in pixels:
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID, ds.PhotometricInterpretation = (
            "1.2.840.10008.5.1.4.1.1.2",
            "1.2",
            "MONOCHROME2",
        )
        ds.Rows = ds.Columns = 32
        ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 16, 16, 15, 0
        ds.PixelData = one
        ds["PixelData"].VR = "OW"
        ds.compress(RLELossless, generate_instance_uid=False)
        found += list(generate_frames(ds.PixelData, number_of_frames=1))
    return found


# -- the same result --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["enhanced", "out of order", "legacy", "rle"])
def test_a_multi_frame_object_is_translated_like_its_slices(classic: list[Path], tmp_path: Path, make: str) -> None:
    """Pixels are the same bit by bit, geometry character by character, and each slice names its frame."""
    objects: dict[str, Callable[[], Path]] = {
        "enhanced": lambda: enhanced(classic, tmp_path / "e.dcm"),
        "out of order": lambda: enhanced(classic, tmp_path / "e.dcm", order=[3, 9, 0, 1, 8, 2, 7, 4, 6, 5]),
        "legacy": lambda: legacy_converted(classic, tmp_path / "e.dcm"),
        "rle": lambda: enhanced(classic, tmp_path / "e.dcm", frames=as_rle, syntax=RLELossless),
    }
    path = objects[make]()
    assert verdict_of(path) == Accept(slices=10, spacing_mm=3.0)
    _, expected = translated(classic, tmp_path / "classic")
    result, derived = translated([path], tmp_path / "out")
    source = dcmread(path)
    assert len(derived) == len(expected) == 10
    assert len({ds.SOPInstanceUID for ds in derived}) == 10
    for ds, same in zip(derived, expected, strict=True):
        assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        assert ds.PixelData == same.PixelData
        for keyword in GEOMETRY:
            assert element_bytes(ds, tag_of(keyword)) == element_bytes(same, tag_of(keyword)), keyword
        (reference,) = ds.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        position = groups_of(source, reference.ReferencedFrameNumber - 1).PlanePositionSequence[0].ImagePositionPatient
        assert position == ds.ImagePositionPatient
    assert result.measurements["highdicom_reads_source"] == 1.0


def test_a_concatenation_is_one_series_and_a_part_that_lacks_is_named(classic: list[Path], tmp_path: Path) -> None:
    def part(number: int) -> Callable[[Dataset], None]:
        def edit(ds: Dataset) -> None:
            ds.ConcatenationUID, ds.InConcatenationNumber, ds.InConcatenationTotalNumber = "1.2.3.4", number, 2

        return edit

    paths = [
        enhanced(classic[:8], tmp_path / "1.dcm", edit=part(1)),
        enhanced(classic[8:], tmp_path / "2.dcm", edit=part(2)),
    ]
    assert judge([header for path in paths for header in read_headers(path)], POLICY) == Accept(10, 3.0)
    np.testing.assert_array_equal(read_volume(paths[::-1]).hu, read_volume(classic).hu)
    lacking = verdict_of(paths[0])
    assert isinstance(lacking, Incomplete)
    assert "of the 2 parts of a concatenation (InConcatenationNumber) did not come: 2" in lacking.reason


def test_the_job_key_depends_on_frames_and_not_on_compression(classic: list[Path], tmp_path: Path) -> None:
    def key(path: Path) -> str:
        return job_key(with_decoded_digests(read_headers(path, decode=False)), "b", "cpu")

    def as_first(ds: Dataset) -> None:
        ds.SOPInstanceUID = first.SOPInstanceUID

    def brighter(ds: Dataset) -> None:
        as_first(ds)
        ds.PixelData = ds.PixelData[:-2] + b"\x07\x00"

    plain = enhanced(classic, tmp_path / "plain.dcm")
    first = dcmread(plain, stop_before_pixels=True)
    packed = enhanced(classic, tmp_path / "rle.dcm", frames=as_rle, syntax=RLELossless, edit=as_first)
    other = enhanced(classic, tmp_path / "other.dcm", edit=brighter)
    assert key(packed) == key(plain)
    assert key(other) != key(plain)


def test_each_frame_has_its_own_rescale(classic: list[Path], tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        groups_of(ds, 4).PixelValueTransformationSequence[0].RescaleIntercept = "-1000"

    volume = read_volume([enhanced(classic, tmp_path / "e.dcm", edit=edit)])
    difference = volume.hu - read_volume(classic).hu
    intercept = float(dcmread(classic[4]).RescaleIntercept)
    assert (difference[4] == -1000 - intercept).all()
    assert not np.delete(difference, 4, axis=0).any()


def test_what_the_top_of_the_object_says_of_geometry_and_hu_does_not_count(classic: list[Path], tmp_path: Path) -> None:
    def edit(ds: Dataset) -> None:
        ds.ImagePositionPatient, ds.PixelSpacing = [1, 2, 3], [9, 9]
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType, ds.KVP = "5", "7", "US", "3500"
        ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]

    path = enhanced(classic, tmp_path / "e.dcm", edit=edit)
    assert verdict_of(path) == Accept(10, 3.0)
    np.testing.assert_array_equal(read_volume([path]).hu, read_volume(classic).hu)


# -- the gate ---------------------------------------------------------------------------------------------------------


def set_type(*values: str) -> Callable[[Dataset], None]:
    return lambda ds: setattr(shared_of(ds).CTImageFrameTypeSequence[0], "FrameType", list(values))


def agent_used(ds: Dataset) -> None:
    usage = Dataset()
    usage.ContrastBolusAgentNumber, usage.ContrastBolusAgentAdministered = 1, "YES"
    shared_of(ds).ContrastBolusUsageSequence = [usage]


def one_frame_is_a_phase(ds: Dataset) -> None:
    groups_of(ds, 3).FrameContentSequence[0].TemporalPositionIndex = 2


def position_at_top_only(ds: Dataset) -> None:
    ds.ImagePositionPatient = [0, 0, 0]
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def without_rescale(ds: Dataset) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.PixelValueTransformationSequence


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (set_type("DERIVED", "PRIMARY", "VOLUME", "NONE"), "derived"),
        (set_type("ORIGINAL", "PRIMARY", "VENDOR_X", "NONE"), "not_original_axial"),
        (set_type("ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"), "localizer"),
        (lambda ds: shared_of(ds).pop("CTImageFrameTypeSequence"), "not_original_axial"),
        (
            lambda ds: setattr(
                shared_of(ds).CTImageFrameTypeSequence[0], "VolumeBasedCalculationTechnique", "CURVED_MPR"
            ),
            "calculated_volume",
        ),
        (agent_used, "contrast_agent"),
        (one_frame_is_a_phase, "time_resolved"),
        (position_at_top_only, "no_geometry"),
        (without_rescale, "not_hu"),
    ],
)
def test_the_gate_judges_frames_as_slices(
    classic: list[Path], tmp_path: Path, edit: Callable[[Dataset], None], code: str
) -> None:
    verdict = verdict_of(enhanced(classic, tmp_path / "e.dcm", edit=edit))
    assert isinstance(verdict, Skip)
    assert verdict.code == code


def test_a_missing_frame_is_a_gap(classic: list[Path], tmp_path: Path) -> None:
    verdict = verdict_of(enhanced([*classic[:4], *classic[5:]], tmp_path / "e.dcm"))
    assert isinstance(verdict, Incomplete)
    assert "1 image is missing inside the series" in verdict.reason


def test_frames_count_for_the_least_number_of_slices(classic: list[Path], tmp_path: Path) -> None:
    verdict = verdict_of(enhanced(classic[:7], tmp_path / "e.dcm"))
    assert isinstance(verdict, Skip)
    assert verdict.reason == "the series has only 7 images of 8 needed"


def test_a_series_of_both_forms_is_skipped(classic: list[Path], tmp_path: Path) -> None:
    headers: list[SliceHeader] = [header for path in classic[:5] for header in read_headers(path)]
    headers += read_headers(enhanced(classic[5:], tmp_path / "e.dcm"))
    verdict = judge(headers, POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.code == "mixed_objects"


# -- what cannot be taken apart ---------------------------------------------------------------------------------------


def position_in_common(ds: Dataset) -> None:
    shared_of(ds).PlanePositionSequence = groups_of(ds).PlanePositionSequence
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def two_voltages(ds: Dataset) -> None:
    other = Dataset()
    other.KVP = "80"
    shared_of(ds).CTXRayDetailsSequence.append(other)


def one_more_frame(ds: Dataset) -> None:
    ds.NumberOfFrames = 11


def fewer_pixels(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: -32 * 32 * 2]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (one_more_frame, "says NumberOfFrames 11 and describes 10 frames"),
        (fewer_pixels, "has 18432 bytes of pixel data, and its 10 frames need 20480"),
        (position_in_common, "gives its 10 frames one position in common"),
        (two_voltages, "several tube voltages"),
        (lambda ds: setattr(ds, "NumberOfFrames", 2001), "has 2001 frames, and this node reads at most 2000"),
        (lambda ds: ds.pop("NumberOfFrames"), "no usable NumberOfFrames"),
    ],
)
def test_an_object_that_contradicts_itself_is_not_read_and_says_why(
    classic: list[Path], tmp_path: Path, edit: Callable[[Dataset], None], words: str
) -> None:
    path = enhanced(classic, tmp_path / "e.dcm", edit=edit)
    with pytest.raises(UnreadableInstance, match=words):
        read_headers(path)


def test_too_few_codestreams_are_not_read(classic: list[Path], tmp_path: Path) -> None:
    path = enhanced(classic, tmp_path / "e.dcm", frames=lambda pixels: as_rle(pixels[:9]), syntax=RLELossless)
    with pytest.raises(UnreadableInstance, match="compressed"):
        read_headers(path)


def test_so_many_frames_that_a_slice_may_not_have_their_elements_are_read(classic: list[Path], tmp_path: Path) -> None:
    """300 frames have more elements than `identity.MAX_ELEMENTS`."""
    path = enhanced([classic[index % 10] for index in range(300)], tmp_path / "e.dcm", edit=with_many_elements)
    assert len(read_headers(path)) == 300


def with_many_elements(ds: Dataset) -> None:
    for group in ds.PerFrameFunctionalGroupsSequence:
        unassigned = Dataset()
        for element in range(60):
            unassigned.add_new((0x0011, 0x1000 + element), "US", 1)
        group.UnassignedPerFrameConvertedAttributesSequence = [unassigned]

"""prove_series: two readers that are not ours see a written series on its source's grid, or say what differs."""

import re
import shutil
from collections.abc import Callable
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.elements import write_part10
from node.dicom.pixels import StoredPixels
from node.dicom.volume import CTVolume, read_volume
from node.translate.job import JobOptions, JobResult, prove_series, run_job
from node.translate.proof import ProofFailed
from node.translate.proof_by_highdicom import prove_by_highdicom
from node.translate.proof_by_simpleitk import prove_by_simpleitk
from tests.builders import FakeTranslator, body_hu, make_series, put_raw

# Rows and columns differ in number and in spacing, so that a transposed grid cannot look right.
GRID: dict[str, Any] = {"slices": 9, "rows": 30, "columns": 24, "spacing_mm": (3.0, 1.25, 0.8)}


def run(folder: Path, **series: Any) -> tuple[list[Path], JobResult]:
    """The files of a source, and the result of its job, which proves it before it returns."""
    (folder / "out").mkdir(parents=True)
    options = JobOptions(EquipmentIdentity(software_version="0.1.0"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    paths = make_series(folder / "source", **(GRID | series))
    return paths, run_job(paths, FakeTranslator(), options, folder / "out")


class Written:
    """A job's source and result, whose files a test may damage afterwards."""

    def __init__(self, folder: Path, **series: Any) -> None:
        self.out_dir = folder / "out"
        paths, self.result = run(folder, **series)
        self.paths = [made.path for made in self.result.files]
        self.volume: CTVolume = read_volume(paths)
        self.stored: StoredPixels = read_volume(self.paths).stored

    def prove(self) -> dict[str, float]:
        return prove_series(self.volume, self.paths, self.stored, self.result.series_uid)

    def by_highdicom(self) -> dict[str, float]:
        return prove_by_highdicom(self.volume, self.paths)

    def by_simpleitk(self) -> dict[str, float]:
        return prove_by_simpleitk(self.volume, self.paths, self.stored, self.result.series_uid)

    def edit(self, change: Callable[[Dataset], None], *numbers: int) -> None:
        """Rewrite slices of the result, all of them where no number is given."""
        for number in numbers or range(len(self.paths)):
            ds = dcmread(self.paths[number])
            change(ds)
            write_part10(ds, self.paths[number])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def written(sound: Written, tmp_path: Path) -> Written:
    """A copy of one good series, for a test to damage; making it anew takes longer than all that the test does."""
    copied = copy(sound)
    copied.out_dir = shutil.copytree(sound.out_dir, tmp_path / "out")
    copied.paths = [copied.out_dir / path.name for path in sound.paths]
    return copied


def shift_by_half_a_mm(written: Written) -> None:
    def change(ds: Dataset) -> None:
        put_raw(ds, "ImagePositionPatient", b"-9.2\\-18.125\\12.5")

    assert [float(number) for number in dcmread(written.paths[4]).ImagePositionPatient] == [-9.2, -18.125, 12]
    written.edit(change, 4)


def swap_pixel_spacing(written: Written) -> None:
    written.edit(lambda ds: put_raw(ds, "PixelSpacing", b"0.8\\1.25"))


def flip_a_cosine(written: Written) -> None:
    written.edit(lambda ds: put_raw(ds, "ImageOrientationPatient", b"1\\0\\0\\0\\-1\\0"))


def flip_a_cosine_of_one_slice(written: Written) -> None:
    written.edit(lambda ds: put_raw(ds, "ImageOrientationPatient", b"-1\\0\\0\\0\\1\\0"), 5)


def lose_an_inner_slice(written: Written) -> None:
    written.paths.pop(3).unlink()


def lose_the_last_slice(written: Written) -> None:
    written.paths.pop().unlink()


def lose_a_file(written: Written) -> None:
    written.paths[3].unlink()


def write_a_slice_twice(written: Written) -> None:
    written.paths.append(Path(shutil.copy(written.paths[2], written.out_dir / "0010.dcm")))


def write_a_slice_in_place_of_another(written: Written) -> None:
    shutil.copy(written.paths[2], written.paths[3])


def swap_two_slices(written: Written) -> None:
    first, second = written.paths[2].read_bytes(), written.paths[3].read_bytes()
    written.paths[2].write_bytes(second)
    written.paths[3].write_bytes(first)


def move_the_whole_series(written: Written) -> None:
    def change(ds: Dataset) -> None:
        x, y, z = (float(number) for number in ds.ImagePositionPatient)
        put_raw(ds, "ImagePositionPatient", f"{x:g}\\{y:g}\\{z + 3:g}".encode())

    written.edit(change)


def change_the_intercept(written: Written) -> None:
    written.edit(lambda ds: put_raw(ds, "RescaleIntercept", b"-1023"), 6)


def change_one_pixel(written: Written) -> None:
    data = bytearray(written.paths[7].read_bytes())
    data[-101] ^= 1
    written.paths[7].write_bytes(data)


def truncate_in_the_pixels(written: Written) -> None:
    written.paths[5].write_bytes(written.paths[5].read_bytes()[:-200])


def truncate_in_the_header(written: Written) -> None:
    written.paths[5].write_bytes(written.paths[5].read_bytes()[:700])


def change_the_size(written: Written) -> None:
    written.edit(lambda ds: put_raw(ds, "Rows", (15).to_bytes(2, "little")))


def give_one_slice_another_series(written: Written) -> None:
    written.edit(lambda ds: put_raw(ds, "SeriesInstanceUID", b"2.25.4711"), 1)


# fault -> what highdicom, and what SimpleITK must say of it; None where the reader cannot know
FAULTS: list[tuple[Callable[[Written], None], str | None, str]] = [
    (shift_by_half_a_mm, r"position of slice 5 .*12\.5\) mm.*12\) mm", r"position of slice 5 .*12\.5\) mm.*12\) mm"),
    (swap_pixel_spacing, r"pixel spacing of slice 1 .*\(0\.8, 1\.25\) mm.*\(1\.25, 0\.8\) mm", r"pixel spacing"),
    (flip_a_cosine, r"orientation of slice 1 .*-1", r"orientation of slice 1|order"),
    (flip_a_cosine_of_one_slice, r"orientation of slice 6 .*-1", r"orientation of slice 6|order"),
    (lose_an_inner_slice, r"8 slices.*9", r"8 slices.*9"),
    (lose_the_last_slice, r"8 slices.*9", r"8 slices.*9"),
    (lose_a_file, r"cannot read", r"8 slices.*9"),
    (write_a_slice_twice, r"10 slices.*9", r"10 slices.*9"),
    (write_a_slice_in_place_of_another, r"position of slice 4", r"order|position of slice 4"),
    (swap_two_slices, r"position of slice 3", r"order"),
    (move_the_whole_series, r"position of slice 1 .*3\) mm", r"position of slice 1 .*3\) mm"),
    (change_the_intercept, None, r"slice 7 .*1 HU"),
    (change_one_pixel, None, r"slice 8 .* HU"),
    (truncate_in_the_pixels, None, r"8 slices.*9"),
    (truncate_in_the_header, r"cannot read", r"8 slices.*9|cannot read"),
    (change_the_size, r"size of slice 1 .*15, 24.*30, 24", r"size of slice 1"),
    (give_one_slice_another_series, None, r"8 slices.*9"),
]


@pytest.mark.parametrize(("fault", "highdicom", "simpleitk"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS])
def test_each_reader_names_the_fault_it_can_see(
    written: Written, fault: Callable[[Written], None], highdicom: str | None, simpleitk: str
) -> None:
    fault(written)
    if highdicom is None:
        written.by_highdicom()
    else:
        with pytest.raises(ProofFailed, match=f"^highdicom .*(?:{highdicom})"):
            written.by_highdicom()
    with pytest.raises(ProofFailed, match=f"^SimpleITK .*(?:{simpleitk})"):
        written.by_simpleitk()
    with pytest.raises(ProofFailed, match=r"^(highdicom|SimpleITK) "):
        written.prove()


def test_a_good_series_is_proven_with_figures(written: Written) -> None:
    figures = written.prove()
    assert figures.items() <= written.result.measurements.items()
    assert figures == {
        "highdicom_reads_source": 1.0,
        "highdicom_spacing_mm": pytest.approx(3.0),
        "simpleitk_reads_source": 1.0,
        "simpleitk_uneven_spacing_mm": 0.0,
    }


def text_by_slice(keyword: str, *texts: bytes) -> Callable[[Dataset, int], None]:
    """Values of an attribute that take turns from slice to slice."""
    return lambda ds, z: put_raw(ds, keyword, texts[z % len(texts)])


def drift(ds: Dataset, z: int) -> None:
    put_raw(ds, "ImagePositionPatient", f"{-9.2 + 0.02 * z:.3f}\\-18.125\\{3 * z}".encode())


def one_decimal(step_mm: float) -> Callable[[Dataset, int], None]:
    """Positions as some scanners print them."""
    return lambda ds, z: put_raw(ds, "ImagePositionPatient", f"-9.2\\-18.1\\{step_mm * z:.1f}".encode())


def sign_and_exponent(ds: Dataset, z: int) -> None:
    put_raw(ds, "ImagePositionPatient", f"-9.20000e+00\\-1.8125e1\\+{3 * z}.".encode())
    put_raw(ds, "ImageOrientationPatient", b"1.000000\\0\\-0\\0.0\\+1\\0e0")


@pytest.mark.parametrize(
    "series",
    [
        {"slices": 1},
        {"slices": 2},
        {"slices": 40},
        {"edit": text_by_slice("ImageOrientationPatient", b"1\\0\\0\\0\\1\\0", b"1\\1e-7\\0\\-1e-7\\1\\0")},
        {"edit": text_by_slice("PixelSpacing", b"0.9765625\\0.9765625", b"0.976562\\0.976562")},
        {"edit": drift},
        {"edit": sign_and_exponent},
        {"shifted_mm": {2: 0.03, 5: -0.02}},
        {"spacing_mm": (0.625, 1.25, 0.8), "shifted_mm": {4: 0.04}},
        {"spacing_mm": (0.625, 1.25, 0.8), "edit": one_decimal(0.625)},
        {"spacing_mm": (1.25, 1.25, 0.8), "edit": one_decimal(1.25)},
        {"shifted_mm": {z: 0.1 for z in range(4, 9)}},
        {"edit": text_by_slice("PixelSpacing", b"0.97656\\0.97656", b"0.9765625\\0.9765625")},
        {"orientation": (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)},
        {"orientation": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)},
        {"orientation": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
        {"orientation": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
        {"attributes": {"SpacingBetweenSlices": "5"}},
        {"attributes": {"SpacingBetweenSlices": "-3"}},
        {"attributes": {"RescaleSlope": "0.5", "RescaleIntercept": "-512.25"}},
        {"edit": text_by_slice("RescaleIntercept", b"-1024", b"-1000")},
        {"edit": text_by_slice("InstanceNumber", b"7", b"3", b"7")},
        {"raw": {"Manufacturer": b"\xff\xfe", "SpecificCharacterSet": b"NONSENSE", "PatientBirthDate": b"soon"}},
        {"absent": ["SliceThickness", "SliceLocation", "StudyID", "PatientPosition"]},
    ],
)
def test_odd_sources_that_the_node_accepts_are_proven(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], series: dict[str, Any]
) -> None:
    hu = body_hu(series.get("slices", 9), 30, 24)
    figures = run(tmp_path, **({"hu": hu} | series))[1].measurements
    assert figures["highdicom_reads_source"] == figures["simpleitk_reads_source"] == 1.0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cosine", ["0.9995", "-0.9995"])
def test_cosines_that_are_no_unit_vectors_are_compared_slice_by_slice(tmp_path: Path, cosine: str) -> None:
    written = Written(
        tmp_path, edit=text_by_slice("ImageOrientationPatient", f"{cosine}\\0.0005\\0\\0\\0.9995\\0".encode())
    )
    figures = written.prove()
    assert (figures["highdicom_reads_source"], figures["simpleitk_reads_source"]) == (0.0, 1.0)


def test_where_highdicom_finds_no_volume_in_the_source_the_positions_are_still_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.translate.proof_by_highdicom.unevenness_mm", lambda _planes: 0.001)
    written = Written(tmp_path, shifted_mm={4: 0.03})
    assert written.by_highdicom() == {"highdicom_reads_source": 0.0}
    written.edit(lambda ds: put_raw(ds, "ImagePositionPatient", b"-9.2\\-18.125\\12.02"), 4)
    with pytest.raises(ProofFailed, match=r"^highdicom .*position of slice 5 .*12\.02\) mm.*12\.03\) mm"):
        written.by_highdicom()


def test_where_simpleitk_cannot_read_the_source_the_result_is_compared_with_the_nodes_own_geometry(
    tmp_path: Path,
) -> None:
    written = Written(tmp_path)
    written.volume.headers[3].path.write_bytes(b"nothing that anybody reads")
    assert written.by_simpleitk()["simpleitk_reads_source"] == 0.0
    move_the_whole_series(written)
    with pytest.raises(ProofFailed, match=r"^SimpleITK .*position of slice 1 "):
        written.by_simpleitk()


def test_a_job_whose_writer_moves_the_series_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tamper(ds: Any, path: Path, **options: Any) -> None:
        put_raw(ds, "RescaleIntercept", b"-1000")
        write_part10(ds, path, **options)

    monkeypatch.setattr("node.translate.job.write_part10", tamper)
    monkeypatch.setattr("node.translate.job.prove_slice", lambda path, *_: str(dcmread(path).SOPInstanceUID))
    with pytest.raises(ProofFailed, match=r"SimpleITK .*24 HU"):
        Written(tmp_path)


def test_no_patient_data_and_no_path_in_a_failed_proof(tmp_path: Path) -> None:
    written = Written(tmp_path, patient_name="Secret^Name", patient_id="SECRET-ID")
    truncate_in_the_header(written)
    for prove in (written.by_highdicom, written.by_simpleitk):
        with pytest.raises(ProofFailed) as caught:
            prove()
        assert not re.search("secret|/", str(caught.value).lower())


def test_what_was_meant_is_what_simpleitk_reads(tmp_path: Path) -> None:
    written = Written(tmp_path)
    meant = written.stored.copy()
    meant[8, 29, 23] += np.uint16(1)
    with pytest.raises(ProofFailed, match=r"^SimpleITK .*slice 9 .*1 HU"):
        prove_by_simpleitk(written.volume, written.paths, meant, written.result.series_uid)

"""run_job: one function from files to a derived series, deterministic and proven."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import tzset
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from models.bundle import Envelope
from node.dicom.derived_plan import EquipmentIdentity, SeriesOptions
from node.dicom.doubt_file import DOUBT_FILE
from node.dicom.orientation import Turn
from node.dicom.uids import UidFactory
from node.dicom.volume import read_volume
from node.errors import Permanent
from node.translate.job import JobOptions, JobResult, join_reasons, run_job
from node.translate.proof import ProofFailed
from tests.builders import FakeTranslator, body_hu, make_series


def options(**changes: Any) -> JobOptions:
    values: dict[str, Any] = {"produced_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)} | changes
    return JobOptions(equipment=EquipmentIdentity(software_version="0.1.0"), **values)


def run(paths: list[Path], out_dir: Path, translator: Any = None, **changes: Any) -> JobResult:
    out_dir.mkdir()
    return run_job(paths, translator or FakeTranslator(), options(**changes), out_dir)


def test_a_whole_series_comes_out(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=4)
    result = run(paths, tmp_path / "out")
    source = read_volume(paths)
    derived = read_volume([made.path for made in result.files])
    assert [made.path.name for made in result.files] == [f"{n:04d}.dcm" for n in range(1, 5)]
    slices = [made.path.name for made in result.files]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*slices, DOUBT_FILE]
    assert result.held_reason is None
    assert result.study_uid == source.headers[0].study_uid
    assert {header.series_uid for header in derived.headers} == {result.series_uid}
    inside = (source.hu >= -40) & (source.hu <= 400)
    np.testing.assert_array_equal(derived.stored[~inside], source.stored[~inside])
    np.testing.assert_array_equal(derived.hu[inside], source.hu[inside] + 60)
    for made, before, after in zip(result.files, source.slices, derived.slices, strict=True):
        assert made.source_sop_instance_uid == before.header.sop_instance_uid
        assert made.sop_instance_uid == after.header.sop_instance_uid
        position = "ImagePositionPatient"
        assert after.dataset.get_item(position).value == before.dataset.get_item(position).value
    assert result.measurements["mean_shift_hu"] == pytest.approx(60.0)


def test_same_input_gives_the_same_bytes_in_whatever_order_it_comes(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=4)
    first = run(paths, tmp_path / "a")
    second = run(paths[::-1], tmp_path / "b")
    assert [made.sha256 for made in first.files] == [made.sha256 for made in second.files]
    assert first.files[0].path.read_bytes() == second.files[0].path.read_bytes()


def test_the_job_opens_and_parses_each_source_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by the node; the proof then reads it once more with highdicom, and with SimpleITK, on purpose."""
    paths = make_series(tmp_path / "source", slices=4)
    opened, parsed, proven = count_readings(monkeypatch)
    result = run(paths, tmp_path / "out")
    written = [made.path for made in result.files]
    assert opened == Counter([*paths, *written])  # SimpleITK opens files in C++
    assert parsed.total() == len(paths) + len(written)
    assert proven == Counter([*paths, *written])


def count_readings(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[Path], Counter[str], Counter[Path]]:
    """Counts from now on: files that the node's reader opens, data sets that it parses, files that highdicom reads."""
    opened: Counter[Path] = Counter()
    parsed: Counter[str] = Counter()
    proven: Counter[Path] = Counter()
    read_bytes = Path.read_bytes

    def open_counted(path: Path) -> bytes:
        opened[path] += 1
        return read_bytes(path)

    def parse_counted(stream: Any) -> Any:
        parsed["data set"] += 1
        return dcmread(stream)

    def prove_counted(path: Path, **options: Any) -> Any:
        proven[path] += 1
        return dcmread(path, **options)

    monkeypatch.setattr(Path, "read_bytes", open_counted)
    monkeypatch.setattr("node.dicom.headers.dcmread", parse_counted)
    monkeypatch.setattr("node.translate.proof_by_highdicom.dcmread", prove_counted)
    return opened, parsed, proven


def test_a_series_whose_images_take_too_long_to_be_decoded_fails_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permanent, so that the worker tries it once; no image of it takes more than one alone may."""
    paths = make_series(tmp_path / "source", slices=3)
    for path in paths:
        ds = dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path)
    monkeypatch.setattr("node.dicom.volume.DECODING_S", 0.0)
    monkeypatch.setattr("node.dicom.volume.DECODING_S_PER_SLICE", 1e-6)
    with pytest.raises(Permanent, match="1 of 3 slices took more than 0 s to be decoded, which is too much"):
        run(paths, tmp_path / "out")
    monkeypatch.undo()
    run(paths, tmp_path / "again")


@pytest.mark.parametrize(
    ("translator", "changes"),
    [
        (FakeTranslator(digest="f" * 64), {}),
        (FakeTranslator(arithmetic="cpu AVX512, 1 threads, fp32"), {}),
        (FakeTranslator(arithmetic="cpu AVX512, 1 threads, bf16"), {}),
        (FakeTranslator(arithmetic="cpu AVX512, 2 threads, fp32"), {}),
        (FakeTranslator(), {"run": 2}),
        (FakeTranslator(), {"uids": UidFactory("1.2.3")}),
    ],
)
def test_whatever_may_change_a_pixel_changes_every_uid(
    tmp_path: Path, translator: FakeTranslator, changes: dict[str, Any]
) -> None:
    paths = make_series(tmp_path / "source", slices=2)
    first, second = run(paths, tmp_path / "a"), run(paths, tmp_path / "b", translator, **changes)
    assert first.series_uid != second.series_uid
    assert {made.sop_instance_uid for made in first.files}.isdisjoint(made.sop_instance_uid for made in second.files)


def test_how_a_site_names_the_series_does_not_change_its_identity(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=2)
    named = run(paths, tmp_path / "a", series=SeriesOptions("PSEUDO-CE", "source+9000"))
    assert named.series_uid == run(paths, tmp_path / "b").series_uid
    ds = dcmread(named.files[0].path)
    assert (ds.SeriesDescription, ds.SeriesNumber) == ("PSEUDO-CE Thorax native 5.0 B40", 9003)


def test_a_second_version_is_told_from_the_first_by_name_and_number(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=2)
    result = run(paths, tmp_path / "a", version=2)
    assert (result.series_description, result.series_number) == ("sCE-CT AI v2 Thorax native 5.0 B40", 302)
    for made in result.files:
        ds = dcmread(made.path)
        assert (ds.SeriesDescription, ds.SeriesNumber) == (result.series_description, result.series_number)
        assert "it replaces series 301 (version 1)" in ds.DerivationDescription


def test_two_series_with_the_same_instance_uids_become_two_results_without_a_common_uid(tmp_path: Path) -> None:
    def other_series(ds: Dataset, _z: int) -> None:
        ds.SeriesInstanceUID = "1.2.3.77"

    one = run(make_series(tmp_path / "s1", slices=2), tmp_path / "a")
    two = run(make_series(tmp_path / "s2", slices=2, edit=other_series), tmp_path / "b")
    assert [made.source_sop_instance_uid for made in one.files] == [made.source_sop_instance_uid for made in two.files]
    assert one.series_uid != two.series_uid
    assert {made.sop_instance_uid for made in one.files}.isdisjoint(made.sop_instance_uid for made in two.files)


def test_one_other_pixel_is_another_series_and_another_seed(tmp_path: Path) -> None:
    hu = body_hu(3)
    first, second = FakeTranslator(), FakeTranslator()
    one = run(make_series(tmp_path / "s1", hu=hu), tmp_path / "a", first)
    hu[1, 16, 16] += 1
    two = run(make_series(tmp_path / "s2", hu=hu), tmp_path / "b", second)
    assert one.series_uid != two.series_uid
    assert first.seed != second.seed
    assert first.seed is not None
    assert 0 <= first.seed < 2**63


def turned(hu: np.ndarray, orientation: tuple[float, ...]) -> np.ndarray:
    """The same patient as slices of another orientation."""
    return Turn.of(orientation).back(hu)


def orientation_of(turn: tuple[int, int, int, int]) -> tuple[float, ...]:
    """Row and column cosines, whose parts along z are 0."""
    return (float(turn[0]), float(turn[1]), 0.0, float(turn[2]), float(turn[3]), 0.0)


@pytest.mark.parametrize(
    ("position", "turn"),
    [
        ("HFP", (-1, 0, 0, -1)),
        ("FFS", (-1, 0, 0, 1)),
        ("FFP", (1, 0, 0, -1)),
        ("HFDL", (0, -1, 1, 0)),
        ("HFDR", (0, 1, -1, 0)),
        ("FFDL", (0, 1, 1, 0)),
        ("FFDR", (0, -1, -1, 0)),
        ("", (-1, 0, 0, 1)),
    ],
)
def test_the_network_sees_every_patient_as_head_first_supine_and_the_result_is_turned_back(
    tmp_path: Path, position: str, turn: tuple[int, int, int, int]
) -> None:
    class Uneven(FakeTranslator):
        """Adds what depends on the place in the image and in the stack, so that a wrong turn shows."""

        def translate(self, hu: Any, seed: int, *, spacing_mm: float | None = None, progress: Any = None) -> Any:
            self.seed, self.seen = seed, hu
            z, y, x = np.indices(hu.shape)
            return np.clip(hu, -40, 400) + (20 + 3 * z + y + x / 2).astype(np.float32)

    hu, orientation = body_hu(4, 24, 32), orientation_of(turn)
    supine, other = Uneven(), Uneven()
    reference = run(make_series(tmp_path / "hfs", hu=hu), tmp_path / "a", supine)
    paths = make_series(
        tmp_path / "other",
        hu=turned(hu, orientation),
        orientation=orientation,
        attributes={"PatientPosition": position},
    )
    result = run(paths, tmp_path / "b", other)
    np.testing.assert_array_equal(other.seen, supine.seen)
    assert other.seed == supine.seed
    first, second = (read_volume([made.path for made in one.files]) for one in (reference, result))
    np.testing.assert_array_equal(second.hu, turned(first.hu, orientation))
    ds = dcmread(result.files[0].path)
    assert "PatientPosition" in ds
    assert (ds.PatientPosition or "") == position


def test_slices_that_are_not_transverse_are_an_error(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=3, orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    with pytest.raises(Permanent, match="not transverse"):
        run(paths, tmp_path / "out")


def test_the_tolerance_of_positions_is_the_jobs(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", shifted_mm={4: 0.12})
    with pytest.raises(Permanent, match="irregular"):
        run(paths, tmp_path / "strict", position_tolerance_mm=0.05)
    assert len(run(paths, tmp_path / "out").files) == 10


def test_a_doubted_result_is_written_and_held(tmp_path: Path) -> None:
    result = run(make_series(tmp_path / "source", slices=4), tmp_path / "out", FakeTranslator(shift_hu=0.0))
    assert result.held_reason is not None
    assert "unchanged" in result.held_reason
    assert len(result.files) == 4


def test_contrast_in_the_pixels_is_held_with_its_figures(tmp_path: Path) -> None:
    hu = body_hu(4, soft_tissue_hu=130.0)
    result = run(make_series(tmp_path / "source", hu=hu, spacing_mm=(8.0, 8.0, 8.0)), tmp_path / "out")
    assert result.held_reason is not None
    assert "contrast agent had been given" in result.held_reason
    assert result.measurements["native_enhanced_ml"] > 25
    assert result.measurements["native_enhanced_z_mm"] in (0, 8, 16, 24)
    assert len(result.files) == 4


def test_unknown_text_is_held_after_the_doubts_about_pixels(tmp_path: Path) -> None:
    raw = {"SpecificCharacterSet": b"NONSENSE", "PatientName": b"M\xfcller"}
    doubtful = run(make_series(tmp_path / "a", slices=4, raw=raw), tmp_path / "out-a")
    assert "the character set 'NONSENSE' (SpecificCharacterSet) is unknown" in (doubtful.held_reason or "")
    assert doubtful.remarks[1:] == (
        "PatientName has bytes that are no text in its character set: kept",
        "SpecificCharacterSet has a value that no standard knows: kept",
    )
    hu = body_hu(4, soft_tissue_hu=130.0)
    paths = make_series(tmp_path / "b", raw=raw, hu=hu, spacing_mm=(8.0, 8.0, 8.0))
    assert "contrast agent had been given" in (run(paths, tmp_path / "out-b").held_reason or "")


def test_progress_names_every_stage_and_its_error_ends_the_job(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    paths = make_series(tmp_path / "source", slices=2)
    (tmp_path / "out").mkdir()
    run_job(paths, FakeTranslator(), options(), tmp_path / "out", progress=lambda *step: seen.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == [
        "read",
        "translate",
        "second look",
        "check input",
        "check output",
        "write",
    ]
    assert seen[-1] == ("write", 2, 2)

    def stop(stage: str, _done: int, _total: int) -> None:
        if stage == "translate":
            raise InterruptedError

    (tmp_path / "stopped").mkdir()
    with pytest.raises(InterruptedError):
        run_job(paths, FakeTranslator(), options(), tmp_path / "stopped", progress=stop)
    assert not list((tmp_path / "stopped").iterdir())


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "FrameOfReferenceUID", "PixelSpacing", "RescaleIntercept"])
def test_a_written_slice_that_moved_by_one_character_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keyword: str
) -> None:
    from node.dicom.elements import write_part10
    from tests.builders import put_raw

    def tamper(ds: Any, path: Path, **options: Any) -> None:
        put_raw(ds, keyword, bytes(ds.get_item(keyword).value).strip(b" \0") + b"0")
        write_part10(ds, path, **options)

    monkeypatch.setattr("node.translate.job.write_part10", tamper)
    with pytest.raises(ProofFailed, match=keyword):
        run(make_series(tmp_path / "source", slices=2), tmp_path / "out")


def test_a_model_that_fails_is_a_permanent_error(tmp_path: Path) -> None:
    from models.translator import TranslationError

    class Broken(FakeTranslator):
        def translate(self, hu: Any, seed: int, *, spacing_mm: float | None = None, progress: Any = None) -> Any:
            raise TranslationError("the prediction is not finite")

    with pytest.raises(Permanent, match="not finite"):
        run(make_series(tmp_path / "source", slices=2), tmp_path / "out", Broken())


def test_no_patient_data_in_errors(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", missing=[4], patient_name="Secret^Name", patient_id="SECRET-ID")
    with pytest.raises(Permanent) as caught:
        run(paths, tmp_path / "out")
    assert "secret" not in str(caught.value).lower()


NARROW = Envelope(pixel_spacing_mm=(0.1, 0.5), slice_spacing_mm=(0.1, 20.0))


def test_a_scan_outside_the_envelope_is_held_with_both_numbers(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=4)
    result = run(paths, tmp_path / "out", FakeTranslator(envelope=NARROW))
    reason = "pixel spacing 1.000 mm lies outside what the model was trained on (0.10 to 0.50 mm)"
    (remark,) = result.remarks
    assert (result.held_reason, len(result.files)) == (reason, 4)
    assert "is UNPROVEN: nobody measured" in remark, "a bundle that no card speaks for is told of with each result"


def test_a_site_may_be_warned_instead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = make_series(tmp_path / "source", slices=4, attributes={"PatientAge": "012Y"})
    envelope = replace(NARROW, age_years=(18.0, 120.0))
    result = run(paths, tmp_path / "out", FakeTranslator(envelope=envelope), outside_envelope="warn")
    assert result.held_reason is None
    assert [word in result.remarks[1] for word in ("1.000 mm", "age 12 years")] == [True, True]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == "the scan lies outside what the model was trained on: pixel spacing, age"


def test_all_reasons_are_told(tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=4)
    result = run(paths, tmp_path / "out", FakeTranslator(shift_hu=0.0, envelope=NARROW))
    assert [words in (result.held_reason or "") for words in ("unchanged", "pixel spacing")] == [True, True]
    assert join_reasons("", None) is None
    assert join_reasons("a", None, "b", "a") == "a; b"


@pytest.mark.parametrize(
    ("zone", "time"), [(ZoneInfo("Asia/Tokyo"), "120405"), (ZoneInfo("America/New_York"), "220405"), (None, "080405")]
)
def test_times_are_those_of_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: ZoneInfo | None, time: str
) -> None:
    monkeypatch.setenv("TZ", "Asia/Karachi")  # the machine's
    tzset()
    try:
        result = run(make_series(tmp_path / "source", slices=2), tmp_path / "out", timezone=zone)
    finally:
        monkeypatch.undo()
        tzset()
    assert dcmread(result.files[0].path).SeriesTime == time

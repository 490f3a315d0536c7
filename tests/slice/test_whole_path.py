"""A real series goes in over DICOM, a correct synthetic series comes out at two kinds of TPS."""

import json
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from storage.cases import Case
from tests.multi_frame import enhanced
from tests.slice.checks import assert_derived_from, assert_no_dciodvfy_errors, assert_same_grid
from tests.slice.harness import FEW, dcmtk, free_port, push, wait_for


def by_source(paths: list[Path]) -> dict[str, Dataset]:
    return {image.SourceImageSequence[0].ReferencedSOPInstanceUID: image for image in (dcmread(path) for path in paths)}


def test_a_real_series_arrives_at_storescp_and_at_orthanc(real_data, node_at, tps, orthanc, tmp_path):
    """That of a Siemens scanner, in processes that load the program as those of a hospital do."""
    name, count = "siemens_chest_ncct", 30
    queries = free_port()
    node = node_at(tps, orthanc, is_real=True, extra=f"[query]\nenabled = true\nport = {queries}").start()
    assert push(node.port, real_data / "ct" / name).returncode == 0
    (case,) = node.wait_for_states("SENT")
    assert (case.slices.received, case.slices.produced, case.slices.sent) == (count, count, count)
    at_tps, at_orthanc = tps.files(), orthanc.fetch(tmp_path / "fetched")
    assert len(at_tps) == len(at_orthanc) == count
    sources = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, (real_data / "ct" / name).iterdir())}
    for arrived in (by_source(at_tps), by_source(at_orthanc)):
        assert set(arrived) == set(sources)
        assert {image.SeriesInstanceUID for image in arrived.values()} == {case.derived_series_uid}
        for uid, image in arrived.items():
            assert_derived_from(sources[uid], image)
    assert_no_dciodvfy_errors(at_tps)
    assert_no_dciodvfy_errors(at_orthanc)
    assert_same_grid(real_data / "ct" / name, tps.folder)
    assert_a_planner_fetches_it(queries, case, at_tps, tmp_path / "planner")
    assert node.stop() == [0]


def test_an_enhanced_ct_arrives_as_classic_slices_with_the_pixels_of_its_classic_series(
    few_slices, node_at, tps, tmp_path
):
    files = sorted(few_slices.iterdir())
    uids = {"SeriesInstanceUID": "1.2.3.4", "FrameOfReferenceUID": str(dcmread(files[0]).FrameOfReferenceUID)}
    path = enhanced(files, tmp_path / "enhanced" / "e.dcm", edit=lambda ds: ds.update(_as_dataset(uids)))
    node = node_at(tps).start()
    assert push(node.port, path.parent).returncode == 0
    (case,) = node.wait_for_states("SENT")
    assert (case.slices.received, case.slices.produced, case.slices.sent) == (FEW, FEW, FEW)
    arrived = [dcmread(one) for one in tps.files()]
    node.run("process", str(files[0].parent), "--out", str(tmp_path / "classic"))
    expected = {_place(one): one for one in map(dcmread, sorted((tmp_path / "classic").glob("*.dcm")))}
    assert {_place(one) for one in arrived} == set(expected)
    for image in arrived:
        assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        assert image.PixelData == expected[_place(image)].PixelData
        frame = image.SourceImageSequence[0].ReferencedFrameNumber
        assert _place(dcmread(files[frame - 1], stop_before_pixels=True)) == _place(image)
    assert_no_dciodvfy_errors(tps.files())


def _as_dataset(values: dict[str, str]) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _place(image: Dataset) -> tuple[str, ...]:
    return tuple(part.original_string for part in image.ImagePositionPatient)


def assert_a_planner_fetches_it(port: int, case: Case, sent: list[Path], folder: Path) -> None:
    """He finds the derived series in the study, and not its source, and gets what the courier sent."""
    study = ["-S", "-aet", "CTSIM", "-aec", "SYNCECT", "-k", f"0020,000d={case.study_uid}"]
    asked = [dcmtk("findscu"), "-v", *study, "-k", "0008,0052=SERIES", "-k", "0020,000e", "-k", "0008,103e"]
    told = subprocess.run([*asked, "127.0.0.1", str(port)], capture_output=True, text=True, check=False, timeout=60)
    said = told.stdout + told.stderr
    assert told.returncode == 0, said
    assert str(case.derived_series_uid) in said
    assert case.series_uid not in said
    assert "sCE-CT AI" in said
    folder.mkdir()
    keys = ["-k", "0008,0052=SERIES", "-k", f"0020,000e={case.derived_series_uid}"]
    command = [dcmtk("getscu"), *study, *keys, "-od", str(folder), "127.0.0.1", str(port)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    fetched = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, folder.iterdir())}
    assert fetched == {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, sent)}


def test_the_same_series_twice_makes_one_job_and_process_makes_the_same_images(few_slices, node_at, tps, tmp_path):
    page = free_port()
    node = node_at(tps, web=f"port = {page}").start()
    push(node.port, few_slices)
    node.wait_for_states("SENT")
    wait_for("the figures of all processes", lambda: _monitored(page) >= _COUNTED)
    first = {path.name: path.read_bytes() for path in tps.files()}
    assert push(node.port, few_slices).returncode == 0
    wait_for("the second association's end", lambda: _associations_closed(node) == 2)
    node.stop()
    (row,) = node.jobs()
    assert (row["state"], row["slices"]["received"], row["attempts"]) == ("SENT", FEW, 1)
    assert {path.name: path.read_bytes() for path in tps.files()} == first
    assert_log_tells_of_the_whole_path(node, row["id"])
    answer = node.run("process", str(few_slices), "--out", str(tmp_path / "out"), "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["series_uid"] == row["derived_series_uid"]
    processed = by_source(sorted((tmp_path / "out").glob("*.dcm")))
    for uid, image in by_source(tps.files()).items():
        assert image.SOPInstanceUID == processed[uid].SOPInstanceUID
        assert np.array_equal(image.pixel_array, processed[uid].pixel_array)


def assert_log_tells_of_the_whole_path(node, job_id: str) -> None:
    """Also while the node is down: what each process said of the series, in its order."""
    answer = node.run("jobs", "logs", job_id, "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    lines = json.loads(answer.stdout)
    assert {line["role"] for line in lines} == {"receive", "complete", "work", "deliver"}
    events = [line["event"] for line in lines]
    path = ("association_ended", "series_complete", "job_claimed", "job_produced", "delivery_begun", "delivery_sent")
    assert [event for event in events if event in path] == [*path, "association_ended"]


_COUNTED = {
    f'syncect_cstore_answers_total{{status="0000"}} {FEW}.0',
    f"syncect_cstore_duration_seconds_count {FEW}.0",
    f'syncect_translated_slices_total{{process="1"}} {FEW}.0',
    f'syncect_sent_instances_total{{destination="tps",process="1"}} {FEW}.0',
    'syncect_cases{state="SENT"} 1.0',
    'syncect_peer_up{destination="tps"} 1.0',
    'syncect_process_up{role="web"} 1.0',
}


def _monitored(port: int) -> set[str]:
    """The lines of /metrics while the node is ready; none before the page answers."""
    try:
        for path in ("readyz", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
                text = answer.read().decode()
    except OSError:
        return set()
    return set(text.splitlines())


def _associations_closed(node) -> int:
    from sqlalchemy import create_engine, text

    engine = create_engine(f"sqlite:///{node.data_dir / 'syncect.sqlite3'}")
    with engine.connect() as connection:
        count = connection.scalar(text("SELECT count(*) FROM association WHERE outcome = 'RELEASED'"))
    engine.dispose()
    return int(count or 0)


def test_a_series_interleaved_over_two_associations_is_one_job(few_slices, node_at, tps):
    files = sorted(few_slices.iterdir())
    node = node_at(tps).start()
    push(node.port, files[::2])
    push(node.port, files[1::2])
    cases = wait_for("an end", lambda: [c for c in node.cases() if c.state == "SENT" and c.slices.sent == FEW])
    assert len(cases) == 1
    assert {case.state for case in node.cases()} <= {"SENT", "SUPERSEDED"}


ODD = [
    ("ct/ge_abdomen_cect", "SKIPPED", "contrast agent"),
    ("odd/gantry_tilt_philips_head_phantom", "SKIPPED", "shifted sideways evenly"),
    ("odd/localizer/siemens_topogram.dcm", "SKIPPED", "localizer"),
    ("odd/localizer/philips_surview.dcm", "SKIPPED", "localizer"),
    ("odd/screen_captures_as_ct", "SKIPPED", "screen"),
    ("odd/enhanced_ct", "SKIPPED", "ImageType names PERFUSION"),
    ("ct/siemens_chest_cect_untagged", "SKIPPED", "contrast agent had been given"),  # an excerpt with gaps
]


def test_what_is_no_non_contrast_planning_ct_ends_with_its_reason(real_data, node_at, tps):
    node = node_at(tps).start()
    expected = {}
    for name, state, words in ODD:
        source = real_data / name
        answer = push(node.port, source)
        assert answer.returncode == 0, f"{name}: the scanner's send job failed: {answer.stderr}"
        for path in source.rglob("*") if source.is_dir() else [source]:
            expected[str(dcmread(path, stop_before_pixels=True).SeriesInstanceUID)] = (state, words)
    cases = wait_for(
        "an end for each",
        lambda: (
            [c for c in node.cases() if c.state in ("SKIPPED", "HELD", "SENT", "FAILED", "INCOMPLETE")]
            if len([c for c in node.cases() if c.state not in ("RECEIVING", "QUEUED", "RUNNING")]) == len(expected)
            else []
        ),
    )
    for case in cases:
        state, words = expected.pop(case.series_uid)
        assert case.state == state, f"{case.series_uid}: {case.state} ({case.reason})"
        assert words.lower() in case.reason.lower(), case.reason
    assert not expected
    assert tps.files() == []


def test_contrast_that_only_the_pixels_show_is_held_and_sent_after_a_person_released_it(
    real_data, node_at, tps, tmp_path
):
    gap_free = tmp_path / "gap_free"
    gap_free.mkdir()
    files = sorted((real_data / "ct" / "siemens_chest_cect_untagged").iterdir(), key=_z)
    for number, path in enumerate(files):
        image = dcmread(path)
        image.ImagePositionPatient[2] = str(3 * number)
        image.save_as(gap_free / path.name)
    node = node_at(tps).start()
    push(node.port, gap_free)
    (case,) = node.wait_for_states("HELD")
    assert "contrast agent had been given" in case.reason
    assert tps.files() == []
    assert node.run("jobs", "release", case.id, "--reason", "looked at it").returncode == 0
    node.wait_for_states("SENT")
    assert len(tps.files()) == 30
    said = {str(dcmread(path, stop_before_pixels=True).DerivationDescription) for path in tps.files()}
    assert [text.rpartition("Released by operator ")[2].partition(": ")[2] for text in said] == ["looked at it"]


def test_a_gap_is_incomplete_until_its_slice_comes(few_slices, node_at, tps):
    files = sorted(few_slices.iterdir(), key=_z)
    node = node_at(tps).start()
    push(node.port, [*files[:6], *files[7:]])
    (case,) = node.wait_for_states("INCOMPLETE")
    assert "missing" in case.reason
    assert tps.files() == []
    push(node.port, [files[6]])
    node.wait_for_states("SENT")
    assert len(tps.files()) == FEW


def _z(path: Path) -> float:
    return float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])

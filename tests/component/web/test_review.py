"""The review shows what was received and what would be sent, slice beside slice; what cannot be shown says why."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydicom import dcmread

from node.bootstrap.store import Node
from node.web.access import Role
from node.web.app import make_app
from node.web.looks import Looks
from node.web.volumes import AT_ONCE, WAITING, Images, NotShown, SliceFile
from storage.errors import StoreUnavailable
from tests.builders import body_hu, make_series
from tests.component.web.imaged import NOW, arrival_of, client_of, pixels, receive, store_in, translate
from tests.multi_frame import enhanced

SLICES = 5


@pytest.fixture
def node(tmp_path: Path, sqlite_file: Path) -> Iterator[Node]:
    """An empty store."""
    (tmp_path / "data").mkdir(mode=0o700)
    sqlite_file.rename(tmp_path / "data" / "syncect.sqlite3")
    with store_in(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series of five slices 3 mm apart, its pixels 2 x 1 mm, from the feet to the head."""
    hu = body_hu(SLICES)
    hu[:, 5, 5] = np.arange(SLICES) * 10 + 20  # tells the slices apart
    return make_series(tmp_path_factory.mktemp("source"), hu=hu, spacing_mm=(3.0, 2.0, 1.0))


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory, source: list[Path]) -> Path:
    """A store with one HELD case, whose files came in another order than they lie in the patient."""
    folder = tmp_path_factory.mktemp("made")
    with store_in(folder) as node:
        receive(node, [source[index] for index in (3, 0, 4, 2, 1)])
        translate(node)
    return folder


@pytest.fixture
def case(_made: Path, tmp_path: Path) -> Iterator[Node]:
    """The same case in a store of this test's own."""
    shutil.copytree(_made / "data", tmp_path / "data")
    with store_in(tmp_path) as opened:
        yield opened


@pytest.fixture
def client(case: Node) -> TestClient:
    return client_of(case)


def hu_of(path: Path) -> np.ndarray:
    ds = dcmread(path)
    return ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


def derived_files(node: Node) -> list[Path]:
    folder = node.spool.path(node.overview.case("1").product_dir or "")
    return sorted(folder.glob("*.dcm"), key=lambda path: float(dcmread(path).ImagePositionPatient[2]))


@pytest.mark.parametrize("number", range(1, SLICES + 1))
def test_source_and_result_are_shown_as_their_files_have_them_from_the_feet_up(case, client, source, number) -> None:
    for layer, files in (("source", source), ("synthetic", derived_files(case))):
        shown = pixels(client.get(f"/cases/1/slices/{number}/{layer}.png?preset=soft"))
        hu = hu_of(files[number - 1])
        expected = np.rint(np.clip((hu - (40 - 400 / 2)) / 400, 0, 1) * 255)
        assert (shown == np.repeat(expected, 2, axis=0)).all()  # a pixel is twice as high as it is wide


def test_the_difference_is_grey_where_nothing_was_touched_and_red_where_it_became_brighter(
    case, client, source
) -> None:
    shown = pixels(client.get("/cases/1/slices/3/difference.png?range=100"), "RGB")[::2].astype(int)
    change = hu_of(derived_files(case)[2]) - hu_of(source[2])
    assert (change == 0).any()
    assert (change == 60).any()
    assert ((shown == 64).all(axis=2) == (change == 0)).all()
    assert (shown[change > 30][:, 0] > shown[change > 30][:, 2]).all()


def test_no_picture_is_kept_by_the_browser(client) -> None:
    for path in ("/cases/1/review", "/cases/1/slices.json", "/cases/1/slices/1/source.png", "/review/legend.png"):
        assert client.get(path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/cases/1/slices/1/source.png?preset=no", 422),
        ("/cases/1/slices/1/source.png?range=13", 422),
        ("/cases/1/slices/1/source.png?outline=yes", 422),
        ("/cases/1/slices/one/source.png", 422),
        ("/cases/1/slices/-1/source.png", 422),
        ("/cases/1/slices/٣/source.png", 422),
        ("/cases/1/slices/999999/source.png", 422),
        ("/cases/1/slices/0/source.png", 404),
        ("/cases/1/slices/6/source.png", 404),
        ("/cases/1/slices/1/dose.png", 404),
        ("/cases/1/slices/1/..%2f..%2fsource.png", 404),
        ("/cases/2/slices/1/source.png", 404),
        ("/cases/..%2f1/slices/1/source.png", 404),
        ("/cases/1'--/slices/1/source.png", 404),
        ("/cases/1/slices/1/hu.json?row=1", 422),
        ("/cases/1/review?slice=x", 422),
        ("/cases/1/review?slice=9", 404),
        ("/cases/9/review", 404),
    ],
)
def test_what_is_asked_for_wrongly_is_refused_in_a_sentence(client, path, status) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert "%2f" not in detail
    assert "'--" not in detail


def test_the_figures_tell_where_slices_lie_and_what_changed(case, client, source) -> None:
    answer = client.get("/cases/1/slices.json").json()
    assert answer["count"] == SLICES
    assert [one["z_mm"] for one in answer["slices"]] == [0, 3, 6, 9, 12]
    for one, path, made in zip(answer["slices"], source, derived_files(case), strict=True):
        change = np.abs(hu_of(made) - hu_of(path))
        assert one["mean_hu"] == pytest.approx(change.mean())
        assert one["max_hu"] == change.max()
    means = [one["mean_hu"] for one in answer["slices"]]
    greatest = [mark["number"] for mark in answer["marks"] if mark["words"].startswith("greatest change")]
    assert greatest == [int(np.argmax(means)) + 1]
    assert not any(mark["by_gate"] for mark in answer["marks"])


def test_where_no_gate_names_a_region_none_is_offered(client) -> None:
    assert 'name="outline"' not in client.get("/cases/1/review").text
    plain = client.get("/cases/1/slices/2/source.png").content
    assert client.get("/cases/1/slices/2/source.png?outline=1").content == plain


def test_hu_of_one_pixel(case, client, source) -> None:
    found = client.get("/cases/1/slices/4/hu.json?row=5&column=5").json()
    assert found == {"source": 50.0, "synthetic": 110.0}
    assert hu_of(source[3])[5, 5] == 50
    assert client.get("/cases/1/slices/4/hu.json?row=32&column=5").json() == {"source": None, "synthetic": None}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("number", [1, 2])
def test_a_derived_file_that_is_not_the_one_that_was_made_is_not_shown(case, client, number) -> None:
    damage(derived_files(case)[number - 1])
    answer = client.get(f"/cases/1/slices/{number}/synthetic.png")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "This image is not shown: its file was damaged on the disk.",
    )
    assert client.get(f"/cases/1/slices/{number}/source.png").status_code == 200
    assert client.get("/cases/1/slices/3/synthetic.png").status_code == 200
    (one,) = [found for found in client.get("/cases/1/slices.json").json()["slices"] if found["why"]]
    assert one["number"] == number
    assert "is not shown: its file was damaged" in client.get(f"/cases/1/review?slice={number}").text


def test_slices_whose_rows_run_to_the_front_are_shown_from_the_feet_up_too(node, tmp_path) -> None:
    turned = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    receive(node, make_series(tmp_path / "source", slices=3, orientation=turned))
    translate(node)
    as_written = [
        dcmread(path).ImagePositionPatient[2] for path in sorted(node.spool.path("derived/1-1").glob("*.dcm"))
    ]
    assert as_written == sorted(as_written, reverse=True)
    client = client_of(node)
    places = [one["z_mm"] for one in client.get("/cases/1/slices.json").json()["slices"]]
    assert places == sorted(places)
    page = client.get("/cases/1/review").text
    assert 'review-top" aria-hidden="true">P<' in page


def test_a_file_that_was_mended_is_measured_again(case, client) -> None:
    path = derived_files(case)[1]
    damage(path)
    assert client.get("/cases/1/slices.json").json()["slices"][1]["mean_hu"] is None
    damage(path)
    assert client.get("/cases/1/slices.json").json()["slices"][1]["mean_hu"] > 0


def test_files_that_are_gone_say_so(case, client) -> None:
    (lost,) = [
        one
        for one in case.series.sources(1)
        if one.sop_instance_uid == dcmread(derived_files(case)[0]).SourceImageSequence[0].ReferencedSOPInstanceUID
    ]
    case.spool.path(lost.spool_name).unlink()
    answer = client.get("/cases/1/slices/1/source.png")
    assert (answer.status_code, answer.json()["detail"]) == (
        410,
        "This image is not shown: its file is no longer on the disk.",
    )


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(case, client) -> None:
    path = derived_files(case)[2]
    path.unlink()
    os.mkfifo(path)
    assert client.get("/cases/1/slices/3/synthetic.png").status_code == 409


def test_a_result_that_was_purged_has_a_page_that_says_so(case, client) -> None:
    case.jobs.reject(1, "operator mia", "no", NOW)
    case.retention.purge_case(1, 1, "operator mia", "asked", NOW)
    page = client.get("/cases/1/review")
    assert page.status_code == 200
    assert "were removed from the disk" in page.text
    assert client.get("/cases/1/slices/1/source.png").status_code == 410
    assert client.get("/cases/1/slices.json").status_code == 410


@pytest.mark.parametrize("translated", [True, False])
def test_each_result_is_shown_beside_the_frame_that_it_was_made_of(node, source, tmp_path, translated) -> None:
    receive(node, [enhanced(source, tmp_path / "source" / "e.dcm", order=[3, 0, 4, 2, 1])])
    if translated:
        translate(node)
    client = client_of(node)
    for number in range(1, SLICES + 1):
        shown = pixels(client.get(f"/cases/1/slices/{number}/source.png?preset=soft"))
        hu = hu_of(source[number - 1])
        expected = np.rint(np.clip((hu - (40 - 400 / 2)) / 400, 0, 1) * 255)
        assert (shown == np.repeat(expected, 2, axis=0)).all()


def test_before_there_is_a_result_the_source_alone_is_shown(node, source) -> None:
    receive(node, source[::-1])
    client = client_of(node)
    page = client.get("/cases/1/review?slice=5").text
    assert "only its source is shown" in page
    assert 'data-layer="source"' in page
    assert 'data-layer="synthetic"' not in page
    assert (pixels(client.get("/cases/1/slices/5/source.png?preset=bone"))[10, 5]) == round(
        (60 - 400 + 900) / 1800 * 255
    )
    answer = client.get("/cases/1/slices/5/difference.png")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Nothing was made of this slice yet.")


def test_a_series_that_changed_since_is_not_shown_as_the_source_of_an_old_result(case, client, tmp_path) -> None:
    more = make_series(tmp_path / "more", slices=SLICES + 1, only=[SLICES], spacing_mm=(3.0, 2.0, 1.0))
    association = case.series.open_association("r", "CTSIM", "h", NOW)
    case.series.record(association, "CTSIM", arrival_of(case, more[0]), NOW)
    page = client.get("/cases/1/review").text
    assert "received anew after this result was made" in page
    assert client.get("/cases/1/slices/1/source.png").status_code == 404
    assert client.get("/cases/1/slices/1/synthetic.png").status_code == 200


def test_the_page_works_without_javascript(client) -> None:
    page = client.get("/cases/1/review?slice=2&preset=lung&range=50").text
    assert "slice 2 of 5, z = 3.0 mm" in page
    for layer in ("source", "synthetic", "difference"):
        (address,) = re.findall(rf'src="(/cases/1/slices/2/{layer}.png[^"]*)"', page)
        assert client.get(address.replace("&amp;", "&")).status_code == 200
        assert "preset=lung" in address
        assert "range=50" in address
    assert "slice=1" in page
    assert "slice=3" in page
    assert 'rel="prev"' not in client.get("/cases/1/review?slice=1").text
    assert 'rel="next"' not in client.get("/cases/1/review?slice=5").text
    for edge, letter in (("left", "R"), ("right", "L"), ("top", "A"), ("bottom", "P")):
        assert f'review-{edge}" aria-hidden="true">{letter}<' in page


def test_a_look_is_noted_once_and_not_for_each_slice(client) -> None:
    client.get("/cases/1/review")
    for number in range(1, SLICES + 1):
        client.get(f"/cases/1/slices/{number}/source.png")
    client.get("/cases/9/review")
    assert client.app.state.auditor.looks == [("anna", "see images", "1")]


@pytest.mark.parametrize("path", ["slices/1/difference.png", "slices/1/hu.json?row=1&column=1", "slices.json"])
def test_whoever_asks_for_a_picture_alone_has_looked_too(client, path) -> None:
    assert client.get(f"/cases/1/{path}").status_code == 200
    assert client.app.state.auditor.looks == [("anna", "see images", "1")]


def test_what_cannot_be_noted_is_not_shown(client, monkeypatch) -> None:
    def fail(*_args):
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(client.app.state.auditor, "note", fail)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            client.get("/cases/1/slices/1/source.png")


def test_a_later_look_is_another_one() -> None:
    now_s = [0.0]
    noted: list[object] = []
    looks = Looks(lambda: now_s[0])
    for moment_s in (0.0, 300.0, 599.0, 601.0):
        now_s[0] = moment_s
        looks.note("anna", "1", lambda: noted.append(now_s[0]))
    looks.note("mia", "1", lambda: noted.append("mia"))
    assert noted == [0.0, 601.0, "mia"]


def test_who_waits_too_long_for_others_is_told_so(client, monkeypatch) -> None:
    monkeypatch.setattr("node.web.volumes.TURN_WITHIN_S", 0.01)
    assert client.get("/cases/1/slices/1/source.png").status_code == 200
    images, _ = client.app.state.review
    with images.turn(), images.turn():
        answer = client.get("/cases/1/slices/2/source.png")
    assert answer.status_code == 503
    assert "Try again" in answer.json()["detail"]
    assert client.get("/cases/1/slices/2/source.png").status_code == 200


def test_where_many_wait_one_more_is_told_at_once_and_takes_no_thread(monkeypatch) -> None:
    monkeypatch.setattr("node.web.volumes.WAITING", 0)
    images = Images(Path)
    with images.turn(), images.turn(), pytest.raises(NotShown, match="Try again") as refused, images.turn():
        pass
    assert refused.value.status == 503
    with images.turn():
        pass
    assert AT_ONCE + 1 + 2 * WAITING < 40  # threads of the page


def test_a_file_that_is_too_large_to_be_an_image_is_not_read(client, monkeypatch) -> None:
    monkeypatch.setattr("node.web.volumes.MAX_FILE_BYTES", 1 << 10)
    assert "larger than" in client.get("/cases/1/review").text


def test_for_htmx_there_is_the_viewer_alone(client) -> None:
    page = client.get("/cases/1/review", headers={"HX-Request": "true"}).text
    assert page.lstrip().startswith("<section")
    assert "<html" not in page


def test_the_page_has_no_script_and_no_style_of_its_own(client) -> None:
    page = client.get("/cases/1/review").text
    assert re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page) == []


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        (Role.VIEWER, []),
        (Role.OPERATOR, []),
        (Role.PHYSICIST, ["release", "reject"]),
        (Role.ADMIN, ["release", "reject"]),
    ],
)
def test_only_who_may_decide_finds_the_buttons(case, role, verbs) -> None:
    page = client_of(case, role).get("/cases/1/review").text
    assert re.findall(r'method="post" action="/cases/1/(\w+)"', page) == verbs
    assert page.count('name="csrf" value="token-of-anna"') == len(verbs)
    assert len(re.findall(r'<textarea name="reason"[^>]* maxlength="1000" required>', page)) == len(verbs)


def test_no_picture_is_larger_than_that_of_the_largest_slice(client, monkeypatch) -> None:
    square = pixels(client.get("/cases/1/slices/1/source.png"))
    monkeypatch.setattr("node.web.volumes.MAX_SLICE_PIXELS", square.size - 1)
    as_stored = pixels(client.get("/cases/1/slices/2/source.png"))
    assert square.shape == (2 * as_stored.shape[0], as_stored.shape[1])


def test_what_is_decided_is_not_decided_twice(case, client) -> None:
    case.jobs.reject(1, "operator mia", "no", NOW)
    assert "<form method" not in client.get("/cases/1/review").text.replace('<form class="review-tools" method', "")


def test_compressed_pixels_are_decoded_in_a_process_that_may_die(node, tmp_path, monkeypatch) -> None:
    asked = []
    source = make_series(tmp_path / "compressed", slices=3)
    for path in source:
        ds = dcmread(path)
        ds.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        ds.save_as(path)
    receive(node, source)
    from node.dicom.sandbox import SANDBOX, DecoderStopped

    def stopped(*args, **kwargs):
        asked.append(args)
        raise DecoderStopped("has pixel data that end the decoder (SIGSEGV)", "signal")

    client = client_of(node)
    assert client.get("/cases/1/slices/1/source.png").status_code == 200
    monkeypatch.setattr(SANDBOX, "decode", stopped)
    answer = client.get("/cases/1/slices/2/source.png")
    assert answer.status_code == 409
    assert "end the decoder" in answer.json()["detail"]
    assert len(asked) == 1


@pytest.mark.parametrize("path", ["review", "slices.json", "slices/1/source.png", "slices/1/hu.json?row=1&column=1"])
def test_nobody_sees_images_without_a_login(case, path) -> None:
    browser = TestClient(make_app(case), "http://localhost:8042", follow_redirects=False)
    answer = browser.get(f"/cases/1/{path}")
    assert answer.status_code in (303, 401)


def test_the_viewer_loads_neither_torch_nor_highdicom() -> None:
    code = "import sys, node.web.review; print({'torch', 'highdicom', 'SimpleITK'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_memory_is_bounded_however_many_look(tmp_path) -> None:
    paths = make_series(tmp_path / "s", slices=12, rows=64, columns=64)
    images = Images(lambda name: paths[int(name)], max_bytes=5 * 64 * 64 * 4)
    for number in (*range(12), 11, 3):
        images.slice(SliceFile(str(number), ""))
        assert images.kept_bytes <= 5 * 64 * 64 * 4
    paths[3].unlink()
    assert images.slice(SliceFile("3", "")).hu.shape == (64, 64)  # from memory
    assert Images(lambda name: paths[int(name)], max_bytes=1).slice(SliceFile("0", "")).hu.shape == (64, 64)


def test_memory_is_bounded_where_several_look_at_once(tmp_path) -> None:
    paths = make_series(tmp_path / "s", slices=6, rows=64, columns=64)
    images = Images(lambda name: paths[int(name)], max_bytes=3 * 64 * 64 * 4)

    def look(number: int) -> float:
        with images.turn():
            return float(images.slice(SliceFile(str(number % 6), "")).hu[0, 0])

    with ThreadPoolExecutor(8) as people:
        assert len(list(people.map(look, range(60)))) == 60
    assert 0 < images.kept_bytes <= 3 * 64 * 64 * 4


def test_the_real_scan_is_shown_as_its_files_have_it(node, real_data) -> None:
    paths = sorted((real_data / "ct" / "philips_chest_ncct").glob("*.dcm"))[:6]
    receive(node, paths)
    translate(node)
    client = client_of(node)
    by_z = sorted(paths, key=lambda path: float(dcmread(path).ImagePositionPatient[2]))
    for number in (1, 6):
        shown = pixels(client.get(f"/cases/1/slices/{number}/source.png?preset=lung"))
        assert shown.shape == (512, 512)
        exact = np.clip((hu_of(by_z[number - 1]) + 600 + 750) / 1500, 0, 1) * 255
        assert np.abs(shown - exact).max() <= 0.5001  # either neighbour will do where it lies between two
    first = client.get("/cases/1/slices.json").json()["slices"][0]
    assert first["z_mm"] == pytest.approx(float(dcmread(by_z[0]).ImagePositionPatient[2]))

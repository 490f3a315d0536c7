"""A series of an archive from Orthanc's DICOMweb plugin: all of its images or none, and the result of a folder."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from pydicom import dcmread

from config.settings import Settings
from node.archive import pacs, translate
from node.archive.index import Entry
from node.archive.moved import Lacking
from node.archive.permits import permitted
from node.archive.run import Archive, run_archive
from node.errors import Misconfigured, Permanent
from node.network.dicomweb import Service
from node.network.requestor import Timeouts
from node.send.stow import StowSender
from tests.builders import body_hu, make_series
from tests.peers.dicomweb_server import Asked, DicomwebServer, Told
from tests.peers.test_stow_orthanc import PASSWORD, PLUGIN, USER, LockedOrthanc

PARTS = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B'}


@pytest.fixture
def orthanc(tmp_path: Path, peer_program: Callable[[str], str]) -> Iterator[LockedOrthanc]:
    made = LockedOrthanc(tmp_path / "orthanc", peer_program(PLUGIN))
    yield made
    made.stop()


def test_a_series_from_orthanc_is_whole_and_has_the_result_of_a_folder(
    orthanc: LockedOrthanc, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_series(tmp_path / "source", hu=body_hu(9, 64, 64), rows=64, columns=64, slices=9, seed="pacs")
    (password := tmp_path / "password").write_text(PASSWORD + "\n")
    password.chmod(0o600)
    server = {"name": "pacs", "kind": "dicomweb", "url": orthanc.url, "username": USER, "password_file": password}
    settings = Settings.model_validate(
        {
            "destination": [server],
            "model": {"bundle": str(tiny_bundle), "allow_unproven": ["tiny"], "device": "cpu"},
        }
    )
    monkeypatch.setattr(translate, "PAUSES_S", ())
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    items = [(str(header.SOPInstanceUID), path) for header, path in zip(headers, paths, strict=True)]
    assert len(StowSender(pacs.server_of(settings, _entry("pacs")), Timeouts()).send(items).accepted) == 9

    uids = {"series_uid": [str(headers[0].SeriesInstanceUID)], "study_uid": [str(headers[0].StudyInstanceUID)]}
    archive = _archive(settings, tmp_path, "asked", {"source": ["dicomweb:pacs"], **uids})
    real = Service.retrieve_instance
    broken: Iterator[bool] = iter(())

    def breaks_off(self: Service, *of: str) -> bytes:
        if next(broken, False):
            orthanc.stop()
        return real(self, *of)

    monkeypatch.setattr(Service, "retrieve_instance", breaks_off)
    (row,) = _rows(archive)
    folder = _archive(settings, tmp_path, "folder", {"source": [str(tmp_path / "source")]})
    (other,) = _rows(folder)
    assert (row["end"], row["slices"], row["derived_series_uid"]) == ("PRODUCED", 9, other["derived_series_uid"])
    assert pixels(archive, row) == pixels(folder, other)

    stranger = _archive(settings, tmp_path, "none", {"source": ["dicomweb:pacs"], **uids | {"series_uid": ["1.2.3"]}})
    assert [one["reason"] for one in _rows(stranger)] == ["the server lists no image of this series"]
    with pytest.raises(Misconfigured, match="names no"):
        _rows(_archive(settings, tmp_path, "x", {"source": ["dicomweb:other"], **uids}))
    broken = iter([False, False, True])
    (row,) = _rows(_archive(settings, tmp_path, "part", {"source": ["dicomweb:pacs"], **uids}))
    assert (row["end"], row["place"]) == ("WAITING", "")


def test_a_server_that_says_what_it_does_not_have_is_an_end_and_one_that_sends_another_image_gives_no_part(
    make_dicomweb: Callable[..., DicomwebServer], tmp_path: Path
) -> None:
    paths = make_series(tmp_path / "source", slices=3, rows=8, columns=8)
    images = {str(dcmread(path).SOPInstanceUID): path.read_bytes() for path in paths}
    first, _, last = sorted(images)
    server, answers = make_dicomweb(), dict[str, Told]()
    server.held = images

    def on_search(asked: Asked) -> Told | None:
        what = asked.path.rsplit("/", 1)[1]
        if what in images and what not in answers:
            return Told(200, b"--B\r\n\r\n" + images[what] + b"\r\n--B--", PARTS)
        return answers.get(what)

    server.on_search = on_search

    def end() -> str:
        (folder := tmp_path / "fetched").mkdir(exist_ok=True)
        try:
            return f"{len(pacs.retrieve(server.destination(), Entry('dicomweb:tps', '1.2.4', '1.2.3'), folder))} images"
        except (Permanent, Lacking, pacs.Busy) as error:
            return f"{type(error).__name__}: {error}"

    assert end() == "3 images"
    for wrong in (Told(404), Told(410), Told(200, b"--B\r\n\r\njunk\r\n--B--", PARTS), on_search(_asked(first))):
        answers[last] = wrong or Told(500)
        assert end().startswith("Lacking: the server sends 2 of the 3 images that it lists")
    answers |= dict.fromkeys(images, Told(404))
    assert end().endswith("answers 404: is the path of url right?")
    for status in (404, 410):
        answers["instances"] = Told(status)
        assert end() == "Permanent: the server says that it has no such series"
    answers["studies"] = Told(404)
    assert end().startswith("Busy: "), "nothing is there under this url, and of the series nobody knows"


def _asked(uid: str) -> Asked:
    return Asked("GET", f"/{uid}", {}, {}, ())


def _entry(name: str) -> Any:
    return Entry(f"dicomweb:{name}")


def _archive(settings: Settings, folder: Path, name: str, columns: dict[str, list[str]]) -> Archive:
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    ask = replace(permitted(settings)[0], device="cpu")
    return Archive(settings, folder / f"{name}.parquet", str(folder / f"out-{name}"), ask)


def _rows(archive: Archive) -> list[dict[str, Any]]:
    run_archive(archive, lambda rows, made, run: map(made(run), rows), lambda _tally: None)
    found: list[dict[str, Any]] = pq.read_table(Path(archive.out, "outcomes.parquet")).to_pylist()
    return found


def pixels(archive: Archive, row: dict[str, Any]) -> list[str]:
    files = sorted(Path(archive.out, row["place"]).glob("*.dcm"))
    return [hashlib.sha256(dcmread(path).PixelData).hexdigest() for path in files]

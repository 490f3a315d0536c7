"""Series of an archive by C-MOVE: from Orthanc and DCMTK whole; from peers that half-fail, lie or are silent, none."""

import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_context, evt

from config.settings import DestinationSettings, PeerSettings, ScpSettings, Settings
from node.archive import translate
from node.archive.index import Entry
from node.archive.moved import check_peers
from node.archive.run import Archive
from node.bootstrap.places import Folder, fetch_all
from node.errors import Misconfigured, Retryable
from node.network.no_association import NoAssociation
from node.network.requestor import Timeouts
from node.network.retrieval import STUDY_ROOT_MOVE, UnknownDestination, move_series
from node.network.tls import client_context, server_context
from node.receive.asked_series import listening
from node.send.scu import StorageScu
from node.translate.carried import CarriedJobs
from tests.builders import body_hu, make_series
from tests.conftest import require_program
from tests.peers.certificates import Certificates
from tests.peers.conftest import CT, EXPLICIT, FakeTps
from tests.peers.test_archive_dicomweb import _archive, _rows, pixels
from tests.slice.harness import Orthanc, free_port, wait_for

TITLE = "SYNCECT-ARCHIVE"


@pytest.fixture(scope="module")
def jobs() -> Iterator[CarriedJobs]:
    """One loaded bundle for all tests."""
    made = CarriedJobs()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, jobs: CarriedJobs) -> None:
    monkeypatch.setattr(translate, "CarriedJobs", lambda: jobs)
    monkeypatch.setattr(translate, "PAUSES_S", ())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series of nine slices."""
    folder = tmp_path_factory.mktemp("pacs")
    return make_series(folder / "source", hu=body_hu(9, 64, 64), rows=64, columns=64, slices=9, seed="moved")


@pytest.fixture
def ask(tiny_bundle: Path, tmp_path: Path, images: list[Path]) -> Callable[..., Archive]:
    """An archive of this series from one PACS; `columns` and `settings` beside what it needs."""
    head = dcmread(images[0], stop_before_pixels=True)
    uids = {"series_uid": [str(head.SeriesInstanceUID)], "study_uid": [str(head.StudyInstanceUID)]}

    def make(name: str, pacs: Any, *, columns: Any = None, port: int = 0, **settings: Any) -> Archive:
        made = Settings.model_validate(
            {
                "destination": [pacs],
                "model": {"bundle": str(tiny_bundle), "allow_unproven": ["tiny"], "device": "cpu"},
                "archive": {"port": port or free_port()},
                "scp": {"host": "127.0.0.1"} | settings,
            }
        )
        return _archive(made, tmp_path, name, {"source": ["dimse:pacs"], **uids} | (columns or {}))

    return make


class Pacs:
    """A peer that moves what it is told to: `sends` are the images of its next C-MOVE, `to` is where it sends them."""

    def __init__(self, make_tps: Callable[..., FakeTps], images: Sequence[Path], **options: Any) -> None:
        self.images = [dcmread(path) for path in images]
        self.sends: Sequence[Dataset] = self.images
        self.to: tuple[Any, ...] = (None, None)
        self.peer = make_tps(running=False, also=[STUDY_ROOT_MOVE], **options)
        self.peer.listed = lambda: [str(one.SOPInstanceUID) for one in self.images]
        self.peer.also_handles = [(evt.EVT_C_MOVE, self._move)]
        self.asked: list[str] = []
        self.peer.start()

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"name": "pacs", "ae_title": "TPS", "host": "127.0.0.1", "port": self.peer.port} | more

    def knows(self, archive: Archive, **options: Any) -> Archive:
        images = build_context(CT, EXPLICIT)
        self.to = ("127.0.0.1", archive.settings.archive.port, {"contexts": [images], **options})
        return archive

    def _move(self, event: Any) -> Iterator[Any]:
        self.asked.append(event.move_destination)
        yield self.to
        yield len(self.sends)
        for one in self.sends:
            yield 0xFF00, one


@pytest.fixture
def pacs(make_tps: Callable[..., FakeTps], images: list[Path]) -> Pacs:
    return Pacs(make_tps, images)


def left(archive: Archive) -> list[Path]:
    """Images in the output that no actor has taken."""
    return [path for path in Path(archive.out, "moved").rglob("*") if path.is_file()]


def orthanc(folder: Path, port: int, images: Sequence[Path]) -> Iterator[int]:
    """Orthanc that has these images, and that knows the archive at `port`; yields its own port."""
    made = Orthanc(folder, ae_title="PACS", settings={"DicomModalities": {"me": [TITLE, "127.0.0.1", port]}})
    try:
        for path in images:
            made.upload(path)
        yield made.port
    finally:
        made.stop()


def dcmqrscp(folder: Path, port: int, images: Sequence[Path]) -> Iterator[int]:
    """The same with DCMTK."""
    program, own = require_program("dcmqrscp", "/usr/bin/dcmqrscp", "dcmtk"), free_port()
    (folder / "kept").mkdir(parents=True)
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {own}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\narchive = ({TITLE}, 127.0.0.1, {port})\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nPACS {folder / 'kept'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    peer = DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=own)
    with subprocess.Popen([program, "-c", str(folder / "dcmqrscp.cfg")], stderr=subprocess.DEVNULL) as running:
        try:
            wait_for("dcmqrscp's start", lambda: StorageScu(peer, "CTSIM").echo().ok)
            items = [(str(dcmread(path).SOPInstanceUID), path) for path in images]
            assert len(StorageScu(peer, "CTSIM").send(items).accepted) == len(images)
            yield own
        finally:
            running.terminate()


@pytest.mark.parametrize("program", [orthanc, dcmqrscp])
def test_a_series_that_a_pacs_moves_has_the_result_of_a_folder(
    ask: Callable[..., Archive], images: list[Path], tmp_path: Path, program: Callable[..., Iterator[int]]
) -> None:
    port = free_port()
    with contextmanager(program)(tmp_path / "pacs", port, images) as its_port:
        known = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": its_port}
        moved = ask("moved", known, port=port)
        (row,) = _rows(moved)
        stranger = ask("none", known, port=port, columns={"series_uid": ["1.2.3"]})
        assert [one["reason"] for one in _rows(stranger)] == ["the PACS lists no image of this series"]
    folder = _archive(moved.settings, tmp_path, "folder", {"source": [str(images[0].parent)]})
    (other,) = _rows(folder)
    assert (row["end"], row["slices"], row["derived_series_uid"]) == ("PRODUCED", 9, other["derived_series_uid"])
    assert pixels(moved, row) == pixels(folder, other)
    assert left(moved) == []


def test_a_part_of_a_series_is_never_translated(ask: Callable[..., Archive], pacs: Pacs) -> None:
    archive = pacs.knows(ask("half", pacs.settings()))
    other = Dataset()
    other.update(pacs.images[8])
    other.SeriesInstanceUID, other.file_meta = generate_uid(), pacs.images[8].file_meta
    pacs.sends = [*pacs.images[:8], other]
    (row,) = _rows(archive)
    assert (row["end"], row["reason"]) == ("INCOMPLETE", "the PACS could not send 1 of the 9 images that it lists")

    lies = replace(archive, again=frozenset({"INCOMPLETE"}))
    pacs.sends = pacs.images[:8]
    (row,) = _rows(lies)
    assert (row["end"], row["reason"]) == ("INCOMPLETE", "1 of the 9 images that the PACS lists did not arrive")
    assert row["place"] == ""

    pacs.sends = pacs.images
    (row,) = _rows(lies)
    assert (row["end"], row["slices"]) == ("PRODUCED", 9)
    assert pacs.asked == [TITLE] * 3
    assert left(archive) == []


def test_a_pacs_that_does_not_know_the_archive_ends_the_run_with_what_to_do(
    ask: Callable[..., Archive], pacs: Pacs
) -> None:
    archive = ask("unknown", pacs.settings())
    with pytest.raises(Retryable, match=f"^TPS does not know {TITLE} as a move destination, .*A801"):
        _rows(archive)
    assert not [path for path in Path(archive.out, "begun").rglob("*") if path.is_file()]


def test_only_the_pacs_may_send_and_only_what_was_asked_for(
    ask: Callable[..., Archive], pacs: Pacs, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the run waits for the PACS, others send; what a killed run left is gone by then."""
    archive = pacs.knows(ask("strangers", pacs.settings()))
    Folder(Path(archive.out)).put("moved/old/1", b"of a run that was killed")
    (foreign,) = make_series(tmp_path / "foreign", slices=1, seed="foreign")
    receiver = pacs.peer.destination(port=archive.settings.archive.port, ae_title=TITLE)
    answers: list[str] = []

    def moves(event: Any) -> Iterator[Any]:
        answers.extend(path.name for path in left(archive))
        for title, path in (("OTHER", images[0]), ("TPS", foreign)):
            sent = StorageScu(receiver, title).send([(str(dcmread(path).SOPInstanceUID), path)])
            answers.append(sent.reason)
        yield from pacs._move(event)

    pacs.peer.stop()
    pacs.peer.also_handles = [(evt.EVT_C_MOVE, moves)]
    pacs.peer.start()
    (row,) = _rows(archive)
    assert row["end"] == "PRODUCED"
    stranger, unasked = answers
    assert "does not know our AE title OTHER" in stranger
    assert "0124" in unasked


def test_what_cannot_be_kept_is_refused_and_the_next_image_is_taken(images: list[Path]) -> None:
    head = dcmread(images[0], stop_before_pixels=True)
    kept: list[bytes] = []

    def keep(key: str, uid: str, data: bytes) -> None:
        if not kept:
            kept.append(b"")
            raise OSError(28, "No space left on device")
        kept.append(data)

    own = ScpSettings(
        host="127.0.0.1", port=free_port(), ae_title=TITLE, allowed_peers=(PeerSettings(ae_title="PACS"),)
    )
    peer = DestinationSettings(name="here", ae_title=TITLE, host="127.0.0.1", port=own.port)
    item = (str(head.SOPInstanceUID), images[0])
    with listening(own, "archive.port", {(head.StudyInstanceUID, head.SeriesInstanceUID): "key"}, keep):
        assert "A700" in StorageScu(peer, "PACS").send([item]).reason
        assert StorageScu(peer, "PACS").send([item]).accepted == (item[0],)
        renamed = StorageScu(peer, "PACS").send([("1.2.3", images[0])])
    assert kept[1].endswith(images[0].read_bytes()[-1000:])
    assert not renamed.accepted
    assert not StorageScu(peer, "PACS").echo().ok, "it listens no longer"


def test_a_series_comes_over_tls(
    ask: Callable[..., Archive], make_tps: Any, images: list[Path], certificates: Certificates
) -> None:
    """The PACS is asked as its destination says; it sends as [scp.tls] says, and in clear it cannot."""
    mine = {name: str(value) for name, value in certificates.settings().model_dump().items() if value}
    pacs = Pacs(make_tps, images, tls=server_context(certificates.settings("other")))
    archive = ask("tls", pacs.settings(tls=mine), tls=mine)
    taken = pytest.raises(Misconfigured, match=r"another program listens .* change archive\.port")
    with socket.create_server(("127.0.0.1", archive.settings.archive.port)), taken:
        _rows(archive)
    pacs.knows(archive)
    with pytest.raises(Retryable, match="cannot reach it"):
        _rows(archive)
    pacs.knows(archive, tls_args=(client_context(certificates.settings("other")), "127.0.0.1"))
    (row,) = _rows(archive)
    assert row["end"] == "PRODUCED"


def test_a_silent_pacs_is_not_waited_for_and_its_words_are_no_proof(pacs: Pacs, make_tps: Any) -> None:
    peer = pacs.peer.destination()
    with pytest.raises(UnknownDestination):
        move_series(peer, "X", TITLE, "1.2", "1.3")

    def silent(_event: Any) -> Iterator[Any]:
        pacs.peer.released.wait(30)
        yield None, None

    pacs.peer.stop()
    pacs.peer.released.clear()
    pacs.peer.also_handles = [(evt.EVT_C_MOVE, silent)]
    pacs.peer.start()
    with pytest.raises(NoAssociation, match="did not answer within"):
        move_series(peer, "X", TITLE, "1.2", "1.3", timeouts=Timeouts(dimse_s=0.2))
    pacs.peer.released.set()
    with pytest.raises(NoAssociation, match="accepts none of the SOP classes"):
        move_series(make_tps().destination(), "X", TITLE, "1.2", "1.3")


def test_the_names_of_many_failed_images_end_no_association(pacs: Pacs) -> None:
    """PS3.4 C.4.2.1.4.2 wants them in the last response, which is longer than any other answer then."""
    failed = Dataset()
    failed.FailedSOPInstanceUIDList = [f"2.25.{number:059}" for number in range(10**58, 10**58 + 1007)]

    def fails(_event: Any) -> Iterator[Any]:
        yield pacs.to
        yield 1
        yield 0xA702, failed

    pacs.to = ("127.0.0.1", pacs.peer.port, {"contexts": [build_context(CT, EXPLICIT)], "ae_title": "TPS"})
    pacs.peer.stop()
    pacs.peer.also_handles = [(evt.EVT_C_MOVE, fails)]
    pacs.peer.start()
    with pytest.raises(NoAssociation, match="status A702; does it know SYNCECT-ARCHIVE, and reach it"):
        move_series(pacs.peer.destination(), "X", TITLE, "1.2", "1.3")


def test_an_index_that_names_no_pacs_or_one_series_for_two_is_refused(ask: Callable[..., Archive], pacs: Pacs) -> None:
    with pytest.raises(Misconfigured, match=r'names no .* kind = "dimse"'):
        _rows(ask("x", pacs.settings(name="other")))
    with pytest.raises(Misconfigured, match="lacks study_uid or series_uid"):
        _rows(ask("y", pacs.settings(), columns={"study_uid": [""]}))
    two = [pacs.peer.destination(name=name) for name in ("a", "b")]
    with pytest.raises(Misconfigured, match="one series for two PACS"):
        check_peers(Settings(destination=tuple(two)), [Entry(f"dimse:{one.name}", "1.3", "1.2") for one in two])


def test_an_image_that_another_actor_takes_meanwhile_is_not_used_in_part(tmp_path: Path) -> None:
    place = Folder(tmp_path / "out")
    place.put("moved/a/1", b"whole")
    found = list(place.list("moved"))
    place.delete(["moved/a/1"])
    with pytest.raises(Retryable, match="changed or removed while it was read"):
        fetch_all(place, found, tmp_path)

"""Orthanc's DICOMweb plugin, behind a password, takes and confirms what the node sends."""

import base64
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.destinations import DicomwebSettings
from node.network.requestor import Timeouts
from node.send.courier import Courier
from node.send.stow import StowSender
from storage.states import DeliveryState
from tests.slice.harness import Orthanc

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
USER, PASSWORD = "node", "hush-hush"


class LockedOrthanc(Orthanc):
    """Orthanc whose REST API, and DICOMweb with it, asks for a password; Debian's does not answer behind TLS."""

    def __init__(self, folder: Path, plugin: str) -> None:
        login = {"AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD}}
        super().__init__(folder, settings={"Plugins": [plugin], "DicomWeb": {"Enable": True}} | login)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http}/dicom-web/"

    def _get(self, path: str) -> bytes:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
        asked = urllib.request.Request(f"http://127.0.0.1:{self._http}{path}", headers=headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return bytes(answer.read())


@pytest.fixture
def orthanc(tmp_path: Path, peer_program: Callable[[str], str]) -> Iterator[LockedOrthanc]:
    archive = LockedOrthanc(tmp_path / "orthanc", peer_program(PLUGIN))
    yield archive
    archive.stop()


def test_orthanc_has_what_was_produced_and_confirms_it(
    store: Any, produce: Any, orthanc: LockedOrthanc, tmp_path: Path
) -> None:
    uids = produce(120, StudyInstanceUID="1.2", SeriesInstanceUID=f"1.8.{ord('k')}")
    (password := tmp_path / "password").write_text(PASSWORD + "\n")
    password.chmod(0o600)
    known: dict[str, Any] = {"name": "tps", "kind": "dicomweb", "url": orthanc.url, "confirm": "find"}
    login = {"username": USER, "password_file": password}
    destination = DicomwebSettings.model_validate(known | login | {"identity_check": True})
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    moments = iter(range(1000))
    courier = Courier(
        store.outbox,
        store.spool,
        (),
        peers=store.peers,
        calling_ae="SYNCECT",
        name="courier-1",
        clock=lambda: now + timedelta(seconds=next(moments)),
    )
    assert StowSender(destination, Timeouts()).echo().ok
    courier.run_once(destination)
    assert (store.delivery().state, store.delivery().reason) == (DeliveryState.SENT, "")
    for _ in range(10):
        courier.confirm_once(destination)
    assert store.delivery().state is DeliveryState.CONFIRMED
    produced = sorted(path.read_bytes() for path in (store.spool.root / "derived").rglob("*.dcm"))
    assert sorted(path.read_bytes() for path in orthanc.fetch(tmp_path / "fetched")) == produced
    items = list(zip(uids, sorted((store.spool.root / "derived").rglob("*.dcm")), strict=True))
    again = StowSender(destination, Timeouts()).send(items)  # as after a kill before the answer was written down
    assert again.accepted == tuple(uids)
    assert len(orthanc.fetch(tmp_path / "again")) == 120
    stranger = destination.model_copy(update={"username": "nobody"})
    refused = StowSender(stranger, Timeouts()).send(items[:1])
    assert "answers 401: does it know our token, user name or certificate?" in refused.reason

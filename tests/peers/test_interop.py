"""Interoperation with Orthanc and DCMTK, service by service; `docs/reference/interoperability.md` is the whole table.

Orthanc is one program for all tests here: it gets the port of the node of each test by its REST API.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.settings import DestinationSettings
from node.send.courier import Courier
from node.send.scu import StorageScu
from storage.states import DeliveryState
from tests.peers.certificates import Certificates
from tests.peers.conftest import StartQuery, Store
from tests.peers.measures import wait_until
from tests.slice.harness import Orthanc, free_port

RESULT = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.8.107", "PatientID": "4711", "StudyDate": "20260102"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc without TLS, for all tests of this module."""
    orthanc = Orthanc(tmp_path_factory.mktemp("plain") / "orthanc")
    yield orthanc
    orthanc.stop()


@pytest.fixture
def orthanc(archive: Orthanc) -> Iterator[Orthanc]:
    """The same Orthanc, empty."""
    yield archive
    for study in archive.ask("/studies", method="GET"):
        archive.ask(f"/studies/{study}", method="DELETE")


def tls_orthanc(folder: Path, certificates: Certificates) -> Orthanc:
    """Orthanc that speaks mutual TLS on both of its edges."""
    certificate, key, ca = map(str, certificates.files("other"))
    files = {"DicomTlsCertificate": certificate, "DicomTlsPrivateKey": key, "DicomTlsTrustedCertificates": ca}
    return Orthanc(folder, settings={"DicomTlsEnabled": True, "DicomTlsRemoteCertificateRequired": True, **files})


def put(orthanc: Orthanc, ds: Any, folder: Path) -> str:
    """Give Orthanc one instance without DICOM's network; its identifier there."""
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return str(orthanc.upload(path)["ID"])


def courier(store: Store, destination: DestinationSettings) -> Courier:
    return Courier(store.outbox, store.spool, [destination], peers=store.peers, calling_ae="SYNCECT", name="courier-1")


# -- Orthanc -----------------------------------------------------------------------------------------------------------


def test_orthanc_stores_at_the_receiver(
    orthanc: Orthanc, store: Store, start_receiver: Any, make_ct: Any, tmp_path: Path
) -> None:
    orthanc.knows_node(start_receiver().port)
    kept = [put(orthanc, make_ct(instance=number), tmp_path) for number in (1, 2, 3)]
    told = orthanc.ask("/modalities/syncect/store", {"Resources": kept, "Synchronous": True})
    assert (told["InstancesCount"], told["FailedInstancesCount"]) == (3, 0)
    assert len(store.instances()) == 3


def test_orthanc_is_told_that_nothing_is_committed_to(orthanc: Orthanc, start_receiver: Any, make_ct: Any) -> None:
    """Orthanc releases its association at once, as many scanners do, and listens for the report."""
    peer = {"ae_title": orthanc.ae_title, "host": "127.0.0.1", "port": orthanc.port}
    orthanc.knows_node(start_receiver(commitment="fail_all", allowed_peers=[peer]).port)
    ds = make_ct()
    asked = {"DicomInstances": [{"SOPClassUID": ds.SOPClassUID, "SOPInstanceUID": ds.SOPInstanceUID}]}
    where = orthanc.ask("/modalities/syncect/storage-commitment", asked)["Path"]
    wait_until(lambda: orthanc.ask(where, method="GET").get("Status") != "Pending")
    told = orthanc.ask(where, method="GET")
    assert (told["Status"], told["Success"]) == ("Failure", [])
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in told["Failures"]] == [(ds.SOPInstanceUID, 0x0110)]


def test_orthanc_gets_a_series_and_confirms_it_by_c_find(orthanc: Orthanc, store: Store, produce: Any) -> None:
    uids = produce(4, **RESULT)
    tps = DestinationSettings(
        name="tps", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.port, confirm="find", identity_check=True
    )
    sender = courier(store, tps)
    assert sender.run_once(tps)
    assert sender.confirm_once(tps)
    assert store.delivery().state is DeliveryState.CONFIRMED, store.delivery().reason
    assert len(orthanc.ask("/instances", method="GET")) == len(uids)


def test_orthanc_finds_and_moves_a_result(
    orthanc: Orthanc, produce: Callable[..., list[str]], start_query: StartQuery, tmp_path: Path
) -> None:
    uids = produce(3, **RESULT)
    itself = DestinationSettings(name="tps", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.port)
    orthanc.knows_node(start_query(itself).port)
    keys = {"Level": "Study", "Query": {"PatientID": "47*", "ModalitiesInStudy": "CT", "PatientName": ""}}
    found = orthanc.ask("/modalities/syncect/query", keys)["Path"]
    assert len(orthanc.ask(f"{found}/answers", method="GET")) == 1
    (answer,) = orthanc.ask(f"{found}/answers?expand", method="GET")
    assert answer["0020,000d"]["Value"] == RESULT["StudyInstanceUID"]
    told = orthanc.ask(f"{found}/retrieve", {"TargetAet": orthanc.ae_title, "Synchronous": True})
    assert told["Query"][0]["0020,000d"] == RESULT["StudyInstanceUID"]
    fetched = {str(dcmread(path).SOPInstanceUID) for path in orthanc.fetch(tmp_path / "fetched")}
    assert fetched == set(uids)


def test_orthanc_sends_and_receives_over_tls(
    store: Store, start_receiver: Any, produce: Any, make_ct: Any, certificates: Certificates, tmp_path: Path
) -> None:
    receiver = start_receiver(tls=certificates.settings())
    orthanc = tls_orthanc(tmp_path / "orthanc", certificates)
    try:
        orthanc.knows_node(receiver.port, tls=True)
        kept = [put(orthanc, make_ct(instance=number), tmp_path) for number in (1, 2)]
        told = orthanc.ask("/modalities/syncect/store", {"Resources": kept, "Synchronous": True})
        assert told["FailedInstancesCount"] == 0
        assert len(store.instances()) == 2
        uids = produce(3, **RESULT)
        tps = DestinationSettings(
            name="tps", ae_title="ORTHANC", host="127.0.0.1", port=orthanc.port, tls=certificates.settings()
        )
        assert courier(store, tps).run_once(tps)
        assert store.delivery().state is DeliveryState.SENT, store.delivery().reason
        assert len(orthanc.ask("/instances", method="GET")) == len(kept) + len(uids)
        stranger = tps.model_copy(update={"tls": certificates.settings("stranger")})
        assert not StorageScu(stranger, "SYNCECT").echo().ok
    finally:
        orthanc.stop()


# -- DCMTK -------------------------------------------------------------------------------------------------------------


def test_dcmqrscp_gets_a_series_and_confirms_it_by_c_find(
    store: Store, produce: Any, peer_program: Any, tmp_path: Path
) -> None:
    port, kept = free_port(), tmp_path / "kept"
    kept.mkdir()
    settings = tmp_path / "dcmqrscp.cfg"
    settings.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nTPS {kept} RW (200, 1024mb) ANY\nAETable END\n"
    )
    uids = produce(4, **RESULT)
    tps = DestinationSettings(
        name="tps", ae_title="TPS", host="127.0.0.1", port=port, confirm="find", identity_check=True
    )
    with subprocess.Popen([peer_program("/usr/bin/dcmqrscp"), "-c", str(settings)], stderr=subprocess.DEVNULL) as scp:
        try:
            wait_until(lambda: StorageScu(tps, "SYNCECT").echo().ok)
            sender = courier(store, tps)
            assert sender.run_once(tps)
            assert store.delivery().state is DeliveryState.SENT, store.delivery().reason
            assert sender.confirm_once(tps)
        finally:
            scp.terminate()
    assert store.delivery().state is DeliveryState.CONFIRMED, store.delivery().reason
    assert len(list(kept.glob("CT*"))) == len(uids)


# -- peers that misbehave: a C-FIND that lies --------------------------------------------------------------------------


def answered(uid: str, **elements: Any) -> tuple[int, Dataset]:
    """One match of a C-FIND at IMAGE level; `elements` overwrite."""
    found = Dataset()
    found.QueryRetrieveLevel, found.SOPInstanceUID = "IMAGE", uid
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return 0xFF00, found


@pytest.mark.parametrize(
    "lie", ["of another series", "the same one again and again", "all, and then a failure", "names"]
)
def test_a_c_find_that_lies_confirms_nothing(store: Store, produce: Any, make_tps: Any, lie: str) -> None:
    """What cannot be found out is a peer that lists what it does not hold: then only its word counts."""
    uids = produce(3, **RESULT)
    tps = make_tps(running=False)
    answers: dict[str, list[Any]] = {
        "of another series": [answered(uid, SeriesInstanceUID="1.8.999") for uid in uids],
        "the same one again and again": [answered(uids[0])] * 3,
        "all, and then a failure": [*(answered(uid) for uid in uids), (0xC001, None)],
        "names": [answered("", PatientName="CANARY") for _ in uids],
    }
    tps.find = lambda _asked: iter(answers[lie])
    tps.start()
    peer = tps.destination(confirm="find")
    sender = courier(store, peer)
    assert sender.run_once(peer)
    assert sender.confirm_once(peer)
    assert store.delivery().state is DeliveryState.SENT
    assert store.delivery().reason.startswith("not confirmed yet: ")
    assert "CANARY" not in store.delivery().reason

"""Whose a series is, over a real socket: another AE title, another certificate, and a receiver that nobody opened."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_context

from config.settings import ScpSettings
from node.receive.receiver import Receiver
from node.send.scu import StorageScu
from storage.overview import Overview
from tests.peers.certificates import Certificates
from tests.peers.conftest import CT

RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"


@contextmanager
def sender(receiver: Any, calling_ae: str, *classes: str) -> Iterator[Any]:
    ae = AE(ae_title=calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    contexts = [build_context(uid, [ExplicitVRLittleEndian]) for uid in classes or (CT,)]
    link = ae.associate("127.0.0.1", receiver.port, contexts=contexts, ae_title="SYNCECT")
    assert link.is_established
    try:
        yield link
    finally:
        link.release()


def send(receiver: Any, calling_ae: str, ds: Dataset) -> Dataset:
    with sender(receiver, calling_ae, ds.SOPClassUID) as link:
        answer: Dataset = link.send_c_store(ds)
        return answer


def reasons(store: Any) -> list[str]:
    overview = Overview(store.database)
    (case,) = overview.cases()
    return [event.reason for event in overview.events(case)]


def test_another_title_replaces_nothing_and_is_told_so(start_receiver: Any, store: Any, make_ct: Any, now: Any) -> None:
    receiver = start_receiver()
    assert send(receiver, "CTSIM", make_ct()).Status == 0x0000
    answer = send(receiver, "OTHER", make_ct(fill=7))
    assert (answer.Status, answer.ErrorComment) == (0x0124, "the series belongs to another peer")
    (kept,) = store.instances()
    assert (kept.calling_ae, [path.name for path in store.received()]) == ("CTSIM", [kept.spool_name.split("/")[-1]])
    assert store.unfinished() == []
    (refused,) = Overview(store.database).refused_of_series(str(make_ct().SeriesInstanceUID))
    assert (refused.calling_ae, refused.peer_host, refused.status, refused.count) == ("OTHER", "127.0.0.1", "0124", 1)
    assert reasons(store)[-1] == "OTHER at 127.0.0.1 was refused an instance; the series belongs to CTSIM"
    (waiting,) = store.series.undecided(kept.received_at, 0.0)
    assert (waiting.missing, waiting.arrivals) == ((), 1)


def test_the_same_bytes_from_another_title_are_answered_as_stored(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    receiver = start_receiver()
    assert [send(receiver, ae, make_ct()).Status for ae in ("CTSIM", "OTHER")] == [0, 0]
    assert len(store.instances()) == len(store.received()) == 1


@pytest.mark.parametrize("title", ["ctsim", "CT SIM", "CTSIM2"])
def test_a_title_that_looks_alike_is_another_one(start_receiver: Any, make_ct: Any, title: str) -> None:
    receiver = start_receiver()
    assert send(receiver, "CTSIM", make_ct()).Status == 0x0000
    assert send(receiver, title, make_ct(instance=2)).Status == 0x0124
    assert send(receiver, " CTSIM ", make_ct(instance=2)).Status == 0x0000


def test_the_same_series_under_another_study_from_another_title(start_receiver: Any, make_ct: Any) -> None:
    receiver = start_receiver()
    assert send(receiver, "CTSIM", make_ct()).Status == 0x0000
    assert send(receiver, "OTHER", make_ct(instance=2, StudyInstanceUID=generate_uid())).Status == 0x0124
    assert send(receiver, "OTHER", make_ct(instance=2, SeriesInstanceUID=generate_uid())).Status == 0x0000


def test_what_is_no_ct_for_another_peers_series_is_refused(start_receiver: Any, store: Any, make_ct: Any) -> None:
    receiver = start_receiver()
    assert send(receiver, "CTSIM", make_ct()).Status == 0x0000
    plan = make_ct(instance=2, SOPClassUID=RT_PLAN)
    assert send(receiver, "OTHER", plan).Status == 0x0124
    assert send(receiver, "CTSIM", plan).Status == 0x0000


def test_an_unreadable_instance_of_another_peer_keeps_no_series_waiting(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    receiver = start_receiver(max_dataset_bytes=20_000)
    assert send(receiver, "CTSIM", make_ct()).Status == 0x0000
    (kept,) = store.instances()
    large = make_ct(instance=2, PixelData=bytes(30_000))
    assert send(receiver, "OTHER", large).Status == 0xA700
    (waiting,) = store.series.undecided(kept.received_at, 0.0)
    assert (waiting.missing, waiting.arrivals, waiting.association_open) == ((), 1, False)
    assert "OTHER at 127.0.0.1 failed to send an instance; the series belongs to CTSIM" in reasons(store)
    assert send(receiver, "CTSIM", large).Status == 0xA700
    (waiting,) = store.series.undecided(kept.received_at.replace(year=2100), 0.0)
    assert len(waiting.missing) == 1


def test_who_sent_first_is_dropped_and_the_true_sender_sends_again(
    start_receiver: Any, store: Any, make_ct: Any, now: Any
) -> None:
    receiver = start_receiver()
    assert send(receiver, "OTHER", make_ct(fill=7)).Status == 0x0000
    assert send(receiver, "CTSIM", make_ct()).Status == 0x0124
    assert Overview(store.database).refused_since(store.instances()[0].received_at, hours=1)[0].calling_ae == "CTSIM"
    store.series.drop(1, "OTHER", "operator", "", now)
    assert send(receiver, "CTSIM", make_ct()).Status == 0x0000
    for refused in (make_ct(fill=7), make_ct(instance=3, SOPClassUID=RT_PLAN)):
        answer = send(receiver, "OTHER", refused)
        assert (answer.Status, answer.ErrorComment) == (0x0124, "a person dropped what this peer sent of the series")


def test_a_console_and_its_workstation_share_a_series_where_it_is_held(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    receiver = start_receiver(foreign_instances="hold")
    answers = [("CONSOLE", make_ct()), ("WORKSTATION", make_ct(instance=2)), ("WORKSTATION", make_ct(fill=7))]
    assert [send(receiver, ae, ds).Status for ae, ds in answers] == [0x0000, 0x0000, 0x0124]
    assert store.series.owner(1).others == {"WORKSTATION": 1}


# -- certificates ------------------------------------------------------------------------------------------------------


def test_a_bound_title_needs_its_certificate(
    start_receiver: Any, store: Any, make_tps: Any, certificates: Certificates
) -> None:
    peers = [{"ae_title": "CTSIM", "certificate": "node"}, {"ae_title": "OTHER", "certificate": "other.example"}]
    receiver = start_receiver(tls=certificates.settings(), allowed_peers=peers)

    def echo(calling_ae: str) -> bool:
        to = make_tps(running=False).destination(port=receiver.port, ae_title="SYNCECT", tls=certificates.settings())
        return StorageScu(to, calling_ae).echo().ok

    assert echo("CTSIM")
    assert not echo("OTHER")
    (refused,) = Overview(store.database).refused_since(datetime.now(UTC), hours=1)
    assert (refused.calling_ae, refused.status) == ("OTHER", "0124")
    assert refused.reason.startswith("association rejected: its certificate (node, sha256:")


def test_the_owner_of_a_series_is_known_by_the_subject_of_its_certificate(
    start_receiver: Any, store: Any, make_tps: Any, certificates: Certificates, make_ct: Any, tmp_path: Any
) -> None:
    receiver = start_receiver(tls=certificates.settings())
    ds = make_ct()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    answers: dict[str, int] = {}
    for owner in ("node", "renewed", "other"):
        to = make_tps(running=False).destination(
            port=receiver.port, ae_title="SYNCECT", tls=certificates.settings(owner)
        )
        ds.PixelData = bytes([len(answers)]) * (2 * 64 * 64)
        ds.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
        report = StorageScu(to, "CTSIM").send([(ds.SOPInstanceUID, tmp_path / "ct.dcm")])
        answers[owner] = len(report.accepted)
    assert answers == {"node": 1, "renewed": 1, "other": 0}
    assert "CTSIM with another certificate at 127.0.0.1 was refused an instance" in reasons(store)[-1]


# -- nobody was named --------------------------------------------------------------------------------------------------


def listening_address(store: Any, **settings: Any) -> str:
    receiver = Receiver(ScpSettings(**settings), store.spool, store.series, store.refusals, name="r", port=0)
    receiver.start()
    try:
        assert receiver._server is not None
        return str(receiver._server.server_address[0])
    finally:
        receiver.stop(grace_s=0.0)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "127.0.0.1"),
        ({"host": "127.0.0.2"}, "127.0.0.2"),
        ({"allow_everyone": True}, "0.0.0.0"),
        ({"allowed_peers": [{"ae_title": "CTSIM"}]}, "0.0.0.0"),
    ],
)
def test_where_nobody_was_named_only_this_machine_can_send(
    store: Any, settings: dict[str, Any], address: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert listening_address(store, **settings) == address
    told = [line for line in caplog.messages if "only programs of this machine can send" in line]
    assert len(told) == (settings == {})


def test_the_loopback_of_ipv6_stands_for_its_any_address(store: Any) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert listening_address(store, host="::") == "::1"

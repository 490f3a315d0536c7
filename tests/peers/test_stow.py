"""A destination by DICOMweb: SENT means that the server named every instance, whatever else a server does."""

import logging
import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from node.network.bounded_http import MAX_ANSWER_BYTES, NoAnswer
from node.network.dicomweb import connect
from node.network.no_association import Outcome
from node.network.requestor import Timeouts
from node.send.courier import MISCONFIGURED_PAUSE_S, Courier
from node.send.probe import Probe
from node.send.stow import BATCH_BYTES, StowSender
from storage.errors import StoreUnavailable
from storage.states import DeliveryState
from tests.peers.dicomweb_server import JSON, Asked, DicomwebServer, Told, element, item, stored

PATIENT = Timeouts(connection_s=20, dimse_s=20)  # nothing here waits for one
QUICK = Timeouts(connection_s=20, dimse_s=0.4)


@pytest.fixture
def server(make_dicomweb: Callable[..., DicomwebServer]) -> DicomwebServer:
    return make_dicomweb()


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(now: datetime) -> Clock:
    return Clock(now)


@pytest.fixture
def make_courier(store: Any, clock: Clock) -> Callable[[Timeouts], Courier]:
    def make(timeouts: Timeouts) -> Courier:
        chosen: dict[str, Any] = {"clock": clock, "rng": random.Random(1), "timeouts": timeouts}
        chosen |= {"peers": store.peers, "calling_ae": "SYNCECT", "name": "courier-1"}
        return Courier(store.outbox, store.spool, (), **chosen)

    return make


@pytest.fixture
def courier(make_courier: Callable[[Timeouts], Courier]) -> Courier:
    return make_courier(PATIENT)


def produced_files(store: Any) -> dict[str, bytes]:
    return {uid: path.read_bytes() for uid, path in store.derived()}


def waits_s(store: Any, clock: Clock) -> float:
    return float((store.delivery().next_attempt_at - clock.now).total_seconds())


def test_a_series_is_sent_as_it_was_produced_in_small_requests_by_one_connection(
    store: Any, produce: Any, server: DicomwebServer, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.send.stow.BATCH_BYTES", 20_000)
    uids = produce(5)
    assert courier.run_once(server.destination()) is True
    assert store.delivery().state is DeliveryState.SENT
    assert store.statuses() == [0] * 5
    assert server.held == produced_files(store)
    assert [asked.uids for asked in server.asked] == [uids[:2], uids[2:4], uids[4:]]
    assert {asked.path for asked in server.asked} == {"/rs/studies"}
    headers = server.asked[0].headers
    assert headers["Host"] == f"127.0.0.1:{server.port}"
    assert headers["Accept"] == "application/dicom+json"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("SYNCECT_")
    assert "Authorization" not in headers
    assert server.connections == 1
    assert courier.run_once(server.destination()) is False


def test_a_file_above_the_size_of_a_request_goes_alone(produce: Any, store: Any, server: DicomwebServer) -> None:
    produce(3, Rows=1000, Columns=600, PixelData=bytes(1_200_000))
    assert StowSender(server.destination(), PATIENT).send(store.derived()).outcome is Outcome.DONE
    assert [len(asked.parts) for asked in server.asked] == [1, 1, 1]
    assert len(server.asked[0].parts[0]) > BATCH_BYTES


def test_what_a_server_did_not_name_as_stored_is_sent_again_and_nothing_else(
    store: Any, produce: Any, server: DicomwebServer, courier: Courier, clock: Clock
) -> None:
    uids = produce(4)

    def half(asked: Asked) -> Told:
        return stored(
            item(uids[0]),
            item(uids[2], warning=0xB000),
            failed=(item(uids[1], failure=0xA700), item(uids[3], failure=0xA700)),
            status=202,
        )

    server.on_store = half
    courier.run_once(server.destination())
    delivery = store.delivery()
    assert delivery.state is DeliveryState.PENDING
    assert delivery.reason == f"instance {uids[1]}: status A700: the peer is out of resources"
    assert store.statuses() == [0, 0xB000]
    server.on_store = lambda asked: None
    clock.now += timedelta(minutes=2)
    courier.run_once(server.destination())
    assert store.delivery().state is DeliveryState.SENT
    assert server.asked[1].uids == [uids[1], uids[3]]


def test_a_courier_that_is_killed_before_it_wrote_the_answer_down_sends_the_same_again(
    store: Any, produce: Any, server: DicomwebServer
) -> None:
    produce(2)
    sender, items = StowSender(server.destination(), PATIENT), store.derived()

    def killed(uid: str, status: int) -> None:
        raise StoreUnavailable("killed")

    with pytest.raises(StoreUnavailable):
        sender.send(items, killed)
    kept: list[str] = []
    assert sender.send(items, lambda uid, status: kept.append(uid)).outcome is Outcome.DONE
    assert kept == list(server.held)
    assert server.asked[0].parts == server.asked[1].parts
    server.on_store = lambda asked: stored(failed=tuple(item(uid, failure=0x0111) for uid in asked.uids), status=409)
    report = sender.send(items)
    assert report.reason == "2 instances: failure reason 0111: the server has it already"
    assert (report.outcome, report.accepted) == (Outcome.DONE, tuple(kept))


HTML = Told(200, b"<!DOCTYPE html><title>Log in</title>", {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("told", "outcome", "words"),
    [
        (HTML, Outcome.UNCLEAR, "the answer 200 is no Store Instances Response"),
        (stored(item("1.2.3.4")), Outcome.UNCLEAR, "the answer 200 does not name it"),
        (Told(204), Outcome.UNCLEAR, "the answer 204 is no Store Instances Response"),
        (Told(400), Outcome.UNCLEAR, "the answer 400 is no Store Instances Response"),
        (Told(401), Outcome.MISCONFIGURED, "answers 401: does it know our token"),
        (Told(403), Outcome.MISCONFIGURED, "answers 403: may this node store"),
        (Told(404), Outcome.MISCONFIGURED, "answers 404: is the path of url right?"),
        (Told(413), Outcome.MISCONFIGURED, "answers 413: it, or a proxy before it, takes no body as long"),
        (Told(415), Outcome.MISCONFIGURED, "answers 415: does it offer STOW-RS"),
        (Told(501), Outcome.MISCONFIGURED, "answers 501"),
        (Told(307, b"", {"Location": "http://127.0.0.1:1/elsewhere"}), Outcome.MISCONFIGURED, "is not followed"),
        (Told(418), Outcome.UNCLEAR, "answers 418"),
        (Told(429), Outcome.TRANSIENT, "answers 429"),
        (Told(500, b"<html>" * 1000), Outcome.TRANSIENT, "answers 500"),
        (Told(999), Outcome.TRANSIENT, "answers 999"),
        (Told(503, stored(item("1.9.107.1")).body), Outcome.TRANSIENT, "answers 503"),
        (Told(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}), Outcome.UNCLEAR, "answers compressed"),
        (Told(raw=lambda out: None), Outcome.TRANSIENT, "broke the connection off"),
        (Told(raw=lambda out: out.write(b"\0\r\n\r\n" * 9)), Outcome.TRANSIENT, "broke the connection off"),
        (
            Told(raw=lambda out: out.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")),
            Outcome.TRANSIENT,
            "broke the connection off",
        ),
        (
            Told(raw=lambda out: out.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 999)),
            Outcome.TRANSIENT,
            "broke the con",
        ),
    ],
)
def test_an_answer_that_is_none_stores_nothing(
    produce: Any, store: Any, server: DicomwebServer, told: Told, outcome: Outcome, words: str
) -> None:
    produce(2)
    server.on_store = lambda asked: told
    report = StowSender(server.destination(), PATIENT).send(store.derived())
    assert (report.outcome, report.accepted) == (outcome, ())
    assert words in report.reason
    assert "elsewhere" not in report.reason
    assert report.reached is (told.raw is None)
    assert len(server.asked) == 1


def test_an_answer_without_an_end_is_not_read_to_its_end(produce: Any, store: Any, server: DicomwebServer) -> None:
    def endless(out: Any) -> None:
        out.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):  # the sender closes
            while True:
                out.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    produce(1)
    server.on_store = lambda asked: Told(raw=endless)
    report = StowSender(server.destination(), PATIENT).send(store.derived())
    assert report.outcome is Outcome.UNCLEAR
    assert f"answers 200 and then more than {MAX_ANSWER_BYTES >> 20} MiB" in report.reason


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_drips_costs_a_bounded_time(produce: Any, store: Any, server: DicomwebServer, tls: bool) -> None:
    """In its header, or in the handshake of TLS, where every byte begins the time limit of a socket anew."""

    def drip(out: Any) -> None:
        out.write(b"HTTP/1.1 200 OK\r\n")
        while not server.released.wait(0.05):
            try:
                out.write(b"a")
                out.flush()
            except OSError:
                return

    produce(1)
    quick = Timeouts(connection_s=5, dimse_s=5, answers_s=0.4)
    if not tls:
        server.on_store = lambda asked: Told(raw=drip)
        report = StowSender(server.destination(), quick).send(store.derived())
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def handshake() -> None:
                connection, _ = listening.accept()
                with connection, connection.makefile("wb") as out:
                    out.write(b"\x16\x03\x03\x40\x00")
                    drip(out)

            threading.Thread(target=handshake, daemon=True).start()
            url = f"https://127.0.0.1:{listening.getsockname()[1]}/rs"
            report = StowSender(server.destination(url=url), quick).send(store.derived())
            server.released.set()
    assert report.outcome is Outcome.TRANSIENT
    assert "did not come to the end of an answer within 0 s" in report.reason


def test_a_server_that_is_silent_or_away_is_tried_again(
    produce: Any, store: Any, server: DicomwebServer, make_courier: Callable[[Timeouts], Courier]
) -> None:
    produce(1)
    server.on_store = lambda asked: Told(raw=lambda out: server.released.wait(10))
    make_courier(QUICK).run_once(server.destination())
    assert store.delivery().reason == f"{server.destination().url} did not answer within 0 s"
    assert store.peers.all()[0].failing_since is not None
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        report = StowSender(server.destination(url=url), PATIENT).send(store.derived())
    assert (report.outcome, report.reached) == (Outcome.TRANSIENT, False)
    assert report.reason == f"{url} cannot be reached: connection refused"


@pytest.mark.parametrize(
    ("told", "least_s", "most_s"),
    [
        (Told(503, headers={"Retry-After": "120"}), 120, 120),
        (Told(503, headers={"Retry-After": format_datetime(datetime.now(UTC) + timedelta(days=400))}), 900, 900),
        (Told(429, headers={"Retry-After": "soon"}), 0, 60),
        (Told(503, headers={"Retry-After": "-5"}), 0, 60),
        (Told(401), MISCONFIGURED_PAUSE_S / 2, MISCONFIGURED_PAUSE_S),
    ],
)
def test_a_server_is_left_alone_for_as_long_as_it_asks_within_bounds(
    produce: Any,
    store: Any,
    server: DicomwebServer,
    courier: Courier,
    clock: Clock,
    told: Told,
    least_s: int,
    most_s: int,
) -> None:
    produce(1)
    server.on_store = lambda asked: told
    courier.run_once(server.destination())
    assert least_s <= waits_s(store, clock) <= most_s


def test_a_file_that_is_not_the_one_that_was_produced_does_not_leave(
    produce: Any, store: Any, server: DicomwebServer, courier: Courier
) -> None:
    produce(2)
    (first, one), (second, other) = store.derived()
    sender = StowSender(server.destination(), PATIENT)
    report = sender.send([(first, other)])
    assert (report.outcome, report.reason) == (
        Outcome.PERMANENT,
        f"the file of instance {first} holds another instance",
    )
    one.write_bytes(one.read_bytes() + b"\0\0")
    courier.run_once(server.destination())
    assert store.delivery().reason == f"the file of instance {first} has other bytes than were produced"
    one.write_bytes(b"no DICOM")
    assert sender.send([(first, one)]).outcome is Outcome.PERMANENT
    assert sender.send([(second, other)], should_stop=lambda: True).outcome is Outcome.STOPPED
    assert server.asked == []


# -- questions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1000, 2])
def test_a_count_confirms(
    store: Any, produce: Any, server: DicomwebServer, courier: Courier, clock: Clock, page: int
) -> None:
    """Also where the server gives fewer answers at once than it is asked for."""
    produce(5)
    destination = server.destination(confirm="find")
    courier.run_once(destination)
    server.page, whole = page, dict(server.held)
    del server.held["1.9.107.5"]
    clock.now += timedelta(seconds=6)
    assert courier.confirm_once(destination) is True
    assert store.delivery().reason == "not confirmed yet: the peer lists 4 of 5 instances"
    server.held = whole
    clock.now += timedelta(seconds=60)
    assert courier.confirm_once(destination) is True
    assert store.delivery().state is DeliveryState.CONFIRMED


def endless_page(asked: Asked) -> Told:
    return Told(
        200, f'[{{"00080018": {{"Value": ["1.2.{len(asked.query["offset"])}{asked.query["offset"]}"]}}}}]'.encode()
    )


@pytest.mark.parametrize(
    ("on_search", "words"),
    [
        (lambda asked: Told(200, b"[]", JSON), "the peer lists 0 of 2 instances"),
        (lambda asked: Told(204), "the peer lists 0 of 2 instances"),
        (lambda asked: Told(200, b'[{"00080018": {"Value": ["1.9.107.1"]}}]', JSON), "the peer lists 1 of 2 instances"),
        (
            lambda asked: Told(200, b'[{"0020000E": {"Value": ["9"]}, "00080018": {"Value": ["1.9.107.1"]}}]', JSON),
            "the peer lists 0 of 2 instances",
        ),
        (endless_page, "comes to no end of its answers to a query"),
        (lambda asked: HTML, "answers a query with something that is no DICOM JSON"),
        (lambda asked: Told(200, b"[" * 100_000, JSON), "answers a query with something that is no DICOM JSON"),
        (lambda asked: Told(200, b"[3]", JSON), "answers a query with something that is no DICOM JSON"),
        (lambda asked: Told(200, b'{"00080018": 3}', JSON), "the peer lists 0 of 2 instances"),
        (lambda asked: Told(302, b"", {"Location": "/rs/studies"}), "is not followed"),
        (lambda asked: Told(409), "answers 409"),
    ],
)
def test_what_is_no_list_of_the_series_confirms_nothing(
    store: Any, produce: Any, server: DicomwebServer, courier: Courier, clock: Clock, on_search: Any, words: str
) -> None:
    produce(2)
    destination = server.destination(confirm="find")
    courier.run_once(destination)
    server.on_search = on_search
    clock.now += timedelta(seconds=6)
    courier.confirm_once(destination)
    assert store.delivery().state is DeliveryState.SENT
    assert words in store.delivery().reason


def person(name: str, patient_id: str = "CANARY-ID") -> dict[str, Any]:
    return {"00100010": element({"Alphabetic": name}), "00100020": element(patient_id), "00100030": {"vr": "DA"}}


def test_a_patient_that_is_somebody_else_there_gets_nothing(
    store: Any, produce: Any, server: DicomwebServer, courier: Courier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    produce(1)
    destination = server.destination(identity_check=True)
    server.patients = [person("CANARY^NAME"), person("SOMEBODY^ELSE", "CANARY-ID-2"), person("OTHER^NAME")]
    courier.run_once(destination)
    assert store.delivery().reason == (
        "tps knows the PatientID with another PatientName (in 1 of 2 studies): compare the patient there with the scan"
    )
    assert server.asked[0].query["PatientID"] == "CANARY-ID"
    assert not server.held
    assert "CANARY" not in caplog.text


def test_a_patient_who_is_the_same_there_or_unknown_is_sent(
    store: Any, produce: Any, server: DicomwebServer, courier: Courier
) -> None:
    produce(1)
    server.patients = [person("Canary^Name"), person("SOMEBODY^ELSE", "CANARY-ID-2")]
    courier.run_once(server.destination(identity_check=True))
    assert store.delivery().state is DeliveryState.SENT


def test_a_server_is_asked_whether_it_is_there_without_a_patient(
    store: Any, server: DicomwebServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    probe = Probe(store.peers, [server.destination()], "SYNCECT", clock=clock)
    probe.tick()
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.query["limit"]) == ("GET", "/rs/studies", "1")
    assert asked.query["StudyInstanceUID"].startswith("2.25.")
    assert asked.headers["Host"] == f"127.0.0.1:{server.port}"
    assert store.peers.all()[0].failing_since is None
    result = StowSender(server.destination(), PATIENT).echo()
    assert (result.ok, result.detail) == (True, "answers a query by QIDO-RS")
    server.on_search = lambda asked: Told(401)
    refused = StowSender(server.destination(), PATIENT).echo()
    assert not refused.ok
    assert refused.latency_s > 0
    clock.now += timedelta(minutes=6)
    probe.tick()
    assert "does not answer as it should" in caplog.text


def test_nothing_of_a_request_reaches_a_log(server: DicomwebServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.on_search = lambda asked: Told(200, b"[]", {"Warning": '299 rs "CANARY more"'})
    with connect(server.destination(), PATIENT) as service:
        assert service.search_studies({"PatientID": "CANARY"}, 1, 0) == []
        server.on_search = lambda asked: Told(500)
        with pytest.raises(NoAnswer):
            service.search_studies({"PatientID": "CANARY"}, 1, 0)
    assert caplog.records == []

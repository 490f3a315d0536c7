"""A known peer works undisturbed while others crowd the receiver: every C-ECHO within a second, and one CT stored.

The attackers and the known peer have processes of their own; see `attackers` and `known_peer`. A short form runs with
every test run. `make abuse` runs the long form, with the numbers of a real attack.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.attackers import attack
from tests.peers.known_peer import Experience, watch
from tests.peers.measures import KNOWN, wait_until
from tests.peers.raw_peer import NOT_RECOGNIZED

LONG = os.environ.get("SYNCECT_ABUSE") == "long"
SECONDS = 40 if LONG else 2.5
EVERY_S = 1.0 if LONG else 0.25
OPEN_FILES = 2048  # the largest crowd has 520 connections

OWN_ADDRESS = ["127.0.0.1"]
FOUR_OTHER_ADDRESSES = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux has every address of 127.0.0.0/8 on its loopback"),
    pytest.mark.timeout(600),
]

Works = Callable[..., Experience]


@pytest.fixture(autouse=True)
def _open_files() -> Iterator[None]:
    """As many open files as the crowd needs; the attackers inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if hard != unlimited and hard < OPEN_FILES:
        pytest.skip(f"this system allows a process {hard} open files, {OPEN_FILES} are needed")
    if soft != unlimited and soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    """A receiver that fails its test must not slow the next one with threads that still work off the attack."""
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.fixture
def works_undisturbed(
    store: Any, make_ct: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Works:
    """Run the known peer against a port and check what it is promised; keywords go to `watch`."""
    ct = make_ct()
    ct.file_meta.MediaStorageSOPClassUID, ct.file_meta.MediaStorageSOPInstanceUID = ct.SOPClassUID, ct.SOPInstanceUID
    ct.save_as(tmp_path / "ct.dcm", enforce_file_format=True)

    def check(port: int, *, seconds: float = SECONDS, **options: Any) -> Experience:
        seen = watch(port, tmp_path / "ct.dcm", echoes=round(seconds / EVERY_S), every_s=EVERY_S, **options)
        for name, value in (("worst_s", seen.worst_s), ("p99_s", seen.p99_s), ("failed", len(seen.failures))):
            record_property(name, value)
        print(f"{len(seen.echoes_s)} echoes, worst {seen.worst_s:.3f} s, 99th percentile {seen.p99_s:.3f} s")  # noqa: T201
        assert seen.failures == []
        assert seen.worst_s < 1
        assert seen.store_status == 0x0000
        assert [row.sop_instance_uid for row in store.instances()] == [ct.SOPInstanceUID]
        return seen

    return check


@pytest.mark.parametrize(
    ("count", "sources"),
    [(50, OWN_ADDRESS), (300, OWN_ADDRESS), (300, FOUR_OTHER_ADDRESSES)],
    ids=["50 from the peer's own address", "300 from the peer's own address", "300 from four other addresses"],
)
def test_a_known_peer_works_beside_idle_connections(
    start_receiver: Any, works_undisturbed: Works, count: int, sources: list[str]
) -> None:
    receiver = start_receiver(allowed_peers=[KNOWN])
    before = threading.active_count()
    with attack("idle", receiver.port, count=count, sources=sources):
        works_undisturbed(receiver.port)
        assert threading.active_count() - before <= 150  # many for 25 places, far fewer than a thread for each


def test_a_known_peer_works_while_13_idle_connections_arrive_a_second(
    start_receiver: Any, works_undisturbed: Works
) -> None:
    receiver = start_receiver(allowed_peers=[KNOWN])
    with attack("arriving", receiver.port, per_s=13, sources=OWN_ADDRESS) as seen:
        works_undisturbed(receiver.port, seconds=40 if LONG else 6)
    assert seen["opened"] > 13 * (20 if LONG else 3)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_a_known_peer_gets_in_beside_the_associations_of_another_peer(
    start_receiver: Any, works_undisturbed: Works, source: str
) -> None:
    """The other peer is known too, and tries to hold twice as many associations as there are places."""
    other = {"ae_title": "OTHER", "host": source}
    receiver = start_receiver(allowed_peers=[KNOWN, other], max_associations=25)
    crowd = {"silent": 25, "echoing": 25, "every_s": 20.0 if LONG else 1.0}
    with attack("associations", receiver.port, calling="OTHER", source=source, **crowd) as seen:
        works_undisturbed(receiver.port)
    assert seen["accepted"] > 0


def test_a_known_peer_works_beside_idle_tls_handshakes(
    start_receiver: Any, works_undisturbed: Works, certificates: Any
) -> None:
    """Stock: one connection without a handshake stops every TLS association."""
    tls = certificates.settings()
    receiver = start_receiver(allowed_peers=[KNOWN], tls=tls)
    half_a_client_hello = "16030102000100"
    with (
        attack("idle", receiver.port, count=25, sources=OWN_ADDRESS),
        attack("idle", receiver.port, count=25, sources=OWN_ADDRESS, greeting=half_a_client_hello),
    ):
        works_undisturbed(receiver.port, tls={name: str(path) for name, path in tls})


def test_a_known_peer_works_beside_endlessly_nested_data_sets(
    start_receiver: Any, store: Any, works_undisturbed: Works
) -> None:
    other = {"ae_title": "OTHER", "host": "127.0.0.1"}
    receiver = start_receiver(allowed_peers=[KNOWN, other])
    data_sets = {"associations": 4, "megabytes": 200 if LONG else 8, "answer_s": 240.0 if LONG else 30.0}
    with attack("nested", receiver.port, calling="OTHER", end_s=300.0, **data_sets) as seen:
        works_undisturbed(receiver.port)
    assert len(seen["ends"]) >= 4
    assert not {"unanswered", "0000"} & set(seen["ends"])
    wait_until(lambda: store.unfinished() == [])
    assert len(store.received()) == 1


def test_a_known_peer_works_while_a_stranger_asks_for_associations_all_the_time(
    start_receiver: Any, works_undisturbed: Works, record_property: Callable[[str, object], None]
) -> None:
    """Every request proposes 128 presentation contexts, which a stock server reads before it rejects."""
    receiver = start_receiver(allowed_peers=[KNOWN])
    with attack("requests", receiver.port, calling="STRANGER", per_s=700 if LONG else None) as seen:
        works_undisturbed(receiver.port, seconds=40 if LONG else 3)
    record_property("requests_per_s", seen["per_s"])
    print(f"{seen['per_s']:.0f} association requests a second: {seen['seen']}")  # noqa: T201
    assert set(seen["seen"]) <= {f"03H {NOT_RECOGNIZED}", "closed"}

"""Asking a peer how many images a series has: with a number, with a list, with nothing, and with nobody there."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from config.settings import AskedPeer, Settings
from node.bootstrap.roles import expected_counts
from node.network.no_association import NoAssociation
from node.network.query import count_instances
from node.network.requestor import Timeouts
from node.receive.expected import Expectation, ExpectedCounts
from tests.builders import make_series
from tests.slice.harness import Orthanc, push

QUICK = Timeouts(connection_s=2, acse_s=2, dimse_s=5, send_s=2)
STUDY, SERIES = "1.2", "1.8"


def count(peer: Any, series_uid: str = SERIES, study_uid: str = STUDY) -> int:
    return count_instances(peer, "SYNCECT", study_uid, series_uid, QUICK)


@pytest.mark.parametrize(
    ("number", "listed", "expected"),
    [(120, [], 120), ("7", ["1.9.1"], 7), (0, [], 0), (None, ["1.9.1", "1.9.2"], 2), (None, [], 0)],
    ids=["a number", "a number that is not that of its list", "zero", "no number but a list", "unknown there"],
)
def test_a_peer_is_asked_for_the_number_and_else_for_a_list(
    make_tps: Callable[..., Any], number: object, listed: list[str], expected: int
) -> None:
    tps = make_tps()
    tps.listed, tps.counted = lambda: listed, lambda: number
    assert count(tps.destination()) == expected
    assert tps.associations == 1


def test_a_uid_beyond_the_standard_is_asked_for_as_it_is(make_tps: Callable[..., Any]) -> None:
    tps = make_tps()
    tps.counted = lambda: 3
    assert count(tps.destination(), "1." + "2" * 65, "1.2.003") == 3


def test_nobody_there_is_told(make_tps: Callable[..., Any], free_port: int) -> None:
    with pytest.raises(NoAssociation):
        count(make_tps(running=False).destination(port=free_port))


def test_orthanc_counts_what_it_holds(tmp_path: Path) -> None:
    files = make_series(tmp_path / "scan", slices=9)
    first = dcmread(files[0], stop_before_pixels=True)
    orthanc = Orthanc(tmp_path / "orthanc")
    try:
        peer = AskedPeer(ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.port)
        assert count(peer, str(first.SeriesInstanceUID), str(first.StudyInstanceUID)) == 0
        assert push(orthanc.port, files[:5]).returncode == 0
        assert count(peer, str(first.SeriesInstanceUID), str(first.StudyInstanceUID)) == 5
    finally:
        orthanc.stop()


# -- from the settings -------------------------------------------------------------------------------------------------


def told(counts: ExpectedCounts) -> Expectation:
    """The answer, once it is there."""
    pause = threading.Event()
    for _ in range(500):
        answer = counts.of(STUDY, SERIES)
        if not answer.is_open:
            return answer
        pause.wait(0.02)
    pytest.fail("no answer came")


@pytest.mark.parametrize("by_name", [True, False])
def test_a_destination_or_a_peer_of_its_own_is_asked(make_tps: Callable[..., Any], by_name: bool) -> None:
    tps = make_tps()
    tps.counted = lambda: 12
    peer = tps.destination()
    source = "tps" if by_name else AskedPeer(ae_title="TPS", host="127.0.0.1", port=tps.port)
    settings = Settings.model_validate({"completion": {"count_from": source}, "destination": [peer]})
    counts = expected_counts(settings)
    assert counts is not None
    assert counts.peer_name == ("the destination tps" if by_name else "the peer TPS")
    assert told(counts) == Expectation(12, is_open=False)


def test_a_peer_that_is_down_holds_nothing_up(make_tps: Callable[..., Any], free_port: int) -> None:
    peer = AskedPeer(ae_title="PACS", host="127.0.0.1", port=free_port)
    counts = expected_counts(Settings.model_validate({"completion": {"count_from": peer}}))
    assert counts is not None
    assert told(counts) == Expectation(None, is_open=False)


def test_nobody_is_asked_without_the_setting() -> None:
    assert expected_counts(Settings()) is None

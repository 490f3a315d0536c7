"""Asking a peer how many images a series has must make nobody wait for the peer."""

import threading
from collections.abc import Callable

import pytest

from node.network.no_association import NoAssociation, Outcome
from node.receive import expected
from node.receive.expected import Expectation, ExpectedCounts

DEAD = NoAssociation(Outcome.TRANSIENT, "it does not answer")
WAIT_S = 10.0


class Peer:
    """A peer whose answers are given by the test, and a clock that stands."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.asked: list[str] = []
        self.answers: dict[str, int | Exception] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.told = threading.Condition()
        self.counts = ExpectedCounts("the peer PACS", self.count, clock_s=lambda: self.now_s)

    def count(self, _study_uid: str, series_uid: str) -> int:
        self.asked.append(series_uid)
        assert self.gate.wait(WAIT_S)
        answer = self.answers.get(series_uid, 0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def of(self, series_uid: str) -> Expectation:
        return self.counts.of("1.2", series_uid)

    def settled(self, series_uid: str) -> Expectation:
        """What is known once the thread has nothing more to ask."""
        self.of(series_uid)
        self.wait_for(lambda: not self.counts._questions[series_uid].is_open)
        return self.of(series_uid)

    def wait_for(self, probe: Callable[[], bool]) -> None:
        deadline = threading.Event()
        for _ in range(2000):
            if probe():
                return
            deadline.wait(WAIT_S / 2000)
        pytest.fail("the answer did not come")


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_the_first_question_is_open_and_its_answer_is_told(peer: Peer) -> None:
    peer.answers["1"] = 120
    peer.gate.clear()
    assert peer.of("1") == Expectation(None, is_open=True)
    peer.gate.set()
    assert peer.settled("1") == Expectation(120, is_open=False)


@pytest.mark.parametrize("answer", [0, DEAD, ValueError("unreadable")], ids=["unknown there", "dead", "an error"])
def test_without_a_number_the_series_goes_on(peer: Peer, answer: int | Exception) -> None:
    peer.answers["1"] = answer
    assert peer.settled("1") == Expectation(None, is_open=False)


def test_a_series_is_asked_for_again_after_a_while_only(peer: Peer) -> None:
    peer.answers["1"] = 100
    peer.settled("1")
    peer.now_s = expected.ASK_AGAIN_S - 1
    peer.of("1")
    assert peer.asked == ["1"]
    peer.now_s, peer.answers["1"] = expected.ASK_AGAIN_S + 1, 120
    assert peer.of("1").is_open
    peer.wait_for(lambda: not peer.counts._questions["1"].is_open)
    assert peer.of("1") == Expectation(120, is_open=False)
    assert peer.asked == ["1", "1"]


def test_a_dead_peer_is_asked_once_for_all_series_until_a_while_has_passed(peer: Peer) -> None:
    peer.answers["1"] = DEAD
    peer.settled("1")
    assert [peer.of(uid) for uid in "234"] == [Expectation(None, is_open=False)] * 3
    assert peer.asked == ["1"]
    peer.now_s, peer.answers["2"] = expected.LEFT_ALONE_S + 1, 7
    assert peer.settled("2") == Expectation(7, is_open=False)


def test_no_series_waits_for_ever_for_an_answer(peer: Peer) -> None:
    peer.gate.clear()
    peer.of("1")
    peer.now_s = expected.LONGEST_QUESTION_S + 1
    assert peer.of("1") == Expectation(None, is_open=False)
    peer.gate.set()


def test_series_that_wait_behind_a_dead_peer_cost_no_further_time_out(peer: Peer) -> None:
    peer.gate.clear()
    peer.answers = {uid: DEAD for uid in "123"}
    for uid in "123":
        assert peer.of(uid).is_open
    peer.gate.set()
    peer.wait_for(lambda: not any(question.is_open for question in peer.counts._questions.values()))
    assert peer.asked == ["1"]

"""What the node knows to be missing, what it throws away and how long senders pause, on SQLite and PostgreSQL alike."""

from datetime import UTC, datetime, timedelta

import pytest

from storage import losses
from storage.overview import Overview
from storage.series import Arrival, Discard, JobRequest, Loss, Pause, SeriesFacts, SeriesStore

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
CT = "1.2.840.10008.5.1.4.1.1.2"


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class Bench:
    """A store, and the usual ways in which instances come, are lost or are thrown away."""

    def __init__(self, database):
        self.series, self.overview = SeriesStore(database), Overview(database)

    def open(self, *, now=T0, ae="CTSIM"):
        return self.series.open_association("receiver", ae, "10.0.0.1", now)

    def close(self, association, *, now=T0, released=True):
        self.series.close_association(association, released=released, now=now)

    def arrive(self, association, *numbers, series="1.2.3", now=T0, ae="CTSIM"):
        for number in numbers:
            uid = f"1.2.3.{number}"
            digest = f"{number}".ljust(64, "0")
            arrival = Arrival("1.2", series, uid, CT, "1.2.840.10008.1.2.1", digest, f"received/{series}{uid}", 9)
            self.series.record(association, ae, arrival, now)

    def record(self, entry):
        (answer,) = self.series.record_group([entry])
        if isinstance(answer, BaseException):
            raise answer

    def lose(self, association, number, *, series="1.2.3", uid=None, reason="refused", now=T0):
        uid = f"1.2.3.{number}" if uid is None else uid
        self.record(Loss(association, "CTSIM", "1.2", series, uid, reason, now))

    def discard(self, association, *, series="1.2.3", why="RT Plan Storage: nothing is kept", now=T0):
        self.record(Discard(association, "CTSIM", "1.2", series, why, now))

    def missing(self, *, now=None):
        (series,) = self.series.undecided(now or at(60), 5.0)
        return [one.sop_instance_uid for one in series.missing]

    def queue(self, now):
        (series,) = self.series.undecided(now, 5.0)
        return self.series.queue(series, SeriesFacts("", ""), JobRequest("k".ljust(64, "0"), "demo"), now)


@pytest.fixture
def bench(database):
    return Bench(database)


# -- losses ------------------------------------------------------------------------------------------------------


def test_a_refused_instance_is_missing_until_it_came_in_any_association(bench):
    first = bench.open()
    bench.arrive(first, 1, 2)
    bench.lose(first, 3)
    bench.close(first)
    assert bench.missing() == ["1.2.3.3"]
    second = bench.open()
    bench.arrive(second, 3)
    bench.close(second)
    assert bench.missing() == []


def test_a_refused_copy_of_an_instance_that_is_here_is_no_loss(bench):
    association = bench.open()
    bench.arrive(association, 1)
    bench.lose(association, 1)
    bench.close(association)
    assert bench.missing() == []


def test_a_series_of_which_nothing_came_has_a_row_and_an_event(bench):
    association = bench.open()
    bench.lose(association, 1, reason="refused with status A700 (full)")
    bench.close(association)
    (case,) = bench.overview.cases()
    assert (case.state, case.series_uid, case.calling_ae, case.slices.received) == ("RECEIVING", "1.2.3", "CTSIM", 0)
    assert bench.missing() == ["1.2.3.1"]
    reasons = [event.reason for event in bench.overview.events(case)]
    assert "instance 1.2.3.1 was refused with status A700 (full)" in reasons


def test_an_instance_of_an_unknown_series_may_belong_to_every_series_of_its_association(bench):
    first, other = bench.open(), bench.open()
    bench.arrive(first, 1)
    bench.arrive(first, 5, series="1.2.4")
    bench.arrive(other, 7, series="1.2.5")
    bench.lose(first, 9, series="")
    for association in (first, other):
        bench.close(association)
    found = {one.series_uid: len(one.missing) for one in bench.series.undecided(at(60), 5.0)}
    assert found == {"1.2.3": 1, "1.2.4": 1, "1.2.5": 0}
    again = bench.open()
    bench.arrive(again, 9, now=at(1))
    bench.close(again)
    assert all(not one.missing for one in bench.series.undecided(at(60), 5.0))


@pytest.mark.parametrize("uid", ["?0123456789abcdef", "1" * 64, "1.2.003"])
def test_an_instance_of_any_name_is_counted_once_however_often_it_is_refused(bench, uid):
    association = bench.open()
    bench.arrive(association, 1)
    for second in range(3):
        bench.lose(association, 0, uid=uid, now=at(second))
    bench.close(association)
    assert bench.missing() == [uid]


def test_a_loss_makes_a_decision_stale_and_reopens_what_was_decided_with_its_job_alive(bench):
    association = bench.open()
    bench.arrive(association, 1)
    bench.close(association)
    (seen,) = bench.series.undecided(at(10), 5.0)
    bench.lose(association, 2, now=at(10))
    assert not bench.series.queue(seen, SeriesFacts("", ""), JobRequest("k".ljust(64, "0"), "demo"), at(11))
    assert bench.queue(at(20))
    bench.lose(association, 3, now=at(30))
    assert [(case.id, case.state) for case in bench.overview.cases()] == [("1-2", "RECEIVING"), ("1", "QUEUED")]


def test_a_person_who_vouches_for_a_series_ends_the_waiting(bench):
    association = bench.open()
    bench.arrive(association, 1)
    bench.lose(association, 2)
    bench.close(association)
    (series,) = bench.series.undecided(at(10), 5.0)
    assert bench.series.hold_incomplete(series, "missing", at(10))
    bench.series.complete_by_operator(series.id, "operator", "checked", at(20))
    assert bench.missing() == []


def test_losses_do_not_fill_the_database(bench, monkeypatch):
    monkeypatch.setattr(losses, "MAX_ROWS", 3)
    monkeypatch.setattr(losses, "MAX_EVENTS", 2)
    association = bench.open()
    for number in range(6):
        bench.lose(association, number)
    bench.close(association)
    assert bench.missing() == ["1.2.3.3", "1.2.3.4", "1.2.3.5"]
    (case,) = bench.overview.cases()
    assert sum("refused" in event.reason for event in bench.overview.events(case)) == 2


# -- what is thrown away -----------------------------------------------------------------------------------------


def test_a_series_of_which_nothing_is_kept_is_skipped_at_once_and_counts_on(bench):
    association = bench.open()
    for _ in range(3):
        bench.discard(association)
    (case,) = bench.overview.cases()
    assert (case.state, case.reason) == ("SKIPPED", "RT Plan Storage: nothing is kept (3 instances)")
    assert case.slices.received == 3
    states = [event.to_state for event in bench.overview.events(case)]
    assert states == ["RECEIVING", "COMPLETE", "SKIPPED"]


@pytest.mark.parametrize("first", ["image", "plan"])
def test_a_series_with_images_is_judged_on_its_images(bench, first):
    association = bench.open()
    if first == "plan":
        bench.discard(association)
    bench.arrive(association, 1, 2)
    bench.discard(association, now=at(1))
    bench.close(association)
    (series,) = bench.series.undecided(at(60), 5.0)
    assert series.instances == (4 if first == "plan" else 3)
    assert bench.queue(at(60))
    bench.discard(association, now=at(70))
    (case,) = bench.overview.cases()
    assert (case.state, case.slices.received) == ("QUEUED", 2)


def test_a_refused_image_is_waited_for_beside_what_is_thrown_away(bench):
    association = bench.open()
    bench.lose(association, 1)
    bench.discard(association)
    bench.close(association)
    assert bench.overview.cases()[0].state == "RECEIVING"
    assert bench.missing() == ["1.2.3.1"]


# -- pauses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pauses", "wait_s"),
    [([(8, 0)], 16), ([(8, 0), (3, 5)], 16), ([(3, 0), (8, 5)], 16), ([(100, 0)], 120), ([], 0)],
    ids=["one", "a shorter one", "a longer one", "no longer than two minutes", "none"],
)
def test_a_series_waits_twice_the_longest_pause_of_its_sender(bench, pauses, wait_s):
    for pause_s, second in pauses:
        bench.record(Pause("CTSIM", pause_s, at(second)))
    association = bench.open()
    bench.arrive(association, 1)
    other = bench.open(ae="OTHER")
    bench.arrive(other, 5, series="1.2.4", ae="OTHER")
    found = {one.series_uid: one.wait_s for one in bench.series.undecided(at(60), 5.0)}
    assert found == {"1.2.3": wait_s, "1.2.4": 0}


def test_a_pause_is_forgotten_after_30_days(bench):
    month = 31 * 86400
    bench.record(Pause("CTSIM", 20, T0))
    association = bench.open()
    bench.arrive(association, 1, now=at(month))
    assert [one.wait_s for one in bench.series.undecided(at(month + 10), 5.0)] == [0]
    bench.record(Pause("CTSIM", 4, at(month)))
    assert [one.wait_s for one in bench.series.undecided(at(month + 10), 5.0)] == [8]


# -- what the listing shows before a decision ----------------------------------------------------------------------


def test_a_series_is_named_while_it_is_received(bench):
    association = bench.open()
    bench.arrive(association, 1, 2)
    bench.discard(association, series="1.2.9")
    ((series_id, name),) = bench.series.nameless()
    assert name == "received/1.2.31.2.3.1"
    bench.series.note_facts(series_id, SeriesFacts("Thorax", "P1"))
    assert bench.series.nameless() == []
    assert [(case.description, case.patient_id) for case in bench.overview.cases()][-1] == ("Thorax", "P1")


def test_what_was_replaced_and_what_a_peer_counts_is_kept(bench):
    association = bench.open()
    bench.arrive(association, 1)
    other = Arrival("1.2", "1.2.3", "1.2.3.1", CT, "1.2.840.10008.1.2.1", "f" * 64, "received/other", 9)
    bench.series.record(association, "CTSIM", other, T0)
    assert bench.series.replaced(1) == ["received/1.2.31.2.3.1"]
    bench.series.note_expected(1, 120)
    assert [(one.expected, one.instances) for one in bench.series.undecided(at(60), 5.0)] == [(120, 1)]


def test_a_series_that_came_again_as_a_whole_is_the_last_word_of_its_sender(bench):
    def other_contents(number, now):
        arrival = Arrival("1.2", "1.2.3", f"1.2.3.{number}", CT, "1.2.840.10008.1.2.1", "f" * 64, "received/other", 9)
        bench.series.record(association, "CTSIM", arrival, now)

    association = bench.open()
    bench.arrive(association, 1, 2, 3)
    other_contents(2, at(1))
    assert bench.series.replaced(1) == ["received/1.2.31.2.3.2"]
    bench.arrive(association, 2, now=at(2))
    assert bench.series.replaced(1) == ["received/other"]
    bench.arrive(association, 1, 2, 3, now=at(3))
    assert bench.series.replaced(1) == []
    other_contents(2, at(4))
    assert bench.series.replaced(1) == ["received/1.2.31.2.3.2"]


def test_an_association_beside_one_that_broke_off_does_not_stand_for_it(bench):
    def ended_badly():
        (series,) = bench.series.undecided(at(60), 5.0)
        return series.ended_badly

    broken, beside = bench.open(), bench.open(ae="OTHER")
    bench.arrive(broken, 1)
    bench.arrive(beside, 2, ae="OTHER")
    bench.close(broken, now=at(1), released=False)
    bench.close(beside, now=at(2))
    assert ended_badly()
    again = bench.open(now=at(3))
    bench.arrive(again, 1, 3, now=at(3))
    bench.close(again, now=at(4))
    assert not ended_badly()


def test_an_association_that_goes_on_with_another_series_is_not_silent(bench):
    def quiet_for_s(now):
        return {one.series_uid: one.association_quiet_for_s for one in bench.series.undecided(now, 5.0)}

    association = bench.open()
    bench.arrive(association, 1)
    bench.arrive(association, 1, series="1.2.4", now=at(300))
    assert quiet_for_s(at(310)) == {"1.2.3": 10.0, "1.2.4": 10.0}
    bench.close(association, now=at(310))
    assert quiet_for_s(at(310)) == {"1.2.3": float("inf"), "1.2.4": float("inf")}

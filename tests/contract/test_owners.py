"""A series belongs to the peer that stored its first instance, on SQLite and PostgreSQL alike."""

from datetime import UTC, datetime, timedelta

import pytest

from storage.errors import IllegalTransition, NotFound
from storage.jobs import JobStore
from storage.overview import Overview
from storage.owners import Credentials
from storage.series import (
    Arrival,
    Discard,
    JobRequest,
    Loss,
    Receipt,
    Recorded,
    SeriesFacts,
    SeriesStore,
)
from tests.contract.store_bench import arrival

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
OWNER, OTHER = "CTSIM", "WORKSTATION"
CERTIFICATE, ANOTHER = "a" * 64, "b" * 64


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class Bench:
    """A store into which two peers send one series."""

    def __init__(self, database):
        self.series, self.jobs, self.overview = SeriesStore(database), JobStore(database), Overview(database)

    def record(self, entry):
        (answer,) = self.series.record_group([entry])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def send(self, ae, *numbers, content="a", hold=False, certificate="", bound=False, now=T0, released=True):
        """What became of each instance; the association is closed afterwards."""
        association = self.series.open_association("receiver", ae, "10.0.0.1", now)
        shown = Credentials("10.0.0.1", certificate, bound)
        answers = [
            self.record(Receipt(association, ae, arrival(number, content=content), now, shown, hold))
            for number in numbers
        ]
        self.series.close_association(association, released=released, now=now)
        return answers

    def lose(self, ae, number, *, now=T0):
        association = self.series.open_association("receiver", ae, "10.0.0.1", now)
        self.record(Loss(association, ae, "1.2", "1.2.3", f"1.2.3.{number}", "refused", now, Credentials("10.0.0.9")))
        self.series.close_association(association, released=False, now=now)

    def discard(self, ae, *, now=T0):
        association = self.series.open_association("receiver", ae, "10.0.0.1", now)
        return self.record(Discard(association, ae, "1.2", "1.2.3", "RT Plan", now, Credentials("10.0.0.9")))

    def waiting(self, now=None):
        (series,) = self.series.undecided(now or at(1000), 5.0)
        return series

    def queue(self, key="k"):
        return self.series.queue(self.waiting(), SeriesFacts("", ""), JobRequest(key.ljust(64, "0"), "demo"), at(20))

    def case(self, case_id="1"):
        return self.overview.case(case_id)

    def reasons(self, case_id="1"):
        return [event.reason for event in self.overview.events(self.case(case_id))]

    def names(self):
        return sorted(self.series.spool_names(1))


@pytest.fixture
def bench(database):
    return Bench(database)


# -- refuse ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 9], ids=["another content of a slice", "a slice more"])
@pytest.mark.parametrize("state", ["RECEIVING", "INCOMPLETE", "QUEUED", "SKIPPED"])
def test_another_peer_changes_nothing_of_a_series_in_any_state(bench, number, state):
    bench.send(OWNER, 1, 2)
    decide = {
        "RECEIVING": lambda: None,
        "INCOMPLETE": lambda: bench.series.hold_incomplete(bench.waiting(), "a gap", at(20)),
        "QUEUED": bench.queue,
        "SKIPPED": lambda: bench.series.skip(bench.waiting(), SeriesFacts("", ""), "a scout", at(20)),
    }
    decide[state]()
    before = bench.case()
    assert bench.send(OTHER, number, content="x", now=at(30), released=False) == [Recorded.FOREIGN]
    assert bench.case() == before
    assert bench.names() == ["received/1.2.3-1-a", "received/1.2.3-2-a"]
    assert bench.reasons()[-1] == ("WORKSTATION at 10.0.0.1 was refused an instance; the series belongs to CTSIM")
    if state == "RECEIVING":
        series = bench.waiting()
        assert (series.missing, series.ended_badly, series.arrivals, series.quiet_for_s) == ((), False, 2, 1000)


def test_the_same_bytes_from_another_peer_are_a_duplicate_and_hold_nothing_up(bench):
    bench.send(OWNER, 1, 2)
    assert bench.send(OTHER, 1, now=at(30), released=False) == [Recorded.DUPLICATE]
    assert (bench.waiting().arrivals, bench.waiting().ended_badly, bench.waiting().quiet_for_s) == (2, False, 1000)
    assert "WORKSTATION at 10.0.0.1 sent instances again that are here already" in bench.reasons()[-1]
    assert bench.series.owner(1).others == {}


def test_the_rest_of_an_incomplete_series_comes_from_its_owner_alone(bench):
    bench.send(OWNER, 1)
    bench.series.hold_incomplete(bench.waiting(), "a gap", at(20))
    assert bench.send(OTHER, 2) == [Recorded.FOREIGN]
    assert bench.case().state == "INCOMPLETE"
    assert bench.send(OWNER, 2) == [Recorded.NEW]
    assert bench.case().state == "RECEIVING"


def test_what_another_peer_loses_or_sends_of_another_class_is_nothing_to_the_series(bench):
    bench.send(OWNER, 1)
    bench.lose(OTHER, 2, now=at(30))
    assert bench.discard(OTHER, now=at(30)) is Recorded.FOREIGN
    series = bench.waiting()
    assert (series.missing, series.arrivals, series.quiet_for_s, series.instances) == ((), 1, 1000, 1)
    assert not series.association_open
    told = bench.reasons()
    assert "WORKSTATION at 10.0.0.9 failed to send an instance; the series belongs to CTSIM" in told
    assert "WORKSTATION at 10.0.0.9 sent what is no CT image for it; the series belongs to CTSIM" in told


def test_events_about_other_peers_are_bounded(bench):
    bench.send(OWNER, 1)
    for number in range(40):
        bench.send(f"PEER{number}", 2)
        bench.send(f"PEER{number}", 3)
    assert sum("was refused" in reason for reason in bench.reasons()) == 20


def test_every_series_of_a_study_may_have_another_sender(bench):
    for number, ae in enumerate((OWNER, OTHER)):
        association = bench.series.open_association("receiver", ae, "h", T0)
        uids = ("1.2", f"1.2.3.{number}", "1.9", "c", "t")
        one = Arrival(*uids, "0" * 64, f"received/{number}", 1)
        assert bench.series.record(association, ae, one, T0) is Recorded.NEW
    assert [case.calling_ae for case in bench.overview.cases()] == [OTHER, OWNER]


def test_who_stored_nothing_owns_nothing(bench):
    """A refused or discarded first instance locks the sender of the scan not out."""
    bench.lose(OTHER, 1)
    assert bench.send(OWNER, 1) == [Recorded.NEW]
    assert bench.case().calling_ae == OWNER
    assert "the series belongs to CTSIM now; of WORKSTATION nothing is kept" in bench.reasons()
    assert bench.send(OTHER, 1, content="x") == [Recorded.FOREIGN]


def test_what_others_lost_before_somebody_owned_the_series_holds_nothing_up(bench):
    bench.lose(OTHER, 7)
    bench.lose("THIRD", 8)
    bench.send(OWNER, 1)
    series = bench.waiting()
    assert (series.missing, series.ended_badly) == ((), False)


def test_who_sent_another_class_owns_nothing(bench):
    assert bench.discard(OTHER) is Recorded.NEW
    assert bench.send(OWNER, 1) == [Recorded.NEW]
    assert (bench.case().state, bench.case().calling_ae) == ("RECEIVING", OWNER)


# -- certificates ------------------------------------------------------------------------------------------------------


def test_the_same_title_with_another_certificate_is_another_peer(bench):
    bench.send(OWNER, 1, certificate=CERTIFICATE)
    assert bench.send(OWNER, 2, certificate=CERTIFICATE) == [Recorded.NEW]
    for hold in (False, True):  # its instances could not be told from the owner's
        assert bench.send(OWNER, 3, certificate=ANOTHER, hold=hold) == [Recorded.FOREIGN]
    assert bench.reasons()[-1].startswith("CTSIM with another certificate at 10.0.0.1 was refused an instance")
    assert bench.series.owner(1).certificate == CERTIFICATE


def test_a_title_that_the_settings_bind_may_change_its_certificate(bench):
    bench.send(OWNER, 1, certificate=CERTIFICATE)
    assert bench.send(OWNER, 2, certificate=ANOTHER, bound=True) == [Recorded.NEW]
    assert bench.series.owner(1).certificate == ANOTHER
    assert bench.send(OWNER, 3, certificate=CERTIFICATE) == [Recorded.FOREIGN]


def test_a_series_that_began_without_tls_goes_on_with_it(bench):
    bench.send(OWNER, 1)
    assert bench.send(OWNER, 2, certificate=CERTIFICATE) == [Recorded.NEW]
    assert bench.series.owner(1).certificate == CERTIFICATE


# -- hold --------------------------------------------------------------------------------------------------------------


def test_what_another_peer_adds_becomes_part_of_the_series_and_a_person_is_asked(bench):
    bench.send(OWNER, 1, 2)
    bench.queue()
    assert bench.send(OTHER, 3, 4, hold=True, now=at(30)) == [Recorded.NEW] * 2
    assert bench.case("1").state == "SUPERSEDED"
    assert bench.queue("l")
    assert bench.case("1-2").doubt == (
        "the series belongs to CTSIM, but 2 instances of it came from WORKSTATION: "
        "`syncect jobs drop 1 --from WORKSTATION` judges it without them"
    )
    assert bench.series.owner(1).others == {OTHER: 2}
    assert bench.case("1-2").calling_ae == OWNER


def test_another_peer_replaces_its_own_instance_and_never_one_of_the_owner(bench):
    bench.send(OWNER, 1)
    bench.send(OTHER, 2, hold=True)
    assert bench.send(OTHER, 1, content="x", hold=True) == [Recorded.FOREIGN]
    assert bench.send(OTHER, 2, content="y", hold=True) == [Recorded.REPLACED]
    assert bench.send("THIRD", 2, content="z", hold=True) == [Recorded.FOREIGN]
    assert bench.names() == ["received/1.2.3-1-a", "received/1.2.3-2-y"]
    assert bench.series.replaced(1) == []  # nothing of the owner was


def test_what_the_owner_sends_replaces_what_another_peer_added(bench):
    bench.send(OWNER, 1)
    bench.send(OTHER, 2, 3, hold=True)
    assert bench.send(OWNER, 2, content="o") == [Recorded.REPLACED]
    assert bench.send(OWNER, 3) == [Recorded.DUPLICATE]  # the same bytes: it vouches for them
    assert bench.series.owner(1).others == {}
    bench.queue()
    assert bench.case().doubt == ""


def test_why_a_series_came_to_nothing_names_who_added_to_it(bench):
    bench.send(OWNER, 1)
    bench.send(OTHER, 2, hold=True)
    bench.series.hold_incomplete(bench.waiting(), "two slices at one position", at(20))
    assert bench.case().reason.startswith("two slices at one position; the series belongs to CTSIM, but 1 instance of")
    bench.send(OWNER, 1)
    bench.series.skip(bench.waiting(), SeriesFacts("", ""), "mixed series", at(20))
    assert "jobs drop 1 --from WORKSTATION" in bench.case().reason


# -- drop --------------------------------------------------------------------------------------------------------------


def test_dropping_takes_the_instances_out_and_lets_the_series_be_judged_anew(bench):
    bench.send(OWNER, 1, 2)
    bench.send(OTHER, 3, hold=True)
    bench.queue()
    stale = bench.case()
    assert bench.series.drop(1, OTHER, "operator anna", "sent by mistake", at(40)) == 1
    assert (bench.case("1").state, bench.case("1-2").state) == ("SUPERSEDED", "RECEIVING")
    assert bench.reasons("1-2")[-1] == "1 instance from WORKSTATION dropped: sent by mistake"
    assert bench.names() == ["received/1.2.3-1-a", "received/1.2.3-2-a"]
    assert bench.waiting().arrivals == 4
    assert stale.doubt
    bench.queue("l")
    assert bench.case("1-2").doubt == ""


def test_a_dropped_instance_is_missing_when_its_owner_loses_it(bench):
    bench.send(OWNER, 1)
    bench.send(OTHER, 2, hold=True)
    bench.series.drop(1, OTHER, "operator", "", at(30))
    bench.lose(OWNER, 2)
    assert [one.sop_instance_uid for one in bench.waiting().missing] == ["1.2.3.2"]


def test_dropping_ends_the_wait_for_the_one_that_is_dropped(bench):
    bench.send(OWNER, 1)
    bench.send(OTHER, 2, hold=True, released=False, now=at(1))
    assert bench.waiting().ended_badly
    bench.series.drop(1, OTHER, "operator", "", at(30))
    assert not bench.waiting().ended_badly


def test_who_was_dropped_is_refused_until_a_person_lets_it_send_again(bench):
    bench.send(OWNER, 1)
    bench.send(OTHER, 2, hold=True)
    bench.series.drop(1, OTHER, "operator", "", at(30))
    assert bench.send(OTHER, 2, 3, hold=True) == [Recorded.BARRED, Recorded.BARRED]
    who = "WORKSTATION, whose instances a person dropped, at 10.0.0.1"
    assert bench.reasons()[-1] == f"{who} was refused an instance; the series belongs to CTSIM"
    with pytest.raises(IllegalTransition, match="nothing of CTSIM was dropped from this series"):
        bench.series.allow_again(1, OWNER, "operator", "", at(31))
    bench.series.allow_again(1, OTHER, "operator", "it was right", at(31))
    assert bench.reasons()[-1] == "WORKSTATION may send for it again: it was right"
    assert bench.send(OTHER, 2, hold=True) == [Recorded.DUPLICATE]
    assert bench.series.owner(1).others == {OTHER: 1}


def test_a_series_whose_first_sender_is_dropped_goes_to_who_sends_next(bench):
    """Somebody sent first under the UID of another's scan, whose sender was refused since."""
    bench.send(OTHER, 1, 2)
    assert bench.send(OWNER, 1, content="o") == [Recorded.FOREIGN]
    assert bench.series.drop(1, OTHER, "operator", "", at(30)) == 2
    assert bench.send(OTHER, 1, 9) == [Recorded.BARRED, Recorded.BARRED], "it is not the first once more"
    assert bench.send(OWNER, 1, 2, 3, content="o")[-1] is Recorded.NEW
    assert bench.case().calling_ae == OWNER
    assert bench.names() == [f"received/1.2.3-{number}-o" for number in (1, 2, 3)]
    assert bench.series.replaced(1) == []
    assert bench.send(OTHER, 1) == [Recorded.BARRED]


def test_a_series_whose_owner_is_dropped_passes_to_who_added_to_it(bench):
    bench.send(OTHER, 1)
    bench.send(OWNER, 2, 3, hold=True)
    bench.series.drop(1, OTHER, "operator", "", at(30))
    assert bench.series.owner(1).calling_ae == OWNER
    assert bench.series.owner(1).others == {}
    assert bench.send(OTHER, 1) == [Recorded.BARRED]


def test_rows_of_an_earlier_version_are_the_owners(bench, database):
    from sqlalchemy import text

    bench.send(OWNER, 1)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE instance SET calling_ae = ''"))
    assert bench.send(OTHER, 1, content="x", hold=True) == [Recorded.FOREIGN]
    assert bench.series.owner(1).others == {}
    with pytest.raises(IllegalTransition, match=r"no instance of this series came from WORKSTATION; .* from CTSIM"):
        bench.series.drop(1, OTHER, "operator", "", at(30))
    assert bench.series.drop(1, OWNER, "operator", "", at(30)) == 1


def test_an_unknown_series_is_said(bench):
    for act in (lambda: bench.series.owner(7), lambda: bench.series.drop(7, OTHER, "operator", "", T0)):
        with pytest.raises(NotFound):
            act()

"""A result is recalled, or replaced, after it was delivered: what the store says and which note is due when."""

from datetime import timedelta

import pytest

from storage.errors import IllegalTransition
from storage.gauges import Gauges
from storage.notes import ANSWER_TIME, UNDO_TIME, NoteStore
from storage.offered import OfferedStore
from storage.recalls import RecallStore
from storage.states import NoteCode
from storage.transitions import LEFTOVER_PAUSE
from tests.contract.store_bench import Bench, at

LATER = UNDO_TIME.total_seconds() + 30


class Recalling(Bench):
    def __init__(self, database):
        super().__init__(database)
        self.recalls, self.notes = RecallStore(database), NoteStore(database)

    def recall(self, job_id=1, *, now=None):
        self.recalls.recall(job_id, "operator x", "bundle withdrawn", now or at(30))

    def case(self, case_id="1"):
        return self.overview.case(case_id)

    def note(self, case_id="1"):
        return self.case(case_id).deliveries[0].note


@pytest.fixture
def bench(database):
    return Recalling(database)


@pytest.fixture
def sent(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    bench.send()
    return bench


def test_a_recalled_result_is_rejected_at_once_and_gone_only_when_the_peer_lists_none(sent):
    sent.recall()
    assert (sent.case().state, sent.case().leftovers) == ("RECALLED", ("tps",))
    due = sent.notes.claim("tps", at(30))
    assert (due.code, due.case, due.attempt) == (NoteCode.PATIENT_SAFETY, "1", 1)
    assert (due.study_uid, due.series_uid, due.series_number) == ("1.2", "9", 301)
    assert due.sop_instance_uids == ("9.0", "9.1", "9.2")
    assert sent.notes.claim("tps", at(31)) is None, "it is in hand"
    sent.notes.name(due.id, "2.25.7")
    sent.notes.sent(due, "courier", "", at(32))
    assert (sent.note().state, sent.note().sop_instance_uid) == ("SENT", "2.25.7")
    assert sent.case().reason.startswith("needs a person: look whether series 301 is gone from tps, which took")
    first = at(20) + LEFTOVER_PAUSE
    assert sent.outbox.awaiting_removal("tps", first - timedelta(seconds=1)) is None
    asked = sent.outbox.awaiting_removal("tps", first)
    sent.outbox.gone(asked.id, "courier", "lists none", asked_at=first, now=first)
    assert (sent.case().state, sent.case().leftovers) == ("RECALLED", ())
    assert sent.case().reason == "gone from tps; bundle withdrawn"
    assert sent.notes.claim("tps", at(99999)) is None
    marks = [(row.machine, row.to_state) for row in sent.overview.events(sent.case())][-4:]
    assert marks == [("job", "CANCELLED"), ("leftover", "STANDS"), ("note", "SENT"), ("leftover", "GONE")]


def test_what_was_sent_long_ago_is_asked_for_as_soon_as_the_peer_can_have_acted(sent):
    sent.recall(now=at(5000))
    due = sent.notes.claim("tps", at(5000))
    sent.notes.sent(due, "courier", "", at(5001))
    assert sent.outbox.awaiting_removal("tps", at(5001)) is None
    assert sent.outbox.awaiting_removal("tps", at(5001) + ANSWER_TIME) is not None


def test_a_kill_leaves_the_note_due_with_the_same_contents(sent):
    sent.recall()
    first = sent.notes.claim("tps", at(30))
    again = sent.notes.claim("tps", at(91))
    assert (again.id, again.decided_at, again.sop_instance_uids) == (first.id, at(30), first.sop_instance_uids)
    assert again.attempt == 2


@pytest.mark.parametrize("state", ["running", "produced"])
def test_what_is_under_way_is_stopped_and_never_comes_back(bench, state):
    bench.receive()
    bench.queue()
    if state == "produced":
        bench.produce()
    else:
        bench.jobs.claim("w", 60, at(11))
    bench.recall()
    assert bench.states() == {"1": "RECALLED"}
    assert bench.case().leftovers == ()
    assert bench.jobs.claim("w", 60, at(40)) is None
    assert bench.outbox.claim("c", "tps", 60, at(40)) is None
    assert OfferedStore(bench.database).series() == []
    for verb in (bench.jobs.reopen, bench.jobs.retry):
        with pytest.raises(IllegalTransition, match="recalled on 2026-01-31"):
            verb(1, "operator x", "", at(41))


def test_a_recall_counts_for_a_result_that_ended_already(bench):
    bench.receive()
    bench.queue()
    bench.produce(held="looks enhanced")
    bench.jobs.reject(1, "operator x", "no", at(20))
    bench.recall()
    assert bench.states() == {"1": "RECALLED"}
    with pytest.raises(IllegalTransition, match="recalled"):
        bench.jobs.reopen(1, "operator x", "", at(41))
    assert bench.overview.cases(states=["REJECTED"]) == []
    assert [case.id for case in bench.overview.cases(states=["RECALLED"])] == ["1"]
    counted = Gauges(bench.database).cases()
    assert (counted["RECALLED"], counted["REJECTED"]) == (1, 0)


def test_a_delivery_in_flight_is_named_once_it_stopped(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    delivery = bench.send(2)
    bench.recall()
    assert bench.notes.claim("tps", at(31)) is None, "an instance may be in flight"
    bench.outbox.let_go(delivery.id, "c")
    assert bench.notes.claim("tps", at(32)).sop_instance_uids == ("9.0", "9.1")


def test_what_is_accepted_after_a_note_gets_another_one(sent, database):
    sent.recall()
    first = sent.notes.claim("tps", at(30))
    sent.notes.sent(first, "courier", "", at(31))
    with pytest.raises(Exception, match="no longer belongs"):
        sent.outbox.record_accepted(1, "c", 3, 0, lease_s=60, now=at(40))
    second = sent.notes.claim("tps", at(41))
    assert second.id != first.id
    assert "9.2" in second.sop_instance_uids


def test_a_recall_makes_a_note_about_quality_one_about_safety(sent):
    sent.jobs.cancel(1, "operator x", "", at(30))
    note = sent.notes.claim("tps", at(30 + LATER))
    assert note.code == NoteCode.QUALITY
    sent.notes.fail(note.id, "courier", "status A900", at(31 + LATER))
    assert "tps took no rejection note: status A900" in sent.case().reason
    sent.recall(now=at(40 + LATER))
    again = sent.notes.claim("tps", at(41 + LATER))
    assert (again.id, again.code, again.attempt) == (note.id, NoteCode.PATIENT_SAFETY, 1)
    sent.notes.sent(again, "courier", "", at(42 + LATER))
    sent.recall(now=at(43 + LATER))
    assert sent.notes.claim("tps", at(44 + LATER)) is None, "to repeat a recall sends nothing twice"


def test_a_quality_note_that_was_taken_is_followed_by_one_about_safety(sent):
    sent.jobs.cancel(1, "operator x", "", at(30))
    sent.notes.sent(sent.notes.claim("tps", at(30 + LATER)), "courier", "", at(31 + LATER))
    sent.recall(now=at(40 + LATER))
    assert sent.notes.claim("tps", at(41 + LATER)).code == NoteCode.PATIENT_SAFETY


# -- cancelled ---------------------------------------------------------------------------------------------------------


def test_a_cancel_can_be_taken_back_until_its_note_goes_out(sent):
    sent.jobs.cancel(1, "operator x", "typo", at(30))
    assert sent.notes.claim("tps", at(31)) is None
    sent.jobs.reopen(1, "operator x", "", at(32))
    sent.jobs.cancel(1, "operator x", "really", at(33))
    assert sent.notes.claim("tps", at(33 + LATER)) is not None
    with pytest.raises(IllegalTransition, match="tps was sent a rejection note"):
        sent.jobs.reopen(1, "operator x", "", at(34 + LATER))


def test_a_refused_note_leaves_the_way_back_open(sent):
    sent.jobs.cancel(1, "operator x", "typo", at(30))
    sent.notes.fail(sent.notes.claim("tps", at(30 + LATER)).id, "courier", "status A900", at(31 + LATER))
    sent.jobs.reopen(1, "operator x", "", at(32 + LATER))
    assert sent.states() == {"1": "SENT"}
    sent.jobs.cancel(1, "operator x", "after all", at(40 + LATER))
    assert sent.notes.claim("tps", at(40 + 2 * LATER)).attempt == 1, "the refusal was about another withdrawal"


def test_a_leftover_that_a_person_dealt_with_needs_no_note(sent):
    sent.recall()
    note = sent.notes.claim("tps", at(30))
    sent.notes.postpone(note.id, "connection refused", not_before=at(40), now=at(31))
    assert "on its way to tps (connection refused)" in sent.case().reason
    sent.jobs.acknowledge(1, "operator x", "deleted", at(35))
    assert sent.notes.claim("tps", at(99)) is None


# -- superseded --------------------------------------------------------------------------------------------------------


def test_a_superseded_result_is_rejected_when_its_successor_is_there(sent):
    sent.receive([9], now=at(40))
    assert sent.notes.claim("tps", at(41)) is None, "the series is not whole"
    sent.queue("k2", now=at(60))
    assert sent.notes.claim("tps", at(61)) is None, "nothing replaces it yet"
    sent.produce(uid="8", now=at(62))
    assert sent.notes.claim("tps", at(63)) is None
    delivery = sent.outbox.claim("c", "tps", 60, at(64))
    for outgoing in delivery.missing:
        sent.accept(delivery, outgoing, now=at(64))
    assert sent.notes.claim("tps", at(65)) is None
    sent.outbox.finish_sent(delivery.id, "c", "", at(66))
    note = sent.notes.claim("tps", at(67))
    assert (note.case, note.code, note.sop_instance_uids) == ("1", NoteCode.QUALITY, ("9.0", "9.1", "9.2"))


@pytest.mark.parametrize("end", ["rejected", "recalled"])
def test_where_nothing_will_replace_it_a_superseded_result_is_rejected(sent, end):
    sent.receive([9], now=at(40))
    sent.queue("k2", now=at(60))
    sent.produce(uid="8", held="looks odd", now=at(62))
    assert sent.notes.claim("tps", at(63)) is None
    if end == "recalled":
        sent.recall(2, now=at(64))
    else:
        sent.jobs.reject(2, "operator x", "", at(64))
    assert sent.notes.claim("tps", at(65)).case == "1"


def test_a_recall_of_a_superseded_result_waits_for_nothing(sent):
    sent.receive([9], now=at(40))
    sent.recall(now=at(41))
    assert sent.notes.claim("tps", at(42)).code == NoteCode.PATIENT_SAFETY


# -- afterwards --------------------------------------------------------------------------------------------------------


def test_the_series_of_a_recalled_result_is_translated_by_another_bundle_only(sent):
    sent.recall()
    sent.recalls.judge_again(1, "operator x", "new bundle", at(40))
    sent.queue("k", now=at(60))
    assert sent.states() == {"1": "RECALLED"}
    assert "its result was recalled by operator x, and the settings still name the bundle" in sent.case().reason
    sent.recalls.judge_again(1, "operator x", "new bundle", at(70))
    sent.queue("k2", now=at(90), bundle="better")
    assert sent.states() == {"1-2": "QUEUED", "1": "RECALLED"}
    assert sent.jobs.claim("w", 60, at(91)).version == 2
    with pytest.raises(IllegalTransition, match="came again"):
        sent.recalls.judge_again(1, "operator x", "", at(92))

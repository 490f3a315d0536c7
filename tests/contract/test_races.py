"""What two processes do with one series, job or delivery at the same moment: one comes first, and both are right.

On PostgreSQL; SQLite has one writer at a time.
"""

import ast
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import event, select

import storage
from storage.arrivals import Receipt, Recorded, series_row
from storage.database import Database
from storage.entries import Turn
from storage.errors import IllegalTransition, LeaseLost, StoreUnavailable
from storage.losses import Loss
from storage.notes import NoteStore
from storage.peers import Pause
from storage.recalls import RecallStore
from storage.states import NoteCode
from storage.tables import Event
from tests.contract.store_bench import T0, Bench, arrival, at

PATIENCE = "&options=-c%20lock_timeout%3D100ms"  # whoever waits longer for a row came second


@pytest.fixture
def database(_postgres_store):
    _postgres_store.empty()
    database = Database(_postgres_store.url)
    yield database
    database.close()


@pytest.fixture
def bench(database):
    bench = Bench(database)
    bench.receive()
    bench.queue()
    return bench


@pytest.fixture
def notes(bench):
    return NoteStore(bench.database)


@pytest.fixture
def rival(database, monkeypatch):
    """The stores of another process, which soon gives up what it has to wait for."""
    monkeypatch.setattr("storage.database.PLAIN_SILENCE_S", 0.2)
    other = Database(database.url.render_as_string(hide_password=False) + PATIENCE)
    yield Bench(other)
    other.close()


def meanwhile(database, before, act):
    """Let another process do something just before the first statement in which these words are."""
    done: list[bool] = []

    def look(_connection, _cursor, statement, *_):
        if before in statement and not done:
            done.append(True)
            with suppress(StoreUnavailable):
                act()

    event.listen(database.engine, "before_cursor_execute", look)


def steps(database, machine):
    """From which state to which the rows of a machine went, in the order in which that was written."""
    with database.read() as session:
        rows = session.scalars(select(Event).where(Event.machine == machine).order_by(Event.id))
        return [(row.from_state, row.to_state) for row in rows]


def is_chain(steps):
    return all(before[1] == after[0] for before, after in pairwise(steps))


# -- one waits for another ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Met:
    """An entry after which both receivers have a row that the other one wants, where they let it come to that."""

    entry: Receipt
    both: threading.Barrier

    @property
    def turn(self):
        return self.entry.turn

    def record(self, connection):
        done = self.entry.record(connection)
        with suppress(threading.BrokenBarrierError):
            self.both.wait(0.15)
        return done


def test_two_receivers_that_commit_the_same_series_in_other_orders_do_not_block_each_other(database):
    bench, both, answers = Bench(database), threading.Barrier(2), {}
    bench.receive([0], series="1.1")
    bench.receive([0], series="1.2")
    patient = Bench(Database(database.url.render_as_string(hide_password=False)))

    def commit(name, receiver, order):
        association = receiver.series.open_association(name, "CTSIM", "h", T0)
        number = 1 if name == "a" else 2
        entries = [Met(Receipt(association, "CTSIM", arrival(number, series=uid), T0), both) for uid in order]
        try:
            answers[name] = receiver.series.record_group(entries)
        except StoreUnavailable as error:
            answers[name] = error

    other = threading.Thread(target=commit, args=("b", patient, ["1.2", "1.1"]))
    other.start()
    commit("a", bench, ["1.1", "1.2"])
    other.join()
    patient.database.close()
    assert {name: [one.name for one in answer] for name, answer in answers.items()} == {
        "a": ["NEW"] * 2,
        "b": ["NEW"] * 2,
    }


def test_answers_are_in_the_order_of_the_entries(database):
    bench = Bench(database)
    association = bench.series.open_association("receiver", "CTSIM", "h", T0)
    again = Receipt(association, "CTSIM", arrival(1, series="1.9"), T0)
    first = Receipt(association, "CTSIM", arrival(1, series="1.1"), T0)
    bench.series.record_group([again])
    assert bench.series.record_group([again, first]) == [Recorded.DUPLICATE, Recorded.NEW]


def test_what_belongs_to_no_series_has_its_turn_too():
    loss = Loss(1, "CTSIM", "", "", "1.5", "r", T0)
    assert loss.turn == (Turn.LOSS_OF_NO_SERIES, "1.5")
    assert Pause("CTSIM", 2.0, T0).turn == (Turn.SENDER, "CTSIM")


def test_a_worker_takes_a_job_while_a_receiver_has_its_series(bench, rival):
    with bench.database.write() as session:
        series_row(session, "1.2", "1.2.3", "CTSIM", at(20))
        assert rival.jobs.claim("w", 60, at(20)) is not None


def test_a_lock_of_a_row_keeps_nobody_from_writing_what_belongs_to_it():
    """An event names its series, its job and its delivery; were these locked as if they could go, it would wait."""
    unlike = {"alerts.py", "pauses.py", "peers.py", "performed_steps.py", "refusals.py", "users.py"}
    for file in Path(storage.__file__).parent.glob("*.py"):
        if file.name in unlike:  # nothing names their rows
            continue
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            lock = next((one.value for one in call.keywords if one.arg == "with_for_update"), None)
            if isinstance(call.func, ast.Attribute) and call.func.attr == "with_for_update":
                assert "key_share" in {one.arg for one in call.keywords}, f"{file.name}:{call.lineno}"
            assert lock is None or "key_share" in ast.unparse(lock), f"{file.name}:{call.lineno}"


def test_a_person_tries_a_job_again_while_a_slice_of_its_series_arrives(bench, rival):
    """Both change the series and the job; whoever has one of the two must not wait for the other."""
    bench.jobs.cancel(1, "op", "", at(20))
    seen = []
    meanwhile(bench.database, "FROM event", lambda: seen.append(rival.receive([7], now=at(21))))
    bench.jobs.reopen(1, "op", "", at(21))
    assert seen == [], "it waits for the series, and has no job that the person waits for"


# -- check, then act ---------------------------------------------------------------------------------------------------


def test_a_late_slice_supersedes_a_job_as_its_worker_leaves_it(bench, rival):
    job = bench.jobs.claim("w", 60, at(11))
    meanwhile(bench.database, "UPDATE job", lambda: rival.jobs.fail(job.id, "w", "r", at(20)))
    bench.receive([7], now=at(20))
    assert is_chain(steps(bench.database, "job"))
    assert bench.states()["1"] == "SUPERSEDED"


def test_a_series_is_not_completed_by_hand_while_it_arrives_again(database, rival):
    bench = Bench(database)
    bench.receive()
    (series,) = bench.open_series(at(10))
    bench.series.hold_incomplete(series, "gap", at(10))
    meanwhile(database, "UPDATE series", lambda: rival.receive([7], now=at(20)))
    bench.series.complete_by_operator(1, "op", "", at(20))
    assert is_chain(steps(database, "series"))


def test_a_delivery_is_not_tried_again_while_its_job_is_cancelled(bench, rival):
    bench.produce()
    delivery = bench.send(0)
    bench.outbox.fail(delivery.id, "c", "refused", at(20))
    meanwhile(bench.database, "UPDATE delivery", lambda: rival.jobs.cancel(1, "op", "", at(21)))
    bench.outbox.retry(1, "op", "", at(21))
    assert is_chain(steps(bench.database, "delivery"))


def test_a_result_that_a_peer_has_just_removed_is_sent_whole_when_its_job_is_reopened(bench, rival):
    bench.produce()
    bench.send()
    bench.jobs.cancel(1, "op", "", at(21))

    def gone():
        rival.outbox.gone(1, "c", "", asked_at=at(22), now=at(22))

    meanwhile(bench.database, "DELETE FROM rejection_note", gone)
    bench.jobs.reopen(1, "op", "", at(23))
    with suppress(LeaseLost):
        gone()
    claimed = bench.outbox.claim("c", "tps", 60, at(24))
    assert claimed is None or len(claimed.missing) == 3


def test_a_result_is_resent_while_its_peer_confirms_it(bench, rival):
    bench.produce()
    bench.send()
    meanwhile(bench.database, "UPDATE delivery", lambda: rival.outbox.confirm(1, "c", "", at(22)))
    bench.jobs.resend(1, ("tps",), "op", "", at(23))
    assert is_chain(steps(bench.database, "delivery"))


def test_a_leftover_that_still_stands_puts_nothing_off_that_is_sent_anew(bench):
    bench.produce()
    bench.send()
    bench.jobs.cancel(1, "op", "", at(21))
    bench.jobs.reopen(1, "op", "", at(22))
    bench.jobs.resend(1, ("tps",), "op", "", at(23))
    bench.outbox.still_there(1, at(24))
    assert bench.outbox.claim("c", "tps", 60, at(25)) is not None


def test_a_job_is_not_claimed_with_what_replaced_its_sources_at_that_moment(bench, rival):
    meanwhile(bench.database, "FROM instance", lambda: rival.receive([0], content="b", now=at(20)))
    assert bench.jobs.claim("w", 60, at(20)) is None
    assert bench.states()["1"] != "RUNNING"


def test_a_result_that_is_recalled_while_a_note_about_it_is_sent_is_rejected_for_safety_all_the_same(bench, notes):
    bench.produce()
    bench.send()
    bench.jobs.cancel(1, "op", "", at(21))
    later = at(21) + timedelta(hours=1)
    note = notes.claim("tps", later)
    assert note.code == NoteCode.QUALITY
    RecallStore(bench.database).recall(1, "op", "wrong patient", later)
    notes.sent(note, "c", "", later)
    assert notes.claim("tps", later + timedelta(seconds=1)).code == NoteCode.PATIENT_SAFETY


@pytest.mark.parametrize("end", ["fail", "postpone"])
def test_a_recall_makes_a_note_due_at_once_whatever_becomes_of_the_one_under_way(bench, notes, end):
    bench.produce()
    bench.send()
    bench.jobs.cancel(1, "op", "", at(21))
    later = at(21) + timedelta(hours=1)
    note = notes.claim("tps", later)
    RecallStore(bench.database).recall(1, "op", "wrong patient", later)
    if end == "fail":
        notes.fail(note.id, "c", "status A900", later)
    else:
        notes.postpone(note.id, "no answer", not_before=later + timedelta(hours=1), now=later)
    assert notes.claim("tps", later + timedelta(seconds=1)).code == NoteCode.PATIENT_SAFETY


def test_a_job_is_not_reopened_while_a_courier_takes_the_note_about_it(bench, rival):
    bench.produce()
    bench.send()
    bench.jobs.cancel(1, "op", "", at(21))
    later, taken = at(21) + timedelta(hours=1), []

    def take():
        taken.append(NoteStore(rival.database).claim("tps", later))

    meanwhile(bench.database, "UPDATE job", take)
    with suppress(IllegalTransition):
        bench.jobs.reopen(1, "op", "", later)
    is_back = bench.outbox.claim("c", "tps", 60, later) is not None or bench.states()["1"] != "CANCELLED"
    assert not (any(taken) and is_back), "images once rejected never come back"

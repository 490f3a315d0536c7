"""Whose turn comes: priority, then the time at which the result is wanted; limits and pauses hold whoever claims."""

import threading
from collections import Counter

import pytest
from sqlalchemy import select, text

from storage.pauses import PauseStore
from storage.states import Priority, Stage
from storage.tables import Job, Series
from storage.turns import TURNS, Rules, _waiting, next_job
from tests.contract.store_bench import FACTS, Bench, at


@pytest.fixture
def bench(database):
    return Bench(database)


def add(bench, number, *, priority=Priority.ROUTINE, target_s=300.0, now=0.0, calling_ae="CTSIM"):
    """Job `number`, complete 10 s after `now`."""
    bench.receive([number], series=f"1.2.{number}", now=at(now), calling_ae=calling_ae)
    assert bench.queue(f"k{number}x", now=at(now + 10), priority=priority, target_s=target_s)


def claimed(bench, count=1, *, now=1000.0, rules=None, worker="w@h"):
    """The ids of the next jobs in the order of their turns; None where none may begin."""
    extra = () if rules is None else (rules,)
    jobs = [bench.jobs.claim(worker, 60, at(now), *extra) for _ in range(count)]
    return [job and job.id for job in jobs]


def produced(bench, number, now=1000.0):
    """The result of the job whose turn it is, which has to be this one."""
    assert bench.produce(uid=f"9.{number}", now=at(now)).id == number


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_priority_comes_first_then_what_is_wanted_earlier_then_what_is_older(bench):
    add(bench, 1, priority=Priority.OFF_PEAK)
    add(bench, 2, now=1)
    add(bench, 3, now=2, target_s=60)
    add(bench, 4, now=3, target_s=297 + 1)  # wanted when 2 is
    add(bench, 5, now=4, priority=Priority.URGENT)
    assert claimed(bench, 6) == [5, 3, 2, 4, 1, None]


def test_one_of_today_comes_before_twenty_of_an_archive_that_wait(bench):
    for number in range(1, 21):
        add(bench, number, priority=Priority.OFF_PEAK, calling_ae="ARCHIVE")
    assert claimed(bench) == [1]
    add(bench, 21, now=100)
    assert claimed(bench, 2) == [21, 2]


def test_a_job_that_is_tried_again_waits_and_then_keeps_its_place(bench):
    add(bench, 1)
    add(bench, 2, now=1)
    add(bench, 3, now=2)
    assert claimed(bench) == [1]
    bench.jobs.requeue(1, "w@h", "the device is busy", not_before=at(1100), now=at(1001))
    assert claimed(bench, now=1002) == [2]
    assert claimed(bench, 2, now=1100) == [1, 3]


def test_a_steady_stream_of_one_priority_keeps_none_of_its_jobs_waiting_for_ever(bench):
    add(bench, 1, target_s=3600)
    turns = []
    for number in range(2, 20):
        add(bench, number, now=300.0 * number, target_s=60)
        turns += claimed(bench, now=300.0 * number + 20)
    assert turns.index(1) == 10, "it is wanted at 3610 s: those that are wanted later wait for it"


def test_none_of_a_later_priority_begins_where_the_rules_say_so(bench):
    add(bench, 1, priority=Priority.OFF_PEAK)
    day = Rules(latest=Priority.ROUTINE)
    assert claimed(bench, rules=day) == [None]
    add(bench, 2, now=1)
    assert claimed(bench, 2, rules=day) == [2, None]
    assert claimed(bench) == [1]


# -- what is made again ------------------------------------------------------------------------------------------------


def test_what_a_person_has_made_again_of_an_old_series_comes_off_peak_and_is_not_late(bench):
    add(bench, 1)
    add(bench, 2, now=1, priority=Priority.URGENT)
    for number in claimed(bench, 2):
        bench.jobs.fail(number, "w@h", "no", at(1001))
    days = 3 * 86400.0
    add(bench, 3, now=days)
    for number in (1, 2):
        bench.jobs.retry(number, "operator anna", "new bundle", at(days + 20))
    assert claimed(bench, 3, now=days + 30) == [2, 3, 1]
    with bench.database.read() as session:
        assert session.get_one(Job, 1).due_at == at(days + 20)
        assert session.get_one(Job, 2).due_at == at(311)


def test_what_is_tried_again_on_the_same_day_keeps_its_place(bench):
    add(bench, 1)
    claimed(bench)
    bench.jobs.fail(1, "w@h", "no", at(1001))
    add(bench, 2, now=1002)
    bench.jobs.retry(1, "operator anna", "", at(2000))
    assert claimed(bench, 2, now=2001) == [1, 2]


def test_a_second_job_of_an_old_series_comes_off_peak(bench):
    add(bench, 1)
    produced(bench, 1)
    bench.receive([1], series="1.2.1", content="b", now=at(1010))
    assert bench.queue("k1b", now=at(1020))
    days = 3 * 86400.0
    with bench.database.write() as session:  # as after a recall, when it is judged anew
        session.get_one(Series, 1).state = "RECEIVING"
        session.get_one(Series, 1).arrivals += 1
    assert bench.queue("k1c", now=at(days))
    with bench.database.read() as session:
        priorities = session.scalars(select(Job.priority).order_by(Job.run)).all()
    assert priorities == [Priority.ROUTINE, Priority.ROUTINE, Priority.OFF_PEAK]


DAYS = 3 * 86400.0


def sent(bench, number, now):
    """A series whose result stands at the TPS."""
    add(bench, number, now=now)
    produced(bench, number, now + 20)
    bench.send(now=at(now + 30))


def fail_to_send(bench):
    delivery = bench.outbox.claim("c", "tps", 60, at(30))
    bench.outbox.fail(delivery.id, "c", "refused", at(31))


@pytest.mark.parametrize("again", ["resend", "retry"])
def test_what_is_sent_again_of_an_archive_goes_after_what_is_of_today(bench, again):
    for number in (1, 2):
        if again == "resend":
            sent(bench, number, now=number)
        else:
            add(bench, number, now=number)
            produced(bench, number, now=20 + number)
            fail_to_send(bench)
    add(bench, 3, now=DAYS)
    produced(bench, 3, now=DAYS + 20)
    for number in (1, 2):
        if again == "resend":
            bench.jobs.resend(number, ["tps"], "operator anna", "new TPS", at(DAYS + 25))
        else:
            bench.outbox.retry(number, "operator anna", "it takes them now", at(DAYS + 25))
    order = [bench.outbox.claim("c@h", "tps", 60, at(DAYS + 30)).job_id for _ in range(3)]
    assert order == [3, 1, 2]


def test_what_is_sent_again_of_today_keeps_its_place(bench):
    sent(bench, 1, now=0)
    add(bench, 2, now=100)
    produced(bench, 2, now=120)
    bench.jobs.resend(1, ["tps"], "operator anna", "", at(130))
    assert bench.outbox.claim("c@h", "tps", 60, at(140)).job_id == 1


def test_a_lost_result_of_an_archive_is_made_again_after_what_is_of_today(bench):
    sent(bench, 1, now=0)
    add(bench, 2, now=DAYS)
    assert bench.outbox.make_again(1, "its files are lost", "courier", at(DAYS + 20))
    assert claimed(bench, 2, now=DAYS + 30) == [2, 1]


def test_what_a_person_has_judged_once_more_of_an_archive_comes_off_peak(bench):
    bench.receive([1], series="1.2.1")
    (series,) = bench.open_series(at(10))
    bench.series.skip(series, FACTS, "it is a localizer", at(10))
    bench.series.judge_again(series.id, "operator anna", "other rules", at(DAYS))
    assert bench.queue("k1", now=at(DAYS))
    bench.receive([2], series="1.2.2", calling_ae="")  # as a store that was rebuilt has it
    assert bench.queue("k2", now=at(DAYS))
    bench.receive([3], series="1.2.3")  # the node was down since
    assert bench.queue("k3", now=at(DAYS))
    with bench.database.read() as session:
        priorities = session.scalars(select(Job.priority).order_by(Job.id)).all()
    assert priorities == [Priority.OFF_PEAK, Priority.OFF_PEAK, Priority.ROUTINE]


# -- a person changes it -----------------------------------------------------------------------------------------------


def test_a_person_changes_priority_and_due_time_and_the_history_says_so(bench):
    add(bench, 1)
    add(bench, 2, now=1)
    bench.jobs.set_turn(2, "operator anna", "she waits", at(50), priority=Priority.URGENT)
    bench.jobs.set_turn(2, "operator anna", "again", at(51), priority=Priority.URGENT)
    bench.jobs.set_turn(1, "operator anna", "", at(52), due_at=at(400))
    assert claimed(bench, 2) == [2, 1]
    said = [(event.actor, event.reason) for event in bench.overview.events(bench.overview.case("2"))]
    assert said.count(("operator anna", "urgent instead of routine: she waits")) == 1
    assert not [reason for _, reason in said if "again" in reason]
    assert bench.overview.case("1").due_at == at(400)


# -- a limit for each sender -------------------------------------------------------------------------------------------

TWO = Rules(most_running_per_sender=2)


def test_a_sender_at_its_limit_lets_others_of_the_same_priority_pass_and_nobody_else(bench):
    for number in (1, 2, 3, 4):
        add(bench, number, now=number, calling_ae="ARCHIVE")
    add(bench, 5, now=50)
    add(bench, 6, now=51, priority=Priority.OFF_PEAK)
    assert claimed(bench, 3, rules=TWO) == [1, 2, 5]
    assert claimed(bench, 3, rules=TWO) == [3, 4, 6], "off peak waits for routine, whoever sent it"


def test_an_urgent_job_knows_no_limit(bench):
    for number in (1, 2):
        add(bench, number, now=number)
    add(bench, 3, now=3, calling_ae="OTHER")
    add(bench, 4, now=4, priority=Priority.URGENT)
    assert claimed(bench, 3, rules=TWO) == [4, 1, 3]


def test_many_claim_at_once_and_no_limit_is_exceeded_while_another_sender_waits(bench):
    """Were two to count before either begins, three jobs of the archive would run while the scanner's wait."""
    for number in range(1, 9):
        add(bench, number, now=number, calling_ae="ARCHIVE")
    for number in range(9, 13):
        add(bench, number, now=number, calling_ae=f"CT{number}")
    barrier, found = threading.Barrier(6), []

    def claim(name):
        barrier.wait()
        found.append(bench.jobs.claim(f"w{name}@h", 60, at(1000), TWO).id)

    threads = [threading.Thread(target=claim, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2, 9, 10, 11, 12]


# -- deliveries --------------------------------------------------------------------------------------------------------


def test_deliveries_take_turns_as_their_jobs_do(bench):
    add(bench, 1)
    produced(bench, 1)
    add(bench, 2, now=20, priority=Priority.OFF_PEAK)
    produced(bench, 2)
    add(bench, 3, now=40, target_s=60)
    produced(bench, 3)
    add(bench, 4, now=60, priority=Priority.URGENT)
    produced(bench, 4)
    order = [bench.outbox.claim("c@h", "tps", 60, at(2000)).job_id for _ in range(4)]
    assert order == [4, 3, 1, 2]


def test_a_destination_gets_no_more_at_a_time_than_it_may_from_all_hosts(bench):
    for number in range(1, 7):
        add(bench, number, now=number)
        produced(bench, number)
    barrier, found = threading.Barrier(4), []

    def claim(name):
        barrier.wait()
        found.append(bench.outbox.claim(f"c@h{name}", "tps", 60, at(2000), most_sending=2))

    threads = [threading.Thread(target=claim, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(one is not None for one in found) == {True: 2, False: 2}
    one = next(one for one in found if one is not None)
    owner = next(f"c@h{n}" for n in range(4) if _sends(bench, one.id) == f"c@h{n}")
    bench.outbox.give_back(one.id, owner, "", at(2001))
    assert bench.outbox.claim("c@h9", "tps", 60, at(2002), most_sending=2) is not None
    assert bench.outbox.claim("c@h9", "tps", 60, at(2002), most_sending=2) is None


def _sends(bench, delivery_id):
    with bench.database.read() as session:
        return session.scalar(text("SELECT courier FROM delivery WHERE id = :id").bindparams(id=delivery_id))


# -- pauses ------------------------------------------------------------------------------------------------------------


def test_a_paused_stage_takes_nothing_new_until_it_is_resumed_and_a_second_pause_changes_nothing(bench):
    pauses = PauseStore(bench.database)
    add(bench, 1)
    produced(bench, 1)
    add(bench, 2, now=1)
    assert pauses.pause([Stage.TRANSLATE, Stage.SEND], "", "operator anna", "the TPS moves", at(100)) == [
        Stage.TRANSLATE,
        Stage.SEND,
    ]
    assert pauses.pause([Stage.SEND], "", "operator bert", "other", at(200)) == []
    assert [(one.stage, one.actor, one.reason, one.at) for one in pauses.all()] == [
        (Stage.TRANSLATE, "operator anna", "the TPS moves", at(100)),
        (Stage.SEND, "operator anna", "the TPS moves", at(100)),
    ]
    assert claimed(bench) == [None]
    assert bench.outbox.claim("c@h", "tps", 60, at(1000)) is None
    assert [one.stage for one in pauses.resume(list(Stage), "")] == [Stage.TRANSLATE, Stage.SEND]
    assert pauses.resume(list(Stage), "") == []
    assert claimed(bench) == [2]
    assert bench.outbox.claim("c@h", "tps", 60, at(1000)) is not None


def test_what_runs_goes_on_while_its_stage_is_paused(bench):
    add(bench, 1)
    assert claimed(bench) == [1]
    PauseStore(bench.database).pause([Stage.TRANSLATE], "", "operator anna", "", at(1001))
    bench.jobs.heartbeat(1, "w@h", 60, at(1010))
    bench.jobs.hold(1, "w@h", "done", at(1020))


def test_one_host_is_paused_or_drained_and_others_go_on(bench):
    pauses = PauseStore(bench.database)
    add(bench, 1)
    pauses.pause([Stage.TRANSLATE], "gpu1", "operator anna", "", at(1))
    assert pauses.pause([Stage.TRANSLATE], "gpu1", "operator anna", "", at(2), drains=True) == [Stage.TRANSLATE]
    assert [(one.host, one.drains) for one in pauses.all()] == [("gpu1", True)]
    assert claimed(bench, worker="work-1@gpu1") == [None]
    assert claimed(bench, worker="work-1@gpu2") == [1]
    assert pauses.of(Stage.TRANSLATE, "gpu2") is None
    assert (found := pauses.of(Stage.TRANSLATE, "gpu1")) is not None
    assert found.where == "on gpu1"


def test_once_a_pause_returned_no_claim_that_began_before_it_ends_with_a_job(bench, monkeypatch):
    """The claim has read that nothing is paused; the pause must wait for it, and not return before it."""
    add(bench, 1)
    add(bench, 2, now=1)
    looked, goes_on, order = threading.Event(), threading.Event(), []

    def slowly(*arguments):
        looked.set()
        assert goes_on.wait(10)
        return next_job(*arguments)

    def claim():
        bench.jobs.claim("w@h", 60, at(1000))
        order.append("claimed")

    def pause():
        PauseStore(bench.database).pause([Stage.TRANSLATE], "", "operator anna", "", at(1000))
        order.append("paused")

    monkeypatch.setattr("storage.jobs.next_job", slowly)
    threads = [threading.Thread(target=claim), threading.Thread(target=pause)]
    threads[0].start()
    assert looked.wait(10)
    threads[1].start()
    threads[1].join(0.3)  # it can only fail where the pause does not wait
    goes_on.set()
    for thread in threads:
        thread.join(10)
    assert order == ["claimed", "paused"]
    assert claimed(bench) == [None]


# -- the query ---------------------------------------------------------------------------------------------------------


def test_the_claim_walks_the_index_of_turns(bench):
    query = _waiting(at(0), Rules()).order_by(*TURNS).limit(1)
    with bench.database.read() as session:
        statement = query.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        if bench.database.is_sqlite:
            plan = [row[3] for row in session.execute(text(f"EXPLAIN QUERY PLAN {statement}"))]
            assert any("ix_job_turn" in line for line in plan), plan
            assert not any("TEMP B-TREE" in line for line in plan), plan
        else:
            session.execute(text("SET LOCAL enable_seqscan = off"))
            session.execute(text("SET LOCAL enable_sort = off"))
            plan = [row[0] for row in session.execute(text(f"EXPLAIN {statement}"))]
            assert any("ix_job_turn" in line for line in plan), plan
            assert not any("Sort" in line for line in plan), plan

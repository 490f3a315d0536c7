"""A job is cancelled, rejected or superseded after something of it was delivered, and taken back again."""

import threading
from contextlib import suppress

import pytest
from sqlalchemy import update

from storage.errors import IllegalTransition, LeaseLost
from storage.jobs import RewrittenFiles
from storage.tables import Series
from tests.contract.store_bench import Bench, at

DELETE = "needs a person: delete series 301 at tps"


@pytest.fixture
def bench(database):
    return Bench(database)


@pytest.fixture
def produced(bench):
    """A series with a result for one destination."""
    bench.receive()
    bench.queue()
    bench.produce()
    return bench


def arrows(bench, machine):
    events = bench.overview.events(bench.overview.case("1"))
    return [(row.from_state, row.to_state) for row in events if row.machine == machine]


def standing(bench, case_id="1"):
    return bench.overview.case(case_id).leftovers


# -- what stays at a destination -------------------------------------------------------------------------------


def test_a_cancelled_job_says_what_a_destination_has_of_it(produced):
    produced.send()
    produced.jobs.cancel(1, "operator x", "wrong protocol", at(30))
    case = produced.overview.case("1")
    assert case.state == "CANCELLED"
    assert case.reason == f"{DELETE}; delivered 3/3 to tps, cancelled afterwards: wrong protocol"
    assert (case.deliveries[0].state, case.leftovers) == ("SENT", ("tps",))
    assert arrows(produced, "leftover") == [("", "STANDS")]


def test_a_confirmed_delivery_stays_confirmed_after_a_cancel(produced):
    delivery = produced.send()
    produced.outbox.confirm(delivery.id, "courier", "", at(25))
    produced.jobs.cancel(1, "operator x", "", at(30))
    case = produced.overview.case("1")
    assert (case.deliveries[0].state, case.leftovers) == ("CONFIRMED", ("tps",))
    assert case.reason == f"{DELETE}; delivered 3/3 to tps, cancelled afterwards"


def test_a_delivery_that_was_interrupted_leaves_what_was_accepted(produced):
    produced.send(2)
    produced.jobs.cancel(1, "operator x", "wrong patient", at(30))
    case = produced.overview.case("1")
    assert case.deliveries[0].state == "CANCELLED"
    assert case.reason == f"{DELETE}; delivered 2/3 to tps, cancelled afterwards: wrong patient"


@pytest.mark.parametrize("attempts", [0, 1])
def test_what_no_destination_accepted_leaves_nothing(produced, attempts):
    if attempts:
        produced.send(0)
    produced.jobs.cancel(1, "operator x", "wrong patient", at(30))
    case = produced.overview.case("1")
    assert (case.reason, case.leftovers) == ("wrong patient", ())


def test_a_superseded_result_stands_until_a_person_acknowledges_it(produced):
    produced.send()
    produced.receive([9], now=at(40))
    produced.queue("k2", now=at(60))
    case = produced.overview.case("1")
    assert case.state == "SUPERSEDED"
    assert case.reason == f"{DELETE}; delivered 3/3 to tps, superseded afterwards: a late slice arrived"
    assert produced.jobs.acknowledge(1, "operator x", "deleted", at(70)) == ["tps"]
    case = produced.overview.case("1")
    assert case.reason == "delivered 3/3 to tps, superseded afterwards: a late slice arrived"
    assert arrows(produced, "leftover") == [("", "STANDS"), ("STANDS", "ACKNOWLEDGED")]
    with pytest.raises(IllegalTransition, match="no leftover"):
        produced.jobs.acknowledge(1, "operator x", "", at(71))


def test_one_destination_of_two_is_acknowledged(bench):
    bench.receive()
    bench.queue()
    bench.produce(destinations=("tps", "pacs", "backup"))
    bench.send()
    bench.send(to="pacs")
    bench.jobs.cancel(1, "operator x", "", at(30))
    assert standing(bench) == ("tps", "pacs")
    with pytest.raises(IllegalTransition, match="backup"):
        bench.jobs.acknowledge(1, "operator x", "", at(31), destinations=["pacs", "backup"])
    assert bench.jobs.acknowledge(1, "operator x", "", at(31), destinations=["pacs"]) == ["pacs"]
    assert standing(bench) == ("tps",)


@pytest.mark.parametrize("withdraw", ["cancel", "supersede"])
def test_an_answer_that_comes_after_the_withdrawal_counts(produced, withdraw):
    delivery = produced.send(0)
    if withdraw == "cancel":
        produced.jobs.cancel(1, "operator x", "", at(30))
    else:
        produced.receive([9], now=at(30))
    assert standing(produced) == ()
    with pytest.raises(LeaseLost):
        produced.accept(delivery, delivery.missing[0], now=at(31))
    assert standing(produced) == ("tps",)
    assert "delivered 1/3 to tps" in produced.overview.case("1").reason


def test_an_answer_and_a_cancel_at_the_same_time_lose_nothing(bench):
    bench.receive(range(20))
    bench.queue()
    bench.produce()
    delivery = bench.send(0)
    begun, answered = threading.Event(), []

    def answer():
        with suppress(LeaseLost):
            for outgoing in delivery.missing:
                begun.set()
                answered.append(outgoing)
                bench.accept(delivery, outgoing, now=at(30))

    courier = threading.Thread(target=answer)
    courier.start()
    assert begun.wait(60)
    bench.jobs.cancel(1, "operator x", "", at(30))
    courier.join()
    case = bench.overview.case("1")
    assert (case.leftovers, case.slices.sent) == (("tps",), len(answered))


def test_an_answer_that_comes_after_a_lost_lease_is_not_asked_for_again(produced):
    delivery = produced.send(0)
    produced.outbox.release_expired(at(500))
    with pytest.raises(LeaseLost):
        produced.accept(delivery, delivery.missing[0], now=at(501))
    assert standing(produced) == ()
    assert len(produced.outbox.claim("d", "tps", 60, at(502)).missing) == 2


def test_an_answer_after_the_acknowledgement_makes_the_leftover_stand_again(produced):
    delivery = produced.send(1)
    produced.jobs.cancel(1, "operator x", "", at(30))
    produced.jobs.acknowledge(1, "operator x", "", at(31))
    with pytest.raises(LeaseLost):
        produced.accept(delivery, delivery.missing[1], now=at(32))
    assert standing(produced) == ("tps",)


@pytest.mark.parametrize("ends", ["killed", "silent"])
def test_what_was_in_flight_when_the_courier_ended_is_unknown_and_counts(produced, ends):
    produced.send(0)
    produced.jobs.cancel(1, "operator x", "wrong patient", at(30))
    produced.outbox.release_expired(at(31))
    assert standing(produced) == ()
    if ends == "killed":
        produced.outbox.release_expired(at(32), dead_courier="c")
    else:
        produced.outbox.release_expired(at(500))
    case = produced.overview.case("1")
    assert case.leftovers == ("tps",)
    assert case.reason == f"{DELETE}; delivered an unknown part to tps, cancelled afterwards: wrong patient"


def test_a_courier_that_stopped_in_time_has_nothing_in_flight(produced):
    delivery = produced.send(0)
    produced.jobs.cancel(1, "operator x", "wrong patient", at(30))
    produced.outbox.let_go(delivery.id, "c")
    produced.outbox.release_expired(at(500), dead_courier="c")
    assert standing(produced) == ()


def test_files_of_an_earlier_round_are_not_forgotten_by_a_resend(produced):
    produced.send()
    produced.jobs.resend(1, ["tps"], "operator x", "restored from backup", at(30))
    produced.jobs.cancel(1, "operator x", "wrong patient", at(31))
    case = produced.overview.case("1")
    assert case.leftovers == ("tps",)
    assert "delivered an unknown part to tps, cancelled afterwards" in case.reason


def test_a_leftover_is_asked_for_after_a_while_and_gone_where_nothing_is_listed(produced):
    produced.send()
    produced.jobs.cancel(1, "operator x", "wrong protocol", at(30))
    assert produced.outbox.awaiting_removal("tps", at(31)) is None
    asked = produced.outbox.awaiting_removal("tps", at(331))
    assert (asked.derived_series_uid, len(asked.sop_instance_uids)) == ("9", 3)
    produced.outbox.still_there(asked.id, at(332))
    assert produced.outbox.awaiting_removal("tps", at(333)) is None
    asked = produced.outbox.awaiting_removal("tps", at(632))
    produced.outbox.gone(asked.id, "courier", "the peer lists none", asked_at=at(632), now=at(633))
    assert produced.outbox.awaiting_removal("tps", at(9999)) is None
    case = produced.overview.case("1")
    assert (case.leftovers, case.reason) == ((), "gone from tps; wrong protocol")


def test_an_answer_given_while_the_peer_was_asked_wins(produced):
    delivery = produced.send(1)
    produced.jobs.cancel(1, "operator x", "", at(30))
    with pytest.raises(LeaseLost):
        produced.accept(delivery, delivery.missing[1], now=at(401))
    with pytest.raises(LeaseLost):
        produced.outbox.gone(delivery.id, "courier", "", asked_at=at(400), now=at(402))
    assert standing(produced) == ("tps",)


def test_a_result_of_an_older_version_of_the_node_is_named_by_its_uid(bench):
    bench.receive()
    bench.queue()
    bench.produce(number=None)
    bench.send()
    bench.jobs.cancel(1, "operator x", "", at(30))
    assert bench.overview.case("1").reason.startswith("needs a person: delete series 9 at tps")


# -- reopening -------------------------------------------------------------------------------------------------


def test_a_cancelled_delivery_goes_on_with_what_is_missing(produced):
    produced.send(2)
    produced.jobs.cancel(1, "operator x", "typo", at(30))
    produced.jobs.reopen(1, "operator x", "it was the wrong id", at(31))
    case = produced.overview.case("1")
    assert (case.state, case.leftovers) == ("SENDING", ())
    assert len(produced.outbox.claim("c", "tps", 60, at(32)).missing) == 1
    assert arrows(produced, "job")[-2:] == [("PRODUCED", "CANCELLED"), ("CANCELLED", "PRODUCED")]


def test_a_cancelled_job_that_was_sent_is_sent_again_when_reopened(produced):
    produced.send()
    produced.jobs.cancel(1, "operator x", "typo", at(30))
    produced.jobs.reopen(1, "operator x", "", at(31))
    assert produced.states() == {"1": "SENT"}
    assert produced.outbox.claim("c", "tps", 60, at(32)) is None
    assert produced.outbox.awaiting_confirmation("tps", at(32)) is not None


@pytest.mark.parametrize("how", ["gone", "acknowledged"])
def test_what_was_deleted_at_the_destination_is_sent_whole_when_reopened(produced, how):
    delivery = produced.send()
    produced.jobs.cancel(1, "operator x", "typo", at(30))
    if how == "gone":
        produced.outbox.gone(delivery.id, "courier", "", asked_at=at(40), now=at(41))
    else:
        produced.jobs.acknowledge(1, "operator x", "deleted", at(41))
    produced.jobs.reopen(1, "operator x", "", at(50))
    assert len(produced.outbox.claim("c", "tps", 60, at(51)).missing) == 3


@pytest.mark.parametrize("close", ["cancel", "reject"])
def test_a_held_job_is_held_again_with_its_reason(bench, close):
    bench.receive()
    bench.queue()
    bench.produce(held="looks enhanced")
    for second in (30, 40):
        getattr(bench.jobs, close)(1, "operator x", "typo", at(second))
        bench.jobs.reopen(1, "operator x", "sorry", at(second + 1))
        case = bench.overview.case("1")
        assert (case.state, case.reason) == ("HELD", "looks enhanced")
    bench.jobs.release(1, ["tps"], "operator x", "", at(50))
    assert bench.outbox.claim("c", "tps", 60, at(51)) is not None


def test_a_job_without_a_result_is_queued_again(bench):
    bench.receive()
    bench.queue()
    bench.jobs.claim("w", 60, at(11))
    bench.jobs.cancel(1, "operator x", "typo", at(12))
    bench.jobs.reopen(1, "operator x", "", at(13))
    assert bench.jobs.claim("w", 60, at(14)).attempt == 1
    bench.jobs.hold(1, "w", "no GPU", at(15))
    bench.jobs.cancel(1, "operator x", "typo", at(16))
    bench.jobs.reopen(1, "operator x", "", at(17))
    assert bench.states() == {"1": "QUEUED"}


def test_a_job_that_nobody_closed_cannot_be_reopened(produced):
    with pytest.raises(IllegalTransition, match="PRODUCED"):
        produced.jobs.reopen(1, "operator x", "", at(30))
    produced.receive([9], now=at(40))
    with pytest.raises(IllegalTransition, match="SUPERSEDED"):
        produced.jobs.reopen(1, "operator x", "", at(41))


@pytest.mark.parametrize("second", ["live", "cancelled"])
@pytest.mark.parametrize("act", ["reopen", "retry"])
def test_a_job_of_earlier_contents_cannot_come_back(bench, second, act):
    bench.receive()
    bench.queue()
    bench.jobs.cancel(1, "operator x", "", at(12))
    bench.receive([9], now=at(20))
    with pytest.raises(IllegalTransition, match="RECEIVING"):
        getattr(bench.jobs, act)(1, "operator x", "", at(21))
    bench.queue("k2", now=at(40))
    if second == "cancelled":
        bench.jobs.cancel(2, "operator x", "", at(41))
    with pytest.raises(IllegalTransition, match="job 1-2"):
        getattr(bench.jobs, act)(1, "operator x", "", at(42))


def test_a_job_whose_contents_came_back_can_be_reopened_although_it_is_not_the_newest(bench):
    bench.receive()
    bench.queue()
    bench.jobs.cancel(1, "operator x", "", at(12))
    bench.receive([0], content="b", now=at(20))
    bench.queue("k2", now=at(40))
    bench.receive([0], content="a", now=at(50))
    bench.queue("k", now=at(70))
    assert bench.states() == {"1-2": "SUPERSEDED", "1": "CANCELLED"}
    bench.jobs.reopen(1, "operator x", "", at(71))
    assert bench.jobs.claim("w", 60, at(72)).id == 1


def test_a_row_of_an_older_version_of_the_node_can_be_reopened(bench):
    bench.receive()
    bench.queue()
    bench.jobs.cancel(1, "operator x", "", at(12))
    with bench.database.write() as session:
        session.execute(update(Series).values(job_id=None))
    bench.jobs.reopen(1, "operator x", "", at(13))
    assert bench.states() == {"1": "QUEUED"}


# -- the series comes again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["the same bytes", "another encoding"])
@pytest.mark.parametrize("close", ["cancel", "reject"])
def test_a_series_that_comes_again_says_what_a_person_decided(bench, close, again):
    bench.receive()
    bench.queue()
    bench.produce(held="looks enhanced")
    getattr(bench.jobs, close)(1, "operator x", "wrong", at(20))
    if again == "the same bytes":
        bench.receive(now=at(30))
    else:
        bench.receive(content="b", now=at(30))
        bench.queue("k", now=at(50))
    case = bench.overview.case("1")
    done = {"cancel": "cancelled", "reject": "rejected"}[close]
    met = f"the series came again; its result was {done} by operator x: reopen it with `syncect jobs reopen 1`"
    assert (case.state, case.reason) == (f"{done.upper()}", f"{met}; wrong")
    assert [row.reason for row in bench.overview.events(case)].count(met) == 1
    bench.jobs.reopen(1, "operator x", "", at(60))
    assert bench.overview.case("1").reason == "looks enhanced"


def test_a_series_that_comes_again_while_its_job_lives_says_nothing(produced):
    produced.receive(now=at(30))
    assert produced.overview.case("1").reason == ""


# -- release and progress --------------------------------------------------------------------------------------


def test_a_release_against_a_doubt_keeps_who_and_why_and_takes_the_rewritten_files(bench):
    bench.receive()
    bench.queue(doubt="the patient changed")
    job = bench.produce(held="the patient changed")
    files = RewrittenFiles("derived/other", {f"9.{n}": f"{n}".zfill(64) for n in range(3)})
    partly = RewrittenFiles("derived/other", {"9.0": "0" * 64})
    with pytest.raises(ValueError, match="exactly"):
        bench.jobs.release(job.id, ["tps"], "operator x", "", at(30), rewritten=partly)
    assert bench.states() == {"1": "HELD"}
    bench.jobs.release(job.id, ["tps"], "operator x", "it is she", at(31), override="x: it is she", rewritten=files)
    case = bench.overview.case("1")
    assert (case.override, case.doubt, case.product_dir) == ("x: it is she", "the patient changed", "derived/other")
    delivery = bench.outbox.claim("c", "tps", 60, at(32))
    assert [one.file_name for one in delivery.missing] == [f"derived/other/{n:04}.dcm" for n in range(3)]


def test_what_waits_for_a_destination_that_is_gone_fails_at_once(bench):
    bench.receive()
    bench.queue()
    bench.produce(destinations=("old tps", "tps"))
    assert bench.outbox.fail_without_destination(["tps", "pacs"], at(20)) == [1]
    case = bench.overview.case("1")
    assert (case.state, case.reason) == ("FAILED", "old tps is no longer in the settings")
    assert bench.outbox.claim("c", "tps", 60, at(21)) is not None
    assert bench.outbox.fail_without_destination(["tps"], at(22)) == []


def test_without_any_destination_every_waiting_delivery_fails(produced):
    assert produced.outbox.fail_without_destination([], at(20)) == [1]
    assert produced.states() == {"1": "FAILED"}

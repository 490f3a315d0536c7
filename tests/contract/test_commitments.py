"""What the store makes of a report of storage commitment."""

from datetime import timedelta

import pytest

from storage.commitments import MAX_RESENDS, CommitmentReport, CommitmentStore, Counted
from storage.errors import LeaseLost
from tests.contract.store_bench import Bench, at

ALL = frozenset({"9.0", "9.1", "9.2"})


class Committing(Bench):
    """A delivery of three instances that was sent, and a peer that reports."""

    def __init__(self, database):
        super().__init__(database)
        self.commitments = CommitmentStore(database)
        self.receive()
        self.queue()
        self.produce()
        self.delivery = self.send()
        self.number = 0

    def ask(self, now=21):
        self.number += 1
        self.commitments.ask(self.delivery.id, f"2.25.{self.number}", again_at=at(now + 900), now=at(now))
        return f"2.25.{self.number}"

    def report(self, uid, committed=ALL, failed=None, *, to=("tps",), now=30):
        report = CommitmentReport(uid, frozenset(committed), failed or {})
        return self.commitments.report(report, to, actor="r", pause=timedelta(minutes=1), now=at(now))

    def case(self):
        return self.overview.case("1")


@pytest.fixture
def bench(database):
    return Committing(database)


def test_all_instances_committed_confirm_a_delivery_and_a_second_report_changes_nothing(bench):
    uid = bench.ask()
    assert bench.outbox.awaiting_confirmation("tps", at(30)) is None, "the report is waited for"
    assert bench.report(uid).counted is Counted.CONFIRMED
    assert (bench.case().state, bench.case().slices.confirmed) == ("CONFIRMED", 3)
    assert bench.report(uid, (), {"9.1": 0x0112}, now=40).counted is Counted.AGAIN
    assert (bench.case().state, bench.case().slices.confirmed) == ("CONFIRMED", 3)
    (view,) = bench.commitments.views(1)
    assert (view.outcome, view.reason, view.answered_at) == (
        "ANSWERED",
        "the peer committed to every instance",
        at(30),
    )


def test_a_report_of_another_peer_or_about_another_transaction_confirms_nothing(bench):
    uid = bench.ask()
    assert bench.report(uid, to=("pacs",)).counted is Counted.UNKNOWN
    assert bench.report("2.25.77").counted is Counted.UNKNOWN
    newer = bench.ask(now=1000)
    assert bench.report(uid, now=1001).counted is Counted.UNKNOWN, "only the newest request counts"
    assert bench.case().state == "SENT"
    assert bench.report(newer, now=100_000).counted is Counted.CONFIRMED, "a late report counts"


def test_what_a_report_does_not_mention_is_not_confirmed_and_asked_for_again(bench):
    uid = bench.ask()
    assert bench.report(uid, {"9.0", "9.2"}).counted is Counted.PARTIAL
    case = bench.case()
    assert (case.state, case.slices.confirmed) == ("SENT", 2)
    assert case.deliveries[0].reason == "the peer committed to 2 of 3 instances and did not mention the others"
    assert bench.outbox.awaiting_confirmation("tps", at(91)) is not None
    assert bench.report(bench.ask(now=91), {"9.0"}, now=200).counted is Counted.PARTIAL
    assert bench.outbox.awaiting_confirmation("tps", at(379)) is None, (
        "the pause is as long as the time since it was sent"
    )
    assert bench.report(bench.ask(now=380), now=381).counted is Counted.CONFIRMED


def test_failed_instances_are_sent_again_a_bounded_number_of_times(bench):
    for round_ in range(MAX_RESENDS):
        now = 100 * (round_ + 1)
        found = bench.report(bench.ask(now=now), ALL - {"9.1"}, {"9.1": 0x0112}, now=now + 1)
        assert (found.counted, found.is_resent) == (Counted.FAILED, True)
        assert bench.outbox.claim("c", "tps", 60, at(now + 2)) is None, "not before its pause"
        delivery = bench.outbox.claim("c", "tps", 60, at(now + 62))
        assert [one.sop_instance_uid for one in delivery.missing] == ["9.1"]
        with pytest.raises(LeaseLost):
            bench.ask(now=now + 63)
        bench.accept(delivery, delivery.missing[0], now=at(now + 64))
        assert bench.commitments.failed(1) == []
        bench.outbox.finish_sent(delivery.id, "c", "", at(now + 65))
    found = bench.report(bench.ask(now=900), ALL - {"9.1"}, {"9.1": 0x0112}, now=901)
    assert (found.counted, found.is_resent) == (Counted.FAILED, False)
    case = bench.case()
    assert case.state == "SENT"
    assert case.deliveries[0].reason == "the peer did not commit to 1 of 3 instances (1 with failure reason 0112)"
    assert [(one.sop_instance_uid, one.failure_reason) for one in bench.commitments.failed(1)] == [("9.1", 0x0112)]
    assert bench.outbox.awaiting_confirmation("tps", at(9_000_000)) is None


def test_an_instance_in_both_lists_failed_and_a_class_that_is_not_taken_is_not_sent_again(bench):
    found = bench.report(bench.ask(), ALL, {"9.1": 0x0122})
    assert (found.counted, found.is_resent) == (Counted.FAILED, False)
    assert (bench.case().state, bench.case().slices.confirmed) == ("SENT", 2)


def test_a_refused_request_is_made_again_and_one_without_an_answer_may_still_be_reported(bench):
    uid = bench.ask()
    bench.commitments.not_taken(uid, "no answer", refused=False, again_at=at(40), now=at(22))
    assert bench.case().deliveries[0].reason == "no answer"
    assert bench.outbox.awaiting_confirmation("tps", at(41)) is not None
    assert bench.report(uid).counted is Counted.CONFIRMED
    assert bench.commitments.last_reason(bench.delivery.id) == "the peer committed to every instance"
    bench.commitments.not_taken(uid, "too late", refused=True, again_at=at(50), now=at(31))
    assert bench.case().state == "CONFIRMED"


def test_a_refused_request_is_not_open(bench):
    uid = bench.ask()
    bench.commitments.not_taken(uid, "status 0122", refused=True, again_at=None, now=at(22))
    assert bench.report(uid).counted is Counted.UNKNOWN
    assert bench.outbox.awaiting_confirmation("tps", at(9_000_000)) is None


def test_a_report_about_an_earlier_sending_counts_no_more(bench):
    uid = bench.ask()
    bench.jobs.resend(1, ["tps"], "operator", "", at(22))
    bench.send(now=at(23))
    assert bench.report(uid).counted is Counted.UNKNOWN


def test_a_report_about_a_result_that_was_withdrawn_changes_no_delivery(bench):
    uid = bench.ask()
    bench.receive([9], now=at(25))
    assert bench.report(uid).counted is Counted.TOO_LATE
    assert bench.case().slices.confirmed == 0

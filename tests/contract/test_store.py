"""The promises of the store, on SQLite and on PostgreSQL alike."""

import threading
from itertools import product
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select

import storage
from node.operate.next_steps import NEXT_STEP
from storage.errors import IllegalTransition, LeaseLost, NotFound, SchemaMismatch
from storage.jobs import ProducedSeries
from storage.schema import ensure_schema
from storage.series import JobRequest, Recorded, SeriesStore
from storage.states import MAX_DEATHS, DeliveryState, JobState, SeriesState
from storage.tables import SCHEMA_REVISION, Association, Base, Delivery, Job, Series
from tests.contract.store_bench import FACTS, T0, Bench, arrival, at


@pytest.fixture
def bench(database):
    return Bench(database)


# -- schema ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_migrations_make_exactly_the_tables(database):
    # SQLite keeps no length of a text, so a migration there does not write a table anew to change one.
    options = {"compare_type": not database.is_sqlite}
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_the_revision_that_readers_ask_for_is_the_newest_migration():
    scripts = ScriptDirectory(str(Path(storage.__file__).parent / "migrations"))
    assert scripts.get_current_head() == SCHEMA_REVISION


def test_a_schema_of_another_version_is_refused_with_the_way_out(database):
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(SchemaMismatch, match="syncect db upgrade"):
        ensure_schema(database)


# -- receiving -------------------------------------------------------------------------------------------------


def test_an_open_association_and_quiet_time_keep_a_series_undecided(bench):
    association = bench.series.open_association("receiver", "CTSIM", "h", T0)
    bench.series.record(association, "CTSIM", arrival(1), T0)
    assert bench.open_series(at(4)) == []
    (series,) = bench.open_series(at(6))
    assert series.association_open
    bench.series.close_association(association, released=True, now=at(6))
    (series,) = bench.open_series(at(6))
    assert not series.association_open
    assert not series.ended_badly


def test_aborted_and_lost_associations_end_badly_until_a_later_one_is_released(bench):
    bench.receive(released=False)
    assert bench.open_series(at(6))[0].ended_badly
    bench.series.open_association("receiver", "CTSIM", "h", at(7))
    assert bench.series.lose_associations("receiver", at(8)) == 1
    bench.receive(now=at(9))
    assert not bench.open_series(at(20))[0].ended_badly


def test_an_identical_instance_is_a_duplicate_and_changes_nothing_once_queued(bench):
    assert bench.receive() == [Recorded.NEW] * 3
    assert bench.queue()
    assert bench.receive(now=at(30)) == [Recorded.DUPLICATE] * 3
    assert bench.open_series(at(60)) == []
    assert bench.states() == {"1": "QUEUED"}


def test_a_decision_on_a_stale_picture_is_refused(bench):
    bench.receive()
    (series,) = bench.open_series(at(10))
    bench.receive([7], now=at(10))
    assert not bench.series.queue(series, FACTS, JobRequest("k" * 64, "demo"), at(10))
    assert not bench.series.skip(series, FACTS, "r", at(10))
    assert not bench.series.hold_incomplete(series, "r", at(10))
    assert bench.states() == {"1": "RECEIVING"}


def test_a_late_slice_supersedes_the_job_and_cancels_its_delivery(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    bench.receive([9], now=at(20))
    assert bench.states() == {"1-2": "RECEIVING", "1": "SUPERSEDED"}
    assert bench.outbox.claim("c", "tps", 60, at(21)) is None
    bench.queue("k2", now=at(40))
    assert bench.states() == {"1-2": "QUEUED", "1": "SUPERSEDED"}
    assert len(bench.jobs.claim("w", 60, at(41)).sources) == 4


def test_the_same_image_in_other_bytes_pauses_its_job_and_then_lets_it_go_on(bench):
    bench.receive()
    bench.queue("k")
    bench.produce()
    assert bench.receive([0], content="b", now=at(20)) == [Recorded.REPLACED]
    assert bench.outbox.claim("c", "tps", 60, at(21)) is None, "a delivery waits while its series is in doubt"
    bench.queue("k", now=at(40))
    assert bench.states() == {"1": "PRODUCED"}
    assert bench.outbox.claim("c", "tps", 60, at(41)) is not None


def test_other_contents_under_a_known_uid_make_a_new_job_of_the_newest_contents(bench):
    bench.receive()
    bench.queue("k")
    bench.produce()
    bench.receive([0], content="b", now=at(20))
    bench.queue("k2", now=at(40))
    assert bench.states() == {"1-2": "QUEUED", "1": "SUPERSEDED"}
    names = [one.spool_name for one in bench.jobs.claim("w", 60, at(41)).sources]
    assert sorted(names) == ["received/1.2.3-0-b", "received/1.2.3-1-a", "received/1.2.3-2-a"]


def test_a_result_gives_way_to_another_bundle_and_its_history_says_so(bench):
    bench.receive()
    bench.queue("k")
    bench.produce()
    bench.receive([0], content="b", now=at(20))
    bench.queue("k2", bundle="next 2", now=at(40))
    assert bench.states() == {"1-2": "QUEUED", "1": "SUPERSEDED"}
    reasons = [event.reason for event in bench.overview.events(bench.overview.case("1"))]
    assert "the series came again, and its bundle is next 2 by now" in reasons


def test_contents_that_come_back_are_made_again_under_another_repeat(bench):
    bench.receive()
    bench.queue("k")
    bench.receive([0], content="b", now=at(20))
    bench.queue("k2", now=at(30))
    bench.receive([0], content="a", now=at(40))
    bench.queue("k", now=at(50))
    assert bench.states() == {"1-3": "QUEUED", "1-2": "SUPERSEDED", "1": "SUPERSEDED"}
    assert bench.jobs.claim("w", 60, at(51)).repeat == 1


def test_an_incomplete_series_is_reopened_by_the_sender_or_completed_by_a_person(bench):
    bench.receive([1, 3])
    bench.series.hold_incomplete(bench.open_series(at(10))[0], "slice 2 is missing", at(10))
    assert bench.open_series(at(20)) == []
    bench.receive([1, 3], now=at(20))
    assert bench.states() == {"1": "RECEIVING"}
    bench.series.hold_incomplete(bench.open_series(at(30))[0], "slice 2 is missing", at(30))
    bench.series.complete_by_operator(1, "operator", "checked", at(31))
    assert bench.open_series(at(40))[0].state is SeriesState.COMPLETE
    with pytest.raises(IllegalTransition):
        bench.series.complete_by_operator(1, "operator", "again", at(32))


def test_many_threads_record_one_series(bench):
    errors = []

    def send(numbers):
        try:
            bench.receive(numbers)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(range(k, 40, 4),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert bench.overview.case("1").slices.received == 40


# -- jobs ------------------------------------------------------------------------------------------------------


def test_two_workers_never_claim_the_same_job(bench):
    for number in range(6):
        bench.receive(series=f"1.2.{number}")
    for number, series in enumerate(bench.open_series(at(10))):
        bench.series.queue(series, FACTS, JobRequest(f"k{number}".ljust(64, "0"), "demo"), at(10))
    claimed, lock = [], threading.Lock()

    def work(name):
        while (job := bench.jobs.claim(name, 60, at(11))) is not None:
            with lock:
                claimed.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{k}",)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [1, 2, 3, 4, 5, 6]


def test_a_lost_lease_frees_the_job_and_silences_its_old_worker(bench):
    bench.receive()
    bench.queue()
    job = bench.jobs.claim("w1", 60, at(11))
    bench.jobs.heartbeat(job.id, "w1", 60, at(50))
    assert bench.jobs.release_expired(at(100)) == []
    assert bench.jobs.release_expired(at(111)) == [job.id]
    again = bench.jobs.claim("w2", 60, at(112))
    assert again.attempt == 2
    with pytest.raises(LeaseLost):
        bench.jobs.heartbeat(job.id, "w1", 60, at(113))
    with pytest.raises(LeaseLost):
        bench.jobs.finish(
            job.id, "w1", ProducedSeries("9", "d", (), {}), destinations=[], held_reason=None, now=at(113)
        )


def test_a_restarted_worker_frees_what_it_held_without_waiting(bench):
    bench.receive()
    bench.queue()
    bench.jobs.claim("w1", 60, at(11))
    assert bench.jobs.release_expired(at(12), dead_worker="w2") == []
    assert bench.jobs.release_expired(at(12), dead_worker="w1") == [1]


def test_a_job_that_kills_its_workers_fails_in_the_end(bench):
    bench.receive()
    bench.queue()
    for attempt in range(MAX_DEATHS):
        assert bench.jobs.claim("w", 60, at(100 * attempt + 11)) is not None
        bench.jobs.release_expired(at(100 * attempt + 100))
    assert bench.jobs.claim("w", 60, at(1000)) is None
    case = bench.overview.case("1")
    assert (case.state, case.attempts) == ("FAILED", 2)
    assert "2 worker processes ended" in case.reason
    bench.jobs.retry(case.job_id, "operator", "fixed", at(1001))
    assert bench.jobs.claim("w", 60, at(1002)).attempt == 1
    bench.jobs.release_expired(at(1100))
    assert bench.overview.case("1").state == "FAILED"  # one more try is one


def test_a_worker_that_is_told_to_stop_is_no_death(bench):
    bench.receive()
    bench.queue()
    for attempt in range(MAX_DEATHS + 1):
        job = bench.jobs.claim("w", 60, at(100 * attempt + 11))
        now = at(100 * attempt + 12)
        bench.jobs.requeue(job.id, "w", "the worker was stopped", not_before=now, now=now)
    assert bench.overview.case("1").state == "QUEUED"


def test_a_held_job_has_no_delivery_until_a_person_releases_it(bench):
    bench.receive()
    bench.queue()
    job = bench.produce(held="looks enhanced")
    assert bench.outbox.claim("c", "tps", 60, at(20)) is None
    assert bench.overview.case("1").reason == "looks enhanced"
    bench.jobs.release(job.id, ["tps"], "operator", "checked", at(21))
    assert bench.outbox.claim("c", "tps", 60, at(22)).total == 3


def test_a_held_job_can_be_rejected_for_good(bench):
    bench.receive()
    bench.queue()
    job = bench.produce(held="looks enhanced")
    bench.jobs.reject(job.id, "operator", "wrong", at(21))
    for act in (bench.jobs.retry, bench.jobs.cancel):
        with pytest.raises(IllegalTransition):
            act(job.id, "operator", "", at(22))
    bench.receive(now=at(30))
    assert bench.states() == {"1": "REJECTED"}


def test_a_job_held_without_a_product_cannot_be_released(bench):
    bench.receive()
    bench.queue()
    job = bench.jobs.claim("w", 60, at(11))
    bench.jobs.hold(job.id, "w", "no GPU", at(12))
    with pytest.raises(IllegalTransition, match="nothing was produced"):
        bench.jobs.release(job.id, ["tps"], "operator", "", at(13))
    bench.jobs.retry(job.id, "operator", "GPU is back", at(14))
    assert bench.states() == {"1": "QUEUED"}


def test_a_cancelled_job_takes_its_worker_and_deliveries_along(bench):
    bench.receive()
    bench.queue()
    bench.jobs.claim("w", 60, at(11))
    bench.jobs.cancel(1, "operator", "wrong patient", at(12))
    with pytest.raises(LeaseLost):
        bench.jobs.heartbeat(1, "w", 60, at(13))
    bench.jobs.retry(1, "operator", "", at(14))
    bench.produce(now=at(15))
    bench.jobs.cancel(1, "operator", "wrong patient", at(16))
    assert bench.outbox.claim("c", "tps", 60, at(17)) is None
    with pytest.raises(IllegalTransition, match="reopen"):
        bench.jobs.retry(1, "operator", "", at(18))


def test_work_that_is_given_back_has_used_up_no_attempt(bench):
    bench.receive()
    bench.queue()
    for faults, is_device_fault in ((0, False), (0, True), (1, False)):
        job = bench.jobs.claim("w", 60, at(11))
        assert (job.attempt, job.device_faults) == (1, faults)
        with pytest.raises(LeaseLost):
            bench.jobs.give_back(job.id, "another", "not mine", now=at(11))
        bench.jobs.give_back(job.id, "w", "stopped", now=at(11), is_device_fault=is_device_fault)
    bench.produce()
    for second in (20, 21):
        delivery = bench.outbox.claim("c", "tps", 60, at(second))
        assert delivery.attempt == 1
        bench.outbox.give_back(delivery.id, "c", "the courier was stopped", at(second))


# -- deliveries ------------------------------------------------------------------------------------------------


def test_only_missing_instances_are_left_after_an_interruption(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    delivery = bench.outbox.claim("c", "tps", 60, at(20))
    for outgoing in delivery.missing[:2]:
        bench.outbox.record_accepted(delivery.id, "c", outgoing.product_id, 0, lease_s=60, now=at(21))
    with pytest.raises(IllegalTransition, match="never accepted"):
        bench.outbox.finish_sent(delivery.id, "c", "", at(22))
    assert bench.outbox.release_expired(at(22), dead_courier="c") == [delivery.id]
    again = bench.outbox.claim("c", "tps", 60, at(23))
    assert [outgoing.sop_instance_uid for outgoing in again.missing] == ["9.2"]
    bench.outbox.record_accepted(delivery.id, "c", again.missing[0].product_id, 0xB000, lease_s=60, now=at(24))
    bench.outbox.keep(delivery.id, "c", lease_s=60, now=at(24))
    with pytest.raises(LeaseLost):
        bench.outbox.keep(delivery.id, "another", lease_s=60, now=at(24))
    bench.outbox.finish_sent(delivery.id, "c", "no report", at(25))
    case = bench.overview.case("1")
    assert (case.state, case.slices.sent, case.slices.confirmed) == ("SENT", 3, 0)
    bench.outbox.confirm(delivery.id, "courier", "the peer lists all", at(26))
    case = bench.overview.case("1")
    assert (case.state, case.slices.confirmed) == ("CONFIRMED", 3)
    assert case.deliveries[0].reason == "the peer lists all; no report"


def test_a_job_is_as_far_as_its_slowest_destination(bench):
    bench.receive()
    bench.queue()
    bench.produce(destinations=("tps", "pacs"))
    assert bench.states() == {"1": "PRODUCED"}
    delivery = bench.outbox.claim("c", "tps", 60, at(20))
    assert bench.states() == {"1": "SENDING"}
    for outgoing in delivery.missing:
        bench.outbox.record_accepted(delivery.id, "c", outgoing.product_id, 0, lease_s=60, now=at(21))
    bench.outbox.finish_sent(delivery.id, "c", "", at(22))
    assert bench.states() == {"1": "SENDING"}
    other = bench.outbox.claim("c", "pacs", 60, at(23))
    bench.outbox.fail(other.id, "c", "the peer refuses the SOP class", at(24))
    case = bench.overview.case("1")
    assert (case.state, case.reason) == ("FAILED", "pacs: the peer refuses the SOP class")
    assert bench.outbox.retry(case.job_id, "operator", "", at(25)) == 1
    assert bench.outbox.claim("c", "pacs", 60, at(26)) is not None


def test_a_postponed_delivery_waits_for_its_time(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    delivery = bench.outbox.claim("c", "tps", 60, at(20))
    bench.outbox.postpone(delivery.id, "c", "connection refused", not_before=at(50), now=at(21))
    assert bench.outbox.claim("c", "tps", 60, at(49)) is None
    case = bench.overview.case("1")
    assert (case.state, case.reason) == ("SENDING", "tps: connection refused")
    assert bench.outbox.claim("c", "tps", 60, at(51)).attempt == 2


def test_resending_sends_every_stored_file_again(bench):
    bench.receive()
    bench.queue()
    job = bench.produce()
    delivery = bench.outbox.claim("c", "tps", 60, at(20))
    for outgoing in delivery.missing:
        bench.outbox.record_accepted(delivery.id, "c", outgoing.product_id, 0, lease_s=60, now=at(21))
    bench.outbox.finish_sent(delivery.id, "c", "", at(22))
    bench.jobs.resend(job.id, ["tps", "pacs"], "operator", "TPS restored from backup", at(30))
    assert len(bench.outbox.claim("c", "tps", 60, at(31)).missing) == 3
    assert len(bench.outbox.claim("c", "pacs", 60, at(31)).missing) == 3


# -- reading ---------------------------------------------------------------------------------------------------


def test_every_transition_left_one_event(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    case = bench.overview.case("1")
    arrows = [(row.machine, row.from_state, row.to_state) for row in bench.overview.events(case)]
    assert arrows == [
        ("series", "", "RECEIVING"),
        ("series", "RECEIVING", "COMPLETE"),
        ("job", "", "QUEUED"),
        ("series", "COMPLETE", "QUEUED"),
        ("job", "QUEUED", "RUNNING"),
        ("job", "RUNNING", "PRODUCED"),
        ("delivery", "", "PENDING"),
    ]


def test_an_unknown_id_is_not_found(bench):
    for case_id in ("1", "x", "1-2", "-1", "1-", "99999999999999999999"):
        with pytest.raises(NotFound, match="jobs ls"):
            bench.overview.case(case_id)


def test_a_listing_is_filtered_by_the_state_a_reader_sees(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    bench.receive(series="1.2.4", now=at(30))
    assert [case.id for case in bench.overview.cases(states=["PRODUCED"])] == ["1"]
    assert [case.id for case in bench.overview.cases(limit=1)] == ["2"]
    assert [case.id for case in bench.overview.cases(series_uid="1.2.4")] == ["2"]


def test_a_listing_of_one_state_shows_exactly_what_the_whole_listing_shows_in_it(bench):
    series = [(state, None, ()) for state in SeriesState if state is not SeriesState.QUEUED]
    jobs = [(SeriesState.QUEUED, state, ()) for state in JobState]
    recalled = [(SeriesState.QUEUED, state, None) for state in (JobState.CANCELLED, JobState.SUPERSEDED)]
    sent = [(SeriesState.QUEUED, JobState.PRODUCED, pair) for pair in product(DeliveryState, repeat=2)]
    when = {"created_at": T0, "updated_at": T0}
    with bench.database.write() as session:
        for number, (series_state, job_state, deliveries) in enumerate([*series, *jobs, *sent, *recalled], start=1):
            uids = {"series_uid": f"1.2.{number}", "study_uid": "1.2", "calling_ae": "CTSIM"}
            row = Series(state=series_state, last_arrival_at=T0, **uids, **when)
            session.add(row)
            session.flush()
            if job_state is None:
                continue
            key = {"series_id": row.id, "run": 1, "job_key": f"{number:064}", "bundle": "demo", "source_count": 3}
            job = Job(
                state=job_state, next_attempt_at=T0, recalled_at=T0 if deliveries is None else None, **key, **when
            )
            session.add(job)
            session.flush()
            for name, sent_state in zip(("tps", "pacs"), deliveries or (), strict=False):
                session.add(Delivery(job_id=job.id, destination=name, state=sent_state, next_attempt_at=T0, **when))
    whole = bench.overview.cases(limit=0)
    assert {case.state for case in whole} == set(NEXT_STEP)
    for shown in NEXT_STEP:
        found = [case.id for case in bench.overview.cases(states=[shown], limit=0)]
        assert found == [case.id for case in whole if case.state == shown]


def test_a_failed_plain_transaction_leaves_nothing_and_the_next_one_works(database) -> None:
    store = SeriesStore(database)
    kept = store.open_association("r", "SIM", "10.0.0.1", T0)

    def delete_all_and_fail() -> None:
        with database.write_plain() as connection:
            connection.exec_driver_sql("DELETE FROM association")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        delete_all_and_fail()
    added = store.open_association("r", "SIM", "10.0.0.1", T0)
    with database.read() as session:
        assert session.scalars(select(Association.id).order_by(Association.id)).all() == [kept, added]

"""The listing finds jobs by what a person knows of them, and says how far a running one is."""

from datetime import timedelta

import pytest
from sqlalchemy import event

from storage.errors import NotFound
from storage.jobs import Progress
from storage.series import Arrival, JobRequest, SeriesFacts
from tests.contract.store_bench import Bench, at


@pytest.fixture
def bench(database):
    return Bench(database)


def add(bench, number, *, patient, ae="CTSIM", bundle="demo 1 (abc)", now=0, queue=True):
    """Series 1.2.NUMBER of study 1.NUMBER; its id is the number of calls."""
    association = bench.series.open_association("receiver", ae, "h", at(now))
    uids = (f"1.{number}", f"1.2.{number}", f"1.2.{number}.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    bench.series.record(association, ae, Arrival(*uids, f"{number}".zfill(64), f"r/{number}", 10), at(now))
    bench.series.close_association(association, released=True, now=at(now))
    if queue:
        (series,) = bench.open_series(at(now + 10))
        request = JobRequest(f"{number}".zfill(64), bundle)
        bench.series.queue(series, SeriesFacts("Thorax", patient), request, at(now + 10))


def found(bench, **filters):
    return [case.id for case in bench.overview.cases(**filters)]


@pytest.fixture
def three(bench):
    add(bench, 1, patient="MRN-0001")
    add(bench, 2, patient="mrn-0002", ae="CT2", bundle="chest 2 (def)", now=100)
    add(bench, 3, patient="X%_[1]*", now=200)
    return bench


@pytest.mark.parametrize(
    ("patient", "ids"),
    [
        ("MRN-0001", ["1"]),
        ("mrn-0001", ["1"]),
        ("MRN", []),
        ("MRN*", ["2", "1"]),
        ("mrn-000?", ["2", "1"]),
        ("*", ["3", "2", "1"]),
        ("X%*", ["3"]),
        ("X%_[1]?", ["3"]),
        ("%", []),
        ("MRN_0001", []),
        ("MRN-000[12]", []),
        ("' OR 1=1 --", []),
    ],
)
def test_a_patient_is_found_by_the_whole_id_or_by_wildcards(three, patient, ids):
    assert found(three, patient=patient) == ids
    assert found(three, patient=patient, states=["QUEUED"]) == ids


def test_an_id_beyond_ascii_is_found_in_its_own_case(bench):
    add(bench, 1, patient="ÄB-1")
    add(bench, 2, patient="ÖB-1", now=100)
    assert found(bench, patient="ÄB-*") == ["1"]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"study_uid": "1.2"}, ["2"]),
        ({"series_uid": "1.2.3"}, ["3"]),
        ({"calling_ae": "CT2"}, ["2"]),
        ({"calling_ae": "CTSIM", "study_uid": "1.2"}, []),
        ({"bundle": "chest"}, ["2"]),
        ({"bundle": "demo 1 (abc)"}, ["3", "1"]),
        ({"bundle": "%"}, []),
        ({"since": at(100)}, ["3", "2"]),
        ({"before": at(100)}, ["1"]),
        ({"since": at(50), "before": at(200)}, ["2"]),
        ({"since": at(50), "states": ["QUEUED"], "limit": 1}, ["3"]),
        ({"destination": "tps"}, []),
    ],
)
def test_filters_narrow_the_listing_together(three, filters, ids):
    assert found(three, **filters) == ids


def test_a_destination_finds_what_is_to_go_there(bench):
    bench.receive()
    bench.queue()
    bench.produce(destinations=("tps", "pacs"))
    bench.receive([9], now=at(20))
    bench.queue("k2", now=at(40))
    bench.produce(uid="8", destinations=("pacs",), now=at(41))
    assert found(bench, destination="tps") == ["1"]
    assert found(bench, destination="pacs") == ["1-2", "1"]
    assert found(bench, destination="pacs", states=["SUPERSEDED"]) == ["1"]


def test_the_second_job_of_a_series_came_later_than_its_first(bench):
    bench.receive()
    bench.queue()
    bench.receive([9], now=at(1000))
    bench.queue("k2", now=at(1010))
    assert found(bench, since=at(500)) == ["1-2"]
    assert found(bench, before=at(500)) == ["1"]


def test_the_listing_names_the_version_and_the_series_that_a_planner_sees(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    bench.receive([9], now=at(20))
    bench.queue("k2", now=at(40))
    new, old = bench.overview.cases()
    assert (old.version, old.series_number, old.series_description) == (1, 301, "sCE-CT AI Thorax")
    assert (new.version, new.series_number, new.series_description) == (2, None, "")
    assert bench.jobs.claim("w", 60, at(41)).version == 2


def test_the_database_narrows_a_listing_before_any_case_is_made(bench):
    for number in range(1, 13):
        add(bench, number, patient=f"P{number}", now=100 * number)
    asked = []
    event.listen(bench.database.engine, "before_cursor_execute", lambda _c, _k, sql, *_: asked.append(sql))
    assert found(bench, patient="nobody", states=["QUEUED"], limit=1) == []
    assert len([sql for sql in asked if sql.startswith("SELECT")]) == 1


# -- what is overdue -------------------------------------------------------------------------------------------


def test_what_was_delivered_or_ended_for_a_reason_is_not_overdue(bench):
    add(bench, 1, patient="P")
    bench.produce(now=at(12))
    bench.send()
    add(bench, 2, patient="P", now=50)
    bench.produce(uid="8", destinations=(), now=at(61))
    add(bench, 3, patient="P", now=70)
    bench.jobs.cancel(3, "operator", "a typo", at(80))
    add(bench, 4, patient="P", now=90, queue=False)
    bench.series.skip(bench.open_series(at(100))[0], SeriesFacts("Thorax", "P"), "a localizer", at(100))
    assert sorted(bench.states().values()) == ["CANCELLED", "PRODUCED", "SENT", "SKIPPED"]
    assert found(bench, overdue_since=at(9999)) == []


def test_what_waits_for_a_person_is_overdue_too(bench):
    bench.receive()
    bench.series.hold_incomplete(bench.open_series(at(10))[0], "a slice is missing", at(10))
    add(bench, 7, patient="P", now=20)
    bench.produce(held="looks enhanced", now=at(40))
    add(bench, 8, patient="P", now=50)
    bench.jobs.claim("w", 60, at(61))
    bench.jobs.fail(2, "w", "broken", at(62))
    assert sorted(bench.states().values()) == ["FAILED", "HELD", "INCOMPLETE"]
    assert found(bench, overdue_since=at(51)) == ["3", "2", "1"]
    assert found(bench, overdue_since=at(21)) == ["2", "1"]


def test_a_decision_of_a_person_gives_new_time_and_one_of_the_node_does_not(bench):
    add(bench, 1, patient="P")
    bench.jobs.claim("w", 60, at(11))
    bench.jobs.fail(1, "w", "broken", at(500))
    assert bench.overview.case("1").counts_from == at(0)
    bench.jobs.retry(1, "operator me", "", at(1000))
    assert bench.overview.case("1").counts_from == at(1000)
    assert found(bench, overdue_since=at(1000)) == []
    assert found(bench, overdue_since=at(1001)) == ["1"]


@pytest.mark.parametrize("state", ["RECEIVING", "QUEUED", "RUNNING", "PRODUCED", "SENDING"])
def test_each_state_that_should_pass_is_overdue_after_a_while(bench, state):
    bench.receive()
    if state != "RECEIVING":
        bench.queue()
    if state == "RUNNING":
        bench.jobs.claim("w", 60, at(11))
    if state in ("PRODUCED", "SENDING"):
        bench.produce()
    if state == "SENDING":
        bench.send(1)
    assert bench.states() == {"1": state}
    assert found(bench, overdue_since=at(1000)) == ["1"]
    assert found(bench, overdue_since=at(1000), states=[state]) == ["1"]
    assert found(bench, overdue_since=at(1000), states=["HELD"]) == []
    assert found(bench, overdue_since=at(0)) == []


def test_attempts_that_fail_are_no_step_forward_and_an_accepted_instance_is_one(bench):
    bench.receive()
    bench.queue()
    bench.produce(now=at(12))
    for second in range(100, 1000, 100):
        delivery = bench.outbox.claim("c", "tps", 60, at(second))
        bench.outbox.postpone(delivery.id, "c", "connection refused", not_before=at(second), now=at(second))
    assert bench.overview.case("1").moved_at == at(12)
    assert found(bench, overdue_since=at(500)) == ["1"]
    bench.send(1, now=at(1000))
    assert bench.overview.case("1").moved_at == at(1000)


# -- a running job ---------------------------------------------------------------------------------------------


def test_a_running_job_says_how_far_it_is_and_when_the_stage_ends(bench):
    bench.receive()
    bench.queue()
    bench.jobs.claim("w", 60, at(11))
    assert bench.overview.case("1").progress is None
    bench.jobs.heartbeat(1, "w", 60, at(12))
    assert bench.overview.case("1").progress is None
    bench.jobs.heartbeat(1, "w", 60, at(21), progress=Progress("translate", 25, 100, at(11)))
    shown = bench.overview.case("1").progress
    assert (shown.stage, shown.done, shown.total) == ("translate", 25, 100)
    assert shown.expected_end_at == at(21) + timedelta(seconds=30)
    bench.jobs.fail(1, "w", "broken", at(30))
    assert bench.overview.case("1").progress is None


@pytest.mark.parametrize(("done", "total"), [(0, 10), (10, 10), (0, 0)])
def test_nothing_done_or_all_of_it_gives_no_expected_end(bench, done, total):
    bench.receive()
    bench.queue()
    bench.jobs.claim("w", 60, at(11))
    bench.jobs.heartbeat(1, "w", 60, at(21), progress=Progress("write", done, total, at(11)))
    assert bench.overview.case("1").progress.expected_end_at is None


def test_a_job_that_beats_without_getting_further_does_not_move(bench):
    bench.receive()
    bench.queue()
    bench.jobs.claim("w", 60, at(11))
    for second in (20, 500, 1000):
        bench.jobs.heartbeat(1, "w", 60, at(second), progress=Progress("translate", 5, 100, at(11)))
    assert bench.overview.case("1").moved_at == at(20)
    bench.jobs.heartbeat(1, "w", 60, at(1010), progress=Progress("translate", 6, 100, at(11)))
    assert bench.overview.case("1").moved_at == at(1010)


def test_the_log_of_a_case_is_found_by_its_deliveries_and_its_associations(bench):
    bench.receive(range(2))
    bench.receive(range(2, 3))
    bench.queue()
    bench.produce(destinations=("tps", "pacs"))
    bench.receive(series="1.2.4", now=at(100))
    first, second = (bench.overview.linked(bench.overview.case(case_id)) for case_id in ("1", "2"))
    assert len(first.deliveries) == 2
    assert len(first.associations) == 2
    assert second.deliveries == frozenset()
    assert len(second.associations - first.associations) == 1
    claimed = bench.outbox.claim("c", "tps", 60, at(20))
    assert claimed is not None
    assert claimed.id in first.deliveries
    assert claimed.case == "1"


# -- what the page asks ------------------------------------------------------------------------------------------------


def test_what_needs_a_person_is_what_only_a_person_ends_and_what_is_overdue(three):
    assert found(three, troubled_since=at(0)) == []
    assert found(three, troubled_since=at(150)) == ["2", "1"]
    job = three.jobs.claim("w", 60, at(300))
    three.jobs.fail(job.id, "w", "no memory", at(301))
    assert found(three, troubled_since=at(0)) == ["1"]
    assert found(three, troubled_since=at(0), calling_ae="CT2") == []


def test_a_result_that_has_to_be_deleted_at_a_destination_needs_a_person(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    delivery = bench.outbox.claim("c", "tps", 60, at(12))
    bench.outbox.record_accepted(delivery.id, "c", delivery.missing[0].product_id, 0, lease_s=60, now=at(13))
    assert found(bench, troubled_since=at(0)) == []
    bench.jobs.cancel(1, "operator x", "", at(14))
    (case,) = bench.overview.cases(troubled_since=at(0))
    assert (case.state, case.leftovers) == ("CANCELLED", ("tps",))


def test_lively_is_what_is_unfinished_or_changed_since(bench):
    for number in (1, 2):
        add(bench, number, patient="P", now=number * 100, queue=False)
        (series,) = bench.open_series(at(number * 100 + 10))
        bench.series.skip(series, SeriesFacts("Scout", "P"), "it is a localizer", at(number * 100 + 10))
    add(bench, 3, patient="P", now=0)
    assert found(bench, lively_since=at(0)) == ["3", "2", "1"]
    assert found(bench, lively_since=at(200)) == ["3", "2"]
    assert found(bench, lively_since=at(9999)) == ["3"]
    assert found(bench, lively_since=at(9999), patient="Q") == []


def test_a_listing_goes_on_behind_a_case(three):
    assert found(three, limit=2) == ["3", "2"]
    assert found(three, after="2") == ["1"]
    assert found(three, after="2", states=["QUEUED"]) == ["1"]
    assert found(three, after="1") == []
    for wrong in ("x", "1-x", "1;DROP TABLE job", "9" * 30, "-1"):
        with pytest.raises(NotFound):
            found(three, after=wrong)


def test_a_listing_goes_on_between_two_jobs_of_one_series(bench):
    bench.receive()
    bench.queue()
    bench.receive([9], now=at(20))
    bench.queue("k2", now=at(40))
    assert found(bench, after="1-2") == ["1"]


def test_what_is_over_is_found_by_walking_back(bench):
    bench.receive()
    bench.queue()
    bench.produce()
    assert found(bench, states=["SENT", "CONFIRMED", "CANCELLED"]) == []
    bench.jobs.cancel(1, "operator x", "", at(14))
    add(bench, 2, patient="P", now=100)
    assert found(bench, states=["SENT", "CONFIRMED", "CANCELLED"]) == ["1"]
    assert found(bench, states=["SENT", "CONFIRMED", "QUEUED"]) == ["2"]


def test_what_waits_longest_is_not_what_waits_for_a_person(three):
    assert three.overview.longest_waiting().id == "1"
    job = three.jobs.claim("w", 60, at(300))
    three.jobs.fail(job.id, "w", "no memory", at(301))
    assert three.overview.longest_waiting().id == "2"


def test_nothing_waits_in_an_empty_store(bench):
    assert bench.overview.longest_waiting() is None


def test_each_destination_has_its_own_last_send(bench):
    bench.receive()
    bench.queue()
    bench.produce(destinations=("tps", "pacs"))
    assert bench.overview.last_sent() == {}
    for seconds, name in ((20, "tps"), (30, "pacs")):
        delivery = bench.outbox.claim("c", name, 60, at(seconds))
        bench.outbox.record_accepted(delivery.id, "c", delivery.missing[0].product_id, 0, lease_s=60, now=at(seconds))
    assert bench.overview.last_sent() == {"tps": at(20), "pacs": at(30)}
    assert bench.overview.last_sent_at() == at(30)

"""By which AE title a series came is kept with it, and where its result goes with its job."""

import pytest

from storage.errors import IllegalTransition
from storage.series import JobRequest
from tests.contract.store_bench import FACTS, Bench, arrival, at


def send(bench: Bench, title: str, *, numbers: range = range(3), second: float = 0) -> None:
    association = bench.series.open_association("r", "CTSIM", "h", at(second), called_ae=title)
    for number in numbers:
        bench.series.record(association, "CTSIM", arrival(number), at(second))
    bench.series.close_association(association, released=True, now=at(second))


def events(bench: Bench) -> list[str]:
    return [event.reason for event in bench.overview.events(bench.overview.cases()[0])]


@pytest.fixture
def bench(database):
    return Bench(database)


def test_the_first_title_counts_and_a_second_one_is_known(bench):
    send(bench, "NODE", numbers=range(2))
    send(bench, "NODE_NECK", second=1)
    (series,) = bench.open_series(at(20))
    assert series.called == ("NODE", "NODE_NECK")
    assert bench.overview.cases()[0].called_ae == "NODE"


def test_a_title_that_an_earlier_version_did_not_keep_is_learnt(bench):
    send(bench, "", numbers=range(2))
    send(bench, "NODE", second=1)
    (series,) = bench.open_series(at(20))
    assert series.called == ("NODE",)


def test_what_comes_again_under_another_title_is_told_and_changes_nothing(bench):
    send(bench, "NODE")
    bench.queue(route="body", destinations=("tps",))
    send(bench, "NODE_NECK", second=20)
    (case,) = bench.overview.cases()
    assert (case.state, case.route, case.called_ae) == ("QUEUED", "body", "NODE")
    assert "it came under the AE title NODE_NECK as well; NODE, under which it came first, counts" in events(bench)
    assert bench.open_series(at(60)) == []


def test_after_a_cancel_the_title_of_the_next_send_counts_and_the_route_is_chosen_anew(bench):
    send(bench, "NODE")
    bench.queue(route="body", destinations=("tps",))
    bench.jobs.cancel(1, "operator anna", "wrong title", at(15))
    send(bench, "NODE_NECK", second=20)
    (series,) = bench.open_series(at(30))
    assert series.called == ("NODE_NECK", "NODE")
    assert bench.series.queue(series, FACTS, JobRequest("n" * 64, "neck", route="neck", destinations=("tps2",)), at(30))
    newest, _ = bench.overview.cases()
    assert (newest.state, newest.route, newest.destinations, newest.called_ae) == (
        "QUEUED",
        "neck",
        ("tps2",),
        "NODE_NECK",
    )


def test_a_cancelled_job_takes_the_new_route_where_its_bundle_is_the_same(bench):
    send(bench, "NODE")
    bench.queue(route="body", destinations=("tps",))
    bench.jobs.cancel(1, "operator anna", "wrong title", at(15))
    send(bench, "NODE_NECK", second=20)
    bench.queue(now=at(30), route="neck", destinations=("tps2",), doubt="look")
    bench.jobs.reopen(1, "operator anna", "", at(31))
    (case,) = bench.overview.cases()
    assert (case.state, case.route, case.destinations, case.doubt) == ("QUEUED", "neck", ("tps2",), "look")


def test_a_job_that_lives_keeps_its_route_whatever_the_settings_say_by_then(bench):
    send(bench, "NODE")
    bench.queue(route="body", destinations=("tps",))
    bench.receive([0], content="b", now=at(20))
    bench.receive([0], content="a", now=at(21))
    bench.queue(now=at(40), route="neck", destinations=("tps2",))
    (case,) = bench.overview.cases()
    assert (case.route, case.destinations) == ("body", ("tps",))


def test_a_result_goes_where_its_route_leads_and_nowhere_else(bench):
    send(bench, "NODE")
    bench.queue(route="neck", destinations=("tps2",), why="route neck: called as NODE")
    bench.produce(destinations=("tps", "tps2"))
    (case,) = bench.overview.cases()
    assert [view.destination for view in case.deliveries] == ["tps2"]
    assert "bundle demo; route neck: called as NODE" in events(bench)


def test_a_job_that_takes_the_place_of_another_keeps_its_route(bench):
    send(bench, "NODE")
    bench.queue(route="neck", destinations=("tps2",))
    bench.produce()
    assert bench.outbox.make_again(1, "damaged", "courier", at(20))
    with pytest.raises(Exception, match="takes its place"):
        bench.produce(uid="8", now=at(21))
    newest, _ = bench.overview.cases()
    assert (newest.route, newest.destinations, newest.state) == ("neck", ("tps2",), "QUEUED")


def test_nothing_goes_out_while_the_sender_to_which_it_returns_has_no_destination(bench):
    send(bench, "NODE")
    bench.queue(route="back", destinations=("@CTSIM2",))
    bench.produce(held="no destination has its AE title")
    with pytest.raises(IllegalTransition, match="no destination has the AE title CTSIM2"):
        bench.jobs.release(1, ["@CTSIM2"], "operator anna", "ok", at(30))
    assert bench.overview.cases()[0].state == "HELD"
    bench.jobs.release(1, ["sim2"], "operator anna", "ok", at(30))
    assert [view.destination for view in bench.overview.cases()[0].deliveries] == ["sim2"]


def test_a_title_goes_with_the_instances_of_whoever_brought_them(bench):
    send(bench, "NODE")
    bench.series.drop(1, "CTSIM", "operator anna", "", at(5))
    bench.series.allow_again(1, "CTSIM", "operator anna", "", at(6))
    send(bench, "NODE_NECK", second=10)
    assert bench.overview.cases()[0].called_ae == "NODE_NECK"

"""The trends: what each day brought, and how long it took."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from node.web.trends import days_of
from storage.trends import Step, Trends
from tests.component.web.ward import Ward, check_html

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def test_a_day_counts_and_has_the_median_and_the_longest():
    steps = [
        Step(NOON, "PRODUCED", per_slice_s=0.2),
        Step(NOON, "HELD", per_slice_s=0.4),
        Step(NOON, "FAILED"),
        *(Step(NOON, "SENT", to_tps_s=seconds) for seconds in (40.0, 60.0, 500.0)),
        Step(NOON - timedelta(days=1), "SENT"),
    ]
    newest, oldest = days_of(steps, None)
    assert (newest.sent, newest.held, newest.failed) == (3, 1, 1)
    assert (newest.per_slice, newest.to_tps, newest.longest) == ("0.30 s", "60 s", "8 min")
    assert (oldest.sent, oldest.to_tps) == (1, "")


def test_a_day_is_one_of_the_site():
    late = Step(datetime(2026, 11, 26, 23, 30, tzinfo=UTC), "SENT")
    (day,) = days_of([late], ZoneInfo("Europe/Berlin"))
    assert day.day == "2026-11-27"


def test_what_the_store_knows_is_told(department):
    for make in (department.sent, department.held, department.failed):
        make()
    ward = Ward(department)
    steps = Trends(department.node.database).steps(NOON - timedelta(days=3650))
    assert {"SENT", "HELD", "FAILED"} <= {step.outcome for step in steps}
    assert all(step.to_tps_s is not None and step.to_tps_s >= 0 for step in steps if step.outcome == "SENT")
    visitor = ward.visitor()
    text = visitor.get("/trends")
    check_html(text)
    assert "The last 14 days" in text
    figures = json.loads(visitor.get("/trends.json"))
    assert len(figures["to_tps_min"][0]) == len(figures["to_tps_min"][1]) >= 1


def test_a_release_is_no_time_of_the_node(department):
    department.held()
    department.node.jobs.release(1, ["tps"], "operator anna", "looks right", NOON, override="x")
    steps = Trends(department.node.database).steps(NOON - timedelta(days=3650))
    assert [step.outcome for step in steps] == ["HELD"]  # the release is a person's, and no translation


def test_an_empty_store_says_so(department):
    assert "Nothing was made or sent" in Ward(department).visitor().get("/trends")

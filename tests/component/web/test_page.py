"""The status page: every state with its next step, the filters of the address, and nothing that names a patient."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from node.operate.next_steps import NEXT_STEP, step_of
from node.web.access import Role
from node.web.rows import MOST_COUNTED
from node.web.templating import coded
from tests.departments import START

NOW = START + timedelta(seconds=30)


def fill(department) -> dict[str, str]:
    """A case in every state but CONFIRMED; returns the state by case id."""
    node, found = department.node, {}

    def note(case_id: str) -> str:
        found[case_id] = node.overview.case(case_id).state
        return case_id

    for make in ("incomplete", "skipped", "failed", "stuck_without_product", "held", "sent", "send_failed", "sending"):
        note(getattr(department, make)())
    note(department.produced())
    rejected = department.held()
    node.jobs.reject(node.overview.case(rejected).job_id, "operator x", "", NOW)
    note(rejected)
    cancelled = department.failed()
    node.jobs.cancel(node.overview.case(cancelled).job_id, "operator x", "", NOW)
    note(cancelled)
    recalled = department.failed()
    node.recalls.recall(node.overview.case(recalled).job_id, "operator x", "", NOW)
    note(recalled)
    changed = department.failed()
    department.change(changed)
    department.skip(changed)
    note(changed)
    note(f"{changed}-2")
    note(department.running())
    note(department.queued())
    note(department.arrive())
    return found


@pytest.fixture
def viewer(ward):
    return ward.visitor()


def ids_in(text: str) -> list[str]:
    return re.findall(r'id="row-([\d-]+)"', text)


def test_every_state_has_a_row_and_a_drawer_with_its_next_step(ward, viewer):
    states = fill(ward.department)
    assert {*NEXT_STEP} - {*states.values()} == {"CONFIRMED"}
    front = viewer.get("/", tab="all")
    for case_id, state in states.items():
        assert f'id="case-{case_id}"' in front
        drawer = viewer.get(f"/cases/{case_id}", part=True)
        assert f">{state}</span>" in drawer
        assert str(coded(step_of(ward.node, ward.node.overview.case(case_id)))) in drawer
        assert "<!doctype html>" in viewer.get(f"/cases/{case_id}")
        assert state in viewer.get(f"/cases/{case_id}/live", part=True)
        viewer.get(f"/cases/{case_id}/verbs", part=True)


def test_a_case_shows_its_route_and_is_not_released_to_a_sender_that_nobody_knows(ward, viewer):
    there = ward.department.held(route={"route": "neck", "destinations": ("tps",)})
    nowhere = ward.department.held(route={"route": "back", "destinations": ("@CTSIM2",)})
    assert "<dt>Route</dt><dd>neck, to tps</dd>" in viewer.get(f"/cases/{there}/live", part=True)
    assert "<dt>Route</dt><dd>back, to nobody yet</dd>" in viewer.get(f"/cases/{nowhere}/live", part=True)
    assert "no destination has its AE title, CTSIM2" in viewer.get(f"/cases/{nowhere}", part=True)


def test_a_tab_shows_what_its_name_says(ward, viewer):
    states = fill(ward.department)
    by_tab = {tab: {states[i] for i in ids_in(viewer.get("/rows", tab=tab))} for tab in ("needs-you", "done", "all")}
    assert by_tab["needs-you"] == {"INCOMPLETE", "HELD", "FAILED"}
    assert by_tab["done"] == {"SKIPPED", "SENT", "REJECTED", "CANCELLED", "SUPERSEDED", "RECALLED"}
    assert by_tab["all"] == set(states.values())
    assert ids_in(viewer.get("/rows")) == ids_in(viewer.get("/rows", tab="all"))  # all changed just now


def test_now_leaves_out_what_was_over_long_ago(ward, viewer, monkeypatch):
    done, waits = ward.department.sent(), ward.department.failed()
    later = datetime.now(UTC) + timedelta(hours=9)
    monkeypatch.setattr("node.web.pages.now_utc", lambda: later)
    assert ids_in(viewer.get("/")) == [waits]
    assert ids_in(viewer.get("/", tab="all")) == [waits, done]


def test_what_is_overdue_is_counted_among_what_needs_a_person(ward, viewer, monkeypatch):
    waits = ward.department.queued()
    assert ids_in(viewer.get("/rows", tab="needs-you")) == []
    later = datetime.now(UTC) + timedelta(seconds=ward.node.settings.alerts.due_s + 60)
    monkeypatch.setattr("node.web.pages.now_utc", lambda: later)
    text = viewer.get("/rows", tab="needs-you")
    assert ids_in(text) == [waits]
    assert '<span class="count some">1</span>' in text
    assert 'class="due overdue">overdue' in text


def test_the_count_ends_where_nobody_counts_any_more(ward, viewer, monkeypatch):
    monkeypatch.setattr("node.web.rows.MOST_COUNTED", 1)
    for _ in range(3):
        ward.department.failed()
    assert MOST_COUNTED == 99
    assert ">1+</span>" in viewer.get("/rows")


def test_a_receiving_series_counts_its_slices(ward, viewer):
    case_id = ward.department.arrive(slices=7)
    assert "7 / 0 / 0 / 0" in viewer.get("/rows")
    assert "7 received" in viewer.get(f"/cases/{case_id}", part=True)


# -- nothing that names a patient -----------------------------------------------------------------------------------


def test_no_patient_is_in_any_page_until_it_is_asked_for(ward):
    viewer, physicist = ward.visitor(), ward.visitor(Role.PHYSICIST)
    case_id = ward.department.held(patient="CANARY4711", description="CANARY^JANE Thorax")
    for path in ("/", "/rows", "/lights", f"/cases/{case_id}", f"/cases/{case_id}/live", f"/cases/{case_id}/verbs"):
        for who in (viewer, physicist):
            assert "CANARY" not in who.get(path)
    viewer.post(f"/cases/{case_id}/reveal", status=403)
    shown = physicist.post(f"/cases/{case_id}/reveal")
    assert "CANARY4711" in shown
    assert "CANARY^JANE Thorax" in shown
    assert 'hx-trigger="tick' not in shown  # the refresh would hide it again at once
    assert "CANARY" not in physicist.get(f"/cases/{case_id}", part=True)
    assert ("physicist", "see patient", case_id, "ok") in ward.audited()


# -- the address ----------------------------------------------------------------------------------------------------


FILTERED: list[tuple[dict[str, str], list[str]]] = [
    ({"patient": "MRN2"}, ["2"]),
    ({"patient": "mrn*"}, ["3", "2", "1"]),
    ({"state": "failed"}, ["1"]),
    ({"state": "FAILED,HELD"}, ["2", "1"]),
    ({"study": "1.2.3"}, ["3"]),
    ({"series": "1.2.3.1"}, ["1"]),
    ({"from": "CT2"}, ["3"]),
    ({"to": "tps"}, ["3"]),
    ({"bundle": "demo"}, ["3", "2", "1"]),
    ({"since": "1h"}, ["3", "2", "1"]),
    ({"older": "1h"}, []),
    ({"stuck": "1"}, []),
    ({"limit": "1"}, ["3"]),
    ({"tab": "needs-you", "from": "CTSIM"}, ["2", "1"]),
    ({"tab": "done", "state": "SENT"}, ["3"]),
    ({"after": "2"}, ["1"]),
    ({"unknown": "1"}, ["3", "2", "1"]),
]


def test_the_address_filters_as_the_command_line_does(ward):
    viewer = ward.visitor(Role.PHYSICIST)
    ward.department.failed(patient="MRN1")
    ward.department.held(patient="MRN2")
    ward.department.sent(patient="MRN3", ae="CT2")
    for query, ids in FILTERED:
        assert ids_in(viewer.get("/", **query)) == ids, query
        assert ids_in(viewer.get("/rows", part=True, **query)) == ids, query


MISTAKES: list[tuple[dict[str, str], str]] = [
    ({"state": "LOST"}, "LOST is no state"),
    ({"state": "SENT,<b>"}, "&lt;B&gt; is no state"),
    ({"since": "yesterday"}, "is no time"),
    ({"older": "9" * 50}, "is no time"),
    ({"limit": "0"}, "from 1 to 500"),
    ({"limit": "501"}, "from 1 to 500"),
    ({"limit": "٣"}, "from 1 to 500"),
    ({"stuck": "maybe"}, "stuck is 1"),
    ({"tab": "lost"}, "there is no such tab"),
    ({"tab": "done", "state": "HELD"}, "the tab All has it"),
    ({"patient": "a\x00b"}, "none that cannot be shown"),
    ({"patient": "x" * 201}, "at most 200"),
    ({"after": "x"}, "there is no job x"),
    ({"after": "1;DROP TABLE job"}, "there is no job"),
]


def test_a_filter_that_means_nothing_is_answered_by_a_sentence_beside_the_form(viewer):
    for query, says in MISTAKES:
        text = viewer.get("/", status=422, **query)
        assert says in text
        assert 'id="f-patient"' in text
        viewer.get("/rows", status=422, part=True, **query)


TYPED = ("' OR 1=1 --", '"><script>alert(1)</script>', "{{ 7*7 }}", "%", "_", "\\", "\ufffd")


@pytest.mark.parametrize("value", TYPED)
def test_what_is_typed_into_a_filter_does_nothing(ward, value):
    viewer = ward.visitor(Role.PHYSICIST)
    ward.department.failed()
    for name in ("patient", "study", "series", "from", "to", "bundle"):
        text = viewer.get("/rows", **{name: value})
        assert ids_in(text) == []
        assert "<script>alert" not in text
        assert value not in ("{{ 7*7 }}",) or "49" not in text
    assert "<script>alert" not in viewer.get("/", patient=value)


def test_the_listing_goes_on_page_by_page_and_comes_back(ward, viewer):
    for _ in range(5):
        ward.department.failed()
    seen, query = [], {"limit": "2", "state": "FAILED"}
    text = viewer.get("/", **query)
    while True:
        seen.append(ids_in(text))
        older = re.search(r'id="older" href="([^"]+)"', text)
        if older is None:
            break
        text = viewer.get(older[1].replace("&amp;", "&"))
    assert seen == [["5", "4"], ["3", "2"], ["1"]]
    newest = re.search(r'id="newest" href="([^"]+)"', text)
    assert newest is not None
    assert ids_in(viewer.get(newest[1].replace("&amp;", "&"))) == ["5", "4"]


def test_text_of_a_peer_is_shown_and_never_obeyed(ward, viewer):
    case_id = ward.department.failed(reason="<img src=x onerror=alert(1)> `rm`", ae="<b>CT</b>")
    for path in ("/", f"/cases/{case_id}"):
        text = viewer.get(path)
        assert "<img" not in text
        assert "<b>CT" not in text
        assert "&lt;img src=x" in text


@pytest.mark.parametrize("case_id", ["99", "x", "1'", "1-99", "0", "9" * 40])
def test_a_case_that_is_not_there_is_not_found(ward, viewer, case_id):
    ward.department.failed()
    for path in ("", "/live", "/verbs"):
        assert "there is no job" in viewer.get(f"/cases/{case_id}{path}", status=404)


# -- the lights -----------------------------------------------------------------------------------------------------


def test_the_lights_say_what_status_says(ward):
    ward.department.sending()
    ward.node.peers.failed("tps", "connection refused", START)
    text = ward.visitor().get("/lights", part=True)
    assert "<strong>DOWN</strong>" in text
    assert "the receiver does not run" in text
    for name in ("Receiver", "Completion", "Worker", "Courier", "Watch", "To tps", "Disk", "Certificates"):
        assert f'<span class="name">{name}</span>' in text
    assert re.search(
        r'To tps</span> <strong class="word">DOWN</strong>\s*<span class="text">cannot be reached', text
    ), text
    assert "open job 1" in text
    assert "none is open" in text


def test_nobody_sees_anything_without_a_login(ward):
    from starlette.testclient import TestClient

    browser = TestClient(ward.app, "http://localhost:8042", follow_redirects=False)
    for path in ("/", "/rows", "/lights", "/cases/1", "/cases/1/live"):
        assert browser.get(path).status_code in (303, 401)


def test_nobody_guesses_a_masked_patient_id_piece_by_piece(ward, viewer):
    case_id = ward.department.held(patient="CANARY4711")
    for path in ("/", "/rows"):
        for guess in ("CAN*", "?ANARY4711", "*"):
            text = viewer.get(path, status=422, patient=guess)
            assert ids_in(text) == []
    assert ward.audited() == []
    physicist = ward.visitor(Role.PHYSICIST)
    assert ids_in(physicist.get("/", patient="can*")) == [case_id]


def test_a_search_for_a_patient_is_noted_once_and_without_the_patient(ward, viewer):
    case_id = ward.department.held(patient="CANARY4711")
    for path in ("/", "/rows", "/rows"):
        assert ids_in(viewer.get(path, patient="canary4711")) == [case_id]
    viewer.get("/rows", patient="CANARY4712")
    assert ward.audited() == [("viewer", "find patient", "", "ok")] * 2
    assert "CANARY" not in repr([*ward.node.audit.newest()]).upper()

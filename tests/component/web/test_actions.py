"""The buttons of a case: who may press which, what is asked first, and what stands in the history afterwards."""

import re
from datetime import timedelta

import pytest

from node.web.access import ROLE_OF_VERB, Role
from node.web.actions import BUTTONS
from storage.errors import StoreUnavailable
from tests.departments import START

ASKING = {"cancel", "reject", "drop", "purge", "allow_again"}


def offered(text: str) -> set[str]:
    return set(re.findall(r'id="do-(\w+)"', text))


def test_every_verb_of_the_roles_has_a_button():
    assert set(BUTTONS) == set(ROLE_OF_VERB)
    assert {verb for verb, button in BUTTONS.items() if button.asks} == ASKING


@pytest.mark.parametrize("role", list(Role))
def test_a_role_sees_and_presses_only_its_own_buttons(ward, role):
    held, failed, sent = ward.department.held(), ward.department.failed(), ward.department.sent()
    case_of = {"release": held, "reject": held, "retry": failed, "cancel": failed, "resend": sent}
    visitor = ward.visitor(role)
    for verb, case_id in case_of.items():
        may = role >= ROLE_OF_VERB[verb]
        assert (verb in offered(visitor.get(f"/cases/{case_id}"))) is may
        if not may:
            visitor.post(f"/cases/{case_id}/{verb}", status=403, reason="r", confirmed="yes")
    for verb in set(ROLE_OF_VERB) - set(case_of):
        if role < ROLE_OF_VERB[verb]:
            visitor.post(f"/cases/{sent}/{verb}", status=403, reason="r", confirmed="yes")
    for case_id, state in ((held, "HELD"), (failed, "FAILED"), (sent, "SENT")):
        assert ward.node.overview.case(case_id).state == state


@pytest.mark.parametrize(
    ("make", "verb", "role", "after"),
    [
        ("failed", "retry", Role.OPERATOR, "QUEUED"),
        ("queued", "set_turn", Role.OPERATOR, "QUEUED"),
        ("skipped", "retry", Role.OPERATOR, "RECEIVING"),
        ("failed", "cancel", Role.OPERATOR, "CANCELLED"),
        ("incomplete", "cancel", Role.OPERATOR, "SKIPPED"),
        ("held", "release", Role.PHYSICIST, "PRODUCED"),
        ("held", "reject", Role.PHYSICIST, "REJECTED"),
        ("sent", "resend", Role.OPERATOR, "PRODUCED"),
        ("sent", "purge", Role.ADMIN, "SENT"),
        ("failed", "drop", Role.ADMIN, "SUPERSEDED"),
    ],
)
def test_a_verb_is_done_as_the_command_line_does_it(ward, make, verb, role, after):
    case_id = getattr(ward.department, make)()
    visitor = ward.visitor(role)
    text = visitor.post(f"/cases/{case_id}/{verb}", reason="looked at it", confirmed="yes", from_="CTSIM")
    assert 'role="status">Job ' in text
    case = ward.node.overview.case(case_id)
    assert case.state == after
    assert (str(role), verb, case_id, "ok") in ward.audited()
    if verb != "purge":
        (event, *_) = [one for one in ward.node.overview.events(case) if one.actor.startswith("operator")]
        assert event.actor == f"operator Dr. {role.title()} ({role})"
        assert "looked at it" in event.reason


def test_a_reopened_case_is_what_it_was(ward):
    case_id, visitor = ward.department.failed(), ward.visitor(Role.OPERATOR)
    visitor.post(f"/cases/{case_id}/cancel", confirmed="yes")
    assert "reopen" in offered(visitor.get(f"/cases/{case_id}"))
    assert "it is QUEUED again" in visitor.post(f"/cases/{case_id}/reopen")


def test_a_dropped_sender_may_be_let_in_again(ward):
    case_id, visitor = ward.department.failed(ae="WORKSTATION"), ward.visitor(Role.ADMIN)
    visitor.post(f"/cases/{case_id}/drop", confirmed="yes", from_="WORKSTATION")
    newest = ward.node.overview.cases(limit=1)[0].id
    text = visitor.post(f"/cases/{newest}/allow_again")
    assert "<option>WORKSTATION</option>" in text
    assert "may send for it again" in visitor.post(f"/cases/{newest}/allow_again", confirmed="yes", from_="WORKSTATION")
    assert "nothing of any sender was dropped" in visitor.post(f"/cases/{newest}/allow_again", status=409)


def test_what_stands_at_a_destination_is_acknowledged(ward):
    case_id, visitor = ward.department.sending(accepted=1), ward.visitor(Role.OPERATOR)
    assert "delete" in visitor.post(f"/cases/{case_id}/cancel", confirmed="yes")
    assert ward.node.overview.case(case_id).leftovers == ("tps",)
    assert "dealt with" in visitor.post(f"/cases/{case_id}/acknowledge")
    assert ward.node.overview.case(case_id).leftovers == ()


@pytest.mark.parametrize("verb", sorted(ASKING - {"allow_again"}))
def test_what_cannot_be_taken_back_lightly_is_asked_once_more_and_names_the_case(ward, verb):
    case_id = ward.department.sent() if verb == "purge" else ward.department.held()
    before = ward.node.overview.case(case_id).state
    text = ward.visitor(Role.ADMIN).post(f"/cases/{case_id}/{verb}", reason="looked at it")
    assert f" job {case_id}?</h2>" in text
    assert "PATIENT …45, series 1 CT CHEST" in text
    assert 'name="confirmed" value="yes"' in text
    assert ">looked at it</textarea>" in text
    assert ward.node.overview.case(case_id).state == before
    assert ward.node.overview.case(case_id).purged_at is None


@pytest.mark.parametrize("verb", ["release", "reject"])
def test_a_decision_about_a_result_needs_a_reason(ward, verb):
    case_id, visitor = ward.department.held(), ward.visitor(Role.PHYSICIST)
    for reason in ("", " \t "):
        text = visitor.post(f"/cases/{case_id}/{verb}", status=422, reason=reason, confirmed="yes")
        assert "Write a reason first" in text
    assert ward.node.overview.case(case_id).state == "HELD"


def test_a_reason_that_is_too_long_is_kept_for_the_person_and_not_for_the_store(ward):
    case_id, visitor = ward.department.held(), ward.visitor(Role.PHYSICIST)
    text = visitor.post(f"/cases/{case_id}/release", status=422, reason="x" * 1001)
    assert "1001 characters" in text
    assert "x" * 1000 in text


def test_a_verb_that_would_be_refused_says_why_and_is_no_button(ward):
    case_id, visitor = ward.department.sent(), ward.visitor(Role.ADMIN)
    text = visitor.get(f"/cases/{case_id}")
    assert offered(text) == {"resend", "cancel", "drop", "purge"}
    assert "<strong>Try again</strong>: it is SENT, and only what FAILED" in text
    text = visitor.post(f"/cases/{case_id}/release", status=409, reason="r")
    assert "only a HELD result can be released" in text
    assert ("admin", "release", case_id, "refused") in ward.audited()


def test_to_press_twice_does_it_once(ward):
    case_id, visitor = ward.department.sent(), ward.visitor(Role.OPERATOR)
    seen = re.search(r'name="seen" value="([^"]+)"', visitor.get(f"/cases/{case_id}"))
    assert seen is not None
    visitor.post(f"/cases/{case_id}/resend", seen=seen[1])
    text = visitor.post(f"/cases/{case_id}/resend", status=409, seen=seen[1])
    assert "look again before you decide" in text
    by_person = [e for e in ward.node.overview.events(ward.node.overview.case(case_id)) if "operator" in e.actor]
    assert len(by_person) == 1


def test_nobody_decides_about_what_a_case_is_no_more(ward):
    case_id, visitor = ward.department.failed(), ward.visitor(Role.OPERATOR)
    text = visitor.post(f"/cases/{case_id}/cancel", status=409, confirmed="yes", seen="RUNNING 2026-01-01")
    assert "it was RUNNING when you looked and is FAILED now" in text


@pytest.mark.parametrize("sender", ["", "NOBODY", "DOE^JANE\x00", "x" * 5000])
@pytest.mark.parametrize("verb", ["drop", "allow_again"])
def test_a_sender_that_the_series_does_not_have_is_neither_asked_for_nor_noted(ward, verb, sender):
    case_id, visitor = ward.department.failed(), ward.visitor(Role.ADMIN)
    if verb == "allow_again":
        ward.node.series.drop(ward.node.overview.case(case_id).series_id, "CTSIM", "operator x", "", START)
        case_id = ward.node.overview.cases()[0].id
    text = visitor.post(f"/cases/{case_id}/{verb}", status=422, confirmed="yes", from_=sender)
    assert "Choose the sender" in text
    assert ward.audited() == []


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("x"), 500), (StoreUnavailable("x"), 503)])
def test_a_deed_that_ends_by_an_error_is_not_noted_as_done(ward, monkeypatch, error, status):
    case_id, visitor = ward.department.failed(), ward.visitor(Role.OPERATOR)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(ward.node.jobs), "retry", fail)
    visitor.post(f"/cases/{case_id}/retry", status=status)
    assert [row[3] for row in ward.audited()] == ["ok", "failed"]


def test_the_history_names_the_login_however_long_the_full_name_is(ward):
    case_id, anna = ward.department.failed(), ward.visitor(Role.OPERATOR, full_name="Prof. Dr. " + "Anna-Maria " * 20)
    anna.post(f"/cases/{case_id}/retry")
    (event,) = [e for e in ward.node.overview.events(ward.node.overview.case(case_id)) if "operator" in e.actor]
    assert event.actor.endswith("... (operator)")


def test_without_a_script_a_button_leads_back_to_the_case(ward):
    case_id, visitor = ward.department.failed(), ward.visitor(Role.OPERATOR)
    answer = visitor.browser.post(f"/cases/{case_id}/retry", data={"csrf": visitor.csrf})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/cases/{case_id}?did=retry")
    assert "queued again" in visitor.get(answer.headers["location"])
    assert "<b>" not in visitor.get(f"/cases/{case_id}", did="<b>")


def test_a_form_without_its_token_does_nothing(ward):
    case_id, visitor = ward.department.failed(), ward.visitor(Role.ADMIN)
    for path in ("retry", "reveal"):
        assert visitor.browser.post(f"/cases/{case_id}/{path}", data={}).status_code == 403
        assert visitor.browser.post(f"/cases/{case_id}/{path}", data={"csrf": "x"}).status_code == 403
    assert ward.node.overview.case(case_id).state == "FAILED"


def test_a_resend_goes_only_where_it_is_asked_for(ward):
    case_id, visitor = ward.department.sent(), ward.visitor(Role.OPERATOR)
    assert "No destination is named pacs" in visitor.post(f"/cases/{case_id}/resend", status=422, to="pacs")
    assert "it goes to tps" in visitor.post(f"/cases/{case_id}/resend", to="tps")


@pytest.mark.parametrize("verb", ["explode", "__init__", "show", "live"])
def test_there_are_no_other_verbs(ward, verb):
    case_id = ward.department.failed()
    ward.visitor(Role.ADMIN).post(f"/cases/{case_id}/{verb}", status=404)


def test_nobody_decides_about_images_that_were_made_anew_since(ward, monkeypatch) -> None:
    visitor, case_id = ward.visitor(Role.PHYSICIST), ward.department.held()
    forms = re.findall(r'name="seen" value="([^"]+)"', visitor.get(f"/cases/{case_id}/review"))
    assert len(forms) == 2
    later = START + timedelta(hours=1)
    monkeypatch.setattr("tests.departments.START", later)
    ward.node.jobs.retry(1, "operator mia", "the limits were wrong", later)
    monkeypatch.setattr(ward.node.spool, "publish", lambda _staged: "derived/1-2")
    ward.department._finish(case_id, held_reason="looks enhanced")
    for verb, seen in zip(("release", "reject"), forms, strict=True):
        text = visitor.post(f"/cases/{case_id}/{verb}", status=409, part=False, reason="fine", seen=seen)
        assert "somebody was faster; look again before you decide" in text

"""What a person decides: asked where it stops a series, taken back where it was a typo, and told for every id."""

import io
import json

import pytest


class Terminal(io.StringIO):
    """Standard input where a person sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def answers(monkeypatch):
    """Lets a person answer the questions of the next command."""
    return lambda *lines: monkeypatch.setattr("sys.stdin", Terminal("".join(f"{line}\n" for line in lines)))


def state(department, case_id):
    return department.node.overview.case(case_id).state


def jobs_events(run, case_id):
    return json.loads(run("jobs", "events", case_id, "--json")[1])


# -- asking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "done"), [("cancel", "CANCELLED"), ("reject", "REJECTED")])
@pytest.mark.parametrize("answer", ["", "n", "nein"])
def test_what_stops_a_series_asks_and_no_is_the_default(run, department, answers, verb, done, answer) -> None:
    case_id = department.held()
    answers(answer, "n")
    code, _, err = run("jobs", verb, case_id)
    assert (code, state(department, case_id)) == (0, "HELD")
    assert f"{verb} {case_id}: PATIENT …45, series 1 CT CHEST 2026-11-26 08:30, 3 slices, HELD? [y/N]" in err
    assert "left as it is" in err
    answers("y")
    assert run("jobs", verb, case_id)[0] == 0
    assert state(department, case_id) == done


def test_the_question_says_what_a_tps_has(run, department, answers) -> None:
    sent, part = department.sent(), department.sending(accepted=2)
    answers("n", "n")
    err, known = run("jobs", "cancel", sent, part)[2], "CT CHEST 2026-11-26 08:30"
    assert f"cancel {sent}: PATIENT …45, series 1 {known}, 3 slices, SENT to tps? [y/N]" in err
    assert f"cancel {part}: PATIENT …45, series 2 {known}, 3 slices, SENDING, 2/3 to tps? [y/N]" in err


@pytest.mark.parametrize("verb", ["cancel", "reject"])
def test_where_nobody_can_be_asked_yes_must_be_said(run, department, verb) -> None:
    case_id = department.held()
    code, _, err = run("jobs", verb, case_id)
    assert (code, state(department, case_id)) == (2, "HELD")
    assert "--yes" in err
    assert run("jobs", verb, case_id, "--yes")[0] == 0


def test_what_will_be_refused_is_not_asked_first(run, department, answers) -> None:
    case_id = department.sent()
    answers()
    code, _, err = run("jobs", "reject", case_id)
    assert (code, "[y/N]" in err) == (4, False)
    assert "only a HELD result can be rejected" in err


# -- taking back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "verb", "back"),
    [
        ("held", "cancel", "HELD"),
        ("held", "reject", "HELD"),
        ("queued", "cancel", "QUEUED"),
        ("failed", "cancel", "QUEUED"),
        ("produced", "cancel", "PRODUCED"),
        ("sent", "cancel", "SENT"),
    ],
)
def test_a_cancel_and_a_reject_are_taken_back(run, department, make, verb, back) -> None:
    case_id = getattr(department, make)()
    run("jobs", verb, case_id, "--yes")
    code, _, err = run("jobs", "reopen", case_id, "--reason", "it was the wrong number")
    assert (code, state(department, case_id)) == (0, back)
    assert f"{case_id}: reopened; it is {back} again" in err
    assert "it was the wrong number" in [event["reason"] for event in jobs_events(run, case_id)]
    assert run("jobs", "reopen", case_id)[0] == 4


def test_what_a_tps_holds_is_never_hidden_and_acknowledged_once(run, department) -> None:
    case_id = department.sent()
    err = run("jobs", "cancel", case_id, "--yes", "--reason", "wrong patient")[2]
    for text in ("delete series 301 at tps", "delivered 3/3 to tps, cancelled afterwards: wrong patient"):
        assert text in err
        assert text in run("jobs", "ls")[1]
        assert text in run("jobs", "show", case_id)[1].replace("\n", " ")
    why = run("jobs", "why", case_id)[1]
    assert f"`syncect jobs acknowledge {case_id}`" in why
    code, _, err = run("jobs", "acknowledge", case_id, "--reason", "deleted by planning")
    assert (code, "what stood at tps is dealt with" in err) == (0, True)
    listed = run("jobs", "ls")[1]
    assert "needs a person" not in listed
    assert "delivered 3/3 to tps, cancelled afterwards" in listed
    assert run("jobs", "acknowledge", case_id)[0] == 4
    assert jobs_events(run, case_id)[-1]["reason"] == "deleted by planning"


# -- overruling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [(), ("--reason", ""), ("--reason", " \t\n")])
def test_a_release_needs_a_reason(run, department, reason) -> None:
    case_id = department.held()
    code, _, err = run("jobs", "release", case_id, *reason)
    assert (code, state(department, case_id)) == (2, "HELD")
    assert "--reason" in err


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("[bold]checked[/bold] :smile:", "[bold]checked[/bold] :smile:"),
        ("a\x1b[2Jb\x07", "a?[2Jb?"),
        ("two\nlines\t and  more", "two lines and more"),
        ("Dr. Müller 確認", "Dr. Müller 確認"),
    ],
)
def test_what_a_person_typed_is_kept_as_plain_text(run, department, typed, kept) -> None:
    case_id = department.held()
    assert run("jobs", "release", case_id, "-m", typed)[0] == 0
    assert kept in [event["reason"] for event in jobs_events(run, case_id)]
    assert kept in run("jobs", "events", case_id)[1]
    assert run("jobs", "release", department.held(), "-m", "x" * 1001)[0] == 2


def test_a_hold_without_a_result_cannot_be_released(run, department) -> None:
    case_id = department.stuck_without_product()
    code, _, err = run("jobs", "release", case_id, "-m", "seen")
    assert (code, "nothing was produced" in err) == (4, True)


# -- several at once ---------------------------------------------------------------------------------------------------


def test_a_bad_id_stops_no_other_and_the_summary_tells_all(run, department) -> None:
    first, done, last = department.held(), department.skipped(), department.queued()
    code, _, err = run("jobs", "cancel", first, "77", done, "\x1b[31m", last, first, "--yes")
    assert (state(department, first), state(department, last)) == ("CANCELLED", "CANCELLED")
    assert err.splitlines()[-1] == "2 cancelled, 2 not found, 1 refused"
    assert code == 4
    assert "\x1b" not in err
    assert "there is no job 77" in err
    assert f"syncect: {done}: it is SKIPPED and has no job yet" in err


@pytest.mark.parametrize(("ids", "code"), [(("1", "77"), 3), (("77", "78"), 3), (("77", "2"), 4), (("1",), 0)])
def test_the_exit_code_is_that_of_the_worst(run, department, ids, code) -> None:
    department.held()
    department.sent()
    assert run("jobs", "reject", *ids, "--yes")[0] == code


def test_a_fault_of_one_is_told_and_the_next_goes_on(run, department) -> None:
    broken, whole = department.held(), department.held()
    folder = department.node.spool.path(department.node.overview.case(broken).product_dir)
    (folder / "0001.dcm").unlink()
    code, _, err = run("jobs", "release", broken, whole, "-m", "seen")
    assert (code, state(department, broken), state(department, whole)) == (1, "HELD", "PRODUCED")
    assert err.splitlines()[-1] == "1 failed, 1 released"


@pytest.mark.parametrize(
    ("make", "command"),
    [
        ("held", ["cancel"]),
        ("held", ["reject"]),
        ("held", ["release", "-m", "seen"]),
        ("failed", ["retry"]),
        ("sent", ["resend"]),
        ("incomplete", ["complete"]),
    ],
)
def test_a_dry_run_tells_and_does_nothing(run, department, monkeypatch, make, command) -> None:
    monkeypatch.setattr("node.operate.verbs.why_incomplete", lambda _node, _case: "")
    case_id = getattr(department, make)()
    before = department.node.overview.case(case_id)
    code, _, err = run("jobs", *command, case_id, "--dry-run")
    assert (code, "would be" in err) == (0, True)
    assert department.node.overview.case(case_id) == before
    code, _, err = run("jobs", *command, department.arrive(), "77", "--dry-run")
    assert (code, err.splitlines()[-1]) == (4, "1 refused, 1 not found")


def test_all_that_failed_is_tried_again_with_one_command(run, department, answers) -> None:
    failed = [department.failed(), department.failed(), department.send_failed()]
    held = department.held()
    assert run("jobs", "retry")[0] == 2
    assert run("jobs", "retry", "1", "--state", "FAILED")[0] == 2
    assert run("jobs", "retry", "--state", "FAILED")[0] == 2
    code, _, err = run("jobs", "retry", "--state", "failed", "--yes")
    assert (code, err.splitlines()[-1]) == (0, "3 queued again")
    assert [state(department, case_id) for case_id in failed] == ["QUEUED", "QUEUED", "PRODUCED"]
    assert state(department, held) == "HELD"


def test_resend_knows_the_destinations_and_says_them(run, department, config) -> None:
    case_id = department.sent()
    code, _, err = run("jobs", "resend", case_id, "--to", "nobody")
    assert (code, "there are tps" in err) == (2, True)
    assert "it goes to tps" in run("jobs", "resend", case_id)[2]
    config.write_text("")
    code, _, err = run("jobs", "resend", case_id)
    assert (code, "no destination is set" in err) == (4, True)


def test_a_series_with_a_gap_is_not_completed(run, department, monkeypatch) -> None:
    case_id = department.incomplete()
    monkeypatch.setattr("node.operate.verbs.why_incomplete", lambda _node, _case: "slices are missing at 15 mm")
    code, _, err = run("jobs", "complete", case_id)
    assert (code, state(department, case_id)) == (4, "INCOMPLETE")
    assert "slices are missing at 15 mm" in err


def test_a_user_without_a_name_on_this_machine_is_a_number(monkeypatch) -> None:
    from node.cli.console import operator

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert operator().removeprefix("operator ").isdecimal()


def test_what_a_person_typed_as_an_id_does_nothing_to_the_terminal(run, department) -> None:
    code, _, err = run("jobs", "show", "\x1b[31m:boom:[bold]")
    assert (code, err) == (3, "syncect: there is no job ?[31m:boom:[bold]; `syncect jobs ls` lists them\n")


# -- a delivery that is held -----------------------------------------------------------------------------------------


def test_a_held_delivery_is_seen_everywhere_and_let_go_with_a_reason(run, department) -> None:
    case_id = department.delivery_held()
    (listed,) = json.loads(run("jobs", "ls", "--state", "HELD", "--json")[1])
    assert (listed["state"], listed["reason"]) == ("HELD", "tps knows the PatientID with another PatientName")
    assert listed["deliveries"][0]["held_for"] == listed["reason"]
    assert f"`syncect jobs release {case_id} --reason ...` sends it all the same" in " ".join(
        run("jobs", "why", case_id)[1].split()
    )
    assert "held for a person" in run("jobs", "show", case_id)[1]
    assert run("jobs", "release", case_id)[0] == 2
    assert run("jobs", "reject", case_id, "--yes")[0] == 4
    assert run("jobs", "resend", case_id)[0] == 4
    code, _, err = run("jobs", "release", case_id, "--reason", "she married")
    assert (code, "it goes to tps" in err, state(department, case_id)) == (0, True, "PRODUCED")
    (view,) = department.node.overview.case(case_id).deliveries
    assert (view.held_for, view.override.endswith(": she married")) == ("", True)
    assert run("jobs", "release", case_id, "--reason", "again")[0] == 4

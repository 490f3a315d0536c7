"""`syncect recall`: who is concerned, what is withdrawn, what goes by itself, and what a person has to delete."""

import io
import json
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from node.operate.next_steps import facts_of, next_step
from node.ops.processes import process_lock
from storage.tables import Job, Series
from tests.departments import START

PATIENT = "MRN0012345"


class Terminal(io.StringIO):
    """Standard input where a person sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def takes_notes(config):
    """The destination `tps` gets rejection notes."""
    text = config.read_text()
    assert text.count('name = "tps"') == 1
    config.write_text(text.replace('name = "tps"', 'name = "tps"\nrejection_notes = true\nconfirm = "find"'))


def recalled(run, *arguments):
    code, out, _ = run("recall", *arguments, "--json")
    return code, json.loads(out)


def states(department):
    return {case.id: case.state for case in department.node.overview.cases()}


def test_all_that_a_bundle_made_is_withdrawn_and_nothing_else(run, department) -> None:
    delivered = department.sent()
    failed = department.failed()
    held = department.held()
    other = department.queued(bundle="demo2 1 (def)")
    waiting = department.queued()
    code, said = recalled(run, "--bundle", "demo", "--reason", "wrong weights", "--yes")
    assert code == 1, "something stands"
    assert states(department) == {
        **dict.fromkeys((delivered, failed, held, waiting), "RECALLED"),
        other: "QUEUED",
    }
    assert (said["results"], said["patients"], said["standing"]) == (4, 1, 1)
    (item,) = said["items"]
    assert (item["id"], item["destination"], item["images"], item["outcome"]) == (delivered, "tps", 3, "by_hand")
    assert (item["stands"], item["needs_person"], item["patient_id"]) == (True, True, "…45")
    event = department.node.overview.events(department.node.overview.case(held))[-1]
    assert (event.to_state, event.reason) == ("CANCELLED", "recalled: wrong weights")
    assert department.node.jobs.claim("w", 60, START).bundle == "demo2 1 (def)"
    assert department.node.jobs.claim("w", 60, START) is None


def test_a_dry_run_says_the_same_and_does_nothing(run, department) -> None:
    case_id = department.sent()
    department.queued()
    before = states(department)
    code, out, err = run("recall", "--bundle", "demo 1 (abc)", "--dry-run")
    assert (code, states(department)) == (0, before)
    assert "2 results of 1 patient: 1 at tps, 1 under way" in err
    assert "delete it there: this destination gets no rejection notes" in out
    assert PATIENT not in out + err
    assert run("recall", "--case", case_id, "--dry-run", "--phi")[1].count(PATIENT) == 1


def test_only_what_arrived_in_that_time(run, department) -> None:
    old, new = department.sent(), department.queued()
    with department.node.database.write() as session:
        session.execute(update(Job).where(Job.id == 1).values(created_at=START - timedelta(days=30)))
        session.execute(update(Series).where(Series.id == 1).values(created_at=START - timedelta(days=30)))
    assert recalled(run, "--bundle", "demo", "--since", "3d", "--dry-run")[1]["results"] == 1
    recalled(run, "--bundle", "demo", "--before", "3d", "--yes")
    assert states(department) == {old: "RECALLED", new: "QUEUED"}


def test_a_person_is_asked_and_no_is_the_default(run, department, monkeypatch) -> None:
    case_id = department.sent()
    assert run("recall", "--case", case_id)[0] == 2, "there is nobody to ask"
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    code, _, err = run("recall", "--case", case_id)
    assert (code, states(department)) == (0, {case_id: "SENT"})
    assert "recall 1 result? They never come back [y/N]" in err
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run("recall", "--case", case_id)[0] == 1
    assert states(department) == {case_id: "RECALLED"}


def test_what_names_nothing_is_refused(run, department) -> None:
    department.sent()
    department.arrive()
    for code, arguments in (
        (2, []),
        (2, ["--bundle", "demo", "--case", "1"]),
        (2, ["--case", "1", "--since", "3d"]),
        (2, ["--bundle", "demo", "--since", "yesterdayish"]),
        (3, ["--bundle", "dem"]),
        (3, ["--case", "77"]),
        (4, ["--case", "2"]),
    ):
        assert run("recall", *arguments, "--yes")[0] == code, arguments
    assert states(department)["1"] == "SENT"


@pytest.mark.usefixtures("takes_notes")
def test_without_a_courier_it_says_that_nothing_goes_out(run, department) -> None:
    department.sent()
    code, out, err = run("recall", "--case", "1", "--yes", "--wait", "600")
    assert code == 1
    assert "no courier runs on this host" in err
    assert "the rejection note is on its way" in out
    case = department.node.overview.case("1")
    assert "Start `syncect serve`" in next_step(case, facts_of(department.node, case))


@pytest.mark.usefixtures("takes_notes")
def test_it_waits_until_the_destination_lists_none_of_it(run, department, monkeypatch) -> None:
    department.sent()
    node, moments = department.node, iter(range(10))

    def courier(_seconds: float) -> None:
        at = START + timedelta(hours=next(moments) + 1)
        if (due := node.notes.claim("tps", at)) is not None:
            node.notes.sent(due, "c", "", at)
        elif (asked := node.outbox.awaiting_removal("tps", at)) is not None:
            node.outbox.gone(asked.id, "c", "it lists none", asked_at=at, now=at)

    monkeypatch.setattr("node.cli.recall.time.sleep", courier)
    with process_lock(node.run_dir, "deliver", "1"):
        code, said = recalled(run, "--case", "1", "--yes")
    assert (code, said["standing"], said["items"][0]["outcome"]) == (0, 0, "gone")
    assert recalled(run, "--case", "1", "--yes") == (0, said), "to say it again changes nothing"
    assert run("recall", "--case", "1", "--yes")[1] == "nothing stands (1 gone).\n"


@pytest.mark.usefixtures("takes_notes")
def test_what_a_kill_left_is_done_by_the_next_run(run, department, monkeypatch) -> None:
    ids = [department.sent(), department.sent()]
    node, real = department.node, type(department.node.recalls).recall
    done: list[int] = []

    def dies(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        if done:
            raise KeyboardInterrupt
        real(self, job_id, actor, reason, now)
        done.append(job_id)

    with monkeypatch.context() as patch:
        patch.setattr("storage.recalls.RecallStore.recall", dies)
        assert run("recall", "--bundle", "demo", "--yes")[0] == 130
    assert sorted(states(department).values()) == ["RECALLED", "SENT"]
    run("recall", "--bundle", "demo", "--yes")
    assert states(department) == dict.fromkeys(ids, "RECALLED")
    assert [len(node.overview.case(one).leftovers) for one in ids] == [1, 1]


@pytest.mark.usefixtures("takes_notes")
def test_a_note_that_was_refused_stands_on_the_list_with_its_reason(run, department) -> None:
    department.sent()
    recalled(run, "--case", "1", "--yes")
    node, at = department.node, START + timedelta(hours=1)
    node.notes.fail(node.notes.claim("tps", at).id, "c", "it accepts none of the SOP classes", at)
    code, out, _ = run("recall", "--case", "1", "--dry-run")
    assert (code, "the rejection note was not taken: it accepts none of the SOP classes" in out) == (1, True)
    assert "Delete series 301 at tps" in run("jobs", "why", "1")[1]
    assert run("jobs", "acknowledge", "1")[0] == 0
    assert run("recall", "--case", "1", "--dry-run")[0] == 0


def test_its_series_is_translated_anew_when_a_person_says_so(run, department) -> None:
    department.queued()
    run("recall", "--case", "1", "--yes")
    assert "`syncect jobs retry 1` translates the series" in run("jobs", "why", "1")[1]
    assert run("jobs", "reopen", "1")[0] == 4
    code, _, err = run("jobs", "retry", "1")
    assert (code, "judged anew" in err) == (0, True)
    assert department.node.overview.cases()[0].state == "RECEIVING"


@pytest.mark.usefixtures("takes_notes")
def test_a_cancelled_result_whose_note_went_out_is_made_anew_only_from_the_beginning(run, department) -> None:
    department.sent()
    run("jobs", "cancel", "1", "--yes")
    node, at = department.node, START + timedelta(hours=1)
    node.notes.sent(node.notes.claim("tps", at), "c", "", at)
    assert run("jobs", "reopen", "1")[0] == 4
    why = run("jobs", "why", "1")[1]
    assert "tps took the rejection note: look whether series 301 is gone there" in why
    run("jobs", "acknowledge", "1")
    assert "`syncect jobs purge 1` and send the series again" in run("jobs", "why", "1")[1]
    assert run("jobs", "purge", "1", "--yes")[0] == 0

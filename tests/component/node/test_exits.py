"""No state is a dead end: each arrow that an operator draws is drawn by the command that it names, in a real store."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select

from node.operate.next_steps import NEXT_STEP, Facts, next_step
from storage.series import Arrival
from storage.states import (
    DELIVERY_ARROWS,
    FINAL_STATES,
    JOB_ARROWS,
    SERIES_ARROWS,
    DeliveryState,
    JobState,
    SeriesState,
    State,
)
from storage.tables import Delivery, Job, Series
from tests.builders import make_series
from tests.departments import START, Department

Run = Callable[..., tuple[int, str, str]]
Make = Callable[[Department], str]

MACHINES: list[Mapping[Any, Mapping[Any, str]]] = [SERIES_ARROWS, JOB_ARROWS, DELIVERY_ARROWS]
OPTIONS = {
    "cancel": ["--yes"],
    "reject": ["--yes"],
    "release": ["--reason", "seen"],
    "drop": ["--from", "CTSIM", "--yes"],
}


def whole_but_broken_off(department: Department) -> str:
    """A series that is all there, of which nobody knows it: its association was aborted."""
    store, now = department.node.series, START - timedelta(days=1)
    association = store.open_association("r", "CTSIM", "h", now)
    for path in make_series(department.node.settings.node.data_dir / "scan", slices=12):
        data, ds = path.read_bytes(), dcmread(path, stop_before_pixels=True)
        study, series_uid = str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID)
        instance, sop_class = str(ds.SOPInstanceUID), str(ds.SOPClassUID)
        name = department.node.spool.keep((data,), now)
        syntax = str(ds.file_meta.TransferSyntaxUID)
        digest = sha256(data).hexdigest()
        arrival = Arrival(study, series_uid, instance, sop_class, syntax, digest, name, len(data))
        store.record(association, "CTSIM", arrival, now)
    store.close_association(association, released=False, now=now)
    (series,) = store.undecided(START, 5)
    store.hold_incomplete(series, "the association was aborted", START)
    return "1"


def then_cancelled(make: Make) -> Make:
    def run(department: Department) -> str:
        case_id = make(department)
        department.node.jobs.cancel(1, "operator", "", START)
        return case_id

    return run


def recalled(department: Department) -> str:
    case_id = department.queued()
    department.node.recalls.recall(1, "operator", "", START)
    return case_id


def rejected(department: Department) -> str:
    case_id = department.held()
    department.node.jobs.reject(1, "operator", "", START)
    return case_id


def confirmed(department: Department) -> str:
    case_id = department.sent()
    department.node.outbox.confirm(1, "courier", "", START)
    return case_id


ANY = ""
# How a store comes to the state from which an operator draws an arrow. States of two machines can have one name.
MAKERS: dict[tuple[type[State], str, str], Make] = {
    (SeriesState, "INCOMPLETE", "COMPLETE"): whole_but_broken_off,
    (SeriesState, "INCOMPLETE", ANY): Department.incomplete,
    (SeriesState, "SKIPPED", ANY): Department.skipped,
    (SeriesState, "QUEUED", ANY): recalled,
    (JobState, "QUEUED", ANY): Department.queued,
    (JobState, "RUNNING", ANY): Department.running,
    (JobState, "HELD", ANY): Department.held,
    (JobState, "FAILED", ANY): Department.failed,
    (JobState, "PRODUCED", ANY): Department.produced,
    (JobState, "CANCELLED", "QUEUED"): then_cancelled(Department.queued),
    (JobState, "CANCELLED", "HELD"): then_cancelled(Department.held),
    (JobState, "CANCELLED", "PRODUCED"): then_cancelled(Department.produced),
    (JobState, "REJECTED", ANY): rejected,
    (DeliveryState, "SENT", ANY): Department.sent,
    (DeliveryState, "FAILED", ANY): Department.send_failed,
    (DeliveryState, "CONFIRMED", ANY): confirmed,
    (DeliveryState, "CANCELLED", ANY): then_cancelled(Department.sending),
}


def operators_arrows() -> Iterator[tuple[State, State, str]]:
    for machine in MACHINES:
        for state, arrows in machine.items():
            for to, words in arrows.items():
                for clause in words.split("; "):
                    if clause.startswith("operator: "):
                        yield from ((state, to, verb) for verb in re.findall(r"`jobs (\w+)`", clause))


def state_of(department: Department, like: State) -> State:
    table: Any = {SeriesState: Series, JobState: Job, DeliveryState: Delivery}[type(like)]
    with department.node.database.read() as session:
        row: Any = session.scalars(select(table).order_by(table.id)).first()
        state: State = row.state
        return state


@pytest.mark.parametrize(
    ("state", "to", "verb"), [pytest.param(*arrow, id="-".join(map(str, arrow))) for arrow in operators_arrows()]
)
def test_an_operators_command_draws_its_arrow(
    run: Run, department: Department, state: State, to: State, verb: str
) -> None:
    make = MAKERS.get((type(state), state, to)) or MAKERS[type(state), state, ANY]
    case_id = make(department)
    assert state_of(department, state) is state
    code, _, err = run("jobs", verb, case_id, *OPTIONS.get(verb, []))
    assert (code, state_of(department, state)) == (0, to), err


@pytest.mark.parametrize("machine", MACHINES)
def test_every_state_that_is_not_final_has_an_exit_and_leads_to_a_final_one(machine: Mapping[Any, Any]) -> None:
    final = [state for state in machine if any(state is one for one in FINAL_STATES)]
    assert final
    for state in machine:
        reached, more = {state}, {state}
        while more := {to for one in more for to in machine[one]} - reached:
            reached |= more
        assert state in final or (machine[state] and reached & set(final))


@pytest.mark.parametrize("machine", MACHINES)
def test_every_arrow_names_who_draws_it(machine: Mapping[Any, Mapping[Any, str]]) -> None:
    who = "(receiver|completion|eligibility|worker|scheduler|courier|operator)"
    known = rf"{who}( or {who})?: .+"
    for words in (words for arrows in machine.values() for words in arrows.values()):
        assert words == "the job was cancelled or superseded" or all(
            re.fullmatch(known, clause) for clause in words.split("; ")
        )


# What a reader sees that waits for a person names a command.
WAITS_FOR_A_PERSON = {
    "INCOMPLETE": Department.incomplete,
    "HELD": Department.held,
    "FAILED": Department.failed,
    "SKIPPED": Department.skipped,
    "CANCELLED": then_cancelled(Department.queued),
    "REJECTED": rejected,
    "RECALLED": recalled,
}
GOES_BY_ITSELF = {"RECEIVING", "QUEUED", "RUNNING", "PRODUCED", "SENDING"}
IS_DONE = {"SENT", "CONFIRMED", "SUPERSEDED"}


def test_every_state_of_a_reader_goes_on_by_itself_or_by_a_command_or_is_done() -> None:
    assert set(NEXT_STEP) == set(WAITS_FOR_A_PERSON) | GOES_BY_ITSELF | IS_DONE


@pytest.mark.parametrize("state", WAITS_FOR_A_PERSON)
def test_the_last_command_of_the_advice_changes_the_state(run: Run, department: Department, state: str) -> None:
    case_id = WAITS_FOR_A_PERSON[state](department)
    case = department.node.overview.case(case_id)
    assert case.state == state
    verb = re.findall(rf"`syncect jobs (\w+) {case_id}", next_step(case, Facts()))[-1]
    assert run("jobs", verb, case_id, *OPTIONS.get(verb, []))[0] == 0
    assert department.node.overview.cases()[0].state != state


def test_a_lost_result_that_could_not_be_made_again_is_tried_again(run: Run, department: Department) -> None:
    case_id = department.sending()
    assert department.node.outbox.make_again(1, "files are gone", "courier", START)
    department.node.jobs.fail(department.claim().id, "w", "the device is out of memory", START)
    step = next_step(department.node.overview.case(case_id), Facts())
    assert f"`syncect jobs retry {case_id}`" in step
    assert run("jobs", "retry", case_id)[0] == 0
    assert state_of(department, JobState.QUEUED) is JobState.QUEUED


def test_a_job_cancelled_while_its_result_was_made_again_is_sent_after_it_is_reopened(
    run: Run, department: Department
) -> None:
    case_id = department.sending()
    assert department.node.outbox.make_again(1, "files are gone", "courier", START)
    department.node.jobs.cancel(1, "operator", "", START)
    assert run("jobs", "reopen", case_id)[0] == 0
    assert state_of(department, JobState.QUEUED) is JobState.QUEUED
    assert state_of(department, DeliveryState.PENDING) is DeliveryState.PENDING


def test_a_series_that_nobody_sends_again_is_given_up_and_taken_back(run: Run, department: Department) -> None:
    case_id = department.incomplete()
    assert run("jobs", "cancel", case_id, "--yes", "--reason", "the scanner has lost it")[0] == 0
    case = department.node.overview.case(case_id)
    assert case.state == "SKIPPED"
    assert re.fullmatch(r"given up by operator \w+: the scanner has lost it \(slices are missing .*\)", case.reason)
    assert run("jobs", "retry", case_id)[0] == 0
    assert department.node.overview.case(case_id).state == "RECEIVING"

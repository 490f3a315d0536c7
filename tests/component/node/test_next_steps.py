"""The next step of every case in every situation: whatever command it names is done, not refused."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest

from node.operate.cases import raw_state
from node.operate.next_steps import Facts, facts_of, next_step
from node.operate.refused_verbs import refusal
from node.ops.processes import process_lock
from storage.errors import IllegalTransition
from tests.departments import START, Department

ALL = frozenset({"receive", "complete", "work", "deliver"})
BERLIN_SINCE = "since 2026-11-26 08:30:00 CET (connection refused)"


def cancelled(department):
    case_id = department.queued()
    department.node.jobs.cancel(department.node.overview.case(case_id).job_id, "operator", "", START)
    return case_id


def cancelled_with_leftover(department):
    case_id = department.sent()
    department.node.jobs.cancel(department.node.overview.case(case_id).job_id, "operator", "", START)
    return case_id


def cancelled_with_files(department):
    case_id = department.produced()
    department.node.jobs.cancel(department.node.overview.case(case_id).job_id, "operator", "", START)
    return case_id


def cancelled_and_changed(department):
    case_id = cancelled(department)
    department.change(case_id)
    return case_id


def cancelled_with_leftover_and_changed(department):
    case_id = cancelled_with_leftover(department)
    department.change(case_id)
    return case_id


def recalled(department):
    case_id = department.queued()
    department.node.recalls.recall(department.node.overview.case(case_id).job_id, "operator", "", START)
    return case_id


def recalled_with_leftover(department):
    case_id = department.sent()
    department.node.recalls.recall(department.node.overview.case(case_id).job_id, "operator", "", START)
    return case_id


def recalled_and_changed(department):
    case_id = recalled(department)
    department.change(case_id)
    return case_id


def rejected_and_changed(department):
    case_id = rejected(department)
    department.change(case_id)
    return case_id


def superseded_with_leftover(department):
    case_id = department.sent()
    department.change(case_id)
    department.skip(case_id)
    return case_id


def rejected(department):
    case_id = department.held()
    department.node.jobs.reject(department.node.overview.case(case_id).job_id, "operator", "", START)
    return case_id


def held_for_its_pixels(department):
    return department.stuck_without_product("the pixels of 3 slices do not fit BitsStored (12)")


def produced_for_nobody(department):
    return department.produced(destinations=())


def never_confirmed(department):
    case_id = department.sent()
    text = "not confirmed within 24 h: the peer lists 0 of 3 instances"
    department.node.outbox.postpone_confirmation(1, "c", text, not_before=None, now=START)
    return case_id


def retried_by_itself(department):
    case_id = department.queued()
    job = department.claim()
    department.node.jobs.requeue(job.id, "w", "the disk is full", not_before=START, now=START)
    return case_id


MAKERS: dict[str, Callable[[Department], str]] = {
    make.__name__: make
    for make in (
        Department.arrive,
        Department.incomplete,
        Department.skipped,
        Department.queued,
        Department.running,
        Department.failed,
        Department.stuck_without_product,
        Department.held,
        Department.produced,
        Department.sending,
        Department.sent,
        Department.send_failed,
        Department.delivery_held,
        cancelled,
        cancelled_with_leftover,
        cancelled_with_files,
        rejected,
        held_for_its_pixels,
        cancelled_and_changed,
        cancelled_with_leftover_and_changed,
        rejected_and_changed,
        superseded_with_leftover,
        recalled,
        recalled_with_leftover,
        recalled_and_changed,
        produced_for_nobody,
        retried_by_itself,
        never_confirmed,
    )
}

SITUATIONS = [
    Facts(roles=roles, one_host=one_host, destinations=destinations, unreachable=unreachable, cannot_work=trouble)
    for roles, one_host, destinations, unreachable, trouble in product(
        (frozenset(), ALL),
        (True, False),
        ((), ("tps",), ("pacs",)),
        ({}, {"tps": BERLIN_SINCE}),
        ("", "there is no CUDA device"),
    )
]


@pytest.mark.parametrize("name", MAKERS)
def test_no_next_step_names_a_command_that_would_be_refused(run, department, config, name) -> None:
    case_id = MAKERS[name](department)
    case = department.node.overview.case(case_id)
    named: set[str] = set()
    for facts in SITUATIONS:
        for why_not in ("", "slices are missing at 15 mm"):
            step = next_step(case, facts, incomplete=partial(str, why_not))
            assert step.endswith(".")
            assert "ID" not in step.split()
            for verb in re.findall(rf"`syncect jobs (\w+) {case_id}", step):
                named.add(verb)
                assert refusal(verb, case, incomplete=partial(str, why_not)) == "", step
    for verb in named - {"complete"}:
        # What is written in the step is what the command line takes.
        options = {"release": ["--reason", "seen"]}.get(verb, [])
        assert run("jobs", verb, case_id, "--dry-run", *options)[0] == 0
    waits_for_a_person = {
        "incomplete",
        "failed",
        "stuck_without_product",
        "held",
        "held_for_its_pixels",
        "send_failed",
        "never_confirmed",
        "delivery_held",
    }
    assert bool(named) or name not in waits_for_a_person


VERBS = ("retry", "cancel", "release", "reject", "reopen", "resend", "acknowledge")
ALLOWED = {
    "arrive": "",
    "incomplete": "cancel",
    "skipped": "retry",
    "queued": "cancel",
    "running": "cancel",
    "failed": "retry cancel",
    "stuck_without_product": "retry cancel reject",
    "held_for_its_pixels": "retry cancel reject",
    "held": "retry cancel release reject",
    "produced": "retry cancel resend",
    "sending": "retry cancel resend",
    "sent": "cancel resend",
    "send_failed": "retry cancel resend",
    "delivery_held": "retry cancel release",
    "cancelled": "retry reopen",
    "cancelled_with_leftover": "reopen acknowledge",
    "cancelled_with_files": "reopen",
    "rejected": "reopen",
    "cancelled_and_changed": "",
    "cancelled_with_leftover_and_changed": "acknowledge",
    "rejected_and_changed": "",
    "superseded_with_leftover": "acknowledge",
    "recalled": "retry",
    "recalled_with_leftover": "retry acknowledge",
    "recalled_and_changed": "",
    "produced_for_nobody": "cancel resend",
    "retried_by_itself": "cancel",
    "never_confirmed": "cancel resend",
}
OPTIONS = {"cancel": ["--yes"], "reject": ["--yes"], "release": ["--reason", "seen"]}


@pytest.mark.parametrize(("name", "verb"), [(name, verb) for name, verbs in ALLOWED.items() for verb in verbs.split()])
def test_what_is_allowed_is_done(run, department, name, verb) -> None:
    case_id = MAKERS[name](department)
    code, _, err = run("jobs", verb, case_id, *OPTIONS.get(verb, []))
    assert code == 0, err


@pytest.mark.parametrize("name", MAKERS)
def test_everything_else_is_refused_by_the_command_and_by_the_store(run, department, name) -> None:
    case_id = MAKERS[name](department)
    case = department.node.overview.case(case_id)
    store = department.node.jobs
    acts = {verb: getattr(store, verb) for verb in VERBS} | {
        "release": lambda job, *said: store.release(job, [], *said),
        "resend": lambda job, *said: store.resend(job, [], *said),
    }
    for verb in set(VERBS) - set(ALLOWED[name].split()):
        code, _, err = run("jobs", verb, case_id, *OPTIONS.get(verb, []))
        assert (code, err.startswith("syncect: ")) == (4, True), verb
        if case.job_id is not None:
            with pytest.raises(IllegalTransition):
                acts[verb](case.job_id, "operator", "", START)
    assert department.node.overview.case(case_id) == case


@pytest.mark.parametrize(
    ("name", "facts", "said"),
    [
        ("arrive", Facts(roles=ALL), "Nothing to do: slices are arriving"),
        ("arrive", Facts(), "Start `syncect serve` (or `syncect complete`): its complete process does not run"),
        ("arrive", Facts(one_host=False), "on no host a complete process runs, and no series is judged."),
        ("incomplete", Facts(), "syncect jobs complete 1"),
        ("queued", Facts(roles=ALL), "a worker takes it next"),
        ("queued", Facts(), "no job is translated"),
        ("queued", Facts(roles=ALL, cannot_work="no GPU"), "The worker cannot translate: no GPU."),
        ("retried_by_itself", Facts(roles=ALL), "the last attempt ended with: the disk is full"),
        ("running", Facts(roles=ALL), "the model is at work"),
        ("running", Facts(), "the job waits until one takes it up again"),
        ("held", Facts(goes_to=("tps", "pacs")), "`syncect jobs release 1 --reason ...` sends it to tps, pacs"),
        ("stuck_without_product", Facts(), "Nothing was produced, so nothing can be released."),
        ("stuck_without_product", Facts(cannot_work="no GPU"), "Mend the cause: no GPU; then `syncect jobs retry 1`"),
        (
            "held_for_its_pixels",
            Facts(cannot_work="no GPU"),
            "send it again, or give it up with `syncect jobs cancel 1`.",
        ),
        ("produced_for_nobody", Facts(destinations=("tps",)), "`syncect jobs resend 1` sends it"),
        ("produced_for_nobody", Facts(), "No destination is set"),
        ("produced", Facts(roles=ALL, destinations=("tps",)), "the courier sends it"),
        ("produced", Facts(roles=ALL), "tps is no longer a destination of the settings"),
        (
            "produced",
            Facts(destinations=("tps",)),
            "its deliver process does not run on this host, and nothing is sent",
        ),
        ("sending", Facts(roles=ALL, destinations=("tps",)), "tps has taken nothing since"),
        (
            "sending",
            Facts(roles=ALL, destinations=("tps",), unreachable={"tps": BERLIN_SINCE}),
            f"tps cannot be reached {BERLIN_SINCE}. The courier tries again by itself; `syncect peers echo tps`",
        ),
        ("send_failed", Facts(destinations=("tps",)), "Remove the cause at tps that the reason names"),
        ("send_failed", Facts(destinations=("pacs",)), "tps is no longer a destination of the settings"),
        ("cancelled", Facts(), "`syncect jobs reopen 1` takes that back"),
        ("cancelled_with_leftover", Facts(), "Delete series 301 at tps, then `syncect jobs acknowledge 1`"),
        ("cancelled_and_changed", Facts(), "Nothing to do: a person stopped it, and its series came again since"),
        ("superseded_with_leftover", Facts(), "Delete series 301 at tps, then `syncect jobs acknowledge 1`."),
        ("recalled", Facts(), "`syncect jobs retry 1` translates the series by it."),
        ("recalled_with_leftover", Facts(), "Delete series 301 at tps, then `syncect jobs acknowledge 1`."),
        ("recalled_with_leftover", Facts(roles=ALL, rejecting=frozenset({"tps"})), "goes to tps by itself."),
        ("recalled_and_changed", Facts(), "its result was recalled, and its series came again since"),
        ("rejected", Facts(), "A person rejected it; `syncect jobs reopen 1` takes that back."),
    ],
)
def test_each_situation_has_its_step(department, name, facts, said) -> None:
    case = department.node.overview.case(MAKERS[name](department))
    assert said in next_step(case, facts)


def test_the_facts_are_those_of_this_moment(department) -> None:
    case = department.node.overview.case(department.queued())
    assert facts_of(department.node, case).roles == frozenset()
    with process_lock(department.node.run_dir, "deliver", "1"):
        facts = facts_of(department.node, case)
    assert (facts.roles, facts.destinations, facts.one_host) == (frozenset({"deliver"}), ("tps",), True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Department.held, "so it cannot be released: `syncect jobs retry 1` makes it anew."),
        (Department.send_failed, "`syncect jobs retry 1` makes it again and sends it, or give it up"),
    ],
)
def test_a_result_whose_files_are_gone_is_told(run, department, make, said) -> None:
    case = department.node.overview.case(make(department))
    folder = department.node.spool.path(case.product_dir)
    assert facts_of(department.node, case).lost_files == ""
    (folder / "0001.dcm").unlink()
    code, out, _ = run("jobs", "why", "1")
    assert (code, str(folder) in out, said in out) == (0, True, True)
    shutil.rmtree(folder.parent)
    assert facts_of(department.node, case).lost_files == ""  # as on a host that does not have the spool


def test_a_release_without_its_files_says_what_helps(run, department) -> None:
    case = department.node.overview.case(department.held())
    shutil.rmtree(department.node.spool.path(case.product_dir))
    code, _, err = run("jobs", "release", "1", "--reason", "seen")
    assert (code, err) == (1, "syncect: 1: 0000.dcm of the held series is no longer in the spool; retry the job\n")
    assert run("jobs", "retry", "1")[0] == 0


def test_the_state_of_the_job_is_found_behind_that_of_its_deliveries(department) -> None:
    for name, raw in (("failed", "FAILED"), ("send_failed", "PRODUCED"), ("sent", "PRODUCED"), ("held", "HELD")):
        assert raw_state(department.node.overview.case(MAKERS[name](department))) == raw
    assert raw_state(department.node.overview.case(department.incomplete())) is None

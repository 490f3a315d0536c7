"""What waits, what is paused and why a job waits, by the commands that a person types."""

import json
import socket
from datetime import UTC, datetime, timedelta

import pytest

from node.bootstrap.watch import make_watch
from node.web.lights import strip_of
from storage.states import Priority, Stage

HERE = socket.gethostname()
OLD = {"priority": Priority.OFF_PEAK}


def waits(run, case_id):
    return json.loads(run("jobs", "why", case_id, "--json")[1])["waits"]


def test_the_queue_shows_what_waits_by_priority_sender_and_destination(run, department) -> None:
    department.produced()
    department.queued()
    department.queued(route=OLD)
    code, out, _ = run("queue", "ls", "--json")
    assert code == 0
    rows = json.loads(out)["waiting"]
    assert [(row["stage"], row["priority"], row["destination"], row["waiting"]) for row in rows] == [
        ("translate", "routine", "", 1),
        ("translate", "off_peak", "", 1),
        ("send", "routine", "tps", 1),
    ]
    assert rows[0]["sender"]
    assert "translate" in run("queue", "ls")[1]


def test_a_pause_is_seen_everywhere_and_a_second_one_changes_nothing(run, department) -> None:
    department.queued()
    code, _, told = run("queue", "pause", "--stage", "translate", "--reason", "new bundle")
    assert (code, told) == (0, "translate on all hosts: paused\n")
    _, _, told = run("queue", "pause", "-s", "translate", "-m", "other")
    assert told.startswith(
        "translate on all hosts: was paused already\nsince before: translating is paused on all hosts"
    )
    assert "new bundle" in told
    assert department.node.jobs.claim("w", 60, datetime.now(UTC)) is None
    said = "translating is paused on all hosts by operator"
    assert said in waits(run, "1")
    for command in (("status",), ("queue", "ls"), ("jobs", "ls"), ("jobs", "show", "1"), ("jobs", "why", "1")):
        printed = " ".join(run(*command)[1].split())
        assert said in printed, command
        assert "new bundle" in printed, command
    assert [words for words in strip_of(department.node).pauses if said in words and "new bundle" in words]
    (entry,) = json.loads(run("audit", "ls", "--json")[1])
    assert (entry["action"], entry["detail"]) == ("queue pause", "translate on all hosts: new bundle")
    assert run("queue", "resume")[0] == 0
    assert run("queue", "resume", "-s", "translate")[2] == "translate on all hosts: was not paused\n"
    assert waits(run, "1") == ""
    assert department.node.jobs.claim("w", 60, datetime.now(UTC)) is not None


def test_receiving_is_paused_only_where_that_is_said(run, department) -> None:
    run("queue", "pause", "-m", "x")
    assert [one.stage for one in department.node.pauses.all()] == [Stage.TRANSLATE, Stage.SEND]
    run("queue", "pause", "--stage", "all", "-m", "x")
    assert len(department.node.pauses.all()) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pause",), 2, "--reason"),
        (("pause", "-m", " "), 2, "say why"),
        (("pause", "--stage", "nothing", "-m", "x"), 2, "nothing"),
        (("drain", "--host", "gpu9", "-m", "x"), 3, "no host of this node is named gpu9; there are"),
        (("pause", "--host", "gpu9", "-m", "x"), 3, "no host of this node is named gpu9; there are"),
        (("resume", "--host", "gpu9"), 3, "no host of this node is named gpu9; there are"),
    ],
)
def test_what_cannot_be_understood_changes_nothing(run, department, arguments, code, words) -> None:
    found, _, told = run("queue", *arguments)
    assert found == code
    assert words in told
    assert department.node.pauses.all() == []


def test_a_drained_host_takes_nothing_and_can_be_switched_off_once_it_has_nothing_in_hand(run, department) -> None:
    department.queued()
    department.queued()
    worker, now = f"work-1@{HERE}", datetime.now(UTC)
    job = department.node.jobs.claim(worker, 60, now)
    code, _, told = run("queue", "drain", "--host", HERE, "-m", "new card", "--wait", "--at-most", "0.001")
    assert code == 1
    assert f"{HERE} still has in hand: 1 job" in told
    assert department.node.jobs.claim(worker, 60, now) is None
    department.node.jobs.give_back(job.id, worker, "stopped", now=now)
    code, _, told = run("queue", "drain", "--host", HERE, "-m", "new card", "--wait")
    assert code == 0
    assert f"{HERE} has nothing in hand and can be switched off" in told
    assert department.node.jobs.claim("work-1@elsewhere", 60, now) is not None
    run("queue", "resume")
    assert department.node.jobs.claim(worker, 60, now) is None, "what another host does is not resumed with it"
    run("queue", "resume", "--host", HERE)
    assert department.node.jobs.claim(worker, 60, now) is not None


def test_who_waits_until_a_host_is_empty_learns_that_somebody_resumed_it(run, department, monkeypatch) -> None:
    department.queued()
    department.node.jobs.claim(f"work-1@{HERE}", 60, datetime.now(UTC))
    monkeypatch.setattr("time.sleep", lambda _s: department.node.pauses.resume(list(Stage), HERE))
    code, _, told = run("queue", "drain", "--host", HERE, "-m", "new card", "--wait")
    assert (code, f"somebody resumed {HERE} meanwhile" in told) == (1, True)


def test_a_job_waits_for_a_pause_only_where_no_host_goes_on(run, department) -> None:
    department.queued()
    department.node.pauses.pause([Stage.TRANSLATE], "elsewhere", "operator", "", datetime.now(UTC))
    assert waits(run, "1") == ""
    run("queue", "pause", "-s", "translate", "--host", HERE, "-m", "new card")
    assert waits(run, "1").startswith(f"translating is paused on {HERE}")
    step = json.loads(run("jobs", "why", "1", "--json")[1])["next_step"]
    assert step.startswith(f"`syncect queue resume --stage translate --host {HERE}` lets it go on. ")
    assert run("hosts", "forget", "elsewhere")[0] == 0, "which is switched off for good, and nothing else knows it"
    assert [pause.host for pause in department.node.pauses.all()] == [HERE]


def test_a_person_lets_jobs_come_earlier_and_the_others_say_behind_what_they_wait(run, department) -> None:
    for _ in range(3):
        department.queued(route={"target_s": 86400.0})
    assert waits(run, "3") == "2 jobs come before it"
    assert run("jobs", "priority", "3", "--urgent", "-m", "she waits")[2] == (
        "3: in its turn; urgent instead of routine\n"
    )
    assert waits(run, "3") == "urgent"
    assert waits(run, "2") == "2 jobs come before it"
    assert run("jobs", "priority", "3", "--urgent")[2] == "3: in its turn; it was so already\n"
    assert run("jobs", "priority", "3", "--urgent", "--routine")[0] == 2
    assert run("jobs", "priority", "3")[0] == 2
    assert run("jobs", "priority", "1", "--due-in", "0")[0] == 0
    rows = {row["id"]: row for row in json.loads(run("jobs", "ls", "--json")[1])}
    assert [(rows[key]["priority"], rows[key]["late"]) for key in "13"] == [("routine", True), ("urgent", False)]
    department.node.jobs.cancel(1, "operator", "", datetime.now(UTC))
    code, _, told = run("jobs", "priority", "1", "--urgent")
    assert (code, "it is CANCELLED" in told) == (4, True)


def test_what_waits_for_the_hours_off_peak_says_so(run, department, monkeypatch) -> None:
    department.queued(route=OLD)
    assert waits(run, "1") == "off peak"
    hour = datetime.now(UTC).hour  # six hours from now
    monkeypatch.setenv("SYNCECT_NODE__TIMEZONE", "UTC")
    monkeypatch.setenv("SYNCECT_QUEUE__OFF_PEAK", f"{(hour + 6) % 24:02}:00-{(hour + 8) % 24:02}:00")
    assert waits(run, "1").startswith("it begins off peak, ")


def test_what_waits_for_the_limit_of_its_sender_says_so(run, department, monkeypatch) -> None:
    department.queued()
    department.queued()
    department.node.jobs.claim("w", 60, datetime.now(UTC))
    monkeypatch.setenv("SYNCECT_QUEUE__MOST_RUNNING_PER_SENDER", "1")
    assert waits(run, "2").endswith(" run, which is the limit of a sender")


def test_a_pause_that_may_be_forgotten_is_an_alert_until_it_is_resumed(department) -> None:
    node, now = department.node, datetime.now(UTC)
    node.pauses.pause([Stage.SEND], "", "operator anna", "", now - timedelta(hours=1))
    node.pauses.pause([Stage.TRANSLATE], "", "operator anna", "", now)
    watch = make_watch(node, [])
    watch.tick()
    (alert,) = (one for one in node.alerts.open() if one.kind == "paused")
    assert alert.text.endswith("by operator anna; next: `syncect queue resume --stage send`")
    node.pauses.resume(list(Stage), "")
    watch.tick()
    assert [one for one in node.alerts.open() if one.kind == "paused"] == []

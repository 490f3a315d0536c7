"""The supervisor never gives up, says why a role does not run, and ends what hangs; its children are real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node.ops import supervisor as supervisor_module
from node.ops.processes import Waiting, starter
from node.ops.supervisor import Supervisor, delay_s, keep_trying
from tests.slice.harness import wait_for

# A child that writes down its start, and why its predecessor was killed; then it does what its argument says.
CHILD = """
import json, os, pathlib, signal, sys, threading
from node.beats import Heart
from node.ops.supervised import Link, previous_end, stop_event
stop = stop_event(supervised=True)
with open(sys.argv[1], "a") as log:
    log.write(json.dumps([os.getpid(), previous_end()]) + "\\n")
link = Link()
beat = Heart(link.beats).beat
with link.last_words():
    exec(sys.argv[2])
"""


class Bench:
    """A supervisor in a thread, with what it says of roles that wait."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stop = folder, threading.Event()
        self.said: list[list[Waiting]] = []

    def command(self, code: str, name: str = "child") -> list[str]:
        return [sys.executable, "-c", CHILD, str(self.folder / name), code]

    def starts(self, name: str = "child") -> list[Any]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def reasons(self) -> list[str]:
        return [one.reason for roles in self.said for one in roles]

    @contextmanager
    def running(self, commands: dict[str, list[str]], **options: Any) -> Iterator[None]:
        supervisor = Supervisor(commands, show=lambda roles: self.said.append(list(roles)), **options)
        thread = threading.Thread(target=supervisor.run, args=(self.stop,))
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(supervisor_module, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(supervisor_module, "LONGEST_DELAY_S", 0.05)
    return Bench(tmp_path)


def test_pauses_grow_to_half_a_minute_and_no_further() -> None:
    class Whole:
        def uniform(self, _low: float, high: float) -> float:
            return high

    pauses: list[float] = [delay_s(failures, Whole()) for failures in (1, 2, 3, 7, 1000)]  # type: ignore[arg-type]
    assert pauses == [0.5, 1.0, 2.0, 30.0, 30.0]


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_whatever_a_child_ends_with_it_is_started_again(bench: Bench, code: int) -> None:
    with bench.running({"work": bench.command(f"sys.exit({code})")}):
        wait_for("the fourth start", lambda: len(bench.starts()) >= 4)
    assert f"it ended with code {code}" in bench.reasons()


def test_a_reader_learns_the_reason_that_the_child_itself_gave(bench: Bench) -> None:
    with bench.running({"receive": bench.command("raise OSError('port 11112 is taken by another program')")}):
        wait_for("the reason", bench.reasons)
    assert bench.reasons()[0] == "port 11112 is taken by another program"
    assert bench.said[0][0].role == "receive"


def test_what_no_new_start_mends_ends_the_supervisor_and_the_others(bench: Bench) -> None:
    other_begins = "from pathlib import Path\nwhile not Path(sys.argv[1]).with_name('other').exists(): stop.wait(0.02)"
    ends = f"{other_begins}\nfrom storage.errors import SchemaMismatch\nraise SchemaMismatch('use the new version')"
    goes_on = "beat('', 'x', 0, 0, 60); stop.wait()"
    commands = {"work": bench.command(ends, "work"), "deliver": bench.command(goes_on, "other")}
    supervisor = Supervisor(commands)
    assert supervisor.run(bench.stop) == "use the new version"
    assert (len(bench.starts("work")), len(bench.starts("other"))) == (1, 1)
    for pid, _ in bench.starts("other"):
        assert not Path(f"/proc/{pid}").exists()


def test_a_role_that_runs_again_waits_no_more(bench: Bench) -> None:
    code = "n = len(open(sys.argv[1]).readlines()); n < 3 and sys.exit(1); beat('', 'x', 0, 0, 60); stop.wait()"
    with bench.running({"work": bench.command(code)}):
        wait_for("the end of waiting", lambda: bench.said and bench.said[-1] == [])
        assert len(bench.starts()) == 3
        since = {one.since for roles in bench.said for one in roles}
    assert len(since) <= 2, "the time since which it does not run is that of the first failure"


@pytest.mark.parametrize("hang", ["os.kill(os.getpid(), signal.SIGSTOP)", "threading.Event().wait()"])
def test_a_child_that_stops_saying_anything_is_killed_and_its_successor_knows_why(bench: Bench, hang: str) -> None:
    code = f"first = not previous_end(); beat('', 'job 7: translate', 3, 64, 0.5 if first else 60); first and {hang}"
    with bench.running({"work": bench.command(f"{code}; stop.wait()")}):
        wait_for("the second start", lambda: len(bench.starts()) == 2)
    (_, before), (_, after) = bench.starts()
    assert before == ""
    assert "made no progress for" in after
    assert "job 7: translate 3 of 64 (limit 0 s)" in after


def test_a_child_knows_whether_the_supervisor_of_the_one_before_it_goes_on(bench: Bench) -> None:
    code = (
        "from node.ops.processes import starter; open(sys.argv[1] + '.by', 'a').write(starter() + '\\n'); sys.exit(1)"
    )

    def is_second(name: str) -> bool:
        return len(bench.starts(name)) >= 3

    for node in (1, 2):
        bench.stop.clear()
        with bench.running({"work": bench.command(code, f"of-{node}")}):
            wait_for("a second start", partial(is_second, f"of-{node}"))
    names = [set((bench.folder / f"of-{node}.by").read_text().split()) for node in (1, 2)]
    assert [len(one) for one in names] == [1, 1]
    assert len(names[0] | names[1] | {starter()}) == 3, "each supervisor has its own, and the boot of the machine"


def test_a_child_that_never_begins_its_work_is_killed(bench: Bench) -> None:
    with bench.running(
        {"work": bench.command("previous_end() or threading.Event().wait(); stop.wait()")}, start_limit_s=1.5
    ):
        wait_for("the second start", lambda: len(bench.starts()) == 2)
    assert bench.starts()[1][1] == "it did not begin its work within 2 s"


def test_a_slow_child_that_gets_on_is_left_alone(bench: Bench) -> None:
    steps = "[(beat('', 'translate', n, 20, 1.0), threading.Event().wait(0.1)) for n in range(20)]"
    code = f"{steps}; beat('', 'done', 0, 0, 60); open(sys.argv[1] + '.done', 'w'); stop.wait()"
    with bench.running({"work": bench.command(code)}):
        wait_for("its last step", (bench.folder / "child.done").exists)
        assert len(bench.starts()) == 1
    assert bench.said == []


def test_silence_while_the_supervisor_itself_was_stopped_is_no_childs_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_ASLEEP_S", 0.0)  # each turn looks like the first after a long sleep
    code = "beat('', 'translate', 0, 0, 0.05); stop.wait()"
    with bench.running({"work": bench.command(code), "other": bench.command("sys.exit(1)", "other")}):
        wait_for("the child's start", bench.starts)
        wait_for("turns", lambda: len(bench.starts("other")) >= 5)
    assert len(bench.starts()) == 1


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), OSError(11, "Resource temporarily unavailable")])
def test_a_machine_that_cannot_start_a_process_now_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    real, refused = subprocess.Popen, list[OSError]()

    def popen(*arguments: Any, **options: Any) -> Any:
        if len(refused) < 3:
            refused.append(error)
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    with bench.running({"work": bench.command("stop.wait()")}):
        wait_for("its start", bench.starts)
    assert bench.reasons()[0] == f"it cannot be started: {error.strerror}"


def test_a_fault_that_nobody_foresaw_ends_no_supervisor(bench: Bench) -> None:
    calls: list[str] = []

    def fails_twice(role: str) -> None:
        calls.append(role)
        if len(calls) < 3:
            raise RuntimeError("whatever")

    with bench.running({"work": bench.command("stop.wait()")}, before_start=fails_twice):
        wait_for("its start", bench.starts)


def test_children_of_a_supervisor_that_was_killed_end_by_themselves(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    code = (
        "import sys, threading; from node.ops.supervisor import Supervisor\n"
        "Supervisor({'work': sys.argv[1:]}).run(threading.Event())"
    )
    work = bench.command("[beat('', 'x', n, 9, 60) for n in range(9)]; stop.wait(); open(sys.argv[1] + '.end', 'w')")
    with subprocess.Popen([sys.executable, "-c", code, *work]) as process:
        wait_for("the child's start", bench.starts)
        process.send_signal(signal.SIGKILL)
    wait_for("the child's end", (tmp_path / "child.end").exists)


def test_a_supervisor_that_is_stopped_stops_no_child(bench: Bench, tmp_path: Path) -> None:
    code = (
        "import sys, threading; from node.ops.supervisor import Supervisor\n"
        "Supervisor({'work': sys.argv[1:]}).run(threading.Event())"
    )
    beats = "[beat('', str(n) + 'x' * 2000, n, 9, 60) for n in range(2000)]"  # more than a socket keeps
    work = bench.command(f"{beats}; open(sys.argv[1] + '.all', 'w'); stop.wait()")
    with subprocess.Popen([sys.executable, "-c", code, *work]) as process:
        wait_for("the child's start", bench.starts)
        os.kill(process.pid, signal.SIGSTOP)
        wait_for("the last beat", (tmp_path / "child.all").exists)
        process.kill()


def test_what_a_transient_fault_forbids_is_tried_until_it_works(bench: Bench) -> None:
    faults = iter([PermissionError(13, "Permission denied", "/data"), OSError(28, "No space left on device")])
    said: list[str] = []

    def start() -> str:
        for fault in faults:
            raise fault
        return "started"

    def show(roles: Any) -> None:
        said.extend(one.reason for one in roles)

    assert keep_trying(start, threading.Event(), transient=(OSError,), show=show) == "started"
    assert said == ["/data: Permission denied", "No space left on device"]


def test_what_is_no_transient_fault_ends_the_start() -> None:
    def start() -> None:
        raise ValueError("a bad rule")

    with pytest.raises(ValueError, match="a bad rule"):
        keep_trying(start, threading.Event(), transient=(OSError,))


def test_nothing_is_tried_after_the_stop() -> None:
    stop = threading.Event()
    stop.set()
    never: Callable[[], str] = lambda: pytest.fail("tried")  # noqa: E731
    assert keep_trying(never, stop, transient=(OSError,)) is None

"""A lock says which process runs; it goes with the process."""

import fcntl
import subprocess
import sys
import threading

import pytest

from node.ops.processes import AlreadyRunning, process_lock, running_processes
from node.ops.supervisor import Supervisor


def test_a_role_is_held_once_and_seen_while_held(tmp_path):
    with process_lock(tmp_path, "work", "1", "cpu"):
        (view,) = running_processes(tmp_path)
        assert (view.role, view.details) == ("work", "cpu")
        with pytest.raises(AlreadyRunning, match="work"), process_lock(tmp_path, "work", "1"):
            pass
        with process_lock(tmp_path, "work", "2"):
            assert len(running_processes(tmp_path)) == 2
    assert running_processes(tmp_path) == []


def test_a_process_changes_what_it_says_of_itself(tmp_path):
    with process_lock(tmp_path, "work", "1", "loading the model") as describe:
        for details in ("demo 1 on the CPU", "out", "demo 1 on a graphics card that has a longer name"):
            describe(details)
            (view,) = running_processes(tmp_path)
            assert view.details == details
    with process_lock(tmp_path, "work", "1", "short"):
        assert [view.details for view in running_processes(tmp_path)] == ["short"]


def test_a_reader_that_looks_just_then_keeps_no_process_from_its_start(tmp_path, monkeypatch):
    with process_lock(tmp_path, "work", "1"):
        pass
    with (tmp_path / "work-1.lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        monkeypatch.setattr("node.ops.processes.time.sleep", lambda _s: fcntl.flock(reader, fcntl.LOCK_UN))
        with process_lock(tmp_path, "work", "1"):
            assert len(running_processes(tmp_path)) == 1


def test_a_killed_process_is_not_seen(tmp_path):
    code = (
        "import pathlib, sys, time; from node.ops.processes import process_lock\n"
        "with process_lock(pathlib.Path(sys.argv[1]), 'work', '1'):\n print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert len(running_processes(tmp_path)) == 1
        process.kill()
    assert running_processes(tmp_path) == []


def test_the_supervisor_restarts_what_died_and_gives_up_on_a_usage_error(tmp_path):
    counter = tmp_path / "starts"
    child = f"import pathlib, sys; p = pathlib.Path({str(counter)!r}); n = len(p.read_text()) if p.exists() else 0\n"
    child += "p.write_text('x' * (n + 1)); sys.exit(2 if n else 1)"
    code = Supervisor({"work": [sys.executable, "-c", child]}).run(threading.Event())
    assert code == 2
    assert counter.read_text() == "xx"

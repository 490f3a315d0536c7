"""A process that stands still is ended, and one that works on is not."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORKS_ON = "print(flush=True); sys.stdin.readline(); sys.stdin.readline()"
MAKES_NO_STEP = """
with guard.steps(1) as step:
    step("infer", 1, 2)
    print(flush=True)
    sys.stdin.readline()
"""


def begin(work: str) -> "subprocess.Popen[str]":
    begins = (
        "import os, sys\n"
        "from node.archive import guard as module\n"
        "module.LONG_LIMIT_S = module.FIRST_LIMIT_S_PER_SLICE = 0.1\n"
        "guard = module.Guard(os.getpid(), 0.4)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", begins + work],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_process_that_is_stopped_is_ended_by_its_guard() -> None:
    process = begin(WORKS_ON)
    process.send_signal(signal.SIGSTOP)
    assert process.wait(20) == -signal.SIGKILL


def test_a_computation_without_a_step_is_ended() -> None:
    assert begin(MAKES_NO_STEP).wait(20) == -signal.SIGKILL


def test_who_waits_for_a_source_is_left_alone_and_takes_its_guard_along() -> None:
    process = begin(WORKS_ON)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.8)
    (guard,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ended = os.pidfd_open(int(guard))
    process.communicate("\n\n")
    assert process.returncode == 0
    assert select.select([ended], [], [], 20)[0]
    os.close(ended)

"""`serve` ends within its grace when SIGTERM and SIGINT come together, often, and at any moment."""

import os
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TRIALS = 150
CHILD = ["/bin/sleep", "600"]

# One process makes 150 supervisors by fork, each with two children; a start of Python for each would take a minute.
SUPERVISORS = """
import os, sys
from node.ops.supervised import stop_event
from node.ops.supervisor import Supervisor

for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        stop = stop_event(supervised=False)
        print(os.getpid(), flush=True)
        Supervisor({role: sys.argv[2:] for role in ("receive", "work")}).run(stop)
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def wait(delay_s: float) -> None:
    """Let a supervisor come to another moment of its start."""
    select.select([], [], [], delay_s)


def both_signals_until_it_ends(pid: int) -> None:
    """SIGTERM and SIGINT again and again, as from a person, a service manager and a terminal together."""
    for number in (signal.SIGTERM, signal.SIGINT) * 200:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def test_150_of_150_supervisors_end_when_both_signals_come_together() -> None:
    moments = random.Random(5)
    command = [sys.executable, "-c", SUPERVISORS, str(TRIALS), *CHILD]
    codes: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as host:
        assert host.stdout is not None
        try:
            for _ in range(TRIALS):
                pid = int(host.stdout.readline())
                wait(moments.uniform(0, 0.02))
                both_signals_until_it_ends(pid)
                assert select.select([host.stdout], [], [], 10)[0], f"{len(codes)} ended, then one did not within 10 s"
                codes.append(host.stdout.readline())
            assert host.wait(60) == 0
        finally:
            if host.poll() is None:
                os.killpg(host.pid, signal.SIGKILL)
    assert codes == ["ended 0\n"] * TRIALS


def test_signals_that_come_while_the_event_is_locked_are_not_waited_for() -> None:
    code = (
        "import os, signal; from node.ops.supervised import stop_event\n"
        "event = stop_event(supervised=False)\n"
        "with event._cond:\n"  # as within `wait` and `set`, between two instructions of the main thread
        "    for number in (signal.SIGTERM, signal.SIGINT):\n"
        "        os.kill(os.getpid(), number)\n"
        "print(event.wait(10))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15, check=True)
    assert answer.stdout == "True\n"


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3, 0.6, 1.0, 2.0])
def test_serve_ends_without_a_traceback_whenever_both_signals_come(tmp_path: Path, delay_s: float) -> None:
    settings = tmp_path / "node.toml"
    settings.write_text(
        '[node]\ndata_dir = "data"\n[scp]\nhost = "127.0.0.1"\nport = 1\n[retention]\nmin_free_gb = 0\n'
    )
    command = [sys.executable, "-P", "-m", "node.cli", "--config", str(settings), "serve"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as serve:
        try:
            wait(0.15 + delay_s)  # before, Python itself starts, and knows nothing of us
            for number in (signal.SIGTERM, signal.SIGINT) * 5:
                os.killpg(serve.pid, number)
            printed, _ = serve.communicate(timeout=60)
        finally:
            if serve.poll() is None:
                os.killpg(serve.pid, signal.SIGKILL)
    assert serve.returncode in {0, 130, -signal.SIGTERM}
    assert "Traceback" not in printed
    assert "Exception" not in printed

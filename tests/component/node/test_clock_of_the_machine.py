"""A process whose system clock is set sees the jump by the clock that nobody can set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from node.ops.clock import HostClock
clock = HostClock(Path(sys.argv[1]), lambda jump, _now: print(f"{jump.total_seconds():.0f}", flush=True))
for _ in sys.stdin:
    clock()
    print("asked", flush=True)
"""

TICKS = """
import sys, threading
from pathlib import Path
from node.beats import no_beat
from node.ops.scheduler import Ticker
ticked = threading.Event()
with Ticker({ticked.set: 0.05}, no_beat):
    assert ticked.wait(60)
    Path(sys.argv[1]).write_text(sys.argv[2])
    for _ in range(3):
        ticked.clear()
        assert ticked.wait(60), "nothing ticks any more"
"""


@pytest.fixture
def libfaketime() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed")
    return found[0]


def _settable(libfaketime: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """A file with the offset of the system clock, and the variables of a process that reads its clock through it."""
    offset = folder / "offset"
    offset.write_text("+0s\n")
    return offset, {
        **os.environ,
        "LD_PRELOAD": str(libfaketime),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("jump", ["-3600s\n", "+3600s\n"])
def test_what_ticks_goes_on_at_its_pace_when_the_clock_is_set(libfaketime: Path, tmp_path: Path, jump: str) -> None:
    offset, environment = _settable(libfaketime, tmp_path)
    subprocess.run([sys.executable, "-c", TICKS, str(offset), jump], check=True, env=environment, timeout=60)


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_jump_of_the_system_clock_is_seen_at_the_next_look(libfaketime: Path, tmp_path: Path, jump_s: int) -> None:
    offset, environment = _settable(libfaketime, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "clock.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask() -> list[str]:
            print("", file=process.stdin, flush=True)
            lines = []
            while (line := process.stdout.readline().strip()) != "asked":  # type: ignore[union-attr]
                assert process.poll() is None
                lines.append(line)
            return lines

        assert ask() == ["0"]  # nobody knows what a start of the machine did to the clock
        offset.write_text(f"{jump_s:+d}s\n")
        assert ask() == [str(jump_s)]
        assert ask() == []
        process.stdin.close()
        assert process.wait(60) == 0

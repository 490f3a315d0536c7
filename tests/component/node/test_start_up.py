"""What a command does not need, it does not load: nobody waits for a list because of packages that only a job uses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("highdicom", "SimpleITK", "torch")
HEAVY_FOR_READERS = (*HEAVY, "alembic", "numpy", "obstore", "pydicom", "pynetdicom", "structlog")


def loaded_by(code: str, heavy: tuple[str, ...] = HEAVY, **environment: str) -> set[str]:
    """Which of the heavy packages a fresh process has loaded after running `code`."""
    report = f"import sys; {code}; print('LOADED', *[name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", report]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return set(answer.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("command", [["jobs", "ls"], ["status"], ["alerts", "ls"]])
def test_readers_load_nothing_that_only_a_job_needs(tmp_path: Path, command: list[str]) -> None:
    code = f"from node.cli.commands import app; app({command}, standalone_mode=False)"
    assert loaded_by(code, HEAVY_FOR_READERS, SYNCECT_NODE__DATA_DIR=str(tmp_path)) == set()


@pytest.mark.parametrize("role", ["node.receive.receiver", "node.send.courier", "node.bootstrap.roles"])
def test_receiver_and_courier_load_nothing_that_only_a_job_needs(role: str) -> None:
    assert loaded_by(f"import {role}", (*HEAVY, "scipy.ndimage")) == set()


def test_nobody_waits_for_a_search_for_garbage_among_what_a_command_loads() -> None:
    seen = "gc.isenabled(), gc.get_freeze_count() > 10_000, sum(one['collections'] for one in gc.get_stats())"
    code = f"import atexit, gc; atexit.register(lambda: print(*({seen}))); from node.cli import main; main()"
    answer = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    is_on, is_left_out_at_the_end, searches = answer.stdout.splitlines()[-1].split()
    assert (is_on, is_left_out_at_the_end) == ("True", "True"), "what a long process leaves is still found"
    assert int(searches) < 50

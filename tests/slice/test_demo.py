"""`syncect demo` is the first thing that a stranger runs: it must end well, or say at once why it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from node.demo.scene import DemoFailed, play


def test_the_demo_ends_with_a_picture_of_what_arrived_at_the_tps(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "node.cli", "demo", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "syncect-demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_demo_whose_series_is_held_says_so_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(DemoFailed, match=r"HELD: pixel spacing 1\.953 mm lies outside"):
        play(tmp_path, said.append, slices=8, rows=256)
    assert len(said) == 3

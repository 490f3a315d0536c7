"""Somebody who follows a training step of SynDiff through the code reads few files."""

from pathlib import Path

from bench.walk import training_step


def test_a_training_step_enters_at_most_10_files(tmp_path: Path) -> None:
    walk = training_step(tmp_path)
    assert len(walk.files) <= 10, sorted(walk.files)
    assert len(walk.functions) <= 64  # eight of them are short ones of models/together.py, for several processes
    assert {"models/training/loop.py", "models/methods/syndiff.py", "models/losses.py"} <= walk.files

"""Somebody who follows a training step of SynDiff through the code reads few files."""

from pathlib import Path

from bench.walk import training_step


def test_a_training_step_enters_at_most_9_files(tmp_path: Path) -> None:
    walk = training_step(tmp_path)
    assert len(walk.files) <= 9, sorted(walk.files)
    assert len(walk.functions) <= 60  # a tenth above what it was when this was written
    assert {"models/training/loop.py", "models/methods/syndiff.py", "models/losses.py"} <= walk.files

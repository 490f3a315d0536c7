"""`syncect train` as a physicist meets it: killed at night, gone on with in the morning."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.cohort import Cohort, CohortWriter, PatientRecord


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four patients of noise, one of them to validate on."""
    writer = CohortWriter(tmp_path_factory.mktemp("cohort"), kind="phantom", provenance={})
    rng = np.random.Generator(np.random.Philox(3))
    for number, split in enumerate(("train", "train", "train", "validation")):
        ncct = rng.normal(40, 60, (8, 32, 32)).astype(np.float32)
        record = PatientRecord(f"P{number}", "H1", split, ncct.shape, (5.0, 1.5, 1.5))
        writer.add(record, {"ncct": ncct, "cect": ncct + 50})
    return writer.close()


def command(cohort: Cohort, run: Path, *more: str) -> list[str]:
    return ["train", "cyclegan", "--cohort", str(cohort.path), "--out", str(run), "--preset", "tiny", *more]


def test_a_killed_run_goes_on_with_the_losses_it_would_have_had(cohort: Cohort, tmp_path: Path, run) -> None:
    code, out, _ = run(*command(cohort, tmp_path / "whole", "--epochs", "4", "--json"))
    assert code == 0
    whole = json.loads(out)
    more = ("--epochs", "4", "--checkpoint-every", "5")
    process = subprocess.Popen(
        [sys.executable, "-m", "node.cli", *command(cohort, tmp_path / "cut", *more)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    assert any(line.startswith("epoch 2:") for line in process.stderr), "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    before = (tmp_path / "cut" / "losses.jsonl").read_text().splitlines()
    assert 24 <= len(before) < 48
    code, out, _ = run(*command(cohort, tmp_path / "cut", *more, "--resume", "--json"))
    assert code == 0
    assert json.loads(out) == whole | {"bundle": str(tmp_path / "cut" / "bundle")}
    losses = [(tmp_path / run / "losses.jsonl").read_text() for run in ("cut", "whole")]
    assert losses[0] == losses[1]


def test_mistakes_are_told_in_a_sentence(cohort: Cohort, tmp_path: Path, run) -> None:
    code, _, err = run(*command(cohort, tmp_path / "a", "--preset", "huge"))
    assert (code, "has no preset huge" in err) == (2, True)
    code, _, err = run(*command(cohort, tmp_path / "b", "--batch-size", "99"))
    assert (code, "a batch of 99 needs" in err) == (2, True)
    code, _, err = run(*command(cohort, tmp_path / "c", "--resume"))
    assert (code, "holds no run" in err) == (2, True)
    code, _, err = run("train", "pix2pix", "--cohort", str(tmp_path), "--out", str(tmp_path / "d"))
    assert (code, "is no cohort" in err) == (1, True)

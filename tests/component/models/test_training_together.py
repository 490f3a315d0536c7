"""Several processes train the model that one would have trained."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from models.bundle import read_card
from models.cohort import Cohort
from models.training.accelerated import PATIENCE
from tests.component.models import joint_runs
from tests.component.models.training_cohort import PullsThePlug, lines

ROOT = Path(__file__).parents[3]
# Measured: 4e-6 for losses, 1e-4 for figures of a validation, 7e-5 for weights; Adam magnifies the rounding of sums.
TOLERANCES = LOSSES_REL, FIGURES_REL, WEIGHTS_REL = 1e-5, 3e-4, 3e-4


def start(processes: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """Processes with the environment that torchrun gives them, without the seconds that it takes to load itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | meet | {"RANK": str(k), "LOCAL_RANK": str(k), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k in range(processes)
    ]


@pytest.fixture(scope="module")
def alone(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    for case in joint_runs.CASES:
        joint_runs.run(case, cohort.path, out, str(out / "syndiff_paired" / "bundle"))
    return out


class Pair(NamedTuple):
    out: Path
    told: list[str]
    exits: list[int]


@pytest.fixture(scope="module")
def pair(cohort: Cohort, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """All cases, and then what ends a run, in one pair of processes: to load torch takes them seconds."""
    out = tmp_path_factory.mktemp("pair")
    with pytest.raises(KeyboardInterrupt):
        joint_runs.run("begun_by_one", cohort.path, out, "", observer=PullsThePlug(2))
    teacher = str(alone / "syndiff_paired" / "bundle")
    running = start(2, "-m", "tests.component.models.joint_runs", str(cohort.path), str(out), teacher)
    try:
        told = [process.communicate(timeout=180) for process in running]
    finally:
        for process in running:
            process.kill()
    for _, mistakes in told:
        assert "Traceback" not in mistakes, mistakes
    return Pair(out, [words for words, _ in told], [process.returncode for process in running])


@pytest.mark.parametrize("case", joint_runs.CASES)
def test_two_processes_have_the_losses_and_weights_of_one(case: str, alone: Path, pair: Pair) -> None:
    for file in ("losses.jsonl", "validations.jsonl"):
        ours, theirs = lines(alone / case, file), lines(pair.out / case, file)
        assert len(ours) == 3
        for one, other in zip(ours, theirs, strict=True):
            how_many = {"processes"} if file == "validations.jsonl" else set()
            compared = one.keys() - how_many
            assert {key: other[key] for key in compared} == pytest.approx(
                {key: one[key] for key in compared}, rel=LOSSES_REL if file == "losses.jsonl" else FIGURES_REL, abs=1e-7
            )
    states = [torch.load(out / case / "checkpoint-0.pt", weights_only=True)["state"] for out in (alone, pair.out)]
    for kind in ("networks", "averages"):
        for name, network in states[0][kind].items():
            for key, weights in network.items():
                if key.endswith("weight") or "running" in key:  # an instance norm removes some biases, which then drift
                    apart = (weights - states[1][kind][name][key]).norm() / weights.norm()
                    assert apart < WEIGHTS_REL, f"{kind} {name} {key}: {apart}"


def test_only_the_first_process_writes_and_the_run_says_how_many_trained(alone: Path, pair: Pair) -> None:
    assert sorted(file.name for file in (pair.out / "pix2pix").iterdir()) == sorted(
        file.name for file in (alone / "pix2pix").iterdir()
    )
    assert read_card(pair.out / "pix2pix" / "bundle").training["processes"] == 2
    assert [line["processes"] for line in lines(pair.out / "begun_by_one", "validations.jsonl")] == [1, 2, 2]
    assert len(list((pair.out / "pix2pix" / "tensorboard").iterdir())) == 1


def test_what_ends_one_process_ends_all_with_a_sentence(pair: Pair) -> None:
    first, second = pair.told
    assert "OSError No space left on device" in first
    assert "EndedByFirst the first process of this run ended: No space left on device" in second
    assert "PeerLost another process of this run ended or does not answer" in first
    assert pair.exits == [0, 3]


def test_the_settings_of_accelerate_in_the_guide_are_read_by_it(tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    guide = (ROOT / "docs" / "train" / "several.md").read_text(encoding="utf-8")
    file = tmp_path / "accelerate.yaml"
    file.write_text(guide.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    read = load_config_from_file(str(file))
    assert (read.num_machines, read.num_processes, read.machine_rank) == (2, 8, 0)
    assert f"{PATIENCE.total_seconds() / 60:.0f} minutes at most" in guide
    assert all(f"{tolerance:.0e}".replace("e-0", "e-") in guide for tolerance in TOLERANCES)

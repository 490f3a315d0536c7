"""Promises of `make gpu`: the dry run passes from a bare copy, a fault gives exit code 1, refusals are one sentence."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu.__main__ import SECTIONS, main
from bench.gpu.report import Section
from models.translators import slicewise

ROOT = Path(__file__).parents[2]
NOT_THERE = (
    *("config", "storage", "node", "tests", "pydicom", "pynetdicom", "sqlalchemy", "pydantic", "typer", "rich"),
    *("accelerate", "tensorboard", "SimpleITK", "matplotlib", "torchmetrics", "skimage", "pytest"),
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bench/ and models/ alone, as they are copied to a machine with a GPU."""
    root = tmp_path_factory.mktemp("bare")
    for name in ("bench", "models"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    return root


def run(root: Path, out: Path, *words: str, missing: tuple[str, ...] = NOT_THERE) -> subprocess.CompletedProcess[str]:
    """Run bench/gpu.sh where these packages cannot be imported, whatever is installed."""
    blocker = out / "blocker"
    blocker.mkdir(exist_ok=True)
    (blocker / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\n")
    given = {"PYTHON": sys.executable, "PYTHONPATH": str(blocker), "OUT": str(out)}
    command = [str(root / "bench" / "gpu.sh"), *words]
    environment = {**os.environ, **given}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=out, timeout=280)


def read(out: Path) -> dict[str, Any]:
    (file,) = out.glob("gpu-*.json")
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


@pytest.fixture(scope="module")
def dry_run(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("report")
    done = run(bare, out, "DEVICE=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    return read(out)


def test_the_dry_run_passes_from_a_bare_copy_with_every_section(dry_run: dict[str, Any]) -> None:
    assert list(dry_run["sections"]) == list(SECTIONS)
    assert dry_run["finished"]
    assert dry_run["passed"]
    assert dry_run["dry_run"]
    assert all(section["error"] is None for section in dry_run["sections"].values())
    assert all(check["passed"] for section in dry_run["sections"].values() for check in section["checks"])
    assert {"correctness", "determinism", "memory", "training"} <= {
        name for name, section in dry_run["sections"].items() if section["checks"]
    }


def test_the_report_says_what_its_figures_belong_to(dry_run: dict[str, Any]) -> None:
    assert dry_run["revision"] == "unknown"
    assert dry_run["machine"]["device"] == "cpu"
    assert dry_run["machine"]["versions"]["torch_build"] == torch.__version__
    assert all(check["why"] for section in dry_run["sections"].values() for check in section["checks"])
    rows = [row for section in dry_run["sections"].values() for row in section["rows"]]
    assert any("ms_per_step_per_slice" in row for row in rows)
    assert any(row.get("state") == "needs cuda" for row in rows)


def test_without_the_packages_of_a_node_the_whole_node_is_left_out_with_a_sentence(dry_run: dict[str, Any]) -> None:
    (row,) = dry_run["sections"]["node"]["rows"]
    assert row == {"figure": "the whole node", "state": "not run: pydicom is not installed"}


def test_the_whole_node_is_measured_stage_by_stage(tmp_path: Path) -> None:
    done = run(ROOT, tmp_path, "DEVICE=cpu", "--only", "node", missing=())
    assert done.returncode == 0, done.stdout + done.stderr
    section = read(tmp_path)["sections"]["node"]
    assert [check["value"] for check in section["checks"]] == [0], "every series arrives at the planner"
    seconds = {row["figure"]: row["value"] for row in section["rows"] if row.get("workers") == 1}
    alone = ("read", "translate", "second look", "composite", "gate", "write", "prove")
    assert all(seconds[stage] > 0 for stage in ("receive", "queue", "send", *alone))
    assert sum(seconds[stage] for stage in alone) <= seconds["job in the worker"]
    assert seconds["job in the worker"] <= seconds["job, from claim to record"] + 0.02, "times of the store are rounded"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process settles before torch is loaded must not outlive a test."""
    for name, value in {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "0"}.items():
        monkeypatch.setenv(name, os.environ.get(name, value))


@pytest.mark.usefixtures("settled")
def test_a_section_that_breaks_or_finds_a_fault_fails_the_run_and_ends_nothing_else(tmp_path: Path) -> None:
    def broken(section: Section, **places: object) -> None:
        raise RuntimeError("a fault of the driver")

    def wrong(section: Section, **places: object) -> None:
        section.check("bits that differ", 1, 0, "there should be none")

    def nothing_found(section: Section, **places: object) -> None:
        section.check("a loss", float("nan"), 1, "a value that is no number keeps no promise")

    def empty(section: Section, **places: object) -> None:
        assert not section.has_time_for("everything", seconds=1e6)

    def fine(section: Section, **places: object) -> None:
        section.check("bits that differ", 0, 0, "there should be none")

    works = {f.__name__: f for f in (broken, wrong, nothing_found, empty, fine)}
    assert main(["--device", "cpu", "--out", str(tmp_path)], works) == 1
    report = read(tmp_path)
    passed = {name: section["passed"] for name, section in report["sections"].items()}
    assert passed == {"broken": False, "wrong": False, "nothing_found": False, "empty": False, "fine": True}
    assert "a fault of the driver" in report["sections"]["broken"]["error"]
    assert report["sections"]["empty"]["notes"] == ["everything: not run: out of time"]
    assert report["finished"]
    assert not report["passed"]


@pytest.mark.usefixtures("settled")
def test_a_product_that_does_not_halve_its_batch_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--device", "cpu", "--out", str(tmp_path), "--only", "memory"]
    assert main(arguments) == 0
    monkeypatch.setattr(slicewise.Runtime, "halve_batch", lambda runtime: False)
    assert main([*arguments[:3], str(tmp_path / "again"), *arguments[4:]]) == 1
    assert "OutOfMemoryError" in read(tmp_path / "again")["sections"]["memory"]["error"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_refuses_in_one_sentence(bare: Path, tmp_path: Path) -> None:
    done = run(bare, tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "DEVICE is cuda, but torch finds no usable GPU on this machine; DEVICE=cpu is the dry run.\n"
    )
    assert list(tmp_path.glob("gpu-*")) == []


def test_a_missing_package_is_named(bare: Path, tmp_path: Path) -> None:
    done = run(bare, tmp_path, "DEVICE=cpu", missing=("safetensors",))
    assert done.returncode == 2
    assert "needs the Python package safetensors" in done.stderr


def test_a_missing_interpreter_is_named(bare: Path, tmp_path: Path) -> None:
    done = run(bare, tmp_path, "DEVICE=cpu", "PYTHON=/nowhere/python")
    assert done.returncode == 2
    assert done.stderr == "There is no interpreter /nowhere/python; name one with PYTHON=.\n"

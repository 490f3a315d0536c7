"""The files from which a run goes on after any stop."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.training.options import TrainingError

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Best:
    """The best validation so far: its epoch (counted from 1), its figures, and how many have come since."""

    epoch: int
    figures: Mapping[str, float]
    since: int = 0

    def passed(self) -> "Best":
        """The same after another validation that was no better."""
        return replace(self, since=self.since + 1)


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` optimisation steps; one that ends an epoch is saved after its validation."""

    step: int
    best: Best | None
    state: Mapping[str, Any]


def begin_run(out: Path, facts: Mapping[str, object], *, resume: bool) -> None:
    """Enter what decides the run into `out`/run.json, or compare it with what is there; raises TrainingError.

    A run is never continued by accident, and never under other settings than it began with.
    """
    file = out / RUN_FILE
    plain = json.loads(json.dumps(facts))
    if not file.exists():
        if resume:
            raise TrainingError(f"{out} holds no run to go on with.")
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise TrainingError(f"{out} is not empty; name another folder.")
        _write(file, (json.dumps(plain, indent=1) + "\n").encode())
        return
    if not resume:
        raise TrainingError(f"{out} already holds a run; go on with it by --resume, or name another folder.")
    begun = json.loads(file.read_text(encoding="utf-8"))
    if differing := sorted(key for key in {*begun, *plain} if begun.get(key) != plain.get(key)):
        key = differing[0]
        raise TrainingError(f"{out} was begun with {key} {begun.get(key)!r}, not {plain.get(key)!r}: not the same run.")


def save_checkpoint(out: Path, process: int, checkpoint: Checkpoint) -> None:
    """Replace this process's checkpoint; a crash leaves the old one or the new one, never half of one."""
    best = None if checkpoint.best is None else asdict(checkpoint.best)
    whole = {"step": checkpoint.step, "best": best, "state": checkpoint.state}
    file = _file(out, process)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        torch.save(whole, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def load_checkpoint(out: Path, process: int) -> Checkpoint | None:
    """The last checkpoint of this process, or None before the first; raises TrainingError for a damaged one."""
    file = _file(out, process)
    if not file.exists():
        return None
    try:
        whole = torch.load(file, map_location="cpu", weights_only=True)
        best = None if whole["best"] is None else Best(**whole["best"])
        return Checkpoint(int(whole["step"]), best, whole["state"])
    except Exception as error:  # torch.load has no error of its own: pickle, zip and key errors all mean this
        raise TrainingError(f"{file} cannot be read: {error}.") from error


def _file(out: Path, process: int) -> Path:
    return out / f"checkpoint-{process}.pt"


def _write(file: Path, data: bytes) -> None:
    partial = file.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(file)

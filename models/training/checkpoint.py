"""The files from which a run goes on after any stop."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch

from models.training.claim import CLAIM_FILE, claim
from models.training.journal import flat
from models.training.options import TrainingError

RUN_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint-0.pt"  # the first process writes it
_FREE = "processes"  # earlier versions entered it, and went on with as many only


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
    """A run after `step` optimisation steps and so many seconds; one that ends an epoch is saved after its validation.

    `ended`: the run has used up its time.
    """

    step: int
    best: Best | None
    state: Mapping[str, Any]
    seconds: float = 0.0
    ended: bool = False


def begin_run(out: Path, facts: Mapping[str, object], *, resume: bool) -> IO[str]:
    """Claim `out` for this training (`claim`), and enter what decides the run into run.json or compare it with that.

    A run is never continued by accident, never under other settings than it began with, and never by two at once.
    Returns what holds the claim; raises TrainingError.
    """
    _check_kind(out, resume=resume)  # a folder of other things is left without our file
    out.mkdir(parents=True, exist_ok=True)
    held = claim(out)
    try:
        _check_kind(out, resume=resume)  # another training may have begun here meanwhile
        file, plain = out / RUN_FILE, json.loads(json.dumps(facts))
        if not resume:
            write_whole(file, json.dumps(plain, indent=1) + "\n")
        elif told := tell_difference(json.loads(file.read_text(encoding="utf-8")), plain):
            raise TrainingError(f"{out} was begun with {told}: not the same run.")
    except BaseException:
        held.close()
        raise
    return held


def _check_kind(out: Path, *, resume: bool) -> None:
    is_run = (out / RUN_FILE).exists()
    if resume and not is_run:
        raise TrainingError(f"{out} holds no run to go on with.")
    if is_run and not resume:
        raise TrainingError(f"{out} already holds a run; go on with it by --resume, or name another folder.")
    if not is_run and out.exists() and any(path.name != CLAIM_FILE for path in out.iterdir()):
        raise TrainingError(f"{out} is not empty; name another folder.")


def tell_difference(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    """Which facts of two runs are not the same, in words; "" where all are, the number of processes excepted."""
    first, second = flat(one), flat(other)
    differing = sorted(key for key in {*first, *second} - {_FREE} if first.get(key) != second.get(key))
    return ", ".join(f"{key} {first.get(key)!r}, not {second.get(key)!r}" for key in differing)


def save_checkpoint(out: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint, from which any number of processes can go on.

    A crash leaves the old one or the new one, never half of one. Raises OSError that names the file.
    """
    best = None if checkpoint.best is None else asdict(checkpoint.best)
    spent = {"seconds": checkpoint.seconds, "ended": checkpoint.ended}
    whole = {"step": checkpoint.step, "best": best, "state": checkpoint.state, **spent}
    file = out / CHECKPOINT_FILE
    partial = file.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            torch.save(whole, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:  # of a full disk it names no file, and what is half written keeps the disk full
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from error
    partial.replace(file)


def load_checkpoint(out: Path) -> Checkpoint | None:
    """The last checkpoint, or None before the first; raises TrainingError for a damaged one."""
    file = out / CHECKPOINT_FILE
    if not file.exists():
        return None
    try:
        whole = torch.load(file, map_location="cpu", weights_only=True)
        best = None if whole["best"] is None else Best(**whole["best"])
        spent = float(whole.get("seconds", 0.0)), bool(whole.get("ended", False))
        return Checkpoint(int(whole["step"]), best, whole["state"], *spent)
    except Exception as error:  # torch.load has no error of its own: pickle, zip and key errors all mean this
        raise TrainingError(f"{file} cannot be read: {error}.") from error


def write_whole(file: Path, text: str) -> None:
    """Write a small file; a crash leaves the old one or the new one."""
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)

"""What a run writes down for people: every step's losses, every validation, TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LOSSES_FILE = "losses.jsonl"
VALIDATIONS_FILE = "validations.jsonl"
FIGURES = ("psnr_db", "ssim", "nmae", "psnr_gain_db")
"""The figures of a validation."""
_SHOWN_SLICES = 4


class Journal:
    """`losses.jsonl` and `validations.jsonl`, one JSON object a line, and TensorBoard events below `tensorboard/`.

    A run that goes on from step n forgets what was written of later steps, so that the files read as if it had never
    stopped.
    """

    def __init__(self, out: Path, facts: Mapping[str, object], *, step: int) -> None:
        """Open the files for a run that has taken `step` steps; TensorBoard compares runs by their `facts`."""
        # Loading it takes seconds, which only the process that writes should pay.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415

        for name in (LOSSES_FILE, VALIDATIONS_FILE):
            _keep_until(out / name, step)
        self._losses = (out / LOSSES_FILE).open("a", encoding="utf-8", buffering=1)
        self._validations = (out / VALIDATIONS_FILE).open("a", encoding="utf-8", buffering=1)
        board: Any = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
        figures = {f"validation/{name}": 0.0 for name in FIGURES}
        for summary in hparams(flat(facts), figures):  # type: ignore[no-untyped-call]
            board.file_writer.add_summary(summary)
        self._board = board

    def step(self, step: int, epoch: float, losses: Mapping[str, float]) -> None:
        """Losses of the `step`-th step, counted from 1."""
        self._losses.write(json.dumps({"step": step, "epoch": round(epoch, 4), **losses}) + "\n")
        for name, value in losses.items():
            self._board.add_scalar(f"train/{name}", value, step)

    def validation(self, step: int, epoch: int, processes: int, figures: Mapping[str, float], pictures: Tensor) -> None:
        """Figures after an epoch, counted from 1, that so many processes trained; pictures are of `picture_rows`."""
        line = {"step": step, "epoch": epoch, "processes": processes, **figures}
        self._validations.write(json.dumps(line) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(f"validation/{name}", value, step)
        self._board.add_image("validation/source prediction target change", pictures, step)
        self._board.flush()

    def close(self) -> None:
        """Close all files."""
        self._losses.close()
        self._validations.close()
        self._board.close()


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, bool | int | float | str]:
    """Nested values by their paths, with points between the keys; what is neither number nor text, as text."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return found


def picture_rows(source: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
    """A picture [1, R, C] in [0, 1] of a few slices: source, prediction, target, prediction - source; a row a slice."""
    picks = np.unique(np.linspace(0, len(source) - 1, min(_SHOWN_SLICES, len(source))).round().astype(int))
    change = (prediction - source).clamp(-1, 1)
    rows = [torch.cat([image[int(k)] for image in (source, prediction, target, change)], dim=-1) for k in picks]
    return (torch.cat(rows, dim=-2) + 1) / 2


def _keep_until(file: Path, step: int) -> None:
    """Drop lines of later steps, and a last line that a crash cut off."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    file.write_text("".join(kept), encoding="utf-8")

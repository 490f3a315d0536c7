"""The pictures of the report; no other module of `models` draws.

Panels show patients as radiologists look at them: from the feet, front up, the patient's left on the right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.evaluation.measure import PatientFigures

Image = NDArray[np.float32]  # [y, x] in HU

DISPLAY_HU = (-40.0, 240.0)
ERROR_HU = 120.0
_SIDE_INCHES = 2.4


@dataclass(frozen=True)
class PanelRow:
    """One slice: what it is, the truth, and the prediction of each name, all in HU."""

    label: str
    truth: Image
    predictions: Mapping[str, Image]


def write_panel(file: Path, rows: Sequence[PanelRow], *, title: str) -> None:
    """Write a PNG with the truth and then one column a name; below each slice what is wrong with it."""
    names = list(rows[0].predictions)
    size = ((len(names) + 1) * _SIDE_INCHES, 2 * len(rows) * _SIDE_INCHES + 0.7)
    figure = _new_figure(size, facecolor="black")
    top = 1 - 0.6 / size[1]
    grid = figure.add_gridspec(
        2 * len(rows), len(names) + 1, left=0.03, right=0.995, bottom=0.01, top=top, hspace=0.03, wspace=0.03
    )
    figure.suptitle(title, color="white", fontsize=11, y=1 - 0.1 / size[1], va="top")
    for number, row in enumerate(rows):
        box = _body_box(row.truth)
        pictures = {name: image[box] for name, image in {"CECT": row.truth, **row.predictions}.items()}
        for column, (name, image) in enumerate(pictures.items()):
            above = figure.add_subplot(grid[2 * number, column])
            above.imshow(image, cmap="gray", vmin=DISPLAY_HU[0], vmax=DISPLAY_HU[1])
            below = figure.add_subplot(grid[2 * number + 1, column])
            if column:
                below.imshow(image - pictures["CECT"], cmap="RdBu_r", vmin=-ERROR_HU, vmax=ERROR_HU)
            else:
                below.set_facecolor("black")
            for axis in (above, below):
                axis.set_xticks([])
                axis.set_yticks([])
            if number == 0:
                above.set_title(name, color="white", fontsize=9)
            if column == 0:
                above.set_ylabel(row.label, color="white", fontsize=8)
                below.set_ylabel(f"error, ± {ERROR_HU:g} HU", color="white", fontsize=8)
    figure.savefig(file, facecolor="black")


def write_bland_altman(file: Path, figures: Sequence[PatientFigures], structures: Sequence[str], *, title: str) -> None:
    """Write a PNG with one plot for each structure (down) and name (across): each point is a patient's mean.

    Difference prediction - truth over the mean of both, in HU, with its mean and the limits of agreement, mean +- 1.96
    SD (Bland & Altman, Lancet 1986).
    """
    names = list(dict.fromkeys(f.name for f in figures))
    size = (2.7 * len(names) + 0.8, 1.8 * len(structures) + 1.05)
    figure = _new_figure(size)
    margins = {"left": 0.75 / size[0], "right": 1 - 0.1 / size[0], "bottom": 0.45 / size[1], "top": 1 - 0.6 / size[1]}
    axes = figure.subplots(
        len(structures), len(names), squeeze=False, sharex="row", sharey="row", gridspec_kw={**margins, "hspace": 0.3}
    )
    figure.suptitle(title, fontsize=11, y=1 - 0.1 / size[1], va="top")
    for line, structure in enumerate(structures):
        for column, name in enumerate(names):
            axis = axes[line][column]
            errors = [f.structures[structure] for f in figures if f.name == name and structure in f.structures]
            middle = [(e.mean_prediction_hu + e.mean_truth_hu) / 2 for e in errors]
            difference = np.array([e.mean_prediction_hu - e.mean_truth_hu for e in errors])
            axis.scatter(middle, difference, s=12, color="tab:blue")
            axis.axhline(0, color="0.7", linewidth=0.8)
            if len(errors) > 1:
                mean, sd = float(difference.mean()), float(difference.std(ddof=1))
                axis.axhline(mean, color="tab:red", linewidth=1)
                for limit in (mean - 1.96 * sd, mean + 1.96 * sd):
                    axis.axhline(limit, color="tab:red", linewidth=0.8, linestyle="--")
            if line == 0:
                axis.set_title(name, fontsize=9)
            if column == 0:
                axis.set_ylabel(f"{structure.replace('_', ' ')}\ndifference [HU]", fontsize=7)
            axis.tick_params(labelsize=7)
            axis.locator_params(nbins=4)
        axes[-1][0].set_xlabel("mean of prediction and truth [HU]", fontsize=7)
    figure.savefig(file)


def _new_figure(size_inches: tuple[float, float], **options: Any) -> Any:
    """An empty figure; loaded here, so that figures without pictures can be had where matplotlib is not installed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=size_inches, dpi=110, **options)
    FigureCanvasAgg(figure)
    return figure


def _body_box(image: Image) -> tuple[slice, slice]:
    """Rows and columns of a square around everything denser than fat, as far as the picture goes."""
    sides = [np.flatnonzero((image > DISPLAY_HU[0]).any(axis=axis)) for axis in (1, 0)]
    if not all(side.size for side in sides):
        return slice(None), slice(None)
    half = max(int(side[-1] - side[0]) for side in sides) // 2 + 4
    middles = [int(side[-1] + side[0]) // 2 for side in sides]
    rows, columns = (slice(max(0, middle - half), middle + half) for middle in middles)
    return rows, columns

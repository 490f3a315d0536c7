"""The picture of a result: source, synthetic and difference in HU, with colour bars."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

WINDOW_HU = (-110.0, 240.0)  # soft tissue with contrast: level 65, width 350
DIFFERENCE_HU = 150.0
_TITLES = ("source: non-contrast CT", "synthetic contrast-enhanced CT", "difference")

Image = npt.NDArray[np.float32]  # [y, x] in HU


def write_picture(path: Path, rows: list[tuple[str, Image, Image]], *, title: str) -> None:
    """Write a PNG with one row (label, source, synthetic) per slice: source | synthetic | difference."""
    inches = 3.9
    figure = Figure(figsize=(3 * inches + 1.5, len(rows) * inches + 0.8), dpi=100, facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        6,
        width_ratios=(1, 1, 0.03, 0.13, 1, 0.03),
        left=0.025,
        right=0.945,
        bottom=0.01,
        top=0.915,
        hspace=0.03,
        wspace=0.03,
    )
    figure.suptitle(title, color="white", fontsize=12)
    for number, (label, source, synthetic) in enumerate(rows):
        axes = [figure.add_subplot(grid[number, column]) for column in (0, 1, 4)]
        for axis, image in zip(axes[:2], (source, synthetic), strict=True):
            grey = axis.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], interpolation="antialiased")
        change = axes[2].imshow(
            synthetic - source, cmap="RdBu_r", vmin=-DIFFERENCE_HU, vmax=DIFFERENCE_HU, interpolation="antialiased"
        )
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
        axes[0].set_ylabel(label, color="white")
        if number == 0:
            for axis, text in zip(axes, _TITLES, strict=True):
                axis.set_title(text, color="white", fontsize=10)
        _bar(figure, grey, figure.add_subplot(grid[number, 2]), "HU")
        _bar(figure, change, figure.add_subplot(grid[number, 5]), "difference, HU")
    figure.savefig(path, facecolor="black")


def _bar(figure: Figure, image: ScalarMappable, axis: Axes, label: str) -> None:
    bar = figure.colorbar(image, cax=axis)
    bar.set_label(label, color="white", fontsize=8)
    bar.ax.tick_params(colors="white", labelsize=7)

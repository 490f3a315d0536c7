"""The picture of a result: source, synthetic and difference in HU, with a colour bar."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WINDOW_HU = (-110.0, 240.0)  # soft tissue with contrast: level 65, width 350
DIFFERENCE_HU = 150.0

Image = npt.NDArray[np.float32]  # [y, x] in HU


def write_picture(path: Path, rows: list[tuple[str, Image, Image]], *, title: str) -> None:
    """Write a PNG with one row (label, source, synthetic) per slice: source | synthetic | difference."""
    figure = Figure(figsize=(12.6, 0.5 + 4.0 * len(rows)), dpi=110, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_2d(figure.subplots(len(rows), 3))
    figure.suptitle(title, color="white", fontsize=11)
    for (label, source, synthetic), (left, middle, right) in zip(rows, axes, strict=True):
        for axis, image in ((left, source), (middle, synthetic)):
            grey = axis.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], interpolation="bilinear")
        colour = right.imshow(
            synthetic - source, cmap="RdBu_r", vmin=-DIFFERENCE_HU, vmax=DIFFERENCE_HU, interpolation="bilinear"
        )
        left.set_ylabel(label, color="white")
        for axis in (left, middle, right):
            axis.set_xticks([])
            axis.set_yticks([])
        _bar(figure, grey, middle, "HU")
        _bar(figure, colour, right, "difference, HU")
    for axis, text in zip(
        axes[0], ("source: non-contrast CT", "synthetic contrast-enhanced CT", "difference"), strict=True
    ):
        axis.set_title(text, color="white", fontsize=10)
    figure.savefig(path, facecolor="black")


def _bar(figure: Figure, image: object, axis: object, label: str) -> None:
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.02)  # type: ignore[arg-type]
    bar.set_label(label, color="white", fontsize=8)
    bar.ax.tick_params(colors="white", labelsize=7)

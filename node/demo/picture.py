"""The picture of a result: source, synthetic and difference in HU, with colour bars."""

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from node.demo.pairs import Pair, read_hu

WINDOW_HU: Final = (-110.0, 240.0)  # soft tissue with contrast
DIFFERENCE_HU: Final = 150.0
_TITLES: Final = ("source: non-contrast CT", "synthetic contrast-enhanced CT", "difference: synthetic - source")
_INCHES: Final = 3.9  # of one slice


def write_picture(path: Path, pairs: list[Pair], *, about: str, bundle: str) -> None:
    """Write a PNG with one row per slice: source | synthetic | difference.

    about: what is shown, without patient data. bundle: the label of what made it.
    """
    low, high = WINDOW_HU
    height = len(pairs) * _INCHES + 1.1
    figure = Figure(figsize=(3 * _INCHES + 1.5, height), dpi=100, facecolor="black")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(pairs),
        6,
        width_ratios=(1, 1, 0.03, 0.13, 1, 0.03),
        left=0.025,
        right=0.945,
        bottom=0.1 / height,
        top=1 - 1.0 / height,
        hspace=0.03,
        wspace=0.03,
    )
    figure.text(0.5, 1 - 0.28 / height, f"syncect demo: {about}", color="white", fontsize=13, ha="center", va="center")
    figure.text(
        0.5,
        1 - 0.56 / height,
        f"bundle {bundle}  |  grey: level {(low + high) / 2:g} HU, width {high - low:g} HU  |  "
        "not for clinical use, not for dose",
        color="0.75",
        fontsize=10,
        ha="center",
        va="center",
    )
    for number, pair in enumerate(pairs):
        axes = [figure.add_subplot(grid[number, column]) for column in (0, 1, 4)]
        grey, change = _draw(axes, pair)
        if number == 0:
            for axis, text in zip(axes, _TITLES, strict=True):
                axis.set_title(text, color="white", fontsize=11)
        _bar(figure, grey, figure.add_subplot(grid[number, 2]), "HU")
        _bar(figure, change, figure.add_subplot(grid[number, 5]), "difference, HU")
    figure.savefig(path, facecolor="black")


def _draw(axes: list[Axes], pair: Pair) -> tuple[ScalarMappable, ScalarMappable]:
    source, synthetic = read_hu(pair.source), read_hu(pair.derived)
    greys = [
        axis.imshow(
            image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], interpolation="antialiased", aspect=pair.aspect
        )
        for axis, image in zip(axes[:2], (source, synthetic), strict=True)
    ]
    change = axes[2].imshow(
        synthetic - source,
        cmap="RdBu_r",
        vmin=-DIFFERENCE_HU,
        vmax=DIFFERENCE_HU,
        interpolation="antialiased",
        aspect=pair.aspect,
    )
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_ylabel(f"z = {pair.z_mm:.0f} mm", color="white", fontsize=11)
    return greys[0], change


def _bar(figure: Figure, image: ScalarMappable, axis: Axes, label: str) -> None:
    bar = figure.colorbar(image, cax=axis)
    bar.set_label(label, color="white", fontsize=9)
    bar.ax.tick_params(colors="white", labelsize=8)

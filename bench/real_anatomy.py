"""What a bundle does to real non-contrast scans: a picture, and changes in HU by tissue. Nothing here is a test.

    .venv/bin/python bench/real_anatomy.py --data DIR --bundle NAME --out FILE.png

DIR holds public scans: pairs/A056642/ncct.dcm and cect.dcm, one slice each, of one woman without and with contrast
medium on different days and not registered; ct/philips_chest_ncct and ct/siemens_chest_ncct, a series each. The picture
shows the pair's slice and two of each series; the printed changes are those of these and of every fourth slice.
Reading, noise and compositing are the product's, so that the pixels are those that a planning system would get.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, label, uniform_filter

import models
from bench.derive import derive
from models import Translator
from models.process import settle_process
from node.demo.picture import DIFFERENCE_HU, WINDOW_HU
from node.dicom.orientation import Turn
from node.dicom.uids import seed_of
from node.dicom.volume import CTVolume, read_volume

Image = NDArray[np.float32]  # HU, [y, x] or [z, y, x]
Mask = NDArray[np.bool_]

PAIR = "pairs/A056642"
SHOWN = {  # heart; aortic arch with a mass beside it
    "ct/philips_chest_ncct": (23, 46),
    "ct/siemens_chest_ncct": (13, 21),
}
EVERY = 4
COLUMNS = ("NCCT", "prediction, composited", "true CECT, another day", "prediction - NCCT")
CREDITS = (
    "A056642: TCIA COVID-19-NY-SBU, doi 10.7937/tcia.bbag-2923, CC BY 4.0; "
    "Philips and Siemens chest: TCIA Lung-PET-CT-Dx, doi 10.7937/tcia.2020.nnc2-0461, CC BY 4.0."
)


@dataclass(frozen=True)
class Row:
    """One line of the picture; cect is None where no scan with contrast medium exists."""

    label: str
    ncct: Image
    prediction: Image
    cect: Image | None


def main() -> None:
    """Translate, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the scans")
    parser.add_argument("--bundle", default="demo-1step", help="name of a shipped bundle or path of a bundle folder")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="cpu")
    options = parser.parse_args()
    translator = models.load_bundle(models.find_bundle(options.bundle), device=options.device, precision="fp32")
    pair = read_volume([options.data / PAIR / "ncct.dcm"])
    cect = read_volume([options.data / PAIR / "cect.dcm"]).hu[0]
    predicted = translate(pair, translator, [0])
    rows = [Row("A056642", pair.hu[0], predicted[0], cect)]
    measured = {"A056642": changes(pair.hu, predicted)}
    for folder, shown in SHOWN.items():
        name = Path(folder).name
        volume = read_volume(sorted((options.data / folder).glob("*.dcm")))
        chosen = sorted({*shown, *range(0, len(volume.hu), EVERY)})
        predicted = translate(volume, translator, chosen)
        rows += [Row(f"{name}, {z}", volume.hu[z], predicted[z], None) for z in shown]
        measured[name] = changes(volume.hu[chosen], predicted[chosen])
    show(measured)
    draw(options.out, rows, title=f"{translator.card.name} {translator.card.version} on real anatomy")


def translate(volume: CTVolume, translator: Translator, chosen: Sequence[int]) -> Image:
    """Derived HU [z, y, x] as `syncect process` writes them in the chosen slices; the source's in all others."""
    predicted = np.full_like(volume.hu, np.nan)  # which the composite leaves to the source
    turn = Turn.of(volume.orientation)
    seed = seed_of(turn.forth(volume.hu), translator.card.hu_window)
    seen = turn.forth(volume.hu)
    whole = translator.translate(seen, seed, spacing_mm=volume.spacing_mm[0])
    predicted[chosen] = turn.back(whole)[chosen]
    return derive(volume, predicted, translator.card.hu_window).hu


def changes(source: Image, derived: Image) -> dict[str, tuple[int, float, float]]:
    """By tissue: number of voxels, mean and 99th percentile of |derived - source|, HU."""
    size = np.abs(derived - source)
    figures = {}
    for name, mask in tissues(source).items():
        inside = size[mask]
        if inside.size:
            figures[name] = (inside.size, float(inside.mean()), float(np.percentile(inside, 99)))
    return figures


def tissues(source: Image) -> dict[str, Mask]:
    """Tissues by HU: bone by the voxel itself, the others by a 5 x 5 mean, which noise carries over no limit."""
    body = np.stack([silhouette(plane) for plane in source])
    mean = uniform_filter(source, size=(1, 5, 5))
    return {
        "lung, -950 to -500": body & (mean > -950) & (mean < -500),
        "fat, -140 to -60": body & (mean > -140) & (mean < -60),
        "soft tissue, 0 to 80": body & (mean > 0) & (mean < 80),
        "bone, over 300": body & (source > 300),
        "all of the body": body,
        "couch and air": ~body,
    }


def silhouette(plane: Image) -> Mask:
    """The body of one slice: the largest dense piece without bridges to the couch, holes filled."""
    dense = binary_erosion(uniform_filter(plane, size=5) > -300, iterations=4)
    pieces, count = label(dense)
    if not count:
        return np.zeros(plane.shape, bool)
    largest = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    return np.asarray(binary_fill_holes(binary_dilation(largest, iterations=4)))


def show(measured: Mapping[str, Mapping[str, tuple[int, float, float]]]) -> None:
    """Print one line for each series and tissue."""
    sys.stdout.write(f"{'series':<22}{'tissue, HU of the source':<26}{'voxels':>10}{'mean |change|':>15}{'p99':>8}\n")
    for series, figures in measured.items():
        for tissue, (voxels, mean, high) in figures.items():
            sys.stdout.write(f"{series:<22}{tissue:<26}{voxels:>10}{mean:>15.2f}{high:>8.1f}\n")


def draw(file: Path, rows: Sequence[Row], *, title: str) -> None:
    """Write the PNG: one line a slice, grey values in the window of the demo's picture, changes in colour."""
    inches = 3.0
    size = (len(COLUMNS) * inches, len(rows) * inches + 1.1)
    figure = Figure(figsize=size, dpi=100, facecolor="black")
    FigureCanvasAgg(figure)
    margins = {"left": 0.03, "right": 0.995, "bottom": 0.3 / size[1], "top": 1 - 0.75 / size[1]}
    axes = figure.subplots(
        len(rows), len(COLUMNS), squeeze=False, gridspec_kw={**margins, "hspace": 0.02, "wspace": 0.02}
    )
    figure.suptitle(
        f"{title}; grey {WINDOW_HU[0]:g} to {WINDOW_HU[1]:g} HU, change ± {DIFFERENCE_HU:g} HU",
        color="white",
        y=1 - 0.2 / size[1],
    )
    figure.text(0.5, 0.1 / size[1], CREDITS, color="white", fontsize=8, ha="center")
    for line, row in zip(axes, rows, strict=True):
        for axis, image in zip(line[:3], (row.ncct, row.prediction, row.cect), strict=True):
            blank(axis)
            if image is not None:
                axis.imshow(image, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        blank(line[3])
        line[3].imshow(row.prediction - row.ncct, cmap="RdBu_r", vmin=-DIFFERENCE_HU, vmax=DIFFERENCE_HU)
        line[0].set_ylabel(row.label, color="white")
    for axis, text in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(text, color="white", fontsize=10)
    figure.savefig(file, facecolor="black")


def blank(axis: Axes) -> None:
    """No ticks, black where nothing is."""
    axis.set_facecolor("black")
    axis.set_xticks([])
    axis.set_yticks([])


if __name__ == "__main__":
    settle_process()
    main()

"""A small derived series with its doubt, as a worker leaves it in the folder of a result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dicom.derived import build_slice
from node.dicom.doubt_file import Doubt, write_doubt
from node.dicom.elements import write_part10
from node.dicom.volume import read_volume
from tests.builders import make_series
from tests.unit.node.dicom.test_derived import PLAN

SIZE = (4, 20, 28)


@dataclass(frozen=True)
class Made:
    """A derived series with its doubt in a folder."""

    folder: Path
    slices: list[Dataset]
    mask: NDArray[np.bool_]
    doubt_hu: NDArray[np.uint8]


def derived_series(folder: Path, **series: Any) -> Made:
    slices, rows, columns = SIZE
    shape: Any = {"slices": slices, "rows": rows, "columns": columns, "spacing_mm": (2.5, 0.9, 0.7)}
    source = make_series(folder / "source", **(shape | series))
    volume = read_volume(source)
    out = folder / "derived"
    out.mkdir()
    for z, one in enumerate(volume.slices):
        write_part10(build_slice(PLAN, one, volume.stored[z]), out / f"{z + 1:04d}.dcm")
    rng = np.random.default_rng(3)
    doubt_hu = rng.integers(0, 256, volume.stored.shape).astype(np.uint8)
    mask = rng.random(doubt_hu.shape) < 0.1
    mask[1] = False  # a slice without doubt
    write_doubt(out, Doubt(mask, doubt_hu, 30.0))
    return Made(out, [dcmread(path) for path in sorted(out.glob("*.dcm"))], mask, doubt_hu)

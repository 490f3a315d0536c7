"""Where a model brightens real scans: circles by kind, placed by eye, on scans without a second one.

The file of regions is JSON: `{"regions": [...], "tracks": [...]}`, each list may be missing. A region has `name`,
`series` (a folder of DICOM files below the data folder), `slice` (upwards from 0 along the slice normal), `x_px`
(column), `y_px` (row), `radius_px` and `kind`. A track has `name`, `series` and `circles`: a list of `slice`, `x_px`,
`y_px`, `radius_px`. Other keys are for people.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from models.errors import ModelsError

Volume = NDArray[np.float32]  # HU [z, y, x]

KINDS: Final = ("vessel", "mass", "false", "organ", "quiet")
"""vessel should light; mass (mass, effusion, airless lung) and false (muscle, contents of bowel) should not; an organ
may enhance evenly; quiet should stay."""
WRONG: Final = ("mass", "false")
COUNTED_HU: Final = (-40.0, 200.0)


class RegionError(ModelsError):
    """A file of regions cannot be read, or one of its circles does not fit its series."""


@dataclass(frozen=True)
class Circle:
    """A circle in one slice: `slice` is z, `x_px` the column, `y_px` the row, all in pixels of the source."""

    slice: int
    x_px: float
    y_px: float
    radius_px: float


@dataclass(frozen=True)
class Region:
    """A circle whose kind says what should happen inside it."""

    name: str
    series: str
    kind: str
    circle: Circle


@dataclass(frozen=True)
class Track:
    """The course of one vessel: a circle in each slice."""

    name: str
    series: str
    circles: tuple[Circle, ...]


@dataclass(frozen=True)
class RegionFile:
    """What one or several files name."""

    regions: tuple[Region, ...] = ()
    tracks: tuple[Track, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """Every series that is named, in the order of the file."""
        return tuple(dict.fromkeys([one.series for one in self.regions] + [one.series for one in self.tracks]))

    def of(self, series: str) -> "RegionFile":
        """Only what lies on one series."""
        return RegionFile(
            tuple(one for one in self.regions if one.series == series),
            tuple(one for one in self.tracks if one.series == series),
        )

    def __add__(self, other: "RegionFile") -> "RegionFile":
        """Both together."""
        return RegionFile(self.regions + other.regions, self.tracks + other.tracks)


@dataclass(frozen=True)
class RegionRow:
    """One region measured. `change_hu`: mean of result - source, HU; not a number where no pixel counts."""

    region: Region
    pixels: int
    change_hu: float
    changes_hu: NDArray[np.float32] = field(repr=False)


def read_regions(file: Path) -> RegionFile:
    """Read a file of regions; raises RegionError that names the file and what is wrong with it."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        regions = tuple(_region(one) for one in values.get("regions", ()))
        tracks = tuple(_track(one) for one in values.get("tracks", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegionError(f"{file} cannot be read as a file of regions: {error!r}.") from error
    if not regions and not tracks:
        raise RegionError(f"{file} names neither regions nor tracks.")
    return RegionFile(regions, tracks)


def changes_inside(source_hu: Volume, result_hu: Volume, circle: Circle) -> NDArray[np.float32]:
    """result - source, HU, of a circle's pixels whose source lies in COUNTED_HU; raises RegionError off the volume."""
    if source_hu.shape != result_hu.shape:
        raise ValueError(f"the result of {result_hu.shape} does not fit the source of {source_hu.shape}")
    inside = counted_pixels(source_hu, circle)
    return np.asarray(result_hu[circle.slice][inside] - source_hu[circle.slice][inside], dtype=np.float32)


def counted_pixels(source_hu: Volume, circle: Circle) -> NDArray[np.bool_]:
    """[y, x] of a circle's slice: its pixels whose source lies in COUNTED_HU; raises RegionError off the volume."""
    count, rows, columns = source_hu.shape
    if not (0 <= circle.slice < count and 0 <= circle.x_px < columns and 0 <= circle.y_px < rows):
        raise RegionError(f"a circle of slice {circle.slice} lies outside a series of {count} x {rows} x {columns}.")
    y, x = np.ogrid[:rows, :columns]
    source = source_hu[circle.slice]
    disc = (x - circle.x_px) ** 2 + (y - circle.y_px) ** 2 <= circle.radius_px**2
    return np.asarray(disc & (source >= COUNTED_HU[0]) & (source <= COUNTED_HU[1]))


def measure_regions(source_hu: Volume, result_hu: Volume, regions: Iterable[Region]) -> list[RegionRow]:
    """Measure regions that all lie on one series."""
    rows = []
    for region in regions:
        changes = changes_inside(source_hu, result_hu, region.circle)
        rows.append(RegionRow(region, changes.size, mean_or_nan(changes), changes))
    return rows


def summarise_regions(rows: Sequence[RegionRow]) -> dict[str, float]:
    """Figures over regions, each region counting once; not a number where they are not defined.

    KINDS: mean change of the kind's regions, HU. `wrong`: the same over mass and false together; `wrong_size`: mean of
    its absolute value, so that one darkened mass does not make up for a brightened one. `wrong_per_vessel`: wrong /
    vessel, not a number unless vessels light up at all. `auc_regions`, `auc_pixels`: how often a vessel brightens more
    than a mass or a false region, ties counting half; 1 is perfect, 0.5 is chance.
    """
    by_kind = {kind: [row.change_hu for row in rows if row.region.kind == kind] for kind in KINDS}
    figures = {kind: mean_or_nan(values) for kind, values in by_kind.items()}
    wrong = [value for kind in WRONG for value in by_kind[kind]]
    figures |= {"wrong": mean_or_nan(wrong), "wrong_size": mean_or_nan(np.abs(wrong))}
    vessel = figures["vessel"]
    figures["wrong_per_vessel"] = figures["wrong"] / vessel if vessel > 0 else math.nan
    figures["auc_regions"] = auc(by_kind["vessel"], wrong)
    figures["auc_pixels"] = auc(*(_pixels(rows, kinds) for kinds in (("vessel",), WRONG)))
    return figures


def mean_or_nan(values: Sequence[float] | NDArray[Any]) -> float:
    """Mean of the values that are numbers; not a number where there is none."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    return float(kept.mean()) if kept.size else math.nan


def _pixels(rows: Sequence[RegionRow], kinds: Sequence[str]) -> NDArray[np.float32]:
    found = [row.changes_hu for row in rows if row.region.kind in kinds]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def auc(higher: Sequence[float] | NDArray[Any], lower: Sequence[float] | NDArray[Any]) -> float:
    """How often a value of `higher` exceeds one of `lower`, ties counting half; NaN where one of them has no number."""
    first, second = (np.asarray(values, dtype=np.float64) for values in (higher, lower))
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    if not first.size or not second.size:
        return math.nan
    return float(mannwhitneyu(first, second, method="asymptotic").statistic) / (first.size * second.size)


def _region(values: Mapping[str, Any]) -> Region:
    name, kind = str(values["name"]), str(values["kind"])
    if kind not in KINDS:
        raise ValueError(f"region {name} has the kind {kind}; allowed are {', '.join(KINDS)}")
    return Region(name, str(values["series"]), kind, _circle(values))


def _track(values: Mapping[str, Any]) -> Track:
    circles = tuple(sorted((_circle(one) for one in values["circles"]), key=lambda circle: circle.slice))
    if len({circle.slice for circle in circles}) < max(len(circles), 1):
        raise ValueError(f"track {values['name']} needs circles, and no slice twice")
    return Track(str(values["name"]), str(values["series"]), circles)


def _circle(values: Mapping[str, Any]) -> Circle:
    return Circle(int(values["slice"]), *(float(values[key]) for key in ("x_px", "y_px", "radius_px")))

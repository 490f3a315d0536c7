"""The bench of regions and tracks against volumes whose answers are known by hand."""

import json
import math

import numpy as np
import pytest

from models.evaluation.continuity import measure_track
from models.evaluation.regions import (
    Circle,
    Region,
    RegionError,
    Track,
    changes_inside,
    measure_regions,
    read_regions,
    summarise_regions,
)

SERIES = "ct/invented"
# A circle of radius 1 has five pixels: the middle and its four neighbours.
PLACES = {"vessel": (2, 2), "mass": (2, 7), "false": (7, 2), "organ": (7, 7), "quiet": (5, 5)}


def region(kind, x_px, y_px, z=0):
    return Region(f"{kind} {z}", SERIES, kind, Circle(z, x_px, y_px, 1.0))


def volumes(changes, source=40.0):
    """Source and result [2, 10, 10]: each kind's circle of slice 0 changed as given."""
    before = np.full((2, 10, 10), source, np.float32)
    after = before.copy()
    for kind, change in changes.items():
        x, y = PLACES[kind]
        after[0, y - 1 : y + 2, x - 1 : x + 2] += change
    return before, after


def measured(changes):
    before, after = volumes(changes)
    return measure_regions(before, after, [region(kind, *PLACES[kind]) for kind in PLACES])


def test_each_region_has_the_mean_change_of_its_own_pixels():
    rows = measured({"vessel": 100, "mass": 30, "false": 10, "organ": 20})
    assert {row.region.kind: (row.pixels, row.change_hu) for row in rows} == {
        "vessel": (5, 100.0),
        "mass": (5, 30.0),
        "false": (5, 10.0),
        "organ": (5, 20.0),
        "quiet": (5, 0.0),
    }


def test_the_figures_are_those_that_a_hand_reckons():
    found = summarise_regions(measured({"vessel": 100, "mass": 30, "false": 10}))
    assert (found["vessel"], found["mass"], found["false"], found["quiet"]) == (100, 30, 10, 0)
    assert (found["wrong"], found["wrong_size"], found["wrong_per_vessel"]) == (20, 20, 0.2)
    assert (found["auc_regions"], found["auc_pixels"]) == (1.0, 1.0)


def test_a_darkened_mass_does_not_make_up_for_a_brightened_region():
    found = summarise_regions(measured({"vessel": 100, "mass": -60, "false": 60}))
    assert (found["wrong"], found["wrong_size"]) == (0, 60)


def test_a_model_that_does_nothing_has_no_ratio_and_an_auc_of_chance():
    found = summarise_regions(measured({}))
    assert math.isnan(found["wrong_per_vessel"])
    assert (found["auc_regions"], found["auc_pixels"]) == (0.5, 0.5)


def test_a_model_that_lights_masses_only_is_worse_than_chance():
    found = summarise_regions(measured({"mass": 50, "false": 50}))
    assert found["auc_regions"] == 0.0


def test_only_pixels_of_the_sources_soft_tissue_count():
    before, after = volumes({"vessel": 100})
    before[0, 2, 2], after[0, 2, 2] = 500, 0  # calcium, or what else lies in the circle
    before[0, 1, 2], after[0, 1, 2] = -41, 1000
    before[0, 3, 2] = after[0, 3, 2] = 200  # the bounds belong to it
    changes = changes_inside(before, after, Circle(0, 2, 2, 1.0))
    assert sorted(changes.tolist()) == [0, 100, 100]


def test_a_region_without_counted_pixels_is_in_no_mean():
    before, after = volumes({"vessel": 100}, source=-500.0)
    rows = measure_regions(before, after, [region("vessel", 2, 2)])
    assert (rows[0].pixels, math.isnan(rows[0].change_hu)) == (0, True)
    assert math.isnan(summarise_regions(rows)["vessel"])


@pytest.mark.parametrize("circle", [Circle(2, 5, 5, 1), Circle(0, 10, 5, 1), Circle(0, 5, -1, 1)])
def test_a_circle_off_the_series_is_an_error(circle):
    before, after = volumes({})
    with pytest.raises(RegionError, match="outside a series of 2 x 10 x 10"):
        changes_inside(before, after, circle)


def track(changes, slices=None):
    """A column of slices, each changed as a whole."""
    before = np.full((10, 4, 4), 40, np.float32)
    numbers = range(len(changes)) if slices is None else slices
    after = before.copy()
    for z, change in zip(numbers, changes, strict=True):
        after[z] += change
    return measure_track(before, after, Track("aorta", SERIES, tuple(Circle(z, 2, 2, 1.0) for z in numbers)))


def test_steps_of_a_track_are_those_between_its_neighbouring_slices():
    row = track([100, 103, 99])
    assert row.changes_hu == (100, 103, 99)
    assert row.rms_step_hu == pytest.approx(math.sqrt((9 + 16) / 2))
    assert row.mean_hu == pytest.approx(302 / 3)


def test_a_dark_slice_is_a_dropout_and_an_even_level_has_no_step():
    assert track([90, 90, 39.5, 90]).dropouts == 1
    assert (track([40, 40, 40]).dropouts, track([40, 40, 40]).rms_step_hu) == (0, 0)


def test_a_gap_in_a_track_is_no_step():
    assert track([100, 50, 50], slices=[0, 5, 6]).rms_step_hu == 0


def test_a_slice_in_which_nothing_counts_is_a_dropout_too():
    before = np.full((2, 4, 4), 40, np.float32)
    before[1] = 900
    row = measure_track(before, before + 100, Track("aorta", SERIES, (Circle(0, 2, 2, 1), Circle(1, 2, 2, 1))))
    assert row.dropouts == 1
    assert math.isnan(row.rms_step_hu)


def write(folder, **values):
    file = folder / "regions.json"
    file.write_text(json.dumps(values))
    return file


PLACE = {"name": "a", "series": SERIES, "slice": 3, "x_px": 10, "y_px": 20.5, "radius_px": 4, "kind": "mass"}


def test_a_file_of_regions_is_read_as_it_is_written(tmp_path):
    spot = {key: PLACE[key] for key in ("slice", "x_px", "y_px", "radius_px")}
    tracks = [{"name": "t", "series": "ct/other", "circles": [spot | {"slice": 4}, spot]}]
    found = read_regions(write(tmp_path, about="who placed them", regions=[PLACE], tracks=tracks))
    assert found.regions == (Region("a", SERIES, "mass", Circle(3, 10, 20.5, 4)),)
    assert [circle.slice for circle in found.tracks[0].circles] == [3, 4]
    assert found.series == (SERIES, "ct/other")
    assert found.of("ct/other").regions == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"regions": [PLACE | {"kind": "vein"}]}, "region a has the kind vein; allowed are vessel, mass"),
        ({"regions": [{"name": "a"}]}, "kind"),
        ({"regions": []}, "names neither regions nor tracks"),
        ({"tracks": [{"name": "t", "series": SERIES, "circles": []}]}, "track t needs circles"),
        ({"tracks": [{"name": "t", "series": SERIES, "circles": [PLACE, PLACE]}]}, "no slice twice"),
    ],
)
def test_a_file_that_is_none_says_what_is_wrong(tmp_path, values, said):
    with pytest.raises(RegionError, match=said):
        read_regions(write(tmp_path, **values))

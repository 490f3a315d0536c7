"""The slices that a person should look at first: those that a gate names, and those that changed most."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node.bootstrap.store import Node
from node.web.marks import marks_of
from node.web.sides import sides_of
from node.web.volumes import SliceFigures
from tests.builders import FakeTranslator, body_hu, make_series
from tests.component.web.imaged import client_of, pixels, receive, store_in, translate
from tests.departments import Department


@pytest.fixture
def node(tmp_path: Path, sqlite_file: Path) -> Iterator[Node]:
    """An empty store."""
    (tmp_path / "data").mkdir(mode=0o700)
    sqlite_file.rename(tmp_path / "data" / "syncect.sqlite3")
    with store_in(tmp_path) as opened:
        yield opened


class Darkening(FakeTranslator):
    """Darkens the left half by 50 HU, and brightens the rest a little."""

    def translate(self, hu, seed, *, spacing_mm=None, progress=None):
        predicted = hu + np.float32(20)
        predicted[:, :, :8] = hu[:, :, :8] - 50
        return predicted


def test_a_gate_that_doubts_darkened_tissue_names_the_slice_and_its_region_is_outlined(node, tmp_path) -> None:
    hu = np.full((3, 16, 16), -1000, np.float32)
    hu[:, 4:12, 4:12] = 60
    hu[1, 2:14, 2:14] = 60
    receive(node, make_series(tmp_path / "source", hu=hu))
    translate(node, Darkening())
    assert "became darker" in node.overview.case("1").reason
    client = client_of(node)
    (gate, *_) = [mark for mark in client.get("/cases/1/slices.json").json()["marks"] if mark["by_gate"]]
    assert gate["number"] == 2
    assert "72 of them" in gate["words"]
    for layer in ("source", "synthetic", "difference"):
        outlined = pixels(client.get(f"/cases/1/slices/2/{layer}.png?outline=1"), "RGB")
        plain = pixels(client.get(f"/cases/1/slices/2/{layer}.png"), "RGB")
        yellow = (outlined == (255, 221, 0)).all(axis=2)
        assert yellow.sum() == 72 - 4 * 10
        assert (outlined[~yellow] == plain[~yellow]).all()
    assert 'name="outline"' in client.get("/cases/1/review").text


def test_a_gate_that_doubts_the_source_names_the_slice_with_most_of_what_it_saw(node, tmp_path) -> None:
    hu = body_hu(4, soft_tissue_hu=130.0)
    receive(node, make_series(tmp_path / "source", hu=hu, spacing_mm=(8.0, 8.0, 8.0)))
    translate(node)
    measured = node.overview.case("1").measurements
    (gate,) = [mark for mark in client_of(node).get("/cases/1/slices.json").json()["marks"] if mark["by_gate"]]
    assert "contrast agent" in gate["words"]
    assert (gate["number"] - 1) * 8 == measured["native_enhanced_z_mm"]


@pytest.mark.parametrize(
    ("mean_hu", "numbers"),
    [
        ([1, 2, 3, 9, 8, 7, 1, 1, 5, 1], [4, 9]),
        ([9, 1, 1, 1, 8, 1, 1, 1, 7, 1, 1, 1, 6], [1, 5, 9]),
        ([0, 0, 0], []),
        ([None, None], []),
        ([2], [1]),
    ],
)
def test_the_slices_that_changed_most_are_marked_and_not_their_neighbours(node, mean_hu, numbers) -> None:
    case = node.overview.case(Department(node).held())
    marks = marks_of(case, [SliceFigures(None, mean, mean, 0) for mean in mean_hu])
    assert [mark.number for mark in marks] == numbers
    assert not any(mark.by_gate for mark in marks)
    assert [mark.words.startswith("greatest") for mark in marks].count(True) == bool(numbers)


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 1, 0), "RLAP"),
        ((-1, 0, 0, 0, -1, 0), "LRPA"),
        ((0, 1, 0, -1, 0, 0), "APLR"),
        ((1, 0, 0, 0, 0, -1), "RLHF"),
        ((0.9994, 0, 0.035, 0, 1, 0), "RLAP"),
    ],
)
def test_each_edge_of_a_picture_has_the_side_of_the_patient(orientation, letters) -> None:
    sides = sides_of(orientation)
    assert sides.left + sides.right + sides.top + sides.bottom == letters

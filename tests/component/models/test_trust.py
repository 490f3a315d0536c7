"""The command of trust on a small series of one's own, from DICOM files to the card, in seconds."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from bench.aims import aim_of
from bench.derive import derive
from bench.trust import __main__ as trust
from bench.trust import sections
from bench.trust.cases import Bundle, level_patients, phantom_cases, read_case
from bench.trust.size import Size
from models.bundle import read_card, read_weights, write_bundle
from models.evaluation.regions import read_regions
from node.dicom.synthetic_scan import ScanIdentity, write_scan

TINY = Size(4, 2, 1, 2, 3, 6, 96, "", slice(None))
CIRCLE = {"slice": 1, "x_px": 40, "y_px": 30, "radius_px": 3}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with one series of even tissue, and a file that names a circle of each kind and a track on it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "chest").mkdir()
    noise = np.random.default_rng(1).normal(0, 5, (4, 64, 64))
    write_scan((40 + noise).astype(np.float32), (5.0, 1.0, 1.0), folder / "chest", ScanIdentity("A", "A^B", "own"))
    kinds = ("vessel", "mass", "false", "organ", "quiet")
    regions = [
        CIRCLE | {"name": kind, "kind": kind, "series": "chest", "x_px": 10 * n + 10} for n, kind in enumerate(kinds)
    ]
    track = {"name": "aorta", "series": "chest", "circles": [CIRCLE | {"slice": z} for z in range(4)]}
    (folder / "own.json").write_text(json.dumps({"regions": regions, "tracks": [track]}))
    return folder


def test_a_series_and_regions_of_ones_own_are_measured_and_enter_the_card(
    own, tiny_bundle, tmp_path, monkeypatch, capsys
):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "mine")
    monkeypatch.setattr(trust, "FULL", TINY)
    monkeypatch.setattr(trust, "RESULTS", tmp_path)
    before = read_card(bundle)
    trust.main(["--bundle", str(bundle), "--data", str(own), "--regions", str(own / "own.json"), "--write-card"])
    shown = capsys.readouterr().out
    card = read_card(bundle)
    kept = json.loads((bundle / "bundle.json").read_text())["trust"]["figures"]
    figures = {(row["section"], row["figure"]): row for row in kept}
    # The figure of the only vessel is the one that its pixels give.
    named = read_regions(own / "own.json")
    case = read_case(own, "chest", named)
    made = Bundle(bundle).result(case).hu
    y, x = np.ogrid[:64, :64]
    disc = (x - 10) ** 2 + (y - 30) ** 2 <= 9
    expected = float((made - case.volume.hu)[1][disc].mean())
    vessel = figures["regions", "vessels, mean change: HU"]
    assert vessel["value"] == pytest.approx(expected, abs=0.006)
    assert vessel["aim"] == ">= 80"
    assert figures["each region", "mass, mass: HU"]["value"] == figures["regions", "masses, mean change: HU"]["value"]
    assert {section for section, _ in figures} == {"regions", "each region", "continuity", "doubt", "level", "attacks"}
    assert re.search(r"regions: vessels, mean change: HU +HU +>= 80 +\S+ +(yes|NO)", shown)
    assert (card.digest, card.metrics, card.weights_sha256) == (before.digest, before.metrics, before.weights_sha256)
    text = (bundle / "CARD.md").read_text()
    assert "| regions | mass and false / vessels |" in text
    assert "each region" not in text
    (report,) = tmp_path.glob("trust-*.json")
    assert next(iter(json.loads(report.read_text())["results"].values()))["continuity"]


def test_a_model_that_does_nothing_meets_no_aim_of_the_region_bench(own, tiny_bundle):
    case = read_case(own, "chest", named := read_regions(own / "own.json"))
    idle = Bundle(tiny_bundle, made={"chest": derive(case.volume, case.volume.hu, (-40.0, 400.0))})
    found = sections.regions(idle, [case], named)
    for figure in ("vessels, mean change: HU", "mass and false / vessels"):
        aim = aim_of(figure)
        assert aim is not None
        assert not aim.met(found[figure])


def test_gates_are_asked_about_every_attack_on_every_case(tiny_bundle):
    cases = list(phantom_cases(level_patients(4, 5, slices=6, rows=64)))[:2]
    figures = sections.attacks(Bundle(tiny_bundle), cases)
    assert len([name for name in figures if name.startswith("attack held, share of 2: ")]) == 12
    assert set(figures.values()) <= {n / 24 for n in range(25)}


def test_the_circles_of_the_repository_lie_on_the_public_series(real_data):
    named = read_regions(trust.TRACKS)
    assert {track.name for track in named.tracks} == {"aorta", "ascending aorta", "heart"}
    for series in named.series:
        case = read_case(real_data, series, named)
        for track in named.of(series).tracks:
            inside = [
                float(
                    np.median(
                        case.volume.hu[c.slice, int(c.y_px) - 4 : int(c.y_px) + 5, int(c.x_px) - 4 : int(c.x_px) + 5]
                    )
                )
                for c in track.circles
            ]
            # Blood without contrast medium; streaks of the heart move single slices.
            assert -20 < min(inside) <= max(inside) < 75, track.name
            assert 25 < np.median(inside) < 55, track.name


def test_a_bundle_of_a_level_is_held_against_the_level_that_is_asked_for(tiny_bundle, tmp_path):
    card = read_card(tiny_bundle)
    levelled = tmp_path / "levelled"
    write_bundle(levelled, replace(card, blood_level_hu=100.0), read_weights(tiny_bundle, card), text="")
    patients = level_patients(4, 5, slices=2, rows=64)
    bundle, plain = Bundle(levelled), Bundle(tiny_bundle)
    assert "slope against the requested level" not in sections.level(plain, patients, [])
    assert math.isfinite(sections.level(bundle, patients, [])["slope against the requested level"])
    hu, spacing_mm = patients[0].ncct_hu, patients[0].spacing_mm
    half, whole = (bundle.translate(hu, spacing_mm, level_hu) - np.clip(hu, -40, 400) for level_hu in (50.0, 100.0))
    inside = (hu > 20) & (hu < 60) & (np.abs(whole) > 1)
    assert np.median(half[inside] / whole[inside]) == pytest.approx(0.5, abs=0.01)
    # A level beyond the bounds of every bundle is drawn at the bound, not refused: phantoms may have any.
    np.testing.assert_array_equal(bundle.translate(hu, spacing_mm, 10.0), bundle.translate(hu, spacing_mm, 40.0))


def test_the_rehearsal_takes_a_few_slices_of_one_public_series(real_data, tiny_bundle, monkeypatch, capsys):
    monkeypatch.setenv("SYNCECT_TEST_DATA", str(real_data))
    trust.main(["--short", "--only", "continuity", "--bundle", str(tiny_bundle)])
    shown = capsys.readouterr().out
    assert "continuity: siemens_chest_ncct, aorta, slices under 40 HU of 5 " in shown
    assert "philips" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--write-card"], "needs bundles given by path"),
        (["--write-card", "--bundle", "demo"], "needs bundles given by path"),
        (["--write-card", "--bundle", ".", "--only", "level"], "needs every section in full"),
    ],
)
def test_a_card_is_never_written_from_half_of_the_figures(arguments, said, capsys):
    with pytest.raises(SystemExit):
        trust.main(arguments)
    assert said in capsys.readouterr().err

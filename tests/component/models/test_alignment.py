"""Promises of alignment: known motion is found, what is in register stays, strangers are refused, bits repeat."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from scipy.ndimage import gaussian_filter

from models.alignment import Alignment, AlignmentError, AlignmentQuality, Grid, align
from models.displacement import upsample_field, warp
from models.phantom import Label, PhantomPatient, make_patient
from models.phantom.misregistration import Motion, draw_field

SPACING_MM = (5.0, 5.0, 5.0)
ROWS, SLICES, MARGIN = 80, 16, 6
GRID = Grid((-200.0, -180.0, 30.0), SPACING_MM)
TALL = Grid((-200.0, -180.0, 30.0 - MARGIN * SPACING_MM[0]), SPACING_MM)
INNER = slice(MARGIN, MARGIN + SLICES)
CENTRE_MM = tuple(
    origin + (count - 1) / 2 * 5.0 for origin, count in zip(GRID.origin_mm, (ROWS, ROWS, SLICES), strict=True)
)
COUCH = (Label.COUCH_SHELL, Label.COUCH_FOAM, Label.COUCH_RAIL)
GOOD = AlignmentQuality(
    translation_mm=3.0,
    rotation_deg=1.0,
    displacement_mm=5.0,
    folded_share=0.0,
    overlap_before=0.7,
    overlap_after=0.9,
    residual_before_hu=60.0,
    residual_after_hu=15.0,
    coverage=1.0,
)


@pytest.fixture(scope="module")
def tall() -> PhantomPatient:
    """A patient with slices to spare, so that anatomy and no air moves into the other scan.

    Blurred as a scanner blurs, or a volume of such large voxels could not be moved by parts of one.
    """
    patient = make_patient(3, slices=SLICES + 2 * MARGIN, rows=ROWS, spacing_mm=SPACING_MM)
    blurred = {name: gaussian_filter(getattr(patient, name), 0.7) for name in ("ncct_hu", "cect_hu", "cect_clean_hu")}
    return replace(patient, **blurred)


def scanned(
    hu: np.ndarray,
    onto: Grid = GRID,
    shape: tuple[int, int, int] = (SLICES, ROWS, ROWS),
    *,
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """The tall volume on another grid after the patient has turned and moved (x, y, z)."""
    motion = SimpleITK.Euler3DTransform()
    motion.SetCenter(CENTRE_MM)
    motion.SetRotation(*map(math.radians, turn_deg))
    motion.SetTranslation(shift_mm)
    image = SimpleITK.GetImageFromArray(hu)
    image.SetOrigin(TALL.origin_mm)
    image.SetSpacing(TALL.spacing_mm[::-1])
    size, spacing = shape[::-1], onto.spacing_mm[::-1]
    moved = SimpleITK.Resample(
        image, size, motion.GetInverse(), SimpleITK.sitkBSpline, onto.origin_mm, spacing, np.eye(3).ravel(), -1000.0
    )
    return np.clip(SimpleITK.GetArrayFromImage(moved), hu.min(), hu.max())


def error_hu(patient: PhantomPatient, found: Alignment) -> float:
    """Mean error against the second scan of a patient who has not moved, in the soft tissue that was scanned."""
    soft = np.isin(patient.labels[INNER], (Label.MUSCLE, Label.FAT, Label.LIVER, Label.AORTA)) & found.covered
    return float(np.abs(found.registered_hu - patient.cect_clean_hu[INNER])[soft].mean())


@pytest.mark.parametrize(
    ("shift_mm", "turn_deg"),
    [
        ((-4.0, 3.0, 6.0), (0.5, -0.8, 1.5)),
        ((9.0, -9.0, -16.0), (0.0, 0.0, 0.0)),
    ],
)
def test_a_known_rigid_motion_is_found_in_spite_of_contrast(
    tall: PhantomPatient, shift_mm: tuple[float, float, float], turn_deg: tuple[float, float, float]
) -> None:
    moving = scanned(tall.cect_hu, shift_mm=shift_mm, turn_deg=turn_deg)
    found = align(tall.ncct_hu[INNER], moving, GRID, GRID)
    turn = SimpleITK.Euler3DTransform()
    turn.SetRotation(*map(math.radians, turn_deg))
    angle_deg = math.degrees(math.acos(min(1.0, (np.trace(np.reshape(turn.GetMatrix(), (3, 3))) - 1) / 2)))
    quality = found.quality
    assert quality.kept == "rigid"
    assert quality.translation_mm == pytest.approx(math.hypot(*shift_mm), abs=0.5)
    assert quality.rotation_deg == pytest.approx(angle_deg, abs=0.2)
    assert quality.displacement_mm >= quality.translation_mm - 0.5
    assert quality.folded_share == 0
    assert quality.overlap_after > max(0.9, quality.overlap_before)
    assert quality.residual_after_hu < quality.residual_before_hu
    assert quality.acceptable


def test_a_pair_in_register_comes_back_untouched(tall: PhantomPatient) -> None:
    found = align(tall.ncct_hu[INNER], tall.cect_hu[INNER], GRID, GRID)
    assert found.quality.kept == "identity"
    assert found.quality.translation_mm == found.quality.displacement_mm == 0
    assert np.array_equal(found.registered_hu, tall.cect_hu[INNER])
    assert found.covered.all()
    assert found.quality.overlap_after == found.quality.overlap_before > 0.98


def test_the_same_input_gives_the_same_bits_and_stays_as_it_was(tall: PhantomPatient) -> None:
    fixed, moving = tall.ncct_hu[INNER].copy(), scanned(tall.cect_hu, shift_mm=(3.0, 2.0, 1.0))
    before = moving.copy()
    first, second = (align(fixed, moving, GRID, GRID) for _ in range(2))
    assert np.array_equal(first.registered_hu, second.registered_hu)
    assert first.quality == second.quality
    assert np.array_equal(fixed, tall.ncct_hu[INNER])
    assert np.array_equal(moving, before)


def test_other_spacing_and_another_origin_are_positions_and_no_motion(tall: PhantomPatient) -> None:
    other = Grid((-190.0, -170.0, 40.0), (4.0, 4.5, 4.5))
    found = align(tall.ncct_hu[INNER], scanned(tall.cect_hu, other, (16, 80, 80)), GRID, other)
    assert found.registered_hu.shape == (SLICES, ROWS, ROWS)
    assert found.registered_hu.dtype == np.float32
    assert found.quality.displacement_mm < 0.5
    assert found.quality.acceptable
    assert error_hu(tall, found) < 15
    assert np.all(found.registered_hu[~found.covered] == -1024)
    assert not found.covered[0].any()


def test_scans_of_different_frames_of_reference_meet(tall: PhantomPatient) -> None:
    elsewhere = Grid((700.0, -900.0, 2000.0), SPACING_MM)
    found = align(tall.ncct_hu[INNER], tall.cect_hu[INNER], GRID, elsewhere)
    assert found.quality.overlap_before == 0
    assert found.quality.acceptable
    assert error_hu(tall, found) < 15


def test_a_scan_of_half_the_patient_is_placed_and_its_coverage_told(tall: PhantomPatient) -> None:
    half = scanned(tall.cect_hu, GRID, (SLICES // 2, ROWS, ROWS), shift_mm=(6.0, 0.0, 0.0))
    found = align(tall.ncct_hu[INNER], half, GRID, GRID)
    assert found.quality.coverage == pytest.approx(0.5, abs=0.07)
    assert found.quality.translation_mm == pytest.approx(6.0, abs=0.5)
    assert not found.covered[SLICES // 2 + 1 :].any()
    assert found.covered[1 : SLICES // 2 - 1].mean() > 0.9


def test_the_couch_does_not_drive_the_result(tall: PhantomPatient) -> None:
    """What lies on the table stays where it is, full of detail, while the patient moves up and to the side."""
    scans = tall.ncct_hu[INNER].copy(), scanned(tall.cect_hu, shift_mm=(3.0, -3.0, 0.0))
    below = int(np.argwhere(~np.isin(tall.labels[INNER], (Label.AIR, *COUCH)))[:, 1].max()) + 2
    detail = gaussian_filter(np.random.default_rng(0).normal(0, 1, (SLICES, ROWS - below, ROWS)), 1.5)
    for hu in scans:
        hu[:, below - 1] = -1000
        hu[:, below:] = np.clip(-300 + 4000 * detail, -1000, 1000)
    quality = align(*scans, GRID, GRID).quality
    assert quality.translation_mm == pytest.approx(math.hypot(3, 3), abs=0.4)
    assert quality.rotation_deg < 0.2


def test_another_patient_is_not_acceptable(tall: PhantomPatient) -> None:
    stranger = make_patient(4, slices=SLICES, rows=ROWS, spacing_mm=SPACING_MM)
    quality = align(tall.ncct_hu[INNER], stranger.cect_hu, GRID, GRID).quality
    assert not quality.acceptable
    assert "overlap" in quality.reason


def test_bending_follows_a_smooth_motion_further_than_a_rigid_placing() -> None:
    spacing_mm, rows = (5.0, 3.0, 3.0), 64
    grid = Grid((0.0, 0.0, 0.0), spacing_mm)
    patient = make_patient(6, slices=12, rows=rows, spacing_mm=spacing_mm)
    motion = Motion((1.0, 2.0, -2.0), 0.0, 4.0, 50.0, 0.0, 0.0, (1.0, 2.0, -2.0))
    nodes = draw_field(np.random.default_rng(1), motion, patient.labels, spacing_mm, -20.0)
    moving = warp(patient.cect_hu, upsample_field(nodes, rows, rows, 4), spacing_mm)
    rigid, bent = (align(patient.ncct_hu, moving, grid, grid, deformable=bend) for bend in (False, True))
    assert bent.quality.kept == "deformable"
    assert bent.quality.overlap_after > rigid.quality.overlap_after > rigid.quality.overlap_before
    assert bent.quality.residual_after_hu < 0.8 * rigid.quality.residual_after_hu
    assert rigid.quality.residual_after_hu < rigid.quality.residual_before_hu
    assert 1 < bent.quality.displacement_mm < 15
    assert bent.quality.folded_share == 0


def test_arrays_and_grids_that_make_no_sense_are_refused(tall: PhantomPatient) -> None:
    scan = tall.ncct_hu[INNER]
    broken = scan.copy()
    broken[0, 0, 0] = np.nan
    for bad in (scan[0], broken):
        with pytest.raises(ValueError, match="moving"):
            align(scan, bad, GRID, GRID)
    for grid in (replace(GRID, spacing_mm=(0.0, 1.0, 1.0)), replace(GRID, origin_mm=(math.inf, 0.0, 0.0))):
        with pytest.raises(ValueError, match="fixed scan has no usable grid"):
            align(scan, scan, grid, GRID)


def test_scans_without_a_body_or_with_too_few_slices_cannot_be_registered(tall: PhantomPatient) -> None:
    scan = tall.ncct_hu[INNER]
    with pytest.raises(AlignmentError, match="moving scan shows no body"):
        align(scan, np.full_like(scan, -1000), GRID, GRID)
    with pytest.raises(AlignmentError, match="too small"):
        align(scan[:2], scan, GRID, GRID)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"coverage": 0.1}, "10%"),
        ({"overlap_after": 0.5}, "overlap"),
        ({"residual_after_hu": 90.0}, "fat"),
        ({"rotation_deg": 25.0}, "rotated"),
        ({"folded_share": 0.02}, "folds"),
    ],
)
def test_each_figure_alone_can_refuse_a_pair(change: dict[str, float], word: str) -> None:
    assert GOOD.reason == ""
    assert GOOD.acceptable
    bad = replace(GOOD, **change)  # type: ignore[arg-type]
    assert word in bad.reason
    assert not bad.acceptable


def test_the_figures_are_json_even_where_one_is_no_number() -> None:
    mapping = replace(GOOD, residual_before_hu=math.nan, translation_mm=3.14159).to_mapping()
    assert json.loads(json.dumps(mapping, allow_nan=False)) == mapping
    assert mapping["residual_before_hu"] is None
    assert mapping["translation_mm"] == 3.14
    assert mapping["kept"] == "rigid"


def test_the_module_is_imported_where_simpleitk_is_missing() -> None:
    code = "import sys; sys.modules['SimpleITK'] = None; import models.alignment"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The making of one phantom patient from a seed."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from models.phantom.body import Body, paint_couch, paint_trunk
from models.phantom.canvas import Canvas, smooth_field
from models.phantom.lungs import paint_lung_disease, paint_lung_vessels
from models.phantom.organs import paint_organs
from models.phantom.scanner import average_slabs, blur_in_plane, draw_noise, with_noise
from models.phantom.skeleton import paint_skeleton
from models.phantom.tissues import HOSPITALS, Hospital, Label, PatientTissues, draw_tissues

_CENTRE_Z_MM = -20.0  # canonical level of the middle slice: from mid-heart to above the arch in 24 slices of 5 mm
_WARP_MM = 4.0
_THINNEST_MM = 1.8
# SD of the anatomical grain inside a tissue.
_GRAIN_HU = {
    Label.FAT: 5.0,
    Label.MUSCLE: 5.0,
    Label.GLAND: 9.0,
    Label.LUNG: 18.0,
    Label.VERTEBRA: 18.0,
    Label.RIB_MARROW: 40.0,
    Label.CORTICAL_BONE: 60.0,
    Label.LIVER: 2.0,
    Label.MYOCARDIUM: 1.5,
    Label.STOMACH: 10.0,
}


@dataclass(frozen=True)
class PhantomPatient:
    """One invented patient with both scans; arrays are [z, y, x], z towards the head, y to the back, x to the left.

    `ncct_hu`, `cect_hu`: the scans, float32 HU, in register, with independent noise. `cect_clean_hu`, `ncct_clean_hu`:
    the same without noise. `enhancement_hu` = cect_clean_hu - ncct_clean_hu. `labels`: uint8 of `Label`, the tissue in
    the middle plane of every slice. `spacing_mm`: (z, y, x). `e_hu`: the patient's blood-pool enhancement.
    """

    ncct_hu: NDArray[np.float32]
    cect_hu: NDArray[np.float32]
    ncct_clean_hu: NDArray[np.float32]
    cect_clean_hu: NDArray[np.float32]
    labels: NDArray[np.uint8]
    enhancement_hu: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    e_hu: float


def make_patient(
    seed: int,
    *,
    slices: int,
    rows: int = 512,
    spacing_mm: tuple[float, float, float] = (5.0, 0.9766, 0.9766),
    hospital: str = "internal",
    centre_z_mm: float = _CENTRE_Z_MM,
) -> PhantomPatient:
    """Make the patient of this seed: the same arguments give the same bits.

    `slices` of `rows` x `rows` pixels around the level `centre_z_mm` (0 is the carina); `spacing_mm` is (z, y, x) with
    square pixels. `hospital` is a key of HOSPITALS. Raises KeyError for another, ValueError for a size that is not one.
    """
    if slices < 1 or rows < 32 or min(spacing_mm) <= 0 or spacing_mm[1] != spacing_mm[2]:
        raise ValueError(f"no phantom of {slices} slices, {rows} rows and spacing {spacing_mm}: pixels must be square")
    site = HOSPITALS[hospital]
    anatomy_rng, tissue_rng, ncct_rng, cect_rng = (
        np.random.Generator(np.random.Philox(key)) for key in np.random.SeedSequence(seed).spawn(4)
    )
    raster = _Raster(slices, rows, spacing_mm, max(1, round(spacing_mm[0] / _THINNEST_MM)), centre_z_mm)
    canvas = _paint_anatomy(anatomy_rng, raster)
    tissues = draw_tissues(tissue_rng, site)
    texture = _tissue_texture(tissue_rng, raster)
    ncct_clean, enhancement = _render(canvas, tissues, texture, raster, site)
    cect_clean = ncct_clean + enhancement
    levels_mm = canvas.z_mm.reshape(slices, -1).mean(axis=1)
    # Shoulders cost photons along the rows.
    streaks = np.asarray(np.clip((levels_mm - 45) / 50, 0, 1) * 0.9, dtype=np.float32)
    noise = partial(draw_noise, pixel_mm=raster.pixel_mm, sd_hu=tissues.noise_sd_hu, hospital=site, streaks=streaks)
    return PhantomPatient(
        ncct_hu=with_noise(ncct_clean, noise(ncct_rng, ncct_clean.shape)),
        cect_hu=with_noise(cect_clean, noise(cect_rng, cect_clean.shape)),
        ncct_clean_hu=ncct_clean,
        cect_clean_hu=cect_clean,
        labels=np.ascontiguousarray(canvas.labels[raster.middle_planes]),
        enhancement_hu=enhancement,
        spacing_mm=spacing_mm,
        e_hu=tissues.e_hu,
    )


@dataclass(frozen=True)
class _Raster:
    """The grid of a scan, each slice made of `per_slice` thin planes."""

    slices: int
    rows: int
    spacing_mm: tuple[float, float, float]
    per_slice: int
    centre_z_mm: float

    @property
    def pixel_mm(self) -> float:
        return self.spacing_mm[1]

    @property
    def line_mm(self) -> NDArray[np.float32]:
        """Positions of rows and of columns around the middle of the picture."""
        return np.asarray((np.arange(self.rows) - (self.rows - 1) / 2) * self.pixel_mm, dtype=np.float32)

    @property
    def middle_planes(self) -> slice:
        return slice(self.per_slice // 2, None, self.per_slice)


def _paint_anatomy(rng: np.random.Generator, raster: _Raster) -> Canvas:
    """Labels of one patient on a couch; later organs cover earlier ones."""
    body = Body.draw(rng)
    canvas = _make_canvas(rng, body, raster)
    paint_trunk(canvas, body, _textures(rng, 4, raster, length_mm=11.0))
    paint_skeleton(canvas, body, rng)
    paint_organs(canvas, body, rng)
    paint_lung_disease(canvas, rng)
    paint_lung_vessels(canvas, rng)
    paint_couch(canvas.labels, raster.line_mm, body.couch)
    return canvas


def _make_canvas(rng: np.random.Generator, body: Body, raster: _Raster) -> Canvas:
    """An empty canvas whose coordinates carry the patient's size, position, rotation and shape."""
    x, y = np.meshgrid(raster.line_mm, raster.line_mm)
    angle = np.deg2rad(rng.normal(0, 1.5))
    move_x, move_y = rng.normal(0, 5), rng.normal(0, 6) + 10
    turned_x = np.cos(angle) * (x - move_x) + np.sin(angle) * (y - move_y)
    turned_y = -np.sin(angle) * (x - move_x) + np.cos(angle) * (y - move_y)
    warp = _textures(rng, 2, raster, length_mm=70.0) * (_WARP_MM / 2)
    planes = raster.slices * raster.per_slice
    step_mm = raster.spacing_mm[0] / raster.per_slice / body.scale[2]
    z = (np.arange(planes) - (planes - 1) / 2) * step_mm + raster.centre_z_mm
    return Canvas(
        labels=np.zeros((planes, raster.rows, raster.rows), np.uint8),
        x_mm=((turned_x + warp[0]) / body.scale[0]).astype(np.float32),
        y_mm=((turned_y + warp[1]) / body.scale[1]).astype(np.float32),
        z_mm=z.astype(np.float32),
        # Rotation moves the borders of boxes too: 5 degrees over 250 mm.
        warp_margin_mm=3 * _WARP_MM + 22,
    )


def _textures(rng: np.random.Generator, count: int, raster: _Raster, *, length_mm: float) -> NDArray[np.float32]:
    """Independent smooth fields [count, y, x] of unit variance."""
    shape, spacing_mm = (raster.rows, raster.rows), (raster.pixel_mm, raster.pixel_mm)
    return np.stack([smooth_field(rng, shape, spacing_mm, length_mm) for _ in range(count)])


def _tissue_texture(rng: np.random.Generator, raster: _Raster) -> NDArray[np.float32]:
    """Anatomical grain [z, y, x] of about unit variance, seen by both scans alike."""
    coarse_rows = max(8, raster.rows // 8)
    coarse = rng.standard_normal((raster.slices, coarse_rows, coarse_rows)).astype(np.float32)
    fields = [zoom(plane, raster.rows / coarse_rows, order=1) for plane in coarse]
    return np.asarray(np.stack(fields) * 1.4, dtype=np.float32)


def _render(
    canvas: Canvas, tissues: PatientTissues, texture: NDArray[np.float32], raster: _Raster, site: Hospital
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Native HU and enhancement [z, y, x] after partial volume and point spread, without noise."""
    native = average_slabs(tissues.hu[canvas.labels], raster.per_slice)
    enhancement = average_slabs(tissues.enhancement_hu[canvas.labels], raster.per_slice)
    middle = canvas.labels[raster.middle_planes]
    grain = np.zeros(256, np.float32)
    for label, sd_hu in _GRAIN_HU.items():
        grain[label] = sd_hu
    native += grain[middle] * texture
    # Blood sinks to the back of the lung: +60 HU from front to back.
    native += np.where(middle == Label.LUNG, np.clip(canvas.y_mm, -90, 90) * np.float32(60 / 180), np.float32(0))
    # Mixing in vessels and perfusion of tissue are not quite even.
    enhancement *= 1 + np.float32(0.03) * texture
    blurred = (blur_in_plane(field, site.psf_sigma_mm, raster.pixel_mm) for field in (native, enhancement))
    return next(blurred), next(blurred)

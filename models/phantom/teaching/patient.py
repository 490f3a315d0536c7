"""The making of one teaching patient from a seed."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from models.phantom.canvas import smooth_field
from models.phantom.lungs import paint_lung_vessels
from models.phantom.patient import PhantomPatient
from models.phantom.scanner import with_noise
from models.phantom.skeleton import paint_spine, paint_sternum
from models.phantom.teaching import scanner as scan
from models.phantom.teaching.abdomen import paint_abdomen
from models.phantom.teaching.build import Build
from models.phantom.teaching.couch import Support
from models.phantom.teaching.disease import (
    paint_breast_findings,
    paint_dense_lung,
    paint_devices,
    paint_effusions,
    paint_masses,
)
from models.phantom.teaching.heart import Landmarks, paint_heart_and_vessels
from models.phantom.teaching.limbs import paint_back_muscles, paint_cage, paint_limbs
from models.phantom.teaching.palette import Palette
from models.phantom.teaching.planes import Floats, Place, PlanesCanvas
from models.phantom.teaching.trunk import paint_trunk
from models.phantom.tissues import Label

_WARP_MM = 4.5
_LOWEST_MM, _HIGHEST_MM = -270.0, 200.0
# Shifts (y, x) in pixels of the planes of a slice against each other.
_SHIFTS = ((-0.25, -0.25), (0.25, 0.25), (-0.25, 0.25), (0.25, -0.25))


def make_teaching_patient(
    seed: int,
    *,
    slices: int,
    rows: int = 256,
    spacing_mm: tuple[float, float, float] | None = None,
    centre_z_mm: float | None = None,
) -> PhantomPatient:
    """Make the teaching patient of this seed: the same arguments give the same bits.

    `slices` of `rows` x `rows` pixels around the level `centre_z_mm` (0 is the carina); `spacing_mm` is (z, y, x) with
    square pixels. What is None is drawn: 1 to 8 mm between slices, 380 to 650 mm of view, a middle from the upper
    abdomen to the neck. Blood lights by e and masses, fluid, gut contents and muscle by nearly nothing; airless lung
    and consolidation by 0 to 0.2 e, a convention, since a native scan does not tell. No vein is undiluted.
    Raises ValueError for a size that is not one.
    """
    keys = np.random.SeedSequence([seed, 77]).spawn(6)
    rngs = [np.random.Generator(np.random.Philox(key)) for key in keys]
    raster = _draw_raster(rngs[0], slices, rows, spacing_mm, centre_z_mm)
    scanner = scan.Scanner.draw(rngs[1])
    palette = Palette(rngs[2])
    subject = _paint(rngs[3], raster, palette)
    native, enhancement = _render(rngs[1], subject, palette, raster, scanner)
    enhanced = native + enhancement
    streaks = _shoulder_streaks(subject.canvas, raster, scanner)
    first, second = (scan.draw_noise(rng, scanner, native.shape, raster.spacing_mm[1], streaks) for rng in rngs[4:])
    return PhantomPatient(
        ncct_hu=with_noise(native, first),
        cect_hu=with_noise(enhanced, second),
        ncct_clean_hu=native,
        cect_clean_hu=enhanced,
        labels=palette.labels[subject.canvas.labels[raster.planes // 2 :: raster.planes]],
        enhancement_hu=enhancement,
        spacing_mm=raster.spacing_mm,
        e_hu=palette.e_hu,
    )


@dataclass(frozen=True)
class _Subject:
    """A painted patient: codes on the canvas, posture, where vessels lie, and where metal casts streaks."""

    canvas: PlanesCanvas
    build: Build
    marks: Landmarks
    metal: list[Place]


@dataclass(frozen=True)
class _Raster:
    """The grid of a scan; `planes` per slice."""

    slices: int
    rows: int
    spacing_mm: tuple[float, float, float]
    centre_z_mm: float
    planes: int

    @property
    def line_mm(self) -> Floats:
        """Positions of rows and of columns around the middle of the picture."""
        return np.asarray((np.arange(self.rows) - (self.rows - 1) / 2) * self.spacing_mm[1], dtype=np.float32)


def _draw_raster(
    rng: np.random.Generator,
    slices: int,
    rows: int,
    spacing_mm: tuple[float, float, float] | None,
    centre_z_mm: float | None,
) -> _Raster:
    step = float(rng.uniform(2.5, 5)) if rng.random() < 0.7 else float(rng.uniform(1, 8))
    pixel = float(rng.uniform(340, 520) if rng.random() < 0.75 else rng.uniform(500, 650)) / rows
    spacing = spacing_mm or (step, pixel, pixel)
    if slices < 1 or rows < 32 or min(spacing) <= 0 or spacing[1] != spacing[2]:
        raise ValueError(f"no phantom of {slices} slices, {rows} rows and spacing {spacing}: pixels must be square")
    half = slices * spacing[0] / 2
    drawn = float(rng.uniform(min(_LOWEST_MM + half, -30), max(_HIGHEST_MM - half, 0)))
    planes = 4 if spacing[0] < 6 else 6
    return _Raster(slices, rows, spacing, drawn if centre_z_mm is None else centre_z_mm, planes)


def _make_canvas(rng: np.random.Generator, build: Build, raster: _Raster) -> PlanesCanvas:
    """Positions in the patient: turned, shifted, scaled, warped, and bent along the spine."""
    count = raster.slices * raster.planes
    step = raster.spacing_mm[0] / raster.planes / build.scale[2]
    z = (np.arange(count) - (count - 1) / 2) * step + raster.centre_z_mm
    line, pixel = raster.line_mm, raster.spacing_mm[1]
    shape, spacing = (raster.rows, raster.rows), (pixel, pixel)
    warp = [np.float32(_WARP_MM) * smooth_field(rng, shape, spacing, 110.0) for _ in range(4)]
    cos, sin = np.float32(np.cos(build.angle)), np.float32(np.sin(build.angle))
    x_planes, y_planes = (np.empty((count, *shape), np.float32) for _ in range(2))
    for index, level in enumerate(z):
        down, across = _SHIFTS[index % 4]
        x = line[None] + np.float32(across * pixel - build.offset_mm[0])
        y = line[:, None] + np.float32(down * pixel - build.offset_mm[1])
        turn, (bend_x, bend_y) = float(level) / 60, build.bend_mm(float(level))
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        x_planes[index] = (x * cos + y * sin + c * warp[0] + s * warp[1]) / build.scale[0] - bend_x
        y_planes[index] = (y * cos - x * sin + c * warp[2] + s * warp[3]) / build.scale[1] - bend_y
    return PlanesCanvas(
        labels=np.zeros((count, *shape), np.uint8),
        x_mm=x_planes.mean(axis=0),
        y_mm=y_planes.mean(axis=0),
        z_mm=z.astype(np.float32),
        x_planes=x_planes,
        y_planes=y_planes,
    )


def _paint(rng: np.random.Generator, raster: _Raster, palette: Palette) -> _Subject:
    """Codes of one patient on a couch; later organs cover earlier ones."""
    build = Build.draw(rng)
    canvas = _make_canvas(rng, build, raster)
    shape, spacing = (raster.rows, raster.rows), raster.spacing_mm[1:]
    lengths_mm = (*[float(rng.uniform(28, 45))] * 4, *[float(rng.uniform(7, 14))] * 2)
    textures = np.stack([smooth_field(rng, shape, spacing, length) for length in lengths_mm])
    paint_trunk(canvas, build, palette, textures, rng)
    paint_back_muscles(canvas, build, rng)
    paint_breast_findings(canvas, build, palette, rng)
    paint_abdomen(canvas, build, palette, rng)
    paint_limbs(canvas, build, palette, rng)
    paint_cage(canvas, build, rng)
    paint_sternum(canvas, build)
    paint_spine(canvas, build, rng)
    marks = paint_heart_and_vessels(canvas, build, palette, rng)
    paint_dense_lung(canvas, build, palette, rng, textures[4:])
    paint_masses(canvas, build, palette, rng, marks)
    paint_effusions(canvas, build, palette, rng)
    paint_lung_vessels(canvas, rng)
    metal = paint_devices(canvas, build, rng, marks)
    support = Support.draw(rng, build)
    for phase in range(raster.planes):  # every plane of a slice has its own shift
        down = _SHIFTS[phase % 4][0] * raster.spacing_mm[1]
        planes = slice(phase, None, raster.planes)
        support.paint(canvas.labels[planes], raster.line_mm + np.float32(down), canvas.z_mm[planes])
    return _Subject(canvas, build, marks, metal)


def _render(
    rng: np.random.Generator, subject: _Subject, palette: Palette, raster: _Raster, scanner: scan.Scanner
) -> tuple[Floats, Floats]:
    """Native HU and enhancement [z, y, x] after partial volume, point spread and artefacts, without noise."""
    native, enhancement = _tissue_volumes(rng, subject, palette, raster)
    native, enhancement = (scan.overlapped(volume, scanner.overlap) for volume in (native, enhancement))
    canvas, pixel = subject.canvas, raster.spacing_mm[1]
    for index in range(raster.slices):
        middle = index * raster.planes + raster.planes // 2
        z = float(canvas.z_mm[middle])
        x, y = canvas.x_planes[middle], canvas.y_planes[middle]
        beat = _beat(x, y, z, subject.marks) if scanner.heart_blur_mm else None
        for volume in (native, enhancement):
            plane = volume[index] if beat is None else _beaten(volume[index], beat, scanner.heart_blur_mm / pixel)
            volume[index] = scan.sharpened(plane, scanner, pixel)
        shoulders = float(np.clip((z - 45) / 50, 0, 1) * np.clip((170 - z) / 40, 0, 1))
        body = native[index] > -950
        native[index] += scan.beam_hardening(scanner, raster.line_mm, body, shoulders) + np.float32(scanner.shift_hu)
        if subject.metal:
            native[index] += scan.metal_streaks(rng, x, y, subject.metal, z)
    return native, enhancement


def _tissue_volumes(
    rng: np.random.Generator, subject: _Subject, palette: Palette, raster: _Raster
) -> tuple[Floats, Floats]:
    """Native HU and enhancement [z, y, x], each slice the mean of its planes."""
    canvas = subject.canvas
    shape, pixel = (raster.rows, raster.rows), raster.spacing_mm[1]
    fine = [smooth_field(rng, shape, (pixel, pixel), 3.5) for _ in range(2)]
    coarse = [smooth_field(rng, shape, (pixel, pixel), 16.0) for _ in range(2)]
    stranding_hu = float(rng.uniform(0, 60))
    native, enhancement = (np.zeros((raster.slices, *shape), np.float32) for _ in range(2))
    for index, z_mm in enumerate(canvas.z_mm):
        codes = canvas.labels[index]
        small, large = _turned(fine, float(z_mm) / 5), _turned(coarse, float(z_mm) / 16)
        hu = palette.hu[codes] + palette.fine_hu[codes] * small + palette.coarse_hu[codes] * large
        # Strands in fat: soft tissue thinner than a pixel.
        strands = stranding_hu * np.clip(0.6 * small + large - 0.9, 0, 1.2)
        hu += np.where(palette.labels[codes] == Label.FAT, strands, np.float32(0))
        sunk = np.clip(subject.build.gravity * canvas.y_planes[index], -90, 90) * np.float32(60 / 180)
        hu += np.where(codes == Label.LUNG, sunk, np.float32(0))
        native[index // raster.planes] += hu
        lit = palette.fraction[codes] * (1 + np.float32(0.02) * large)
        enhancement[index // raster.planes] += lit * np.float32(palette.e_hu)
    return native / np.float32(raster.planes), enhancement / np.float32(raster.planes)


def _turned(pair: list[Floats], angle: float) -> Floats:
    """Two fields that turn into each other along z."""
    return np.asarray(np.float32(np.cos(angle)) * pair[0] + np.float32(np.sin(angle)) * pair[1], dtype=np.float32)


def _beat(x: Floats, y: Floats, z: float, marks: Landmarks) -> Floats | None:
    """How far each pixel moves with the heart, 0 to 1; None away from it."""
    distance = abs(z - marks.heart[2]) / marks.heart_mm
    if distance > 1.2:
        return None
    near = ((x - marks.heart[0]) ** 2 + (y - marks.heart[1]) ** 2) * np.float32(1 / marks.heart_mm**2)
    return np.asarray(np.exp(-(near**2) - np.float32(distance**2)), dtype=np.float32)


def _beaten(plane: Floats, beat: Floats, sigma_px: float) -> Floats:
    return np.asarray(plane + beat * (gaussian_filter(plane, sigma_px, truncate=2.5) - plane), dtype=np.float32)


def _shoulder_streaks(canvas: PlanesCanvas, raster: _Raster, scanner: scan.Scanner) -> Floats:
    """What shoulders add to the noise of every slice."""
    levels = canvas.z_mm.reshape(raster.slices, -1).mean(axis=1)
    high = np.clip((levels - 45) / 50, 0, 1) * np.clip((190 - levels) / 50, 0, 1)
    return np.asarray(high * scanner.shoulder_streaks, dtype=np.float32)

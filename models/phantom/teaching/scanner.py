"""How a scanner differs from the next: sharpness, noise and its spectrum, streaks, bands, calibration, slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scanner:
    """One scan's figures: `noise_sd_hu` holds for a grid that is finer than the noise, `sampled_sd_hu` tells of others.

    `noise_f0_per_mm`: where the spectrum f * exp(-(f / f0)^2) falls. `edge`: share by which edges are enhanced.
    `overlap`: share of a slice that shows its neighbours. `cupping_hu`: darkening of the middle by hard beams.
    """

    noise_sd_hu: float
    noise_f0_per_mm: float
    psf_sigma_mm: float
    edge: float
    overlap: float
    shift_hu: float
    cupping_hu: float
    band_hu: float
    shoulder_streaks: float
    heart_blur_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Scanner":
        """Draw one from soft to sharp, from quiet to noisy."""
        sharp = float(rng.random())
        return cls(
            noise_sd_hu=float(np.exp(rng.uniform(np.log(5 + 10 * sharp), np.log(35)))),
            noise_f0_per_mm=0.18 + 0.42 * sharp,
            psf_sigma_mm=float(np.clip(1.2 - 0.8 * sharp + rng.normal(0, 0.1), 0.4, 1.2)),
            edge=float(rng.uniform(0.1, 0.5)) if sharp > 0.6 else 0.0,
            overlap=float(rng.uniform(0, 0.2)) if rng.random() < 0.35 else 0.0,
            shift_hu=float(rng.uniform(-4, 4)),
            cupping_hu=float(rng.exponential(2)),
            band_hu=float(rng.exponential(8)),
            shoulder_streaks=float(rng.uniform(0.2, 1.3)),
            heart_blur_mm=float(rng.uniform(1, 4)) if rng.random() < 0.5 else 0.0,
        )

    def sampled_sd_hu(self, pixel_mm: float) -> float:
        """SD of the noise on a grid of this pixel: the part of its power below the grid's Nyquist frequency."""
        f = np.linspace(0, 4 * self.noise_f0_per_mm, 2000)
        power = f**2 * np.exp(-((f / self.noise_f0_per_mm) ** 2))
        return self.noise_sd_hu * float(np.sqrt(power[f < 0.5 / pixel_mm].sum() / power.sum()))


def sharpened(plane: Floats, scanner: Scanner, pixel_mm: float) -> Floats:
    """A plane after the point spread; a sharp kernel overshoots at edges."""
    seen = gaussian_filter(plane, scanner.psf_sigma_mm / pixel_mm, truncate=3)
    if scanner.edge:
        seen += scanner.edge * (seen - gaussian_filter(seen, 1.2 / pixel_mm, truncate=3))
    return np.asarray(seen, dtype=np.float32)


def overlapped(volume: Floats, share: float) -> Floats:
    """Slices [z, y, x] thicker than their spacing: each shows a share of both neighbours."""
    if share == 0 or len(volume) < 2:
        return volume
    above = np.concatenate([volume[1:], volume[-1:]])
    below = np.concatenate([volume[:1], volume[:-1]])
    return np.asarray((1 - 2 * share) * volume + share * (above + below), dtype=np.float32)


def draw_noise(
    rng: np.random.Generator, scanner: Scanner, shape: tuple[int, ...], pixel_mm: float, streaks: Floats
) -> Floats:
    """Noise [z, y, x] in HU, a little stronger in the middle; `streaks` [z]: what shoulders add along the rows."""
    rows, columns = shape[1:]
    f_y = fft.fftfreq(rows, pixel_mm)[:, None].astype(np.float32)
    f_x = fft.rfftfreq(columns, pixel_mm)[None].astype(np.float32)
    radial = np.sqrt(f_y**2 + f_x**2)
    even = np.sqrt(radial * np.exp(-((radial / scanner.noise_f0_per_mm) ** 2)))
    along = even * np.exp(-((f_x / np.float32(0.02)) ** 2) / 2)
    line = (np.arange(rows, dtype=np.float32) / rows - 0.5) * 2
    local = np.float32(1.12) - np.float32(0.3) * (line[:, None] ** 2 + line[None] ** 2)
    sd_hu = np.float32(scanner.sampled_sd_hu(pixel_mm))
    result = np.empty(shape, np.float32)
    for index in range(shape[0]):
        white = fft.rfft2(rng.standard_normal((rows, columns), dtype=np.float32))
        noise = _unit(fft.irfft2(white * even, s=(rows, columns)))
        if streaks[index] > 0:
            noise += streaks[index] * _unit(fft.irfft2(white * along, s=(rows, columns)))
        result[index] = noise * local * sd_hu
    return result


def _unit(noise: Floats) -> Floats:
    return np.asarray(noise / noise.std(), dtype=np.float32)


def beam_hardening(scanner: Scanner, line_mm: Floats, body: NDArray[np.bool_], shoulders: float) -> Floats:
    """HU [y, x] that hard beams take: a cup in the body and a dark band between shoulders; `shoulders` 0 to 1."""
    x, y = line_mm[None], line_mm[:, None]
    cup = scanner.cupping_hu * np.exp(-(x**2 + y**2) * np.float32(1 / 90**2))
    band = (
        scanner.band_hu
        * shoulders
        * np.exp(-((y - 12) ** 2) * np.float32(1 / 22**2))
        * np.cos(x * np.float32(np.pi / 360))
    )
    return np.asarray(-(cup + band) * body, dtype=np.float32)


def metal_streaks(
    rng: np.random.Generator, x: Floats, y: Floats, places: Sequence[tuple[float, float, float]], z_mm: float
) -> Floats:
    """HU [y, x] of streaks that radiate from metal near this level."""
    total = np.zeros(x.shape, np.float32)
    for px, py, pz in places:
        strength = 60 * np.exp(-(((z_mm - pz) / 14) ** 2))
        if strength < 2:
            continue
        angle = np.arctan2(y - np.float32(py), x - np.float32(px))
        far = 1 / (1 + np.hypot(x - np.float32(px), y - np.float32(py)) * np.float32(1 / 16))
        for turns in (2, 5, 9):
            total += (strength / turns**0.5 * far * np.cos(turns * angle + float(rng.uniform(0, 6)))).astype(np.float32)
    return total

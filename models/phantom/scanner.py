"""What a scanner adds to the truth: blur, partial volume and noise."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter1d

from models.phantom.tissues import Hospital


def average_slabs(planes: NDArray[np.float32], per_slice: int) -> NDArray[np.float32]:
    """Box average of thin planes [z * per_slice, y, x] along z: the axial partial volume of thick slices."""
    rows, columns = planes.shape[1:]
    slabs = planes.reshape(-1, per_slice, rows, columns).mean(axis=1, dtype=np.float32)
    return np.asarray(slabs, dtype=np.float32)


def blur_in_plane(volume: NDArray[np.float32], sigma_mm: float, pixel_mm: float) -> NDArray[np.float32]:
    """Gaussian point spread in rows and columns."""
    sigma = sigma_mm / pixel_mm
    once = gaussian_filter1d(volume, sigma, axis=1, truncate=3)
    return np.asarray(gaussian_filter1d(once, sigma, axis=2, truncate=3), dtype=np.float32)


def draw_noise(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    pixel_mm: float,
    sd_hu: float,
    hospital: Hospital,
    streaks: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Noise [z, y, x] in HU with the spectrum f * exp(-(f / f0)^2) of filtered back-projection.

    `sd_hu` holds for a grid finer than the spectrum; a coarser grid sees only its part. `streaks` [z] is
    the share of variance that is correlated along rows, as shoulders cause it; it adds to the noise.
    """
    rows, columns = shape[1:]
    f_y = fft.fftfreq(rows, pixel_mm)[:, None].astype(np.float32)
    f_x = fft.rfftfreq(columns, pixel_mm)[None].astype(np.float32)
    radial = np.sqrt(f_y**2 + f_x**2)
    even = np.sqrt(radial * np.exp(-((radial / hospital.noise_f0_per_mm) ** 2)))
    # Streaks lie along rows: power only at low frequency in x.
    along_rows = even * np.exp(-((f_x / 0.02) ** 2) / 2)
    result = np.empty(shape, np.float32)
    for k in range(shape[0]):
        noise = _filtered(rng, even, (rows, columns)) * _sampled_share(hospital, pixel_mm)
        if streaks[k] > 0:
            noise += float(streaks[k]) * _filtered(rng, along_rows, (rows, columns))
        result[k] = noise
    return result * np.float32(sd_hu)


def with_noise(clean_hu: NDArray[np.float32], noise_hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """A scan in HU, clipped to what scanners store; in air, where detectors see the full beam, noise is halved."""
    noisy = clean_hu + noise_hu * np.where(clean_hu < -950, np.float32(0.5), np.float32(1))
    return np.asarray(np.clip(noisy, -1024, 3071), dtype=np.float32)


def _filtered(rng: np.random.Generator, amplitude: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """White noise through a filter, with unit variance."""
    spectrum = fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * amplitude
    noise = fft.irfft2(spectrum, s=shape)
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _sampled_share(hospital: Hospital, pixel_mm: float) -> np.float32:
    """Root of the share of the noise power below the grid's Nyquist frequency; power per area is f * P(f) df."""
    f = np.linspace(0, 4 * hospital.noise_f0_per_mm, 2000)
    power = f**2 * np.exp(-((f / hospital.noise_f0_per_mm) ** 2))
    return np.float32(np.sqrt(power[f < 0.5 / pixel_mm].sum() / power.sum()))

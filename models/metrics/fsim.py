"""The feature similarity index FSIM and the phase congruency under it.

Zhang, IEEE TIP 20:2378 (2011) with Kovesi's phase congruency (Videre 1:2, 1999): 4 scales, 4 orientations, shortest
wavelength 6 px, T1 = 0.85, T2 = 160 on a scale of 0..255. Slices here are of the 256 px for which FSIM needs no
downsampling; larger ones are averaged down first, as in the paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import correlate1d

_SCALES, _ORIENTATIONS = 4, 4
_SHORTEST_PX, _OCTAVE = 6.0, 2.0
_SIGMA_ON_F, _THETA_ON_SIGMA = 0.55, 1.2
_NOISE_SDS = 2.0
_T1, _T2 = 0.85, 160.0

Image = NDArray[np.floating]


@dataclass(frozen=True)
class FsimFeatures:
    """Phase congruency [y, x] in 0..1 and gradient magnitude [y, x] on a scale of 0..255."""

    congruency: NDArray[np.float32]
    gradient: NDArray[np.float32]


def fsim(prediction: Image, truth: Image) -> float:
    """Feature similarity of two slices [y, x] in [0, 1]: 1 for equal ones, symmetric."""
    meter = FsimMeter(prediction.shape)
    return meter.similarity(meter.features(prediction), meter.features(truth))


@dataclass(frozen=True)
class FsimMeter:
    """FSIM for slices of one shape (rows, columns); features are computed once for a slice used in several pairs."""

    shape: tuple[int, ...]
    _filters: NDArray[np.float32] = field(init=False, repr=False)
    _noise_factors: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the log-Gabor filters [orientation, scale, y, x] and what noise would give under them."""
        filters = _log_gabor(*(n // self._shrink for n in self.shape))
        object.__setattr__(self, "_filters", filters)
        object.__setattr__(self, "_noise_factors", tuple(_noise_factor(bank) for bank in filters))

    def features(self, image: Image) -> FsimFeatures:
        """Features of one slice [y, x] in [0, 1]; raises ValueError for another shape."""
        if image.shape != self.shape:
            raise ValueError(f"a slice of {image.shape}; this meter was made for {self.shape}")
        grey = _shrunk(np.asarray(image, dtype=np.float32) * 255, self._shrink)
        along = [_sloped(grey, a) for a in (0, 1)]
        gradient = np.hypot(along[0], along[1])
        return FsimFeatures(
            _phase_congruency(grey, self._filters, self._noise_factors), np.asarray(gradient, dtype=np.float32)
        )

    def similarity(self, first: FsimFeatures, second: FsimFeatures) -> float:
        """FSIM of two slices from their features; 1 where neither has any feature."""
        p, q = first.congruency, second.congruency
        g, h = first.gradient, second.gradient
        alike = (2 * p * q + _T1) / (p * p + q * q + _T1) * (2 * g * h + _T2) / (g * g + h * h + _T2)
        weight = np.maximum(p, q)
        total = float(weight.sum(dtype=np.float64))
        return float((alike * weight).sum(dtype=np.float64)) / total if total > 0 else 1.0

    @property
    def _shrink(self) -> int:
        return max(1, round(min(self.shape) / 256))


def _phase_congruency(
    image: NDArray[np.float32], filters: NDArray[np.float32], noise_factors: Sequence[float]
) -> NDArray[np.float32]:
    """Phase congruency [y, x] in 0..1 of an image [y, x] under log-Gabor filters [orientation, scale, y, x]."""
    spectrum = fft.fft2(image)
    energy, amplitude = np.zeros_like(image), np.zeros_like(image)
    for bank, noise_factor in zip(filters, noise_factors, strict=True):
        responses = fft.ifft2(spectrum * bank)
        modulus = np.abs(responses)
        total = responses.sum(axis=0)
        mean_phase = total / (np.abs(total) + 1e-4)
        aligned = responses * np.conj(mean_phase)
        along = (aligned.real - np.abs(aligned.imag)).sum(axis=0)
        # Energy that noise alone would give, from the median response at the finest scale.
        threshold = noise_factor * math.sqrt(float(np.median(modulus[0] ** 2)))
        energy += np.maximum(along - threshold, 0)
        amplitude += modulus.sum(axis=0)
    return np.asarray(energy / np.maximum(amplitude, 1e-12), dtype=np.float32)


def _noise_factor(bank: NDArray[np.float32]) -> float:
    """Threshold of the energy per root of the median squared response at the finest scale, for noise: its energy has a
    Rayleigh distribution, whose mean and SD follow from the filters [scale, y, x]."""
    wide = bank.astype(np.float64)
    power = 1 / math.log(2) / float((wide[0] ** 2).sum())
    spatial = fft.ifft2(wide).real * math.sqrt(wide[0].size)
    squares = float((spatial**2).sum())
    products = (float((spatial.sum(axis=0) ** 2).sum()) - squares) / 2
    rayleigh = math.sqrt(max(power * (2 * squares + 4 * products) / 2, 0))
    # Kovesi's empirical 1.7 takes back that the scales' responses are correlated.
    return rayleigh * (math.sqrt(math.pi / 2) + _NOISE_SDS * math.sqrt(2 - math.pi / 2)) / 1.7


def _log_gabor(rows: int, columns: int) -> NDArray[np.float32]:
    """Filters [orientation, scale, y, x] in the order of the FFT's frequencies, one-sided in angle."""
    y, x = np.meshgrid(fft.fftfreq(rows), fft.fftfreq(columns), indexing="ij")
    radius = np.hypot(y, x)
    radius[0, 0] = 1
    angle = np.arctan2(-y, x)
    low_pass = 1 / (1 + (radius / 0.45) ** 30)
    radial = []
    for scale in range(_SCALES):
        centre = 1 / (_SHORTEST_PX * _OCTAVE**scale)
        band = np.exp(-(np.log(radius / centre) ** 2) / (2 * math.log(_SIGMA_ON_F) ** 2)) * low_pass
        band[0, 0] = 0
        radial.append(band)
    sigma = math.pi / _ORIENTATIONS / _THETA_ON_SIGMA
    sectors = []
    for k in range(_ORIENTATIONS):
        turned = angle - k * math.pi / _ORIENTATIONS
        distance = np.abs(np.arctan2(np.sin(turned), np.cos(turned)))
        sectors.append(np.exp(-(distance**2) / (2 * sigma**2)))
    return np.asarray(np.stack(sectors)[:, None] * np.stack(radial)[None], dtype=np.float32)


def _shrunk(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    if factor == 1:
        return image
    rows, columns = (n // factor for n in image.shape)
    blocks = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _sloped(grey: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Scharr's derivative across `axis`, with zeros outside as in the authors' code."""
    smooth = correlate1d(grey, (3, 10, 3), axis, mode="constant")
    return np.asarray(correlate1d(smooth, (1, 0, -1), 1 - axis, mode="constant") / 16, dtype=np.float32)

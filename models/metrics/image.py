"""Similarity of two pictures as the literature defines it.

All take one slice each, [y, x] in [0, 1] with a fixed data range of 1, and look at every pixel: air and bone that the
window clipped to 0 or 1 count as much as tissue, as in the paper these figures are to be compared with.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_SIGMA_PX = 1.5
_RADIUS_PX = 5  # 3.5 sigma, the 11 x 11 window of Wang 2004
_C1, _C2 = 0.01**2, 0.03**2
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_MS_SMALLEST_PX = 16 * (2 * _RADIUS_PX + 1)
_VIF_NOISE = 2.0  # variance of the visual noise on a scale of 0..255
_VIF_RADII_PX = (8, 4, 2, 1)
_VIF_SMALLEST_PX = 41

Image = NDArray[np.floating]
Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Values [y, x] of a slice at one scale, and their mean and variance under that scale's Gaussian window."""

    values: Plane
    mean: Plane
    variance: Plane


@dataclass(frozen=True)
class PictureFeatures:
    """What the indices need of one slice alone, so that a slice that stands in several pairs is filtered once.

    `octaves`: one for SSIM, five where MS-SSIM is defined. `scales`: VIF's four, none where it is not defined. About
    4 MB for 256 x 256.
    """

    octaves: tuple[Moments, ...]
    scales: tuple[Moments, ...]


def picture_features(picture: Image) -> PictureFeatures:
    """Features of one slice [y, x] in [0, 1]; raises ValueError for slices under 11 px."""
    return PictureFeatures(_octaves(picture), _vif_scales(picture))


def similarities(prediction: PictureFeatures, truth: PictureFeatures) -> dict[str, float]:
    """All indices of this module of one pair: psnr_db, nmae, ssim, ms_ssim and vif."""
    x, y = prediction.octaves[0].values, truth.octaves[0].values
    terms = _ssim_terms(prediction.octaves[0], truth.octaves[0])
    return {
        "psnr_db": psnr_db(x, y),
        "nmae": nmae(x, y),
        "ssim": _ssim(terms),
        "ms_ssim": _ms_ssim(terms, prediction.octaves, truth.octaves),
        "vif": _vif(prediction.scales, truth.scales),
    }


def nmae(prediction: Image, truth: Image) -> float:
    """Mean |prediction - truth| over the slice, in units of the data range (the width of the HU window)."""
    return float(np.abs(_wide(prediction) - _wide(truth)).mean())


def psnr_db(prediction: Image, truth: Image) -> float:
    """Peak signal-to-noise ratio, 10 log10(1 / MSE); infinite where the two are equal."""
    mse = float(((_wide(prediction) - _wide(truth)) ** 2).mean())
    return math.inf if mse == 0 else -10 * math.log10(mse)


def ssim(prediction: Image, truth: Image) -> float:
    """Structural similarity with a Gaussian window of sigma 1.5 px (Wang, IEEE TIP 13:600, 2004), valid region.

    K1 = 0.01, K2 = 0.03, population covariance: scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1). Raises ValueError for slices under 11 px.
    """
    x, y = (_octaves(picture)[0] for picture in (prediction, truth))
    return _ssim(_ssim_terms(x, y))


def ms_ssim(prediction: Image, truth: Image) -> float:
    """Multi-scale SSIM over five octaves (Wang, Asilomar 2003); not a number under 176 px, where it is not defined.

    Octaves by 2 x 2 means; contrast terms over the valid region, the coarsest SSIM over the mirrored whole, negative
    means set to 0: torchmetrics' multiscale_structural_similarity_index_measure(data_range=1). Raises ValueError for
    slices under 11 px.
    """
    x, y = _octaves(prediction), _octaves(truth)
    return _ms_ssim(_ssim_terms(x[0], y[0]), x, y)


def vif(prediction: Image, truth: Image) -> float:
    """Visual information fidelity in the pixel domain (Sheikh & Bovik, IEEE TIP 15:430, 2006): 1 for equal slices.

    Four scales, visual noise of variance 2 on a scale of 0..255, as torchmetrics' visual_information_fidelity of slices
    times 255. Not a number under 41 px; 1 where the truth carries no information.
    """
    return _vif(_vif_scales(prediction), _vif_scales(truth))


def _ssim(terms: tuple[Plane, Plane]) -> float:
    luminance, contrast = terms
    return float(_inner(luminance * contrast, _RADIUS_PX).mean())


def _ms_ssim(first: tuple[Plane, Plane], x: tuple[Moments, ...], y: tuple[Moments, ...]) -> float:
    """MS-SSIM from the terms of the first octave, which SSIM has made already, and the moments of all."""
    if len(x) < len(_MS_WEIGHTS):
        return math.nan
    product = 1.0
    for octave, weight in enumerate(_MS_WEIGHTS):
        luminance, contrast = first if octave == 0 else _ssim_terms(x[octave], y[octave])
        last = octave == len(_MS_WEIGHTS) - 1
        mean = float((luminance * contrast).mean() if last else _inner(contrast, _RADIUS_PX).mean())
        product *= max(mean, 0.0) ** weight
    return product


def _vif(x: tuple[Moments, ...], y: tuple[Moments, ...]) -> float:
    if not x:
        return math.nan
    kept = carried = 0.0
    for scale, radius in enumerate(_VIF_RADII_PX):
        scale_kept, scale_carried = _information(x[scale], y[scale], radius)
        kept, carried = kept + scale_kept, carried + scale_carried
    return kept / carried if carried > 0 else 1.0


def _information(x: Moments, y: Moments, radius: int) -> tuple[float, float]:
    """Bits (log10) of the truth y that survive in x, and bits that y carries, at one scale."""
    tiny = 1e-10
    var_x, var_y = x.variance, y.variance
    covariance = _windowed(x.values * y.values, radius) - x.mean * y.mean
    gain = covariance / (var_y + tiny)
    lost = var_x - gain * covariance
    flat_x, flat_y, inverted = var_x < tiny, var_y < tiny, gain < 0
    gain[flat_y | flat_x | inverted] = 0
    lost = np.where(flat_y | inverted, var_x, np.where(flat_x, 0, lost))
    carried = np.where(flat_y, 0, var_y)
    kept = np.log10(1 + gain**2 * carried / (np.maximum(lost, tiny) + _VIF_NOISE)).sum()
    return float(kept), float(np.log10(1 + carried / _VIF_NOISE).sum())


def _ssim_terms(x: Moments, y: Moments) -> tuple[Plane, Plane]:
    """Luminance and contrast-structure maps [y, x], mirrored at the border."""
    product = x.mean * y.mean
    covariance = _blurred(x.values * y.values) - product
    luminance = (2 * product + _C1) / (x.mean**2 + y.mean**2 + _C1)
    return luminance, (2 * covariance + _C2) / (x.variance + y.variance + _C2)


def _octaves(picture: Image) -> tuple[Moments, ...]:
    """Moments of all octaves of MS-SSIM, or of the first alone where it is not defined."""
    smallest = 2 * _RADIUS_PX + 1
    if min(picture.shape) < smallest:
        raise ValueError(f"SSIM needs at least {smallest} x {smallest} px, not {picture.shape}")
    values, octaves = _wide(picture), []
    for octave in range(len(_MS_WEIGHTS) if min(picture.shape) >= _MS_SMALLEST_PX else 1):
        if octave:
            values = _halved(values)
        mean = _blurred(values)
        octaves.append(Moments(values, mean, np.maximum(_blurred(values * values) - mean**2, 0)))
    return tuple(octaves)


def _vif_scales(picture: Image) -> tuple[Moments, ...]:
    if min(picture.shape) < _VIF_SMALLEST_PX:
        return ()
    values, scales = 255 * _wide(picture), []
    for scale, radius in enumerate(_VIF_RADII_PX):
        if scale:
            values = _windowed(values, radius)[::2, ::2]
        mean = _windowed(values, radius)
        scales.append(Moments(values, mean, np.maximum(_windowed(values * values, radius) - mean**2, 0)))
    return tuple(scales)


def _blurred(image: Plane) -> Plane:
    return np.asarray(gaussian_filter(image, _SIGMA_PX, radius=_RADIUS_PX, mode="mirror"))


def _windowed(image: Plane, radius: int) -> Plane:
    """Gaussian window of 2 * radius + 1 px with sigma a fifth of it, valid region."""
    return _inner(np.asarray(gaussian_filter(image, (2 * radius + 1) / 5, radius=radius, mode="mirror")), radius)


def _inner(image: Plane, border: int) -> Plane:
    return image[border:-border, border:-border]


def _halved(image: Plane) -> Plane:
    rows, columns = (n // 2 for n in image.shape)
    return np.asarray(image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean(axis=(1, 3)))


def _wide(image: Image) -> Plane:
    return np.asarray(image, dtype=np.float64)

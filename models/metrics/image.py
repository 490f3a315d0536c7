"""Owns similarity of two pictures as the literature defines it; must not know HU, windows or what is depicted.

All take one slice each, [y, x] in [0, 1] with a fixed data range of 1, and look at every pixel: air and bone that the
window clipped to 0 or 1 count as much as tissue, as in the paper these figures are to be compared with.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

_SIGMA_PX = 1.5
_RADIUS_PX = 5  # 3.5 sigma, the 11 x 11 window of Wang 2004
_C1, _C2 = 0.01**2, 0.03**2
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_MS_SMALLEST_PX = 16 * (2 * _RADIUS_PX + 1)
_VIF_NOISE = 2.0  # variance of the visual noise on a scale of 0..255
_VIF_SMALLEST_PX = 41

Image = NDArray[np.floating]


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
    if min(prediction.shape) < 2 * _RADIUS_PX + 1:
        raise ValueError(f"SSIM needs at least {2 * _RADIUS_PX + 1} x {2 * _RADIUS_PX + 1} px, not {prediction.shape}")
    luminance, contrast = _ssim_terms(_wide(prediction), _wide(truth))
    return float(_inner(luminance * contrast, _RADIUS_PX).mean())


def ms_ssim(prediction: Image, truth: Image) -> float:
    """Multi-scale SSIM over five octaves (Wang, Asilomar 2003); not a number under 176 px, where it is not defined.

    Octaves by 2 x 2 means; contrast terms over the valid region, the coarsest SSIM over the mirrored whole, negative
    means set to 0: torchmetrics' multiscale_structural_similarity_index_measure(data_range=1).
    """
    if min(prediction.shape) < _MS_SMALLEST_PX:
        return math.nan
    x, y = _wide(prediction), _wide(truth)
    product = 1.0
    for weight in _MS_WEIGHTS[:-1]:
        _, contrast = _ssim_terms(x, y)
        product *= max(float(_inner(contrast, _RADIUS_PX).mean()), 0.0) ** weight
        x, y = _halved(x), _halved(y)
    luminance, contrast = _ssim_terms(x, y)
    return float(product * max(float((luminance * contrast).mean()), 0.0) ** _MS_WEIGHTS[-1])


def vif(prediction: Image, truth: Image) -> float:
    """Visual information fidelity in the pixel domain (Sheikh & Bovik, IEEE TIP 15:430, 2006): 1 for equal slices.

    Four scales, visual noise of variance 2 on a scale of 0..255, as torchmetrics' visual_information_fidelity of slices
    times 255. Not a number under 41 px; 1 where the truth carries no information.
    """
    if min(prediction.shape) < _VIF_SMALLEST_PX:
        return math.nan
    x, y = 255 * _wide(prediction), 255 * _wide(truth)
    kept = carried = 0.0
    for scale in range(4):
        radius = 2 ** (3 - scale)
        if scale:
            x, y = (_windowed(a, radius)[::2, ::2] for a in (x, y))
        scale_kept, scale_carried = _information(x, y, radius)
        kept, carried = kept + scale_kept, carried + scale_carried
    return kept / carried if carried > 0 else 1.0


def _information(x: NDArray[np.float64], y: NDArray[np.float64], radius: int) -> tuple[float, float]:
    """Bits (log10) of the truth y that survive in x, and bits that y carries, at one scale."""
    tiny = 1e-10
    mean_x, mean_y = _windowed(x, radius), _windowed(y, radius)
    var_x = np.maximum(_windowed(x * x, radius) - mean_x**2, 0)
    var_y = np.maximum(_windowed(y * y, radius) - mean_y**2, 0)
    covariance = _windowed(x * y, radius) - mean_x * mean_y
    gain = covariance / (var_y + tiny)
    lost = var_x - gain * covariance
    flat_x, flat_y, inverted = var_x < tiny, var_y < tiny, gain < 0
    gain[flat_y | flat_x | inverted] = 0
    lost = np.where(flat_y | inverted, var_x, np.where(flat_x, 0, lost))
    carried = np.where(flat_y, 0, var_y)
    kept = np.log10(1 + gain**2 * carried / (np.maximum(lost, tiny) + _VIF_NOISE)).sum()
    return float(kept), float(np.log10(1 + carried / _VIF_NOISE).sum())


def _ssim_terms(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luminance and contrast-structure maps [y, x], mirrored at the border."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x = np.maximum(_blurred(x * x) - mean_x**2, 0)
    var_y = np.maximum(_blurred(y * y) - mean_y**2, 0)
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (var_x + var_y + _C2)


def _blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(gaussian_filter(image, _SIGMA_PX, radius=_RADIUS_PX, mode="mirror"))


def _windowed(image: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Gaussian window of 2 * radius + 1 px with sigma a fifth of it, valid region."""
    return _inner(np.asarray(gaussian_filter(image, (2 * radius + 1) / 5, radius=radius, mode="mirror")), radius)


def _inner(image: NDArray[np.float64], border: int) -> NDArray[np.float64]:
    return image[border:-border, border:-border]


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = (n // 2 for n in image.shape)
    return np.asarray(image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean(axis=(1, 3)))


def _wide(image: Image) -> NDArray[np.float64]:
    return np.asarray(image, dtype=np.float64)

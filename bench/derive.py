"""What the node would send for a series, without its files: translation, composite and HU, as in a job."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.dicom.volume import CTVolume
from node.translate.composite import Composite, composite

Image = NDArray[np.float32]  # HU [z, y, x]


@dataclass(frozen=True)
class Derived:
    """predicted_hu: what the model returned, on the volume's lattice; hu: HU of `composite.stored`, as all read it."""

    predicted_hu: Image
    composite: Composite
    hu: Image


def derive(volume: CTVolume, predicted_hu: Image, window_hu: tuple[float, float]) -> Derived:
    """Put a prediction into its source; where it is not finite the source stays."""
    result = composite(volume, predicted_hu, window_hu)
    hu = volume.hu.copy()
    for z, header in enumerate(volume.headers):
        changed = result.stored[z] != volume.stored[z]
        read = result.stored[z] * np.float32(header.rescale_slope) + np.float32(header.rescale_intercept)
        hu[z][changed] = read[changed]
    return Derived(predicted_hu, result, hu)

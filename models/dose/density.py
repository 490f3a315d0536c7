"""HU to relative electron density, by two straight lines."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]  # [z, y, x]

SOFT_HU_PER_UNIT: Final = 1000.0
DENSE_HU_PER_UNIT: Final = 1950.0
SOURCE: Final = (
    "two straight lines that meet at water: 1 + HU/1000 up to 0 HU, 1 + HU/1950 above. The two slopes are those that "
    "published planning code quotes from Thomas, British Journal of Radiology 72 (1999) 781-786; there the second line "
    "begins at 100 HU. The paper itself was not read, and the table of a department's own scanner differs"
)


def relative_electron_density(hu: Volume) -> Volume:
    """Electron density relative to water of HU; 0 for air at -1000 HU and below, 1 for water at 0 HU."""
    slope = np.where(hu > 0, np.float32(1 / DENSE_HU_PER_UNIT), np.float32(1 / SOFT_HU_PER_UNIT))
    return np.asarray(np.maximum(1 + hu * slope, 0), dtype=np.float32)

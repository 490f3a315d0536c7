"""The doubt of a result as one small file beside its slices: which voxels the model's second look contradicts."""

import io
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

DOUBT_FILE: Final = "doubt.npz"
_MOST_HU: Final = 255.0


@dataclass(frozen=True, slots=True)
class Doubt:
    """How far two looks of a model at the same slices differ, on the lattice of a result.

    mask: bool [z, y, x], the voxels that count as doubtful. doubt_hu: uint8 [z, y, x], the difference in whole HU,
    clipped at 255, also below the limit and 0 outside soft tissue. limit_hu: the doubt from which a voxel may be in the
    mask. z ascends as the slices of the result do (0001.dcm is 0); y and x are their rows and columns.
    """

    mask: NDArray[np.bool_] = field(repr=False)
    doubt_hu: NDArray[np.uint8] = field(repr=False)
    limit_hu: float

    @classmethod
    def of(cls, mask: NDArray[np.bool_], doubt_hu: NDArray[np.float32], limit_hu: float) -> "Doubt":
        """From a doubt in HU of any size, which is rounded and clipped; raises ValueError for different shapes."""
        if mask.shape != doubt_hu.shape or mask.ndim != 3:
            raise ValueError(f"a mask of shape {mask.shape} does not fit a doubt of shape {doubt_hu.shape}")
        whole_hu = np.empty(mask.shape, np.uint8)
        for plane_hu, out in zip(doubt_hu, whole_hu, strict=True):  # copies of the volume would cost more than the sums
            out[...] = np.rint(np.clip(plane_hu, 0.0, _MOST_HU))
        return cls(mask, whole_hu, limit_hu)


def write_doubt(folder: Path, doubt: Doubt) -> Path:
    """Write the file into the folder of a result; its content is on the disk on return, its name with the folder's.

    The same doubt gives the same bytes.
    """
    arrays = {"mask": doubt.mask, "doubt_hu": doubt.doubt_hu, "limit_hu": np.array(doubt.limit_hu, dtype=np.float64)}
    packed = io.BytesIO()
    # What numpy.savez_compressed writes, in a third of its time and less than twice the bytes.
    with ZipFile(packed, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return _keep(folder / DOUBT_FILE, packed.getvalue())


def copy_doubt(folder: Path, other: Path) -> None:
    """Keep the file of one result's folder in another one too, as `write_doubt` does; where there is none, nothing."""
    if (folder / DOUBT_FILE).is_file():
        _keep(other / DOUBT_FILE, (folder / DOUBT_FILE).read_bytes())


def read_doubt(folder: Path) -> Doubt | None:
    """The doubt of the result in a folder; None where none was measured or kept.

    Raises ValueError where the file is there and damaged, OSError where it cannot be read.
    """
    path = folder / DOUBT_FILE
    if not path.is_file():  # also a pipe, which would be waited for
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            mask, doubt_hu, limit_hu = kept["mask"], kept["doubt_hu"], float(kept["limit_hu"])
    except (BadZipFile, EOFError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"{DOUBT_FILE} of the result is damaged ({type(error).__name__})") from error
    if mask.dtype != bool or doubt_hu.dtype != np.uint8 or mask.shape != doubt_hu.shape or mask.ndim != 3:
        raise ValueError(f"{DOUBT_FILE} of the result is damaged: it holds {mask.dtype} {mask.shape}")
    return Doubt(mask, doubt_hu, limit_hu)


def _keep(path: Path, data: bytes) -> Path:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    return path

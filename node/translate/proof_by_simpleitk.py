"""What SimpleITK makes of a written series; it is never read here with the node's own reader."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from node.dicom.geometry import SlicePlane, positions_along_normal
from node.dicom.headers import SliceHeader
from node.dicom.pixels import StoredPixels
from node.dicom.volume import CTVolume
from node.translate.proof import OWN, SAME, Comparison, ProofFailed, own_planes, read_or_fail, unevenness_mm

# float32 holds every HU that 16 bits can mean to 0.004 HU; a fault is at least one stored step, and no scanner's is as
# small as this.
HU_TOLERANCE: Final = 0.01
_READER: Final = "SimpleITK"
# The mean step of a run: ITK's lies along the line through its ends, ours along the normal.
_DRIFT_MM: Final = 0.05
# Slices in one reading of the series reader: 18 MB as float32 at 512 x 512, however long the series is.
_RUN_SLICES: Final = 16
_THREADS: Final = 2


def prove_by_simpleitk(
    volume: CTVolume, written: Sequence[Path], stored: StoredPixels, series_uid: str
) -> dict[str, float]:
    """Compare what SimpleITK reads in the written files with what it reads in the source's, and HU with those meant.

    written: all files of the derived series, in one folder and in the order of z. stored: [z, y, x], the values meant;
    HU are these by slope and intercept of the source slice. Returns figures: whether SimpleITK reads the source's
    headers (1 or 0; where it does not, and of a multi-frame source, the node's own geometry alone is compared), and by
    how many mm a step between slices differs from their mean. Raises ProofFailed with the figure that differs in number
    or order of the slices, position, orientation, pixel spacing, size, slice spacing or HU.
    """
    own = own_planes(volume)
    with _without_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        _require_all_in_order(written, series_uid, len(own))
        seen = read_or_fail(_READER, lambda: list(pool.map(_plane, written)))
        source = None
        with suppress(RuntimeError):  # all that SimpleITK raises
            if volume.headers[0].frame is None:  # of a multi-frame object it reads one plane, not those of the frames
                source = list(pool.map(_plane, [header.path for header in volume.headers]))
        if source is not None:
            Comparison(_READER, "its source", SAME).planes(seen, source)
        Comparison(_READER, "the node's own geometry", OWN).planes(seen, own)

        def prove_run(start: int) -> None:
            run = slice(start, start + _RUN_SLICES + 1)  # it ends with the first slice of the next one
            _prove_run(start, written[run], own[run], stored[run], volume.headers[run])

        list(pool.map(prove_run, range(0, max(1, len(own) - 1), _RUN_SLICES)))
    return {
        "simpleitk_reads_source": float(source is not None),
        "simpleitk_uneven_spacing_mm": unevenness_mm(seen),
    }


@contextmanager
def _without_warnings() -> Iterator[None]:
    """ITK prints on standard error what is measured here, also of stacks that are as even as scanners print them."""
    shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(shown)


def _require_all_in_order(written: Sequence[Path], series_uid: str, count: int) -> None:
    """GDCM, asked for the files of the series in this folder, must name all of them in the order of their positions."""
    names = read_or_fail(
        _READER, lambda: SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(written[0].parent), series_uid)
    )
    if len(names) != count:
        raise ProofFailed(
            f"SimpleITK finds {len(names)} slices of the derived series in its folder; its source has {count}"
        )
    if [Path(name).name for name in names] != [path.name for path in written]:
        raise ProofFailed("SimpleITK puts the slices of the derived series in another order than their source slices")


def _plane(path: Path) -> SlicePlane:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return _first_plane(reader)


def _first_plane(image: Any) -> SlicePlane:
    """The first slice of an Image or a reader, both untyped, whose spacing and size are in the order x, y, z."""
    x, y, z = image.GetOrigin()
    between_columns, between_rows, _ = image.GetSpacing()
    columns, rows, _ = image.GetSize()
    turn = image.GetDirection()  # row by row, the matrix whose columns are the axes
    cosines = (turn[0], turn[3], turn[6], turn[1], turn[4], turn[7])
    return SlicePlane((x, y, z), cosines, (between_rows, between_columns), rows, columns)


def _prove_run(
    start: int,
    written: Sequence[Path],
    own: Sequence[SlicePlane],
    stored: StoredPixels,
    headers: Sequence[SliceHeader],
) -> None:
    """Grid and HU of consecutive slices through the series reader; `start` is the number of slices before them."""
    image = read_or_fail(_READER, lambda: _read_series(written))
    count, where = len(own), f"slices {start + 1} to {start + len(own)}"
    against = Comparison(_READER, "the node's own geometry", OWN)
    against.plane(f"the grid of {where}", _first_plane(image), own[0])
    against.figure(f"number of {where}", [image.GetSize()[2]], [count], 0.0, "")
    if count > 1:
        along = positions_along_normal(own)
        step_mm = float(along[-1] - along[0]) / (count - 1)
        # ITK divides the distance between the first and the last position, whose drift in the plane the gate limits.
        against.figure(f"slice spacing of {where}", [image.GetSpacing()[2]], [step_mm], _DRIFT_MM, " mm")
    _require_same_hu(start + 1, SimpleITK.GetArrayViewFromImage(image), stored, headers)


def _read_series(paths: Sequence[Path]) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(path) for path in paths])
    # By default all slices get the number type that suits the first one's slope and intercept.
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    image: SimpleITK.Image = reader.Execute()
    return image


def _require_same_hu(
    first: int, seen: NDArray[np.float32], stored: StoredPixels, headers: Sequence[SliceHeader]
) -> None:
    for number, (hu, values, header) in enumerate(zip(seen, stored, headers, strict=True), first):
        meant = values * np.float32(header.rescale_slope or 1.0) + np.float32(header.rescale_intercept or 0.0)
        worst = float(np.abs(hu - meant).max())
        if not worst <= HU_TOLERANCE:
            raise ProofFailed(
                f"SimpleITK reads a pixel of slice {number} that differs by {worst:g} HU from what was meant"
            )

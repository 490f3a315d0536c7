"""Owns turning the files of one series into a volume; must not resample, clip or change any value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.dicom.attributes import DIGESTED
from node.dicom.constants import AIR_HU
from node.dicom.geometry import Flaw, SlicePlane, describe_stack
from node.dicom.headers import SliceHeader, load_dataset, read_header
from node.dicom.pixels import MAX_SLICE_PIXELS, decode_stored, padding_range
from node.dicom.raw import tag_of
from node.errors import Permanent, UnreadableInstance

# 10 bytes per voxel are held (HU, stored value, a model's answer): about 8 GB at this limit.
MAX_VOXELS: Final = 3000 * 512 * 512

StoredPixels = NDArray[np.uint16] | NDArray[np.int16]
Progress = Callable[[int, int], None]


class UnusableSeries(Permanent):
    """The files do not form one volume that can be processed."""


@dataclass(frozen=True, slots=True)
class SourceSlice:
    """One source slice: its header, the elements that matter later, and the stored values that mean padding."""

    header: SliceHeader
    dataset: Dataset
    padding: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class CTVolume:
    """A CT series on its native lattice.

    hu: float32 [z, y, x], HU; padding is AIR_HU. stored: uint16 or int16 [z, y, x], the values as received. z ascends
    along the slice normal, which is not the order of InstanceNumber. padding: bool [z, y, x], or None where no slice
    declares padding. slices: as many as z, in the same order. spacing_mm: (z, y, x).
    """

    hu: NDArray[np.float32]
    stored: StoredPixels
    padding: NDArray[np.bool_] | None
    slices: tuple[SourceSlice, ...]
    spacing_mm: tuple[float, float, float]

    @property
    def headers(self) -> tuple[SliceHeader, ...]:
        """Headers of the slices, in the order of z."""
        return tuple(source.header for source in self.slices)


def plane_of(header: SliceHeader) -> SlicePlane | None:
    """The image plane of a slice, None where its geometry is incomplete."""
    if header.image_position_mm is None or header.image_orientation is None or header.pixel_spacing_mm is None:
        return None
    if header.rows is None or header.columns is None:
        return None
    return SlicePlane(
        header.image_position_mm, header.image_orientation, header.pixel_spacing_mm, header.rows, header.columns
    )


def read_volume(paths: Sequence[Path], *, progress: Progress | None = None) -> CTVolume:
    """Read, sort and decode the slices of one series; progress(done, total) counts slices.

    HU is stored value x RescaleSlope + RescaleIntercept of the same slice (PS3.3 C.11.1). Raises UnreadableInstance for
    a damaged file and UnusableSeries where the slices belong to several series, mix pixel formats, form no gap-free
    lattice or are too many; all sizes are checked before anything is decoded.
    """
    headers = [read_header(path) for path in paths]
    order, spacing_z = _lattice(headers)
    first = headers[0]
    rows, columns = first.rows or 0, first.columns or 0
    _check_formats(headers)
    if len(headers) * rows * columns > MAX_VOXELS or rows * columns > MAX_SLICE_PIXELS:
        raise UnusableSeries(f"{len(headers)} slices of {rows} x {columns} pixels are more than this node processes")
    shape, signed = (len(headers), rows, columns), first.pixel_representation == 1
    stored: StoredPixels = np.empty(shape, dtype=np.int16) if signed else np.empty(shape, dtype=np.uint16)
    hu = np.empty(stored.shape, dtype=np.float32)
    slices: list[SourceSlice] = []
    for z, index in enumerate(order):
        source, stored[z] = _read_slice(headers[index])
        np.multiply(stored[z], np.float32(source.header.rescale_slope), out=hu[z])
        hu[z] += np.float32(source.header.rescale_intercept)
        slices.append(source)
        if progress:
            progress(z + 1, len(headers))
    padding = _padding_mask(stored, slices)
    if padding is not None:
        hu[padding] = AIR_HU
    in_plane = first.pixel_spacing_mm or (0.0, 0.0)
    return CTVolume(hu, stored, padding, tuple(slices), (spacing_z, *in_plane))


def _lattice(headers: Sequence[SliceHeader]) -> tuple[tuple[int, ...], float]:
    if not headers:
        raise UnusableSeries("there are no images")
    if len({(header.study_uid, header.series_uid, header.frame_of_reference_uid) for header in headers}) > 1:
        raise UnusableSeries("the images belong to more than one series or frame of reference")
    planes = [plane for header in headers if (plane := plane_of(header)) is not None]
    if len(planes) != len(headers):
        raise UnusableSeries("an image has no position, orientation or pixel spacing")
    stack = describe_stack(planes)
    if isinstance(stack, Flaw):
        raise UnusableSeries(f"the slices form no regular stack ({stack.kind})")
    spacing_mm = stack.spacing_mm or headers[0].slice_thickness_mm or 1.0
    return stack.order, spacing_mm


def _check_formats(headers: Sequence[SliceHeader]) -> None:
    formats = {(h.bits_allocated, h.bits_stored, h.high_bit, h.pixel_representation) for h in headers}
    allocated, bits, high_bit, representation = next(iter(formats))
    if len(formats) > 1 or allocated != 16 or representation not in (0, 1) or bits is None or high_bit != bits - 1:
        raise UnusableSeries("the images mix pixel formats, or are not of 16 bits with the high bit on top")
    if any(not h.rescale_slope or h.rescale_slope < 0 or h.rescale_intercept is None for h in headers):
        raise UnusableSeries("an image has no usable rescale slope and intercept, so its values are not HU")


def _read_slice(header: SliceHeader) -> tuple[SourceSlice, StoredPixels]:
    """Decode one slice from a second reading of its file, so that never all files are in memory."""
    try:
        ds = load_dataset(header.path)
    except UnreadableInstance:
        raise
    except Exception as error:  # the file was readable a moment ago: it was changed or the disk failed
        raise UnreadableInstance(f"the file cannot be read ({type(error).__name__})") from error
    stored = decode_stored(ds, header)
    kept = Dataset()  # not `ds` without its pixels: that would hold on to the whole file's bytes
    for tag in (tag_of(keyword) for keyword in DIGESTED):
        if tag in ds:
            kept[tag] = ds.get_item(tag)
    return SourceSlice(header, kept, padding_range(ds, header)), stored


def _padding_mask(stored: StoredPixels, slices: Sequence[SourceSlice]) -> NDArray[np.bool_] | None:
    if all(source.padding is None for source in slices):
        return None
    mask = np.zeros(stored.shape, dtype=np.bool_)
    for z, source in enumerate(slices):
        if source.padding is not None:
            low, high = source.padding
            mask[z] = (stored[z] >= low) & (stored[z] <= high)
    return mask

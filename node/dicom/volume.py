"""The files of one series become a volume on its native lattice: nothing is resampled, clipped or changed.

Each file is read and parsed once, and no slice is decoded before its size and that of the volume are checked, as far as
its files were opened. A file is one slice, or every frame of a multi-frame object.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import scipy  # loads scipy.ndimage when it is first used: most processes never do
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.dicom.constants import AIR_HU, UNCOMPRESSED
from node.dicom.content import DIGESTED
from node.dicom.elements import element_bytes, tag_of, unpack_numbers
from node.dicom.geometry import Flaw, SlicePlane, describe_stack
from node.dicom.headers import SliceHeader, header_of, read_slices
from node.dicom.lattice import POSITION_TOLERANCE_MM
from node.dicom.pixels import (
    MAX_SLICE_PIXELS,
    DecodedSlice,
    PixelFormat,
    Sign,
    StoredPixels,
    decode_slice,
    pixel_format_of,
)
from node.dicom.sandbox import CHILDREN, DecoderStopped
from node.errors import Doubtful, Permanent, UnreadableInstance

# 10 bytes per voxel are held (HU, stored value, a model's answer): about 8 GB at this limit.
MAX_VOXELS: Final = 3000 * 512 * 512
# Of a whole series; one slice may take longer. Of 512 x 512 it takes below 0.1 s, of 2048 x 2048 below 1.6 s.
DECODING_S: Final = 60.0
DECODING_S_PER_SLICE: Final = 2.0

_CORNER_PX: Final = 4
_SMALLEST_PX: Final = 32  # of a smaller image the corners are no corners
_LIKE_AIR_HU: Final = -500.0

Progress = Callable[[int, int], None]


class UnusableSeries(Permanent):
    """The files do not form one volume that can be processed."""


class MisfitPixels(Doubtful):
    """Pixels contradict the header that says how to read them."""


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
    along the slice normal, which is not the order of InstanceNumber. padding: bool [z, y, x], the padding values that
    are connected to the border of their slice (a padding value may be tissue as well), or None where there is none. A
    value that fills all four corners and is not that of air counts as one.
    slices: as many as z, in the same order. spacing_mm: (z, y, x).
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

    @property
    def orientation(self) -> tuple[float, float, float, float, float, float]:
        """Row and column cosines of the first slice; the others' differ by no more than their printing."""
        orientation = self.slices[0].header.image_orientation
        assert orientation is not None  # a slice without has no place in a volume
        return orientation


def plane_of(header: SliceHeader) -> SlicePlane | None:
    """The image plane of a slice, None where its geometry is incomplete."""
    if header.image_position_mm is None or header.image_orientation is None or header.pixel_spacing_mm is None:
        return None
    if header.rows is None or header.columns is None:
        return None
    return SlicePlane(
        header.image_position_mm, header.image_orientation, header.pixel_spacing_mm, header.rows, header.columns
    )


def read_volume(
    paths: Sequence[Path],
    *,
    position_tolerance_mm: float = POSITION_TOLERANCE_MM,
    sha256: Mapping[str, str] | None = None,
    judge: Callable[[SliceHeader], None] = lambda _header: None,
    progress: Progress | None = None,
) -> CTVolume:
    """Read, sort and decode the slices of one series; progress(done, total) counts slices, of files that were not
    opened yet one each.

    position_tolerance_mm: how far a slice may lie from the lattice, see `describe_stack`. sha256: hex, of files by
    their names, as they were received; one that has other bytes raises DamagedInstance. judge: gets each header before
    the slices are compared; what it raises ends the reading.

    Raises DecoderStopped where a slice takes too much to be decoded, or all of them more than `DECODING_S` and
    `DECODING_S_PER_SLICE` for each.
    HU is stored value x RescaleSlope + RescaleIntercept of the same slice (PS3.3 C.11.1). Raises UnreadableInstance for
    a damaged file, UnusableSeries where the slices belong to several series, mix pixel formats, form no gap-free
    lattice or are too many, and MisfitPixels where pixels have bits above BitsStored that mean nothing.
    """
    found, slices, doubts = _read_slices(paths, sha256 or {}, judge, progress)
    order, spacing_z = _lattice([source.header for source in slices], position_tolerance_mm)
    slices = [slices[index] for index in order]
    _check_formats([source.header for source in slices])
    doubts.raise_first()
    first = slices[0].header
    words = np.stack([found[index] for index in order])
    stored: StoredPixels = words.view(np.int16) if first.pixel_representation == 1 else words
    hu = np.empty(stored.shape, dtype=np.float32)
    for z, source in enumerate(slices):
        np.multiply(stored[z], np.float32(source.header.rescale_slope), out=hu[z])
        hu[z] += np.float32(source.header.rescale_intercept)
    padding = _padding_mask(stored, slices)
    if padding is not None:
        hu[padding] = AIR_HU
    in_plane = first.pixel_spacing_mm or (0.0, 0.0)
    return CTVolume(hu, stored, padding, tuple(slices), (spacing_z, *in_plane))


class _Doubts:
    """What is wrong with the pixels of single slices; what is wrong with the series as a whole is a better reason."""

    def __init__(self) -> None:
        self._damage: UnreadableInstance | None = None
        self._misfits: list[tuple[SliceHeader, int]] = []
        self._signs: dict[str, set[Sign]] = {}

    @property
    def is_damaged(self) -> bool:
        """Whether a slice cannot be decoded, so that nothing is made of the others either."""
        return self._damage is not None

    def damaged(self, error: UnreadableInstance) -> None:
        self._damage = self._damage or error

    def look_at(self, header: SliceHeader, decoded: DecodedSlice) -> None:
        if decoded.excess is not None:
            self._misfits.append((header, decoded.excess))
        # Decoders continue the sign each in its own way, but each always in the same.
        self._signs.setdefault(header.transfer_syntax_uid, set()).add(decoded.sign)

    def raise_first(self) -> None:
        """Raise UnreadableInstance or MisfitPixels where there was something."""
        if self._damage:
            raise self._damage
        if self._misfits:
            header, value = max(self._misfits, key=lambda misfit: abs(misfit[1]))
            bits = header.bits_stored or 16
            low, high = stored_range(bits, signed=header.pixel_representation == 1)
            count = "1 slice does" if len(self._misfits) == 1 else f"{len(self._misfits)} slices do"
            raise MisfitPixels(
                f"the pixels of {count} not fit BitsStored ({bits}): a pixel has the value {value}, and {bits} bits "
                f"hold {low} to {high}"
            )
        if any({Sign.EXTENDED, Sign.CLEARED} <= signs for signs in self._signs.values()):
            raise MisfitPixels(
                "the pixels do not fit BitsStored: negative values have their sign in all higher bits in some slices, "
                "and in others values have the sign bit set and no higher bit"
            )


def _read_slices(
    paths: Sequence[Path],
    sha256: Mapping[str, str],
    judge: Callable[[SliceHeader], None],
    progress: Progress | None,
) -> tuple[list[NDArray[np.uint16]], list[SourceSlice], _Doubts]:
    """Read each file once: stored values as 16 bit words and slices, in the order of `paths`, and what is wrong.

    A slice that cannot be decoded, or has another size than the first one, has words that mean nothing.
    """
    words: list[NDArray[np.uint16]] = []
    slices: list[SourceSlice] = []
    doubts = _Doubts()
    waited_s = 0.0
    unset = np.empty((0, 0), dtype=np.uint16)
    for done, one in enumerate(_decoding_ahead(paths, sha256), 1):
        decoded: DecodedSlice | None = None
        begin_s = time.monotonic()
        try:
            decoded = None if doubts.is_damaged else one.decode()
        except DecoderStopped:  # the other slices may take as much
            raise
        except UnreadableInstance as error:
            doubts.damaged(error)
        waited_s += time.monotonic() - begin_s
        _refuse_slow(waited_s, done, one.known)
        header = header_of(one.path, one.parsed, one.form, decoded.sound if decoded else None)
        judge(header)
        if done == 1:
            unset = np.empty((one.form.rows or 0, one.form.columns or 0), dtype=np.uint16)
        words.append(unset)
        if decoded and decoded.stored.shape == unset.shape:
            words[-1] = decoded.stored.view(np.uint16)
            doubts.look_at(header, decoded)
        needed = Dataset()  # not `parsed` without its pixels: that would hold on to the whole file's bytes
        for tag in (tag_of(keyword) for keyword in DIGESTED):
            if tag in one.parsed:
                needed[tag] = one.parsed.get_item(tag)
        slices.append(SourceSlice(header, needed, padding_range(one.parsed, header)))
        if progress:
            progress(done, one.known)
    return words, slices, doubts


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A slice with what gives or raises its decoding. known: how many slices there are, as far as files were opened."""

    path: Path
    parsed: Dataset
    form: PixelFormat
    known: int
    decode: Callable[[], DecodedSlice]


def _parsed_slices(
    paths: Sequence[Path], sha256: Mapping[str, str]
) -> Iterator[tuple[Path, Dataset, PixelFormat, int]]:
    """Every slice of every file; raises UnusableSeries where there are too many for one volume."""
    known = len(paths)
    for path in paths:
        slices = read_slices(path, sha256=sha256.get(path.name, ""))
        known += len(slices) - 1
        for index, parsed in enumerate(slices):
            form = pixel_format_of(parsed)
            if index == 0:
                _refuse_too_large(known, form)
            yield path, parsed, form, known


def _decoding_ahead(paths: Sequence[Path], sha256: Mapping[str, str]) -> Iterator[_Parsed]:
    """Each slice parsed and being decoded: a child decodes while this process does the rest."""
    waiting: deque[_Parsed] = deque()
    beside = ThreadPoolExecutor(CHILDREN)  # it starts no thread before it has something to do
    try:
        for path, parsed, form, known in _parsed_slices(paths, sha256):
            plain = form.transfer_syntax_uid in UNCOMPRESSED
            decode = partial(decode_slice, parsed, form) if plain else beside.submit(decode_slice, parsed, form).result
            waiting.append(_Parsed(path, parsed, form, known, decode))
            if len(waiting) > CHILDREN:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        beside.shutdown(cancel_futures=True)


def _refuse_slow(waited_s: float, done: int, total: int) -> None:
    limit_s = DECODING_S + DECODING_S_PER_SLICE * total
    if waited_s > limit_s:
        which = f"{done} of {total} slices took more than {limit_s:.0f} s to be decoded"
        raise DecoderStopped(f"{which}, which is too much for the whole series", "budget")


def _refuse_too_large(count: int, form: PixelFormat) -> None:
    rows, columns = form.rows or 0, form.columns or 0
    if count * rows * columns > MAX_VOXELS or rows * columns > MAX_SLICE_PIXELS:
        raise UnusableSeries(f"{count} slices of {rows} x {columns} pixels are more than this node processes")


def _lattice(headers: Sequence[SliceHeader], position_tolerance_mm: float) -> tuple[tuple[int, ...], float]:
    if not headers:
        raise UnusableSeries("there are no images")
    if len({(header.study_uid, header.series_uid, header.frame_of_reference_uid) for header in headers}) > 1:
        raise UnusableSeries("the images belong to more than one series or frame of reference")
    planes = [plane for header in headers if (plane := plane_of(header)) is not None]
    if len(planes) != len(headers):
        raise UnusableSeries("an image has no position, orientation or pixel spacing")
    stack = describe_stack(planes, position_tolerance_mm)
    if isinstance(stack, Flaw):
        raise UnusableSeries(f"the slices form no regular stack: {stack.reason}")
    spacing_mm = stack.spacing_mm or headers[0].slice_thickness_mm or 1.0
    return stack.order, spacing_mm


def _check_formats(headers: Sequence[SliceHeader]) -> None:
    """One container for all; BitsStored is each slice's own, as some scanners follow the maximum of a slice with it."""
    containers = {(h.bits_allocated, h.pixel_representation) for h in headers}
    if len(containers) > 1 or not containers <= {(16, 0), (16, 1)} or any(h.high_bit != _top_bit(h) for h in headers):
        raise UnusableSeries("the images mix pixel formats, or are not of 16 bits with the high bit on top")
    if any(not h.rescale_slope or h.rescale_slope < 0 or h.rescale_intercept is None for h in headers):
        raise UnusableSeries("an image has no usable rescale slope and intercept, so its values are not HU")


def _top_bit(header: SliceHeader) -> int:
    return (header.bits_stored or 0) - 1


def stored_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """Lowest and highest value that so many bits hold."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _padding_mask(stored: StoredPixels, slices: Sequence[SourceSlice]) -> NDArray[np.bool_] | None:
    mask = np.zeros(stored.shape, dtype=np.bool_)
    for z, source in enumerate(slices):
        outside = source.padding or _undeclared_padding(stored[z], source.header)
        if outside is not None:
            low, high = outside
            mask[z] = _touching_border((stored[z] >= low) & (stored[z] <= high))
    return mask if mask.any() else None


def _undeclared_padding(stored: StoredPixels, header: SliceHeader) -> tuple[int, int] | None:
    """The one value of all four corners where it is not that of air: some writers fill what lies outside the field of
    view with 0 and declare nothing. What was measured differs from pixel to pixel.
    """
    corner = int(stored[0, 0])
    near, far = slice(_CORNER_PX), slice(-_CORNER_PX, None)
    if min(stored.shape) < _SMALLEST_PX or any(
        (stored[rows, columns] != corner).any() for rows in (near, far) for columns in (near, far)
    ):
        return None
    hu = corner * float(header.rescale_slope or 1.0) + float(header.rescale_intercept or 0.0)
    return None if hu < _LIKE_AIR_HU else (corner, corner)


def _touching_border(candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The regions that reach the border of the image; neighbours share an edge, as noise often touches at a corner.

    Padding lies outside a convex field of view, so each region of it reaches the border.
    """
    border = (candidates[0], candidates[-1], candidates[:, 0], candidates[:, -1])
    if not any(edge.any() for edge in border):
        return np.zeros_like(candidates)
    regions, count = scipy.ndimage.label(candidates)
    reaching = np.zeros(count + 1, dtype=np.bool_)
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        reaching[edge] = True
    reaching[0] = False
    return np.asarray(reaching[regions])


def padding_range(ds: Dataset, header: SliceHeader) -> tuple[int, int] | None:
    """Lowest and highest stored value that mean padding (PS3.3 C.7.5.1.1.2), None where the slice has none.

    The two bytes are read by PixelRepresentation whatever VR the sender chose: a signed value sent as US is common.
    """
    vr = "SS" if header.pixel_representation == 1 else "US"
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        raw = element_bytes(ds, tag_of(keyword)) or b""
        ends += [int(number) for number in unpack_numbers(raw, vr)[:1]]
    return (min(ends), max(ends)) if ends else None

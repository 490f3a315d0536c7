"""The images of a case, one pair of slices at a time: what was received, and what was made of it.

Every file that is shown has the SHA-256 that the store knows of it, so that a person sees what would be sent.
Compressed pixels are decoded in the processes of `node.dicom.sandbox`, never here, and parsing is bounded as in the
receiver.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from node.bootstrap.store import Node
from node.dicom.constants import MULTI_FRAME_CT_CLASSES
from node.dicom.frames import SlicesOfFile
from node.dicom.geometry import positions_along_normal, slice_normal
from node.dicom.headers import header_of, read_slices
from node.dicom.pixels import MAX_SLICE_PIXELS, decode_slice, pixel_format_of
from node.dicom.volume import plane_of
from node.errors import DamagedInstance, NodeError, UnreadableInstance
from node.web.memory import Memory
from node.web.tiles import Hu
from storage.cases import Case
from storage.errors import ObjectsUnavailable
from storage.spool import Wanted

CACHE_BYTES: Final = 128 << 20  # 64 pairs of 512 x 512 pixels
AT_ONCE: Final = 2  # pictures that are made at the same time; one of 4096 x 4096 pixels takes some 300 MB meanwhile
TURN_WITHIN_S: Final = 20.0
WAITING: Final = 15  # for a turn to draw, and as many again for a survey; the page has 40 threads for everything
MAX_FILE_BYTES: Final = 64 << 20  # twice what 4096 x 4096 pixels take
MAX_MULTI_FRAME_BYTES: Final = 256 << 20  # 500 frames of 512 x 512 pixels; one such file stays in memory
_REMEMBERED: Final = 64  # cases of which the order and the figures are kept


class NotShown(NodeError):
    """These images cannot be shown; the message says why, to a person. status: as HTTP has it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class SliceFile:
    """One file of the spool: its name there, and the SHA-256 that it had when it was kept, hex.

    frame: which of a multi-frame object, from 1.
    """

    name: str
    sha256: str
    frame: int | None = None


@dataclass(frozen=True, slots=True)
class SlicePair:
    """One slice of the source and what was made of it; None where there is none of it."""

    source: SliceFile | None
    synthetic: SliceFile | None


@dataclass(frozen=True, slots=True)
class ImageStack:
    """The pairs of a case, from the feet to the head. remark: what a person must know of them, or ""."""

    pairs: tuple[SlicePair, ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class SliceImage:
    """One slice: hu is float32 [H, W]; spacing_mm: (row, column); None where the header has no geometry.

    z_mm: of the first pixel, in the patient's coordinates. orientation: row and column cosines.
    """

    hu: Hu
    spacing_mm: tuple[float, float] | None
    z_mm: float | None
    orientation: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """What is measured in one pair; None where it cannot be, and then `why` says it.

    mean_hu, max_hu: of the absolute difference over all pixels. darkened: the number of pixels that became darker by
    more than the limit that was asked for.
    """

    z_mm: float | None
    mean_hu: float | None
    max_hu: float | None
    darkened: int
    why: str = ""


class Images:
    """Reads slices from one spool and keeps those seen last in memory, at most `max_bytes` for all who look.

    `fetch` brings files to this host, see `Spool.fetch`. `turn` bounds what is read and drawn at the same time; whoever
    calls `slice` or `difference` holds one.
    """

    def __init__(
        self,
        path_of: Callable[[str], Path],
        max_bytes: int = CACHE_BYTES,
        fetch: Callable[[Sequence[Wanted]], None] = lambda _files: None,
    ) -> None:
        self._path_of, self._max_bytes, self._fetch = path_of, max_bytes, fetch
        self._turns = _Turns(AT_ONCE)
        self._surveying = _Turns(1)
        self._lock = threading.Lock()
        self._kept: OrderedDict[SliceFile, SliceImage] = OrderedDict()
        self._kept_bytes = 0
        self._orders: Memory[tuple[int, ...]] = Memory(_REMEMBERED)
        self._frames: Memory[tuple[SliceFile, ...]] = Memory(_REMEMBERED)
        self._open: tuple[SliceFile, SlicesOfFile] | None = None
        self._opening = threading.Lock()
        self._figures: Memory[tuple[SliceFigures, ...]] = Memory(_REMEMBERED)

    @property
    def kept_bytes(self) -> int:
        """What the kept slices take."""
        return self._kept_bytes

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until few enough others read or draw; raises NotShown after `TURN_WITHIN_S`, and where many wait."""
        with self._turns.turn():
            yield

    def stack(self, node: Node, case: Case) -> ImageStack:
        """Which files belong to a case, in order; raises NotShown."""
        received = node.series.sources(case.series_id)
        sources = {one.sop_instance_uid: SliceFile(one.spool_name, one.sha256) for one in received}
        is_multi_frame = any(one.sop_class_uid in MULTI_FRAME_CT_CLASSES for one in received)
        if case.product_dir is None:
            return self._sources_alone(case, list(sources.values()), is_multi_frame)
        if case.purged_at is not None:
            raise NotShown("The files of this result were removed from the disk.", 410)
        made = node.overview.products(case)
        remark = _why_without_source(case)
        pairs = [
            SlicePair(
                None if remark else sources.get(one.source_sop_instance_uid),
                SliceFile(f"{case.product_dir}/{one.file_name}", one.sha256),
            )
            for one in made  # a job writes them in ascending order along the slice normal
        ]
        if not pairs:
            raise NotShown("This result has no files.", 404)
        if is_multi_frame and not remark:
            pairs, remark = self._with_frames(pairs, tuple(sources.values()))
        if not remark and any(pair.source is None for pair in pairs):
            remark = "Some received files of this series are lost, so parts of the source are not shown."
        order = self._orders.get(pairs[0].synthetic, lambda: self._upwards(pairs))
        return ImageStack(tuple(pairs[index] for index in order), remark)

    def _upwards(self, pairs: Sequence[SlicePair]) -> tuple[int, ...]:
        order = tuple(range(len(pairs)))
        for pair in pairs:
            with self.turn(), suppress(NotShown):  # of a damaged file; the next one says it as well
                orientation = self.slice(synthetic_of(pair)).orientation
                return order[::-1] if orientation is not None and _points_down(orientation) else order
        return order

    def _with_frames(self, pairs: list[SlicePair], files: tuple[SliceFile, ...]) -> tuple[list[SlicePair], str]:
        """Each result with the frame that lies where it lies: both are in ascending order along the slice normal."""
        try:
            frames = self._frames.get(files, lambda: self._frames_of(files))
        except (NotShown, UnreadableInstance) as error:
            alone = [SlicePair(None, pair.synthetic) for pair in pairs]
            return alone, f"The source is not shown: {error}."
        if len(frames) != len(pairs):
            return [SlicePair(None, pair.synthetic) for pair in pairs], "Parts of the source are lost; it is not shown."
        return [SlicePair(frame, pair.synthetic) for frame, pair in zip(frames, pairs, strict=True)], ""

    def _frames_of(self, files: Sequence[SliceFile]) -> tuple[SliceFile, ...]:
        """Every frame of multi-frame objects, along the slice normal; in their own order where they have no geometry.

        Raises UnreadableInstance or NotShown.
        """
        found, planes = [], []
        with self.turn():
            for file in files:
                path, slices = self._parsed(SliceFile(file.name, file.sha256, 1))
                for number, parsed in enumerate(slices, 1):
                    found.append(SliceFile(file.name, file.sha256, number))
                    planes.append(plane_of(header_of(path, parsed, pixel_format_of(parsed), None)))
        known = [plane for plane in planes if plane is not None]
        with suppress(ValueError):
            if known and len(known) == len(planes):
                order = np.argsort(positions_along_normal(known), kind="stable")
                return tuple(found[int(index)] for index in order)
        return tuple(found)

    def _sources_alone(self, case: Case, files: list[SliceFile], is_multi_frame: bool) -> ImageStack:
        if case.received_purged_at is not None:
            raise NotShown("The received files of this series were removed from the disk.", 410)
        if not files:
            raise NotShown("No image of this series is in the spool.", 404)
        if is_multi_frame:
            whole = tuple(files)
            try:
                files = list(self._frames.get(whole, lambda: self._frames_of(whole)))
            except UnreadableInstance as error:
                raise NotShown(f"The source is not shown: {error}.", 409) from error
        order = self._orders.get(tuple(files), lambda: self._order_of(files))
        pairs = tuple(SlicePair(files[index], None) for index in order)
        return ImageStack(pairs, "Nothing was made of this series yet: only its source is shown.")

    def _order_of(self, files: Sequence[SliceFile]) -> tuple[int, ...]:
        """From the feet to the head; as they came where their geometry does not say it."""
        planes = []
        for file in files:
            try:
                with self.turn():
                    path, slices = self._parsed(file)
                    parsed = slices[(file.frame or 1) - 1]
                    planes.append(plane_of(header_of(path, parsed, pixel_format_of(parsed), None)))
            except UnreadableInstance:
                planes.append(None)
        known = [plane for plane in planes if plane is not None]
        try:
            if len(known) < len(planes):
                return tuple(range(len(files)))
            along = positions_along_normal(known)
        except ValueError:
            return tuple(range(len(files)))
        order = tuple(int(index) for index in np.argsort(along, kind="stable"))
        return order[::-1] if _points_down(known[0].orientation) else order

    def slice(self, file: SliceFile) -> SliceImage:
        """One slice, from memory or from the spool; raises NotShown."""
        with self._lock:
            if file in self._kept:
                self._kept.move_to_end(file)
                return self._kept[file]
        image = self._read(file)
        with self._lock:
            if file not in self._kept and image.hu.nbytes <= self._max_bytes:
                self._kept[file] = image
                self._kept_bytes += image.hu.nbytes
            while self._kept_bytes > self._max_bytes:
                self._kept_bytes -= self._kept.popitem(last=False)[1].hu.nbytes
        return image

    def _parsed(self, file: SliceFile) -> tuple[Path, SlicesOfFile]:
        """The slices of a file; those of a multi-frame one are kept until another such file is looked at."""
        self._fetch([(file.name, file.sha256, None)])
        path, limit = self._path_of(file.name), MAX_MULTI_FRAME_BYTES if file.frame else MAX_FILE_BYTES
        with suppress(OSError):  # `read_slices` says why
            if path.stat().st_size > limit:
                raise UnreadableInstance(f"its file is larger than {limit >> 20} MiB")
        if file.frame is None:
            return path, read_slices(path, sha256=file.sha256)
        whole = SliceFile(file.name, file.sha256)
        with self._opening:
            if self._open is None or self._open[0] != whole:
                self._open = None  # its memory first
                self._open = whole, read_slices(path, sha256=file.sha256)
            return path, self._open[1]

    def _read(self, file: SliceFile) -> SliceImage:
        try:
            path, slices = self._parsed(file)
            parsed = slices[(file.frame or 1) - 1]
            form = pixel_format_of(parsed)
            decoded = decode_slice(parsed, form)
            header = header_of(path, parsed, form, decoded.sound)
        except ObjectsUnavailable as error:
            raise NotShown(f"This image is not shown now: {error}.", 503) from error
        except DamagedInstance as error:
            gone = not self._path_of(file.name).exists()
            words = "is no longer on the disk" if gone else "was damaged on the disk"
            raise NotShown(f"This image is not shown: its file {words}.", 410 if gone else 409) from error
        except UnreadableInstance as error:
            raise NotShown(f"This image is not shown: {error}.", 409) from error
        if decoded.sound is None or not header.rescale_slope or header.rescale_intercept is None:
            raise NotShown("This image is not shown: its pixels and its header do not give HU.", 409)
        hu = decoded.sound.astype(np.float32)
        hu *= np.float32(header.rescale_slope)
        hu += np.float32(header.rescale_intercept)
        hu.setflags(write=False)
        position, spacing = header.image_position_mm, header.pixel_spacing_mm
        square = spacing if spacing and _can_be_square(spacing, hu.size) else None
        return SliceImage(hu, square, position[2] if position else None, header.image_orientation)

    def difference(self, pair: SlicePair) -> tuple[Hu, SliceImage]:
        """Synthetic minus source in HU, and the source's slice; raises NotShown."""
        source, synthetic = self.slice(source_of(pair)), self.slice(synthetic_of(pair))
        if source.hu.shape != synthetic.hu.shape:
            raise NotShown("The difference is not shown: source and result have other sizes.", 409)
        return synthetic.hu - source.hu, source

    def survey(self, stack: ImageStack, darkened_hu: float) -> tuple[SliceFigures, ...]:
        """The figures of every pair; measured once for each stack, one stack at a time, a pair of 512 x 512 in 15 ms.

        darkened_hu: below which difference a pixel counts as darkened. Raises NotShown where others are measured for
        longer than `TURN_WITHIN_S`.
        """
        with self._surveying.turn():
            return self._figures.get(
                stack,
                lambda: tuple(self._measured(pair, darkened_hu) for pair in stack.pairs),
                lasts=lambda figures: not any(one.why for one in figures),  # a lost file may come again
            )

    def _measured(self, pair: SlicePair, darkened_hu: float) -> SliceFigures:
        z_mm = None
        try:
            with self.turn():
                z_mm = self.slice(pair.synthetic or source_of(pair)).z_mm
                if pair.synthetic is None or pair.source is None:
                    return SliceFigures(z_mm, None, None, 0)
                change_hu, _ = self.difference(pair)
                size_hu = np.abs(change_hu)
                darkened = int(np.count_nonzero(change_hu < darkened_hu))
                return SliceFigures(z_mm, float(size_hu.mean(dtype=np.float64)), float(size_hu.max()), darkened)
        except NotShown as error:
            return SliceFigures(z_mm, None, None, 0, str(error))


class _Turns:
    """A request that waits keeps a thread of the page from all others, so few wait, and none for ever."""

    def __init__(self, at_once: int) -> None:
        self._turns = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(at_once + WAITING)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Raises NotShown after `TURN_WITHIN_S`, or at once where too many wait."""
        if not self._places.acquire(blocking=False):
            raise NotShown(_BUSY, 503)
        try:
            if not self._turns.acquire(timeout=TURN_WITHIN_S):
                raise NotShown(_BUSY, 503)
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._places.release()


_BUSY: Final = "The node draws images for others at the moment. Try again in a minute."
_WIDEST: Final = 10.0  # between the sides of a pixel


def _can_be_square(spacing_mm: tuple[float, float], pixels: int) -> bool:
    """Whether a picture in the proportions of the patient is no larger than that of the largest slice there is."""
    ratio = max(spacing_mm) / min(spacing_mm) if min(spacing_mm) > 0 else float("inf")
    return ratio <= _WIDEST and pixels * ratio <= MAX_SLICE_PIXELS


def source_of(pair: SlicePair) -> SliceFile:
    """The received file of a pair; raises NotShown."""
    if pair.source is None:
        raise NotShown("The received file of this slice is not there to be shown.", 404)
    return pair.source


def synthetic_of(pair: SlicePair) -> SliceFile:
    """The derived file of a pair; raises NotShown."""
    if pair.synthetic is None:
        raise NotShown("Nothing was made of this slice yet.", 404)
    return pair.synthetic


def _why_without_source(case: Case) -> str:
    if case.received_purged_at is not None:
        return "The received files of this series were removed from the disk: only the result is shown."
    if not case.is_present:
        return (
            "The series was received anew after this result was made: its source now may be another one, and is not "
            "shown."
        )
    return ""


def _points_down(orientation: Sequence[float]) -> bool:
    """Whether the slice normal points to the feet, or for other than transverse slices to the front or the right."""
    normal = slice_normal(orientation)
    return bool(normal[int(np.abs(normal).argmax())] < 0)

"""Builds small synthetic CT series for tests; every oddity is a keyword of `make_series`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.bundle import Envelope
from models.translator import Progress
from node.dicom.elements import put, raw_element, tag_of, vr_of
from node.dicom.synthetic_scan import ScanIdentity, decimal_string, write_scan
from node.dicom.uids import UidFactory

if TYPE_CHECKING:
    from models import BundleCard  # imported only for the checker: it would load torch

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
WIDE = Envelope(pixel_spacing_mm=(0.1, 10.0), slice_spacing_mm=(0.1, 20.0))


def body_hu(
    slices: int = 10, rows: int = 32, columns: int = 32, *, soft_tissue_hu: float = 40.0
) -> NDArray[np.float32]:
    """A round body of soft tissue with noise, a bone and a lung, in air: float32 HU [z, y, x]."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    plane = np.full((rows, columns), -1000.0)
    plane[x**2 + y**2 < 0.8] = soft_tissue_hu
    plane[(x + 0.4) ** 2 + y**2 < 0.05] = -850.0
    plane[x**2 + (y - 0.5) ** 2 < 0.03] = 700.0
    hu = np.repeat(plane[None], slices, axis=0)
    hu[hu == soft_tissue_hu] += rng.normal(0, 8, int((hu == soft_tissue_hu).sum()))
    return hu.astype(np.float32)


def make_series(
    folder: Path,
    *,
    hu: NDArray[np.float32] | None = None,
    slices: int = 10,
    rows: int = 32,
    columns: int = 32,
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
    orientation: tuple[float, ...] = AXIAL,
    missing: Iterable[int] = (),
    only: Iterable[int] | None = None,
    repeated: Iterable[int] = (),
    shifted_mm: Mapping[int, float] | None = None,
    tilt_deg: float = 0.0,
    attributes: Mapping[str, str] | None = None,
    absent: Iterable[str] = (),
    raw: Mapping[str, bytes] | None = None,
    seed: str = "builder",
    patient_id: str = "TEST-1",
    patient_name: str = "Test^Person",
    edit: Callable[[Dataset, int], None] | None = None,
) -> list[Path]:
    """Write a series into `folder` (made if missing) and return its files.

    missing: slices that are not written; only: those that are. repeated: slices that are written a second time, as
    other instances of the series. shifted_mm: slice -> displacement along z. tilt_deg: the gantry's tilt, as a scanner
    writes it (tilted planes, table along z). attributes, absent: values set or elements removed on every slice; raw:
    values as bytes, unchecked. edit(dataset, z) runs last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    volume = body_hu(slices, rows, columns) if hu is None else hu
    if tilt_deg:
        angle = np.radians(tilt_deg)
        orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))

    def customise(ds: Dataset, z: int) -> None:
        shift = (shifted_mm or {}).get(z, 0.0)
        if tilt_deg or shift:
            origin = (-(columns - 1) / 2 * spacing_mm[2], -(rows - 1) / 2 * spacing_mm[1], z * spacing_mm[0] + shift)
            put(ds, "ImagePositionPatient", *(decimal_string(value) for value in origin))
        for keyword, value in (attributes or {}).items():
            put(ds, keyword, *value.split("\\"))
        for keyword, unchecked in (raw or {}).items():
            put_raw(ds, keyword, unchecked)
        for keyword in absent:
            if tag_of(keyword) in ds:
                del ds[tag_of(keyword)]
        if edit:
            edit(ds, z)

    written = sorted(set(range(len(volume)) if only is None else only) - set(missing))
    write: dict[str, Any] = {"spacing_mm": spacing_mm, "orientation": orientation, "customise": customise}
    identity = ScanIdentity(patient_id=patient_id, patient_name=patient_name, seed=seed)
    paths = write_scan(volume, out_dir=folder, identity=identity, only=written, **write)
    if again := sorted(repeated):
        copies = replace(
            identity,
            seed=f"{seed}, again",
            study_seed=seed,
            attributes={"SeriesInstanceUID": UidFactory().make("scan series", seed)},
        )
        (folder / "again").mkdir()
        paths += write_scan(volume, out_dir=folder / "again", identity=copies, only=again, **write)
    return paths


def put_raw(ds: Dataset, keyword: str, value: bytes) -> None:
    """Set an element to these bytes, whatever they are."""
    tag = tag_of(keyword)
    ds[tag] = raw_element(tag, vr_of(tag), value)


class SureTranslator(ABC):
    """A stand-in for a bundle that sees the same when it looks again."""

    @abstractmethod
    def translate(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Fulfils `models.Translator`."""

    def second_look(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Fulfils `models.Translator`."""
        return self.translate(hu, seed, spacing_mm=spacing_mm, progress=progress)


@dataclass
class FakeTranslator(SureTranslator):
    """A translator without torch: adds `shift_hu` to everything inside the window."""

    shift_hu: float = 60.0
    device: str = "cpu"
    precision: str = "fp32"
    description: str = "fake on cpu"
    arithmetic: str = "fake arithmetic"
    digest: str = "d" * 64
    metrics: tuple[Mapping[str, object], ...] = ()
    hu_window: tuple[float, float] = (-40.0, 400.0)
    envelope: Envelope = WIDE
    seed: int | None = None
    level_hu: float | None = None
    spacing_mm: float | None = None
    contradicted_hu: float = 0.0

    @property
    def card(self) -> "BundleCard":
        """Itself: a job reads only the few entries of a card that stand below."""
        return cast("BundleCard", self)

    name = "fake"
    version = "1"
    method = "syndiff"
    matrix = 256
    weights_sha256 = "e" * 64

    def translate(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Shift the clipped source; remembers the seed and the distance of the slices."""
        self.seed, self.spacing_mm = seed, spacing_mm
        low, high = self.hu_window
        if progress:
            progress(len(hu), len(hu))
        return np.clip(np.clip(hu, low, high) + np.float32(self.shift_hu), low, high).astype(np.float32)

    def second_look(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """The same again, but for `contradicted_hu` in the middle third of every slice."""
        second = super().second_look(hu, seed, spacing_mm=spacing_mm, progress=progress)
        rows, columns = hu.shape[1:]
        second[:, rows // 3 : 2 * rows // 3, columns // 3 : 2 * columns // 3] -= np.float32(self.contradicted_hu)
        return second

"""The search for the transform between two scans of one patient, with SimpleITK.

Transforms map a place in the fixed scan to the place in the moving scan that shows the same.
"""

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.alignment.quality import body_mask, dilated

Volume = NDArray[np.float32]
Place = tuple[float, float, float]

_WORKING_MM = 2.5
_RIGID_LEVELS_MM = (10.0, 5.0, _WORKING_MM)
_FEWEST = (8, 24, 24)  # voxels (z, y, x) that shrinking leaves

# Air and lung look alike below the window, all cortical bone above: noise and metal there say nothing about position.
_WINDOW_HU = (-800.0, 500.0)
_BINS = 50
# The skin is an edge only if some air is looked at beside it.
_RIM_MM = 10.0
_SEED = 20_260_101
# A bend costs time by samples times nodes; twice the samples and steps bring it 4 % nearer for three times the time.
_RIGID_SAMPLES, _RIGID_STEPS = 100_000, 100
_BEND_SAMPLES, _BEND_STEPS, _BEND_MM, _MESH_MM = 15_000, 15, 5.0, 40.0


class AlignmentError(Exception):
    """Two scans cannot be registered: one shows no body or too little, or nothing they share can be found."""


@dataclass(frozen=True)
class Grid:
    """An axial lattice: centre of the first voxel (x, y, z) in mm, spacing (z, y, x) in mm, axes along the patient's.

    Positions are DICOM's (LPS: x to the left, y to the back, z to the head).
    """

    origin_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Scan:
    """A scan as SimpleITK image; `work` is a copy of about 2.5 mm, `hu` and `body` its values and body [z, y, x]."""

    full: Any
    work: Any
    hu: Volume
    body: NDArray[np.bool_]

    @classmethod
    def of(cls, hu: Volume, grid: Grid, which: str) -> "Scan":
        """Prepare HU [z, y, x]; `which` scan it is stands in the AlignmentError where it shows no body."""
        sitk = simpleitk()
        full = sitk.GetImageFromArray(np.ascontiguousarray(hu, dtype=np.float32))
        full.SetOrigin(grid.origin_mm)
        full.SetSpacing(grid.spacing_mm[::-1])
        work = _shrunk(full, _WORKING_MM)
        small = sitk.GetArrayFromImage(work)
        body = body_mask(small, work.GetSpacing()[::-1])
        if not body.any():
            raise AlignmentError(f"the {which} scan shows no body")
        return cls(full, work, small, body)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the working copy (z, y, x)."""
        x, y, z = self.work.GetSpacing()
        return z, y, x

    @property
    def centre_mm(self) -> Place:
        """Middle (x, y, z) of the body."""
        z, y, x = np.argwhere(self.body).mean(axis=0).tolist()
        place: Place = self.work.TransformContinuousIndexToPhysicalPoint((x, y, z))
        return place

    def like_work(self, values: NDArray[Any]) -> Any:
        """An image of these values [z, y, x] on the grid of the working copy."""
        image = simpleitk().GetImageFromArray(values)
        image.CopyInformation(self.work)
        return image

    def patient(self) -> Any:
        """The working copy in the window, with nothing but air around the body."""
        low, high = _WINDOW_HU
        return self.like_work(np.where(self.body, np.clip(self.hu, low, high), low).astype(np.float32))

    def region(self) -> Any:
        """Mask image of what is looked at: the body and a rim of air."""
        return self.like_work(dilated(self.body, _RIM_MM, self.spacing_mm).astype(np.uint8))


def simpleitk() -> Any:
    """SimpleITK, which a machine that only trains and translates need not have; untyped, hence Any."""
    return importlib.import_module("SimpleITK")


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep SimpleITK to one thread: the sums of its metric depend on how many there are, and on which ends first.

    A setting of the whole process, put back at the end; a limit on the registration alone does not reach the metric.
    """
    process = simpleitk().ProcessObject
    threads = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        process.SetGlobalDefaultNumberOfThreads(threads)


def identity_about(still: Scan) -> Any:
    """The identity, as a rigid transform that turns about the body's middle."""
    transform = simpleitk().Euler3DTransform()
    transform.SetCenter(still.centre_mm)
    return transform


def find_rigid(still: Scan, mobile: Scan, identity: Any) -> Any:
    """The rigid transform of the best mutual information."""
    sitk = simpleitk()
    body_on_body = sitk.Euler3DTransform(identity)
    body_on_body.SetTranslation([m - f for m, f in zip(mobile.centre_mm, still.centre_mm, strict=True)])
    images = still.patient(), mobile.patient(), still.region()
    coarse, *finer = _RIGID_LEVELS_MM
    found = [outcome for start in (identity, body_on_body) if (outcome := _descend(*images, start, coarse))]
    for level_mm in finer:
        if not found:
            break
        _, transform = min(found, key=lambda outcome: outcome[0])
        found = [outcome] if (outcome := _descend(*images, transform, level_mm)) else []
    if not found:
        raise AlignmentError("the scans share nothing that could be registered")
    return found[0][1]


def _descend(still: Any, mobile: Any, region: Any, start: Any, voxel_mm: float) -> tuple[float, Any] | None:
    """(negative mutual information, rigid transform) at one resolution; None where the scans have no common ground."""
    transform = simpleitk().Euler3DTransform(start)
    still, mobile = _shrunk(still, voxel_mm), _shrunk(mobile, voxel_mm)
    method = _method(still, region, _RIGID_SAMPLES)
    # Of the step 0.8 stays when the direction turns: with the usual half it ends up to 0.4 degrees early.
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=voxel_mm / 2,
        minStep=0.01,
        numberOfIterations=_RIGID_STEPS,
        relaxationFactor=0.8,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(still, mobile)
    except RuntimeError:  # all that SimpleITK raises, here where no sample lies inside the moving scan
        return None
    value = method.GetMetricValue()
    return (value, transform) if math.isfinite(value) else None


def find_bend(still: Scan, mobile: Scan, rigid: Any) -> Any:
    """A B-spline before the rigid transform, over the box around the body."""
    sitk = simpleitk()
    patient = still.patient()
    bend = sitk.BSplineTransformInitializer(*_mesh(still, patient))
    small, other = _shrunk(patient, _BEND_MM), _shrunk(mobile.patient(), _BEND_MM)
    method = _method(small, still.region(), _BEND_SAMPLES)
    method.SetOptimizerAsLBFGSB(numberOfIterations=_BEND_STEPS, maximumNumberOfFunctionEvaluations=_BEND_STEPS + 10)
    method.SetMovingInitialTransform(rigid)
    method.SetInitialTransform(bend, inPlace=True)
    try:
        method.Execute(small, other)
    except RuntimeError as error:
        raise AlignmentError("the deformable registration found no common ground") from error
    if not math.isfinite(method.GetMetricValue()):
        raise AlignmentError("the deformable registration did not end at a finite figure")
    return sitk.CompositeTransform([rigid, bend])


def _mesh(still: Scan, patient: Any) -> tuple[Any, list[int]]:
    """The box around the body with half a cell of margin in plane, and its cells (x, y, z)."""
    places = np.argwhere(still.body)
    margin = [0, *(math.ceil(_MESH_MM / 2 / step) for step in still.spacing_mm[1:])]
    first = np.maximum(places.min(axis=0) - margin, 0).tolist()
    last = np.minimum(places.max(axis=0) + 1 + margin, still.body.shape).tolist()
    box = patient[tuple(slice(a, b) for a, b in zip(first[::-1], last[::-1], strict=True))]
    sides = zip(box.GetSize(), box.GetSpacing(), strict=True)
    return box, [max(1, round(length * step / _MESH_MM)) for length, step in sides]


def _method(still: Any, region: Any, samples: int) -> Any:
    """Mattes mutual information in the region, with a fixed seed so that the result is always the same."""
    method = simpleitk().ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(region)
    method.SetInterpolator(simpleitk().sitkLinear)
    share = samples / math.prod(still.GetSize())
    if share < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(share, _SEED)
    return method


def resampled(moving: Any, onto: Any, transform: Any) -> Volume:
    """The moving image on the grid of another, [z, y, x]; not a number outside it."""
    sitk = simpleitk()
    image = sitk.Resample(moving, onto, transform, sitk.sitkBSpline, math.nan, sitk.sitkFloat32)
    values: Volume = sitk.GetArrayFromImage(image)
    return values


def _shrunk(image: Any, voxel_mm: float) -> Any:
    """The image averaged over blocks, to voxels of about this size or as they are where they are larger."""
    sides = zip(image.GetSize(), image.GetSpacing(), _FEWEST[::-1], strict=True)
    factors = [max(1, min(round(voxel_mm / step), length // fewest)) for length, step, fewest in sides]
    return simpleitk().BinShrink(image, factors)

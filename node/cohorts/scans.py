"""What lies in a folder of DICOM files: which series, whose, and which of them are native or enhanced scans.

Tags lie, so a series is what its pixels show: headers only say whether it is a scan at all.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from models.alignment import Grid
from node.cohorts.metal import Metal, find_metal
from node.dicom.headers import PatientIdentity, SliceHeader, read_header, read_headers
from node.dicom.orientation import Turn
from node.dicom.volume import CTVolume, UnusableSeries, read_volume
from node.errors import UnreadableInstance
from node.receive.eligibility import Accept, EligibilityPolicy, Skip, judge
from node.receive.findings import is_virtual_native, names_agent
from node.translate.native_contrast import NativeContrast, find_native_contrast

Progress = Callable[[int, int], None]

_DRAWN: Final = frozenset({RTStructureSetStorage, SegmentationStorage})
_KEYWORDS: Final = ("DeviceSerialNumber", "InstitutionName", "KVP")


class Role(StrEnum):
    """What a scan is to a pair."""

    NATIVE = "native"
    CONTRAST = "contrast"
    AGENT_NOT_SEEN = "agent_named_but_not_seen"
    VIRTUAL = "virtual_native"


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """Files of one SeriesInstanceUID. patients: whose they say they are; sites: where they say they were taken.

    drawn: they are contours or segmentations of other images.
    """

    paths: tuple[Path, ...] = field(repr=False)
    patients: frozenset[PatientIdentity]
    sites: frozenset[str] = field(repr=False)
    drawn: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    """Series below a folder. unreadable: files that are no DICOM instance; copies: files that were there twice."""

    series: tuple[SeriesFiles, ...]
    files: int
    unreadable: int
    copies: int


@dataclass(frozen=True, slots=True)
class Unusable:
    """A series that is no scan of use. code: a stable name; reason: a clause without patient data."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """A transverse CT scan.

    site: institution or device. z_mm: positions of the slices, ascending. spacing_mm: (z, y, x). agent_named:
    ContrastBolusAgent is filled. virtual: calculated from a scan with contrast agent. facts: what scanner and protocol
    it was, plain JSON values.
    """

    paths: tuple[Path, ...] = field(repr=False)
    study_uid: str = field(repr=False)
    frame_uid: str = field(repr=False)
    site: str = field(repr=False)
    z_mm: tuple[float, ...]
    spacing_mm: tuple[float, float, float]
    agent_named: bool
    contrast: NativeContrast
    metal: Metal
    facts: dict[str, object]
    virtual: bool = False

    @property
    def role(self) -> Role:
        """Enhanced pixels make a contrast scan, whatever its header says; a named agent unmakes a native one."""
        if self.virtual:
            return Role.VIRTUAL
        if self.contrast.is_enhanced:
            return Role.CONTRAST
        return Role.AGENT_NOT_SEEN if self.agent_named else Role.NATIVE


def take_inventory(folder: Path, progress: Progress | None = None) -> Inventory:
    """Read the headers of all files below `folder`, whatever its layout; progress(done, total) counts files.

    Equal copies of an instance count once. Files that cannot be read are counted, never fatal.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    paths, patients, sites = defaultdict(list), defaultdict(set), defaultdict(set)
    classes: dict[str, set[str]] = defaultdict(set)
    seen: set[tuple[str, str]] = set()
    unreadable = copies = 0
    for done, path in enumerate(files, 1):
        if progress:
            progress(done, len(files))
        try:
            header = read_header(path, keywords=_KEYWORDS)  # of a multi-frame object the first frame stands for all
        except (UnreadableInstance, OSError):
            unreadable += 1
            continue
        instance = header.sop_instance_uid, header.content_sha256
        if instance in seen:
            copies += 1
            continue
        seen.add(instance)
        paths[header.series_uid].append(path)
        patients[header.series_uid].add(_plain_identity(header.patient))
        sites[header.series_uid].add(_site(header))
        classes[header.series_uid].add(header.sop_class_uid)
    series = (
        SeriesFiles(tuple(paths[u]), frozenset(patients[u]), frozenset(sites[u]), classes[u] <= _DRAWN)
        for u in sorted(paths)
    )
    return Inventory(tuple(series), len(files), unreadable, copies)


def read_scan(paths: Sequence[Path], *, vnc: bool = False) -> Scan | Unusable:
    """Judge one series by the gate's rules for scans, geometry included, then measure contrast and metal in its pixels.

    `vnc` takes virtual non-contrast images too, and the ordinary images of the
    spectral scans that they were calculated from.
    """
    try:
        headers = [header for path in paths for header in read_headers(path, keywords=_KEYWORDS)]
        # The gate asks for a native scan; here the pixels answer that.
        policy = EligibilityPolicy(takes_contrast=True)
        verdict = judge(headers, policy)
        virtual = vnc and all(is_virtual_native(header) for header in headers)
        # Rules about calculated images come before this one: what breaks no other of them is an ordinary image.
        if virtual or (vnc and isinstance(verdict, Skip) and verdict.code == "multi_energy"):
            verdict = judge(headers, replace(policy, takes_virtual=True))
        if not isinstance(verdict, Accept):
            return Unusable(verdict.code if isinstance(verdict, Skip) else "incomplete", verdict.reason)
        volume = read_volume(paths)
    except (UnreadableInstance, UnusableSeries) as error:
        return Unusable("unreadable", str(error))
    except OSError as error:
        return Unusable("unreadable", f"a file cannot be read ({error.strerror})")
    scan = _describe(volume, headers)
    if virtual and scan.contrast.is_enhanced:
        return Unusable("virtual_enhanced", "the virtual non-contrast images still show contrast agent")
    return replace(scan, virtual=True, facts=scan.facts | {"virtual": True}) if virtual else scan


def read_oriented(paths: Sequence[Path]) -> tuple[NDArray[np.float32], Grid]:
    """HU of a scan as float32 [z, y, x] with z to the head, y to the back, x to the left, and where it lies.

    Raises UnreadableInstance or UnusableSeries as read_volume does.
    """
    volume = read_volume(paths)
    turn = Turn.of(volume.orientation)
    hu, spacing_mm = turn.forth(volume.hu), turn.spacing_of(volume.spacing_mm)
    # The first pixel of a slice lies at the wrong end of each axis that runs backwards.
    origin = np.min([np.asarray(header.image_position_mm) for header in volume.headers], axis=0)
    origin[0] -= (hu.shape[2] - 1) * spacing_mm[2] if turn.flipped[2] else 0
    origin[1] -= (hu.shape[1] - 1) * spacing_mm[1] if turn.flipped[1] else 0
    grid = Grid(origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])), spacing_mm=spacing_mm)
    return hu, grid


def _describe(volume: CTVolume, headers: Sequence[SliceHeader]) -> Scan:
    """The scan of these pixels; `headers` are those of the volume, with the attributes of _KEYWORDS."""
    first = headers[0]
    agent_named = any(names_agent(header) for header in headers)
    contrast = find_native_contrast(volume)
    metal = find_metal(volume.hu, volume.spacing_mm)
    facts: dict[str, object] = {
        "manufacturer": first.manufacturer,
        "scanner": first.manufacturer_model_name,
        "kernel": first.convolution_kernel,
        "kvp": "\\".join(first.attribute("KVP")),
        "slice_thickness_mm": first.slice_thickness_mm,
        "slices": len(headers),
        "spacing_mm": [round(step, 5) for step in volume.spacing_mm],
        "agent_named": agent_named,
        "enhanced_ml": round(contrast.enhanced_ml, 1),
        "enhanced_mean_hu": round(contrast.mean_hu, 1),
        "metal_ml": round(metal.largest_ml, 2),
        "streaks_ml": round(metal.streaks_ml, 2),
    }
    return Scan(
        paths=tuple(dict.fromkeys(header.path for header in headers)),
        study_uid=first.study_uid,
        frame_uid=first.frame_of_reference_uid,
        site=_site(first),
        z_mm=tuple(sorted(h.image_position_mm[2] for h in headers if h.image_position_mm is not None)),
        spacing_mm=volume.spacing_mm,
        agent_named=agent_named,
        contrast=contrast,
        metal=metal,
        facts=facts,
    )


def _site(header: SliceHeader) -> str:
    """Where a scan was taken: the institution, or else the device; never printed. "" where nothing says so."""
    institution = plain_text(" ".join(header.attribute("InstitutionName")))
    device = (header.manufacturer, *header.attribute("DeviceSerialNumber"))
    return institution or plain_text(" ".join(device))


def plain_text(text: str) -> str:
    """Text as far as it matters for comparing names: without case and superfluous blanks."""
    return " ".join(text.casefold().split())


def _plain_identity(patient: PatientIdentity) -> PatientIdentity:
    """One person, however the name is spelled as to case and trailing carets, which mean nothing (PS3.5 6.2.1.1)."""
    return replace(patient, name=plain_text(patient.name.rstrip("^= ")))

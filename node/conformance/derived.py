"""The attributes of a derived CT image, learnt from two that are built: what is copied, what is fixed, what is made."""

import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.datadict import dictionary_description, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from node.dicom.content import COPIED, COPIED_BY_RULE, SCANNER_IDENTITY, Presence
from node.dicom.derived import build_slice
from node.dicom.derived_plan import DerivedSeriesPlan, EquipmentIdentity, ModelIdentity
from node.dicom.elements import tag_of
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.dicom.uids import UidFactory
from node.dicom.volume import read_volume

_HOW: Final = {
    Presence.REQUIRED: "always there: copied byte for byte",
    Presence.EMPTY_IF_ABSENT: "copied byte for byte, empty where the source has none",
    Presence.OPTIONAL: "copied where the source has a valid value, else left out",
}
_BY_RULE: Final = "from the source, by a rule of its own"
_MADE: Final = "made by the node"
_LONGEST_VALUE: Final = 128  # characters that are shown of a fixed one


@dataclass(frozen=True)
class AttributeRow:
    """One attribute of the derived image at its top level; source: where its value comes from, in words."""

    tag: str
    keyword: str
    name: str
    vr: str
    source: str


def derived_attributes() -> list[AttributeRow]:
    """Every attribute that a derived image can have, by tag."""
    first, second = _two_slices()
    copied = {tag_of(keyword): _HOW[presence] for keyword, presence in COPIED}
    ruled = {tag_of(keyword): _BY_RULE for keyword in COPIED_BY_RULE}
    made = {element.tag: _made(element, second) for element in first}
    return [_row(tag, source) for tag, source in sorted({**ruled, **made, **copied}.items())]


def scanner_attributes() -> list[str]:
    """What the item of the scanner in Contributing Equipment has of the source's own."""
    return [_name(tag_of(keyword)) for keyword in SCANNER_IDENTITY]


def _made(element: DataElement, other: Dataset) -> str:
    """The value where it is the same in every series, in words where it is not."""
    if element.tag in {tag_of(keyword) for keyword in COPIED_BY_RULE if keyword not in _OF_THE_SERIES}:
        return _BY_RULE
    if element.VR in ("SQ", "OW") or element.tag not in other or other[element.tag].value != element.value:
        return _MADE
    text = str(element.value if element.VM < 2 else "\\".join(map(str, element.value)))
    return f"`{text}`" if len(text) <= _LONGEST_VALUE else _MADE


_OF_THE_SERIES: Final = frozenset({"SeriesDescription", "SeriesNumber"})  # by the settings and the source's


def _row(tag: BaseTag, source: str) -> AttributeRow:
    shown = f"({tag.group:04X},{tag.element:04X})"
    return AttributeRow(shown, keyword_for_tag(tag), _name(tag), dictionary_VR(tag), source)


def _name(tag: int) -> str:
    return dictionary_description(Tag(tag))


def _two_slices() -> tuple[Dataset, Dataset]:
    """Derived slices of two synthetic scans that differ in whatever two series can differ in."""
    plan = DerivedSeriesPlan(
        series_uid="2.25.1",
        series_number=301,
        series_description="one",
        uids=UidFactory(),
        equipment=EquipmentIdentity("1", "1", "2.25.3"),
        model=ModelIdentity("one", "1", "one", "1" * 64, "cpu", "fp32", (-40.0, 400.0)),
        produced_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        slice_spacing_mm=3.0,
        site_timezone=UTC,
    )
    other = replace(
        plan,
        series_uid="2.25.2",
        series_number=401,
        series_description="two",
        equipment=EquipmentIdentity("2", "2", "2.25.4"),
        model=replace(plan.model, name="two", version="2", method="two", weights_sha256="2" * 64),
        produced_at=plan.produced_at + timedelta(days=1, hours=1, minutes=1, seconds=1),
    )
    return _slice(plan, "1"), _slice(other, "2")


def _slice(plan: DerivedSeriesPlan, seed: str) -> Dataset:
    hu = np.zeros((2, 32, 32), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        identity = ScanIdentity(seed, f"TEST^{seed}", seed)
        paths = write_scan(hu, (plan.slice_spacing_mm, 1.0, 1.0), Path(folder), identity)
        volume = read_volume(paths)
    return build_slice(plan, volume.slices[0], volume.stored[0])

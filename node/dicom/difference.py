"""What a file of ours says of its making, and what differs between two that should be the same; no patient's value."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from node.dicom.elements import ascii_text, tag_of
from node.dicom.headers import load_dataset
from node.dicom.quiet import quiet_pydicom
from node.dicom.volume import read_volume


@dataclass(frozen=True)
class FileDifference:
    """attributes: keywords, or tags where there is none. pixels: how many differ; max_abs_hu: by how much at most.

    max_abs_hu is infinite for images of another size or with another rescale.
    """

    attributes: tuple[str, ...]
    pixels: int = 0
    max_abs_hu: float = 0.0


def compare_files(first: Path, second: Path) -> FileDifference:
    """Compare two slices that this node wrote; raises what the reading of an image raises."""
    with quiet_pydicom():
        one, two = load_dataset(first), load_dataset(second)
    names = [_name(tag) for tag in sorted({*one.keys(), *two.keys()}) if _value(one, tag) != _value(two, tag)]
    if one.file_meta != two.file_meta:
        names.append("file meta information")
    if _value(one, tag_of("PixelData")) == _value(two, tag_of("PixelData")):
        return FileDifference(tuple(names))
    return FileDifference(tuple(names), *_compare_pixels(first, second))


def production_of(path: Path) -> tuple[datetime, str]:
    """When a derived file of ours was first produced, to the second, and by which version of this software.

    Raises ValueError where the file does not say so.
    """
    with quiet_pydicom():
        ds = load_dataset(path)
        items = ds.get("ContributingEquipmentSequence") or [Dataset()]
        moment = ascii_text(items[-1], "ContributionDateTime").strip()
    return datetime.strptime(moment, "%Y%m%d%H%M%S%z"), ascii_text(ds, "SoftwareVersions").strip()


def _compare_pixels(first: Path, second: Path) -> tuple[int, float]:
    one, two = (read_volume([path]).hu for path in (first, second))
    if one.shape != two.shape:
        return max(one.size, two.size), float("inf")
    difference = np.abs(one - two)
    return int(np.count_nonzero(difference)), float(difference.max(initial=0.0))


def _name(tag: Any) -> str:
    return keyword_for_tag(tag) or str(tag)


def _value(ds: Dataset, tag: Any) -> Any:
    if tag not in ds:
        return None
    element = ds.get_item(tag)
    return element.value if isinstance(element, RawDataElement) else element

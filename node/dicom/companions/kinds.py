"""What companion objects there are, and by which UIDs they are found; highdicom is not imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.syntax import Companion
from node.dicom.uids import UidFactory

FOLDER: Final = "companions"  # in the folder of the derived files, so that it goes where they go


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of companion. words: what it is called in sentences, and in SeriesDescription behind that of the CT.

    number: tells its SeriesNumber from those of the other kinds. needs_doubt: it shows the doubt of every pixel, and
    there is none of it where a result has no doubt.
    """

    sop_class_uid: str
    words: str
    number: int
    needs_doubt: bool = False


KINDS: Final[dict[Companion, Kind]] = {
    "segmentation": Kind("1.2.840.10008.5.1.4.1.1.66.4", "doubt mask", 1, needs_doubt=True),
    "parametric_map": Kind("1.2.840.10008.5.1.4.1.1.30", "doubt in HU", 2, needs_doubt=True),
    "report": Kind("1.2.840.10008.5.1.4.1.1.88.22", "report", 3),
    "presentation": Kind("1.2.840.10008.5.1.4.1.1.11.1", "presentation", 4),
}


def companion_path(folder: Path, kind: Companion) -> Path:
    """Where the companion of the derived series in `folder` lies."""
    return folder / FOLDER / f"{kind}.dcm"


def companion_series_uid(uids: UidFactory, derived_series_uid: str, kind: Companion) -> str:
    """SeriesInstanceUID of a companion of a derived series: each has a series of its own."""
    return uids.make("companion series", derived_series_uid, kind)

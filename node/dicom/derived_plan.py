"""What all slices of one derived series have in common."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Final

from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from node.dicom.constants import PRODUCT_NAME
from node.dicom.uids import UidFactory

MAX_SERIES_NUMBER: Final = 2**31 - 1  # PS3.5 6.2, IS
# rule -> (factor, offset, step): derived SeriesNumber = source SeriesNumber * factor + offset + (version - 1) * step.
# The step keeps a second version from the number that the first version of the next source series has.
NUMBER_RULES: Final = {"source*100+1": (100, 1, 1), "source+9000": (1, 9000, 10_000)}
_NUMBER_WHERE_RULE_FAILS: Final = 9000
_MAX_STEPS: Final = 99  # 301 to 400; 401 is the first version of source series 4
_OFFSET: Final = re.compile(r"([+-])(\d{2})(\d{2})")
_PREFIX: Final = re.compile(r"[\x20-\x5b\x5d-\x7e]{4,32}")


@dataclass(frozen=True, slots=True)
class SeriesOptions:
    """How a site names the derived series.

    description_prefix: 4 to 32 printable ASCII characters without a backslash; its first 16 are what a narrow list
    shows. number_rule: a key of NUMBER_RULES. Raises ValueError for anything else.
    """

    description_prefix: str = "sCE-CT AI"
    number_rule: str = "source*100+1"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.description_prefix) or not self.description_prefix.strip():
            raise ValueError("description_prefix must be 4 to 32 printable ASCII characters without a backslash")
        if self.number_rule not in NUMBER_RULES:
            raise ValueError(f"number_rule must be one of {', '.join(sorted(NUMBER_RULES))}")

    def series_number(self, source: int | None, version: int) -> int:
        """SeriesNumber of a version of the derived series, 1 to 2147483647; distinct for the first 100 versions.

        version: from 1. Counts from 9000 where the source's number gives none in the range.
        """
        factor, offset, step = NUMBER_RULES[self.number_rule]
        steps = min(version - 1, _MAX_STEPS)
        number = source * factor + offset + steps * step if source is not None else 0
        return number if 0 < number <= MAX_SERIES_NUMBER else _NUMBER_WHERE_RULE_FAILS + steps

    def series_description(self, source: str, version: int) -> str:
        """SeriesDescription, ASCII and at most 64 characters (LO): the prefix, then what fits of the source's.

        version: from 1; a later one than the first stands behind the prefix, where a narrow list still shows it.
        """
        plain = unicodedata.normalize("NFKD", source).encode("ascii", "ignore").decode()
        tidy = " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in plain).split())
        prefix = self.description_prefix.strip() + (f" v{version}" if version > 1 else "")
        return f"{prefix} {tidy}"[:64].strip()


@dataclass(frozen=True, slots=True)
class EquipmentIdentity:
    """The node's own identity as General Equipment, beside the product's name; it is never the scanner's.

    software_version: the node's version. installation_uid: a UID made once at installation, written as
    InstanceCreatorUID, or None. Raises ValueError where a value breaks its VR.
    """

    software_version: str
    device_serial_number: str = "0"
    installation_uid: str | None = None

    def __post_init__(self) -> None:
        for value in (self.software_version, self.device_serial_number):
            require_ascii("LO", value)
        if self.installation_uid is not None:
            require_ascii("UI", self.installation_uid)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model made the pixels, and on what: as it stands in the derivation description.

    device and precision are what was used ("cpu", "fp32"). hu_window_hu: outside this closed range, HU, the pixels are
    the source's. blood_level_hu: the enhancement of blood that was drawn by convention; None where the model takes what
    it thinks is the patient's. Raises ValueError where a text is no ASCII of at most 64 characters.
    """

    name: str
    version: str
    method: str
    weights_sha256: str
    device: str
    precision: str
    hu_window_hu: tuple[float, float]
    blood_level_hu: float | None = None

    def __post_init__(self) -> None:
        for value in (self.name, self.version, self.method, self.weights_sha256, self.device, self.precision):
            require_ascii("LO", value)


@dataclass(frozen=True, slots=True)
class DerivedSeriesPlan:
    """All that the slices of one derived series share.

    produced_at: an aware datetime, frozen at the first production. site_timezone: in which DA and TM values are
    written where the source names no TimezoneOffsetFromUTC; None for the machine's. slice_spacing_mm: step of the
    source's lattice. version: 1 for the first result of the source series; replaced_number: SeriesNumber of the
    version before this one, if any.
    """

    series_uid: str
    series_number: int
    series_description: str
    uids: UidFactory
    equipment: EquipmentIdentity
    model: ModelIdentity
    produced_at: datetime
    slice_spacing_mm: float
    site_timezone: tzinfo | None = None
    version: int = 1
    replaced_number: int | None = None

    def __post_init__(self) -> None:
        if self.produced_at.tzinfo is None:
            raise ValueError("produced_at must be an aware datetime")
        require_ascii("UI", self.series_uid)
        require_ascii("LO", self.series_description)

    def local_time(self, timezone_offset: str) -> datetime:
        """produced_at in the source's offset (such as "+0100"), or in the site's time zone where it names none."""
        return local_time(self.produced_at, timezone_offset, self.site_timezone)

    def derivation_description(self) -> str:
        """What was done, by what, and what it must not be used for (ST, at most 1024 characters)."""
        model, (low, high) = self.model, self.model.hu_window_hu
        text = (
            f"Synthetic contrast-enhanced CT predicted by a neural network from a non-contrast CT. No contrast agent "
            f"was given. Not for dose calculation. Model {model.name} version {model.version} ({model.method}), "
            f"weights sha256 {model.weights_sha256}; {PRODUCT_NAME} {self.equipment.software_version}; "
            f"{model.precision} on {model.device}. Pixels outside {low:g} to {high:g} HU are those of the source image."
        )
        if model.blood_level_hu is not None:
            text += (
                f" Blood is drawn {model.blood_level_hu:g} HU brighter than in the source, by convention and in every "
                "patient alike: this says nothing of the patient's perfusion."
            )
        if self.replaced_number is None:
            return text
        return (
            f"{text} Version {self.version} of the result of this source series: it replaces series "
            f"{self.replaced_number} (version {self.version - 1}) and any earlier one."
        )


def local_time(moment: datetime, timezone_offset: str, site_timezone: tzinfo | None) -> datetime:
    """An aware moment at an offset such as "+0100" (TimezoneOffsetFromUTC), or in the site's time zone without one."""
    match = _OFFSET.fullmatch(timezone_offset)
    if match is None:
        return moment.astimezone(site_timezone)
    sign, hours, minutes = match[1], int(match[2]), int(match[3])
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if sign == "-" else 1)
    if abs(offset) >= timedelta(hours=24):
        return moment.astimezone(site_timezone)
    return moment.astimezone(timezone(offset))


def require_ascii(vr: str, value: str) -> None:
    """Raise ValueError unless `value` is non-empty printable ASCII that its VR allows (PS3.5 6.2), one value."""
    if not value or not value.isascii() or not value.isprintable() or "\\" in value:
        raise ValueError(f"{value!r} must be non-empty printable ASCII without a backslash")
    validate_value(vr, value, RAISE)

"""Says in words which instances a series is known to lack; pure functions."""

import math
from collections.abc import Sequence

from node.dicom.geometry import DUPLICATE_TOLERANCE_MM
from node.dicom.headers import SliceHeader
from storage.series import MissingInstance

_MAX_NAMED = 3
_WAY_OUT = "send the series again, or confirm that it is whole with `syncect jobs complete`"


def describe_missing(missing: Sequence[MissingInstance]) -> str | None:
    """Which instances were refused or cut off, and what to do; None for none."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for one in missing:
        groups.setdefault((one.of_this_series, one.reason), []).append(one.name)
    clauses = [
        f"{_instances(len(names))} of {'this series' if own else 'an unknown series, sent together with this one,'} "
        f"{'was' if len(names) == 1 else 'were'} {reason}: {_named(names)}"
        for (own, reason), names in groups.items()
    ]
    return f"{'; '.join(clauses)}; {_WAY_OUT}" if clauses else None


def not_arrived(listed: int, missing: Sequence[str]) -> str:
    """Which images a performed procedure step lists that did not come, and what to do."""
    return (
        f"the scanner's performed step lists {listed} images, {listed - len(missing)} arrived, without "
        f"{_named(missing)}; {_WAY_OUT}"
    )


def lost_by_replacement(current: Sequence[SliceHeader], replaced: Sequence[SliceHeader]) -> str | None:
    """Slices that are gone because another slice came under their UID; None for none.

    Where every instance was replaced, the sender corrected the series and the newest counts.
    """
    if {header.sop_instance_uid for header in current} <= {header.sop_instance_uid for header in replaced}:
        return None
    positions = [header.image_position_mm for header in current if header.image_position_mm is not None]
    lost: dict[tuple[float, float, float], str] = {}
    for header in replaced:
        place = header.image_position_mm
        if place is not None and all(math.dist(place, other) > DUPLICATE_TOLERANCE_MM for other in positions):
            lost[place] = header.sop_instance_uid
    if not lost:
        return None
    uids = sorted(set(lost.values()))
    return (
        f"{_instances(len(lost))} of this series {'was' if len(lost) == 1 else 'were'} replaced by another one of the "
        f"same SOP Instance UID at another position: {_named(uids)}; {_WAY_OUT}"
    )


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")

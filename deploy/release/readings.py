"""What was read about the locked packages, where no advisory service answers: deploy/release/advisories.toml.

A reading counts for one version of one package. It is as old as the newest text of its sources, not as the day on which
somebody read them, and after `valid_days` of the table it does not count any more.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from packaging.version import Version

from deploy.release.lock import ROOT

TABLE: Final = "deploy/release/advisories.toml"


@dataclass
class Readings:
    """Which packages a reading answers for.

    counted: by package, the day after which its sources know nothing. refused: by package, why no reading counts.
    """

    counted: dict[str, date] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def table() -> dict[str, Any]:
    """The readings, their sources and the advisories that they found."""
    return tomllib.loads((ROOT / TABLE).read_text(encoding="utf-8"))


def read_about(names: Iterable[str], locked: Mapping[str, str], told: Mapping[str, Any], today: date) -> Readings:
    """Which of the named packages a reading answers for on that day, at their locked versions."""
    found = Readings()
    for name in sorted(names):
        row = told["reading"].get(name)
        if row is None:
            found.refused[name] = f"{name} {locked[name]}: nobody has read about it"
        elif row["version"] != locked[name]:
            found.refused[name] = f"{name} {locked[name]}: the reading is about {row['version']}"
        elif today > (until := _known_until(row, told)) + timedelta(days=told["valid_days"]):
            found.refused[name] = f"{name} {locked[name]}: the reading knows nothing after {until}, which is too old"
        else:
            found.counted[name] = until
    return found


def _known_until(row: Mapping[str, Any], told: Mapping[str, Any]) -> date:
    newest: date = max(told["source"][one]["newest"] for one in row["read_in"])
    read_on: date = row["read_on"]
    return min(newest, read_on)


def known_advisories(locked: Mapping[str, str], told: Mapping[str, Any]) -> list[str]:
    """A sentence for each advisory of the table that is open for a locked version and that nobody accepted."""
    return [_sentence(one, locked) for one in told["advisory"] if _affects(one, locked) and "accepted" not in one]


def accepted(locked: Mapping[str, str], told: Mapping[str, Any]) -> list[str]:
    """A sentence for each advisory that affects a locked version, and why that does no harm here."""
    rows = [one for one in told["advisory"] if _affects(one, locked) and "accepted" in one]
    return [f"{_sentence(one, locked)}: {one['accepted']}" for one in rows]


def is_accepted(sentence: str, locked: Mapping[str, str], told: Mapping[str, Any]) -> bool:
    """Whether the table accepts what a service said: this advisory, for this package, at a version known to have it.

    A service that names a version which the table calls free of the fault contradicts it, and wins.
    """
    return any(
        "accepted" in one
        and _affects(one, locked)
        and sentence.startswith(f"{one['package']} {locked[one['package']]}:")
        and re.search(rf"(?<![\w-]){re.escape(one['id'])}(?![\w-])", sentence)
        for one in told["advisory"]
    )


def _affects(row: Mapping[str, str], locked: Mapping[str, str]) -> bool:
    if row["package"] not in locked:
        return False
    version = Version(locked[row["package"]])
    if version < Version(row.get("introduced", "0")):
        return False
    return version < Version(row["fixed"]) if "fixed" in row else version <= Version(row["last_affected"])


def _sentence(row: Mapping[str, str], locked: Mapping[str, str]) -> str:
    return f"{row['package']} {locked[row['package']]}: {row['id']}, {row['summary']}"

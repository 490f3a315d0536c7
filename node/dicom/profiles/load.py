"""Reads the profiles, which are data: a rule that nobody can check or that names no source is refused."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from node.dicom.elements import tag_of
from node.dicom.profiles.checks import CHECKS, Limits, Values

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ProfileRule:
    """One rule: a check of `CHECKS` on attributes, with its limits.

    why: what must hold, as a clause. proven: the standard, a statement of the vendor or a log of the system says so;
    False for a rule of thumb. Raises ValueError for a check or keyword that nobody knows, and a rule without source.
    """

    profile: str
    code: str
    check: str
    keywords: tuple[str, ...]
    limits: Limits
    why: str
    source: str
    proven: bool

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"rule {self.code}: check {self.check!r} is not one of {', '.join(CHECKS)}")
        if not (self.keywords and self.why and self.source):
            raise ValueError(f"rule {self.code} needs keywords, why and source")
        for keyword in self.keywords:
            tag_of(keyword)

    def words(self) -> str:
        """The rule as a person reads it behind what breaks it."""
        mark = "" if self.proven else ", unproven"
        return f"{self.why} (rule {self.code} of profile {self.profile}{mark})"


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of planning system wants; rules: its own first, then those of the profiles that it extends."""

    name: str
    about: str
    rules: tuple[ProfileRule, ...]

    @property
    def keywords(self) -> tuple[str, ...]:
        """Every attribute that a rule looks at."""
        return tuple(dict.fromkeys(keyword for rule in self.rules for keyword in rule.keywords))


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that a series breaks; found: attribute and number, length or coded value, never a text of the file."""

    rule: ProfileRule
    found: str

    def words(self) -> str:
        """What was found, and the rule."""
        return f"{self.found}, but {self.rule.words()}"


def profile_names() -> tuple[str, ...]:
    """The profiles that a destination may name."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml") if not path.stem.startswith("_")))


@cache
def load_profile(name: str) -> Profile:
    """A profile with what it extends; raises FileNotFoundError, KeyError or ValueError where its file is wrong."""
    kept = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    own = tuple(_rule(name.strip("_"), table) for table in kept.get("rules", ()))
    base = load_profile(kept["extends"]).rules if "extends" in kept else ()
    return Profile(name, kept["about"], own + base)


def broken_rules(profile: Profile, headers: Sequence[Values]) -> list[Breach]:
    """Every rule that the headers of one series break, in the order of the profile; each header has its keywords."""
    found = ((rule, CHECKS[rule.check](headers, rule.keywords, rule.limits)) for rule in profile.rules)
    return [Breach(rule, words) for rule, words in found if words]


def _rule(profile: str, table: dict[str, Any]) -> ProfileRule:
    if unknown := set(table) - {"code", "check", "keywords", "values", "least", "most", "why", "source", "proven"}:
        raise ValueError(f"profile {profile}: a rule has no {', '.join(sorted(unknown))}")
    limits = Limits(tuple(table.get("values", ())), table.get("least"), table.get("most"))
    return ProfileRule(
        profile=profile,
        code=table["code"],
        check=table["check"],
        keywords=tuple(table["keywords"]),
        limits=limits,
        why=table["why"],
        source=table["source"],
        proven=table["proven"],
    )

"""What a run of the GPU check found, as one JSON that is written anew with every finding."""

import json
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

# A report is kept beside the code: where a machine has its files says nothing there.
_LIBRARIES = re.compile(rf'{re.escape(str(Path(__file__).parents[2]))}/|(?<=")/[^"\n]*?/lib/python[\d.]+/')
OUT_OF_TIME = "not run: out of time"


@dataclass(frozen=True)
class Check:
    """One promise: `value` is at most `limit`, or at least that where `least` is set; `why` explains the limit."""

    name: str
    value: float
    limit: float
    why: str
    least: bool = False

    @property
    def passed(self) -> bool:
        """Whether it is kept; a value that is not a number never keeps it."""
        return self.value >= self.limit if self.least else self.value <= self.limit


@dataclass
class Section:
    """What one section found. `until_s` is the time, of the monotonic clock, at which it should have ended.

    keep: called after every finding, so that a run that is ended loses none.
    """

    name: str
    until_s: float
    keep: Callable[[], None] = field(default=lambda: None, repr=False)
    checks: list[Check] = field(default_factory=list)
    rows: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None
    elapsed_s: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether it ran to its end with every check kept; what time did not allow fails it only if nothing is left."""
        found_something = bool(self.checks or self.rows)
        return self.error is None and found_something and all(check.passed for check in self.checks)

    def check(self, name: str, value: float, limit: float, why: str, *, least: bool = False) -> None:
        """Enter a promise and whether it is kept."""
        check = Check(name, float(value), float(limit), why, least)
        self.checks.append(check)
        self.keep()
        sign = ">=" if least else "<="
        say(f"  {'ok  ' if check.passed else 'FAIL'} {name}: {check.value:.4g} {sign} {check.limit:.4g}")

    def row(self, **figures: object) -> None:
        """Enter figures that have no limit; names carry units."""
        self.rows.append(figures)
        self.keep()
        say("  " + ", ".join(f"{key} {_short(value)}" for key, value in figures.items() if value is not None))

    def note(self, text: str) -> None:
        """Enter a sentence."""
        self.notes.append(text)
        self.keep()
        say(f"  {text}")

    def has_time_for(self, what: str, *, seconds: float = 0.0) -> bool:
        """Whether `seconds` more fit in; if not, says that `what` was not run."""
        if time.monotonic() + seconds <= self.until_s:
            return True
        self.note(f"{what}: {OUT_OF_TIME}")
        return False

    def to_mapping(self) -> dict[str, object]:
        """Plain JSON values; numbers that JSON does not have become texts."""
        checks = [{**asdict(c), "value": _plain(c.value), "passed": c.passed} for c in self.checks]
        rows = [{key: _plain(value) for key, value in row.items()} for row in self.rows]
        return {
            "passed": self.passed,
            "elapsed_s": round(self.elapsed_s, 2),
            "checks": checks,
            "rows": rows,
            "notes": self.notes,
            "error": self.error,
        }


class Report:
    """All sections of one run in `path`, after the facts that `about` gives."""

    def __init__(self, path: Path, about: Mapping[str, object]) -> None:
        self.path, self.about = path, about
        self.sections: list[Section] = []
        self.finished = False
        self._write()

    @property
    def passed(self) -> bool:
        """Whether all sections so far passed."""
        return all(section.passed for section in self.sections)

    def run(self, name: str, work: Callable[[Section], None], *, until_s: float) -> None:
        """Run one section; an exception ends that section alone and stands in the report with its traceback."""
        section = Section(name, until_s, self._write)
        self.sections.append(section)
        say(f"{name}:")
        begun = time.monotonic()
        try:
            work(section)
        except Exception:
            section.error = _LIBRARIES.sub("", traceback.format_exc())
            say(section.error)
        section.elapsed_s = time.monotonic() - begun
        say(f"{name}: {'passed' if section.passed else 'FAILED'} in {section.elapsed_s:.1f} s")
        self._write()

    def finish(self) -> None:
        """Say that the run came to its end."""
        self.finished = True
        self._write()

    def _write(self) -> None:
        whole = {
            **self.about,
            "finished": self.finished,
            "passed": self.passed,
            "sections": {section.name: section.to_mapping() for section in self.sections},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

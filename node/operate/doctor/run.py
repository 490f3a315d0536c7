"""Runs all checks at once, each for a limited time; an error in one is a line of the report and never its end."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from config.load import ConfigError, load_settings
from config.settings import Settings
from node.bootstrap.store import read_store
from node.operate.doctor.peers import destination_checks
from node.operate.doctor.report import Check, Line, Lines, Mark, StoreCheck
from node.operate.doctor.table import CHECKS
from node.operate.situation import essentials, health_of
from node.ops.health import Health, State, down
from storage.errors import StorageError

_ALL_S: Final = 9.0  # for the whole report: somebody waits for it at a terminal
_STORE_REMEDY: Final = "see the line `database`"


def examine(path: Path | None) -> tuple[State, list[Line]]:
    """Every line of the report, in the order of the table, and how the node is; `path` is the settings file, if given.

    Never raises for what is wrong with the node, and changes nothing.
    """
    try:
        settings = load_settings(path)
    except ConfigError as error:
        return State.DOWN, [*_broken_settings(error), *_without_settings()]
    judgement = _Judgement(settings)
    lines = list(_run(settings, [*CHECKS, *destination_checks(settings)]))
    state = judgement.health().state
    if state is State.OK and any(line.state in (Mark.WARN, Mark.FAIL) for line in lines):
        state = State.DEGRADED
    return state, lines


def _broken_settings(error: ConfigError) -> Lines:
    count = len(error.mistakes)
    yield Line("settings", Mark.FAIL, f"{count} mistake{'s' if count > 1 else ''}", "`syncect config validate`")
    for mistake in error.mistakes:
        yield Line("settings", Mark.FAIL, mistake, "correct it in the settings file, or in the environment")


def _without_settings() -> Lines:
    """What was not looked at."""
    for check in CHECKS[1:]:
        yield Line(check.name, Mark.SKIP, "not looked at: the settings cannot be read", "correct the settings first")


class _Judgement:
    """How the node is, as `status` judges it; a store or a disk that does not answer is down."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._health = settings, down(["the store does not answer"])
        self._thread = threading.Thread(target=self._look, name="doctor status", daemon=True)
        self._thread.start()

    def health(self) -> Health:
        """Whatever is known by now, a little later at most."""
        self._thread.join(0.5)
        return self._health

    def _look(self) -> None:
        try:
            with read_store(self._settings) as node:
                self._health = health_of(node, essentials(node))
        except (StorageError, OSError, ConfigError) as error:
            self._health = down([str(error)])


def _run(settings: Settings, checks: Sequence[Check | StoreCheck]) -> Iterator[Line]:
    began_s = time.monotonic()
    running = [_Running(check, settings) for check in checks]
    for one in running:
        yield from one.lines(began_s + min(one.limit_s, _ALL_S))


class _Running:
    """One check in a thread of its own, which nobody waits for longer than its limit."""

    def __init__(self, check: Check | StoreCheck, settings: Settings) -> None:
        self._check, self._settings, self.limit_s = check, settings, check.limit_s
        self._lines: list[Line] = []
        self._thread = threading.Thread(target=self._look, name=f"doctor {check.name}", daemon=True)
        self._thread.start()

    def lines(self, until_s: float) -> list[Line]:
        """What it found until that monotonic time."""
        self._thread.join(max(0.0, until_s - time.monotonic()))
        is_late, found = self._thread.is_alive(), list(self._lines)
        if is_late:
            words = f"no answer within {self.limit_s:g} s"
            found.append(Line(self._check.name, Mark.WARN, words, "something that it asks hangs; run it once more"))
        return found

    def _look(self) -> None:
        name = self._check.name
        try:
            for line in self._found():
                self._lines.append(line)
        except StorageError as error:
            self._lines.append(Line(name, Mark.SKIP, f"not looked at: {error}", _STORE_REMEDY))
        except OSError as error:
            words = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            self._lines.append(Line(name, Mark.FAIL, words, "let the user of the node read it"))
        except Exception as error:  # a fault of a check must not hide what the others found
            words = f"the check itself failed ({type(error).__name__})"
            self._lines.append(Line(name, Mark.WARN, words, "tell the makers of syncect; the other lines hold"))

    def _found(self) -> Lines:
        if isinstance(self._check, Check):
            yield from self._check.look(self._settings)
            return
        with read_store(self._settings) as node:
            yield from self._check.look(node)

"""Makes the support bundle: gathers, leaves out, looks once more, and writes one file that only this user may read."""

import io
import os
import socket
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from config.load import ConfigError, load_settings
from config.settings import Settings
from node.bootstrap.store import Node, read_store
from node.errors import Refused
from node.operate.doctor.report import Line
from node.operate.doctor.run import examine
from node.operate.settings_view import shown_settings
from node.operate.support import contents
from node.operate.support.guard import LEAST, Guard
from node.operate.support.words import Words
from storage.errors import StorageError, UnusableUrl
from storage.inspection import Inspection, PatientTexts

MOST_BYTES: Final = 20 * 1024**2
_OWN_WORDS_ONLY: Final = ("alerts", "data folder", "processes", "log")
"""Checks of the doctor whose lines may quote what is no setting: names of files, texts of alerts."""
_NOBODY: Final = PatientTexts(frozenset(), frozenset(), frozenset(), frozenset())

_README: Final = """What this is
============
A report of one syncect node for whoever looks for its fault, made by `syncect support-bundle` at {made_at}.

about.json       version, machine, Python packages
doctor.json      every line of `syncect doctor`
settings.json    the settings in force; passwords and the path of the webhook are left out, host names are not
status.json      as `syncect status --json`
jobs.json        as `syncect jobs ls --json`, of the last {days} days
events.json      the history of every series that is not at its end
refusals.json    what the receiver refused
alerts.json      what a person has to know, or had to
processes.json   what the running processes say of themselves
database.json    schema, journal mode, sizes of tables and files
disk.json        files and bytes in each folder of the data folder, and free space
log/             the newest lines of the log files

What is not in it
=================
No image, no DICOM file, no patient ID, no patient name, no date of birth, no description that was typed at a scanner,
no name of a person who works at the node, no password and no key.
A UID is {uids}. Case ids, such as 12 or 12-2, are those of `syncect jobs ls`.
Of a text that may quote a header, a peer or a person only the words stay that stand in the program's own sources or
in the settings, numbers of at most four digits, and times; "…" stands for the rest. AE titles that are not in the
settings have pseudonyms.

How that was checked
====================
Before it was written every member was searched for {needles} patient IDs, names, descriptions and reasons that the
store of the node knows, of at least {least} characters, also in base64, UTF-16, hexadecimal and escaped form.
{unchecked}
If a member is missing, its text says why. The log that goes to standard error is not in it where the node writes no
log files: add it with `journalctl -u syncect --since "2 days ago" > syncect.log`, and read it before you send it.
"""
_UNCHECKED: Final = (
    "THE STORE COULD NOT BE READ: no patient was known to this search. Read the members before you send them.\n"
)


@dataclass(frozen=True)
class Asked:
    """What a person wants: jobs of so many days, UIDs as they are, and which members not."""

    days: int
    show_uids: bool = False
    without: Collection[str] = ()


@dataclass(frozen=True)
class Made:
    """What was written. is_checked: whether the store could be read, so that its patients were looked for."""

    path: Path
    members: tuple[str, ...]
    is_checked: bool


def make_bundle(config: Path | None, target: Path, asked: Asked) -> Made:
    """Write a support bundle to `target`, a new file. `config` is the settings file, if given.

    Raises Refused, and writes nothing, where the file exists or a member holds a patient; OSError about the file.
    """
    if os.path.lexists(target):
        raise Refused(f"{target} exists and is not overwritten")
    _, lines = examine(config)
    settings, mistakes = _settings(config)
    words = _words(settings, lines, show_uids=asked.show_uids)
    members = {"about.json": contents.as_json(contents.about()), "doctor.json": _doctor(lines, words)}
    texts = None
    if settings is None:
        members["settings.json"] = contents.as_json({"mistakes": mistakes})
    else:
        members |= dict(_of_machine(settings, words))
        with _store(settings) as node:
            members |= dict(_of_store(node, words, asked.days))
            texts = _texts(node)
    guard = Guard(texts or _NOBODY, words.knows)
    members = _bounded({name: text for name, text in members.items() if name not in asked.without})
    members["README.txt"] = _readme(asked, guard, is_checked=texts is not None)
    if hits := guard.hits(members):
        options = " ".join(f"--without {name}" for name in hits)
        raise Refused(
            f"nothing was written: {', '.join(hits)} would hold a patient ID, a name or a description that the store "
            f"knows. `syncect support-bundle {options}` leaves it out; please report this as a fault of syncect"
        )
    _write(target, members)
    return Made(target, tuple(sorted(members)), is_checked=texts is not None)


def _settings(config: Path | None) -> tuple[Settings | None, Sequence[str]]:
    """The settings, or None and what is wrong with them."""
    try:
        return load_settings(config), ()
    except ConfigError as error:
        return None, error.mistakes


def _words(settings: Settings | None, lines: Collection[Line], *, show_uids: bool) -> Words:
    own = [socket.gethostname(), *(line.found for line in lines if line.check in ("bundle", "device"))]
    if settings is None:
        return Words(own, show_uids=show_uids)
    titles = {*settings.scp.ae_titles, *(peer.ae_title for peer in settings.scp.allowed_peers)}
    titles |= {peer.ae_title for peer in settings.dimse_destinations}
    with suppress(UnusableUrl):
        own += _strings(shown_settings(settings))  # a password is no word that may stay
    return Words(own, ae_titles=titles, show_uids=show_uids)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str):
        yield value


def _doctor(lines: Collection[Line], words: Words) -> str:
    return contents.as_json(
        [words.value(asdict(line)) if line.check in _OWN_WORDS_ONLY else asdict(line) for line in lines]
    )


def _of_machine(settings: Settings, words: Words) -> Iterator[tuple[str, str]]:
    """What is known without the store."""
    yield "settings.json", _member(lambda: shown_settings(settings))
    yield "processes.json", _member(lambda: words.value(contents.plain(contents.processes(settings))))
    yield "disk.json", _member(lambda: contents.disk(settings))
    try:
        yield from contents.logs(settings, words.value).items()
    except OSError as error:
        yield "log/not_available.txt", f"{error.strerror}\n"


def _of_store(node: Node | StorageError, words: Words, days: int) -> Iterator[tuple[str, str]]:
    members: dict[str, Callable[[Node], Any]] = {
        "status.json": contents.status,
        "jobs.json": partial(contents.jobs, days=days),
        "events.json": contents.events,
        "refusals.json": contents.refusals,
        "alerts.json": contents.alerts,
        "database.json": contents.database,
    }
    for name, make in members.items():
        if isinstance(node, StorageError):
            yield name, contents.as_json({"not_available": words.text(str(node))})
        else:
            yield name, _member(lambda make=make: words.value(contents.plain(make(node))))  # type: ignore[misc]


def _member(make: Callable[[], Any]) -> str:
    """A member, or why there is none: what is broken here is what somebody wants to know."""
    try:
        return contents.as_json(make())
    except Exception as error:  # an error of a library may quote a patient: its kind is enough
        return contents.as_json({"not_available": type(error).__name__})


@contextmanager
def _store(settings: Settings) -> Iterator[Node | StorageError]:
    """The store, or why it cannot be read."""
    try:
        opened = read_store(settings)
        node = opened.__enter__()
    except StorageError as error:
        yield error
        return
    try:
        yield node
    finally:
        opened.__exit__(None, None, None)


def _texts(node: Node | StorageError) -> PatientTexts | None:
    """What must not be in the bundle; None where the store cannot be read."""
    if isinstance(node, StorageError):
        return None
    try:
        return Inspection(node.database).patient_texts()
    except StorageError:
        return None


def _bounded(members: dict[str, str]) -> dict[str, str]:
    """The members, the largest left out until all together are small enough to be sent."""
    sizes = {name: len(text.encode()) for name, text in members.items()}
    while sum(sizes.values()) > MOST_BYTES:
        name = max(sizes, key=lambda one: sizes[one])
        members[name] = f"left out: {sizes[name]} bytes are too many\n"
        sizes[name] = len(members[name])
    return members


def _readme(asked: Asked, guard: Guard, *, is_checked: bool) -> str:
    return _README.format(
        made_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        days=asked.days,
        uids="left as it is, because --uids was given" if asked.show_uids else "a pseudonym of this bundle alone",
        needles=len(guard),
        least=LEAST,
        unchecked="" if is_checked else _UNCHECKED,
    )


def _write(target: Path, members: dict[str, str]) -> None:
    """In the order of their names, whole or not at all."""
    now = datetime.now(UTC).timetuple()[:6]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, now)
            entry.external_attr, entry.compress_type = 0o600 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, members[name])
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.getvalue())
    except OSError:
        target.unlink(missing_ok=True)
        raise

"""Checks of the machine: data folder, free space, the folder of the log, and the clock."""

import json
import os
import pwd
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from config.settings import Settings
from node.bootstrap.store import Node
from node.operate.doctor.report import Line, Lines, Mark
from node.operate.situation import retention
from node.operate.texts import span
from node.ops.clock import JUMP_S, seconds_since_boot, this_boot
from node.ops.disk import why_unwritable
from node.ops.findings import nearest_folder
from node.ops.log_files import FOLDER
from node.ops.modes import loose

_FEW_INODES: Final = 10_000  # one for each received slice
_FEW_HOURS: Final = 48.0
_AHEAD_S: Final = 120.0  # a file that is newer than now by more was written by another clock
_COMMAND_S: Final = 2.0


def data_folder(settings: Settings) -> Lines:
    """Owner, rights of others, and whether a new file could be made in `node.data_dir`; none is made to see."""
    folder = settings.node.data_dir
    place = nearest_folder(folder.absolute())
    if why := why_unwritable(folder):
        yield Line("data folder", Mark.FAIL, why, "free or mount that file system, or set node.data_dir")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        remedy = f"`chown -R {_user(os.geteuid())} {place}`, or run syncect as the user {_user(place.stat().st_uid)}"
        yield Line("data folder", Mark.FAIL, f"this user ({_user(os.geteuid())}) cannot write {place}", remedy)
        return
    if not folder.exists():
        yield Line("data folder", Mark.OK, f"{folder} is not there yet; the first start makes it")
        return
    yield _owner(folder)
    if open_ones := loose(folder):
        found = f"other users of this machine can read {open_ones[0]}, and {len(open_ones) - 1} more"
        yield Line("data folder", Mark.WARN, found, f"`chmod -R go-rwx {folder}`, or restart the node, which does it")


def _owner(folder: Path) -> Line:
    uid = folder.stat().st_uid
    if uid != os.geteuid():
        found = f"{folder} belongs to {_user(uid)}, and this command runs as {_user(os.geteuid())}"
        return Line(
            "data folder", Mark.WARN, found, f"run syncect as {_user(uid)}: files that others make stop the node"
        )
    return Line("data folder", Mark.OK, f"{folder}, of {_user(uid)}, can be written")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def space(settings: Settings) -> Lines:
    """Free space and inodes against the settings of retention, known also without a store."""
    place, kept = nearest_folder(settings.node.data_dir.absolute()), settings.retention
    free_gb, inodes = shutil.disk_usage(place).free / 1024**3, os.statvfs(place)
    found = f"{free_gb:.1f} GB free; below {kept.min_free_gb:g} GB the receiver refuses"
    if free_gb <= kept.min_free_gb:
        yield Line("disk", Mark.FAIL, found, "free space, or lower retention.min_free_gb; senders try again meanwhile")
    elif free_gb <= max(kept.target_free_gb, 2 * kept.min_free_gb):
        yield Line("disk", Mark.WARN, found, "free space, or set retention.days and retention.target_free_gb")
    else:
        yield Line("disk", Mark.OK, found)
    if inodes.f_files and inodes.f_favail < _FEW_INODES:
        words = f"{inodes.f_favail} inodes left on the file system of {place}: each slice needs one"
        yield Line("disk", Mark.WARN, words, "remove small files there, or make the file system anew with more inodes")


def hours_left(node: Node) -> Lines:
    """How long the disk lasts at the pace of the last days."""
    found = retention(node)
    hours = found["hours_left"]
    if hours is None:
        yield Line("disk pace", Mark.OK, f"nothing was received in the last 3 days; {found['words']}")
        return
    words = f"at the pace of the last 3 days the receiver refuses in {span(hours * 3600)}; {found['words']}"
    if hours < _FEW_HOURS and not node.settings.retention.target_free_gb:
        yield Line("disk pace", Mark.WARN, words, "set retention.days and retention.target_free_gb, or add a disk")
    else:
        yield Line("disk pace", Mark.OK, words)


def log_folder(settings: Settings) -> Lines:
    """Whether the folder of the log files can be written, and how large they are."""
    folder = settings.node.data_dir / FOLDER
    if not settings.log.files:
        yield Line("log", Mark.SKIP, "log.files = false: the log is on standard error alone (`journalctl -u syncect`)")
        return
    if not folder.is_dir():
        yield Line("log", Mark.SKIP, f"{folder} is not there yet; a process makes it when it starts")
        return
    size_mb = sum(file.stat().st_size for file in folder.glob("*") if file.is_file()) / 1024**2
    if os.access(folder, os.W_OK | os.X_OK):
        yield Line("log", Mark.OK, f"{folder}, {size_mb:.1f} MB")
    else:
        yield Line("log", Mark.FAIL, f"this user cannot write {folder}", f"`chown -R {_user(os.geteuid())} {folder}`")


# -- clock ---------------------------------------------------------------------------------------------------------


def clock(settings: Settings) -> Lines:
    """Jumps of the machine's clock that the node has not seen yet, who sets it, and files from the future."""
    if jump_s := _jump_s(settings.node.data_dir / "run" / "clock.json"):
        way = "forward" if jump_s > 0 else "back"
        found = f"the clock was set {way} by {abs(jump_s):.0f} s since the node last looked"
        yield Line("clock", Mark.WARN, found, "find out who sets it; the running node moves what waits by the jump")
    yield _synchronised()
    yield from _from_the_future(settings.node.data_dir / "spool" / "received")


def _jump_s(path: Path) -> float:
    """How far the clock was set since a process of this boot last wrote it down; 0 where that is not known."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["boot_id"] == this_boot():
            jump_s = time.time() - seconds_since_boot() - float(known["difference_s"])
            return jump_s if abs(jump_s) > JUMP_S else 0.0
    return 0.0


def _synchronised() -> Line:
    """What systemd's time service or chrony says."""
    remedy = "`timedatectl set-ntp true`, or set up chrony: results carry the time of this machine"
    answer = _said_by("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if answer in ("yes", "no"):
        if answer == "yes":
            return Line("clock", Mark.OK, "set by a time server (timedatectl)")
        return Line("clock", Mark.WARN, "no time server sets it (timedatectl: NTPSynchronized=no)", remedy)
    leap = next((row for row in _said_by("chronyc", "-n", "tracking").splitlines() if row.startswith("Leap")), "")
    if leap:
        is_set = leap.endswith("Normal")
        words = leap.split(":", 1)[-1].strip()
        return Line("clock", Mark.OK if is_set else Mark.WARN, f"chrony: {words}", "" if is_set else remedy)
    return Line("clock", Mark.SKIP, "neither timedatectl nor chronyc says who sets the clock", "ask who runs the host")


def _said_by(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _from_the_future(received: Path) -> Lines:
    """Files of the newest days that are newer than now."""
    until_s, now_s = time.monotonic() + _COMMAND_S, time.time()
    ahead_s = 0.0
    for day in sorted(received.glob("*"), reverse=True)[:2]:
        for file in day.glob("*"):
            if time.monotonic() > until_s:
                break
            with suppress(OSError):
                ahead_s = max(ahead_s, file.stat().st_mtime - now_s)
    if ahead_s > _AHEAD_S:
        found = f"files of the spool are newer than now by up to {span(ahead_s)}: the clock was ahead, or is behind"
        yield Line("clock", Mark.WARN, found, "set the clock by a time server (`timedatectl set-ntp true`)")

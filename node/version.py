"""Which syncect this is. The build executes this file too, for the version of the wheel: it needs nothing but Python.

The tag v0.2.0 is version 0.2.0; fourteen commits later it is 0.2.1.dev14+g and ten digits of the commit, and `.dirty`
where files were changed since. A clone without tags is 0.0.dev and the number of its commits.
"""

import json
import os
import re
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

UNKNOWN: Final = "0.0.dev0+unknown"
"""The version of a copy of the sources that neither git nor a build said anything about."""
EDITABLE: Final = "editable"
"""Stands at the end of the version of a checkout: its files may have changed since it was installed."""
BUILD_FILE: Final = "build.json"
_ROOT: Final = Path(__file__).resolve().parents[1]
_TAGS: Final = "v[0-9]*"
_DESCRIBED: Final = re.compile(r"v(\d[^-]*)-(\d+)-g([0-9a-f]{40})(-dirty)?")
# `git archive` writes commit and nearest tag here (.gitattributes), for who downloads the sources as one file.
_ARCHIVED: Final = ("$Format:%H$", "$Format:%(describe:tags,match=v*)$")


@dataclass(frozen=True)
class Build:
    """version: as PEP 440 has it. commit: 40 hex digits, "" where unknown. changed: files differ from that commit."""

    version: str
    commit: str = ""
    changed: bool = False


@cache
def software_version() -> str:
    """What stands in derived files and belongs to their identity: one value as long as an installation lives.

    A checkout carries the version that it had when it was installed, and says by `EDITABLE` that its code may be newer:
    asking git would give two processes of one node two identities where somebody commits between their starts.
    """
    try:
        installed = metadata.version("syncect")
    except metadata.PackageNotFoundError:
        return UNKNOWN
    if not is_checkout():
        return installed
    return f"{installed}{'.' if '+' in installed else '+'}{EDITABLE}"


def is_checkout(root: Path = _ROOT) -> bool:
    """Whether this code lies in a working tree of git; a package that pip copied does not."""
    return (root / ".git").exists()


def find_build(root: Path = _ROOT) -> Build:
    """What git says of a checkout as it is now, else what the build or `git archive` wrote; a version in any case."""
    if is_checkout(root) and (build := _of_git(root)):
        return build
    try:
        return Build(**json.loads((root / "node" / BUILD_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _of_archive(*_ARCHIVED)


def as_json(build: Build) -> str:
    """The text of `BUILD_FILE`."""
    return json.dumps(asdict(build)) + "\n"


def _of_git(root: Path) -> Build | None:
    described = _git(root, "describe", "--tags", "--long", "--dirty", "--abbrev=40", "--match", _TAGS)
    if described and (found := _DESCRIBED.fullmatch(described)):
        tag, count, commit, dirty = found.groups()
        return Build(_version(tag, int(count), commit, bool(dirty)), commit, bool(dirty))
    bare = _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*")
    count_text = _git(root, "rev-list", "--count", "HEAD")
    if not bare or not count_text:
        return None
    commit, changed = bare.removesuffix("-dirty"), bare.endswith("-dirty")
    return Build(f"0.0.dev{count_text}+{_local(commit, changed)}", commit, changed)


def _of_archive(commit: str, described: str) -> Build:
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        return Build(UNKNOWN)
    tag, _, rest = described.removeprefix("v").partition("-")
    if not re.match(r"v\d", described):
        return Build(f"0.0.dev0+{_local(commit, False)}", commit)
    return Build(_version(tag, int(rest.split("-")[0] or 0) if rest else 0, commit, False), commit)


def _version(tag: str, count: int, commit: str, changed: bool) -> str:
    """The tag itself, or a development version of the one that comes next: 0.2.1 after 0.2.0, 0.2.0rc2 after rc1."""
    if count == 0 and not changed:
        return tag
    following = re.sub(r"\d+$", lambda last: str(int(last[0]) + 1), tag)
    return f"{following}.dev{count}+{_local(commit, changed)}"


def _local(commit: str, changed: bool) -> str:
    return f"g{commit[:10]}{'.dirty' if changed else ''}"


def _git(root: Path, *arguments: str) -> str:
    """One line of git about this working tree, "" where it has none to say; a hook's variables name another one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


software_version()  # when the process begins: another version installed under a running node changes nothing in it

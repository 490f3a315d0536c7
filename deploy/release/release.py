"""`make release`: what a tag becomes, built twice, installed without this checkout, tried there, and described.

With VERSION=0.2.0 the tag v0.2.0 must be on this commit and CHANGELOG.md must have its dated section. Without, it is a
rehearsal of all steps under the development version. dist/ has the wheel, the source archive, the bill of materials
and SHA256SUMS at the end, or nothing.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from deploy.release.installed import Trial, newest_python, python_of
from deploy.release.sbom import ROOT, describe, product_packages, write_sbom
from node.version import Build, find_build

OLDEST: Final = "3.11"
_DIST: Final = ROOT / "dist"


class Unfit(Exception):
    """This tree cannot be released; the text says why and what to do."""


def main() -> int:
    """Make a release, or rehearse it; 1 and a sentence where something is not as it must be."""
    parser = argparse.ArgumentParser(description="build, try and describe a release")
    parser.add_argument("--version", default="", help="the version that the tag on this commit gives; else a rehearsal")
    parser.add_argument("--without-torch", nargs="*", default=[], metavar="3.N", help="Pythons that are tried without")
    options = parser.parse_args()
    try:
        release(options.version, set(options.without_torch))
    except Unfit as why:
        print(f"release: {why}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"release: this command ended with {error.returncode}: {error.cmd}", file=sys.stderr)
        return 1
    return 0


def release(version: str, without_torch: set[str]) -> None:
    """All steps; raises Unfit, and CalledProcessError for a step that fails."""
    build = check_tree(ROOT, version)
    check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version, datetime.now(UTC).date())
    shutil.rmtree(_DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="syncect-release-") as name:
        folder = Path(name)
        artefacts = build_twice(ROOT, folder, build.commit)
        wheel = next(one for one in artefacts if one.suffix == ".whl")
        for number in (OLDEST, newest_python(OLDEST)):
            with_torch = number not in without_torch
            trial = Trial.install(folder / number, python_of(number), wheel, with_torch=with_torch)
            if number == OLDEST:
                bill = folder / f"syncect-{build.version}.cdx.json"
                write_sbom(describe(trial.python, build.version, product_packages()), bill)
                artefacts.append(bill)
            trial.run(build)
        _DIST.mkdir()
        for one in artefacts:
            shutil.copy2(one, _DIST)
    sums = "".join(f"{_sha256(one)}  {one.name}\n" for one in sorted(_DIST.iterdir()))
    (_DIST / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(sums + (f"released: dist/ is {version}" if version else f"rehearsed: dist/ is {build.version}, no release"))


def check_tree(root: Path, version: str) -> Build:
    """The build of this commit; raises Unfit for changed or unknown files, and for another version than is wanted."""
    status = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    if status.stdout:
        raise Unfit(f"files differ from the commit; commit or remove them:\n{status.stdout.rstrip()}")
    build = find_build(root)
    if version and build.version != version:
        raise Unfit(f"this commit is {build.version}, not {version}; put the tag on it: git tag -a v{version}")
    return build


def check_changelog(text: str, version: str, today: date) -> None:
    """Raises Unfit where CHANGELOG.md has no dated section with words for a version (a rehearsal: Unreleased)."""
    heading = rf"## \[{re.escape(version)}\] - (\S+)" if version else r"## \[(Unreleased|\d[^\]]*)\][^\n]*"
    found = re.search(rf"^{heading}$\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if not found or not found[2].strip():
        wanted = f"## [{version}] - {today:%Y-%m-%d}" if version else "## [Unreleased]"
        raise Unfit(f"CHANGELOG.md has no section `{wanted}` with words below it")
    if version:
        try:
            day = date.fromisoformat(found[1])
        except ValueError:
            raise Unfit(f"CHANGELOG.md: {found[1]} is no date such as {today:%Y-%m-%d}") from None
        if day > today:
            raise Unfit(f"CHANGELOG.md: {version} is dated {day}, which is in the future")


def build_twice(root: Path, folder: Path, commit: str) -> list[Path]:
    """Wheel and source archive; raises Unfit where a fresh clone of the commit gives other bytes than the checkout."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "--detach", commit], check=True)
    first, second = (_build(tree, folder / name) for tree, name in ((root, "first"), (clone, "second")))
    for one, other in zip(first, second, strict=True):
        if (one.name, _sha256(one)) != (other.name, _sha256(other)):
            raise Unfit(f"{one.name} is not the same when it is built again elsewhere ({other.name})")
        print(f"built twice, the same bytes: {one.name}")
    return first


def _build(root: Path, folder: Path) -> list[Path]:
    command = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
    epoch = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(build, cwd=root, env=environment, check=True, capture_output=True)
    return sorted(folder.iterdir())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())

"""`make audit`: hashes, licences, bill of materials and known vulnerabilities of everything that is installed.

Exit codes: 0 all was checked and nothing found; 1 something was found; 3 nothing was found, but no service answered for
some packages, so nobody knows: run it again where PyPI's or OSV's advisories can be reached.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from packaging.version import Version

from deploy.release.lock import CUDA, LOCKED, ROOT, TORCH, pins, unhashed
from deploy.release.sbom import describe, licence_findings, licence_table, product_packages, write_sbom
from node.version import find_build

SERVICES: Final = ("pypi", "osv")


class Code(IntEnum):
    """How an audit ends."""

    GREEN = 0
    FOUND = 1
    NOT_ASKED = 3


@dataclass
class Answer:
    """What the services said. vulnerable: sentences. unasked: names that no service answered for."""

    vulnerable: list[str] = field(default_factory=list)
    unasked: set[str] = field(default_factory=set)


def main() -> int:
    """Print each check and its outcome; returns a `Code`."""
    locked = {**_pins(CUDA), **_pins(LOCKED), **_pins(TORCH)}
    findings = [f"{name} has no hash in {file}" for file in (LOCKED, CUDA) for name in unhashed(_text(file))]
    _say("hashes", findings, f"each of {len(locked)} packages is pinned; all but torch's own wheel have hashes")
    (ROOT / "dist").mkdir(exist_ok=True)
    target = ROOT / "dist" / "audit.cdx.json"
    bom = describe(Path(sys.executable), find_build().version, product_packages())
    write_sbom(bom, target)
    print(f"sbom: {target.relative_to(ROOT)} is valid CycloneDX 1.6 and has {len(bom['components'])} packages")
    licences = licence_findings(bom, licence_table())
    _say("licences", licences, "each package of the product has a licence of deploy/release/licences.toml")
    table = tomllib.loads(_text("deploy/release/advisories.toml"))
    known = known_advisories(locked, table)
    _say(
        "advisories read by people",
        known,
        f"none that deploy/release/advisories.toml names of {_read_on(table)} is open",
    )
    for one in accepted(locked, table):
        print(f"  accepted: {one}")
    answer = ask(SERVICES, [ROOT / name for name in (LOCKED, CUDA)])
    open_ones = [one for one in answer.vulnerable if not _is_accepted(one, table)]
    asked = len(locked) - len(answer.unasked)
    _say("advisories of the services", open_ones, f"asked about {asked} of {len(locked)} packages")
    return int(verdict([*findings, *licences, *known, *open_ones], answer.unasked, len(locked)))


def verdict(findings: Sequence[str], unasked: Iterable[str], count: int) -> Code:
    """The code, and the last words: never green for what nobody was asked about."""
    names = sorted(unasked)
    if names:
        shown = ", ".join(names) if len(names) < count else "all of them"
        print(f"NOT ASKED: no advisory service answered for {len(names)} of {count} packages: {shown}")
    if findings:
        print(f"FOUND: {len(findings)}")
        return Code.FOUND
    if names:
        print("This audit is not green. Run it where PyPI's or OSV's advisories can be reached.")
        return Code.NOT_ASKED
    print("GREEN: every check was made and found nothing")
    return Code.GREEN


def ask(services: Sequence[str], files: Sequence[Path]) -> Answer:
    """Ask one service after the other about the packages that none before has answered for."""
    answer = Answer(unasked={name for file in files for name in pins(file.read_text(encoding="utf-8"))})
    for service in services:
        if answer.unasked:
            told = _asked(service, files)
            answer.vulnerable += [text for text in told.vulnerable if text not in answer.vulnerable]
            answer.unasked &= told.unasked
    return answer


def read_answer(text: str, names: Iterable[str]) -> Answer:
    """What a report of pip-audit says; a package that it skipped or does not name was not asked about."""
    try:
        told = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        told = []
    asked = {_plain(one["name"]): one for one in told if "vulns" in one and not one.get("skip_reason")}
    vulnerable = [
        f"{name} {one['version']}: {', '.join([found['id'], *found.get('aliases', ())])}, "
        f"fixed in {', '.join(found.get('fix_versions', ())) or 'no version'}"
        for name, one in asked.items()
        for found in one["vulns"]
    ]
    return Answer(vulnerable, {name for name in names if _plain(name) not in asked})


def _asked(service: str, files: Sequence[Path]) -> Answer:
    """One run of pip-audit; it ends with 0 and "No known vulnerabilities" also where nothing answered."""
    names = [name for file in files for name in pins(file.read_text(encoding="utf-8"))]
    with tempfile.TemporaryDirectory() as folder:
        # Pins alone: pip-audit would else look for the wheels of this platform among the hashes.
        lines = [f"{name}=={v}\n" for file in files for name, v in pins(file.read_text(encoding="utf-8")).items()]
        (Path(folder) / "pins.txt").write_text("".join(lines), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("pip-audit")), "--no-deps", "--disable-pip", "--aliases", "on"]
        options = ["--format", "json", "--progress-spinner", "off", "--vulnerability-service", service]
        options += ["--requirement", "pins.txt"]
        told = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)
    answer = read_answer(told.stdout, names)
    if answer.unasked:
        last = (told.stderr.strip().splitlines() or ["nothing"])[-1][:100]
        print(
            f"{service} answered for {len(names) - len(answer.unasked)} of {len(names)}; pip-audit's last words: {last}"
        )
    return answer


def known_advisories(locked: Mapping[str, str], table: Mapping[str, Any]) -> list[str]:
    """A sentence for each advisory of the table that is open for a locked version and that nobody accepted."""
    return [_sentence(one, locked) for one in table["advisory"] if _affects(one, locked) and "accepted" not in one]


def accepted(locked: Mapping[str, str], table: Mapping[str, Any]) -> list[str]:
    """A sentence for each advisory that affects a locked version, and why that does no harm here."""
    rows = [one for one in table["advisory"] if _affects(one, locked) and "accepted" in one]
    return [f"{_sentence(one, locked)}: {one['accepted']}" for one in rows]


def _affects(row: Mapping[str, str], locked: Mapping[str, str]) -> bool:
    if row["package"] not in locked:
        return False
    version = Version(locked[row["package"]])
    if version < Version(row.get("introduced", "0")):
        return False
    return version < Version(row["fixed"]) if "fixed" in row else version <= Version(row["last_affected"])


def _sentence(row: Mapping[str, str], locked: Mapping[str, str]) -> str:
    return f"{row['package']} {locked[row['package']]}: {row['id']}, {row['summary']}"


def _is_accepted(sentence: str, table: Mapping[str, Any]) -> bool:
    return any("accepted" in one and re.search(rf"\b{re.escape(one['id'])}\b", sentence) for one in table["advisory"])


def _read_on(table: Mapping[str, Any]) -> date:
    read_on: date = table["read_on"]
    return read_on


def _say(check: str, findings: Sequence[str], otherwise: str) -> None:
    print(f"{check}: {otherwise if not findings else f'{len(findings)} found'}")
    for one in findings:
        print(f"  {one}")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _pins(name: str) -> dict[str, str]:
    return pins(_text(name))


if __name__ == "__main__":
    sys.exit(main())

"""`make audit`: hashes, licences, bill of materials and known vulnerabilities of everything that is installed.

For each package of the product an advisory service has to answer, or somebody has to have read about this very version
not long ago (deploy/release/advisories.toml). What a service says counts more than a reading.

Exit codes: 0 all was checked and nothing found; 1 something was found; 3 nothing was found, but for some packages of
the product neither a service answered nor a reading counts, so nobody knows.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Final

from deploy.release.lock import CUDA, LOCKED, ROOT, TORCH, pins, unhashed
from deploy.release.readings import TABLE, Readings, accepted, is_accepted, known_advisories, read_about, table
from deploy.release.sbom import describe, licence_findings, licence_table, product_packages, write_sbom
from node.version import find_build

SERVICES: Final = ("pypi", "osv")


class Code(IntEnum):
    """How an audit ends."""

    GREEN = 0
    FOUND = 1
    NOT_ANSWERED = 3


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
    product = product_packages()
    bom = describe(Path(sys.executable), find_build().version, product)
    write_sbom(bom, target)
    print(f"sbom: {target.relative_to(ROOT)} is valid CycloneDX 1.6 and has {len(bom['components'])} packages")
    licences = licence_findings(bom, licence_table())
    _say("licences", licences, "each package of the product has a licence of deploy/release/licences.toml")
    told = table()
    known = known_advisories(locked, told)
    _say("advisories that were read", known, f"each of {TABLE} is fixed in our version, or accepted for a reason")
    for one in accepted(locked, told):
        print(f"  accepted: {one}")
    answer = ask(SERVICES, [ROOT / name for name in (LOCKED, CUDA)])
    open_ones = [one for one in answer.vulnerable if not is_accepted(one, locked, told)]
    asked = len(locked) - len(answer.unasked)
    _say("advisories of the services", open_ones, f"asked about {asked} of {len(locked)} packages")
    wanted = product | set(_pins(CUDA))
    readings = read_about(wanted & answer.unasked, locked, told, datetime.now(UTC).date())
    return int(verdict([*findings, *licences, *known, *open_ones], wanted, answer.unasked, readings))


def verdict(findings: Sequence[str], wanted: set[str], unasked: set[str], readings: Readings) -> Code:
    """The code, and the last words: who answered for the packages of the product, and never green where nobody did.

    wanted: names of the packages of the product. unasked: of all packages, those that no service answered for.
    """
    by_service = f"{len(wanted - unasked)} were answered for by a service"
    print(f"Of {len(wanted)} packages of the product, {by_service}, {_by_reading(readings)}")
    if tools := unasked - wanted:
        print(f"No service answered for {len(tools)} tools of developers, which no hospital installs.")
    for one in readings.refused.values():
        print(f"NOT ANSWERED FOR: {one}")
    if findings:
        print(f"FOUND: {len(findings)}")
        return Code.FOUND
    if wanted & unasked - set(readings.counted):
        print("This audit is not green. Run it where PyPI or OSV can be reached, or read about these packages.")
        return Code.NOT_ANSWERED
    if readings.counted:
        print("GREEN by reading, not by a service: nothing was found. Run it also where PyPI or OSV can be reached.")
    else:
        print("GREEN: every check was made and found nothing")
    return Code.GREEN


def _by_reading(readings: Readings) -> str:
    if not readings.counted:
        return "none by a reading."
    oldest = min(readings.counted.values())
    return (
        f"{len(readings.counted)} by a reading alone, "
        f"which knows nothing after {oldest} (for some packages) or {max(readings.counted.values())}."
    )


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

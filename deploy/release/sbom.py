"""The software bill of materials (CycloneDX 1.6, JSON) of an installed syncect, and what licences stand in it."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[2]
EXTRAS: Final = ("dicomweb", "objects", "postgres", "ray", "train")
"""What a hospital may install beside the node; `dev` is for developers only."""
_TROVE: Final = {"License :: OSI Approved :: Apache Software License": "Apache-2.0"}


def product_packages(name: str = "syncect", extras: Collection[str] = EXTRAS) -> set[str]:
    """Names of all packages that the product needs, as installed here; the product itself is not among them."""
    found: set[str] = set()
    todo: list[tuple[str, tuple[str, ...]]] = [(name, tuple(extras))]
    seen = set(todo)
    while todo:
        for needed in _needs(*todo.pop()):
            found.add(needed[0])
            if needed not in seen:
                seen.add(needed)
                todo.append(needed)
    return found


def _needs(name: str, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for text in metadata.requires(name) or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(one.name), tuple(sorted(one.extras))


def describe(python: Path, version: str, only: Collection[str]) -> dict[str, Any]:
    """The bill of those packages in `only` that an interpreter finds, syncect at its root."""
    program = str(Path(sys.executable).with_name("cyclonedx-py"))
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--of", "JSON", "--no-validate"]
    told = subprocess.run([program, "environment", *options, str(python)], check=True, capture_output=True)
    bom: dict[str, Any] = json.loads(told.stdout)
    bom["metadata"]["component"]["version"] = version
    bom["components"] = [one for one in bom["components"] if canonicalize_name(one["name"]) in only]
    kept = {one["bom-ref"] for one in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    bom["dependencies"] = [
        {**one, "dependsOn": [ref for ref in one.get("dependsOn", ()) if ref in kept]}
        for one in bom["dependencies"]
        if one["ref"] in kept
    ]
    return bom


def write_sbom(bom: dict[str, Any], target: Path) -> None:
    """Write a bill; raises ValueError where it does not fulfil the schema. That check alone takes 12 s of processor."""
    text = json.dumps(bom, indent=2, sort_keys=True) + "\n"
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise ValueError(f"{target.name} is no valid CycloneDX 1.6: {error}")
    target.write_text(text, encoding="utf-8")


def licence_findings(bom: dict[str, Any], table: dict[str, Any]) -> list[str]:
    """A sentence for each component whose licence is unknown or not in the table (deploy/release/licences.toml)."""
    allowed, reviewed, exceptions = set(table["allowed"]), table["reviewed"], table["exceptions"]
    found = []
    for one in bom["components"]:
        name = canonicalize_name(one["name"])
        licence = reviewed.get(name) or _licence(one)
        if not licence:
            found.append(f"{name} {one['version']}: its metadata names no licence by SPDX id")
        elif name in exceptions:
            if exceptions[name]["licence"] != licence:
                found.append(f"{name} {one['version']}: {licence}, but the exception is for another licence")
        elif not _is_allowed(licence, allowed):
            found.append(f"{name} {one['version']}: {licence} is not allowed")
    return found


def licence_table() -> dict[str, Any]:
    """What licences a package of the product may have."""
    return tomllib.loads((ROOT / "deploy" / "release" / "licences.toml").read_text(encoding="utf-8"))


def _licence(component: dict[str, Any]) -> str:
    """An SPDX id or expression, "" where the metadata has none."""
    named = []
    for entry in component.get("licenses", ()):
        if "expression" in entry:
            return str(entry["expression"])
        licence = entry["license"]
        named.append(licence.get("id") or _TROVE.get(licence.get("name", ""), ""))
    return next(filter(None, named), "")


def _is_allowed(expression: str, allowed: set[str]) -> bool:
    """Each licence that applies at once is allowed; of those to choose from, one."""
    return all(any(one.strip(" ()") in allowed for one in part.split(" OR ")) for part in expression.split(" AND "))

"""An audit is green only for what a service answered about; what it finds, and what nobody was asked, it says."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deploy.release.audit import Code, accepted, ask, known_advisories, read_answer, verdict
from deploy.release.lock import LOCKED, ROOT, TORCH, pins
from deploy.release.sbom import describe, licence_findings, licence_table, product_packages, write_sbom

TABLE: dict[str, Any] = tomllib.loads((ROOT / "deploy" / "release" / "advisories.toml").read_text(encoding="utf-8"))


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def clean(name: str) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": []}


SKIPPED = {"name": "b", "skip_reason": "Dependency not found on PyPI and could not be audited: b (1)"}
HIT = {"name": "c_c", "version": "1", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2"]}]}


def test_a_skipped_package_and_one_that_is_not_named_were_not_asked_about() -> None:
    answer = read_answer(report(clean("a"), SKIPPED, HIT), ["a", "b", "c-c", "d"])
    assert answer.unasked == {"b", "d"}
    assert answer.vulnerable == ["c-c 1: PYSEC-1, CVE-1, fixed in 2"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "No known vulnerabilities found", report()])
def test_a_report_that_says_nothing_asked_nothing(text: str) -> None:
    assert read_answer(text, ["a"]).unasked == {"a"}


def test_only_a_full_answer_without_a_finding_is_green(capsys: pytest.CaptureFixture[str]) -> None:
    assert int(verdict([], set(), 3)) == 0
    assert verdict([], {"b"}, 3) == Code.NOT_ASKED
    said = capsys.readouterr().out
    assert "no advisory service answered for 1 of 3 packages: b" in said
    assert "This audit is not green" in said
    assert verdict(["x"], set(), 3) == verdict(["x"], {"b"}, 3) == Code.FOUND
    assert len({*Code}) == 3


def test_a_second_service_is_asked_about_what_the_first_did_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pip-audit"  # in the place of the real one: it answers as that does, by service
    answers = {"pypi": report(clean("a"), SKIPPED), "osv": report(clean("a"), HIT | {"name": "b"})}
    program.write_text(f"#!{sys.executable}\nimport sys\nprint({answers}['osv' if 'osv' in sys.argv else 'pypi'])\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    (tmp_path / "locked.txt").write_text("a==1\nb==1\n")
    first = ask(["pypi"], [tmp_path / "locked.txt"])
    assert (first.vulnerable, first.unasked) == ([], {"b"})
    both = ask(["pypi", "osv"], [tmp_path / "locked.txt"])
    assert (both.vulnerable, both.unasked) == (["b 1: PYSEC-1, CVE-1, fixed in 2"], set())


def test_a_version_below_a_fix_is_found_and_what_was_accepted_is_named_with_its_reason() -> None:
    locked = {**pins((ROOT / LOCKED).read_text()), **pins((ROOT / TORCH).read_text())}
    assert {one["package"] for one in TABLE["advisory"]} <= set(locked), "a row of a package that is not used any more"
    assert known_advisories(locked, TABLE) == []
    (found,) = known_advisories({**locked, "pydicom": "3.0.1"}, TABLE)
    assert found.startswith("pydicom 3.0.1: CVE-2026-32711")
    assert known_advisories({**locked, "pydicom": "1.4.2"}, TABLE) == []
    (told,) = accepted(locked, TABLE)
    assert "the node does not run pynetdicom's applications" in told
    assert accepted({**locked, "pynetdicom": "3.0.5"}, TABLE) == []


@pytest.fixture(scope="module")
def bom() -> dict[str, Any]:
    """The bill of materials of this environment."""
    return describe(Path(sys.executable), "0.2.0", product_packages())


def test_a_bill_that_does_not_fulfil_the_schema_is_not_written(bom: dict[str, Any], tmp_path: Path) -> None:
    small = bom | {"components": bom["components"][:1], "dependencies": []}  # the check of the whole takes long
    write_sbom(small, tmp_path / "small.json")
    assert json.loads((tmp_path / "small.json").read_text()) == small
    with pytest.raises(ValueError, match=r"wrong\.json is no valid CycloneDX"):
        write_sbom(small | {"components": [{"name": "no type"}]}, tmp_path / "wrong.json")
    assert not (tmp_path / "wrong.json").exists()


def test_the_bill_has_the_packages_of_the_product_and_no_tool_of_a_developer(bom: dict[str, Any]) -> None:
    names = {one["name"].lower() for one in bom["components"]}
    assert {"pydicom", "torch", "psycopg", "starlette", "mako", "sympy"} <= names
    assert not {"pytest", "ruff", "codespell", "selenium", "syncect"} & names
    assert bom["metadata"]["component"]["version"] == "0.2.0"
    assert all(one["version"] and one["purl"] for one in bom["components"])


def test_licences_of_the_product_are_permissive_and_another_or_none_is_found(bom: dict[str, Any]) -> None:
    table = licence_table()
    assert licence_findings(bom, table) == []
    for licence, words in (
        ([{"license": {"id": "GPL-3.0-only"}}], "GPL-3.0-only is not allowed"),
        ([{"expression": "MIT AND GPL-3.0-only"}], "is not allowed"),
        ([{"license": {"name": "as you like"}}], "names no licence"),
        ([], "names no licence"),
    ):
        (found,) = licence_findings({"components": [{"name": "new", "version": "1", "licenses": licence}]}, table)
        assert words in found
    fine = [{"name": "new", "version": "1", "licenses": [{"expression": "GPL-2.0-only OR MIT"}]}]
    assert licence_findings({"components": fine}, table) == []
    changed = [{"name": "psycopg", "version": "9", "licenses": [{"license": {"id": "GPL-3.0-only"}}]}]
    assert "for another licence" in licence_findings({"components": changed}, table)[0]

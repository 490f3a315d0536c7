"""An audit is green only for what a service answered about or somebody read lately; what it finds, and what nobody
answered, it says."""

import json
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy.release.audit import Code, ask, read_answer, verdict
from deploy.release.lock import CUDA, LOCKED, ROOT, TORCH, pins
from deploy.release.readings import Readings, accepted, is_accepted, known_advisories, read_about, table
from deploy.release.sbom import describe, licence_findings, licence_table, product_packages, write_sbom

TABLE: dict[str, Any] = table()
LOCK = {name: version for file in (CUDA, LOCKED, TORCH) for name, version in pins((ROOT / file).read_text()).items()}
TODAY = date(2026, 11, 26)
SMALL: dict[str, Any] = {
    "valid_days": 90,
    "source": {"new": {"newest": date(2026, 11, 1)}, "old": {"newest": date(2024, 2, 5)}},
    "reading": {
        "a": {"version": "1", "read_on": TODAY, "read_in": ["old", "new"]},
        "b": {"version": "1", "read_on": TODAY, "read_in": ["old"]},
    },
    "advisory": [
        {"id": "CVE-1", "package": "a", "last_affected": "1", "summary": "is bad", "accepted": "not called"},
        {"id": "CVE-2", "package": "a", "fixed": "1", "summary": "was bad", "accepted": "not called"},
        {"id": "CVE-3", "package": "a", "last_affected": "1", "summary": "is worse"},
    ],
}


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


def test_an_audit_is_green_where_a_service_or_a_reading_answered_and_says_which(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert int(verdict([], {"a", "b"}, set(), Readings())) == 0
    assert "2 were answered for by a service, none by a reading." in (said := capsys.readouterr().out)
    assert "GREEN: every check was made" in said
    read = Readings(counted={"a": date(2026, 11, 1)})
    assert verdict([], {"a", "b"}, {"a", "tool"}, read) == Code.GREEN
    said = capsys.readouterr().out
    assert "Of 2 packages of the product, 1 were answered for by a service, 1 by a reading alone" in said
    assert "nothing after 2026-11-01" in said
    assert "GREEN by reading, not by a service" in said
    assert "No service answered for 1 tools of developers" in said


@pytest.mark.parametrize("readings", [Readings(), Readings(refused={"a": "a 1: nobody has read about it"})])
def test_an_audit_is_not_green_where_nobody_answered(readings: Readings, capsys: pytest.CaptureFixture[str]) -> None:
    assert int(verdict([], {"a", "b"}, {"a"}, readings)) == int(Code.NOT_ANSWERED) == 3
    assert "This audit is not green" in (said := capsys.readouterr().out)
    assert all(f"NOT ANSWERED FOR: {one}" in said for one in readings.refused.values())
    assert verdict(["x"], {"a", "b"}, {"a"}, readings) == verdict(["x"], {"a"}, set(), Readings()) == Code.FOUND


def test_a_reading_counts_for_its_version_alone_and_is_as_old_as_the_newest_text_of_its_sources() -> None:
    locked = {"a": "1", "b": "1", "c": "1"}
    found = read_about(locked, locked, SMALL, TODAY)
    assert found.counted == {"a": date(2026, 11, 1)}
    assert found.refused["b"].startswith("b 1: the reading knows nothing after 2024-02-05")
    assert found.refused["c"] == "c 1: nobody has read about it"
    other = read_about({"a"}, locked | {"a": "2"}, SMALL, TODAY)
    assert (other.counted, other.refused) == ({}, {"a": "a 2: the reading is about 1"})
    last_day = date(2026, 11, 1) + timedelta(days=90)
    assert read_about({"a"}, locked, SMALL, last_day).counted
    assert read_about({"a"}, locked, SMALL, last_day + timedelta(days=1)).refused


def test_an_advisory_that_was_read_is_found_without_a_reason_and_a_service_that_contradicts_a_reading_wins() -> None:
    locked = {"a": "1"}
    assert known_advisories(locked, SMALL) == ["a 1: CVE-3, is worse"]
    assert is_accepted("a 1: PYSEC-9, CVE-1, fixed in no version", locked, SMALL)
    for contradiction in (
        "a 1: CVE-2, fixed in 3",  # the table says that 1 is free of it
        "a 1: CVE-3, fixed in 3",  # nobody accepted it
        "a 1: CVE-4, fixed in 3",  # nobody read of it
        "a 1: CVE-11, fixed in 3",
        "b 1: CVE-1, fixed in 3",  # accepted for another package
        "a 2: CVE-1, fixed in 3",
    ):
        assert not is_accepted(contradiction, locked, SMALL), contradiction


def test_each_package_of_the_product_has_a_reading_of_its_locked_version_in_known_sources() -> None:
    wanted = product_packages() | set(pins((ROOT / CUDA).read_text()))
    assert read_about(wanted, LOCK, TABLE, TODAY).refused == {}
    assert set(TABLE["reading"]) == wanted, "a reading of a package that is no part of the product"
    newest = {name: source["newest"] for name, source in TABLE["source"].items()}
    assert all(set(row["read_in"]) <= set(newest) for row in TABLE["reading"].values())
    assert all(one["what"] for one in TABLE["source"].values())
    assert max(newest.values()) <= max(row["read_on"] for row in TABLE["reading"].values())


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
    assert {one["package"] for one in TABLE["advisory"]} <= set(LOCK), "a row of a package that is not used any more"
    assert known_advisories(LOCK, TABLE) == []
    (found,) = known_advisories({**LOCK, "pydicom": "3.0.1"}, TABLE)
    assert found.startswith("pydicom 3.0.1: CVE-2026-32711")
    assert known_advisories({**LOCK, "pydicom": "1.4.2"}, TABLE) == []
    told = [one for one in accepted(LOCK, TABLE) if "CVE-2026-56445" in one]
    assert "the node does not run pynetdicom's applications" in told[0]
    assert not any("pynetdicom 3.0.5" in one for one in accepted({**LOCK, "pynetdicom": "3.0.5"}, TABLE))


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
    assert {"pydicom", "torch", "psycopg", "requests", "starlette", "mako", "sympy"} <= names
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

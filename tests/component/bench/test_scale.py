"""Promises of `make scale`: a figure stands beside its aim, a miss or a fault ends it with 1, services are real."""

import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from sqlalchemy import create_engine, text

from bench.gpu.report import Section
from bench.scaled.__main__ import ORDER, SECTIONS, main
from bench.scaled.figures import figure
from bench.scaled.services import Services


def run(tmp_path: Path, *, short: bool = True, **sections: Any) -> tuple[int, dict[str, Any]]:
    code = main([*(["--short"] if short else []), "--out", str(tmp_path)], sections)
    (path,) = tmp_path.glob("scale-*.json")
    report: dict[str, Any] = json.loads(path.read_text())
    return code, report


def test_a_figure_stands_in_table_and_report_beside_its_aim(tmp_path: Path, capsys: Any) -> None:
    def some(section: Section, _services: Services, *, short: bool) -> None:
        figure(section, "jobs ls, query over 100000 jobs: s", 0.1)
        figure(section, "a count", 3 if short else 4)

    code, report = run(tmp_path, some=some)
    assert code == 0
    assert report["finished"]
    assert report["sections"]["some"]["checks"][0]["passed"]
    assert report["machine"]["versions"]["numpy"]
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "some jobs ls, query over 100000 jobs: s 0.1 s <= 0.2 yes" in printed
    assert "some a count 3 - -" in printed


def test_a_missed_aim_and_a_fault_end_with_1_and_the_other_sections_still_run(tmp_path: Path) -> None:
    def missed(section: Section, _services: Services, *, short: bool) -> None:
        figure(section, "jobs ls, query over 100000 jobs: s", 0.3)

    def broken(section: Section, _services: Services, *, short: bool) -> None:
        raise RuntimeError("no PostgreSQL here")

    code, report = run(tmp_path, short=False, broken=broken, missed=missed)
    assert code == 1
    assert "no PostgreSQL here" in report["sections"]["broken"]["error"]
    assert not report["sections"]["missed"]["passed"]


def test_a_section_has_the_services_that_it_asks_for(tmp_path: Path) -> None:
    def asks(section: Section, services: Services, *, short: bool) -> None:
        engine = create_engine(services.new_database("mine"))
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW fsync")) == "on"
        engine.dispose()
        with urlopen(services.s3, timeout=10) as answer:
            figure(section, "status", answer.status)

    code, report = run(tmp_path, asks=asks)
    assert code == 0, report["sections"]["asks"]["error"]
    assert report["sections"]["asks"]["rows"] == [{"figure": "status", "value": 200.0}]


def test_the_rehearsal_of_the_cheap_sections_comes_to_its_end(tmp_path: Path) -> None:
    """`make scale SHORT=1` does all: nodes, Ray and many workers; tests/torture and tests/gpu have parts of those."""
    assert SECTIONS == ORDER
    assert main(["--short", "--out", str(tmp_path), "--only", "claims", "million"]) == 0
    (path,) = tmp_path.glob("scale-*.json")
    sections = json.loads(path.read_text())["sections"]
    assert {name: section["error"] for name, section in sections.items()} == {"claims": None, "million": None}
    assert [check["name"] for check in sections["claims"]["checks"]] == [
        "claims, SQLite, 2 processes: jobs per s",
        "claims, PostgreSQL, 2 processes: jobs per s",
    ]
    asked = {row["figure"] for row in sections["million"]["rows"]}
    assert {"300 jobs, jobs ls: s", "300 jobs, worker, a claim: s", "300 jobs, page, lights made anew: s"} <= asked


def test_a_rehearsal_fails_by_an_error_and_not_by_its_figures(tmp_path: Path, capsys: Any) -> None:
    def missed(section: Section, _services: Services, *, short: bool) -> None:
        figure(section, "jobs ls, query over 100000 jobs: s", 0.3)

    assert run(tmp_path, missed=missed)[0] == 0
    assert "a rehearsal" in capsys.readouterr().out

"""`jobs logs`: what all processes wrote about one series."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from tests.builders import make_series
from tests.component.node.test_rebuild import judge, keep, translate


@pytest.fixture
def two_series(config: Path, tiny_bundle: Path, tmp_path: Path, log_folder: Path) -> Path:
    """The log of a node that made two series; the first is job 1."""
    config.write_text(config.read_text() + f'\n[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n')
    with open_store(load_settings(config)) as node:
        for name in ("one", "two"):
            keep(node, make_series(tmp_path / name, seed=name))
        judge(node)
        translate(node)
    return log_folder


def line(second: int, **fields: Any) -> str:
    facts = {"time": f"2099-01-01T00:00:{second:02d}.000Z", "level": "INFO", "name": "1", "pid": 1}
    return json.dumps({**facts, "role": "deliver", "event": "e", "message": f"line {second}", **fields}) + "\n"


def test_the_lines_of_one_series_from_all_processes_and_of_no_other(run: Any, two_series: Path) -> None:
    (two_series / "deliver-1.jsonl").write_text(line(2, case="1") + line(3, case="2") + line(1, association=1))
    code, out, err = run("jobs", "logs", "1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [text.split()[3] for text in lines[:5]] == [
        *("series_complete", "job_claimed", "bundle_unproven", "worker_ready", "job_produced")
    ]
    assert [text.split("  ")[1] for text in lines[5:]] == ["line 1", "line 2"]
    claimed = json.loads(run("jobs", "logs", "1", "--json")[1])[1]
    assert (claimed["case"], claimed["job"], claimed["role"], claimed["event"]) == ("1", 1, "work", "job_claimed")
    by_uid = run("jobs", "logs", claimed["series_uid"])[1].splitlines()
    assert by_uid == [text for text in lines if "series_uid=" in text]


def test_it_reads_what_is_left_of_damaged_files_and_says_so(run: Any, two_series: Path) -> None:
    with (two_series / "work-1.jsonl").open("a") as file:
        file.write(line(1, case="1")[:50] + "\n")
    code, out, err = run("jobs", "logs", "1")
    assert code == 0
    assert "job_claimed" in out
    assert err == "damaged lines that were passed over: 1\n"


def test_where_nothing_is_found_it_says_where_it_looked(run: Any, config: Path, held: Any) -> None:
    code, out, err = run("jobs", "logs", "1")
    assert (code, out) == (0, "")
    assert str(config.parent / "syncect-data" / "log") in err.replace("\n", "")
    config.write_text("[log]\nfiles = false\n" + config.read_text())
    assert "log.files = false" in run("jobs", "logs", "1")[2]
    assert run("jobs", "logs", "1", "--since", "1h", "--json")[:2] == (0, "[]\n")


def test_a_job_that_is_not_there_and_a_time_that_is_none(run: Any, held: Any) -> None:
    assert run("jobs", "logs", "77")[0] == 3
    assert run("jobs", "logs", "1", "--since", "yesterday")[0] == 2


def test_a_series_uid_needs_no_store(run: Any, two_series: Path) -> None:
    uid = json.loads(run("jobs", "logs", "1", "--json")[1])[0]["series_uid"]
    (two_series.parent / "syncect.sqlite3").write_bytes(b"no database" * 1000)
    assert run("jobs", "logs", "1")[0] == 1
    code, out, _ = run("jobs", "logs", uid)
    assert code == 0
    assert "job_claimed" in out


def test_followed_lines_come_until_it_is_interrupted(
    run: Any, two_series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([line(1, case="1") + line(2, case="2"), line(3, case="1")])

    def a_turn(_seconds: float) -> None:
        with (two_series / "work-1.jsonl").open("a") as file:
            if (new := next(turns, None)) is None:
                raise KeyboardInterrupt
            file.write(new)

    monkeypatch.setattr(time, "sleep", a_turn)
    code, out, _ = run("jobs", "logs", "1", "--follow", "--json")
    assert code == 130
    assert [json.loads(text)["message"] for text in out.splitlines()][-2:] == ["line 1", "line 3"]


def test_fifty_megabytes_are_read_in_seconds(run: Any, two_series: Path) -> None:
    text = "".join(line(number % 60, case=str(number + 10), series_uid=f"1.2.3.{number}") for number in range(5000))
    for number in range(1, 6):
        (two_series / f"work-1.jsonl.{number}").write_text(text * 12)
    assert sum(path.stat().st_size for path in two_series.iterdir()) > 50e6
    begin_s = time.process_time()
    code, out, _ = run("jobs", "logs", "1")
    assert (code, len(out.splitlines())) == (0, 5)
    assert time.process_time() - begin_s < 5

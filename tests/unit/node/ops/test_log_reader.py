"""The lines of one series, out of the files of all processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from node.ops.log_reader import LogReader, Wanted

UID, OTHER = "1.2.3", "1.2.33"
WANTED = Wanted(
    {
        "case": frozenset({"12"}),
        "job": frozenset({"5"}),
        "delivery": frozenset({"8"}),
        "series_uid": frozenset({UID}),
        "derived_series_uid": frozenset({"2.25.5"}),
        "series": frozenset({"12"}),
        "association": frozenset({"3"}),
    },
    UID,
)


def text(second: int, **fields: Any) -> str:
    facts = {"level": "INFO", "role": "work", "event": "e", "message": f"at {second}"}
    return json.dumps({"time": f"2026-11-26T12:00:{second:02d}.000Z", **facts, **fields}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def said(lines: list[dict[str, Any]]) -> list[str]:
    return [line["message"] for line in lines]


@pytest.mark.parametrize(
    ("fields", "is_ours"),
    [
        ({"case": "12"}, True),
        ({"case": "12-2", "series_uid": UID}, False),
        ({"case": "120"}, False),
        ({"job": 5}, True),
        ({"job": 55}, False),
        ({"job": 5, "series_uid": OTHER}, False),
        ({"job": 6, "series_uid": UID}, False),
        ({"series_uid": UID}, True),
        ({"series_uid": OTHER}, False),
        ({"series_uid": OTHER, "association": 3}, False),
        ({"association": 3}, True),
        ({"delivery": 8}, True),
        ({"derived_series_uid": "2.25.5"}, True),
        ({"series": 12}, True),
        ({}, False),
    ],
)
def test_the_most_exact_id_of_a_line_decides(folder: Path, fields: dict[str, Any], is_ours: bool) -> None:
    (folder / "work-1.jsonl").write_text(text(1, **fields))
    assert bool(LogReader(folder, WANTED).read()) is is_ours


def test_files_of_all_processes_are_merged_by_time_with_those_put_aside(folder: Path) -> None:
    (folder / "receive-1.jsonl").write_text(text(1, series_uid=UID) + text(4, series_uid=UID))
    (folder / "work-1.jsonl.1").write_text(text(2, job=5))
    (folder / "work-1.jsonl").write_text(text(3, job=5) + text(3, job=6))
    (folder / "notes.txt").write_text("mine")
    reader = LogReader(folder, WANTED)
    assert said(reader.read()) == ["at 1", "at 2", "at 3", "at 4"]
    assert len(reader.files) == 3
    assert said(LogReader(folder, WANTED, since="2026-11-26T12:00:03.000Z").read()) == ["at 3", "at 4"]


def test_damaged_lines_are_passed_over_and_counted(folder: Path) -> None:
    whole = text(1, job=5)
    damaged = [
        whole[:40] + "\n",
        "\x00" * 30 + "\n",
        '{"job": 5, \n',
        '{"job": 5, x}\n',
        '{"job": 5}\n',
        "[" * 5000 + "\n",
        '{"job": 5, "a": ' + "[" * 100000 + "}\n",
        "\n",
    ]
    (folder / "work-1.jsonl").write_text("".join(damaged) + whole + text(2, job=5)[:30])
    reader = LogReader(folder, WANTED)
    assert said(reader.read()) == ["at 1"]
    assert reader.damaged == len(damaged) - 1, "an empty line says nothing, and the last one is not whole yet"


def test_new_lines_are_followed_across_a_rotation_and_a_new_process(folder: Path) -> None:
    path = folder / "work-1.jsonl"
    path.write_text(text(1, job=5) + text(2, job=5)[:20])
    reader = LogReader(folder, WANTED)
    assert said(reader.read()) == ["at 1"]
    with path.open("a") as file:
        file.write(text(2, job=5)[20:] + text(3, job=6))
    assert said(reader.read()) == ["at 2"]
    with path.open("a") as file:
        file.write(text(4, job=5))
    path.rename(folder / "work-1.jsonl.1")
    path.write_text(text(5, job=5))
    (folder / "deliver-1.jsonl").write_text(text(6, delivery=8))
    assert said(reader.read()) == ["at 4", "at 5", "at 6"]
    assert reader.read() == []
    reader.close()


def test_a_folder_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    reader = LogReader(tmp_path / "log", WANTED)
    assert reader.read() == []
    assert reader.files == []


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_read(folder: Path) -> None:
    (folder / "work-1.jsonl").write_text(text(1, job=5))
    (folder / "receive-1.jsonl").mkdir()
    reader = LogReader(folder, WANTED)
    assert said(reader.read()) == ["at 1"]
    assert reader.unreadable == [f"{folder / 'receive-1.jsonl'}: Is a directory"]

"""The file in which a process keeps its lines: appended, bounded, and no trouble to the process."""

import errno
import io
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from node.ops.log_files import LogFile
from node.ops.log_limits import LimitedHandler, RepeatFilter
from node.ops.log_lines import line_formatter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "work-1.jsonl"


def opened(path: Path, max_bytes: int = 10**6, files: int = 5) -> LogFile:
    file = LogFile(path, max_bytes, files)
    file.setFormatter(line_formatter("json", "work"))
    return file


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("node", logging.INFO, "", 0, text, None, None)


def said(path: Path) -> list[str]:
    return [json.loads(line)["message"] for line in path.read_text().splitlines()]


def test_file_and_folder_are_for_this_user_alone(path: Path) -> None:
    opened(path).handle(record("one"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_after_a_kill_within_a_line_the_next_start_appends_on_a_line_of_its_own(path: Path) -> None:
    opened(path).handle(record("one"))
    with path.open("a") as file:
        file.write('{"time": "2026')
    opened(path).handle(record("two"))
    first, broken, second = path.read_text().splitlines()
    assert json.loads(first)["message"] == "one"
    assert broken == '{"time": "2026'
    assert json.loads(second)["message"] == "two"


def test_all_files_together_are_bounded_and_no_line_is_cut(path: Path) -> None:
    file = opened(path, max_bytes=2000, files=3)
    for number in range(200):
        file.handle(record(f"line {number}"))
    kept = sorted(path.parent.iterdir())
    assert [one.name for one in kept] == ["work-1.jsonl", "work-1.jsonl.1", "work-1.jsonl.2"]
    assert sum(one.stat().st_size for one in kept) <= 3 * 2000
    assert said(path)[-1] == "line 199"
    assert all(said(one) for one in kept)


@pytest.mark.parametrize("how", ["folder removed", "file renamed"])
def test_what_somebody_removes_is_made_again(path: Path, how: str) -> None:
    file = opened(path)
    file.handle(record("one"))
    if how == "folder removed":
        path.unlink()
        path.parent.rmdir()
    else:
        path.rename(path.with_suffix(".old"))
    file.handle(record("two"))
    assert said(path) == ["two"]


def test_a_data_directory_that_is_gone_is_not_made_again(path: Path) -> None:
    file = opened(path.parent / "not mounted" / "log" / "work-1.jsonl")
    file.handle(record("one"))
    assert not path.parent.exists()


class Process:
    """Standard error and file of a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handler = LimitedHandler(RepeatFilter())
        self.handler.setFormatter(line_formatter("console", "work"))
        self.handler.stream = self.stderr = io.StringIO()
        self.handler.file = opened(path)

    def say(self, text: str) -> None:
        self.handler.handle(record(text))


def test_a_file_that_cannot_be_written_is_told_once_and_its_lines_are_counted(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")
    one = Process(path)
    for number in range(20):
        one.say(f"line {number}")
    lines = one.stderr.getvalue().splitlines()
    assert len(lines) == 21
    assert "log_file_failed" in lines[1]
    assert str(path) in lines[1]
    path.parent.unlink()
    one.say("line 20")
    assert said(path) == ["line 20", "20 lines before this one could not be written"]
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("again")
    one.say("line 21")
    assert one.stderr.getvalue().count("log_file_failed") == 2


def test_a_full_disk_costs_lines_and_no_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Process(path)
    one.say("before")

    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("logging.StreamHandler.flush", no_room)
        for number in range(3):
            one.handler.file.handle(record(f"line {number}"))  # type: ignore[union-attr]
    one.say("after")
    assert said(path)[0] == "before"
    assert "3 lines before this one could not be written" in said(path)
    assert capsys.readouterr().err == ""

"""The log of a process follows the settings."""

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.settings import LogSettings
from node.ops.log import configure_logging, keep_log_file

log = logging.getLogger("node.test")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    root.handlers[:], root.level = handlers, level


def written(capsys: pytest.CaptureFixture[str], settings: LogSettings, folder: Path) -> str:
    configure_logging("work", settings, name="gpu2")
    keep_log_file("work", settings, folder, name="gpu2")
    log.info("job %d claimed", 5, extra={"event": "job_claimed", "job": 5})
    return capsys.readouterr().err


def test_people_read_text_and_the_file_has_the_same_line_as_json(capsys: Any, tmp_path: Path) -> None:
    line = written(capsys, LogSettings(), tmp_path)
    assert line.endswith(" INFO work-gpu2 job_claimed  job 5 claimed  [job=5]\n")
    kept = json.loads((tmp_path / "log" / "work-gpu2.jsonl").read_text())
    assert (kept["role"], kept["name"], kept["event"], kept["job"]) == ("work", "gpu2", "job_claimed", 5)


def test_a_collector_reads_json_and_no_file_is_written_where_none_is_wanted(capsys: Any, tmp_path: Path) -> None:
    line = json.loads(written(capsys, LogSettings(format="json", files=False), tmp_path))
    assert (line["level"], line["message"]) == ("INFO", "job 5 claimed")
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_hands_over_wrong_values_ends_nothing(capsys: Any, tmp_path: Path) -> None:
    configure_logging("work", LogSettings())
    keep_log_file("work", LogSettings(), tmp_path)
    log.info("%d", "no number", extra={"event": "job_claimed"})
    log.info("next", extra={"event": "job_claimed", "job": object()})
    assert "next" in capsys.readouterr().err

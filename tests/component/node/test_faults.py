"""Whatever is wrong around a command, its answer is sentences and an exit code: never a traceback."""

import errno
import hashlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

import models
from models.phantom.patient import make_patient
from node.cli import boundary
from node.dicom.quiet import quiet_pydicom
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.operate.doctor.table import CHECKS
from node.version import find_build
from tests.builders import make_series, put_raw

Run = Callable[..., tuple[int, str, str]]
DOWN = "postgresql+psycopg://me:secret@127.0.0.1:1/db"

READERS: list[tuple[str, ...]] = [
    ("jobs", "ls"),
    ("jobs", "show", "1"),
    ("jobs", "why", "1"),
    ("jobs", "events", "1"),
    ("status",),
    ("status", "--json"),
    ("series", "check", "1.2.3"),
    ("db", "current"),
    ("alerts", "ls"),
]
WRITERS: list[tuple[str, ...]] = [("jobs", "retry", "1"), ("jobs", "release", "1", "--reason", "r"), ("db", "upgrade")]
DAEMONS: list[tuple[str, ...]] = [
    ("serve",),
    ("receive",),
    ("complete",),
    ("work",),
    ("deliver",),
    ("watch",),
    ("query",),
]
WITHOUT_STORE: list[tuple[str, ...]] = [
    ("config", "show"),
    ("config", "validate"),
    ("peers", "ls"),
    ("models", "ls"),
    ("doctor",),
]


def garbage(config: Path) -> None:
    (config.parent / "syncect-data" / "syncect.sqlite3").write_bytes(b"this is no database" * 300)


def a_folder_for_a_file(config: Path) -> None:
    (config.parent / "syncect-data" / "syncect.sqlite3").unlink()
    (config.parent / "syncect-data" / "syncect.sqlite3").mkdir()


def newer_schema(config: Path) -> None:
    with sqlite3.connect(config.parent / "syncect-data" / "syncect.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


def no_server(config: Path) -> None:
    config.write_text(f'[node]\ndatabase_url = "{DOWN}"\n')


def no_url(config: Path) -> None:
    config.write_text('[node]\ndatabase_url = "postgres:me:secret@h"\n')


def a_file_for_a_folder(config: Path) -> None:
    (config.parent / "file").write_text("")
    config.write_text('[node]\ndata_dir = "file"\n')


def no_such_folder(config: Path) -> None:
    config.write_text('[node]\ndata_dir = "/proc/nowhere"\n')


FAULTS = [garbage, a_folder_for_a_file, newer_schema, no_server, no_url, a_file_for_a_folder, no_such_folder]


def answered_in_sentences(code: int, out: str, err: str) -> None:
    """Nothing but what an operator can read."""
    assert code in range(6)
    for text in (out, err):
        assert "Traceback" not in text
        assert "fault in syncect" not in text
        assert "sqlalche" not in text
        assert "[Errno" not in text
        assert "secret" not in text
    if code not in (0, 3) and not out:
        assert err.startswith(("syncect: ", "Usage: ", "there is no store at "))


class StoppedAtTheFirstPause(threading.Event):
    """The stop of a daemon that would try again and again."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """The daemons leave signals and log of the test process as they are; what is tried again is tried only once.

    The doctor does not ask torch for the device, which no fault here has to do with: to load it takes seconds.
    """
    monkeypatch.setattr("node.operate.doctor.run.CHECKS", [one for one in CHECKS if one.name != "device"])
    monkeypatch.setattr("node.ops.log.configure_logging", lambda *_args, **_kwargs: None)
    monkeypatch.setattr("node.cli.service.stop_event", lambda **_kwargs: StoppedAtTheFirstPause())


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("command", READERS + WRITERS + DAEMONS + WITHOUT_STORE, ids=" ".join)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_command_answers_every_fault_in_sentences(
    run: Run, config: Path, fault: Callable[[Path], None], command: tuple[str, ...]
) -> None:
    fault(config)
    code, out, err = run(*command)
    answered_in_sentences(code, out, err)
    if command == ("serve",) and fault not in (newer_schema, no_url):
        assert code == 0, "it tried again until it was stopped: the fault may pass"
    elif command in WRITERS + DAEMONS or command[0] in ("status", "doctor"):
        assert code != 0


@pytest.mark.parametrize("target", ["/proc/none", "nowhere/file", "file/below"])
@pytest.mark.parametrize("command", [("config", "init"), ("db", "backup")], ids=" ".join)
def test_a_target_that_cannot_be_written(
    run: Run, config: Path, tmp_path: Path, monkeypatch, command: tuple[str, ...], target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    code, out, err = run(*command, target)
    answered_in_sentences(code, out, err)
    assert code == 1
    assert err.startswith(f"syncect: {target}: ")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    hu = make_patient(1, slices=10, rows=64, spacing_mm=(5.0, 5.0, 5.0)).ncct_hu
    write_scan(hu, (5.0, 5.0, 5.0), folder, ScanIdentity("FAULT", "Fault^Phantom", "fault"))
    return folder


@pytest.mark.parametrize("target", ["/proc/none", "file/below"])
def test_a_result_that_could_not_be_written_is_not_computed(
    run: Run, config: Path, scan: Path, tmp_path: Path, monkeypatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("node.cli.offline.open_executor", lambda _model: pytest.fail("the bundle was loaded"))
    code, out, err = run("process", scan, "--out", target)
    answered_in_sentences(code, out, err)
    assert (code, err.startswith(f"syncect: {target} cannot be written: ")) == (1, True)


def test_a_folder_without_series_is_no_verdict(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run("series", "check", tmp_path / "empty")
    assert (code, out, err.endswith("empty holds no DICOM series\n")) == (3, "", True)


# -- output ----------------------------------------------------------------------------------------------------


def syncect(*arguments: str, config: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "node.cli", "--config", str(config), *arguments]
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(command, env=environment, check=False, stderr=subprocess.PIPE, timeout=60, **options)


@pytest.mark.parametrize("arguments", [("jobs", "ls"), ("jobs", "show", "1"), ("jobs", "ls", "--json"), ("status",)])
def test_an_output_without_the_characters_of_the_text(held: None, config: Path, arguments: tuple[str, ...]) -> None:
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    answer = syncect(*arguments, config=config, env=env, stdout=subprocess.PIPE)
    assert answer.returncode == (2 if arguments == ("status",) else 0)
    assert answer.stderr == b""
    answer.stdout.decode("ascii")
    if "--json" in arguments:
        assert b"\\u2026" in answer.stdout  # the dots of a masked patient ID are kept where they can be


def test_a_reader_that_has_read_enough_is_no_error(held: None, config: Path) -> None:
    for arguments in (("jobs", "ls"), ("jobs", "ls", "--json"), ("config", "init"), ("--help",)):
        reader, writer = os.pipe()
        os.close(reader)
        try:
            answer = syncect(*arguments, config=config, stdout=writer)
        finally:
            os.close(writer)
        assert (answer.returncode, answer.stderr) == (0, b""), arguments


def test_a_full_disk_behind_the_output_is_told(held: None, config: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        answer = syncect("jobs", "ls", config=config, stdout=full)
    assert (answer.returncode, answer.stderr) == (1, b"syncect: the system answered: No space left on device\n")


def test_ctrl_c_is_one_line_and_130(config: Path) -> None:
    command = [sys.executable, "-P", "-m", "node.cli", "--config", str(config), "status", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=60)
    assert (watching.returncode, err) == (130, b"syncect: interrupted\n")


# -- what nobody expected --------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch, tmp_path: Path) -> Path:
    """`peers ls` has a fault; returns the folder where its details go."""

    def fail(*_args: object) -> None:
        raise ZeroDivisionError("patient MRN0012345")

    monkeypatch.setattr("node.cli.status.settings_from", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    return tmp_path / "temp"


def test_a_fault_of_ours_names_its_type_and_the_file_with_its_details(run: Run, config: Path, broken: Path) -> None:
    code, _, err = run("peers", "ls")
    answer = re.fullmatch(
        r"syncect: this is a fault in syncect: an unexpected ZeroDivisionError\. Its details are in (\S+); "
        r"please report them\n",
        err,
    )
    assert answer is not None
    assert code == 1
    (path,) = broken.iterdir()
    assert answer[1] == str(path)
    assert "ZeroDivisionError: patient" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    run("peers", "ls")
    assert list(broken.iterdir()) == [path]  # the same fault, the same file


def test_the_details_of_a_fault_are_printed_where_they_are_asked_for(
    run: Run, config: Path, broken: Path, monkeypatch
) -> None:
    monkeypatch.setenv(boundary.TRACEBACK_VARIABLE, "1")
    code, _, err = run("peers", "ls")
    assert (code, "Traceback" in err, list(broken.iterdir())) == (1, True, [])


def test_details_that_cannot_be_kept_say_so(run: Run, config: Path, broken: Path) -> None:
    broken.rmdir()
    code, _, err = run("peers", "ls")
    assert (code, f"{boundary.TRACEBACK_VARIABLE}=1 prints them" in err) == (1, True)


def test_a_full_disk_is_no_fault_of_ours_either(run: Run, config: Path, broken: Path, monkeypatch) -> None:
    def fail(*_args: object) -> None:  # as pydicom does
        raise OSError("With tag (7FE0,0010) got exception") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("node.cli.status.settings_from", fail)
    assert run("peers", "ls") == (1, "", "syncect: the system answered: No space left on device\n")


def test_the_version_is_printed_and_shells_can_complete(run: Run) -> None:
    code, out, _ = run("--version")
    first, commit, *rest = out.splitlines()
    assert (code, first) == (0, f"syncect {find_build().version}")
    assert re.fullmatch(r"commit ([0-9a-f]{40}|unknown)(, and files that were changed since)?", commit)
    for path, card in models.list_bundles():
        weights = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()[:12]
        assert f"shipped bundle {card.name} {card.version} ({card.digest[:12]}), weights {weights}" in rest
    assert rest[-1].startswith("model.bundle: ")
    assert "--install-completion" in run("--help")[1]


@pytest.mark.parametrize("width", ["", "abc", "0", "1", "-5", "²", "٤٠", "8e1"])
@pytest.mark.parametrize("command", [("jobs", "ls"), ("jobs", "show", "1"), ("peers", "ls")], ids=" ".join)
def test_a_width_that_is_no_use_counts_as_none(
    run: Run, held: None, monkeypatch: pytest.MonkeyPatch, width: str, command: tuple[str, ...]
) -> None:
    def answer(columns: str | None) -> tuple[int, str, str]:
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", columns)
        return run(*command)

    for _ in range(20):  # an age or a time that is left may change between two answers, and a column's width with it
        before, seen, after = answer(None), answer(width), answer(None)
        if before == after:
            break
    assert (seen, seen[0]) == (before, 0)


def test_warnings_of_libraries_are_no_business_of_an_operator(run: Run, tmp_path: Path) -> None:
    for path in make_series(tmp_path / "scan", slices=3):
        with quiet_pydicom():
            ds = dcmread(path)
            put_raw(ds, "SpecificCharacterSet", b"LATIN17 ")
            ds.save_as(path)
    code, _, err = run("series", "check", tmp_path / "scan")
    assert (code, err) == (4, "")


def test_states_may_end_with_a_comma(run: Run, held: None) -> None:
    assert run("jobs", "ls", "-q", "--state", "held, ") == (0, "1\n", "")


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_ends_no_command(held: None, closed: str) -> None:
    command = f"exec {sys.executable} -m node.cli jobs ls {closed}"
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert ("HELD" in answer.stdout) == (">&- " not in f"{closed} ".replace("2>&-", ""))

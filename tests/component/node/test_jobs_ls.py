"""`jobs ls` at every width of a terminal, through every filter, and as CSV, ids and JSON."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from node.cli.jobs_ls import _STYLES
from storage.jobs import Progress
from tests.departments import START

LONG = "the scan looks enhanced: 12 ml above 180 HU in the aorta, 130 HU on average, where a native scan has none"


@pytest.fixture
def busy(department):
    """One series in each state that a list shows, newest last."""
    department.held(LONG, description="Thorax native 3.0 B30f Planung Bestrahlung")
    department.sent(patient="A1", description="Becken")
    department.incomplete(description="Abdomen", patient="MRN0000077")
    department.failed(ae="CT_SIM_BASEMENT2")
    department.skipped(description="胸部 定位像")
    department.node.jobs.cancel(department.node.overview.case(department.sent()).job_id, "operator", "typo", START)
    department.arrive(description="Arriving")
    return department


def listed(run, monkeypatch, width, *options):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run("jobs", "ls", *options)
    assert code == 0
    return out.splitlines()


# -- widths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (80, "ID STATE PATIENT SERIES REASON"),
        (99, "ID STATE PATIENT SERIES REASON"),
        (100, "ID STATE AGE PATIENT SERIES REASON"),
        (110, "ID STATE AGE DUE PATIENT SERIES REASON"),
        (120, "ID STATE AGE DUE PATIENT SLICES SERIES REASON"),
        (132, "ID STATE AGE DUE PATIENT SLICES FROM SERIES REASON"),
        (200, "ID STATE AGE DUE ETA PATIENT SLICES FROM ROUTE SERIES REASON"),
    ],
)
def test_one_line_a_job_at_every_width(run, busy, monkeypatch, width, heads) -> None:
    lines = listed(run, monkeypatch, width)
    assert lines[0].split() == heads.split()
    assert [line.split()[0] for line in lines[1:]] == ["7", "6", "5", "4", "3", "2", "1"]
    assert max(map(cell_len, lines)) <= width
    assert "1.2.3" not in "".join(lines)
    held = lines[-1]
    assert re.search(r"HELD .*…45 .*1 CT CHEST.*the scan looks", held)
    assert "Thorax" not in "".join(lines)
    assert held.endswith("…") or LONG in held
    assert "needs a person: delete series" in lines[2]


def test_whoever_asks_for_texts_reads_them_at_every_width(run, busy, monkeypatch) -> None:
    for width in (80, 100, 120, 132):
        lines = listed(run, monkeypatch, width, "--phi")
        assert re.search(r"HELD .*MRN0012345 .*Thorax.*the scan looks", lines[-1])
        assert max(map(cell_len, lines)) <= width


def test_what_is_still_arriving_and_what_is_incomplete_show_whose_they_are(run, department, monkeypatch) -> None:
    department.incomplete(description="Abdomen", patient="MRN0000077")
    with department.node.database.write() as session:  # as the receiver writes it with the first instance
        from storage.tables import Series

        row = session.get_one(Series, 1)
        row.patient_id, row.description = "MRN0000077", "Abdomen"
        row.facts = {"series_number": 4, "modality": "CT"}
    (line,) = listed(run, monkeypatch, 80)[1:]
    assert re.match(r"1 +INCOMPLETE +…77 +4 CT +slices are missing", line)
    (line,) = listed(run, monkeypatch, 80, "--phi")[1:]
    assert re.match(r"1 +INCOMPLETE +MRN0000077 +Abdomen +slices are missing", line)


def test_a_running_job_shows_how_far_it_is(run, department, monkeypatch) -> None:
    department.running()
    now = datetime.now(UTC)
    progress = Progress("translate", 120, 300, now - timedelta(seconds=26.7))
    department.node.jobs.heartbeat(1, "w", 60, now, progress=progress)
    assert re.search(r"translate 120/300, about (39|[4-9]\d) s left", listed(run, monkeypatch, 80)[1])
    assert re.search(r"1 is RUNNING\. translate 120/300, about (39|[4-9]\d) s left\.", run("jobs", "why", "1")[1])
    assert json.loads(run("jobs", "ls", "--json")[1])[0]["progress"]["done"] == 120


def test_refused_instances_take_one_line_below(run, busy, monkeypatch) -> None:
    assert "refused" not in "".join(listed(run, monkeypatch, 80))
    busy.refuse(count=12)
    line = listed(run, monkeypatch, 80)[-1]
    assert line.startswith("12 instances were refused in 24 h, the newest ")
    assert "from CTSIM" in line
    assert cell_len(line) <= 80
    for option in ("--csv", "-q", "--json"):
        assert "refused in" not in run("jobs", "ls", option)[1]


def on_a_terminal(config, width: int, **environment: str) -> str:
    """What `jobs ls` writes to a real terminal of that width."""
    leader, follower = pty.openpty()
    variables = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "TERM")}
    command = [sys.executable, "-c", "from node.cli import main; main()", "jobs", "ls"]
    import fcntl
    import struct
    import termios

    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with subprocess.Popen(
        command,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=variables | {"TERM": "xterm-256color"} | environment,
    ) as process:
        os.close(follower)
        seen = b""
        try:
            while piece := os.read(leader, 65536):
                seen += piece
        except OSError:  # Linux tells the end of a terminal by EIO
            pass
        assert process.wait(60) == 0
    os.close(leader)
    return seen.decode()


def test_a_real_terminal_has_colours_and_one_line_a_job(busy, config) -> None:
    text = on_a_terminal(config, 80)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()]
    assert [line.split()[0] for line in lines] == ["ID", "7", "6", "5", "4", "3", "2", "1"]
    assert max(map(cell_len, lines)) <= 80
    assert "\x1b[31mFAILED" in text
    assert "\x1b[33mHELD" in text
    assert "\x1b[32mSENT" in text
    assert "\x1b[33mCANCELLED" in text  # it left something at the TPS


def test_no_color_means_no_escape_sequence(busy, config) -> None:
    assert "\x1b" not in on_a_terminal(config, 100, NO_COLOR="1")
    assert set(_STYLES) == {"FAILED", "HELD", "INCOMPLETE", "SENT", "CONFIRMED"}


# -- filters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], ["4", "3", "2", "1"]),
        (["--state", "held"], ["1"]),
        (["--state", "sent,FAILED"], ["3", "2"]),
        (["--patient", "mrn0012345"], ["1"]),
        (["--patient", "A?"], ["4", "2"]),
        (["--study", "1.2.2"], ["2"]),
        (["--series", "1.2.3.3"], ["3"]),
        (["--from", "CT2"], ["3"]),
        (["--to", "tps"], ["2"]),
        (["--bundle", "other"], ["4"]),
        (["--since", "2h"], ["4", "2", "1"]),
        (["--older", "2h"], ["3"]),
        (["--since", "3d", "--older", "1d"], ["3"]),
        (["--patient", "A*", "--state", "SENT"], ["2"]),
        (["--limit", "2"], ["4", "3"]),
        (["--patient", "nobody"], []),
        (["--stuck"], ["3"]),
    ],
)
def test_filters_choose_and_combine(run, department, options, ids) -> None:
    now = datetime.now(UTC)  # START may be long ago in a long run, and what came then is overdue
    department.held(at=now)
    department.sent(patient="A1", at=now)
    department.failed(ae="CT2", patient="B1", at=now - timedelta(days=2))
    department.queued(patient="A2", bundle="other 1 (d)", at=now)
    code, out, _ = run("jobs", "ls", "-q", *options)
    assert (code, out.split()) == (0, ids)


@pytest.mark.parametrize(
    "options",
    [
        ["--since", "yesterday"],
        ["--older", "2x"],
        ["--state", "SENDT"],
        ["--json", "--csv"],
        ["-q", "--csv"],
        ["--limit", "-1"],
    ],
)
def test_a_mistyped_filter_is_a_usage_error(run, department, options) -> None:
    assert run("jobs", "ls", *options)[0] == 2


# -- programs ------------------------------------------------------------------------------------------------------


def test_csv_has_one_line_a_job_and_no_formula(run, department) -> None:
    department.sent(description='=HYPERLINK("http://evil","x")', patient="+49123456")
    department.incomplete("slices, with\nbreaks")
    out = run("jobs", "ls", "--csv", "--phi")[1]
    second, first = csv.DictReader(io.StringIO(out))
    assert len(out.splitlines()) == 3
    assert first["description"].startswith("'=HYPERLINK")
    assert first["patient_id"] == "'+49123456"
    assert (first["received"], first["sent"], first["state"]) == ("3", "3", "SENT")
    assert second["reason"] == "slices, with breaks"
    assert datetime.fromisoformat(first["created_at"]).utcoffset() == timedelta(0)
    masked = run("jobs", "ls", "--csv")[1]
    assert "49123456" not in masked
    assert "HYPERLINK" not in masked
    row = list(csv.DictReader(io.StringIO(masked)))[-1]
    assert (row["description"], row["series_number"], row["body_part"]) == ("…", "1", "CHEST")
    assert row["acquired"] == "2026-11-26 08:30"
    assert run("jobs", "ls", "--csv", "--patient", "nobody")[1].startswith("id,state,reason,")


def test_json_has_what_is_new_beside_the_contract(run, department) -> None:
    department.sent(remarks=["a value was dropped"])
    (row,) = json.loads(run("jobs", "ls", "--json")[1])
    assert row["remarks"] == ["a value was dropped"]
    assert (row["version"], row["doubt"], row["override"], row["progress"]) == (1, "", "", None)
    assert (row["derived_series_number"], row["leftovers"]) == (301, [])


# -- when a result is due ------------------------------------------------------------------------------------------


def test_what_is_waited_for_shows_when_it_is_due_and_what_is_overdue(run, department, monkeypatch) -> None:
    came = datetime.now(UTC) - timedelta(seconds=61)
    wanted_s = (datetime.now(UTC) - START).total_seconds()
    department.failed(at=came - timedelta(minutes=26), route={"target_s": wanted_s - 12 * 60})
    department.sent()
    department.queued(at=came, route={"target_s": wanted_s + 14.3 * 60})
    queued, sent, failed = listed(run, monkeypatch, 132)[1:]
    assert re.match(r"1 +FAILED +27m +overdue 12 min +…45", failed)
    assert re.match(r"2 +SENT +\d+m +…45", sent)
    assert re.match(r"3 +QUEUED +1m +in 14 min +…45", queued)
    rows = {row["id"]: row for row in json.loads(run("jobs", "ls", "--json")[1])}
    assert (rows["2"]["due_at"], rows["2"]["eta_at"]) == (None, None)
    due_at = datetime.fromisoformat(rows["3"]["due_at"])
    assert abs(due_at - START - timedelta(seconds=wanted_s + 14.3 * 60)) < timedelta(seconds=1)
    assert [rows[key]["late"] for key in "123"] == [True, False, False]
    assert json.loads(run("jobs", "show", "3", "--json")[1])["due_at"] == rows["3"]["due_at"]
    assert re.search(r"due at +20", run("jobs", "show", "3")[1])


def test_an_end_is_told_only_where_it_was_measured(run, department, monkeypatch) -> None:
    department.queued()
    assert json.loads(run("jobs", "ls", "--json")[1])[0]["eta_at"] is None
    department.claim()
    department.node.jobs.cancel(1, "operator", "", START)
    department.sent()
    department.queued(route={"target_s": 86400.0})
    assert re.search(r"QUEUED +\d+m +in \d+ \w+ +about 1 s", listed(run, monkeypatch, 160)[1])
    assert json.loads(run("jobs", "ls", "--json")[1])[0]["eta_at"] > datetime.now(UTC).isoformat()[:10]

"""No text of a patient's images leaves the store and the spool unless `--phi` asks for it, whatever goes wrong."""

import json
import logging
import zipfile
from datetime import UTC, datetime, timedelta
from email import policy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from config.alerting import SmtpSettings
from config.load import load_settings
from node.bootstrap.store import Node, open_store
from node.bootstrap.watch import make_watch
from node.ops.alert_channels import Mail, Teller
from node.ops.alert_texts import Message
from node.ops.log_lines import line_formatter
from storage.tables import Event, Job
from tests.builders import make_series
from tests.component.node.test_rebuild import judge, keep, translate

CANARY = "CANARY"
TEXTS = {
    "PatientName": "CANARY^NAME",
    "PatientID": "CANARY-ID-77",
    "IssuerOfPatientID": "CANARY-ISSUER",
    "OtherPatientIDs": "CANARY-OTHER",
    "PatientComments": "CANARY comments",
    "AdditionalPatientHistory": "CANARY history",
    "StudyDescription": "CANARY study",
    "SeriesDescription": "Thorax CANARY^SERIES",
    "BodyPartExamined": "CANARY PART",
    "StudyID": "CANARY-STUDY",
    "AccessionNumber": "CANARY-ACC",
    "ReferringPhysicianName": "CANARY^REF",
    "PerformingPhysicianName": "CANARY^PERF",
    "OperatorsName": "CANARY^OP",
    "InstitutionName": "CANARY institution",
    "InstitutionalDepartmentName": "CANARY department",
    "StationName": "CANARY-STATION",
    "ProtocolName": "CANARY protocol",
    "ImageComments": "CANARY image",
    "RequestedProcedureDescription": "CANARY procedure",
    "DeviceSerialNumber": "CANARY-SERIAL",
}
READERS = [
    ("jobs", "ls"),
    ("jobs", "ls", "--json"),
    ("jobs", "ls", "--csv"),
    ("status",),
    ("status", "--json"),
    ("doctor",),
    ("alerts", "ls"),
    ("spool", "verify"),
    ("series", "rules"),
    ("jobs", "cancel", "--dry-run", "1", "2"),
    ("jobs", "retry", "--dry-run", "1", "2", "3", "4", "5", "6", "7"),
    *(
        (("jobs", verb, str(n), *form))
        for verb in ("show", "why", "events", "logs")
        for n in range(1, 8)
        for form in ((), ("--json",))
    ),
]
KINDS: dict[str, dict[str, Any]] = {
    "good": {},
    "cancelled": {},
    "enhanced": {"attributes": {"ContrastBolusAgent": "CANARY agent"}},
    "gap": {"missing": (4,)},
    "two patients": {"edit": lambda ds, z: setattr(ds, "PatientID", "CANARY-ID-78") if z == 5 else None},
    "odd numbers": {"raw": {"RescaleSlope": b"CANARY"}},
    "no spacing": {"absent": ("PixelSpacing",)},
}


def series(folder: Path) -> dict[str, list[Path]]:
    return {
        name: make_series(
            folder / CANARY / name, seed=name, **{**kind, "attributes": {**TEXTS, **kind.get("attributes", {})}}
        )
        for name, kind in KINDS.items()
    }


def drive(node: Node, scans: dict[str, list[Path]]) -> None:
    for paths in scans.values():
        keep(node, paths)
    judge(node)
    with node.database.read() as session:
        queued = session.scalars(select(Job)).all()
        assert queued
    source = node.spool.path(node.series.spool_names(queued[-1].series_id)[0])
    source.write_bytes(source.read_bytes()[:3000])
    translate(node)
    with node.database.read() as session:
        first = session.scalars(select(Job).order_by(Job.id)).first()
    assert first is not None
    if first.state == "PRODUCED":
        node.jobs.cancel(first.id, "operator", "a reason", datetime.now(UTC))


def kept(log_folder: Path) -> str:
    """All lines of the log files, as they are."""
    return "".join(path.read_text(encoding="utf-8") for path in log_folder.iterdir())


def test_the_canary_is_seen_nowhere_but_in_files_and_database(
    run: Any,
    config: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    log_folder: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(line_formatter("json", "work"))
    config.write_text(config.read_text() + f'\n[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n')
    with open_store(load_settings(config)) as node:
        drive(node, series(tmp_path))
        with node.database.read() as session:
            events = " ".join(f"{e.actor} {e.reason}" for e in session.scalars(select(Event)))
            states = {case.state for case in node.overview.cases()}
    assert states >= {"SKIPPED", "INCOMPLETE"}
    assert CANARY not in events
    seen = []
    for command in READERS:
        _, out, err = run(*command)
        if CANARY in out + err:
            seen.append((command, [line for line in (out + err).splitlines() if CANARY in line][:3]))
    assert run("support-bundle", "--out", tmp_path / "support.zip")[0] == 0
    with zipfile.ZipFile(tmp_path / "support.zip") as archive:
        assert "jobs.json" in archive.namelist()
        assert [name for name in archive.namelist() if CANARY in archive.read(name).decode()] == []
    make_series(tmp_path / "here", attributes=TEXTS)
    for command in (
        ("series", "check", str(tmp_path / "here")),
        ("series", "check", str(tmp_path / "here"), "--json"),
        ("process", str(tmp_path / "here"), "--out", str(tmp_path / "out")),
        ("replay", "1"),
        ("replay", "1", "--json"),
    ):
        _, out, err = run(*command)
        assert CANARY not in out + err, command
    (config.parent / "syncect-data" / "syncect.sqlite3").write_bytes(b"CANARY" * 1000)
    for command in READERS:
        _, out, err = run(*command)
        assert CANARY not in out + err, command
    assert seen == []
    assert "series_incomplete" in kept(log_folder)
    assert CANARY not in kept(log_folder)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("node", "storage", "models"))]
    assert not [line for line in ours if CANARY in line]


def test_the_canary_is_shown_where_it_is_asked_for(run: Any, config: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text() + f'\n[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n')
    with open_store(load_settings(config)) as node:
        keep(node, make_series(tmp_path / "one", attributes=TEXTS | {"BodyPartExamined": "CHEST"}))
        judge(node)
        translate(node)
    for command in (("ls",), ("ls", "--json"), ("ls", "--csv"), ("show", "1"), ("show", "1", "--json")):
        hidden, shown = run("jobs", *command)[1], run("jobs", *command, "--phi")[1]
        for text in ("CANARY-ID-77", "Thorax CANARY^SERIES"):
            assert text not in hidden
            assert text in shown
    (case,) = json.loads(run("jobs", "ls", "--json")[1])
    assert (case["description"], case["derived_description"]) == ("…", "sCE-CT AI …")
    assert (case["facts"]["series_number"], case["facts"]["body_part"]) == (3, "CHEST")
    checked = ("series", "check", str(tmp_path / "one"), "--json")
    assert json.loads(run(*checked)[1])["series"][0]["description"] == "…"
    assert json.loads(run(*checked, "--phi")[1])["series"][0]["description"] == "Thorax CANARY^SERIES"


class Kept:
    """A channel that keeps what the webhook and the mail server would get."""

    name = "webhook"

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, message: Message) -> None:
        smtp = SmtpSettings(host="mail", sender="node@hospital.example", to=("physics@hospital.example",))
        mail = Mail(smtp)._mail(message)
        self.sent += [json.dumps(message.body, ensure_ascii=False), mail.as_bytes(policy=policy.SMTPUTF8).decode()]


def crash(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that end over the first job: by an error that quotes the patient, and then without a word."""

    def fail(volume: Any, *_: Any, **__: Any) -> None:
        raise ValueError(f"cannot use {volume.headers[0].patient.name}")

    monkeypatch.setattr("node.translate.job.composite", fail)
    translate(node)
    later = datetime.now(UTC) + timedelta(minutes=10)
    for death in range(2):
        assert node.jobs.claim("work-1@here", 60, later + timedelta(hours=death)) is not None
        node.jobs.release_expired(later + timedelta(hours=death), dead_worker="work-1@here", why="killed: no progress")


def test_a_worker_that_crashes_and_every_alert_keep_the_canary_for_themselves(
    run: Any,
    config: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    log_folder: Path,
) -> None:
    caplog.handler.setFormatter(line_formatter("json", "work"))
    config.write_text(config.read_text() + f'\n[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n')
    channel = Kept()
    with open_store(load_settings(config)) as node:
        keep(node, make_series(tmp_path / "one", attributes=TEXTS))
        keep(node, series(tmp_path / "others")["two patients"])
        judge(node)
        crash(node, monkeypatch)
        teller = Teller(channel, node.alerts, "SYNCECT@host", remind_s=3600)
        make_watch(node, [teller]).tick()
        teller.tick()
        events = " ".join(event.reason for case in node.overview.cases() for event in node.overview.events(case))
    assert "unexpected ValueError" in events
    assert "2 worker processes ended" in events
    assert len(channel.sent) == 2
    assert all("FAILED" in one or "failed" in one for one in channel.sent)
    assert "job_crashed" in kept(log_folder)
    seen = [events, caplog.text, kept(log_folder), *channel.sent, *run("alerts", "ls"), *run("alerts", "ls", "--json")]
    assert [text for text in map(str, seen) if CANARY in text] == []

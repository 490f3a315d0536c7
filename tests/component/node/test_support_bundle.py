"""A support bundle tells what a stranger needs, is made whatever is broken, and holds nothing of any patient."""

import base64
import json
import os
import stat
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import select

from config.load import load_settings
from node.bootstrap.store import open_store
from node.operate.doctor.table import CHECKS
from node.operate.support.guard import Guard
from node.operate.support.words import Words
from node.ops.processes import process_lock
from storage.alerts import Cause
from storage.inspection import PatientTexts
from storage.refusals import RefusedInstance
from storage.tables import Event, Job, Series
from tests.departments import START, Department

NAME, ID, BIRTH = "Quetzalcoatlus^Xaveria", "QZX-00774411", "19470319"
ODD = ("Würgerstöckl^Ägidius", "山田^太郎=ヤマダ^タロウ", "Παπαδοπούλου^Ζωή", "Łukaszewicz^Żaneta")
TYPED = ("Zyxwertz Klinik", "ACCZQ778812", "Dr. Quillfeather", "Thorax Vexillor", "Wexlmoor, called her son")
TEXTS = (NAME, ID, BIRTH, *ODD, *TYPED)
PARTS = tuple(part for text in TEXTS for part in text.replace("=", "^").replace(" ", "^").split("^") if len(part) > 4)
OURS = {"Thorax", "Klinik", "called"}  # words that are of no patient


def codings(text: str) -> list[bytes]:
    """How a text can stand in a file."""
    both = text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be")
    coded = [base64.b64encode(b"x" * shift + one)[4:-4] for one in both for shift in range(3)]
    escaped = json.dumps(text)[1:-1], quote(text), text.encode().hex()
    return [*both, *(one for one in coded if len(one) > 6), *(one.encode() for one in escaped)]


CANARIES = {coding.lower() for text in {*TEXTS, *PARTS} - OURS for coding in codings(text)}


def all_forms(text: str) -> str:
    """A line of a log that says a text in every coding that a line can have."""
    coded = base64.b64encode(text.encode()).decode(), base64.b64encode(text.encode("utf-16-le")).decode()
    wide = text.encode("utf-16-le").decode("latin-1")
    return " | ".join((text, wide, *coded, quote(text), json.dumps(text), text.encode().hex()))


def fill(node) -> None:
    """Every place of the store, of the spool and of the logs that can hold what came from outside holds a canary."""
    here = Department(node)
    here.sent(patient=ID, description=TYPED[3], ae="QUILLFEATHER1")
    here.failed(f"unexpected value {all_forms(NAME)}", patient=ID, description=ODD[0])
    here.incomplete(f"slices of {NAME} born {BIRTH} or 1947-03-19 are missing", patient=ODD[1], description=TYPED[0])
    here.skipped(" ".join(map(all_forms, TEXTS)), patient=f"{ID}-2", description=ODD[2])
    for reason in (*TEXTS, all_forms(NAME)[:200]):
        node.refusals.record(
            RefusedInstance("WEXLMOOR", "10.9.8.7", f"1.2.3.{reason}"[:64], "1.2.3", 0xC000, reason[:200]), START
        )
    node.alerts.settle([Cause("held", text, all_forms(text)) for text in TEXTS], ["held"], START)
    with node.database.write() as session:
        for job in session.scalars(select(Job)):
            job.patient = {"PatientName": NAME, "PatientID": ID, "PatientBirthDate": BIRTH}
            job.override = f"Dr. Quillfeather: {TYPED[4]}"
        for row in session.scalars(select(Series)):
            session.add(
                Event(
                    at=START,
                    series_id=row.id,
                    machine="series",
                    from_state="RECEIVING",
                    to_state="RECEIVING",
                    actor="operator quillfeather",
                    reason=TYPED[4],
                )
            )
    data = node.settings.node.data_dir
    (data / "spool" / "received" / f"{NAME}.dcm").write_text(NAME)
    (data / f"{ID}.dcm").write_text(NAME)
    (data / f"{ID}.dcm").chmod(0o644)
    (data / "log").mkdir()
    lines = [json.dumps({"calling_ae": "WEXLMOOR", "text": all_forms(text), text: 1}) for text in TEXTS]
    text = "\n".join([*lines, all_forms(NAME), '{"event": "listening", "timestamp": "2026-01-31T12:00:00Z"}', ""])
    (data / "log" / "receive-1.jsonl").write_text(text)
    (data / "log" / f"work-{ID}.jsonl").write_text(text)


@pytest.fixture(autouse=True)
def without_device(monkeypatch):
    """torch takes seconds to load, and `test_doctor.py` asks it."""
    monkeypatch.setattr("node.operate.doctor.run.CHECKS", [one for one in CHECKS if one.name != "device"])


@pytest.fixture
def full(config):
    """The settings file of a node whose store and folders are full of canaries."""
    with open_store(load_settings(config)) as node:
        fill(node)
    return config


def members_of(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        return {name: archive.read(name).decode() for name in archive.namelist()}


def bundle(run, path: Path, *options: str) -> dict[str, str]:
    code, _, err = run("support-bundle", "--out", path, *options)
    assert code == 0, err
    return members_of(path)


def test_no_member_holds_a_canary_in_any_form(run, full, tmp_path):
    with process_lock(full.parent / "syncect-data" / "run", "work", "1", f"CANNOT WORK: {NAME}"):
        members = bundle(run, tmp_path / "b.zip")
    assert {
        "jobs.json",
        "events.json",
        "alerts.json",
        "refusals.json",
        "log/receive-1.jsonl",
        "log/work-1.jsonl",
    } <= set(members)
    found = [
        (name, canary)
        for name, text in members.items()
        for canary in CANARIES
        if canary in name.encode().lower() or canary in text.encode().lower()
    ]
    assert found == []
    assert "WEXLMOOR" not in "".join(members.values())
    assert "QUILLFEATHER1" not in "".join(members.values())


def test_what_helps_is_there(run, full, tmp_path):
    members = bundle(run, tmp_path / "b.zip")
    jobs = json.loads(members["jobs.json"])
    assert {job["state"] for job in jobs} == {"SENT", "FAILED", "INCOMPLETE", "SKIPPED"}
    assert all(job["series_uid"].startswith("uid-") for job in jobs)
    assert len({job["series_uid"] for job in jobs}) == len(jobs)
    assert "slices of … born … or … are missing" in members["jobs.json"]
    assert '"event": "listening", "timestamp": "2026-01-31T12:00:00Z"' in members["log/receive-1.jsonl"]
    assert json.loads(members["database.json"])["tables"]["series"] == {"rows": 4}
    assert json.loads(members["disk.json"])["spool/derived"]["files"] == 3
    assert {line["check"] for line in json.loads(members["doctor.json"])} >= {"settings", "database", "destination tps"}
    assert json.loads(members["about.json"])["packages"]["pydicom"]
    assert {event["actor"] for event in json.loads(members["events.json"])} >= {"operator", "completion"}
    refusals = json.loads(members["refusals.json"])
    assert {row["status"] for row in refusals} == {"C000"}
    assert len({row["calling_ae"] for row in refusals}) == 1


def test_only_this_user_reads_the_file_and_it_is_small_and_never_overwritten(run, full, tmp_path):
    path = tmp_path / "b.zip"
    before = os.umask(0)
    try:
        bundle(run, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size < 200_000
    assert run("support-bundle", "--out", path)[0] == 4


def test_pseudonyms_are_of_one_bundle_and_uids_stay_where_they_are_asked_for(run, department, tmp_path):
    department.failed()
    uids = [
        json.loads(bundle(run, tmp_path / f"{number}.zip", *options)["jobs.json"])[0]["series_uid"]
        for number, options in enumerate(((), (), ("--uids",)))
    ]
    assert uids[0] != uids[1]
    assert uids[2] == "1.2.3.1"


def test_secrets_of_the_settings_are_left_out(run, config, tmp_path, monkeypatch):
    monkeypatch.setenv(
        "SYNCECT_NODE__DATABASE_URL", "postgresql+psycopg://me:hushhush@127.0.0.1:1/db?password=whispered"
    )
    monkeypatch.setenv("SYNCECT_ALERTS__WEBHOOK", "https://bot:murmured@chat.hospital.example/hooks/tacit")
    members = bundle(run, tmp_path / "b.zip")
    text = "".join(members.values())
    assert not [secret for secret in ("hushhush", "whispered", "murmured", "tacit") if secret in text]
    assert "chat.hospital.example" in members["settings.json"]
    assert "not_available" in members["jobs.json"]
    assert "COULD NOT BE READ" in members["README.txt"]


def test_it_is_made_with_a_broken_settings_file_and_with_a_damaged_store(run, config, tmp_path):
    (config.parent / "syncect-data" / "syncect.sqlite3").write_bytes(NAME.encode() * 1000)
    members = bundle(run, tmp_path / "damaged.zip")
    assert "not_available" in members["status.json"]
    assert NAME not in "".join(members.values())
    config.write_text("[scp]\nprot = 1")
    members = bundle(run, tmp_path / "broken.zip")
    assert "prot is not a setting" in members["settings.json"]


def test_a_hit_of_the_last_look_stops_the_bundle_and_names_the_member(run, full, tmp_path, monkeypatch):
    monkeypatch.setattr("node.operate.support.contents.disk", lambda _settings: {"folder of": NAME.upper()})
    path = tmp_path / "b.zip"
    code, _, err = run("support-bundle", "--out", path)
    assert code == 4
    assert "disk.json" in err
    assert NAME.upper() not in err
    assert not path.exists()
    members = bundle(run, path, "--without", "disk.json")
    assert "disk.json" not in members


@pytest.mark.parametrize("text", [NAME, ID, BIRTH, *ODD, TYPED[0], TYPED[4]])
def test_the_last_look_finds_every_coding(text):
    known = PatientTexts(frozenset({ID, BIRTH}), frozenset({NAME, *ODD}), frozenset({TYPED[0]}), frozenset({TYPED[4]}))
    guard = Guard(known, Words().knows)
    for form in all_forms(text).split(" | "):
        assert guard.hits({"m": f"before {form} after", "other": "nothing of it"}) == ["m"], form
    assert guard.hits({text: ""}) == [text]


def test_words_of_this_program_are_no_patient():
    known = PatientTexts(
        frozenset({"7", "1234", "AB", "PHANTOM"}), frozenset({"Test"}), frozenset({"Thorax"}), frozenset()
    )
    assert Guard(known, Words().knows).hits({"m": "Thorax phantom test 1234 AB 7"}) == []
    numbered = PatientTexts(
        frozenset({"phantom7"}), frozenset({"TEST^PHANTOM"}), frozenset({"Thorax 123456"}), frozenset()
    )
    for text in ("phantom7", "test^phantom", "thorax 123456"):
        assert Guard(numbered, Words().knows).hits({"m": text}) == ["m"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("30/30 to tps, 12-2 in 40 s", "30/30 to tps, 12-2 in 40 s"),
        ("at 2026-11-26T08:30:00Z and 1947-03-19", "at 2026-11-26T08:30:00Z and …"),
        ("retention.min_free_gb is 2.0, status A700", "retention.min_free_gb is 2.0, status A700"),
        ("cannot use Quetzal Xaver", "cannot use …"),
        ("class 1.2.840.10008.5.1.4.1.1.2", "class 1.2.840.10008.5.1.4.1.1.2"),
        ("patient 00774411", "patient …"),
        ("Q\x00u\x00e\x00t\x00z\x00a\x00l", "…"),
        ("%51%75%65%74%7A", "…"),
    ],
)
def test_what_the_program_can_have_said_stays(text, left):
    assert Words(["tps"]).text(text) == left


def test_a_large_store_is_searched_in_time():
    known = PatientTexts(
        frozenset(f"MRN{number:07}" for number in range(50_000)),
        frozenset(f"Name{number}^Given{number}" for number in range(50_000)),
        frozenset(),
        frozenset(),
    )
    line = "an instance of uid-0123456789ab was refused with A700 at 2026-11-26T08:30:00Z\n"
    began = datetime.now(UTC)
    assert Guard(known, lambda _text: False).hits({"log": line * 20_000}) == []
    assert (datetime.now(UTC) - began).total_seconds() < 20

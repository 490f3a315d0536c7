"""The commands as a person or a script meets them: words, JSON and exit codes."""

import importlib.resources
import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from config.load import load_settings
from node.bootstrap.store import open_store
from node.dicom.attribute_rules import OPERATIONS
from node.operate.next_steps import NEXT_STEP
from node.operate.texts import masked
from node.ops.health import ROLES
from node.ops.processes import process_lock
from storage.refusals import RefusedInstance
from storage.states import RECALLED, DeliveryState, JobState, SeriesState


def test_jobs_ls_json_keeps_its_contract(run, held):
    code, out, _ = run("jobs", "ls", "--json")
    (row,) = json.loads(out)
    assert code == 0
    assert row["slices"] == {"received": 3, "produced": 3, "sent": 0, "confirmed": 0}
    assert (row["id"], row["state"], row["reason"]) == ("1", "HELD", "looks enhanced")
    assert (row["series_uid"], row["derived_series_uid"], row["study_uid"]) == ("1.2.3.1", "9.1", "1.2.1")
    assert (row["calling_ae"], row["bundle"], row["attempts"]) == ("CTSIM", "demo 1 (abc)", 1)
    for key in ("created_at", "updated_at"):
        assert datetime.fromisoformat(row[key]).utcoffset() == timedelta(0)


def test_patient_ids_are_masked_unless_asked_for(run, held):
    for command in (("jobs", "ls"), ("jobs", "show", "1"), ("jobs", "ls", "--json"), ("jobs", "events", "1")):
        assert "MRN0012345" not in "".join(run(*command)[1:])
    assert "MRN0012345" in run("jobs", "ls", "--phi", "--json")[1]
    assert masked("1234", show=False) == "…"


def test_a_held_job_is_explained_and_released_by_a_person(run, held):
    assert "release 1" in run("jobs", "why", "1")[1]
    assert run("jobs", "release", "1", "--reason", "checked by physics")[0] == 0
    _, out, _ = run("jobs", "events", "1", "--json")
    last = [event for event in json.loads(out) if event["machine"] == "job"][-1]
    assert (last["to_state"], last["reason"]) == ("PRODUCED", "checked by physics")
    assert last["actor"].startswith("operator ")
    assert json.loads(run("jobs", "ls", "--json")[1])[0]["state"] == "PRODUCED"


def test_what_a_safety_rule_forbids_has_its_own_exit_code(run, held):
    assert run("jobs", "reject", "1", "--yes")[0] == 0
    for verb in ("release", "retry", "cancel", "resend", "complete", "acknowledge"):
        code, _, err = run("jobs", verb, "1", *{"cancel": ["--yes"], "release": ["--reason", "seen"]}.get(verb, []))
        assert code == 4, verb
        assert err.startswith("syncect: ")


def test_an_unknown_job_is_not_found(run, config):
    code, _, err = run("jobs", "show", "77")
    assert (code, "no job 77" in err) == (3, True)


def test_usage_errors_have_code_2_and_one_sentence(run, config):
    assert run("jobs", "ls", "--state", "NONSENSE")[0] == 2
    assert run("nonsense")[0] == 2
    config.write_text("[scp]\nprot = 1")
    code, _, err = run("jobs", "ls")
    assert code == 2
    assert "scp.prot is not a setting" in err.replace("\n", " ")


def test_show_lists_what_of_the_source_was_not_simply_kept(run, held):
    assert "StudyID is long: kept" in run("jobs", "show", "1")[1]
    assert json.loads(run("jobs", "show", "1", "--json")[1])["remarks"] == ["StudyID is long: kept"]


def test_a_rule_with_an_unknown_operation_is_a_usage_error(run, config):
    rule = '[[eligibility.rules]]\nkeyword = "BodyPartExamined"\nop = "{}"\nvalues = ["CHEST"]\nreason = "r"\n'
    config.write_text(rule.format("is"))
    code, _, err = run("config", "validate")
    sentence = err.replace("\n", " ")
    assert (code, "eligibility.rules.0 cannot be used" in sentence) == (2, True)
    assert f"op 'is' is not one of {', '.join(OPERATIONS)}" in sentence
    config.write_text(rule.format("equals"))
    assert run("config", "validate")[0] == 0


def test_the_default_settings_name_every_operation_of_a_rule():
    text = importlib.resources.files("config").joinpath("default.toml").read_text(encoding="utf-8")
    assert f": {', '.join(OPERATIONS)}\n" in text


def test_a_data_dir_that_cannot_be_written_is_a_usage_error(run, config):
    config.write_text('[node]\ndata_dir = "/proc/nowhere"')
    code, _, err = run("jobs", "retry", "1")
    assert code == 2
    assert "node.data_dir" in err


def test_an_unreachable_peer_has_code_5(run, config):
    code, out, _ = run("peers", "echo", "--json")
    assert code == 5
    assert json.loads(out)["tps"]["ok"] is False
    assert run("peers", "echo", "nobody")[0] == 3


def test_status_says_what_is_not_running(run, config):
    code, out, _ = run("status", "--json")
    facts = json.loads(out)
    assert (code, facts["state"], facts["missing"]) == (2, "down", ["receive", "complete", "work", "deliver", "watch"])
    assert run("status")[1].startswith("DOWN: the receiver does not run; ")


def test_status_counts_what_needs_a_person_and_whom_it_cannot_reach(run, held, config):
    now = datetime.now(UTC)
    settings = load_settings(config)
    with open_store(settings) as node:
        node.peers.failed("tps", "TPS at 127.0.0.1 port 1 cannot be reached: connection refused", now)
        node.refusals.record(RefusedInstance("CTSIM", "h", "1.2.3", "1.2.3.4", 0xA700, "the spool is full"), now)
        run_dir = node.run_dir
    with ExitStack() as running:
        for role in ROLES:
            running.enter_context(process_lock(run_dir, role, "1"))
        code, out, _ = run("status", "--json")
        facts = json.loads(out)
        assert (code, facts["state"], facts["needs_person"]) == (1, "degraded", {"held": 1})
        assert [peer["destination"] for peer in facts["peers"]] == ["tps"]
        refused, unreachable, waiting = facts["reasons"]
        assert refused.endswith("from CTSIM: the spool is full")
        assert unreachable.startswith("tps cannot be reached since ")
        assert waiting == "waiting for a person: 1 held"
        _, text, _ = run("status")
        assert text.startswith("DEGRADED: C-STOREs are refused, the last at ")
        with open_store(settings) as node:
            node.peers.answered("tps", now)
        config.write_text("")  # a destination that is configured no more is nobody's trouble
        assert "cannot be reached" not in run("status")[1]


def test_status_of_a_store_that_cannot_be_read_is_down(run, config):
    (config.parent / "syncect-data" / "syncect.sqlite3").write_text("this is no database, it is a text of some length")
    code, out, _ = run("status")
    assert (code, out.startswith("DOWN: the store "), "file is not a database" in out) == (2, True, True)
    config.write_text("[scp]\nprot = 1")
    code, out, _ = run("status", "--json")
    assert (code, json.loads(out)["state"]) == (2, "down")


def test_config_init_writes_a_valid_file_once(run, tmp_path):
    target = tmp_path / "new.toml"
    assert run("config", "init", str(target))[0] == 0
    assert run("--config", str(target), "config", "show")[0] == 0
    assert run("config", "init", str(target))[0] == 4


def test_config_show_masks_the_database_password(run, config, monkeypatch):
    monkeypatch.setenv("SYNCECT_NODE__DATABASE_URL", "postgresql+psycopg://me:secret@h/db")
    out = run("config", "show")[1]
    assert "secret" not in out
    assert "me:***@h" in out


def test_db_commands_show_upgrade_and_back_up(run, config, tmp_path):
    run("status")
    shown = json.loads(run("db", "current", "--json")[1])
    assert shown["current"] == shown["needed"]
    assert run("db", "upgrade")[0] == 0
    assert run("db", "backup", str(tmp_path / "copy.sqlite3"))[0] == 0
    assert (tmp_path / "copy.sqlite3").stat().st_size > 0
    assert run("db", "backup", str(tmp_path / "copy.sqlite3"))[0] == 4


def test_every_state_a_reader_can_see_has_a_next_step():
    seen = {*JobState, *SeriesState, *DeliveryState, RECALLED} - {"COMPLETE", "PENDING"}
    assert {str(state) for state in seen} == set(NEXT_STEP)


def test_process_refuses_a_folder_without_dicom(run, config, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")
    code, _, err = run("process", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert (code, "no DICOM series" in err) == (3, True)
    assert not (tmp_path / "out").exists()

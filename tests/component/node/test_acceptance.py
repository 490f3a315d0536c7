"""A bundle is used only where it is proven or allowed by name, and, where a site wants that, accepted by a person."""

import hashlib
import json
import shutil
import threading
from pathlib import Path

import pytest

from config.load import load_settings
from models.testing import write_tiny_bundle
from node.beats import no_beat
from node.bootstrap.store import open_store
from node.bootstrap.worker import make_worker
from node.operate.doctor import model
from node.operate.doctor.report import Mark
from tests.builders import make_series
from tests.component.node.conftest import receive

REFUSED = "bundle tiny 0 is refused: nobody measured whether it is better than no change at all"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def settings(config: Path, bundle: Path) -> Path:
    config.write_text(
        config.read_text() + f'\n[model]\nbundle = "{bundle}"\ndevice = "cpu"\nrequire_acceptance = true\n'
    )
    return config


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"what was signed")
    return path


def work(config: Path, *, said: list[str] | None = None) -> tuple[str, str]:
    """State and reason of job 1 after a worker took what is due."""
    heard: list[str] = [] if said is None else said
    with open_store(load_settings(config)) as node:
        make_worker(node, "1", heard.append, no_beat).run_once(threading.Event())
        case = node.overview.case("1")
        return case.state, case.reason


@pytest.fixture
def queued(settings: Path, tmp_path: Path) -> Path:
    with open_store(load_settings(settings)) as node:
        receive(node, make_series(tmp_path / "source", slices=4), "")
    return settings


@pytest.mark.parametrize("role", ["serve", "work"])
def test_an_unproven_bundle_is_refused_before_anything_starts(run, settings, monkeypatch, role) -> None:
    monkeypatch.setenv("SYNCECT_MODEL__ALLOW_UNPROVEN", "[]")
    # The log of the test process stays as it is.
    monkeypatch.setattr("node.ops.log.configure_logging", lambda *_args, **_kwargs: None)
    code, _, errors = run(role)
    assert code == 4
    assert REFUSED in " ".join(errors.split())
    assert 'model.allow_unproven = ["tiny"]' in " ".join(errors.split())


def test_a_bundle_that_lost_its_proof_while_the_node_ran_holds_the_jobs(queued, monkeypatch) -> None:
    monkeypatch.setenv("SYNCECT_MODEL__ALLOW_UNPROVEN", "[]")
    state, reason = work(queued)
    assert state == "HELD"
    assert reason.startswith(f"the worker cannot translate: {REFUSED}")


def test_an_unproven_bundle_that_is_allowed_is_told_of(run, queued, report, caplog) -> None:
    assert run("models", "accept", "tiny", "--report", report, "--who", "x")[0] == 1, "tiny is no shipped bundle"
    bundle = load_settings(queued).model.bundle
    assert run("models", "accept", bundle, "--report", report, "--who", "x")[0] == 0
    work(queued)
    assert "UNPROVEN bundle tiny 0, allowed by model.allow_unproven: nobody measured" in caplog.text
    assert json.loads(run("status", "--json")[1])["unproven"].startswith("nobody measured")
    assert "UNPROVEN: nobody measured" in " ".join(run("status")[1].split())
    _, line = model.bundle(load_settings(queued))
    assert (line.state, line.found[:45]) == (Mark.WARN, "unproven, and allowed by model.allow_unproven")
    assert "is UNPROVEN: nobody measured" in json.loads(run("jobs", "show", "1", "--json")[1])["remarks"][0]


def test_doctor_says_that_the_node_will_not_start(settings, monkeypatch) -> None:
    monkeypatch.setenv("SYNCECT_MODEL__ALLOW_UNPROVEN", "[]")
    _, line = model.bundle(load_settings(settings))
    assert (line.state, line.found[:47]) == (Mark.FAIL, "the node does not start with it: nobody measure")


def test_accept_translate_withdraw_hold(run, queued, report, monkeypatch) -> None:
    said: list[str] = []
    bundle = load_settings(queued).model.bundle
    state, reason = work(queued, said=said)
    assert state == "HELD"
    assert "is not accepted: nobody accepted it" in reason
    assert f"`syncect models accept {bundle} --report FILE --who NAME`" in reason
    assert said[-1].startswith("CANNOT WORK: model.require_acceptance is set")
    code, out, _ = run("models", "accept", bundle, "--report", report, "--who", "A. Physicist", "--json")
    assert (code, json.loads(out)["report_sha256"][:8]) == (0, hashlib.sha256(b"what was signed").hexdigest()[:8])
    assert run("jobs", "retry", "1")[0] == 0
    assert work(queued)[0] == "PRODUCED"
    (row,) = (row for row in json.loads(run("models", "ls", "--json")[1]) if row["name"] == "tiny")
    assert row["acceptance"].startswith("accepted by A. Physicist on ")
    assert run("models", "withdraw", bundle, "--who", "B", "--note", "levels drifted")[0] == 0
    assert "withdrawn by B on" in " ".join(run("status")[1].split())
    code, _, errors = run("models", "withdraw", bundle, "--who", "B", "--note", "again")
    assert "nothing can be withdrawn" in " ".join(errors.split())


def test_a_worker_that_runs_sees_acceptance_and_withdrawal_at_its_next_job(run, queued, report, tmp_path) -> None:
    said: list[str] = []
    bundle = load_settings(queued).model.bundle
    with open_store(load_settings(queued)) as node:
        worker = make_worker(node, "1", said.append, no_beat)
        worker.run_once(threading.Event())
        assert node.overview.case("1").state == "HELD"
        run("models", "accept", bundle, "--report", report, "--who", "A")
        run("jobs", "retry", "1")
        worker.run_once(threading.Event())
        assert node.overview.case("1").state == "PRODUCED"
        assert "CANNOT" not in said[-1]
        run("models", "withdraw", bundle, "--who", "A", "--note", "x")
        receive(node, make_series(tmp_path / "second", slices=4, seed="other"), "", key="2")
        worker.run_once(threading.Event())
        assert "A withdrew it on" in node.overview.case("2").reason
        assert said[-1].startswith("CANNOT WORK: ")


def test_other_weights_are_another_bundle_and_were_never_accepted(run, queued, report) -> None:
    bundle = Path(load_settings(queued).model.bundle)
    run("models", "accept", bundle, "--report", report, "--who", "A")
    shutil.rmtree(bundle)
    write_tiny_bundle(bundle, seed=1)
    told: list[str] = []
    with open_store(load_settings(queued)) as node:
        make_worker(node, "1", told.append, no_beat).run_once(threading.Event())
        assert "the job was queued for bundle tiny" in node.overview.case("1").reason
    assert "is not accepted: nobody accepted it" in told[-1]
    (row,) = (row for row in json.loads(run("models", "ls", "--json")[1]) if row["name"] == "tiny")
    assert row["acceptance"] == "not accepted"


def test_the_report_of_another_bundle_is_refused(run, settings, report) -> None:
    bundle = load_settings(settings).model.bundle
    report.write_bytes(b"syncect-commission-of:" + b"a" * 64)
    code, _, errors = run("models", "accept", bundle, "--report", report, "--who", "A")
    assert code == 4
    assert "is about a bundle with the digest aaaaaaaaaaaa" in " ".join(errors.split())


@pytest.mark.parametrize("who", ["", " ", "x" * 65])
def test_a_decision_has_a_person(run, settings, report, who) -> None:
    assert run("models", "accept", load_settings(settings).model.bundle, "--report", report, "--who", who)[0] == 2

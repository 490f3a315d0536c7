"""`qa`: a phantom through rules and job without a node, its trend, and what a worker asks of it."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest

import models
from config.load import load_settings
from models.phantom import make_patient
from models.testing import write_tiny_bundle
from node.beats import no_beat
from node.bootstrap import constancy as asked
from node.bootstrap.store import open_store, read_store
from node.bootstrap.worker import make_worker
from node.operate.constancy import offline, phantom
from node.operate.doctor import constancy as doctor
from node.translate.job import Executor
from tests.builders import make_series
from tests.component.node.conftest import receive

SMALL = phantom.Size(slices=8, rows=96)
RUNS = 10


class HalfWay:
    """A translator that knows the phantom and goes half the way to its truth; it adds `add_hu`."""

    device, precision, description, level_hu = "cpu", "fp32", "half way", None
    arithmetic, add_hu = "cpu, 1 threads, fp32", 0.0

    def __init__(self, card, truth_hu):
        self.card, self._truth_hu = card, truth_hu

    def translate(self, hu, seed, *, spacing_mm=None, progress=None):
        low, high = self.card.hu_window
        clipped = np.clip(hu, low, high)
        return clipped + (np.clip(self._truth_hu, low, high) - clipped) / 2 + np.float32(self.add_hu)

    second_look = translate


@pytest.fixture(scope="session")
def patient(tmp_path_factory):
    """The pixels of the small phantom, which take a second to compute."""
    return make_patient(phantom.SEED, slices=SMALL.slices, rows=SMALL.rows, spacing_mm=SMALL.spacing_mm)


@pytest.fixture
def bundle(tmp_path, config):
    """A bundle of our own, which a test may damage."""
    write_tiny_bundle(tmp_path / "bundle")
    config.write_text(
        config.read_text()
        + f'[model]\nbundle = "{tmp_path / "bundle"}"\ndevice = "cpu"\nconstancy_days = 7\n'
        + 'outside_envelope = "warn"\n'
    )
    return tmp_path / "bundle"


@pytest.fixture
def halfway(bundle, monkeypatch, patient):
    """What translates in runs without a node."""
    translator = HalfWay(models.read_card(bundle), patient.ncct_clean_hu + patient.enhancement_hu)

    def opened(settings):
        translator.card = models.read_card(bundle)
        return Executor("tiny", translator)

    monkeypatch.setattr(offline, "open_executor", opened)
    monkeypatch.setattr(phantom, "make_patient", lambda *_args, **_more: patient)
    monkeypatch.setattr(phantom, "SIZE", SMALL)
    return translator


def qa(run, *arguments):
    code, out, err = run("qa", "run", "--offline", "--json", *arguments)
    return code, json.loads(out) if out else {}, err


def test_ten_runs_give_the_same_bits_and_a_trend(run, halfway, tmp_path) -> None:
    for number in range(RUNS):
        code, found, _ = qa(run)
        assert (code, found["outcome"], found["figures"]["baseline"]) == (0, "PASSED", 1 if number else None), found[
            "reason"
        ]
        assert not number or found["figures"]["different_voxels"] == 0
    assert found["figures"]["gain_hu"] > 1
    listed = json.loads(run("qa", "ls", "--json")[1])
    assert [view["outcome"] for view in listed] == ["PASSED"] * RUNS
    assert "PASSED" in run("qa", "ls")[1]
    assert run("qa", "plot", "--out", tmp_path / "trend.svg")[0] == 0
    assert "tolerance within 1 HU of the baseline" in (tmp_path / "trend.svg").read_text()


def test_one_hu_more_fails_and_in_another_environment_as_well(run, halfway) -> None:
    assert qa(run)[0] == 0
    halfway.add_hu = 1.4
    code, found, _ = qa(run)
    assert (code, found["outcome"]) == (1, "FAILED")
    assert "voxels that differ from the baseline" in found["reason"]
    assert "mean enhancement of blood" in found["reason"]
    halfway.arithmetic = "cpu, 2 threads, fp32"
    code, found, _ = qa(run)
    assert (code, "mean enhancement of blood" in found["reason"]) == (1, True)
    assert "voxels that differ" not in found["reason"], "another device may round otherwise"
    halfway.add_hu = 0.0
    code, found, _ = qa(run)
    assert (code, found["figures"]["baseline"]) == (0, 1)
    assert qa(run)[1]["figures"]["baseline"] == 4, "it is the first that passed in its environment"


def test_what_a_gate_holds_has_failed(run, halfway) -> None:
    halfway.add_hu = -60.0
    code, found, _ = qa(run)
    assert (code, "a gate held it: " in found["reason"]) == (1, True)


def test_a_baseline_whose_pixels_are_gone_still_knows_equal_ones(run, halfway, config) -> None:
    assert qa(run)[0] == 0
    (load_settings(config).node.data_dir / "constancy" / "1.npz").write_bytes(b"x")
    assert qa(run)[1]["outcome"] == "PASSED"
    halfway.add_hu = 0.6
    assert "voxels that differ from the baseline: nan" in qa(run)[1]["reason"]


def test_a_changed_weight_file_is_refused(run, halfway, bundle) -> None:
    assert qa(run)[0] == 0
    weights = bytearray((bundle / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (bundle / "weights.safetensors").write_bytes(weights)
    code, _, err = qa(run)
    assert (code, "cannot be used, and nothing is run with it" in err) == (4, True)


def test_the_result_can_be_kept_and_nothing_is_written_over(run, halfway, tmp_path) -> None:
    assert qa(run, "--out", tmp_path / "kept")[0] == 0
    assert len(list((tmp_path / "kept").glob("*.dcm"))) == SMALL.slices
    code, _, err = qa(run, "--out", tmp_path / "kept")
    assert (code, "is not empty" in err) == (4, True)
    listed = json.loads(run("qa", "ls", "--json")[1])
    assert [(view["outcome"], "is not empty" in view["reason"]) for view in listed] == [
        ("PASSED", False),
        ("FAILED", True),
    ]


def test_what_cannot_be_meant_is_said(run, bundle, tmp_path) -> None:
    assert run("qa", "run", "--out", tmp_path / "x")[0] == 2
    assert run("qa", "run", "--offline", "--destination", "tps")[0] == 2
    assert run("qa", "run", "--destination", "nobody")[0] == 3
    assert run("qa", "run")[0] == 4
    assert run("qa", "plot", "--out", tmp_path / "a.txt")[0] == 2
    assert run("qa", "plot", "--out", tmp_path / "none" / "a.svg")[0] == 4
    assert run("qa", "plot", "--out", tmp_path / "a.svg")[0] == 3
    assert "there was no constancy run" in run("qa", "ls")[2]


def test_a_receiver_that_is_not_there_cannot_be_reached(run, halfway, config) -> None:
    config.write_text(config.read_text() + "[scp]\nport = 1\n")
    code, _, err = run("qa", "run", "--destination", "tps")
    assert (code, 'scp.allowed_peers must hold { ae_title = "SYNCECT"' in err) == (5, True), err
    assert json.loads(run("qa", "ls", "--json")[1])[0]["outcome"] == "FAILED"


def test_a_run_that_a_person_ends_is_no_run_in_this_environment(run, halfway, monkeypatch) -> None:
    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(offline, "open_executor", interrupted)
    assert run("qa", "run", "--offline")[0] == 130
    (view,) = json.loads(run("qa", "ls", "--json")[1])
    assert (view["outcome"], view["reason"], view["environment"]) == ("FAILED", "it was ended by KeyboardInterrupt", {})


def test_status_and_doctor_tell_the_last_run(run, halfway, config) -> None:
    assert "no run was made (`syncect qa run`)" in run("status")[1]
    assert "no run was made, and model.constancy_days = 7: jobs are HELD" in said_by_doctor(config)
    assert qa(run)[0] == 0
    assert "run 1 PASSED" in run("status")[1]
    assert "none PASSED through the node with the present bundle" in said_by_doctor(config)
    halfway.add_hu = 9.0
    assert qa(run)[0] == 1
    assert json.loads(run("status", "--json")[1])["constancy"]["outcome"] == "FAILED"
    assert "run 2 FAILED" in said_by_doctor(config)


def said_by_doctor(config):
    with read_store(load_settings(config)) as node:
        (line,) = doctor.constancy(node)
        return f"{line.state}: {line.found}"


@pytest.fixture
def working(bundle, config, tmp_path):
    """A node with one job that waits, and a way to let a worker take it."""
    with open_store(load_settings(config)) as node:
        receive(node, make_series(tmp_path / "source", slices=4), "")

        def work():
            assert make_worker(node, "1", lambda _words: None, no_beat).run_once(threading.Event())
            return node.overview.case("1")

        yield SimpleNamespace(node=node, work=work, bundle=bundle)


def test_jobs_are_held_until_a_run_has_passed_through_the_node(working, run) -> None:
    case = working.work()
    assert (case.state, "no constancy run has PASSED with this bundle" in case.reason) == ("HELD", True)
    assert "`syncect qa run`" in case.reason
    passed(working.node)
    assert run("jobs", "retry", "1", "--reason", "it passed")[0] == 0
    assert working.work().state != "HELD" or "constancy" not in working.node.overview.case("1").reason


def test_the_series_of_a_run_is_let_through_and_the_worker_says_with_what(working) -> None:
    uid = working.node.overview.case("1").series_uid
    run_id = working.node.constancy.begin("?", "0" * 64, datetime.now(UTC), series_uid=uid, destination="test")
    case = working.work()
    assert "constancy" not in case.reason
    view = working.node.constancy.view(run_id)
    assert view.bundle_digest == models.read_card(working.bundle).digest
    assert view.environment["torch"]
    assert "threads" in view.environment["arithmetic"]


def test_another_bundle_needs_a_run_of_its_own(working) -> None:
    passed(working.node)
    write_tiny_bundle(working.bundle, seed=1)
    case = working.work()
    assert case.state == "HELD"  # queued for the old one, whatever constancy says


def passed(node):
    """A run that PASSED a moment ago with what this process translates with."""
    from node.bootstrap.worker import open_executor

    executor = open_executor(node.settings.model)
    names = {"series_uid": "1.9", "destination": "t"}
    run_id = node.constancy.begin(executor.bundle, executor.digest, datetime.now(UTC), **names)
    return node.constancy.finish(run_id, "PASSED", "", asked.environment_of(executor), {})


def test_a_run_counts_for_its_bundle_its_environment_and_its_days(working) -> None:
    view, now = passed(working.node), datetime.now(UTC)
    here = dict(view.environment)
    assert asked.why_missing([view], here, 7, now) == ""
    failed = replace(view, outcome="FAILED", reason="too dark")
    assert "the last constancy run FAILED: too dark" in asked.why_missing([view, failed], here, 7, now)
    assert asked.why_missing([failed, view], here, 7, now) == ""
    assert asked.why_missing([view, replace(failed, environment={})], here, 7, now) == "", "it met no worker"
    assert "is 8 days old" in asked.why_missing([view], here, 7, now + timedelta(days=8))
    assert "torch: " in asked.why_missing([view], here | {"torch": "9"}, 7, now)
    assert "no constancy run has PASSED with this bundle" in asked.why_missing([], here, 7, now)
    assert "with this bundle" in asked.why_missing([replace(view, way="offline")], here, 7, now)

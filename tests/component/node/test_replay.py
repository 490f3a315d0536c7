"""A job that is computed again gives the same bytes and UIDs, or `replay` says what differs."""

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.load import load_settings
from models import read_card
from node.bootstrap.roles import bundle_label
from node.bootstrap.store import open_store
from node.bootstrap.worker import make_worker
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.headers import read_header
from node.translate.composite import composite
from storage.series import Arrival, JobRequest, SeriesFacts
from tests.builders import make_series

NOW = datetime.now(UTC)


def receive(node, paths, doubt: str) -> None:
    """The files of a series arrive, are stored, and get a job for the bundle of the settings."""
    association = node.series.open_association("r", "CTSIM", "h", NOW)
    for path in paths:
        header, data = read_header(path, decode=False), path.read_bytes()
        uids = (header.study_uid, header.series_uid, header.sop_instance_uid, CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1")
        arrival = Arrival(*uids, hashlib.sha256(data).hexdigest(), node.spool.keep((data,), NOW), len(data))
        node.series.record(association, "CTSIM", arrival, NOW)
    node.series.close_association(association, released=True, now=NOW)
    (series,) = node.series.undecided(NOW + timedelta(minutes=1), 5)
    label = bundle_label(read_card(Path(node.settings.model.bundle)))
    node.series.queue(series, SeriesFacts("Thorax", "P1"), JobRequest("k" * 64, label, doubt), NOW)


@pytest.fixture
def made(request, config, tiny_bundle, tmp_path):
    """A node with one job that a worker has just done; with a doubt as parameter the result is HELD."""
    config.write_text(config.read_text() + f'[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n')
    with open_store(load_settings(config)) as node:
        receive(node, make_series(tmp_path / "source", slices=4), getattr(request, "param", ""))
        assert make_worker(node, "1", lambda _words: None).run_once(threading.Event())
        yield node


def folder_of(node):
    return node.spool.path(node.overview.case("1").product_dir)


def test_the_same_bytes_come_out_and_nothing_is_changed(run, made) -> None:
    before = sorted(made.spool.root.rglob("*")), made.overview.case("1"), made.overview.events(made.overview.case("1"))
    code, out, err = run("replay", "1")
    assert (code, "1: the same 4 files, byte for byte, under the same UIDs" in out) == (0, True), out + err
    assert json.loads(run("replay", "1", "--json")[1])["is_same"] is True
    after = sorted(made.spool.root.rglob("*")), made.overview.case("1"), made.overview.events(made.overview.case("1"))
    assert before == after


@pytest.mark.parametrize("made", ["after metal artifact reduction"], indirect=True)
def test_a_released_result_is_compared_with_what_was_released(run, made) -> None:
    assert run("replay", "1")[0] == 0
    assert run("jobs", "release", "1", "--reason", "seen by Dr Wu")[0] == 0
    assert run("replay", "1")[0] == 0


def test_another_setting_is_named_by_the_attribute_that_differs(run, made, monkeypatch) -> None:
    monkeypatch.setenv("SYNCECT_SERIES__DESCRIPTION_PREFIX", "AI other")
    code, out, _ = run("replay", "1")
    assert (code, "0 of 4 files" in out, "differ: SeriesDescription." in out) == (1, True, True), out


def test_other_pixels_are_counted(run, made, monkeypatch) -> None:
    def brighter(volume, predicted, window):
        result = composite(volume, predicted, window)
        result.stored[0, 16, 16] += 7
        return result

    monkeypatch.setattr("node.translate.job.composite", brighter)
    code, out, _ = run("replay", "1")
    assert (code, "3 of 4 files" in out, "1 pixels differ, by at most 7 HU" in out) == (1, True, True), out


def test_another_bundle_is_named(run, made, monkeypatch) -> None:
    monkeypatch.setenv("SYNCECT_MODEL__BUNDLE", "demo")
    code, out, _ = run("replay", "1")
    assert (code, "it was made by" in out) == (1, True)


def test_a_file_that_was_changed_on_the_disk_is_named(run, made) -> None:
    (folder_of(made) / "0002.dcm").write_bytes(b"x")
    code, out, _ = run("replay", "1", "--json")
    assert (code, json.loads(out)["same"], json.loads(out)["damaged"]) == (0, 4, ["0002.dcm"])


def test_what_is_gone_cannot_be_computed_again(run, made) -> None:
    case = made.overview.case("1")
    made.jobs.cancel(case.job_id, "operator", "no", NOW)
    made.retention.purge_case(case.series_id, case.job_id, "operator", "no", NOW)
    code, _, err = run("replay", "1")
    assert (code, "were removed on" in err) == (4, True)
    assert run("replay", "7")[0] == 3

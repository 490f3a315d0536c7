"""A command as an operator calls it, and a store that it finds."""

import hashlib
import io
import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.load import load_settings
from node.beats import no_beat
from node.bootstrap.store import open_store
from node.cli import run_command
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.headers import read_header
from node.ops.log import keep_log_file
from node.ops.log_limits import LimitedHandler, RepeatFilter
from storage.series import Arrival, JobRequest, SeriesFacts
from tests.builders import make_series
from tests.departments import Department

NOW = datetime.now(UTC)


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `syncect` in this process with the arguments given; returns exit code, standard output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["syncect", *map(str, arguments)])
        code = run_command()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def log_folder(config, caplog):
    """Where this process keeps its lines, as a worker of the node would."""
    handler, root = LimitedHandler(RepeatFilter()), logging.getLogger()
    handler.stream = io.StringIO()
    root.addHandler(handler)
    caplog.set_level(logging.INFO)
    settings = load_settings(config)
    keep_log_file("work", settings.log, settings.node.data_dir)
    yield settings.node.data_dir / "log"
    root.removeHandler(handler)


@pytest.fixture
def held(config):
    """A store with one HELD job of three slices, patient ID included."""
    with open_store(load_settings(config)) as node:
        Department(node).held(remarks=("StudyID is long: kept",))


def receive(node, paths, doubt: str, key: str = "k") -> None:
    """The files of a series arrive, are stored, and get a job for the bundle of the settings."""
    from models import read_card
    from node.bootstrap.bundles import bundle_label  # loads what few of these tests need

    association = node.series.open_association("r", "CTSIM", "h", NOW)
    for path in paths:
        header, data = read_header(path, decode=False), path.read_bytes()
        uids = (header.study_uid, header.series_uid, header.sop_instance_uid, CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1")
        arrival = Arrival(*uids, hashlib.sha256(data).hexdigest(), node.spool.keep((data,), NOW), len(data))
        node.series.record(association, "CTSIM", arrival, NOW)
    node.series.close_association(association, released=True, now=NOW)
    (series,) = node.series.undecided(NOW + timedelta(minutes=1), 5)
    label = bundle_label(read_card(Path(node.settings.model.bundle)))
    node.series.queue(series, SeriesFacts("Thorax", "P1"), JobRequest(key * 64, label, doubt), NOW)


@pytest.fixture
def made(request, config, tiny_bundle, tmp_path):
    """A node with one job that a worker has just done; with a doubt as parameter the result is HELD."""
    from node.bootstrap.worker import make_worker  # loads torch

    config.write_text(config.read_text() + f'[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n')
    with open_store(load_settings(config)) as node:
        receive(node, make_series(tmp_path / "source", slices=4), getattr(request, "param", ""))
        assert make_worker(node, "1", lambda _words: None, no_beat).run_once(threading.Event())
        yield node

"""A command as an operator calls it, and a store that it finds."""

from datetime import UTC, datetime, timedelta

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from node.cli import main
from storage.jobs import ProducedInstance, ProducedSeries
from storage.series import Arrival, JobRequest, SeriesFacts

T0 = datetime.now(UTC) - timedelta(minutes=1)


@pytest.fixture
def config(tmp_path, sqlite_file, monkeypatch):
    """A settings file with one destination, named by the environment as an operator would."""
    path = tmp_path / "node.toml"
    (tmp_path / "syncect-data").mkdir()
    sqlite_file.rename(tmp_path / "syncect-data" / "syncect.sqlite3")
    path.write_text('[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "127.0.0.1"\nport = 1\n')
    monkeypatch.setenv("SYNCECT_CONFIG", str(path))
    return path


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs `syncect` in this process with the arguments given; returns exit code, standard output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["syncect", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def held(config):
    """A store with one HELD job of three slices, patient ID included."""
    with open_store(load_settings(config)) as node:
        association = node.series.open_association("r", "CTSIM", "h", T0)
        for number in range(3):
            name = f"received/{number}.dcm"
            uids = ("1.2", "1.2.3", f"1.2.3.{number}", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
            node.series.record(association, "CTSIM", Arrival(*uids, f"{number:064}", name, 1), T0)
        node.series.close_association(association, released=True, now=T0)
        (series,) = node.series.undecided(T0 + timedelta(seconds=9), 5)
        facts = SeriesFacts(description="Thorax", patient_id="MRN0012345")
        node.series.queue(series, facts, JobRequest("k" * 64, "demo 1 (abc)"), T0)
        job = node.jobs.claim("w", 60, T0)
        assert job is not None
        made = tuple(ProducedInstance(f"9.{n}", f"1.2.3.{n}", f"{n}.dcm", "0" * 64) for n in range(3))
        product = ProducedSeries("9", "derived/1-1", made, {"changed_share": 0.25}, ("StudyID is long: kept",))
        node.jobs.finish(job.id, "w", product, destinations=["tps"], held_reason="looks enhanced", now=T0)

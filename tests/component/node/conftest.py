"""A command as an operator calls it, and a store that it finds."""

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from node.cli import main
from tests.departments import Department


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
def department(config):
    """A store in which a test makes the series that it needs."""
    with open_store(load_settings(config)) as node:
        yield Department(node)


@pytest.fixture
def held(config):
    """A store with one HELD job of three slices, patient ID included."""
    with open_store(load_settings(config)) as node:
        Department(node).held(remarks=("StudyID is long: kept",))

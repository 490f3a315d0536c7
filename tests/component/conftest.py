"""The settings of a node and its store, for whoever looks at it: the command line and the page."""

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
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
def department(config):
    """A store in which a test makes the series that it needs."""
    with open_store(load_settings(config)) as node:
        yield Department(node)

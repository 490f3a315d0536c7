"""Whatever the umask says, nothing that the node writes can be read by other users of the machine."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from node.ops.modes import loose, mend_modes
from node.ops.processes import process_lock


@pytest.fixture(autouse=True)
def careless_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.stat().st_mode & 0o077]


def test_a_command_leaves_nothing_open(run, tmp_path, config) -> None:
    assert run("db", "upgrade")[0] == 0
    assert run("db", "backup", tmp_path / "copy.sqlite3")[0] == 0
    assert (tmp_path / "copy.sqlite3").stat().st_mode & 0o777 == 0o600
    with open_store(load_settings(config)) as node, process_lock(node.run_dir, "receive", "1"):
        name = node.spool.keep((b"data",), datetime.now(UTC))
        node.spool.settle([name])
        assert open_to_others(node.settings.node.data_dir) == []


def test_looser_modes_of_an_older_version_are_mended_with_one_warning(config, held, caplog) -> None:
    data_dir = config.parent / "syncect-data"
    for path in (data_dir, *data_dir.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with caplog.at_level(logging.WARNING):
        mend_modes(data_dir)
    assert len(caplog.messages) == 1
    assert f"could read {data_dir} and " in caplog.messages[0]
    assert loose(data_dir) == []
    mend_modes(data_dir)
    assert len(caplog.messages) == 1

"""The code of an earlier commit, and this one, on one store: forward, on with the work, and back."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command

from storage.database import Database
from storage.schema import alembic_config
from storage.tables import SCHEMA_REVISION
from tests.contract.test_migrations import assert_survived, build, contents
from tests.restorable import files, write_settings

ROOT = Path(__file__).parents[3]
OLD = "448ca029066804ce7ff10702334bc693b8ee2c22"
"""The last commit before backups; its schema is 0004, its data are those of the nodes that run today."""
OLD_SCHEMA = "0004"
SCRIPT = ROOT / "tests" / "old_node.py"

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the code of that commit; skipped where the history does not reach so far back."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    if subprocess.run([*git, "cat-file", "-e", f"{OLD}^{{commit}}"], capture_output=True, check=False).returncode:
        pytest.skip("this checkout has no history that reaches the earlier version")
    folder = tmp_path_factory.mktemp("old")
    archive = subprocess.run(
        [*git, "archive", OLD, "config", "models", "node", "storage", "tests"], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


@pytest.fixture
def old(old_code: Path, config: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command with the earlier code."""
    environment = {**os.environ, "PYTHONPATH": str(old_code), "PYTHONSAFEPATH": "1"}
    del environment["SYNCECT_MODEL__ALLOW_UNPROVEN"]  # the earlier code does not know it

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=old_code,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def config(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings on each database, whose schema has been made."""
    path = tmp_path / "node.toml"
    write_settings(path, database.url.render_as_string(hide_password=False))
    monkeypatch.setenv("SYNCECT_CONFIG", str(path))
    return path


def work(old: Callable[..., subprocess.CompletedProcess[str]], what: str, config: Path) -> dict[str, int]:
    done = old(SCRIPT, what, config)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_data_of_the_earlier_code_go_forward_on_and_back(run: Call, old, config: Path, database: Database) -> None:
    of_the_earlier_code(database)
    work(old, "make", config)
    then = listed(old("-m", "node.cli", "jobs", "ls", "--json").stdout)
    before, kept = contents(database), files(config.parent / "syncect-data")
    assert {case["state"] for case in then} >= {
        *("RECEIVING", "INCOMPLETE", "SKIPPED", "QUEUED", "RUNNING", "HELD", "FAILED", "CANCELLED", "REJECTED"),
        *("SENDING", "SENT", "CONFIRMED", "SUPERSEDED", "PRODUCED"),
    }

    assert run("db", "upgrade")[0] == 0
    now = listed(run("jobs", "ls", "--json")[1])
    assert known(now, then) == then
    after = contents(database)
    assert_survived(before, after, set(before))
    assert run("spool", "verify")[0] == 0

    from tests import old_node

    sent = goes_on(old_node, config)
    assert sent == {"freed": 2, "sent": 2, "claims": 2}
    later = listed(run("jobs", "ls", "--json")[1])
    assert len(later) == len(then) + 1

    of_the_earlier_code(database)
    back = listed(old("-m", "node.cli", "jobs", "ls", "--json").stdout)
    assert known(later, back) == back
    assert work(old, "go_on", config) == {"freed": 0, "sent": 0, "claims": 0}
    assert files(config.parent / "syncect-data") == kept
    assert run("db", "upgrade")[0] == 0
    assert len(listed(run("jobs", "ls", "--json")[1])) == len(then) + 2


def of_the_earlier_code(database: Database) -> None:
    """Bring the store to the schema of the earlier code."""
    command.downgrade(alembic_config(database.engine), OLD_SCHEMA)


def known(found: Any, other: Any) -> Any:
    """What was found, with only the keys that the other has, at every depth."""
    if isinstance(found, list) and isinstance(other, list) and len(found) == len(other):
        return [known(one, its_other) for one, its_other in zip(found, other, strict=True)]
    if isinstance(found, dict) and isinstance(other, dict):
        return {key: known(found[key], other[key]) for key in other if key in found}
    return found


def listed(text: str) -> list[dict[str, object]]:
    """What `jobs ls --json` printed, without what it reckons from the time at which it is asked."""
    return [{key: case[key] for key in case if key not in ("eta_at", "due_at")} for case in json.loads(text)]


def goes_on(old_node, config: Path) -> dict[str, int]:
    from config.load import load_settings
    from node.bootstrap.store import open_store
    from tests.departments import Department

    with open_store(load_settings(config)) as node:
        return old_node.go_on(Department(node))


@pytest.mark.parametrize("revision", ["0003"])
def test_an_upgrade_writes_a_copy_first_and_the_copy_is_the_way_back(
    run: Call, config: Path, database: Database, revision: str, vacant_url: Callable[[str], str]
) -> None:
    before = build(database, revision)
    code, _, err = run("db", "upgrade")
    (copy,) = (config.parent / "syncect-data").glob("store-of-schema-*.sqlite3")
    assert (code, str(copy) in err.replace("\n", "")) == (0, True)
    assert copy.name.startswith(f"store-of-schema-{revision}-")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert database.current_revision() == SCHEMA_REVISION
    url = vacant_url("sqlite" if database.is_sqlite else "postgresql")
    write_settings(config, url)
    assert run("db", "load", copy)[0] == 0
    loaded = Database(url)
    assert loaded.current_revision() == revision
    assert contents(loaded) == before
    code, _, err = run("db", "load", copy)
    assert (code, "holds a store already" in err) == (4, True)
    assert run("db", "upgrade")[0] == 0


def test_an_upgrade_that_changes_nothing_writes_no_copy(run: Call, config: Path) -> None:
    assert run("db", "upgrade")[0] == 0
    assert list(config.parent.rglob("store-of-schema-*")) == []


def test_the_earlier_code_refuses_the_store_of_a_newer_version_in_a_sentence(
    old, config: Path, database: Database
) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    for arguments in (("jobs", "ls"), ("db", "upgrade")):
        told = old("-m", "node.cli", *arguments)
        assert told.returncode == 1
        assert "was made by a newer version of syncect (schema 0099" in told.stderr
    assert "restore the backup from before its upgrade" in told.stderr

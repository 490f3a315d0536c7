"""A node whose database is lost says so, begins with no empty one, and goes on when it is back."""

import hashlib
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from config.load import load_settings
from node.bootstrap.store import Node, open_store
from node.cli.service import TRANSIENT
from node.ops.alert_machine import UnknownImages
from storage.alerts import Cause
from storage.errors import WrongStore
from storage.tables import Instance
from storage.watching import WatchStore


def database_of(config: Path) -> Path:
    return config.parent / "syncect-data" / "syncect.sqlite3"


@pytest.fixture
def lost(config, held) -> Path:
    """The settings of a node with a result, whose database was deleted."""
    shutil.rmtree(config.parent / "away", ignore_errors=True)
    for path in database_of(config).parent.glob("syncect.sqlite3*"):
        path.unlink()
    return config


def test_a_writer_refuses_to_begin_and_makes_no_database(lost: Path) -> None:
    with pytest.raises(WrongStore, match="syncect db rebuild"), open_store(load_settings(lost)):
        pass
    assert not database_of(lost).exists()


@pytest.mark.parametrize("command", [("receive",), ("serve",), ("jobs", "retry", "1")], ids=" ".join)
def test_commands_that_write_end_with_a_sentence_and_code_2(run, lost, monkeypatch, command) -> None:
    monkeypatch.setattr("node.ops.log.configure_logging", lambda *_args, **_kwargs: None)
    monkeypatch.setattr("node.cli.service.stop_event", lambda **_kwargs: threading.Event())
    code, _, err = run(*command)
    assert code == 2
    assert "holds files" in err
    assert "syncect db rebuild" in err


def test_readers_say_that_the_store_is_lost_and_show_no_empty_list(run, lost) -> None:
    code, out, err = run("jobs", "ls")
    assert (code, out) == (1, "")
    assert err.startswith("syncect: there is no store at ")
    code, out, _ = run("status")
    assert code == 2
    assert out.startswith("DOWN: there is no store at ")


def test_an_empty_store_that_an_upgrade_made_is_refused_as_well(run, lost) -> None:
    assert run("db", "upgrade")[0] == 0
    with pytest.raises(WrongStore, match="is empty"), open_store(load_settings(lost)):
        pass


@pytest.mark.parametrize("left", ["nothing", "an empty store"])
def test_no_word_of_a_person_makes_an_empty_store_that_of_a_full_spool(run, lost, left) -> None:
    if left == "an empty store":
        assert run("db", "upgrade")[0] == 0
    code, _, err = run("db", "adopt")
    assert code == 4
    assert "syncect db rebuild" in err
    with pytest.raises(WrongStore), open_store(load_settings(lost)):
        pass


def test_images_that_a_restored_backup_does_not_know_are_an_alert_until_they_come_again(config, department) -> None:
    node, later = department.node, datetime.now(UTC) + timedelta(hours=1)
    assert not unknown_to(node, later)
    (name, twin) = (node.spool.keep((b"image",), later) for _ in "12")  # after the backup was made
    (cause,) = unknown_to(node, later)
    assert cause.text.startswith("2 received images are on the disk and unknown to the store")
    assert unknown_to(node, datetime.now(UTC)) == [], "a file lies there before its row"
    department.arrive()
    with node.database.write() as session:  # it is sent again, and one file of it stands in no row
        row = session.scalars(select(Instance)).first()
        row.spool_name, row.sha256 = name, hashlib.sha256(b"image").hexdigest()
    assert unknown_to(node, later) == []
    assert node.spool.path(twin).exists()


def unknown_to(node: Node, now: datetime) -> list[Cause]:
    return UnknownImages(node.spool, node.retention.unknown, WatchStore(node.database)).find(now)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"uid": 5}', '{"uid": "../x"}', "\xff"])
def test_a_damaged_identity_of_the_node_is_a_sentence_that_can_pass(run, config, held, text) -> None:
    path = config.parent / "syncect-data" / "installation.json"
    path.write_bytes(text.encode("latin-1"))
    code, _, err = run("spool", "repair", "--yes")
    assert code == 2
    assert f"{path.name} is damaged" in err
    with pytest.raises(TRANSIENT), open_store(load_settings(config)):
        pass


def test_doctor_tells_a_damaged_page_that_nothing_has_read_yet(run, config, held) -> None:
    path = database_of(config)
    raw = bytearray(path.read_bytes())
    raw[8 * 4096 : 9 * 4096] = b"\xff" * 4096
    path.write_bytes(raw)
    code, _, err = run("config", "validate")
    assert code == 2
    assert "it is damaged" in err

"""What the parts of a node on several hosts do with the object store: they settle, wait, sweep, verify and share."""

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.load import load_settings
from node.bootstrap import shared as shared_module
from node.bootstrap import store as store_module
from node.bootstrap.roles import make_retention
from node.bootstrap.store import Node, open_store, read_store
from node.ops.cached import CacheTidy
from storage import shared_spool
from storage.errors import ObjectsUnavailable, WrongStore
from storage.shared_spool import MARK, SharedSpool
from storage.states import JobState
from tests.component.node.test_spool_commands import Kept
from tests.departments import START
from tests.object_stores import FaultyStore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    """The bucket of every node of this test."""
    store = FaultyStore()
    for module in (shared_module, store_module):
        monkeypatch.setattr(module, "objects_of", lambda _settings: store.open)
    monkeypatch.setattr(shared_spool, "_PAUSE_S", 0.0)
    return store


def down(verb: str, _key: str) -> None:
    raise TimeoutError(verb)


def with_bucket(config: Path, **changes: str) -> Path:
    """The settings of another host, of the same node where its database is named."""
    node = "".join(f'{key} = "{value}"\n' for key, value in changes.items())
    text = config.read_text().replace("[node]\n", f"[node]\n{node}", 1)
    path = config.with_name(f"host-{changes.get('data_dir', 'a')}.toml")
    path.write_text(f'{text}\n[spool]\nurl = "s3://department/spool"\n')
    return path

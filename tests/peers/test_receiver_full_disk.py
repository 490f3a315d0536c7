"""A full disk, under hundreds of instances a minute, fills neither the log nor the sender's patience."""

import errno
import io
import logging
import os
from typing import Any

import pytest

from node.ops.log_limits import LimitedHandler, RepeatFilter
from node.ops.log_lines import line_formatter
from storage.errors import StoreUnavailable
from tests.peers.test_receiver_storing import association

MOST_LINES_A_MINUTE = 100
INSTANCES, ASSOCIATIONS = 200, 20


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a process of the node would have written to its log."""
    handler = LimitedHandler(RepeatFilter())
    handler.setFormatter(line_formatter("console", "receive"))
    handler.stream = stream = io.StringIO()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    return stream


def send_all(receiver: Any, make_ct: Any) -> set[int]:
    """The statuses of 200 instances in 20 associations."""
    statuses = set()
    for number in range(ASSOCIATIONS):
        with association(receiver, calling_ae=f"CT{number}") as link:
            for instance in range(INSTANCES // ASSOCIATIONS):
                ds = make_ct(instance=number * 1000 + instance)
                statuses.add(int(link.send_c_store(ds).Status))
    return statuses


def test_the_log_of_a_full_disk_stays_small(start_receiver, make_ct, written, monkeypatch) -> None:
    def no_room(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    receiver = start_receiver()
    monkeypatch.setattr("storage.spool._write_all", no_room)
    monkeypatch.setattr("storage.refusals.RefusalStore.record", _full_store)
    assert send_all(receiver, make_ct) == {0xA700}
    lines = written.getvalue().splitlines()
    assert "Traceback" not in written.getvalue()
    assert any("could not be stored: No space left on device" in line for line in lines)
    assert any("waits for the database: the store cannot be used: database or disk is full" in x for x in lines)
    assert len(lines) <= 2 * MOST_LINES_A_MINUTE, "the test may take more than a minute on a busy machine"


def _full_store(*_: Any) -> None:
    raise StoreUnavailable("the store cannot be used: database or disk is full")

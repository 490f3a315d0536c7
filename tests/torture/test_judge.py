"""The judge finds what it is there to find: a node that keeps its word is clean, and each broken word is named."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from storage.database import Database
from tests.torture.calls import CHAIN, Paths
from tests.torture.ledger import Content, Taken, Verdict


@pytest.fixture
def sent(paths_at: Callable[..., Paths]) -> Paths:
    """A series that was received, translated and sent."""
    paths = paths_at()
    answer = paths.run(*CHAIN)
    assert answer.code == 0, answer.said
    assert paths.judge() == Verdict(acknowledged=8)
    return paths


def _change(paths: Paths, statement: str) -> None:
    database = Database(paths.url)
    with database.write() as session:
        session.execute(text(statement))
    database.close()


def test_each_broken_word_is_named(sent: Paths) -> None:
    taken, ledger = list(sent.ledger.taken), sent.ledger

    source = next((sent.data_dir / "spool" / "received").glob("*/*.dcm"))
    content = source.read_bytes()
    source.write_bytes(content[:-1] + b"x")
    assert len(sent.judge().lost) == 1
    source.write_bytes(content)
    assert sent.judge().is_clean

    ledger.taken = [*taken, Taken("1.2.3", taken[0].source_uid, taken[0].content)]
    assert len(sent.judge().twice) == 1
    ledger.taken = [*taken, Taken(taken[0].uid, taken[0].source_uid, Content.of(b"other"))]
    assert len(sent.judge().twice) == 1

    ledger.taken = taken[1:]
    assert len(sent.judge().false) == 1
    ledger.taken = [*taken[1:], Taken(taken[0].uid, taken[0].source_uid, Content.of(b"other"))]
    assert len(sent.judge().false) == 1
    ledger.taken = taken

    _change(sent, "UPDATE delivery SET state = 'PENDING'")
    assert len(sent.judge().stuck) == 1
    _change(sent, "DELETE FROM delivery_instance")
    _change(sent, "DELETE FROM instance WHERE id = 1")
    assert len(sent.judge().lost) == 1

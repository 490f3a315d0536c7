"""Places of an archive: what is fetched is whole, or it is said that it is not there."""

from pathlib import Path

import pytest

pytest.importorskip("obstore")

from node.archive.places import fetch_all, read
from storage.errors import ObjectsUnavailable
from tests.object_stores import FaultyStore


@pytest.fixture
def store() -> FaultyStore:
    made = FaultyStore()
    for name in ("a", "b"):
        made.open.put(f"series/{name}", 100 * name.encode())
    return made


def test_a_source_that_loses_a_file_while_it_is_fetched_is_not_taken_for_a_smaller_one(
    store: FaultyStore, tmp_path: Path
) -> None:
    """An end slice that is missing leaves no gap: the result would lack it without a word."""
    found = list(store.open.list("series"))
    assert [path.stat().st_size for path in fetch_all(store.open, found, tmp_path)] == [100, 100]
    store.real.delete("series/b")
    (again := tmp_path / "again").mkdir()
    with pytest.raises(ObjectsUnavailable, match="cut or removed while it was read"):
        fetch_all(store.open, found, again)


def test_what_is_not_there_reads_as_nothing(store: FaultyStore) -> None:
    assert read(store.open, "series/c") == b""
    assert read(store.open, "series/a") == 100 * b"a"

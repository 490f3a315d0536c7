"""The gauges of monitoring say the same as the listing, on SQLite and on PostgreSQL alike."""

from collections import Counter

import pytest

from config.settings import NodeSettings, Settings
from node.bootstrap.store import Node
from storage.gauges import STATES, Gauges
from tests.departments import START, Department


@pytest.fixture
def department(database, tmp_path):
    """A store with a series in nearly every state."""
    node = Node(Settings(node=NodeSettings(data_dir=tmp_path)), database, "here", writable=True)
    department = Department(node)
    for make in (
        department.sent,
        department.sending,
        department.failed,
        department.held,
        department.incomplete,
        department.skipped,
        department.produced,
        department.sent,
    ):
        make()
    department.produced(destinations=())
    department.produced(destinations=("tps", "archive"))
    department.queued()
    department.arrive()
    return department


def test_cases_are_counted_as_a_reader_sees_them(department, database):
    listed = Counter(case.state for case in department.node.overview.cases(limit=0))
    found = Gauges(database).cases()
    assert +found == listed
    assert set(found) == set(STATES)


def test_what_is_not_sent_is_counted_for_known_destinations_only(department, database):
    found = Gauges(database).unsent(["tps", "third"])
    assert found == {
        ("tps", "PENDING"): 3,
        ("tps", "SENDING"): 0,
        ("tps", "FAILED"): 0,
        ("third", "PENDING"): 0,
        ("third", "SENDING"): 0,
        ("third", "FAILED"): 0,
    }


def test_the_oldest_of_each_state_and_the_last_sent_are_known(department, database):
    gauges = Gauges(database)
    assert set(gauges.oldest()) == {"RECEIVING", "INCOMPLETE", "QUEUED", "HELD", "FAILED", "PRODUCED"}
    assert set(gauges.oldest().values()) == {START}
    assert gauges.last_sent_at() == department.node.overview.last_sent_at()


def test_an_empty_store_has_nothing(database):
    gauges = Gauges(database)
    assert not +gauges.cases()
    assert gauges.oldest() == {}
    assert gauges.last_sent_at() is None

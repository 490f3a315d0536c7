"""Who accepted which bundle is kept, and the newest decision counts, on SQLite and on PostgreSQL alike."""

import pytest

from storage.acceptances import AcceptanceStore
from storage.errors import NotFound
from tests.contract.store_bench import at

ONE, OTHER, REPORT = "1" * 64, "2" * 64, "a" * 64


@pytest.fixture
def store(database):
    store = AcceptanceStore(database)
    store.accept("demo 1 (111)", ONE, who="A. Physicist", report_sha256=REPORT, note="", now=at(0))
    return store


def test_a_decision_is_about_one_digest(store):
    accepted = store.newest(ONE)
    assert (accepted.is_valid, accepted.who, accepted.report_sha256, accepted.at) == (
        True,
        "A. Physicist",
        REPORT,
        at(0),
    )
    assert store.newest(OTHER) is None


def test_the_newest_decision_counts_also_after_the_clock_was_set_back(store):
    store.withdraw(ONE, who="B", note="wrong levels", now=at(-3600))
    withdrawn = store.newest(ONE)
    assert (withdrawn.is_valid, withdrawn.bundle, withdrawn.note) == (False, "demo 1 (111)", "wrong levels")
    store.accept("demo 1 (111)", ONE, who="B", report_sha256="b" * 64, note="again", now=at(-1800))
    assert store.newest(ONE).is_valid
    assert [view.decision for view in store.history()] == ["ACCEPTED", "WITHDRAWN", "ACCEPTED"]


def test_what_is_not_accepted_cannot_be_withdrawn(store):
    with pytest.raises(NotFound, match="222222222222 is not accepted"):
        store.withdraw(OTHER, who="B", note="x", now=at(1))
    store.withdraw(ONE, who="B", note="x", now=at(1))
    with pytest.raises(NotFound):
        store.withdraw(ONE, who="B", note="x", now=at(2))

"""A few faults of a whole node on each database; `make torture` does all of them, and hundreds of kills."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.conftest import PostgresCluster
from tests.torture.faults import FAULTS
from tests.torture.report import Report
from tests.torture.rounds import Beds, fault_round, kill_round
from tests.torture.shim import built_shim

_SEED = 20_261
_IN_SHORT = (
    "TPS answers for another instance",
    "no space left",
    "another peer sends into a series",
    "database stopped at once",
)
_KILLS = 8  # on each database, which one round mostly brings: every role, and once the whole node


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def beds(request: pytest.FixtureRequest, tmp_path: Path, tiny_bundle: Path) -> Iterator[Beds]:
    """Beds on one database."""
    built_shim()
    cluster = PostgresCluster() if request.param == "PostgreSQL" else None
    if cluster is not None:
        cluster.start()
    beds = Beds(tmp_path, tiny_bundle, Random(_SEED), cluster)
    yield beds
    beds.drop()
    if cluster is not None:
        cluster.__exit__()


def test_a_few_kills_and_faults_lose_nothing(beds: Beds) -> None:
    assert {kept.name for kept in FAULTS} >= set(_IN_SHORT)
    report, kills = Report(), 0
    while kills < _KILLS:
        kills += kill_round(beds, report)
    for kept in FAULTS:
        if kept.name in _IN_SHORT and (kept.only or "SQLite") == beds.database:
            fault_round(beds, report, kept)
    assert report.findings() == []
    assert sum(row.acknowledged for row in report.rows) >= 8 * len(report.rows)

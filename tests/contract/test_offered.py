"""Which results a peer may find and fetch, on both databases: those that stand for their series now."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from storage.constancy import ConstancyStore
from storage.offered import OfferedStore
from storage.states import SeriesState
from storage.tables import Delivery, Job, Series
from tests.contract.store_bench import Bench, at


@pytest.fixture
def bench(database):
    made = Bench(database)
    made.receive()
    made.queue()
    made.produce()
    return made


def change(bench: Bench, statement: Any) -> None:
    with bench.database.write() as session:
        session.execute(statement)


def test_a_result_is_offered_with_its_instances_in_the_order_of_the_slices(bench):
    offered = OfferedStore(bench.database)
    (series,) = offered.series()
    assert (series.job_id, series.count) == (1, 3)
    assert [one.job_id for one in offered.series([series.study_uid], [series.series_uid])] == [1]
    assert offered.series(["1.2.3.4"]) == offered.series((), ["1.2.3.4"]) == []
    instances = offered.instances(1)
    assert len({one.sop_instance_uid for one in instances}) == 3
    assert [one.file_name for one in instances] == sorted(one.file_name for one in instances)
    assert offered.may_be_sent(1)


WITHDRAWN: dict[str, Callable[[Bench], object]] = {
    "cancelled": lambda bench: bench.jobs.cancel(1, "o", "r", at(30)),
    "received again": lambda bench: change(bench, update(Series).values(state=SeriesState.RECEIVING)),
    "purged": lambda bench: change(bench, update(Job).values(purged_at=at(30))),
    "held for a destination": lambda bench: change(bench, update(Delivery).values(held_for="another patient")),
    "a phantom": lambda bench: ConstancyStore(bench.database).begin("demo", "0" * 64, at(1), series_uid="1.2.3"),
}


@pytest.mark.parametrize("how", WITHDRAWN)
def test_what_may_not_be_sent_is_not_offered(bench, how: str):
    WITHDRAWN[how](bench)
    offered = OfferedStore(bench.database)
    assert (offered.series(), offered.instances(1), offered.may_be_sent(1)) == ([], [], False)


def test_a_delivery_that_a_person_let_go_keeps_nothing_back(bench):
    change(bench, update(Delivery).values(held_for="another patient", override="anna: the same"))
    assert OfferedStore(bench.database).may_be_sent(1)


def test_a_held_result_is_not_offered_until_it_is_released(database):
    bench = Bench(database)
    bench.receive()
    bench.queue()
    bench.produce(held="a gate")
    assert OfferedStore(database).series() == []
    bench.jobs.release(1, ["tps"], "anna", "seen", at(40))
    assert [one.job_id for one in OfferedStore(database).series()] == [1]

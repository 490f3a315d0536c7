"""A result that a person released and that is lost later is made again with its release, or is HELD and says why."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom import dcmread

from node.bootstrap.release import release_held
from node.bootstrap.store import Node
from node.dicom.doubt_file import DOUBT_FILE
from storage.database import Database
from storage.overview import Case
from tests.component.node.test_worker_heals import Bench
from tests.damages import OF_A_FILE


@pytest.fixture
def released(sqlite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A result that a gate doubted, and that a person released to the tps."""
    bench = Bench(Database(f"sqlite:///{sqlite_file}"), tmp_path)
    bench.executor.translator.shift_hu = 900.0
    bench.work()
    held = bench.case("HELD")
    node = SimpleNamespace(
        overview=bench.overview, spool=bench.spool, jobs=bench.jobs, destinations_for=lambda _routed: ["tps"]
    )  # all that a release needs of a node
    release_held(cast(Node, node), held, "anna", "compared with the scan", bench.now)
    return bench


def sentence(bench: Bench, case: Case) -> str:
    path = next(bench.spool.path(str(case.product_dir)).glob("*.dcm"))
    return str(dcmread(path, stop_before_pixels=True).DerivationDescription)


@pytest.mark.parametrize("damage", OF_A_FILE)
def test_a_released_result_that_is_lost_keeps_its_release_where_its_bytes_come_out_again(
    released: Bench, damage: Callable[[Path], None]
) -> None:
    before = released.products(released.case())
    for _ in range(2):
        released.lose_result(damage)
        assert released.work() is True
        (case,) = released.overview.cases()
        assert (case.state, released.products(case)) == ("PRODUCED", before)
    assert "Released by anna: compared with the scan" in sentence(released, case)
    assert [
        path.suffix for path in released.spool.path(str(case.product_dir)).iterdir() if path.name != DOUBT_FILE
    ] == [".dcm"] * 6


def test_a_hold_for_want_of_the_model_in_between_does_not_become_the_doubt(released: Bench) -> None:
    before = released.products(released.case())
    released.lose_result()
    job = released.jobs.claim("w", 60, released.now)
    assert job is not None
    released.jobs.hold(job.id, "w", "the worker cannot translate: the GPU is gone", released.now)
    released.jobs.retry(job.id, "operator", "the GPU is back", released.now)
    released.work()
    assert released.products(released.case("PRODUCED")) == before


@pytest.mark.parametrize(("shift_hu", "is_doubted"), [(-900.0, True), (61.0, False)])
def test_one_that_comes_out_otherwise_is_held_and_names_the_release_that_no_longer_holds(
    released: Bench, shift_hu: float, is_doubted: bool
) -> None:
    released.lose_result()
    released.executor.translator.shift_hu = shift_hu
    released.work()
    assert "made again they have other bytes" in released.case("SUPERSEDED").reason
    released.work()
    held = released.case("HELD")
    assert held.reason.startswith(
        "an earlier result of these images, released by anna (compared with the scan), was lost and made again "
        "with other bytes; look at this one again"
    )
    assert held.reason.endswith("look at this one again") != is_doubted, "the gate's doubt follows"

"""An archive on a real Ray cluster of this machine, whose processes end while they work; `make ray` runs it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

import pyarrow as pa
import pyarrow.parquet as pq

from config.settings import ModelSettings, Settings
from node.archive.permits import permitted
from node.archive.run import Archive, run_archive
from node.translate.ray_cluster import ClusterPlan
from node.translate.ray_executor import connected, stream
from tests.archive_faults import DIES, DIES_ONCE, EndingTranslator
from tests.builders import body_hu, make_series

PLAN = ClusterPlan(actors=1, object_store_mb=64, cores_per_actor=1)


@pytest.mark.skipif(os.environ.get("RAY_FAULTS") != "long", reason="takes a minute: `make ray` runs it")
def test_a_process_that_ends_costs_no_series_and_one_that_always_ends_only_its_own(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["first", DIES_ONCE, DIES, "last"]
    for name in names:
        make_series(tmp_path / name, hu=body_hu(8, 64, 64), rows=64, columns=64, slices=8, seed=name)
    pq.write_table(pa.table({"source": [str(tmp_path / name) for name in names]}), tmp_path / "index.parquet")
    settings = Settings(model=ModelSettings(bundle=str(tiny_bundle), allow_unproven=("tiny",), device="cpu"))
    ask = replace(permitted(settings)[0], device="cpu")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def ending(rows: Any, _maker: Any, run: Any) -> Any:
        return stream(rows, EndingTranslator, run, PLAN, "cpu")

    archive = Archive(settings, tmp_path / "index.parquet", str(tmp_path / "out"), ask)
    with connected(PLAN):
        tally = run_archive(archive, ending, lambda _tally: None)
    assert tally.done == len(names)
    rows = pq.read_table(tmp_path / "out" / "outcomes.parquet").to_pylist()
    ends = {Path(row["source"]).name: row["end"] for row in rows}
    assert ends == {name: "FAILED" if name == DIES else "PRODUCED" for name in names}
    assert (tmp_path / "has died").exists(), "the fault was there"
    named = {row["derived_series_uid"] for row in rows} - {""}
    made = {path.name for path in (tmp_path / "out" / "series").iterdir()}
    assert len(named) == len(names) - 1
    assert named <= made, "what an ended process had put, the next one put again under the same name"

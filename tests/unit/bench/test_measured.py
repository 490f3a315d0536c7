"""The model is told figures of the newest report that has them, each with its source, and nothing that is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.scale import archive_days, day, main, plan
from bench.scaled.measured import measured

BENCH = {
    "receive": {
        "1 association: this node, durable: s for 140 slices": 0.6,
        "10 associations: this node, durable: s for 140 slices": 0.8,
    },
    "job": {
        "headers and digests: s for 140 slices": 0.5,
        "whole job without the network: s for 140 slices": 4.0,
        "CPU time of the whole job, all threads: s for 140 slices": 5.0,
    },
    "delivery": {"delivery, this node's courier: s for 140 slices": 0.7},
}


def gpu(translate_s: float) -> dict[str, Any]:
    shared = {"figure": "translation by processes that share the device", "bundle": "demo", "slices": 140}
    stage = {"bundle": "demo", "workers": 1, "slices": 140}
    return {
        "dry_run": False,
        "sections": {
            "sharing": {"rows": [{**shared, "value": 2 * translate_s}, {**shared, "value": translate_s}]},
            "node": {
                "rows": [
                    {**stage, "figure": "job in the worker", "value": 7.0},
                    {**stage, "figure": "translate", "value": 1.0},
                    {**stage, "figure": "second look", "value": 0.5},
                ]
            },
            "bundles": {
                "rows": [
                    {"figure": "second look / translation", "bundle": "demo", "precision": "fp32", "value": 3.0},
                    {"figure": "second look / translation", "bundle": "demo", "precision": "bf16", "value": 1.5},
                ]
            },
        },
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    claims = {
        "sections": {"claims": {"checks": [{"name": "claims, PostgreSQL, 1 processes: jobs per s", "value": 20.0}]}}
    }
    reports = {
        "2026-11-01T100000": {"results": {"job": {"headers and digests: s for 140 slices": 9.0}}},
        "2026-11-02T100000": {"results": BENCH},
        "gpu-A-2026-11-03T100000": gpu(3.0),
        "gpu-A-2026-11-04T100000": gpu(2.0),
        "gpu-A-2026-11-05T100000": {**gpu(1.0), "dry_run": True},
        "scale-2026-11-05T100000": claims,
    }
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    return tmp_path


def test_the_newest_report_with_a_figure_counts_and_is_named(results: Path) -> None:
    found = measured("demo", folder=results)
    assert found["judge"] == 0.5
    assert found["GPU part of a job"] == 2.0, "the newest on a card, with the number of processes that gained most"
    assert found.figures["GPU part of a job"].source == "gpu-A-2026-11-04T100000.json"
    times = found.times()
    assert times.job.cpu_s / times.job.cores == pytest.approx(5.5), "alone, a job takes what was measured"
    assert times.gpu_s == pytest.approx(2.0 * (1 + 1.5)), "the GPU looks twice at each scan"
    assert times.transactions_s == 0.05
    assert times.receivers == pytest.approx(0.75)


def test_a_second_look_that_nobody_measured_is_an_assumption_and_called_one(results: Path) -> None:
    for file in results.glob("gpu-*.json"):
        report = json.loads(file.read_text())
        del report["sections"]["bundles"]
        file.write_text(json.dumps(report))
    found = measured("demo", folder=results)
    assert found.times().gpu_s == pytest.approx(2.0 * 2)
    assert found.figures["second look / translation"].source.startswith("assumed")


def test_without_a_node_on_a_gpu_the_job_on_the_processor_stands_for_it(results: Path) -> None:
    (results / "gpu-A-2026-11-04T100000.json").unlink()
    bare = gpu(3.0)
    del bare["sections"]["node"]
    (results / "gpu-A-2026-11-03T100000.json").write_text(json.dumps(bare))
    assert measured("demo", folder=results)["host part of a job"] == 4.0


def test_a_figure_that_nobody_measured_is_refused(results: Path) -> None:
    with pytest.raises(LookupError, match="claims per s"):
        measured("demo", "SQLite", results)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--bundle", "nobody"], "no report in"), (["--bundle", "demo", "--write"], "has the figures of syndiff")],
)
def test_the_page_has_no_figures_of_another_bundle_and_a_strange_one_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_day_has_its_series_in_working_hours_and_is_the_same_for_its_seed() -> None:
    assert day(50, 1) == day(50, 1) != day(50, 2)
    assert len(day(50, 1)) == pytest.approx(50 * 24, rel=0.1)
    assert all(7 <= arrival.at_s / 3600 < 18 for arrival in day(50, 1))


def test_an_archive_takes_as_long_as_its_slowest_station(results: Path) -> None:
    times = measured("demo", folder=results).times()
    taken, run = archive_days(times, 1, 1)
    assert taken == pytest.approx(100_000 * (5.5 + 5.0 + 0.05) / 86400, rel=0.03)
    assert run.bottleneck == "workers"
    taken, run = archive_days(times, 8, 64)
    assert taken == pytest.approx(100_000 * 0.8 / 86400, rel=0.05), "the receiver, with ten associations"
    assert plan(workers=2, gpus=3).cores == 48

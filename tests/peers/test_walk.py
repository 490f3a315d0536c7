"""A newcomer who follows a slice to its first answer or to the TPS, or a list of jobs, reads few files."""

from pathlib import Path

import pytest

from bench.walk import STAGES, first_answer, jobs_ls, to_the_tps


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings from variables take a path of their own."""
    monkeypatch.delenv("SYNCECT_WEB__ENABLED")


def test_a_slice_passes_at_most_13_files_to_its_first_answer(tmp_path: Path) -> None:
    walk = first_answer(tmp_path)
    assert len(walk.files) <= 13, sorted(walk.files)  # one of them asks whether receiving is paused
    assert len(walk.functions) <= 150  # here and below little above what it was when this was written
    assert {"node/network/server.py", "node/receive/receiver.py", "storage/spool.py"} <= walk.files


def test_a_list_of_jobs_enters_at_most_21_files(tmp_path: Path) -> None:
    walk = jobs_ls(tmp_path)
    assert len(walk.files) <= 21, sorted(walk.files)  # three of settings, two of turns, one of cases
    assert len(walk.functions) <= 100
    assert {"node/cli/jobs_ls.py", "storage/overview.py"} <= walk.files


def test_a_slice_passes_at_most_87_files_to_the_tps(tmp_path: Path) -> None:
    walks = to_the_tps(tmp_path)
    files = set[str]().union(*(walk.files for walk in walks.values()))
    functions = set[tuple[str, str]]().union(*(walk.functions for walk in walks.values()))
    # Thirteen are for TLS, multi-frame, preflight, patients, routes, bundles, steps, turns, wakes and outages.
    assert len(files) <= 87, sorted(files)
    assert len(functions) <= 680
    assert tuple(walks) == STAGES
    assert {"node/receive/receiver.py", "node/translate/worker.py", "node/send/courier.py"} <= files

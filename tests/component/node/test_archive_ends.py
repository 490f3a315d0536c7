"""How `archive run` ends: with the cause and not with what follows from it, and by SIGTERM as by Ctrl-C."""

import signal
from functools import partial
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from node.archive import keeping
from node.cli.archive import _ended_by_sigterm
from node.errors import Retryable
from node.translate.ray_cluster import ClusterPlan


def test_what_ended_a_run_is_told_and_not_that_its_last_rows_did_not_fit() -> None:
    def full(_rows: Any) -> None:
        raise OSError("No space left on device")

    def run(error: Exception | None) -> None:
        with keeping.Keeper(full, lambda: None) as keeper:
            keeper.add({"key": "k"})
            if error is not None:
                raise error

    with pytest.raises(Retryable, match="the output is full"):
        run(Retryable("the output is full"))
    with pytest.raises(OSError, match="No space"):
        run(None)


def test_sigterm_ends_the_command_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _ended_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_ctrl_c_does_not_end_what_ends_the_processes_of_ray(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    executor = pytest.importorskip("node.translate.ray_executor")
    ended = []

    def shutdown() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        ended.append("all")

    monkeypatch.setattr(executor, "_connect", lambda _plan, _tries: "127.0.0.1:1")
    monkeypatch.setattr(executor, "answers", lambda _host, _port: True)
    monkeypatch.setattr(executor.ray, "shutdown", shutdown)
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell began the tests with `&`
    with pytest.raises(KeyboardInterrupt), _ended_by_sigterm(), executor.connected(ClusterPlan()):
        signal.raise_signal(signal.SIGINT)
    assert ended == ["all"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)

"""How `archive run` ends: with the cause and not with what follows from it, and by SIGTERM as by Ctrl-C."""

import signal
from typing import Any

import pytest

pytest.importorskip("pyarrow")

from node.archive import keeping
from node.cli.archive import _ended_by_sigterm
from node.errors import Retryable


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

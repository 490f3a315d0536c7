"""A log that a flood cannot fill."""

import logging
import sys
from typing import Any

from node.errors import Misconfigured
from node.ops.log import REPEATS, WINDOW_S, RepeatFilter, SentenceFormatter
from storage.errors import StoreUnavailable


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def record(text: str, *arguments: Any) -> logging.LogRecord:
    return logging.LogRecord("node", logging.WARNING, "", 0, text, arguments, None)


def test_a_message_that_repeats_is_left_out_and_counted() -> None:
    clock = Clock()
    some = RepeatFilter(clock)
    assert [some.filter(record("rejected %s", "A")) for _ in range(700)] == [True] * REPEATS + [False] * (700 - REPEATS)
    assert some.filter(record("rejected %s", "B"))
    clock.now_s = WINDOW_S
    again = record("rejected %s", "A")
    assert some.filter(again)
    assert again.getMessage() == f"rejected A ({700 - REPEATS} more of these in the last 60 s)"
    assert not again.args


def test_different_messages_all_pass_and_need_little_memory() -> None:
    some = RepeatFilter(Clock())
    assert all(some.filter(record(f"instance {number}")) for number in range(5000))
    assert len(some._seen) <= 1000


def formatted(error: Exception) -> str:
    try:
        raise error
    except Exception:
        return SentenceFormatter("%(message)s").format(
            logging.LogRecord("node", logging.ERROR, "", 0, "delivery to %s paused", ("tps",), sys.exc_info())
        )


def test_an_error_of_ours_is_a_sentence_and_another_one_keeps_its_traceback() -> None:
    assert formatted(StoreUnavailable("the store is gone")) == "delivery to tps paused: the store is gone"
    assert formatted(Misconfigured("no such device")) == "delivery to tps paused: no such device"
    assert "Traceback" in formatted(ZeroDivisionError())

"""A log that a flood cannot fill."""

import errno
import io
import json
import logging
import sys
import threading
from typing import Any

import pytest

from node.errors import Misconfigured
from node.ops import log
from node.ops.log_limits import ALIKE, REPEATS, WINDOW_S, LimitedHandler, RepeatFilter
from node.ops.log_lines import line_formatter
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


def test_one_message_with_thousands_of_values_is_limited_by_its_format() -> None:
    clock = Clock()
    some = RepeatFilter(clock)
    passed = [some.filter(record("delivery %d failed", number)) for number in range(5000)]
    assert passed == [True] * ALIKE + [False] * (5000 - ALIKE)
    assert some.filter(record("job %d failed", 1))
    clock.now_s = WINDOW_S
    again = record("delivery %d failed", 7777)
    assert some.filter(again)
    assert again.getMessage() == f"delivery 7777 failed ({5000 - ALIKE} more like it in the last 60 s)"


def test_the_steps_of_verbose_are_limited_by_their_words_only() -> None:
    some = RepeatFilter(Clock())
    steps = [logging.LogRecord("node", logging.DEBUG, "", 0, "slice %d", (n,), None) for n in range(200)]
    assert all(some.filter(step) for step in steps)
    assert [some.filter(step) for step in [steps[0]] * 5] == [True] * 4 + [False]


class Log:
    """A log as a process writes it, with a clock of its own."""

    def __init__(self) -> None:
        self.clock, self.stream = Clock(), io.StringIO()
        self.handler = LimitedHandler(RepeatFilter(self.clock))
        self.handler.setFormatter(line_formatter("json", "work"))
        self.handler.stream = self.stream

    def write(self, text: str, *arguments: Any, error: BaseException | None = None) -> None:
        one = record(text, *arguments)
        if error is not None:
            try:
                raise error
            except BaseException:
                one.exc_info = sys.exc_info()
        self.handler.handle(one)

    def lines(self) -> list[str]:
        """What the lines say."""
        return [json.loads(line)["message"] for line in self.stream.getvalue().splitlines()]


def test_a_flood_that_ends_is_counted_with_the_next_line_whatever_it_is() -> None:
    some = Log()
    for _ in range(581):
        some.write("the spool takes no more")
    some.clock.now_s = WINDOW_S
    some.write("listening")
    assert some.lines()[REPEATS:] == [
        f"the spool takes no more (the last of {581 - REPEATS} of these that were left out)",
        "listening",
    ]
    some.clock.now_s = 2 * WINDOW_S
    some.write("listening")
    assert len(some.lines()) == REPEATS + 3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
        (TimeoutError(), "TimeoutError"),
        (StoreUnavailable("the store cannot be used: database or disk is full"), "the store cannot be used: "),
    ],
)
def test_an_error_of_operation_is_one_line_however_often(error: Exception, words: str) -> None:
    some = Log()
    for _ in range(582):
        some.write("an instance could not be stored", error=error)
    assert len(some.lines()) == REPEATS
    assert all(words in line for line in some.lines())


def test_an_error_that_nobody_expected_has_one_traceback_a_minute() -> None:
    some = Log()
    for n in range(600):
        some.write("instance %d", n, error=ZeroDivisionError())
    assert some.stream.getvalue().count("Traceback") == 1
    assert some.lines()[-1] == "instance 29: ZeroDivisionError, as before"
    some.write("instance %d of another place", 1, error=KeyError())
    assert some.stream.getvalue().count("Traceback") == 2
    some.clock.now_s = WINDOW_S
    some.write("instance %d", 1, error=ZeroDivisionError())
    assert some.stream.getvalue().count("Traceback") == 3


def test_a_log_without_room_loses_lines_and_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    some = Log()
    some.handler.stream = some.stream = full = Full()
    for n in range(3):
        some.write(f"line {n}")
    full.is_full = False
    some.write("line 3")
    assert some.lines() == ["line 3", "3 lines before this one could not be written"]
    assert capsys.readouterr().err == ""


def test_an_error_that_ends_a_thread_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    some = Log()
    root = logging.getLogger("node.ops.log")
    monkeypatch.setattr(root, "handlers", [some.handler])
    monkeypatch.setattr(root, "propagate", False)
    monkeypatch.setattr(threading, "excepthook", log._thread_ended)

    def fail() -> None:
        raise RuntimeError

    for n in range(50):
        thread = threading.Thread(target=fail, name=f"courier-{n}")
        thread.start()
        thread.join()
    assert some.stream.getvalue().count("Traceback") == 1
    assert some.lines()[0] == "a thread (courier) ended by an error"
    assert len([line for line in some.lines() if line.startswith("a thread")]) == REPEATS


def formatted(error: Exception) -> str:
    try:
        raise error
    except Exception:
        line = json.loads(
            line_formatter("json", "deliver").format(
                logging.LogRecord("node", logging.ERROR, "", 0, "delivery to %s paused", ("tps",), sys.exc_info())
            )
        )
        return "\n".join(line[key] for key in ("message", "traceback") if key in line)


def test_an_error_of_ours_is_a_sentence_and_another_one_keeps_its_traceback() -> None:
    assert formatted(StoreUnavailable("the store is gone")) == "delivery to tps paused: the store is gone"
    assert formatted(Misconfigured("no such device")) == "delivery to tps paused: no such device"
    assert "Traceback" in formatted(ZeroDivisionError())


def test_a_traceback_shows_where_and_what_and_quotes_no_error_of_a_library() -> None:
    def read() -> None:
        try:
            int("CANARY^NAME")
        except ValueError as error:
            raise RuntimeError("CANARY^NAME again") from error

    try:
        read()
    except RuntimeError as error:
        text = formatted(error)
    assert "CANARY^NAME again" not in text.replace('raise RuntimeError("CANARY^NAME again")', "")
    assert "invalid literal" not in text
    assert [line for line in text.splitlines() if line in ("ValueError", "RuntimeError")] == [
        "ValueError",
        "RuntimeError",
    ]

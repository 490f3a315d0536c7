"""What stands in a line of the log, for people and for programs."""

import io
import json
import logging
import threading
from typing import Any

from structlog.contextvars import bound_contextvars

from node.ops.log_limits import ALIKE, WINDOW_S, LimitedHandler, RepeatFilter
from node.ops.log_lines import line_formatter


def made(form: Any, text: str = "tps did not answer", role: str = "deliver", name: str = "1", **extra: Any) -> str:
    record = logging.makeLogRecord(
        {"name": "node", "levelname": "WARNING", "msg": text, "created": 1795694400.25, "process": 77, **extra}
    )
    return line_formatter(form, role, name).format(record)


def test_people_read_when_who_what_and_about_which_ids() -> None:
    line = made("console", event="delivery_failed", case="12-2", destination="tps", calling_ae="CT SIM")
    assert line == (
        "2026-11-26T12:00:00Z WARNING deliver delivery_failed  tps did not answer"
        '  [case=12-2 destination=tps calling_ae="CT SIM"]'
    )
    assert made("console", event="worker_ready", role="work", name="gpu2") == (
        "2026-11-26T12:00:00Z WARNING work-gpu2 worker_ready  tps did not answer"
    )


def test_programs_read_one_object_a_line() -> None:
    assert json.loads(made("json", "two\nlines ü", event="delivery_failed", case="12")) == {
        "time": "2026-11-26T12:00:00.250Z",
        "level": "WARNING",
        "role": "deliver",
        "name": "1",
        "pid": 77,
        "event": "delivery_failed",
        "message": "two\nlines ü",
        "case": "12",
    }
    assert "\n" not in made("json", "two\nlines")


def test_a_library_gets_an_event_and_no_fields_of_its_own() -> None:
    line = json.loads(made("json", "something", patient_name="CANARY^NAME", color_message="x"))
    assert line["event"] == "library_message"
    assert "CANARY" not in json.dumps(line)
    assert "color_message" not in line


def test_what_a_peer_sent_in_place_of_a_uid_is_not_written() -> None:
    for text in ("1.2.3\r\nINFO forged", "../../etc", "CANARY^NAME", "1" * 65):
        line = json.loads(made("json", event="instance_refused", series_uid=text, sop_instance_uid="1.2.840.4"))
        assert line["sop_instance_uid"] == "1.2.840.4"
        assert "series_uid" not in line
    assert "case" not in json.loads(made("json", event="audit", case="CANARY^NAME"))


def test_nothing_that_a_terminal_obeys_reaches_it_and_a_line_stays_one() -> None:
    line = made("console", "a\nb\x1b[2Jc\rd", calling_ae="CT\x1b[31m\n")
    assert "\x1b" not in line
    assert "\r" not in line
    assert "\n" not in line


class Process:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.handler = LimitedHandler(RepeatFilter(lambda: self.now_s))
        self.handler.setFormatter(line_formatter("json", "work"))
        self.handler.stream = self.stream = io.StringIO()

    def say(self, text: str, *arguments: Any) -> None:
        self.handler.handle(logging.LogRecord("node", logging.INFO, "", 0, text, arguments, None))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def test_what_a_thread_has_in_hand_stands_in_its_lines_and_in_no_others() -> None:
    one = Process()

    def work() -> None:
        with bound_contextvars(case="7"):
            one.say("in hand")

    with bound_contextvars(case="12", series_uid="1.2.3"):
        one.say("first")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    one.say("after")
    assert [line.get("case") for line in one.lines()] == ["12", "7", None]
    assert one.lines()[0]["series_uid"] == "1.2.3"


def test_a_count_of_lines_left_out_keeps_the_ids_of_the_last_of_them() -> None:
    one = Process()
    for number in range(ALIKE + 2):
        with bound_contextvars(case=str(number)):
            one.say("job %d claimed", number)
    one.now_s = WINDOW_S + 1
    with bound_contextvars(case="999"):
        one.say("another line")
    count, last = one.lines()[-2:]
    assert (count["case"], last["case"]) == (str(ALIKE + 1), "999")

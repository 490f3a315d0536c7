"""The processes behind the receiver wait for a database that cannot be used; they neither end nor fill the log."""

import random
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from config.settings import CompletionSettings, DestinationSettings
from node.beats import no_beat
from node.ops.scheduler import Ticker
from node.receive.completion import Completion
from node.send.courier import Courier
from node.translate.worker import Worker
from storage.errors import StoreUnavailable
from storage.series import SeriesStore

WAIT_S = 20.0


class Gone:
    """A store whose database is gone; the third call of anything tells the process to stop."""

    def __init__(self) -> None:
        self.stop, self.calls = threading.Event(), 0

    def __getattr__(self, name: str) -> Any:
        def call(*_args: object, **_kwargs: object) -> None:
            self.calls += 1
            if self.calls >= 3:
                self.stop.set()
            raise StoreUnavailable("the store is gone")

        return call


def waits(caplog: pytest.LogCaptureFixture, gone: Gone) -> None:
    assert gone.calls >= 3
    ours = [record for record in caplog.records if not record.name.startswith("apscheduler")]  # it skips under load
    assert [record.exc_info for record in ours] == [None]
    assert caplog.messages[0].endswith(" waits for the database: the store is gone")


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Gone:
    monkeypatch.setattr("storage.outage.PAUSES_S", (0.001,))
    return Gone()


def test_the_worker_waits(gone: Gone, caplog: pytest.LogCaptureFixture) -> None:
    unused: Any = None
    worker = Worker(gone, unused, unused, unused, (), name="work-1")  # type: ignore[arg-type]
    worker.run(gone.stop)
    waits(caplog, gone)


def test_the_courier_waits(gone: Gone, caplog: pytest.LogCaptureFixture) -> None:
    unused: Any = None
    peer = DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=1)
    courier = Courier(gone, unused, [peer], peers=unused, calling_ae="US", name="c", rng=random.Random(1))  # type: ignore[arg-type]
    thread = threading.Thread(target=courier.run, args=(gone.stop,), daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    waits(caplog, gone)


def test_a_tick_waits(gone: Gone, caplog: pytest.LogCaptureFixture) -> None:
    with Ticker({gone.tick: 0.01}, no_beat):
        assert gone.stop.wait(WAIT_S)
    waits(caplog, gone)


class Hanging:
    """Its tick lasts until somebody lets it go."""

    def __init__(self, until: threading.Event) -> None:
        self.until = until

    def tick(self) -> None:
        self.until.wait(WAIT_S)


def test_of_two_ticks_alike_the_one_that_hangs_is_not_covered_by_the_other() -> None:
    released, seen, beats = threading.Event(), threading.Event(), Counter[str]()
    going = threading.Event()
    going.set()

    def beat(line: str, *_: object) -> None:
        beats[line] += 1
        if beats.total() > 3:
            seen.set()

    with Ticker({Hanging(released).tick: 0.01, Hanging(going).tick: 0.01}, beat):
        assert seen.wait(WAIT_S)
        released.set()
    assert len(beats) == 2


def test_a_series_is_not_held_for_want_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    monkeypatch.setattr(SeriesStore, "undecided", lambda *_: [SimpleNamespace(id=1, calling_ae="CT")])
    monkeypatch.setattr(SeriesStore, "hold_incomplete", lambda *args: held.append(args))
    unused: Any = None
    completion = Completion(
        SeriesStore(unused),
        unused,
        CompletionSettings(),
        unused,
        unused,
        why_enhanced=lambda _paths: None,
        name="complete",
    )

    def judge(_series: object) -> bool:
        raise StoreUnavailable("the store is gone")

    monkeypatch.setattr(completion, "_judge", judge)
    with pytest.raises(StoreUnavailable):
        completion.tick()
    assert held == []

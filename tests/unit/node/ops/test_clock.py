"""A jump of the clock moves what waits, once for all processes of the host, before anybody uses the new time."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.ops.clock import HostClock, StoreClock
from storage.errors import StoreUnavailable

START_S = 1_800_000_000.0


class Host:
    """The two clocks of a machine."""

    def __init__(self, path: Path) -> None:
        self.path, self.wall_s, self.boot_s, self.boot_id = path, START_S, 100.0, "a"
        self.shifts: list[timedelta] = []
        self.looks: list[datetime] = []

    def shift(self, jump: timedelta, now: datetime) -> None:
        self.looks.append(now)
        if jump:
            self.shifts.append(jump)

    def process(self) -> HostClock:
        return HostClock(
            self.path,
            self.shift,
            wall_s=lambda: self.wall_s,
            boot_s=lambda: self.boot_s,
            boot_id=self.boot_id,
        )

    def passes(self, seconds: float) -> None:
        self.wall_s += seconds
        self.boot_s += seconds


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "run" / "clock.json")


def test_time_that_passes_moves_nothing(host: Host) -> None:
    clock = host.process()
    assert clock() == datetime.fromtimestamp(START_S, UTC)
    host.passes(86400)
    host.wall_s += 1.5  # NTP
    assert clock() == datetime.fromtimestamp(START_S + 86401.5, UTC)
    assert host.shifts == []


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_jump_moves_what_waits_once_for_all_processes(
    host: Host, caplog: pytest.LogCaptureFixture, jump_s: float
) -> None:
    first, second = host.process(), host.process()
    first(), second()
    host.wall_s += jump_s
    assert second() == first() == host.process()() == datetime.fromtimestamp(START_S + jump_s, UTC)
    assert host.shifts == [timedelta(seconds=jump_s)]
    way = "back" if jump_s < 0 else "forward"
    assert caplog.messages == [f"the clock of this machine was set {way} by 3600 s"]


def test_a_jump_while_the_node_was_down_is_seen_at_its_start(host: Host) -> None:
    host.process()()
    host.wall_s -= 3600
    host.process()()
    assert host.shifts == [timedelta(hours=-1)]


def test_after_a_boot_the_difference_is_taken_anew(host: Host) -> None:
    host.process()()
    host.wall_s, host.boot_s, host.boot_id = 5.0, 1.0, "b"  # in 1970, without a battery
    host.looks.clear()
    host.process()()
    assert host.shifts == []
    assert host.looks == [datetime.fromtimestamp(5, UTC)]
    host.wall_s = START_S  # NTP
    host.process()()
    assert host.shifts == [timedelta(seconds=START_S - 5)]


def test_what_could_not_be_moved_is_moved_later(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    failures: list[StoreUnavailable] = []
    clock = HostClock(
        host.path,
        lambda jump, now: host.shift(jump, now) if not failures else _raise(failures.pop()),
        wall_s=lambda: host.wall_s,
        boot_s=lambda: host.boot_s,
        boot_id="a",
    )
    clock()
    failures.append(StoreUnavailable("locked"))
    host.wall_s += 60
    assert clock() == datetime.fromtimestamp(START_S + 60, UTC)
    assert host.shifts == []
    clock()
    assert host.shifts == [timedelta(seconds=60)]


def test_the_store_s_time_counts_whatever_the_host_says(caplog: pytest.LogCaptureFixture) -> None:
    now = {"boot": 0.0, "store": START_S, "asked": 0.0}

    def ask() -> datetime:
        now["asked"] += 1
        if now["asked"] == 4:
            raise StoreUnavailable("gone")
        return datetime.fromtimestamp(now["store"], UTC)

    clock = StoreClock(ask, boot_s=lambda: now["boot"])
    assert clock() == datetime.fromtimestamp(START_S, UTC)
    now["boot"] = 29.0
    assert (clock(), now["asked"]) == (datetime.fromtimestamp(START_S + 29, UTC), 1)
    now["boot"], now["store"] = 31.0, START_S + 31.5
    assert clock() == datetime.fromtimestamp(START_S + 31.5, UTC)
    assert caplog.messages == []
    now["boot"], now["store"] = 62.0, START_S + 3662.5
    assert clock() == datetime.fromtimestamp(START_S + 3662.5, UTC)
    assert caplog.messages == ["the clock of the database was set forward by 3600 s"]
    now["boot"] = 93.0
    assert clock() == datetime.fromtimestamp(START_S + 3693.5, UTC)


def _raise(error: StoreUnavailable) -> None:
    raise error

"""What the machine shows of a process, a disk and a certificate becomes an alert, and ends with its cause."""

import os
import socket
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from node.beats import Beat
from node.ops.alert_machine import CERTIFICATES_EVERY, RESTARTS, Certificates, Disk, Processes
from node.ops.findings import warning
from node.ops.processes import ProcessView, process_lock

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


# -- processes -------------------------------------------------------------------------------------------------------


class Host:
    """The processes of a host as the watch sees them at a second of its clock."""

    def __init__(self, tmp_path, monkeypatch):
        self.now_s = 0.0
        self.views: list[ProcessView] = []
        self.stopped: set[int] = set()
        monkeypatch.setattr("node.ops.alert_machine.running_processes", lambda _dir: self.views)
        self.looker = Processes(
            tmp_path, ["receive"], clock_s=lambda: self.now_s, is_stopped=lambda pid: pid in self.stopped
        )

    def run(self, role="receive", pid=7, details=""):
        self.views = [ProcessView(role, "1", pid, "", details)]

    def see(self, seconds):
        self.now_s = seconds
        return [(cause.kind, cause.subject) for cause in self.looker.find(NOW)]

    def words(self):
        return next(iter(self.looker.find(NOW))).text


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def test_a_role_without_a_process_is_an_alert_after_half_a_minute(host):
    assert host.see(0) == host.see(29) == []
    assert host.see(30) == host.see(300) == [("process", "receive")]
    assert host.words() == "the receiver does not run; next: look at its log, `syncect serve`"
    host.run()
    assert host.see(301) == []
    host.views = []
    assert host.see(302) == host.see(331) == []


def test_a_process_that_the_system_has_stopped_does_not_respond(host):
    host.run(pid=7)
    host.stopped = {7}
    assert host.see(0) == host.see(29) == []
    assert host.see(31) == [("process", "receive")]
    assert "the receiver, pid 7, does not respond" in host.words()
    host.stopped = set()
    assert host.see(32) == []


def test_a_process_that_stands_still_does_not_respond_either(host):
    still = Beat("", "job 3: translate", 1, 9, since_s=0.0, at_s=time.monotonic() - 100, limit_s=60.0)
    host.views = [ProcessView("receive", "1", 7, "", "", socket.gethostname(), (still,))]
    assert host.see(0) == host.see(29) == []
    assert host.see(31) == [("process", "receive")]
    assert "does not respond: it stands still at job 3: translate 1 of 9; next: `syncect status`" in host.words()
    host.run(pid=7)
    assert host.see(32) == []


def test_a_process_that_ends_again_and_again(host):
    for n in range(RESTARTS):
        assert host.see(60 * n) == []
        host.run(pid=100 + n)
    assert host.see(60 * RESTARTS) == [("restarts", "receive 1")]
    assert host.see(60 * RESTARTS + 700) == []
    host.run(pid=200)
    assert host.see(60 * RESTARTS + 701) == []


def test_a_worker_that_cannot_work_and_one_that_lost_its_gpu(host):
    views = []
    host.looker = Processes(host.looker._run_dir, [], clock_s=lambda: host.now_s, is_stopped=lambda _pid: False)
    for details in (
        "loading the model",
        "demo 1 (syndiff, 4 steps) on NVIDIA H100, bf16",
        "CANNOT WORK: no CUDA device.",
        "demo 1 (syndiff, 4 steps) on cpu AVX2, fp32",
        "demo 1 (syndiff, 4 steps) on NVIDIA H100, bf16",
    ):
        host.run("work", details=details)
        views.append(host.see(0))
    assert views == [[], [], [("worker", "work 1")], [("device", "work 1")], []]


def test_a_worker_that_always_computed_on_the_processor_lost_nothing(host):
    host.looker = Processes(host.looker._run_dir, [], is_stopped=lambda _pid: False)
    host.run("work", details="demo 1 (syndiff, 4 steps) on cpu AVX2, fp32")
    assert host.see(0) == host.see(1) == []


def test_the_processes_of_this_machine_are_asked(tmp_path):
    looker = Processes(tmp_path, ["receive", "work"], clock_s=iter([0.0, 60.0, 120.0]).__next__)
    with ExitStack() as running:
        running.enter_context(process_lock(tmp_path, "receive", "1"))
        assert list(looker.find(NOW)) == []
        assert [cause.subject for cause in looker.find(NOW)] == ["work"]
        assert os.getpid() == looker._starts["receive 1"][-1][1]
    # Its time begins when it was first seen to be gone.
    assert [cause.subject for cause in looker.find(NOW)] == ["work"]


# -- disk ------------------------------------------------------------------------------------------------------------


class Space:
    def __init__(self, free_gb, reserve_gb=2.0):
        self.free_gb = free_gb
        self.disk = Disk(lambda: self.free_gb, reserve_gb)

    def see(self, free_gb, minutes):
        self.free_gb = free_gb
        return [cause.text for cause in self.disk.find(NOW + timedelta(minutes=minutes))]


def test_less_than_twice_the_reserve_is_an_alert_that_ends_well_above():
    space = Space(4.0)
    assert space.see(4.0, 0) == []
    (text,) = space.see(3.96, 1)
    assert text == "4.0 GB are free, and below 2 GB (retention.min_free_gb) every C-STORE is refused; next: make room"
    assert len(space.see(4.1, 2)) == 1
    assert space.see(4.5, 3) == []
    assert space.see(4.1, 4) == []


def test_without_a_reserve_a_full_disk_is_an_alert_all_the_same():
    assert "0.0 GB are free" in Space(0.0, reserve_gb=0.0).see(0.0, 0)[0]


def test_a_disk_that_fills_is_an_alert_hours_before():
    space = Space(100.0)
    found = [space.see(100 - minutes / 6, minutes) for minutes in range(0, 61)]
    assert all(texts == [] for texts in found[:30])
    assert "that is in about 9 h at the present rate" in found[-1][0]
    assert space.see(90.0, 62)
    assert all(space.see(90.0, minutes) == [] for minutes in range(450, 500))


def test_a_disk_that_fills_slowly_or_a_clock_that_jumps_is_none():
    space = Space(100.0)
    assert all(space.see(100 - minutes / 600, minutes) == [] for minutes in range(0, 300, 5))
    assert space.see(50.0, -600) == []


# -- certificates ----------------------------------------------------------------------------------------------------


def test_certificates_are_read_once_an_hour_and_make_one_alert_for_each_place():
    looks = []

    def check(now):
        looks.append(now)
        return [
            ("scp.tls", warning("a expires")),
            ("scp.tls", warning("b expires")),
            ("destination.0.tls", warning("c")),
        ]

    certificates = Certificates(check)
    for minutes in (0, 1, 59):
        causes = certificates.find(NOW + timedelta(minutes=minutes))
        assert [(cause.subject, cause.text) for cause in causes] == [
            ("scp.tls", "a expires; b expires"),
            ("destination.0.tls", "c"),
        ]
    certificates.find(NOW + CERTIFICATES_EVERY)
    assert len(looks) == 2

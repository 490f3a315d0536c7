"""What of a Ray cluster needs no Ray: what the settings ask for, what is on its way, whether the head answers."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from node.errors import GiveBack, Retryable
from node.translate.loaded import ExecutorUnavailable

HEAD_LOST_S: Final = 10.0  # for which nobody listens at the head's port; Ray itself ends the process after 60 s
_CONNECT_S: Final = 3.0
_TURN_S: Final = 0.5
_RESULTS: Final = 2  # the files of a result take as much as those of its source: both are on their way at the end
_THREADS: Final = "OMP_NUM_THREADS"
_MODE: Final = "RAY_AUTH_MODE"

# Of a cluster of this machine alone. What Ray writes down for its dashboard nobody reads, and most of its timers, which
# run 10 times a second, serve clusters of many hosts.
_OF_ONE_MACHINE: Final[dict[str, Any]] = {
    "automatic_object_spilling_enabled": False,  # no disk gets what is in flight
    "enable_metrics_collection": False,
    "enable_timeline": False,
    "event_stats": False,
    "gcs_pull_resource_loads_period_milliseconds": 5000,
    "kill_idle_workers_interval_ms": 1000,
    "local_fs_monitor_interval_ms": 2000,
    "memory_monitor_refresh_ms": 1000,
    "object_manager_timer_freq_ms": 1000,
    "prestart_worker_first_driver": False,  # an actor gets a process of its own, whatever else is there
    "raylet_check_gc_period_milliseconds": 1000,
    "raylet_report_resources_period_milliseconds": 1000,
    "task_events_report_interval_ms": 0,
    "worker_niceness": 0,  # of 15, by default: whatever else runs on the host would go before a patient's series
}
# Ray starts them with each cluster: for logs that it would show in this process, for hosts that an autoscaler starts,
# and for a dashboard that is off.
_IDLE_HELPERS: Final = ("/_private/log_monitor.py", "/autoscaler/_private/monitor.py", "/dashboard/dashboard.py")


class ClusterLost(GiveBack):
    """Nobody listens at the head of the cluster any more; this process must begin anew."""


class Unreachable(Retryable):
    """No cluster answers at the address of the settings."""


@dataclass(frozen=True)
class ClusterPlan:
    """The settings of [ray]. address: "" for a cluster of this machine alone, "auto", or host:port of its head.

    actors: 0 for as many as the cluster has GPUs or cores for. gpus_per_actor: also a fraction. jobs_per_actor: series
    that one actor has in hand. object_store_mb: bound of what is on its way, MiB. cores_per_actor: where there is no
    GPU.
    """

    address: str = ""
    actors: int = 0
    gpus_per_actor: float = 1.0
    jobs_per_actor: int = 2
    object_store_mb: int = 2048
    cores_per_actor: int = 2

    @property
    def in_flight_bytes(self) -> int:
        """Bound of what is on its way."""
        return self.object_store_mb << 20

    @property
    def environment(self) -> dict[str, str]:
        """Of the actors: the threads of this process where it was told how many, for they change the last bits."""
        return {_THREADS: os.environ[_THREADS]} if os.environ.get(_THREADS) else {}

    def why_not(self, error: str, tries: int) -> str:
        """What is said where there is no connection after so many tries; `error` is the name of what Ray raised."""
        if self.address:
            return (
                f"Ray cannot be reached at {self.address}: {error}; its token or its version of Ray may be another one"
            )
        return (
            f"Ray did not start on this machine in {tries} tries ({error}): it gives its own processes 15 s, which a "
            "busy machine may not have; its logs lie in /tmp/ray/session_latest/logs"
        )

    def device_of(self, device: str, hosts: Sequence[Mapping[str, float]]) -> Literal["cpu", "cuda"]:
        """Where actors compute on a cluster whose hosts have these resources; raises ExecutorUnavailable.

        With a number of actors an autoscaler may still bring the hosts that have room for one; without it nobody does,
        and Ray would wait for ever.
        """
        gpus = max((one.get("GPU", 0.0) for one in hosts), default=0.0)
        if device == "cpu" or (device == "auto" and not gpus):
            if not self.actors and not any(one.get("CPU", 0.0) >= self.cores_per_actor for one in hosts):
                raise ExecutorUnavailable(
                    f"no host of the Ray cluster has the {self.cores_per_actor} cores that an actor takes; `ray start` "
                    "of each host says how many it gives (--num-cpus)"
                )
            return "cpu"
        if not gpus:
            raise ExecutorUnavailable("device is set to cuda, but no host of the Ray cluster has a GPU")
        if not self.actors and gpus < self.gpus_per_actor:
            raise ExecutorUnavailable(
                f"no host of the Ray cluster has the {self.gpus_per_actor:g} GPUs that ray.gpus_per_actor asks for"
            )
        return "cuda"

    def prepare(self) -> None:
        """Tell Ray, before it starts, to send nothing to its makers; raises Unreachable, also without a token."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if self.address not in ("", "auto") and not answers(*place_of(self.address)):
            raise Unreachable(f"nobody listens at the head of the Ray cluster, {self.address}")
        if self.address and os.environ.get(_MODE, "").lower() != "disabled" and not _has_token():
            raise Unreachable(
                "this host has no token of the Ray cluster: copy that of its head to ~/.ray/auth_token, or name its "
                "file in RAY_AUTH_TOKEN_PATH"
            )

    def arguments(self) -> dict[str, Any]:
        """For `ray.init`. On this machine alone: no dashboard, and no spilling to a disk."""
        if self.address:
            return {"address": self.address}
        cores = max(os.cpu_count() or 1, self.actors * self.cores_per_actor)  # who asks for so many actors gets them
        return {
            "address": "local",
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": max(80 << 20, self.in_flight_bytes + (self.in_flight_bytes >> 2)),
            "_system_config": _OF_ONE_MACHINE,
        }


class InFlight:
    """How many bytes are on their way between a worker and its actors; nobody begins beyond the bound."""

    def __init__(self, bound: int) -> None:
        self._bound, self._bytes = bound, 0
        self._changed = threading.Condition()
        self._waiting = 0

    def has_room(self) -> bool:
        """Whether nobody waits, and the bound is not reached."""
        with self._changed:
            return not self._waiting and self._bytes < self._bound

    @contextmanager
    def room_for(self, source_bytes: int, wait: Callable[[], None]) -> Iterator[None]:
        """Wait until a job with sources of this size fits; one that is larger than the bound goes alone.

        `wait` is called at each turn; what it raises ends the wait.
        """
        wanted = _RESULTS * source_bytes
        with self._changed:
            self._waiting += 1
        try:
            while not self._take(wanted):
                wait()
        finally:
            with self._changed:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._changed:
                self._bytes -= wanted
                self._changed.notify_all()

    def _take(self, wanted: int) -> bool:
        with self._changed:
            fits = not self._bytes or self._bytes + wanted <= self._bound
            if fits:
                self._bytes += wanted
            else:
                self._changed.wait(_TURN_S)
            return fits


class HeadWatch:
    """Whether the head of a cluster is there: lost after HEAD_LOST_S in which nobody accepted a connection."""

    def __init__(self, address: str) -> None:
        self._place = place_of(address)
        self._heard_s = time.monotonic()

    def is_lost(self) -> bool:
        """Try once; True where nobody answered for too long."""
        if answers(*self._place):
            self._heard_s = time.monotonic()
        return time.monotonic() - self._heard_s > HEAD_LOST_S


def ask_for_token() -> None:
    """Have this process, and what it starts, use the token of a cluster, unless RAY_AUTH_MODE says otherwise.

    Called before Ray is imported, which reads the variable then and never again.
    """
    os.environ[_MODE] = os.environ.get(_MODE) or "token"


def _has_token() -> bool:
    """Whether Ray finds one, in its own order: a variable, a file that one names, the file in the home folder."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    try:
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, RuntimeError, UnicodeError):  # no such file, or a user without a home folder
        return False


def place_of(address: str) -> tuple[str, int]:
    """Host and port of host:port or [host]:port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def answers(host: str, port: int) -> bool:
    """Whether somebody accepts a TCP connection there within three seconds."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


def children() -> set[int]:
    """The processes that this one has started and that have not been waited for."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split()}
        except OSError:  # a thread that has just ended, or a kernel that does not say it
            continue
    return found


@contextmanager
def undisturbed() -> Iterator[None]:
    """No second Ctrl-C or SIGTERM ends the block, in which Ray ends its processes; it would leave some for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_idle_helpers(started: set[int]) -> None:
    """Of processes that this one has started for a cluster of its own, end those that only watch and report.

    Together they take as much processor time and memory as a raylet.
    """
    for pid in started:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(name.encode()) for word in words[:6] for name in _IDLE_HELPERS):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        except (OSError, ChildProcessError):  # it has ended by itself, or somebody else waits for it
            continue

"""Jobs on actors of a Ray cluster: bytes go there and come back, and a job whose actor ends goes on at another one.

This is the only file that imports Ray. The files of a job pass through Ray's object store, so actors need no shared
folder and no database. What is on its way at a time is bounded (`ClusterPlan.in_flight_bytes`). An actor runs the very
`run_job` that a worker runs in its own process; every actor must have the arithmetic of the first one, so that a result
has the same bits wherever it is made.
"""

import atexit
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError

from models.translator import DeviceFault
from node.errors import DamagedInstance, Permanent, Retryable
from node.translate.carried import CHANGED, BundleAsk, Hello, Parcel
from node.translate.job import JobOptions, JobResult, Progress
from node.translate.loaded import ExecutorUnavailable
from node.translate.ray_actor import Actor
from node.translate.ray_cluster import (
    ClusterLost,
    ClusterPlan,
    InFlight,
    Unreachable,
    answers,
    children,
    end_idle_helpers,
    place_of,
    undisturbed,
)

log = logging.getLogger(__name__)

MAX_ENDS: Final = 2  # actors that one job may outlive, as many as worker processes (storage.states.MAX_DEATHS)
MAX_MOVES: Final = 8  # other losses that are no fault of the job: hosts that ended, objects that were lost
TURN_S: Final = 0.5  # how often a job that waits looks whether it may go on
ASK_EVERY_S: Final = 2.0  # how far it is; each question costs both processes some time
SILENT_S: Final = 30.0  # an actor that answers no question for so long has stopped
IDLE_S: Final = 300.0  # after which an actor without a job ends, so that Ray may give its host back
START_LIMIT_S: Final = 900.0  # for an actor to be placed, also on a host that an autoscaler starts, and to load
ROWS_AT_ONCE: Final = 4096  # of a stream, each a block of its own, so that none waits for others to be told of
START_TRIES: Final = 3  # of a cluster of this machine: Ray gives its own processes 15 s, too few on a busy machine
HELLO_LIMIT_S: Final = 120.0  # to import torch and load a bundle, where the actor has its place


class ActorsEnded(Permanent):
    """Actors ended while they translated one job, as often as it may be tried."""


class _ActorEnded(Exception):
    """The actor of a job is no more; `blames_job` where nothing else explains it."""

    def __init__(self, why: str, *, blames_job: bool) -> None:
        super().__init__(why)
        self.why, self.blames_job = why, blames_job


@dataclass
class _Member:
    """One actor: how many jobs it has, what it has loaded, and why we ended it, if we did."""

    handle: Any
    jobs: int = 0
    alone: bool = False
    node: str = ""
    pid: int = 0
    used_s: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    ended_for: str = ""


class ActorPool:
    """The actors of one driver. Any thread may call it; `close` ends them.

    device: "cpu" or "cuda", of all of them; the cluster was asked whether it has it (`settle_device`).
    """

    def __init__(self, plan: ClusterPlan, device: Literal["cpu", "cuda"]) -> None:
        self._plan, self.device = plan, device
        self._members: list[_Member] = []
        self._lock = threading.Condition()
        self._known: dict[BundleAsk, Hello] = {}
        self._in_flight = InFlight(plan.in_flight_bytes)
        self._tickets = itertools.count(1)
        self._jobs = 0
        self._lost = ""
        self._size = self._wanted()

    def _wanted(self) -> int:
        """How many actors there may be: as the settings say, else as many as the cluster has room for now."""
        if self._plan.actors:
            return self._plan.actors
        found = _resources()
        if self.device == "cuda":
            return max(1, int(found.get("GPU", 0) / self._plan.gpus_per_actor + 1e-6))
        return max(1, int(found.get("CPU", 0)) // self._plan.cores_per_actor)

    @property
    def lanes(self) -> int:
        """How many jobs there may be in hand at a time."""
        return self._size * self._plan.jobs_per_actor

    def has_room(self) -> bool:
        """Whether one more job may be claimed now: actors have seats, and what is on its way is below its bound."""
        return self._jobs < self.lanes and not self._lost and self._in_flight.has_room()

    def lose(self, why: str) -> None:
        """The cluster is gone: every job that waits raises ClusterLost."""
        with self._lock:
            self._lost = why
            self._lock.notify_all()

    def open(self, ask: BundleAsk) -> Hello:
        """What an actor says of a bundle; the first answer holds for all.

        Raises ExecutorUnavailable, ClusterLost, DeviceFault, and Retryable where actors end before they have loaded it.
        """
        ask = replace(ask, device=self.device)
        if ask not in self._known:
            try:
                with self._seat(ask, _nothing):
                    pass
            except _ActorEnded as ended:
                raise Retryable(f"an actor of Ray ended while it loaded the bundle: {ended.why}") from None
        return self._known[ask]

    def run(
        self,
        ask: BundleAsk,
        paths: Sequence[Path],
        options: JobOptions,
        out_dir: Path,
        progress: Progress,
        *,
        limit_s: float,
    ) -> JobResult:
        """Run one job on an actor, and on another one where that ends; its files are on the disk on return.

        limit_s: an actor whose job makes no step for so long is ended. Raises what `run_job` raises (but `doubt` of the
        result is None, and is in DOUBT_FILE), what `progress` raises, ActorsEnded, ClusterLost, ExecutorUnavailable.
        """
        ask, ends, moves = replace(ask, device=self.device), 0, 0
        with self._counted(), self._in_flight.room_for(_bytes_of(paths), lambda: self._wait(progress)):
            parcel = Parcel.of(paths, options.sha256)
            while True:
                try:
                    result, made = self._once(ask, parcel, options, progress, limit_s)
                    break
                except DamagedInstance:
                    if set(options.sha256) <= set(parcel.names) and parcel.is_whole():
                        raise Retryable(CHANGED) from None
                    raise
                except _ActorEnded as ended:
                    ends, moves = ends + ended.blames_job, moves + 1
                    log.warning("an actor of Ray ended: %s", ended.why, extra={"event": "actor_ended"})
                    if ends >= MAX_ENDS or moves >= MAX_MOVES:
                        raise ActorsEnded(
                            f"{moves} Ray actors ended or stopped answering while they translated it; it is not tried "
                            f"again by itself; the last: {ended.why}"
                        ) from None
                    progress("wait for Ray", 0, 1)
            made.unpack(out_dir, flush=True)
        return replace(result, files=tuple(replace(one, path=out_dir / one.path.name) for one in result.files))

    def tick(self) -> None:
        """End actors that had no job for long, and see how large the cluster is now; called every few seconds."""
        wanted = self._wanted()
        with self._lock:
            self._size = wanted
            for member in list(self._members):
                if not member.jobs and time.monotonic() - member.used_s > IDLE_S:
                    self._end(member, "it had no job")

    def close(self) -> None:
        """End all actors; where the head is gone they end with this process."""
        with self._lock:
            if self._lost:
                return
            for member in list(self._members):
                self._end(member, "the worker ended")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._jobs += 1
        try:
            yield
        finally:
            with self._lock:
                self._jobs -= 1

    # -- one job -----------------------------------------------------------------------------------------------

    def _once(
        self, ask: BundleAsk, parcel: Parcel, options: JobOptions, progress: Progress, limit_s: float
    ) -> tuple[JobResult, Parcel]:
        with self._seat(ask, progress) as member:
            ticket = f"{os.getpid()}-{next(self._tickets)}"
            try:
                sources = ray.put(parcel)
                answer = member.handle.run.remote(ticket, ask, options, sources)
                self._watch(member, ticket, answer, progress, limit_s)
                found = ray.get(answer, timeout=SILENT_S)
            except (GetTimeoutError, ObjectLostError) as error:
                raise _ActorEnded(f"an object was lost ({type(error).__name__})", blames_job=False) from None
            except RayActorError as error:
                raise self._ended(member, error) from None
            except RayError as error:
                raise Retryable(f"Ray: {type(error).__name__}") from None
            if isinstance(found, DeviceFault):  # what this process computes is not to be trusted any more
                with self._lock:
                    self._end(member, str(found))
            if isinstance(found, Exception):
                raise found
            result, made = found
            return result, made

    def _watch(self, member: _Member, ticket: str, answer: Any, progress: Progress, limit_s: float) -> None:
        """Return when the answer is there; end an actor that is silent or stands still, and a job nobody waits for."""
        moved_s = asked_s = time.monotonic()
        before: tuple[str, int, int] | None = None
        asked = member.handle.reached.remote(ticket)
        while not ray.wait([answer], timeout=TURN_S, fetch_local=True)[0]:
            now_s = time.monotonic()
            if asked is not None and ray.wait([asked], timeout=0)[0]:
                reached, asked = ray.get(asked), None
                moved_s, before = (now_s if reached != before else moved_s), reached
            if asked is None and now_s - asked_s >= ASK_EVERY_S:
                asked, asked_s = member.handle.reached.remote(ticket), now_s
            if asked is not None and now_s - asked_s > SILENT_S:
                self._stop_hung(member, f"it answered nothing for {SILENT_S:.0f} s")
            if now_s - moved_s > limit_s:
                self._stop_hung(member, f"its job made no step for {limit_s:.0f} s")
            try:
                self._check_cluster()
                progress(*(before or ("wait for Ray", 0, 1)))
            except BaseException:
                with suppress(RayError):
                    member.handle.cancel.remote(ticket)
                raise

    def _stop_hung(self, member: _Member, why: str, *, blames_job: bool = True) -> NoReturn:
        with self._lock:
            self._end(member, why)
        raise _ActorEnded(why, blames_job=blames_job)

    def _ended(self, member: _Member, error: RayActorError) -> _ActorEnded:
        """Whose fault it is that an actor ended: nobody's where we ended it or its host is gone, else the job's."""
        with self._lock:
            before = member.ended_for
            self._end(member, "it ended")
        if before:
            return _ActorEnded(f"it was ended: {before}", blames_job=False)
        place = _living_nodes().get(member.node)
        if place is None or not answers(*place):  # the head takes a while to see that a host is gone
            return _ActorEnded("its host is no longer in the cluster", blames_job=False)
        return _ActorEnded(f"its process, pid {member.pid}, ended", blames_job=True)

    # -- seats -------------------------------------------------------------------------------------------------

    @contextmanager
    def _seat(self, ask: BundleAsk, progress: Progress) -> Iterator[_Member]:
        """A place at an actor that has the bundle loaded; alone there where the device failed before."""
        while True:
            member = self._take(ask.careful, progress)
            try:
                if self._introduce(member, ask, progress):
                    yield member
                    return
            finally:
                with self._lock:
                    member.jobs, member.alone, member.used_s = member.jobs - 1, False, time.monotonic()
                    self._lock.notify_all()

    def _take(self, careful: bool, progress: Progress) -> _Member:
        while True:
            with self._lock:
                free = self._free(careful)
                ready = [one for one in free if one.is_ready]
                if not ready and len(self._members) < self._size:
                    ready = [self._start()]
                # One that is not there yet is taken where there is no other: it may wait for a host.
                chosen = min(ready or free, key=lambda one: one.jobs, default=None)
                if chosen is not None:
                    chosen.jobs, chosen.alone = chosen.jobs + 1, careful
                    return chosen
                self._lock.wait(TURN_S)
            self._wait(progress)

    def _free(self, careful: bool) -> list[_Member]:
        most = 1 if careful else self._plan.jobs_per_actor
        return [one for one in self._members if not one.alone and one.jobs < most]

    def _start(self) -> _Member:
        on_gpu = self.device == "cuda"
        options: dict[str, Any] = {
            "num_cpus": 1 if on_gpu else self._plan.cores_per_actor,
            "num_gpus": self._plan.gpus_per_actor if on_gpu else 0,
            # Beside jobs: questions, and jobs that were cancelled.
            "max_concurrency": 2 * self._plan.jobs_per_actor + 2,
            "max_restarts": 0,  # the pool starts another one, and knows why
            "runtime_env": {"env_vars": self._plan.environment},
        }
        member = _Member(ray.remote(Actor).options(**options).remote(_node_here))
        self._members.append(member)
        return member

    def _introduce(self, member: _Member, ask: BundleAsk, progress: Progress) -> bool:
        """Wait until an actor has loaded the bundle; refuse one whose bits would differ from those of the others.

        False where it is not there yet, for want of a host perhaps, and another one that is has a seat.
        """
        asked = member.handle.hello.remote(ask)
        begun_s = time.monotonic()
        try:
            while not ray.wait([asked], timeout=TURN_S)[0]:
                waits_s = time.monotonic() - begun_s
                if waits_s > (HELLO_LIMIT_S if member.is_ready else START_LIMIT_S):
                    self._stop_hung(member, "it did not load the bundle in time", blames_job=False)
                with self._lock:
                    if not member.is_ready and any(one.is_ready for one in self._free(ask.careful)):
                        return False
                self._wait(progress)
            found, member.node, member.pid = ray.get(asked)
        except RayActorError as error:
            raise self._ended(member, error) from None
        except RayError as error:
            raise Retryable(f"Ray: {type(error).__name__}") from None
        member.is_ready = True
        if isinstance(found, DeviceFault):
            with self._lock:
                self._end(member, str(found))
        if isinstance(found, Exception):
            raise found
        known = self._known.setdefault(ask, found)
        if found.arithmetic != known.arithmetic:
            with self._lock:
                self._end(member, "it computes otherwise than the others")
            raise ExecutorUnavailable(
                f"one actor of the cluster computes with {found.arithmetic}, another with {known.arithmetic}; give "
                "this worker GPUs of one kind"
            )
        return True

    def _end(self, member: _Member, why: str) -> None:
        """Kill an actor, with the lock held; jobs that it has besides go on elsewhere."""
        member.ended_for = member.ended_for or why
        if member in self._members:
            self._members.remove(member)
            with suppress(RayError, ValueError):
                ray.kill(member.handle)

    def _wait(self, progress: Progress) -> None:
        self._check_cluster()
        progress("wait for Ray", 0, 1)

    def _check_cluster(self) -> None:
        if self._lost:
            raise ClusterLost(self._lost)


@contextmanager
def connected(plan: ClusterPlan, tries: int = START_TRIES) -> Iterator[str]:
    """Be connected to the cluster, or to a new one of this machine alone; yields the address of its head.

    tries: how often a new one is started before it is given up; each takes up to a minute on a busy machine.

    Raises Unreachable. The calling thread must live as long as the block: a cluster of this machine ends with it. Where
    the head is gone at the end of the block, this process can only end.
    """
    plan.prepare()
    handler = signal.getsignal(signal.SIGTERM)
    address = _connect(plan, tries)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray puts its own there, by which no job would be given back
    failed = True
    try:
        yield address
        failed = False
    finally:
        if answers(*place_of(address)):
            _shut_down()
        else:
            atexit.register(_end_without_ray, int(failed))


def _end_without_ray(code: int) -> None:
    """End the process when all else of it has ended: Ray would wait a minute for its head, and then crash.

    What Ray has started here ends with this process.
    """
    logging.shutdown()
    with suppress(OSError, ValueError):  # whoever read them may be gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _connect(plan: ClusterPlan, tries: int) -> str:
    left, before = 1 if plan.address else tries, children()
    while True:
        try:
            context: Any = ray.init(**plan.arguments(), logging_level=logging.ERROR, log_to_driver=False)
            end_idle_helpers(children() - before)
            return str(context["gcs_address"])
        except Exception as error:  # Ray raises a plain Exception where a process of its own does not start in time
            _shut_down()
            for pid in children() - before:  # of a start that failed Ray leaves what did start, until this process ends
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            left -= 1
            if not left:
                raise Unreachable(plan.why_not(type(error).__name__, tries)) from error


def _shut_down() -> None:
    with undisturbed(), suppress(RayError, OSError, RuntimeError):
        ray.shutdown()


def stream(
    rows: Sequence[dict[str, Any]], translator: type, made_of: Any, plan: ClusterPlan, device: Literal["cpu", "cuda"]
) -> Iterator[dict[str, Any]]:
    """What `translator(made_of)(row)` gives for each row, in the order in which they end, by Ray Data.

    One translator in each of `plan.actors` processes, or as many as the cluster has GPUs or cores for. A row whose
    process ended is given to another one. Raises Retryable where a translator raises, which it should not.
    """
    import ray.data  # noqa: PLC0415  # takes seconds to load, and no worker needs it

    share = {"num_gpus": plan.gpus_per_actor} if device == "cuda" else {"num_cpus": plan.cores_per_actor}
    whole = _resources().get("GPU" if device == "cuda" else "CPU", 0.0)
    most = plan.actors or max(1, int(whole / next(iter(share.values())) + 1e-6))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)  # it would quote rows
    for begin in range(0, len(rows), ROWS_AT_ONCE):
        part = list(rows[begin : begin + ROWS_AT_ONCE])
        size = min(most, len(part))
        answers = ray.data.from_items(part, override_num_blocks=len(part)).map(
            translator,
            fn_constructor_args=(made_of,),
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=size, initial_size=size, max_tasks_in_flight_per_actor=1
            ),
            runtime_env={"env_vars": plan.environment},
            **share,
        )
        try:
            for batch in answers.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
                found: Any = batch
                yield from found.to_pylist()
        except RayError as error:
            raise Retryable(f"the Ray cluster ended the work: {type(error).__name__}") from error


def settle_device(device: str, plan: ClusterPlan) -> Literal["cpu", "cuda"]:
    """ "cpu" or "cuda" of the actors; raises ExecutorUnavailable where the cluster lacks what the settings ask for."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return plan.device_of(device, [one["Resources"] for one in nodes if one["Alive"]])


def _resources() -> dict[str, float]:
    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def _node_here() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _living_nodes() -> dict[str, tuple[str, int]]:
    """Where the raylet of each host listens that the head takes for alive."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {str(one["NodeID"]): (one["NodeManagerAddress"], one["NodeManagerPort"]) for one in nodes if one["Alive"]}


def _bytes_of(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _nothing(_stage: str, _done: int, _total: int) -> None:
    """Nobody waits."""

"""A simulation of the node: scanners, receiver, completion, database, workers, GPUs, courier, planning system.

Every series passes the stations in the order in which the node has them. A C-STORE is synchronous, so the wire and the
receiver of one association take turns. A worker holds its place for the whole job; the parts of the job on the
processor share the cores with those of the other workers, and with all else that runs on the same host. What a series
waits for besides is what the node waits for by design: the pause that completion asks for, and the polls.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import simpy

from bench.scaled.stations import Shared, Station, Steps, percentile

ROUTINE, BACKGROUND = 1, 2


@dataclass(frozen=True)
class Stage:
    """What a stage takes for one series with nothing beside it: seconds on a processor, and seconds of waiting.

    cores: how many it keeps busy meanwhile.
    """

    cpu_s: float
    wait_s: float = 0.0
    cores: float = 1.0


@dataclass(frozen=True)
class Times:
    """Of one series; gpu_s: the translation on a GPU, 0 where it is part of `job`. transactions_s: claim and finish.

    quiet_s: the pause after the last image. poll_s: how often somebody idle looks for work. receivers: how many
    associations' worth of images the receiver takes at once, at the rate of one alone.
    """

    receive: Stage
    judge: Stage
    job: Stage
    gpu_s: float
    transactions_s: float
    deliver: Stage
    quiet_s: float
    poll_s: float = 0.5
    receivers: float = 1.0


@dataclass(frozen=True)
class Plan:
    """The hardware. wire_s: of a series over the link of its scanner, alone; wires: scanners' links in the node's own.

    tps_s: what the planning system takes for a series beside the courier. is_one_host: receiver, completion and
    courier share the workers' cores. rivals: programs of others that want a core all the while.
    """

    cores: int
    workers: int
    gpus: int = 0
    wire_s: float = 0.0
    wires: float = 1.0
    couriers: int = 1
    tps_s: float = 0.0
    is_one_host: bool = False
    rivals: float = 0.0


@dataclass(frozen=True)
class Arrival:
    """A series whose scan ends at `at_s`; the scanner sends one after the other."""

    at_s: float
    scanner: int = 0
    priority: int = ROUTINE


@dataclass
class Outcome:
    """Seconds from the end of the scan to the last image at the planning system, and how busy each station was.

    busy: share of the time until `ended_s`, by station.
    """

    sojourns_s: list[float] = field(default_factory=list)
    busy: dict[str, float] = field(default_factory=dict)
    ended_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """Mean sojourn."""
        return sum(self.sojourns_s) / len(self.sojourns_s)

    def at(self, share: float) -> float:
        """The sojourn that this share (0 to 1) of the series does not exceed, in seconds."""
        return percentile(self.sojourns_s, share)

    @property
    def bottleneck(self) -> str:
        """The busiest station."""
        return max(self.busy, key=lambda name: self.busy[name])


class _Node:
    def __init__(self, env: simpy.Environment, times: Times, plan: Plan, scanners: int, rng: Random) -> None:
        self.env, self.times, self.plan, self._rng = env, times, plan, rng
        self.cores = Shared(env, plan.cores, plan.rivals)
        self.receiver = self.cores if plan.is_one_host else Shared(env, times.receivers)
        self.node_cores = self.cores if plan.is_one_host else Shared(env, plan.cores)
        self.scanners = [Station(env, 1) for _ in range(scanners)]
        self.wire, self.completion = Shared(env, plan.wires), Station(env, 1)
        self.database, self.workers = Station(env, 1), Station(env, plan.workers)
        self.gpus, self.couriers = Shared(env, max(1, plan.gpus)), Station(env, plan.couriers)

    def course(self, arrival: Arrival, found: Outcome) -> Steps:
        """One series from the end of its scan on."""
        yield self.env.timeout(arrival.at_s)
        yield from self.scanners[arrival.scanner].hold(self._receive())
        yield self.env.timeout(self.times.quiet_s + self._poll())
        yield from self.completion.hold(self._stage(self.times.judge, self.node_cores))
        if self.workers.is_free:
            yield self.env.timeout(self._poll())
        yield from self.workers.hold(self._job(), (arrival.priority, arrival.at_s))
        if self.couriers.is_free:
            yield self.env.timeout(self._poll())
        yield from self.couriers.hold(self._deliver())
        found.sojourns_s.append(self.env.now - arrival.at_s)

    def _receive(self) -> Steps:
        """Slice by slice the wire and the receiver take turns, so both are in part busy with a series all the while."""
        wire_s, stage = self.plan.wire_s, self.times.receive
        if wire_s <= 0:
            yield from self._stage(stage, self.receiver)
            return
        share = wire_s / (wire_s + stage.cpu_s)
        parts = (self.wire.serve(wire_s, share), self.receiver.serve(stage.cpu_s, 1 - share))
        yield self.env.all_of([self.env.process(part) for part in parts])
        yield self.env.timeout(stage.wait_s)

    def _job(self) -> Steps:
        yield from self.database.serve(self.times.transactions_s / 2)
        yield from self._stage(self.times.job, self.cores)
        yield from self.gpus.serve(self.times.gpu_s)
        yield from self.database.serve(self.times.transactions_s / 2)

    def _deliver(self) -> Steps:
        yield from self._stage(self.times.deliver, self.node_cores)
        yield self.env.timeout(self.plan.tps_s)

    def _stage(self, stage: Stage, cores: Shared) -> Steps:
        yield from cores.serve(stage.cpu_s, stage.cores)
        yield self.env.timeout(stage.wait_s)

    def _poll(self) -> float:
        return self._rng.uniform(0.0, self.times.poll_s)

    def busy(self, until_s: float) -> dict[str, float]:
        """The share of the time in which each station worked."""
        stations = {
            "network": self.wire.busy_s,
            "receiver and its fsync": self.receiver.busy_s,
            "completion": self.completion.busy_s,
            "database": self.database.busy_s,
            "cores": self.cores.busy_s,
            "workers": self.workers.busy_s / self.workers.servers,
            "GPU": self.gpus.busy_s,
            "courier and TPS": self.couriers.busy_s / self.couriers.servers,
        }
        return {name: busy_s / until_s for name, busy_s in stations.items()}


def simulate(times: Times, plan: Plan, arrivals: Iterable[Arrival], seed: int) -> Outcome:
    """Let all series through; the same seed and arrivals give the same outcome."""
    env, found, known = simpy.Environment(), Outcome(), list(arrivals)
    node = _Node(env, times, plan, 1 + max(arrival.scanner for arrival in known), Random(seed))
    for arrival in known:
        env.process(node.course(arrival, found))
    env.run()
    found.ended_s = max(env.now, 1e-9)
    found.busy = node.busy(found.ended_s - min(arrival.at_s for arrival in known))
    return found


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """The mean of independent runs and half the width of its 95 % confidence interval (Student's t)."""
    from scipy.stats import t  # noqa: PLC0415  # takes half a second to load

    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return mean, float("inf")
    spread = (sum((value - mean) ** 2 for value in values) / (count - 1)) ** 0.5
    return mean, float(t.ppf(0.975, count - 1)) * spread / count**0.5

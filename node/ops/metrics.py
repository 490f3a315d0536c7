"""What /metrics tells, gathered when it is asked for: from the store, the disk, and the files of the processes.

No label holds anything of a patient, a UID or a text from the network: labels are states, roles, statuses, kinds of
alerts, keys of the settings, and the names that the settings give to destinations.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Generic, TypeVar, get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from config.alerting import AlertKind
from config.settings import Settings
from node.ops.certificates import certificate_files, validity
from node.ops.health import State, roles_of
from node.ops.process_metrics import of_processes
from node.ops.processes import roles_elsewhere, running_processes, working_roles
from storage.alerts import AlertStore
from storage.constancy import PASSED, ConstancyStore
from storage.errors import StorageError
from storage.gauges import Gauges
from storage.hosts import HostStore
from storage.peers import PeerStore
from storage.retention import RetentionStore
from storage.spool import Spool
from storage.watching import WatchStore

T = TypeVar("T")

COUNTED_EVERY_S: Final = 30.0  # cases by state take 0.1 s for 100,000 jobs
GROWTH_EVERY_S: Final = 600.0  # an average of three days, for which every instance is looked at


class Remembered(Generic[T]):
    """An answer that is asked for again only after `for_s` seconds; any thread may call it."""

    def __init__(self, ask: Callable[[], T], for_s: float) -> None:
        self._ask, self._for_s = ask, for_s
        self._lock = threading.Lock()
        self._known: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > self._for_s:
                self._known = (time.monotonic(), self._ask())
            return self._known[1]


@dataclass(frozen=True)
class Stores:
    """What of the store is asked."""

    gauges: Gauges
    peers: PeerStore
    alerts: AlertStore
    watching: WatchStore
    retention: RetentionStore
    spool: Spool
    constancy: ConstancyStore
    hosts: HostStore


class NodeCollector(Collector):
    """All metrics of a node. `judge` says how it is; version and bundle name what runs.

    Where the store cannot be read, what it would say is left out and syncect_store_up is 0.
    """

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        stores: Stores,
        judge: Callable[[], State],
        *,
        version: str,
        bundle: str,
    ) -> None:
        self._settings, self._run_dir, self._stores, self._judge = settings, run_dir, stores, judge
        self._version, self._bundle = version, bundle
        self._destinations = [peer.name for peer in settings.destination]
        self._cases = Remembered(stores.gauges.cases, COUNTED_EVERY_S)
        self._growth = Remembered(lambda: stores.retention.growth_bytes_per_h(datetime.now(UTC)), GROWTH_EVERY_S)

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        now = datetime.now(UTC)
        yield InfoMetricFamily(
            "syncect_build",
            "The version of the node and the bundle of its settings.",
            value={"version": self._version, "bundle": self._bundle},
        )
        yield from self._of_processes()
        yield from _of_certificates(self._settings, now)
        with suppress(OSError):  # the disk is gone; `status` and the alerts say so
            yield from self._of_disk()
        try:
            found = [*self._of_store(now), *self._of_growth()]
        except (StorageError, OSError):
            found = []
        yield gauge(
            "syncect_store_up",
            "1 where the database can be read, and the spool is the one that belongs to it.",
            float(bool(found)),
        )
        yield from found

    def _of_processes(self) -> Iterator[Metric]:
        views = running_processes(self._run_dir)
        silent = {view.role for view in views if view.silent() is not None}
        up = working_roles(views) - silent
        with suppress(StorageError):  # what runs here is known all the same
            up |= roles_elsewhere(views, self._stores.hosts.all())
        return of_processes(views, roles_of(self._settings), up, self._destinations)

    def _of_disk(self) -> Iterator[Metric]:
        yield gauge(
            "syncect_disk_free_bytes", "Free space of the spool's file system.", self._stores.spool.free_bytes()
        )
        yield gauge(
            "syncect_disk_reserve_bytes",
            "retention.min_free_gb: with less free space than this the receiver refuses every C-STORE.",
            self._settings.retention.min_free_gb * 1024**3,
        )

    def _of_growth(self) -> Iterator[Metric]:
        left = GaugeMetricFamily(
            "syncect_disk_left_seconds",
            "Seconds until the receiver refuses at the pace of the last 3 days; absent where nothing came.",
        )
        if (growth := self._growth()) > 0:
            left.add_metric([], max(0.0, self._stores.spool.spare_bytes() / growth * 3600))
        yield left

    def _of_store(self, now: datetime) -> Iterator[Metric]:
        stores = self._stores
        health = GaugeMetricFamily("syncect_health", "1 for how the node is: ok, degraded or down.", labels=["state"])
        judged = self._judge()
        for state in State:
            health.add_metric([state.value], float(state is judged))
        yield health
        yield family("syncect_cases", "Series by the one state that `jobs ls` shows.", "state", self._cases())
        yield family(
            "syncect_oldest_age_seconds",
            "Seconds since the last instance of the series that has been longest in a state without a result sent.",
            "state",
            {state: _age_s(moment, now) for state, moment in stores.gauges.oldest().items()},
        )
        unsent = GaugeMetricFamily(
            "syncect_deliveries",
            "Results that wait for a destination (PENDING), are being sent, or FAILED there.",
            labels=["destination", "state"],
        )
        for labels, count in stores.gauges.unsent(self._destinations).items():
            unsent.add_metric(labels, count)
        yield unsent
        sent = GaugeMetricFamily(
            "syncect_last_sent_age_seconds", "Seconds since a destination last accepted an instance; absent if never."
        )
        if (sent_at := stores.gauges.last_sent_at()) is not None:
            sent.add_metric([], _age_s(sent_at, now))
        yield sent
        yield from _of_peers(stores.peers, self._destinations, now)
        yield from _of_alerts(stores)
        yield from _of_constancy(stores.constancy, now)


def gauge(name: str, words: str, value: float) -> Metric:
    """One number."""
    return GaugeMetricFamily(name, words, value=value)


def family(name: str, words: str, label: str, values: "dict[str, float] | Counter[str]") -> Metric:
    """One number for each value of a label."""
    found = GaugeMetricFamily(name, words, labels=[label])
    for key, value in values.items():
        found.add_metric([key], value)
    return found


def _of_peers(peers: PeerStore, destinations: Collection[str], now: datetime) -> Iterator[Metric]:
    asked = [view for view in peers.all() if view.destination in destinations]
    yield family(
        "syncect_peer_up",
        "1 where the last association with a destination came about; absent where none was asked for yet.",
        "destination",
        {view.destination: float(view.failing_since is None) for view in asked},
    )
    yield family(
        "syncect_peer_last_answer_age_seconds",
        "Seconds since an association with a destination last came about.",
        "destination",
        {view.destination: _age_s(view.answered_at, now) for view in asked if view.answered_at is not None},
    )


def _of_alerts(stores: Stores) -> Iterator[Metric]:
    standing = stores.alerts.open()
    kinds = Counter(dict.fromkeys(get_args(AlertKind), 0))
    kinds.update(alert.kind for alert in standing)
    yield family("syncect_alerts_open", "Open alerts by kind (`syncect alerts ls`).", "kind", kinds)
    yield gauge(
        "syncect_alerts_unacknowledged",
        "Open alerts that nobody has acknowledged.",
        sum(alert.acknowledged_at is None for alert in standing),
    )
    yield gauge(
        "syncect_deaths",
        "How often a process ended while a series that is not finished was in hand.",
        sum(harm.deaths for harm in stores.watching.harms()),
    )


def _of_constancy(constancy: ConstancyStore, now: datetime) -> Iterator[Metric]:
    last = constancy.last()
    age = GaugeMetricFamily(
        "syncect_constancy_age_seconds",
        "Seconds since the last constancy run (`syncect qa ls`); absent if there is none.",
    )
    passed = GaugeMetricFamily(
        "syncect_constancy_passed", "1 where the last constancy run PASSED, 0 where it FAILED; absent if there is none."
    )
    if last is not None:
        age.add_metric([], _age_s(last.at, now))
        passed.add_metric([], float(last.outcome == PASSED))
    yield from (age, passed)


def _of_certificates(settings: Settings, now: datetime) -> Iterator[Metric]:
    """The first of the certificates of a file to expire counts; what cannot be read is left to `doctor`."""
    left = {}
    for key, name, path in certificate_files(settings):
        with suppress(OSError, ValueError, IndexError):
            if ends := [end for _, end in validity(path)]:
                left[f"{key}.{name}"] = (min(ends) - now).total_seconds()
    yield family(
        "syncect_certificate_left_seconds",
        "Seconds until a certificate or revocation list of the settings expires; negative where it has expired.",
        "setting",
        left,
    )


def _age_s(moment: datetime, now: datetime) -> float:
    return max(0.0, (now - moment).total_seconds())

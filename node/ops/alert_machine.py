"""What the machine says that a person has to know: processes, the disk, certificates, and that nothing comes at all.

Each class remembers what it saw, for a trend or a duration; a watch that starts anew begins to learn again.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final

from node.ops.findings import Finding
from node.ops.health import ROLES
from node.ops.processes import ProcessView, running_processes, working_roles
from node.ops.spool_check import IN_FLIGHT
from storage.alerts import AlertStore, Cause
from storage.spool import Spool
from storage.watching import WatchStore

MISSING_AFTER_S: Final = 30.0  # a restart takes less
STOPPED_AFTER_S: Final = 30.0
RESTARTS, RESTARTS_WITHIN_S = 4, 600.0

_SAMPLE_EVERY_S, _TREND_S, _SHORTEST_TREND_S = 60.0, 6 * 3600.0, 1800.0
HOURS_LEFT: Final = 12.0
LEAST_GB: Final = 1.0
_SLACK: Final = 1.1  # an alert ends only well above the limit at which it began

CERTIFICATES_EVERY: Final = timedelta(hours=1)

UNKNOWN_EVERY: Final = timedelta(minutes=5)
NEWEST_DAYS, MOST_UNKNOWN = 3, 100  # days on which something came; files that are read

WEEKS, FEWEST_WEEKS = 4, 3
SILENT_HOURS: Final = 4
_SILENCE_EVERY: Final = timedelta(minutes=5)


class Processes:
    """Roles without a process, processes that do not respond or start again and again, workers that cannot work.

    `elsewhere(views)`: the roles that other hosts run, which need not run beside the processes of this one.
    """

    kinds = ("process", "restarts", "worker", "device")

    def __init__(
        self,
        run_dir: Path,
        expected: Collection[str],
        *,
        clock_s: Callable[[], float] = time.monotonic,
        is_stopped: Callable[[int], bool] | None = None,
        elsewhere: Callable[[Sequence[ProcessView]], Collection[str]] = lambda _views: (),
    ) -> None:
        self._run_dir, self._expected, self._clock_s, self._elsewhere = run_dir, expected, clock_s, elsewhere
        self._is_stopped = is_stopped or _is_stopped
        self._since_s: dict[tuple[str, int], float] = {}  # (role, pid or 0 for none) -> since when it is so
        self._starts: dict[str, deque[tuple[float, int]]] = defaultdict(lambda: deque(maxlen=RESTARTS))
        self._devices: dict[str, str] = {}

    def find(self, now: datetime) -> Iterator[Cause]:
        """What is wrong with the processes of this host now."""
        views = running_processes(self._run_dir)
        yield from self._trouble(views)
        for view in views:
            if view.role == "work":
                yield from self._device(view)

    def _trouble(self, views: list[ProcessView]) -> Iterator[Cause]:
        now_s, known = self._clock_s(), set(self._since_s)
        alive = working_roles(views).union(self._elsewhere(views))
        troubled = {(role, 0) for role in self._expected if role not in alive}
        stopped = {(view.role, view.pid) for view in views if self._is_stopped(view.pid)}
        silent = {(view.role, view.pid): late.work for view in views if (late := view.silent()) is not None}
        troubled |= stopped | set(silent)
        for key in known - troubled:
            del self._since_s[key]
        for role, pid in sorted(troubled):
            for_s = now_s - self._since_s.setdefault((role, pid), now_s)
            if not pid and for_s >= MISSING_AFTER_S:
                yield Cause("process", role, f"{_named(role)} does not run; next: look at its log, `syncect serve`")
            elif pid and for_s >= STOPPED_AFTER_S:
                why = f"the system has stopped it; next: `kill -CONT {pid}`"
                if (role, pid) not in stopped:
                    why = f"it stands still at {silent[role, pid]}; next: `syncect status`"
                yield Cause("process", role, f"{_named(role)}, pid {pid}, does not respond: {why}")
        for view in views:
            yield from self._restarts(view, now_s)

    def _restarts(self, view: ProcessView, now_s: float) -> Iterator[Cause]:
        starts = self._starts[f"{view.role} {view.name}"]
        if not starts or starts[-1][1] != view.pid:
            starts.append((now_s, view.pid))
        if len(starts) == RESTARTS and now_s - starts[0][0] <= RESTARTS_WITHIN_S:
            text = f"{_named(view.role)} ends again and again and is restarted; next: look at its log"
            yield Cause("restarts", f"{view.role} {view.name}", text)

    def _device(self, view: ProcessView) -> Iterator[Cause]:
        subject = f"work {view.name}"
        if view.cannot_work:
            text = f"the worker cannot translate: {view.cannot_work.rstrip('.')}"
            yield Cause("worker", subject, f"{text}; next: `syncect status`")
            return
        worker, _, device = view.details.rpartition(") on ")  # as a translator describes itself
        if not worker:
            return  # it is loading
        known = self._devices.setdefault(subject, device)
        if known.startswith("cpu") or not device.startswith("cpu"):
            self._devices[subject] = device
        else:
            text = f"the worker computed on {known} and now computes on {device}; next: is the graphics card there?"
            yield Cause("device", subject, text)


def _named(role: str) -> str:
    return ROLES.get(role, role)


def _is_stopped(pid: int) -> bool:
    """Whether the system keeps a process stopped (SIGSTOP, a debugger); False where this system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] in (["T"], ["t"])


class Disk:
    """Less than twice the reserve is free, or the reserve is reached within hours at the rate of the last hours.

    Also without a reserve, less than `LEAST_GB` is too little: the store needs room, too.
    """

    kinds = ("disk",)

    def __init__(self, free_gb: Callable[[], float], reserve_gb: float) -> None:
        self._free_gb, self._reserve_gb = free_gb, reserve_gb
        self._samples: deque[tuple[datetime, float]] = deque()
        self._is_open = False

    def find(self, now: datetime) -> list[Cause]:
        """At most one cause."""
        free = self._free_gb()
        hours = self._hours_left(now, free)
        slack = _SLACK if self._is_open else 1.0
        is_short = hours is not None and hours < HOURS_LEFT * slack
        self._is_open = free < max(2 * self._reserve_gb, LEAST_GB) * slack or is_short
        if not self._is_open:
            return []
        limit = f"below {self._reserve_gb:g} GB (retention.min_free_gb) every C-STORE is refused"
        left = (
            f"; that is in about {max(1, round(hours))} h at the present rate" if is_short and hours is not None else ""
        )
        return [Cause("disk", "spool", f"{free:.1f} GB are free, and {limit}{left}; next: make room")]

    def _hours_left(self, now: datetime, free: float) -> float | None:
        """Until the reserve is reached; None where that is not known yet, or the disk does not fill."""
        samples = self._samples
        if samples and now < samples[-1][0]:
            samples.clear()  # the clock was set back
        if not samples or (now - samples[-1][0]).total_seconds() >= _SAMPLE_EVERY_S:
            samples.append((now, free))
        while (now - samples[0][0]).total_seconds() > _TREND_S:
            samples.popleft()
        begun, before = samples[0]
        passed_s = (now - begun).total_seconds()
        if passed_s < _SHORTEST_TREND_S or free >= before:
            return None
        return max(0.0, free - self._reserve_gb) / ((before - free) / passed_s) / 3600


class Certificates:
    """TLS files that have expired or will soon, or cannot be used; read once an hour."""

    kinds = ("certificate",)

    def __init__(self, check: Callable[[datetime], Iterable[tuple[str, Finding]]]) -> None:
        self._check = check
        self._looked_at: datetime | None = None
        self._found: list[Cause] = []

    def find(self, now: datetime) -> list[Cause]:
        """One cause for each place in the settings that names TLS files."""
        if self._looked_at is None or abs(now - self._looked_at) >= CERTIFICATES_EVERY:
            words: dict[str, list[str]] = defaultdict(list)
            for key, finding in self._check(now):
                words[key].append(finding.text)
            self._found = [Cause("certificate", key, "; ".join(texts)) for key, texts in words.items()]
            self._looked_at = now
        return self._found


class UnknownImages:
    """Received files that the store knows neither by name nor by content: an older database was put back.

    What was received once more is known by its content; so a process that was killed before it answered is no cause.
    """

    kinds = ("store",)

    def __init__(self, spool: Spool, unknown: Callable[[Sequence[str]], list[str]], watching: WatchStore) -> None:
        """unknown: gives those of some names to which no row refers."""
        self._spool, self._unknown, self._watching = spool, unknown, watching
        self._looked_at: datetime | None = None
        self._found: list[Cause] = []

    def find(self, now: datetime) -> list[Cause]:
        """At most one cause; it is looked for every five minutes among the files of the newest days."""
        if self._looked_at is None or abs(now - self._looked_at) >= UNKNOWN_EVERY:
            self._found, self._looked_at = list(self._look(now)), now
        return self._found

    def _look(self, now: datetime) -> Iterator[Cause]:
        days = self._spool.received_files(older_than=now - IN_FLIGHT, newest_days=NEWEST_DAYS)
        names = [name for day in days for name in day]
        unknown = [name for at in range(0, len(names), 500) for name in self._unknown(names[at : at + 500])]
        if not unknown:
            return
        digests = {self._spool.digest(name) for name in unknown[:MOST_UNKNOWN]} - {""}
        if digests - self._watching.received_contents(digests):
            yield Cause(
                "store",
                "spool",
                f"{len(unknown)} received images are on the disk and unknown to the store, so nothing becomes of them; "
                "was an older database put back? Next: send them again, or stop the node and `syncect db rebuild`",
            )


class Silence:
    """Nothing came for hours in which, on this weekday, something came in every one of the last weeks.

    The last `WEEKS` weeks count, or as many of them as the store knows, at least `FEWEST_WEEKS`. Once open it ends when
    something comes, not when the busy hours are over.
    """

    kinds = ("silence",)

    def __init__(self, watching: WatchStore, alerts: AlertStore, zone: tzinfo | None) -> None:
        self._watching, self._alerts, self._zone = watching, alerts, zone
        self._looked_at: datetime | None = None
        self._found: list[Cause] = []

    def find(self, now: datetime) -> list[Cause]:
        """At most one cause; it is looked for every five minutes."""
        if self._looked_at is None or abs(now - self._looked_at) >= _SILENCE_EVERY:
            self._found, self._looked_at = list(self._look(now)), now
        return self._found

    def _look(self, now: datetime) -> Iterator[Cause]:
        came = self._watching.arrivals(now - timedelta(weeks=WEEKS + 1))
        newest = max(came, default=None)
        standing = [alert for alert in self._alerts.open() if alert.kind == "silence"]
        if standing and (newest is None or newest < standing[0].opened_at):
            yield Cause("silence", "receiver", standing[0].text)
        elif not self._any(came, now, 0) and self._is_usual(came, now):
            last = f"; the last came at {newest.astimezone(self._zone):%Y-%m-%d %H:%M}" if newest else ""
            yield Cause(
                "silence",
                "receiver",
                f"nothing was received for {SILENT_HOURS} h, and on this weekday something always was at this time"
                f"{last}; next: `syncect status`, then ask the scanner",
            )

    def _is_usual(self, came: list[datetime], now: datetime) -> bool:
        first = min(came, default=now)
        weeks = [week for week in range(1, WEEKS + 1) if self._window(now, week)[1] > first]
        return len(weeks) >= FEWEST_WEEKS and all(self._any(came, now, week) for week in weeks)

    def _any(self, came: list[datetime], now: datetime, week: int) -> bool:
        begin, end = self._window(now, week)
        return any(begin <= moment <= end for moment in came)

    def _window(self, now: datetime, week: int) -> tuple[datetime, datetime]:
        """The last hours, so many weeks ago, by the clock on the wall: summer time moves no scan."""
        end = now.astimezone(self._zone).replace(tzinfo=None) - timedelta(weeks=week)
        begin = end - timedelta(hours=SILENT_HOURS)
        return self._aware(begin), self._aware(end)

    def _aware(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=self._zone) if self._zone else moment.astimezone()

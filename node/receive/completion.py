"""Completion decides by its headers when a received series is complete, and what becomes of it.

A series is complete when every association that touched it has closed, nothing arrived for `quiet_s`, and its slices
form one gap-free lattice. No signal of DICOM says that a sender is finished (needs: PS3.4 has none); what an aborted
association left behind waits `give_up_s` for the sender's next try, because its slices may well be gap-free. Pixels are
looked at in one case: a series with a gap that is enhanced anyway needs nobody to look for its missing slices.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from config.settings import CompletionSettings
from node.dicom.headers import SliceHeader, read_header
from node.errors import UnreadableInstance
from node.receive.eligibility import EligibilityPolicy, Incomplete, Skip, judge
from storage.series import JobRequest, OpenSeries, SeriesFacts, SeriesStore
from storage.spool import Spool
from storage.states import SeriesState

log = logging.getLogger(__name__)


class Completion:
    """One tick judges every series that has gone quiet.

    `request_for(headers)` names the job that an accepted series gets: its key and its bundle. `why_enhanced(paths)`
    looks into the pixels of a series with a gap: a clause where they look as if contrast agent had been given, or None.
    """

    def __init__(
        self,
        series: SeriesStore,
        spool: Spool,
        settings: CompletionSettings,
        policy: EligibilityPolicy,
        request_for: Callable[[list[SliceHeader]], JobRequest],
        *,
        why_enhanced: Callable[[Sequence[Path]], str | None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._series, self._spool = series, spool
        self._settings, self._policy = settings, policy
        self._request_for, self._why_enhanced, self._clock = request_for, why_enhanced, clock

    def tick(self) -> int:
        """Judge what is quiet; returns the number of series that changed their state."""
        decided = 0
        for series in self._series.undecided(self._clock(), self._settings.quiet_s):
            try:
                decided += self._decide(series)
            except Exception as error:  # the boundary between series: one that cannot be judged stops no other
                log.exception("series %s could not be judged", series.series_uid)
                reason = f"the series could not be judged: unexpected {type(error).__name__}"
                if series.state is SeriesState.RECEIVING:
                    decided += self._series.hold_incomplete(series, reason, self._clock())
        return decided

    def _decide(self, series: OpenSeries) -> bool:
        if series.state is SeriesState.RECEIVING and self._must_wait(series):
            return False
        headers, unreadable = self._read(series)
        facts = _facts(headers)
        if unreadable:
            return self._skip(series, facts, f"{unreadable[0]} ({len(unreadable)} unreadable instances)")
        verdict = judge(headers, self._policy)
        vouched = series.state is SeriesState.COMPLETE
        broken_off = None if vouched else self._broken_off(series)
        if isinstance(verdict, Skip):
            if broken_off and verdict.depends_on_count:
                return self._hold(series, f"{broken_off} (so far: {verdict.reason})")
            return self._skip(series, facts, verdict.reason)
        if isinstance(verdict, Incomplete):
            return self._settle_gap(series, facts, headers, verdict, vouched=vouched)
        if broken_off:
            return self._hold(series, broken_off)
        request = replace(self._request_for(headers), doubt=verdict.doubt)
        queued = self._series.queue(series, facts, request, self._clock())
        if queued:
            log.info("series %s complete: %d slices queued for %s", series.series_uid, len(headers), request.bundle)
        return queued

    def _settle_gap(
        self, series: OpenSeries, facts: SeriesFacts, headers: list[SliceHeader], verdict: Incomplete, *, vouched: bool
    ) -> bool:
        """A gap is worth a person's attention only in a scan that could be translated once it is whole."""
        if vouched:
            return self._skip(series, facts, f"completed by hand, but {verdict.reason}")
        enhanced = self._why_enhanced([header.path for header in headers])
        if enhanced:
            return self._skip(series, facts, f"{enhanced}; moreover {verdict.reason}")
        return self._hold(series, verdict.reason)

    def _must_wait(self, series: OpenSeries) -> bool:
        """Whether the sender may still be about to send; ends `give_up_s` after the last instance."""
        return (series.association_open or series.ended_badly) and series.quiet_for_s < self._settings.give_up_s

    def _broken_off(self, series: OpenSeries) -> str | None:
        if series.association_open:
            return f"the association is open but silent for more than {self._settings.give_up_s:g} s"
        if series.ended_badly:
            return (
                "the association was aborted while sending and the sender did not try again within "
                f"{self._settings.give_up_s:g} s; send the series again, or confirm it with `syncect jobs complete`"
            )
        return None

    def _read(self, series: OpenSeries) -> tuple[list[SliceHeader], list[str]]:
        headers, unreadable = [], []
        for name in self._series.spool_names(series.id):
            try:
                path = self._spool.path(name)
                headers.append(read_header(path, keywords=self._policy.keywords, decode=False))
            except UnreadableInstance as error:
                unreadable.append(str(error))
        return headers, unreadable

    def _skip(self, series: OpenSeries, facts: SeriesFacts, reason: str) -> bool:
        log.info("series %s skipped: %s", series.series_uid, reason)
        return self._series.skip(series, facts, reason, self._clock())

    def _hold(self, series: OpenSeries, reason: str) -> bool:
        log.warning("series %s is INCOMPLETE: %s", series.series_uid, reason)
        return self._series.hold_incomplete(series, reason, self._clock())


def _facts(headers: list[SliceHeader]) -> SeriesFacts:
    if not headers:
        return SeriesFacts(description="", patient_id="")
    first = headers[0]
    return SeriesFacts(description=first.series_description, patient_id=first.patient_id)

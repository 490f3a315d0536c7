"""Completion decides by its headers when a received series is complete, and what becomes of it.

A series is complete when every association that touched it has closed, nothing arrived for `quiet_s` or for twice the
longest pause of its sender, nothing is known to be missing, and its slices form one gap-free lattice. C-STORE has no
signal that a sender is finished; what an aborted association left behind, or lacks an instance that was refused, waits
`give_up_s` for the sender's next try, because its slices may well be gap-free. So does a series of which the peer of
`count_from` counts more. Where scanners report their performed procedure steps, what a completed step lists is waited
for, and once exactly that is there, no pause and no aborted association is. Pixels are looked at in one case: a series
with a gap that is enhanced anyway needs nobody to look for its missing slices.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from structlog.contextvars import bound_contextvars

from config.settings import CompletionSettings
from node.dicom.body_parts import BODY_PARTS, MODALITIES
from node.dicom.headers import SliceHeader, read_header, read_headers
from node.errors import AmbiguousInstance, UnreadableInstance
from node.receive.eligibility import EligibilityPolicy, Incomplete, Skip, judge
from node.receive.expected import ExpectedCounts
from node.receive.performed_steps import NOTHING, PerformedSteps, StepWord
from node.receive.routing import Call
from node.receive.shortfall import describe_missing, lost_by_replacement, not_arrived
from storage.errors import ObjectsUnavailable, StoreUnavailable
from storage.series import JobRequest, OpenSeries, SeriesFacts, SeriesStore
from storage.sources import SourceFile
from storage.spool import LOST, Spool
from storage.states import SeriesState

log = logging.getLogger(__name__)

TURN_S: Final = 5.0


class Completion:
    """One tick judges every series that has gone quiet.

    `request_for(headers, call)` names the job that an accepted series gets: its key, its bundle and where its result
    goes; `call` says by which AE titles the series came. `why_enhanced(paths)`
    looks into the pixels of a series with a gap: a clause where they look as if contrast agent had been given, or None.
    `expected` knows how many instances a peer counts; None where no peer is asked. `steps`: what performed procedure
    steps say; None where nobody reports them. `name`: of the process, the same after a restart.
    """

    def __init__(
        self,
        series: SeriesStore,
        spool: Spool,
        settings: CompletionSettings,
        policy: EligibilityPolicy,
        request_for: Callable[[list[SliceHeader], Call], JobRequest],
        *,
        why_enhanced: Callable[[Sequence[Path]], str | None],
        name: str,
        expected: ExpectedCounts | None = None,
        steps: PerformedSteps | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._series, self._spool = series, spool
        self._settings, self._policy = settings, policy
        self._request_for, self._why_enhanced, self._clock = request_for, why_enhanced, clock
        self._expected, self._steps, self._name = expected, steps, name
        self._named: set[int] = set()
        self._spent_s: dict[str | int, float] = {}  # by AE title and by number of the series

    def begin(self) -> None:
        """Count what a former process of this name had in hand when it ended; called once, before the first tick."""
        for series_uid in self._series.count_deaths(self._name, self._clock()):
            log.error(
                "a process ended while it read series %s",
                series_uid,
                extra={"event": "reading_ended_process", "series_uid": series_uid},
            )

    def tick(self) -> int:
        """Judge what is quiet; returns the number of series that changed their state.

        After `TURN_S` seconds the rest is left to the next tick, which sees what came meanwhile and begins with the
        peers that took the least time: one that sends what takes long to judge delays itself.
        """
        decided, begin_s = 0, time.monotonic()
        for series in self._in_turn(self._series.undecided(self._clock(), self._settings.quiet_s)):
            before_s = time.monotonic()
            decided += self._judge_alone(series)
            now_s = time.monotonic()
            for key in (series.calling_ae, series.id):
                self._spent_s[key] = self._spent_s.get(key, 0.0) + now_s - before_s
            if now_s - begin_s > TURN_S:
                break
        self._name_new_series()
        return decided

    def _in_turn(self, waiting: list[OpenSeries]) -> list[OpenSeries]:
        """The peer that took the least time first, and of each the series that did; then the oldest."""
        keys = {key for series in waiting for key in (series.calling_ae, series.id)}
        self._spent_s = {key: spent_s for key, spent_s in self._spent_s.items() if key in keys}
        spent_s = self._spent_s
        return sorted(waiting, key=lambda one: (spent_s.get(one.calling_ae, 0.0), spent_s.get(one.id, 0.0)))

    def _judge_alone(self, series: OpenSeries) -> bool:
        """The boundary between series: one that cannot be judged stops no other."""
        try:
            return self._judge(series)
        except StoreUnavailable:  # says nothing about the series
            raise
        except ObjectsUnavailable as error:  # nor does this, and other series may lie here
            log.error(
                "series %s is not judged yet: %s",
                series.series_uid,
                error,
                extra={"event": "series_waits_for_objects", "series_uid": series.series_uid},
            )
            return False
        except Exception as error:
            log.exception(
                "series %s could not be judged",
                series.series_uid,
                extra={"event": "series_not_judged", "series_uid": series.series_uid},
            )
            reason = f"the series could not be judged: unexpected {type(error).__name__}"
            if series.state is not SeriesState.RECEIVING:
                return False
            return self._series.hold_incomplete(series, reason, self._clock())

    def _name_new_series(self) -> None:
        """Let the listing show whose series is being received, from the header of its first instance."""
        nameless = self._series.nameless()
        for series_id, spool_name in nameless:
            if series_id not in self._named:
                with self._in_hand(series_id):
                    self._name_series(series_id, spool_name)
        self._named = {series_id for series_id, _ in nameless}

    def _name_series(self, series_id: int, spool_name: str) -> None:
        try:
            self._spool.fetch(self._series.wanted([spool_name]))
            facts = series_facts([read_header(self._spool.path(spool_name), decode=False)])
            self._series.note_facts(series_id, facts)
        except (UnreadableInstance, ObjectsUnavailable):  # it is judged, and named, when the series is quiet
            log.info(
                "the first instance of series %d cannot be read",
                series_id,
                extra={"event": "series_not_named", "series": series_id},
            )

    def _judge(self, series: OpenSeries) -> bool:
        """Judge a series that need not be waited for."""
        vouched = series.state is SeriesState.COMPLETE
        word = NOTHING if self._steps is None or vouched else self._steps.of(series)
        if not vouched and (self._must_wait(series, word) or self._is_to_be_longer(series)):
            return False
        ids = {"series_uid": series.series_uid, "calling_ae": series.calling_ae}
        with self._in_hand(series.id, judging=True), bound_contextvars(**ids):
            return self._decide(series, word, vouched=vouched)

    @contextmanager
    def _in_hand(self, series_id: int, *, judging: bool = False) -> Iterator[None]:
        """Let the next process know what this one looked into, should it end here."""
        self._series.take_in_hand(series_id, self._name)
        try:
            yield
        finally:
            self._series.put_down(series_id, judged=judging)

    def _decide(self, series: OpenSeries, word: StepWord, *, vouched: bool) -> bool:
        try:
            headers, unreadable = self._read(series)
        except AmbiguousInstance as error:
            log.error(
                "series %s is FAILED: %s",
                series.series_uid,
                error,
                extra={"event": "series_failed", "series_uid": series.series_uid},
            )
            reason = f"nothing is made of this series: {error}"
            return self._series.fail(series, series_facts([]), reason, self._clock())
        facts = series_facts(headers)
        if unreadable and self._lose_damaged(series):
            return False  # the next tick finds what is missing
        if unreadable:
            return self._skip(series, facts, f"{unreadable[0]} ({len(unreadable)} unreadable instances)")
        verdict = judge(headers, self._policy)
        doubt = None if vouched else self._doubt(series, headers, word)
        if isinstance(verdict, Skip):
            if doubt and (verdict.depends_on_count or not headers):
                return self._hold(series, f"{doubt} (so far: {verdict.reason})" if headers else doubt)
            return self._skip(series, facts, verdict.reason)
        if isinstance(verdict, Incomplete):
            return self._settle_gap(series, facts, headers, verdict, doubt, vouched=vouched)
        if doubt:
            return self._hold(series, doubt)
        asked = self._request_for(headers, _call(series))
        request = replace(asked, doubt="; ".join(clause for clause in (asked.doubt, verdict.doubt) if clause))
        queued = self._series.queue(series, facts, request, self._clock())
        if queued:
            log.info(
                "series %s complete: %d slices queued for %s",
                series.series_uid,
                len(headers),
                request.bundle,
                extra={"event": "series_complete", "series_uid": series.series_uid},
            )
        return queued

    def _settle_gap(
        self,
        series: OpenSeries,
        facts: SeriesFacts,
        headers: list[SliceHeader],
        verdict: Incomplete,
        doubt: str | None,
        *,
        vouched: bool,
    ) -> bool:
        """A gap is worth a person's attention only in a scan that could be translated once it is whole."""
        if vouched:
            return self._skip(series, facts, f"completed by hand, but {verdict.reason}")
        enhanced = self._why_enhanced(list(dict.fromkeys(header.path for header in headers)))
        if enhanced:
            return self._skip(series, facts, f"{enhanced}; moreover {verdict.reason}")
        return self._hold(series, f"{verdict.reason}; {doubt}" if doubt else verdict.reason)

    def _must_wait(self, series: OpenSeries, word: StepWord) -> bool:
        """Whether the sender may still be about to send; ends `give_up_s` after the last instance."""
        if series.association_open and series.association_quiet_for_s < self._settings.give_up_s:
            return True  # a long study in one association: it goes on with another series
        expects_more = series.association_open or series.missing or word.is_awaited or word.missing
        if word.is_whole and not expects_more:
            return False  # it was quiet for `quiet_s` before it came here
        if expects_more or series.ended_badly:
            return series.quiet_for_s < self._settings.give_up_s
        return series.quiet_for_s < min(series.wait_s, self._settings.give_up_s)

    def _is_to_be_longer(self, series: OpenSeries) -> bool:
        """Whether the peer of `count_from` has, or is about to say that it has, more instances than arrived."""
        if self._expected is None or series.quiet_for_s >= self._settings.give_up_s:
            return False
        told = self._expected.of(series.study_uid, series.series_uid)
        if told.is_open:
            return True
        if told.count is None:
            return False
        if told.count != series.expected:
            self._series.note_expected(series.id, told.count)
        return told.count > series.instances

    def _doubt(self, series: OpenSeries, headers: list[SliceHeader], word: StepWord) -> str | None:
        """Why the series is not complete although its sender is silent; None where nothing speaks against it."""
        replaced = self._replaced(series)
        clauses = [
            self._broken_off(series, word),
            describe_missing(series.missing) if series.missing else None,
            not_arrived(word.listed, word.missing) if word.missing else None,
            word.stopped,
            lost_by_replacement(headers, replaced) if replaced else None,
            self._counted_longer(series),
        ]
        return "; ".join(clause for clause in clauses if clause) or None

    def _broken_off(self, series: OpenSeries, word: StepWord) -> str | None:
        if series.association_open:
            return f"the association is open but silent for more than {self._settings.give_up_s:g} s"
        if series.ended_badly and not word.is_whole:
            return (
                "the association was aborted while sending and the sender did not try again within "
                f"{self._settings.give_up_s:g} s; send the series again, or confirm it with `syncect jobs complete`"
            )
        return None

    def _counted_longer(self, series: OpenSeries) -> str | None:
        if self._expected is None or series.expected is None or series.expected <= series.instances:
            return None
        return f"{self._expected.peer_name} counts {series.expected} images of this series, {series.instances} arrived"

    def _replaced(self, series: OpenSeries) -> list[SliceHeader]:
        """What was replaced by other contents under the same UID, as far as it can be read."""
        headers = []
        names = self._series.replaced(series.id)
        self._spool.fetch(self._series.wanted(names) if names else ())
        for name in names:
            with suppress(UnreadableInstance):
                headers += read_headers(self._spool.path(name), decode=False)
        return headers

    def _read(self, series: OpenSeries) -> tuple[list[SliceHeader], list[str]]:
        """The headers, and why others cannot be read. Raises AmbiguousInstance."""
        headers, unreadable = [], []
        sources = self._series.sources(series.id)
        self._spool.fetch((one.spool_name, one.sha256, one.size_bytes) for one in sources)
        for source in sources:
            try:
                path = self._spool.path(source.spool_name)
                slices = read_headers(path, keywords=self._policy.keywords, decode=False, sha256=source.sha256)
                _refuse_other_identity(slices[0], series, source)
                headers += slices
            except AmbiguousInstance:
                raise
            except UnreadableInstance as error:
                unreadable.append(str(error))
        return headers, unreadable

    def _lose_damaged(self, series: OpenSeries) -> bool:
        """Whether files of the series are not as they were received: then they must come again, which no skip says."""
        lost = {
            source.spool_name: condition
            for source in self._series.sources(series.id)
            if (condition := self._spool.condition(source.spool_name, source.sha256, source.size_bytes)) in LOST
        }
        if not lost:
            return False
        log.error(
            "series %s: %d received files are damaged or gone",
            series.series_uid,
            len(lost),
            extra={"event": "received_files_damaged", "series_uid": series.series_uid},
        )
        return self._series.lose_sources(series.id, lost, "completion", self._clock()) > 0

    def _skip(self, series: OpenSeries, facts: SeriesFacts, reason: str) -> bool:
        log.info(
            "series %s skipped: %s",
            series.series_uid,
            reason,
            extra={"event": "series_skipped", "series_uid": series.series_uid},
        )
        return self._series.skip(series, facts, reason, self._clock())

    def _hold(self, series: OpenSeries, reason: str) -> bool:
        log.warning(
            "series %s is INCOMPLETE: %s",
            series.series_uid,
            reason,
            extra={"event": "series_incomplete", "series_uid": series.series_uid},
        )
        return self._series.hold_incomplete(series, reason, self._clock())


def _call(series: OpenSeries) -> Call:
    called, *others = series.called or ("",)
    return Call(called, series.calling_ae, tuple(others))


def series_facts(headers: Sequence[SliceHeader]) -> SeriesFacts:
    """What the listing shows of a series, by the first of its headers; nothing without any."""
    if not headers:
        return SeriesFacts(description="", patient_id="")
    first = headers[0]
    return SeriesFacts(first.series_description, first.patient_id, _no_free_text(first))


def _no_free_text(header: SliceHeader) -> dict[str, int | str]:
    """What tells a series from others and nobody can have typed a name into; a value of another kind is left out."""
    body_part, number = "".join(header.attribute("BodyPartExamined")), header.series_number
    found = {
        "series_number": number if number is not None and abs(number) < 2**31 else None,  # PS3.5 6.2, IS
        "modality": header.modality if header.modality in MODALITIES else None,
        "body_part": body_part if body_part in BODY_PARTS else None,
        "acquired": _acquired(header),
    }
    return {name: value for name, value in found.items() if value is not None}


def _acquired(header: SliceHeader) -> str | None:
    """When the scanner's clock said that it acquired an image: `2026-11-26 13:40`, or the date alone."""
    date, time = ("".join(header.attribute(keyword)) for keyword in ("AcquisitionDate", "AcquisitionTime"))
    for digits, size, form, shown in (
        (date + time[:4], 12, "%Y%m%d%H%M", "%Y-%m-%d %H:%M"),
        (date, 8, "%Y%m%d", "%Y-%m-%d"),
    ):
        with suppress(ValueError):
            if len(digits) == size and digits.isdecimal():
                return datetime.strptime(digits, form).strftime(shown)
    return None


def _refuse_other_identity(header: SliceHeader, series: OpenSeries, recorded: SourceFile) -> None:
    """Two parsers read each file, the receiver's and pydicom; raises AmbiguousInstance where they do not agree.

    The StudyInstanceUID is kept for a series and not for each instance; that there is one only is a rule of the gate.
    """
    for keyword, received, read in (
        ("SOPInstanceUID (0008,0018)", recorded.sop_instance_uid, header.sop_instance_uid),
        ("SOPClassUID (0008,0016)", recorded.sop_class_uid, header.sop_class_uid),
        ("SeriesInstanceUID (0020,000E)", series.series_uid, header.series_uid),
    ):
        if received != read:
            raise AmbiguousInstance(
                f"in instance {recorded.sop_instance_uid} the receiver read the {keyword} {received}, and the whole "
                f"header gives {read}"
            )

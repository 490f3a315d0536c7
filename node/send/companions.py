"""Sends the companions of a derived series behind its images; none of them can hold the images up, or fail them.

Each goes in an association, or a request, of its own: what a peer does not take ends nothing else.
What it refuses is a remark about the delivery. What failed in a way that may pass is tried again with the delivery, of
which the images are there already, until `MAX_ATTEMPTS`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from config.syntax import Companion
from node.dicom.companions.kinds import KINDS
from node.network.no_association import Outcome
from node.send.scu import SendReport
from storage.outbox import ClaimedDelivery

if TYPE_CHECKING:
    from node.send.peer import Sender

log = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 5  # of the delivery; then its images count as sent without them
_MAY_PASS: Final = (Outcome.TRANSIENT, Outcome.UNCLEAR)


class CompanionFile(Protocol):
    """One companion on the disk."""

    @property
    def sop_instance_uid(self) -> str:
        """Its SOPInstanceUID."""

    @property
    def path(self) -> Path:
        """Its file."""


class CompanionMaker(Protocol):
    """Makes the companions of one derived series, or finds those that were made before."""

    def choose(self, kinds: Sequence[Companion]) -> list[Companion]:
        """Those of these kinds that there can be of the series."""

    def make(self, kind: Companion) -> CompanionFile:
        """The companion of a kind; raises where it cannot be made."""


MakerOf = Callable[[ClaimedDelivery], CompanionMaker]


@dataclass(frozen=True)
class CompanionSender:
    """Sends to one destination; `step` is called before each companion is made and before it is sent.

    What `step` raises ends the sending and is passed on.
    """

    sender: "Sender"
    maker_of: MakerOf
    step: Callable[[], None]
    should_stop: Callable[[], bool]

    def send(self, delivery: ClaimedDelivery, wanted: Sequence[Companion]) -> SendReport:
        """Send what is wanted. DONE with what the peer did not take as its reason, or why to try again.

        Raises what `step` raises, and nothing else.
        """
        remarks = []
        self.step()
        try:
            maker = self.maker_of(delivery)
            chosen = maker.choose(wanted)
        except Exception as error:  # the boundary: the images are there, and count
            return SendReport(Outcome.DONE, f"no companions: {_not_made('companions', delivery, error)}", ())
        if absent := [KINDS[kind].words for kind in wanted if kind not in chosen]:
            log.info(
                "delivery %d goes without %s: no doubt was kept for this result",
                delivery.id,
                " and ".join(absent),
                extra={"event": "companion_absent"},
            )
        for kind in chosen:
            report = self._send_one(delivery, kind, maker)
            words = KINDS[kind].words
            if report.outcome is Outcome.STOPPED:
                return report
            if report.outcome in _MAY_PASS and delivery.attempt < MAX_ATTEMPTS:
                return replace(report, reason=f"the images are there, the {words} is not: {report.reason}")
            if report.reason:
                remarks.append(f"{words if report.accepted else f'no {words}'}: {report.reason}")
        return SendReport(Outcome.DONE, "; ".join(remarks), ())

    def _send_one(self, delivery: ClaimedDelivery, kind: Companion, maker: CompanionMaker) -> SendReport:
        self.step()
        try:
            made = maker.make(kind)
        except Exception as error:  # the boundary, as above
            return SendReport(Outcome.PERMANENT, _not_made(KINDS[kind].words, delivery, error), ())
        self.step()  # what it raises is no error of the companion
        try:
            items = [(made.sop_instance_uid, made.path)]
            report = self.sender.send(items, should_stop=self.should_stop, sop_class=KINDS[kind].sop_class_uid)
        except Exception as error:
            return SendReport(Outcome.PERMANENT, _not_made(KINDS[kind].words, delivery, error), ())
        if report.accepted:
            log.info("delivery %d: the %s is there", delivery.id, KINDS[kind].words, extra={"event": "companion_sent"})
        elif report.outcome is not Outcome.STOPPED:
            log.warning(
                "delivery %d: the %s was not taken: %s",
                delivery.id,
                KINDS[kind].words,
                report.reason,
                extra={"event": "companion_not_taken"},
            )
        return report


def _not_made(words: str, delivery: ClaimedDelivery, error: Exception) -> str:
    log.error(
        "delivery %d: its %s could not be made",
        delivery.id,
        words,
        exc_info=error,
        extra={"event": "companion_not_made"},
    )
    return f"unexpected {type(error).__name__}; the courier's log has the details"

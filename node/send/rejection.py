"""Sends rejection notes (IHE RAD-TF, Imaging Object Change Management) about withdrawn results to who acts on them.

A note is made anew for each attempt, of what does not change, so it always has the same bytes and the same UID: an
attempt of which nobody knows how it ended does no harm when it is repeated.
"""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from config.settings import AnyDestination
from node.dicom.elements import write_part10
from node.network.no_association import Outcome
from node.network.requestor import Timeouts
from node.send.peer import sender_for
from node.send.scu import SendReport
from storage.errors import ObjectsUnavailable, StoreUnavailable
from storage.notes import DueNote, NoteStore

log = logging.getLogger(__name__)

KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"
_ATTEMPTS: Final = 60  # whose failure nobody understands

MakeNote = Callable[[DueNote, AnyDestination], Dataset]
Wait = Callable[[int, SendReport], float]
"""How long to wait, seconds, after so many attempts and this report."""


@dataclass(frozen=True)
class NoteSender:
    """Sends to the destinations that set `rejection_notes`; `name` is the courier's."""

    store: NoteStore
    make: MakeNote
    calling_ae: str
    name: str
    clock: Callable[[], datetime]
    timeouts: Timeouts = Timeouts()  # noqa: RUF009 - immutable

    def run_once(self, destination: AnyDestination, wait_s: Wait) -> SendReport | None:
        """Send one note that is due; None when none is."""
        note = self.store.claim(destination.name, self.clock())
        if note is None:
            return None
        report = self._send(note, destination)
        self._settle(note, report, wait_s)
        return report

    def _send(self, note: DueNote, destination: AnyDestination) -> SendReport:
        if not note.sop_instance_uids:
            why = "the history of the series was removed, so no rejection note can name its images"
            return SendReport(Outcome.PERMANENT, why, ())
        try:
            made = self.make(note, destination)
            uid = str(made.SOPInstanceUID)
            self.store.name(note.id, uid)
            with ExitStack() as stack:
                path = _in_memory(made, stack)
                sender = sender_for(destination, self.calling_ae, self.timeouts)
                return sender.send([(uid, path)], sop_class=KEY_OBJECT_SELECTION)
        except StoreUnavailable:
            raise
        except ObjectsUnavailable as error:
            return SendReport(Outcome.TRANSIENT, f"the note could not be made: {error}", ())
        except Exception as error:  # the boundary: one unusual series must not stop the others
            log.exception(
                "the rejection note about %s could not be made",
                note.case,
                extra={"event": "rejection_note_not_made", "delivery": note.delivery_id},
            )
            why = f"unexpected {type(error).__name__}; the courier's log has the details"
            return SendReport(Outcome.UNCLEAR, why, ())

    def _settle(self, note: DueNote, report: SendReport, wait_s: Wait) -> None:
        now, about = self.clock(), {"delivery": note.delivery_id, "destination": note.destination}
        if report.outcome is Outcome.DONE:
            self.store.sent(note, self.name, report.reason, now)
            log.info(
                "%s accepted the rejection note about %s (%d images)",
                note.destination,
                note.case,
                len(note.sop_instance_uids),
                extra={"event": "rejection_note_sent", **about},
            )
            return
        given_up = report.outcome is Outcome.UNCLEAR and note.attempt >= _ATTEMPTS
        if report.outcome is Outcome.PERMANENT or given_up:
            self.store.fail(note.id, self.name, report.reason, now)
            log.error(
                "%s did not take the rejection note about %s: %s",
                note.destination,
                note.case,
                report.reason,
                extra={"event": "rejection_note_failed", **about},
            )
            return
        pause_s = wait_s(note.attempt, report)
        self.store.postpone(note.id, report.reason, not_before=now + timedelta(seconds=pause_s), now=now)
        log.warning(
            "the rejection note about %s to %s is postponed by %.0f s: %s",
            note.case,
            note.destination,
            pause_s,
            report.reason,
            extra={"event": "rejection_note_postponed", **about},
        )


def _in_memory(note: Dataset, stack: ExitStack) -> Path:
    """The note as a file that is on no disk."""
    memory = stack.enter_context(os.fdopen(os.memfd_create("note"), "wb"))
    path = Path(f"/proc/self/fd/{memory.fileno()}")
    write_part10(note, path)
    return path

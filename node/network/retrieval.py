"""Asks a peer by C-MOVE (Study Root) to send a series to an AE title that it knows; it knows no store and no policy."""

from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from node.network.no_association import NoAssociation, Outcome, Peer
from node.network.requestor import Timeouts, associate
from node.network.status import SOME_FAILED, SUCCESS, UNKNOWN_DESTINATION

STUDY_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
MOVING: Final = Timeouts(dimse_s=300.0, answers_s=3600.0)
"""A peer may fetch a series from a tape first, and need not say anything before its end (PS3.4 C.4.2.3.1)."""


class UnknownDestination(NoAssociation):
    """The peer does not know the AE title that it shall send to; some say so, too, where nobody answers there."""


@dataclass(frozen=True)
class Moved:
    """What a peer counted at the end of a C-MOVE: sub-operations that ended with success or a warning, and others."""

    completed: int
    failed: int


def move_context() -> PresentationContext:
    """C-MOVE in the Study Root."""
    return build_context(STUDY_ROOT_MOVE, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def takes_moves(peer: Peer, calling_ae: str, timeouts: Timeouts) -> None:
    """Raise NoAssociation unless the peer accepts an association for C-MOVE; nothing is asked."""
    with associate(peer, calling_ae, [move_context()], timeouts):
        return


def move_series(
    peer: Peer, calling_ae: str, destination_ae: str, study_uid: str, series_uid: str, *, timeouts: Timeouts = MOVING
) -> Moved:
    """Let the peer send a series to `destination_ae`; returns when it says that it has ended.

    What it counts is its word only. Raises UnknownDestination, NoAssociation where it does not answer or sends nothing.
    """
    asked = Dataset()
    asked.QueryRetrieveLevel = "SERIES"
    asked.StudyInstanceUID, asked.SeriesInstanceUID = study_uid, series_uid
    last = Dataset()
    with associate(peer, calling_ae, [move_context()], timeouts) as association:
        for answer, _ in association.send_c_move(asked, destination_ae, STUDY_ROOT_MOVE):
            last = answer
    code = int(last.Status)
    if code == UNKNOWN_DESTINATION:
        why = f"{peer.ae_title} does not know {destination_ae} as a move destination, or cannot reach it (status A801)"
        raise UnknownDestination(Outcome.MISCONFIGURED, why)
    if code not in (SUCCESS, SOME_FAILED):
        hint = f"does it know {destination_ae}, and reach it?"
        raise NoAssociation(Outcome.TRANSIENT, f"it ended the C-MOVE with status {code:04X}; {hint}")
    return Moved(_count(last, "Completed") + _count(last, "Warning"), _count(last, "Failed"))


def _count(answer: Dataset, which: str) -> int:
    """A number of sub-operations, which a peer may leave out of its last response."""
    value: Any = answer.get(f"NumberOf{which}Suboperations")
    return value if isinstance(value, int) else 0

"""What the performed procedure steps of scanners say of a series: the one signal that a scanner is finished with it.

A step counts for the series that its own peer sends. Where a RIS or a broker forwards steps, its entry in
`scp.allowed_peers` names the scanners whose steps it forwards (`steps_of`); nobody else's steps say anything of a
series. A step can make a series wait, hold it, or end the waiting; it never makes a series of slices with a gap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from config.settings import PeerSettings
from config.syntax import COMPLETED, DISCONTINUED, IN_PROGRESS, WRONG_WORKLIST_ENTRY
from storage.performed_steps import PerformedStepStore, StepView
from storage.series import OpenSeries


@dataclass(frozen=True)
class StepWord:
    """What the steps say of one series.

    is_awaited: a step that may yet list it is IN PROGRESS. listed: how many images completed steps list of it. missing:
    those of them that did not arrive. is_whole: exactly the listed images arrived. stopped: why a person has to look,
    where the scanner discontinued the step; "" else.
    """

    is_awaited: bool = False
    listed: int = 0
    missing: tuple[str, ...] = ()
    is_whole: bool = False
    stopped: str = ""


NOTHING: Final = StepWord()


class StepPeers:
    """Whose steps count for whose series, by AE titles."""

    def __init__(self, peers: Iterable[PeerSettings]) -> None:
        self._forwards = [(peer.ae_title, frozenset(peer.steps_of)) for peer in peers if peer.steps_of]

    def scanners_of(self, reporting: str) -> frozenset[str]:
        """The AE titles for whose series the steps count that `reporting` sends."""
        forwarded = [scanners for ae_title, scanners in self._forwards if ae_title == reporting]
        return frozenset({reporting}).union(*forwarded)

    def counting(self, steps: Iterable[StepView], owner: str, certificate: str) -> list[StepView]:
        """Those of the steps that count for a series of this owner; another certificate makes a stranger of a peer."""
        return [step for step in steps if self._counts(step, owner, certificate)]

    def _counts(self, step: StepView, owner: str, certificate: str) -> bool:
        if step.calling_ae == owner:
            return not (step.certificate and certificate) or step.certificate == certificate
        return owner in self.scanners_of(step.calling_ae)


class PerformedSteps:
    """Asks the store for the steps of a series and judges them."""

    def __init__(self, store: PerformedStepStore, peers: StepPeers) -> None:
        self._store, self._peers = store, peers

    def of(self, series: OpenSeries) -> StepWord:
        """What is known at this moment."""
        steps = self._store.of_series(series.study_uid, series.series_uid)
        counting = self._peers.counting(steps, series.calling_ae, series.certificate)
        return judge_steps(counting, self._store.arrived(series.id)) if counting else NOTHING


def judge_steps(steps: Sequence[StepView], arrived: frozenset[str]) -> StepWord:
    """What steps say of a series of which these images arrived. A completed step that lists the series has the word."""
    completed = [step.listed for step in steps if step.state == COMPLETED and step.listed]
    listed = frozenset[str]().union(*completed)
    if listed:
        missing = tuple(sorted(listed - arrived))
        return StepWord(listed=len(listed), missing=missing, is_whole=listed == arrived)
    stopped = [step for step in steps if step.state == DISCONTINUED and _stops(step, steps)]
    is_awaited = any(step.state == IN_PROGRESS for step in steps)
    return StepWord(is_awaited, stopped=_why_stopped(stopped) if stopped else "")


def _stops(step: StepView, steps: Sequence[StepView]) -> bool:
    """Whether a discontinued step is that of the series: it lists it, or nothing, and no other step was completed."""
    if step.listed is not None:
        return True
    return not step.names_series and all(other.state == DISCONTINUED for other in steps)


def _why_stopped(steps: Sequence[StepView]) -> str:
    if any(step.discontinued_for == WRONG_WORKLIST_ENTRY for step in steps):
        why = ", because a wrong worklist entry was selected: the images may be another patient's"
    else:
        why = ""
    return (
        f"the scanner discontinued the performed step of this series{why}; `syncect jobs complete` lets it be "
        "translated all the same, `syncect jobs cancel` gives it up"
    )

"""Asks a destination, before the first image is sent, whose its PatientID is there.

A planning system puts images under the patient whose PatientID they carry, whatever name stands in them. Where it knows
that PatientID as somebody else, the images would lie in a stranger's record, so nothing is sent before a person looked.
"""

from dataclasses import dataclass
from typing import Final

from config.settings import AnyDestination
from node.dicom.profiles.read import read_values
from node.dicom.same_person import COMPARED, differing
from node.errors import UnreadableInstance
from node.network.no_association import NoAssociation, Outcome
from node.network.requestor import Timeouts
from node.send.peer import find_patients
from node.send.scu import SendReport
from storage.outbox import ClaimedDelivery
from storage.spool import Spool

_LOOK_THERE: Final = "compare the patient there with the scan"


@dataclass(frozen=True)
class IdentityCheck:
    """Compares the patient of a result with whom the destination has under the PatientID (`identity_check`)."""

    spool: Spool
    calling_ae: str
    timeouts: Timeouts

    def why_not(self, delivery: ClaimedDelivery, destination: AnyDestination) -> SendReport | None:
        """Why nothing is sent: it is HELD, or the destination did not answer; None where nothing speaks against it.

        None also where the destination does not ask for it, a person released the delivery, or some of it was sent.
        The reason names attributes and no value of them.
        """
        if not destination.identity_check or delivery.is_released or len(delivery.missing) < delivery.total:
            return None
        ours = self._patient_of(delivery)
        if ours is None:
            return None
        patient_id = ours["PatientID"]
        if not patient_id or "\\" in patient_id:
            kind = "no PatientID" if not patient_id else "several values of PatientID"
            return _held(f"the series has {kind}, so {destination.name} cannot be asked whose it is")
        try:
            known = find_patients(destination, self.calling_ae, patient_id, self.timeouts)
        except NoAssociation as failure:
            return _unanswered(destination, failure)
        others = [found for theirs in known if (found := differing(ours, theirs))]
        if not others:
            return None
        keywords = " and ".join(keyword for keyword in COMPARED if any(keyword in found for found in others))
        return _held(
            f"{destination.name} knows the PatientID with another {keywords} (in {len(others)} of {len(known)} "
            f"studies): {_LOOK_THERE}"
        )

    def _patient_of(self, delivery: ClaimedDelivery) -> dict[str, str] | None:
        """What stands in the first file that can be read; None without one, which the sending finds by itself."""
        for instance in delivery.missing:
            try:
                values = read_values(self.spool.path(instance.file_name), ("PatientID", *COMPARED))
            except UnreadableInstance:
                continue
            return {keyword: "\\".join(values.get(keyword, ())) for keyword in ("PatientID", *COMPARED)}
        return None


def _held(reason: str) -> SendReport:
    return SendReport(Outcome.HELD, reason, ())


def _unanswered(destination: AnyDestination, failure: NoAssociation) -> SendReport:
    """A destination that takes no queries is one that somebody has to set up: the series waits meanwhile."""
    outcome = Outcome.MISCONFIGURED if failure.outcome is Outcome.PERMANENT else failure.outcome
    return SendReport(outcome, f"{destination.name} did not say whose the PatientID is there: {failure.reason}", ())

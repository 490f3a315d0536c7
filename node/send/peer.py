"""Chooses how a destination is sent to and asked: by associations, or by DICOMweb.

DICOMweb is an extra package, which is loaded for those who have such a destination.
"""

from typing import TYPE_CHECKING

from config.destinations import DicomwebSettings
from config.settings import AnyDestination
from node.network import query
from node.network.requestor import Timeouts
from node.send.scu import StorageScu

if TYPE_CHECKING:
    from node.send.stow import StowSender

    Sender = StorageScu | StowSender
    """What sends to a destination, and asks it whether it is there."""


def sender_for(
    destination: AnyDestination,
    calling_ae: str,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
) -> "Sender":
    """What sends to a destination; calling_ae: by which name, where it is reached by associations."""
    if isinstance(destination, DicomwebSettings):
        from node.send.stow import StowSender  # noqa: PLC0415

        return StowSender(destination, timeouts)
    return StorageScu(destination, calling_ae, timeouts)


def find_instances(
    destination: AnyDestination,
    calling_ae: str,
    study_uid: str,
    series_uid: str,
    timeouts: Timeouts = Timeouts(),  # noqa: B008
) -> frozenset[str]:
    """SOP Instance UIDs that the destination lists for a series. Raises NoAssociation where it does not answer."""
    if isinstance(destination, DicomwebSettings):
        from node.network import qido  # noqa: PLC0415

        return qido.find_instances(destination, study_uid, series_uid, timeouts)
    return query.find_instances(destination, calling_ae, study_uid, series_uid, timeouts)


def find_patients(
    destination: AnyDestination, calling_ae: str, patient_id: str, timeouts: Timeouts
) -> list[dict[str, str]]:
    """What the destination has of the patient of a PatientID, as `query.find_patients`. Raises NoAssociation."""
    if isinstance(destination, DicomwebSettings):
        from node.network import qido  # noqa: PLC0415

        return qido.find_patients(destination, patient_id, timeouts)
    return query.find_patients(destination, calling_ae, patient_id, timeouts)

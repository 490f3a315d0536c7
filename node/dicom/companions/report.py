"""What the gates measured, and what a reviewer decided, as a measurement report (PS3.16 TID 1500, Enhanced SR)."""

import math
from collections.abc import Mapping
from typing import Any, Final

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from node.dicom.companions.codes import GATES, HU, RELEASED, REVIEW, measured, own_scheme
from node.dicom.companions.series import Frame
from node.dicom.constants import PRODUCT_NAME
from node.dicom.elements import ascii_text

_NO_UNIT: Final = Code("1", "UCUM", "no units")
# The key of a figure ends with its unit.
_UNITS: Final = {
    "hu": HU,
    "ml": Code("mL", "UCUM", "milliliter"),
    "mm": Code("mm", "UCUM", "millimeter"),
    "s": Code("s", "UCUM", "second"),
}
_COMPUTED_TOMOGRAPHY: Final = Code("77477000", "SCT", "Computed tomography")


def build_report(frame: Frame, measurements: Mapping[str, Any], decision: str) -> Dataset:
    """The report on a derived series, by the device.

    measurements: figures by their keys, whose last word is the unit; what is no finite number is left out. decision: of
    the person who released the series against a doubt, in one sentence without patient data; "" where nobody had to.
    """
    built = EnhancedSR(
        evidence=frame.series.evidence,
        content=MeasurementReport(
            observation_context=ObservationContext(observer_device_context=_device(frame)),
            procedure_reported=_COMPUTED_TOMOGRAPHY,
            imaging_measurements=[_group(frame, measurements, decision)],
            title=codes.DCM.ImagingMeasurementReport,
        )[0],
        is_complete=True,
        is_final=True,
        coding_schemes=own_scheme(),
        **frame.arguments,
    )
    return frame.finished(built)


def _device(frame: Frame) -> ObserverContext:
    first, arguments = frame.series.slices[0], frame.arguments
    installation = ascii_text(first, "InstanceCreatorUID").rstrip("\0 ")
    attributes = DeviceObserverIdentifyingAttributes(
        uid=installation or frame.uids.make("device", PRODUCT_NAME, arguments["device_serial_number"]),
        name=PRODUCT_NAME,
        manufacturer_name=PRODUCT_NAME,
        model_name=PRODUCT_NAME,
        serial_number=arguments["device_serial_number"],
    )
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)


def _group(frame: Frame, measurements: Mapping[str, Any], decision: str) -> MeasurementsAndQualitativeEvaluations:
    name, version = frame.series.model
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=frame.uids.make("companion tracking", frame.series_uid), identifier="gates"
        ),
        finding_type=GATES,
        algorithm_id=AlgorithmIdentification(name=name, version=version, family=codes.DCM.ArtificialIntelligence),
        measurements=[
            Measurement(name=measured(key), value=float(value), unit=_unit(key))
            for key, value in sorted(measurements.items())
            if isinstance(value, (int, float)) and math.isfinite(value)
        ],
        qualitative_evaluations=[QualitativeEvaluation(name=REVIEW, value=RELEASED)] if decision else None,
    )
    if decision:
        words = TextContentItem(
            name=CodedConcept.from_code(codes.DCM.Comment),
            value=decision,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        group[0].ContentSequence.append(words)
    return group


def _unit(key: str) -> Code:
    return _UNITS.get(key.rpartition("_")[2], _NO_UNIT)

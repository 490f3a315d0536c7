"""What is read of the data sets of a performed procedure step, and which of them are refused with which status."""

from typing import Any

import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from node.dicom.constants import CT_IMAGE_STORAGE
from node.network import procedure_step
from node.network.procedure_step import StepData, UnreadableStep, read_changes, read_created

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def a(**values: Any) -> Dataset:
    made = Dataset()
    with disable_value_validation():
        for keyword, value in values.items():
            setattr(made, keyword, value)
    return made


def image(uid: str, sop_class: str | None = CT_IMAGE_STORAGE) -> Dataset:
    return a(ReferencedSOPInstanceUID=uid, **({"ReferencedSOPClassUID": sop_class} if sop_class else {}))


def series(uid: str, *images: Dataset, **more: Any) -> Dataset:
    return a(SeriesInstanceUID=uid, ReferencedImageSequence=list(images), **more)


def test_a_step_begins_in_progress_and_names_its_study() -> None:
    told = a(
        PerformedProcedureStepStatus="IN PROGRESS",
        ScheduledStepAttributesSequence=[a(StudyInstanceUID="1.2"), a(StudyInstanceUID="1.3")],
        PerformedSeriesSequence=[],
    )
    assert read_created(told) == StepData("IN PROGRESS", "1.2", {})


def test_a_scanner_may_leave_out_what_is_not_needed_here() -> None:
    assert read_created(a(PerformedProcedureStepStatus="IN PROGRESS")) == StepData("IN PROGRESS", "", None)


def test_the_images_of_a_series_are_those_that_the_receiver_keeps() -> None:
    told = a(
        PerformedProcedureStepStatus="COMPLETED",
        PerformedSeriesSequence=[
            series("1.2.3", image("1.1"), image("1.2", SECONDARY_CAPTURE), image("1.3", None)),
            series("1.2.4"),
            series("1.2.3", image("1.4"), ReferencedNonImageCompositeSOPInstanceSequence=[image("1.5"), image("1.1")]),
        ],
    )
    assert read_changes(told) == StepData("COMPLETED", "", {"1.2.3": ("1.1", "1.3", "1.4", "1.5"), "1.2.4": ()})


def test_the_one_reason_that_changes_what_is_done_is_read() -> None:
    def reason(scheme: str, value: str) -> str:
        code = a(CodeValue=value, CodingSchemeDesignator=scheme)
        told = a(PerformedProcedureStepDiscontinuationReasonCodeSequence=[code])
        told.PerformedProcedureStepStatus = "DISCONTINUED"
        return read_changes(told).discontinued_for

    assert [reason("DCM", "110514"), reason("DCM", "110501"), reason("99X", "110514")] == ["110514", "", ""]


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (a(), 0x0120),
        (a(PerformedProcedureStepStatus=""), 0x0121),
        (a(PerformedProcedureStepStatus="COMPLETED"), 0x0106),
        (a(PerformedProcedureStepStatus="RUNNING"), 0x0106),
        (a(PerformedProcedureStepStatus=["IN PROGRESS", "COMPLETED"]), 0x0106),
        (
            a(PerformedProcedureStepStatus="IN PROGRESS", ScheduledStepAttributesSequence=[a(StudyInstanceUID="x")]),
            0x0106,
        ),
        (a(PerformedProcedureStepStatus="IN PROGRESS", PerformedSeriesSequence=[a()]), 0x0106),
        (a(PerformedProcedureStepStatus="IN PROGRESS", PerformedSeriesSequence=[series("1.2", a())]), 0x0106),
    ],
)
def test_a_step_that_cannot_be_used_is_refused(told: Dataset, code: int) -> None:
    with pytest.raises(UnreadableStep) as caught:
        read_created(told)
    assert caught.value.code == code


def test_a_step_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedure_step, "MAX_REFERENCES", 3)
    monkeypatch.setattr(procedure_step, "MAX_SERIES", 2)
    full = [series("1.2", image("1.1"), image("1.2")), series("1.3", image("1.3"))]
    assert read_changes(a(PerformedSeriesSequence=full)).series
    for beyond in ([*full, series("1.4")], [*full[:1], series("1.3", image("1.3"), image("1.4"))]):
        with pytest.raises(UnreadableStep) as caught:
            read_changes(a(PerformedSeriesSequence=beyond))
        assert caught.value.code == 0x0213

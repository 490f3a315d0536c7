"""One study has one patient: a result that would bring a second one into it waits for a person."""

import pytest

from storage.series import Arrival, SeriesFacts
from tests.contract.store_bench import Bench, at

WRONG = {"PatientID": "123434", "PatientName": "JONES^ANN", "PatientBirthDate": "19600102", "PatientSex": "F"}
RIGHT = {"PatientID": "RIGHT-1", "PatientName": "Right^Patient", "PatientBirthDate": "19600102", "PatientSex": "F"}


@pytest.fixture
def bench(database):
    return Bench(database)


def resend(bench, before, after, *, accepted=3):
    """A series of a patient is delivered to that extent, comes again for another; the doubt of its new job."""
    bench.receive()
    bench.queue("k", patient=before)
    bench.produce()
    if accepted is not None:
        bench.send(None if accepted == 3 else accepted)
    bench.receive(content="b", now=at(40))
    bench.queue("k2", now=at(60), patient=after)
    return bench.overview.case("1-2").doubt


def other_series(bench, patient, *, study="1.2", series="1.2.4", now=100):
    """A series of that study comes; the doubt of its job."""
    association = bench.series.open_association("receiver", "CTSIM", "h", at(now))
    uids = (study, series, f"{series}.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    bench.series.record(association, "CTSIM", Arrival(*uids, series.ljust(64, "0"), f"r/{series}", 10), at(now))
    bench.series.close_association(association, released=True, now=at(now))
    bench.queue(series, now=at(now + 10), patient=patient)
    return bench.overview.cases(series_uid=series)[0].doubt


def test_a_corrected_patient_after_delivery_is_a_doubt_with_both_identities_masked(bench):
    doubt = resend(bench, WRONG, RIGHT)
    assert doubt == (
        "the patient changed after a result was delivered: ...34 (J...) -> ...-1 (R...) (PatientID, PatientName)"
    )
    assert bench.states() == {"1-2": "QUEUED", "1": "SUPERSEDED"}
    assert bench.overview.case("1").leftovers == ("tps",)
    assert bench.jobs.claim("w", 60, at(61)).doubt == doubt


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", "123435"), ("PatientBirthDate", "19610102"), ("PatientSex", "M"), ("PatientName", "JONES^ANNE")],
)
def test_each_value_that_differs_is_named_and_not_shown(bench, keyword, value):
    doubt = resend(bench, WRONG, WRONG | {keyword: value})
    assert doubt.endswith(f"({keyword})")
    assert value not in doubt


def test_another_issuer_is_another_patient(bench):
    before, after = (WRONG | {"IssuerOfPatientID": issuer} for issuer in ("NORTH", "SOUTH"))
    assert "IssuerOfPatientID" in resend(bench, before, after)


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_delivery_in_the_middle_counts_as_delivered(bench, accepted):
    assert "the patient changed" in resend(bench, WRONG, RIGHT, accepted=accepted)


def test_before_any_delivery_a_corrected_patient_just_supersedes(bench):
    assert resend(bench, WRONG, RIGHT, accepted=None) == ""
    assert bench.states() == {"1-2": "QUEUED", "1": "SUPERSEDED"}


@pytest.mark.parametrize(
    "after",
    [
        WRONG,
        WRONG | {"PatientName": "Jones^Ann"},
        WRONG | {"PatientName": "JONES^ANN=山田^太郎"},
        WRONG | {"PatientSex": "", "IssuerOfPatientID": "NORTH"},
        {key: value for key, value in WRONG.items() if key != "PatientBirthDate"},
    ],
)
def test_what_only_one_of_two_identities_says_contradicts_nothing(bench, after):
    assert resend(bench, WRONG, after) == ""


def test_ideograms_that_differ_are_another_patient(bench):
    before, after = (WRONG | {"PatientName": f"YAMADA^TAROU={name}"} for name in ("山田^太郎", "山田^太朗"))
    assert "PatientName" in resend(bench, before, after)


def test_an_id_that_comes_or_goes_is_another_patient(bench):
    doubt = resend(bench, WRONG | {"PatientID": ""}, WRONG)
    assert doubt.endswith("delivered: no ID (J...) -> ...34 (J...) (PatientID)")


def test_a_short_id_is_not_shown_at_all(bench):
    doubt = resend(bench, WRONG | {"PatientID": "1234"}, RIGHT)
    assert "1234" not in doubt
    assert "34" not in doubt


def test_a_job_of_an_older_version_of_the_node_knows_no_patient(bench):
    assert resend(bench, {}, RIGHT) == ""


def test_after_the_wrong_result_was_deleted_the_next_one_goes_out(bench):
    resend(bench, WRONG, RIGHT)
    bench.jobs.acknowledge(1, "operator x", "deleted", at(70))
    bench.receive(content="c", now=at(80))
    bench.queue("k3", now=at(100), patient=RIGHT)
    assert bench.overview.case("1-3").doubt == ""


def test_the_doubt_of_the_request_comes_first(bench):
    bench.receive()
    bench.queue("k", patient=WRONG)
    bench.produce()
    bench.send()
    bench.receive(content="b", now=at(40))
    bench.queue("k2", now=at(60), patient=RIGHT, doubt="no patient ID")
    assert bench.overview.case("1-2").doubt.startswith("no patient ID; the patient changed")


# -- one study, two patients -----------------------------------------------------------------------------------


def test_a_second_patient_in_a_study_is_a_doubt_and_the_first_goes_on(bench):
    bench.receive()
    bench.queue("k", patient=WRONG)
    doubt = other_series(bench, RIGHT)
    assert doubt == (
        "the study has series of two patients: ...34 (J...) in series 1 and ...-1 (R...) in this one "
        "(PatientID, PatientName)"
    )
    assert bench.overview.case("1").doubt == ""


@pytest.mark.parametrize(("patient", "study"), [(WRONG, "1.2"), (RIGHT, "1.9"), (WRONG | {"PatientSex": "O"}, "1.2")])
def test_two_series_of_a_patient_or_of_two_studies_are_no_doubt(bench, patient, study):
    bench.receive()
    bench.queue("k", patient=WRONG)
    assert other_series(bench, patient, study=study) == ""


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "9"),
        ("IssuerOfPatientID", "SOUTH"),
        ("PatientName", "SMITH^ANN"),
        ("PatientBirthDate", "19610102"),
    ],
)
def test_each_value_that_a_planning_system_files_by_makes_a_second_patient(bench, keyword, value):
    bench.receive()
    bench.queue("k", patient=WRONG | {"IssuerOfPatientID": "NORTH"})
    assert f"({keyword})" in other_series(bench, WRONG | {"IssuerOfPatientID": "NORTH", keyword: value})


def test_a_cancelled_result_of_another_patient_counts_while_it_stands_at_a_destination(bench):
    bench.receive()
    bench.queue("k", patient=WRONG)
    bench.produce()
    bench.send()
    bench.jobs.cancel(1, "operator x", "wrong patient", at(30))
    assert "two patients" in other_series(bench, RIGHT)
    bench.jobs.acknowledge(1, "operator x", "deleted", at(120))
    assert "two patients" in other_series(bench, WRONG, series="1.2.5", now=130), "series 2 is live"
    bench.jobs.cancel(2, "operator x", "", at(145))
    bench.jobs.cancel(3, "operator x", "", at(146))
    assert other_series(bench, RIGHT, series="1.2.6", now=150) == ""


def test_a_whole_study_is_corrected_series_by_series(bench):
    """Each corrected series waits for a person: results of the wrong patient stand in the study."""
    bench.receive()
    bench.queue("k", patient=WRONG)
    bench.produce()
    bench.send()
    other_series(bench, WRONG)
    bench.receive(content="b", now=at(150))
    bench.queue("k2", now=at(170), patient=RIGHT)
    doubt = bench.overview.case("1-2").doubt
    assert "the patient changed" in doubt
    assert "two patients" in doubt


def skipped(bench, patient_id):
    """An enhanced series of the same study, which is left alone."""
    association = bench.series.open_association("receiver", "CTSIM", "h", at(0))
    uids = ("1.2", "1.2.9", "1.2.9.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    bench.series.record(association, "CTSIM", Arrival(*uids, "9" * 64, "r/9", 10), at(0))
    bench.series.close_association(association, released=True, now=at(0))
    (series,) = bench.series.undecided(at(30), 5.0)
    assert bench.series.skip(series, SeriesFacts("Thorax KM", patient_id), "enhanced", at(30))


def test_a_skipped_series_of_another_patient_makes_two_patients_in_the_study(bench):
    skipped(bench, "77")
    doubt = other_series(bench, RIGHT)
    assert doubt == "the study has series of two patients: ... in series 1 and ...-1 in this one (PatientID)"


@pytest.mark.parametrize("patient_id", ["", RIGHT["PatientID"]])
def test_a_skipped_series_of_the_same_patient_or_of_nobody_is_no_doubt(bench, patient_id):
    skipped(bench, patient_id)
    assert other_series(bench, RIGHT) == ""

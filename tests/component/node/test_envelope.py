"""judge_envelope: is a scan one that the bundle was trained on?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Envelope, find_bundle, read_card
from models.noise import measure_noise_hu
from node.dicom.volume import read_volume
from node.translate.envelope import age_years, judge_envelope
from tests.builders import body_hu, make_series

THORAX = Envelope(
    pixel_spacing_mm=(0.8, 1.17),
    slice_spacing_mm=(3.0, 5.0),
    noise_hu=(4.0, 23.0),
    age_years=(18.0, 120.0),
    body_parts=("", "CHEST", "THORAX"),
)


def reason_for(folder: Path, envelope: Envelope = THORAX, **series: Any) -> str | None:
    series.setdefault("hu", body_hu(4, 96, 96))
    return judge_envelope(read_volume(make_series(folder, **series)), envelope).reason


def test_inside_there_is_no_reason_and_the_noise_is_measured(tmp_path: Path) -> None:
    volume = read_volume(make_series(tmp_path, hu=body_hu(4, 96, 96), attributes={"BodyPartExamined": "CHEST"}))
    verdict = judge_envelope(volume, THORAX)
    assert (verdict.reason, verdict.outside) == (None, ())
    assert verdict.measurements["noise_hu"] == pytest.approx(8.0, rel=0.15)  # what body_hu puts in


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (
            {"spacing_mm": (3.0, 0.646484375, 0.646484375)},
            "pixel spacing 0.646 mm lies outside what the model was trained on (0.80 to 1.17 mm)",
        ),
        (
            {"spacing_mm": (8.0, 1.0, 1.0)},
            "slice spacing 8.00 mm lies outside what the model was trained on (3.00 to 5",
        ),
        ({"spacing_mm": (3.0, 1.0, 1.25)}, "pixel spacing 1.250 mm"),
        ({"attributes": {"BodyPartExamined": "HEAD"}}, "body part HEAD lies outside"),
        ({"raw": {"BodyPartExamined": b"pelvis "}}, "body part PELVIS lies outside"),
        ({"attributes": {"BodyPartExamined": "PHANTOM"}}, "body part that is no term of DICOM lies outside"),
        (
            {"attributes": {"PatientAge": "004M"}},
            "age 0 years lies outside what the model was trained on (18 to 120 years)",
        ),
        ({"attributes": {"PatientAge": "012Y"}}, "age 12 years"),
        ({"attributes": {"PatientSpeciesDescription": "Canis lupus familiaris"}}, "names an animal"),
        ({"attributes": {"QualityControlSubject": "YES"}}, "QualityControlSubject is YES"),
        ({"attributes": {"PatientBreedDescription": "Beagle"}}, "PatientBreedDescription is filled"),
        ({"attributes": {"PatientSexNeutered": "ALTERED"}}, "PatientSexNeutered is filled"),
        ({"raw": {"PatientAge": b"12"}}, "age 12 years"),
        ({"raw": {"PatientAge": b"4J"}}, "age 4 years"),
        ({"attributes": {"PatientAge": "000Y"}}, "age 0 years"),
        (
            {"attributes": {"PatientAge": "060Y", "PatientBirthDate": "20200101", "StudyDate": "20260101"}},
            "age 6 years",
        ),
        (
            {"absent": ["BodyPartExamined"], "attributes": {"SeriesDescription": "PROSTATE 2.5mm"}},
            "BodyPartExamined is absent and SeriesDescription names PROSTATE; the model was trained on CHEST, THORAX",
        ),
        (
            {
                "raw": {"BodyPartExamined": b""},
                "attributes": {"SeriesDescription": "3.0 Br38", "ProtocolName": "RT_Kopf"},
            },
            "ProtocolName names KOPF",
        ),
    ],
)
def test_what_lies_outside_is_told_with_both_numbers(tmp_path: Path, series: dict[str, Any], words: str) -> None:
    assert words in (reason_for(tmp_path, **series) or "")


@pytest.mark.parametrize(
    "series",
    [
        {"raw": {"BodyPartExamined": b"thorax"}},
        {"absent": ["BodyPartExamined"]},
        {"attributes": {"PatientAge": "018Y"}},
        {"raw": {"PatientAge": b"old "}},
        {"attributes": {"PatientSpeciesDescription": "Homo sapiens"}},
        {"attributes": {"PatientAge": "045Y", "PatientBirthDate": "19000101", "StudyDate": "20260101"}},
        {"absent": ["BodyPartExamined"], "attributes": {"SeriesDescription": "Thorax-Abdomen 3.0"}},
        {"absent": ["BodyPartExamined"], "attributes": {"SeriesDescription": "Mamma li", "ProtocolName": "RT Becken"}},
        {"attributes": {"BodyPartExamined": "CHEST", "SeriesDescription": "Hals C"}},
        {"spacing_mm": (5.0, 0.7969, 0.7969)},
        {"spacing_mm": (3.0, 1.171875, 1.171875)},
    ],
)
def test_what_lies_inside_is_not_told(tmp_path: Path, series: dict[str, Any]) -> None:
    assert reason_for(tmp_path, **series) is None


@pytest.mark.parametrize("sd_hu", [1.0, 40.0])
def test_noise_outside_is_told(tmp_path: Path, sd_hu: float) -> None:
    hu = body_hu(4, 96, 96)
    soft = np.abs(hu - 40) < 45
    hu[soft] = np.random.default_rng(1).normal(40, sd_hu, int(soft.sum()))
    reason = reason_for(tmp_path, hu=hu, envelope=replace(THORAX, noise_hu=(4.0, 23.0)))
    assert "noise in soft tissue" in (reason or "")
    assert "(4.0 to 23.0 HU)" in (reason or "")


def test_all_that_lies_outside_is_one_reason(tmp_path: Path) -> None:
    values = {"BodyPartExamined": "HEAD", "PatientAge": "004M"}
    reason = reason_for(tmp_path, spacing_mm=(8.0, 0.5, 0.5), attributes=values) or ""
    assert [word in reason for word in ("body part", "pixel spacing", "slice spacing", "age")] == [True] * 4
    assert reason.count("; ") == 3


def test_what_the_card_does_not_say_is_not_judged(tmp_path: Path) -> None:
    values = {"BodyPartExamined": "HEAD", "PatientAge": "004M"}
    wide = Envelope(pixel_spacing_mm=(0.1, 5.0), slice_spacing_mm=(0.1, 10.0))
    assert reason_for(tmp_path, envelope=wide, attributes=values) is None


def test_a_typed_body_part_is_not_repeated_as_it_came(tmp_path: Path) -> None:
    reason = reason_for(tmp_path, raw={"BodyPartExamined": b"Head <b>;--\x07 of somebody with a long name"}) or ""
    assert "body part that is no term of DICOM lies outside" in reason
    assert "HEAD" not in reason
    assert "<" not in reason
    assert "NAME" not in reason


@pytest.mark.parametrize(
    ("values", "years"),
    [
        ({"PatientAge": "012Y"}, 12.0),
        ({"PatientAge": "216M"}, 18.0),
        ({"PatientAge": "010W"}, 0.19),
        ({"PatientAge": "005D"}, 0.01),
        ({"PatientAge": "", "PatientBirthDate": "19700101", "StudyDate": "20200101"}, 50.0),
        ({"PatientAge": "", "PatientBirthDate": "20150601", "StudyDate": "20200101"}, 4.58),
        ({"PatientAge": "", "PatientBirthDate": "", "StudyDate": "20200101"}, None),
        ({"PatientAge": "", "PatientBirthDate": "20300101", "StudyDate": "20200101"}, None),
        ({"PatientAge": "", "PatientBirthDate": "1970", "StudyDate": "20200101"}, None),
        ({"PatientAge": "", "PatientBirthDate": "1970.01.01", "StudyDate": "20200101"}, 50.0),
    ],
)
def test_age(tmp_path: Path, values: dict[str, str], years: float | None) -> None:
    header = read_volume(
        make_series(tmp_path, slices=2, raw={key: value.encode() for key, value in values.items()})
    ).headers[0]
    assert age_years(header) == (None if years is None else pytest.approx(years, abs=0.01))


def test_noise_needs_tissue() -> None:
    assert measure_noise_hu(np.full((2, 64, 64), -1000, np.float32)) is None
    assert measure_noise_hu(np.zeros((2, 64, 64), np.float32)) is None  # painted water


@pytest.mark.parametrize("sd_hu", [5.0, 12.0, 20.0])
def test_noise_is_found_beside_organs(sd_hu: float) -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    plane = np.where(x**2 + y**2 < 0.8, 50.0, -1000.0)
    plane[(x + 0.4) ** 2 + y**2 < 0.06] = -850.0
    plane[x**2 + (y - 0.5) ** 2 < 0.03] = 300.0
    plane[(x - 0.5) ** 2 + y**2 < 0.05] = -100.0
    hu = (plane + rng.normal(0, sd_hu, (3, 256, 256))).astype(np.float32)
    assert measure_noise_hu(hu) == pytest.approx(sd_hu, rel=0.12)


def test_the_real_scans_and_the_shipped_bundle(real_data: Path) -> None:
    """Philips (0.842 mm, 5 mm) lies inside; Siemens (0.646 mm, 8 mm) does not, for these two reasons alone."""
    envelope = read_card(find_bundle("demo")).envelope
    verdicts = {
        name: judge_envelope(read_volume(sorted((real_data / "ct" / name).iterdir())), envelope)
        for name in ("philips_chest_ncct", "siemens_chest_ncct")
    }
    assert verdicts["philips_chest_ncct"].reason is None
    assert verdicts["siemens_chest_ncct"].outside == ("pixel spacing",)
    assert "0.646 mm" in (verdicts["siemens_chest_ncct"].reason or "")
    noise_hu = [round(verdict.measurements["noise_hu"]) for verdict in verdicts.values()]
    assert noise_hu == [8, 11]

"""The profiles of planning systems: what each rule refuses, what it lets pass, and what a refusal says."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from config.settings import DestinationSettings
from node.dicom.profiles.checks import CHECKS
from node.dicom.profiles.load import broken_rules, load_profile, profile_names
from node.dicom.profiles.read import read_values
from tests.derived import derived_series

KEYWORDS = tuple(dict.fromkeys(keyword for name in profile_names() for keyword in load_profile(name).keywords))


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[str, ...]]]:
    """Headers of a derived series with square pixels, as the node writes it."""
    made = derived_series(tmp_path_factory.mktemp("made"), spacing_mm=(2.5, 0.7, 0.7))
    return [dict(read_values(path, KEYWORDS)) for path in sorted(made.folder.glob("*.dcm"))]


def broken(name: str, headers: list[dict[str, tuple[str, ...]]]) -> dict[str, str]:
    return {breach.rule.code: breach.found for breach in broken_rules(load_profile(name), headers)}


def changed(headers: list[Any], slices: int | None = None, **values: tuple[str, ...] | None) -> list[Any]:
    """Headers with other values; None takes an attribute away. slices: only so many of them, from the first."""
    few = headers if slices is None else headers[:slices]
    new = [{key: value for key, value in (header | values).items() if value is not None} for header in few]
    return new + headers[len(few) :]


def test_a_destination_can_name_each_profile_that_is_shipped() -> None:
    assert set(get_args(DestinationSettings.model_fields["profile"].annotation)) == set(profile_names())


@pytest.mark.parametrize("name", profile_names())
def test_what_the_node_writes_keeps_every_rule(name: str, derived: list[Any]) -> None:
    assert broken(name, derived) == {}


def test_what_the_input_gate_lets_pass_keeps_the_generic_rules(tmp_path: Path) -> None:
    odd = derived_series(
        tmp_path,
        spacing_mm=(2.5, 0.9, 0.7),
        shifted_mm={1: 0.14},
        attributes={"PatientPosition": "HFDR"},
        raw={"StudyID": b"a study id of more than 16", "PatientID": b"x" * 70},
        absent=["KVP", "SliceThickness", "AccessionNumber"],
    )
    headers = [dict(read_values(path, KEYWORDS)) for path in sorted(odd.folder.glob("*.dcm"))]
    assert broken("generic", headers) == {}
    assert set(broken("monaco", headers)) == {
        *("long_texts", "short_texts", "filled_acquisition", "lying_straight", "equal_spacing", "square_pixels")
    }


@pytest.mark.parametrize(
    ("profile", "code", "values", "found"),
    [
        ("generic", "ct_images", {"SOPClassUID": ("1.2.3",)}, "SOPClassUID is 1.2.3"),
        ("generic", "modality", {"Modality": ("MR",)}, "Modality is MR"),
        (
            "generic",
            "uncompressed",
            {"TransferSyntaxUID": ("1.2.840.10008.1.2.4.80",)},
            "TransferSyntaxUID is 1.2.840.10008.1.2.4.80",
        ),
        ("generic", "required_values", {"PixelSpacing": ()}, "PixelSpacing is empty"),
        ("generic", "required_values", {"FrameOfReferenceUID": None}, "FrameOfReferenceUID is absent"),
        (
            "generic",
            "required_attributes",
            {"PositionReferenceIndicator": None},
            "PositionReferenceIndicator is absent",
        ),
        (
            "generic",
            "grey",
            {"PhotometricInterpretation": ("MONOCHROME1",)},
            "PhotometricInterpretation is MONOCHROME1",
        ),
        ("generic", "representation", {"BitsStored": ("8",)}, "say unsigned 8, and BitsAllocated 16"),
        ("generic", "description_length", {"SeriesDescription": ("d" * 65,)}, "SeriesDescription has 65 characters"),
        ("generic", "series_number", {"SeriesNumber": ("3000000000",)}, "SeriesNumber is 3e+09"),
        ("generic", "series_number", {"SeriesNumber": ("Berg",)}, "SeriesNumber is no number"),
        ("generic", "transverse", {"ImageOrientationPatient": tuple("100001")}, "is not transverse"),
        ("monaco", "slope_of_one", {"RescaleSlope": ("0.5",)}, "RescaleSlope is 0.5"),
        ("monaco", "square_pixels", {"PixelSpacing": ("0.9", "0.7")}, "PixelSpacing is 0.9 by 0.7 mm"),
        ("monaco", "lying_straight", {"PatientPosition": ("HFDR",)}, "PatientPosition is HFDR"),
        ("monaco", "lying_straight", {"PatientPosition": ("Berg^Anna",)}, "PatientPosition is a value of 9 characters"),
        ("monaco", "filled_acquisition", {"KVP": ()}, "KVP is empty"),
        ("monaco", "short_texts", {"AccessionNumber": ("CANARY-OF-A-PATIENT",)}, "AccessionNumber has 19 characters"),
        ("monaco", "long_texts", {"PatientID": ("C" * 65,)}, "PatientID has 65 characters"),
        ("eclipse", "import_log", {"AcquisitionNumber": None}, "AcquisitionNumber is absent"),
        ("eclipse", "device_named", {"DeviceSerialNumber": ()}, "DeviceSerialNumber is empty"),
        ("eclipse", "ids_of_16", {"StudyID": ("s" * 17,)}, "StudyID has 17 characters"),
        ("raystation", "imaging_system", {"StationName": None}, "StationName is absent"),
    ],
)
def test_each_rule_refuses_and_says_what_it_found(
    derived: list[Any], profile: str, code: str, values: Any, found: str
) -> None:
    said = broken(profile, changed(derived, **values))[code]
    assert found in said
    assert "CANARY" not in said
    assert "Berg" not in said
    assert broken(profile, changed(derived, 1, **values))[code].endswith("in 1 of 4 images") is (
        code != "representation"
    )


@pytest.mark.parametrize(
    ("profile", "code", "values"),
    [
        ("generic", "one_frame_of_reference", {"FrameOfReferenceUID": ("1.2",)}),
        ("generic", "one_series", {"SeriesInstanceUID": ("1.2",)}),
        ("generic", "one_size", {"Rows": ("21",)}),
        ("monaco", "one_grid", {"RescaleIntercept": ("-1000",)}),
        ("raystation", "one_study", {"PatientID": ("another",)}),
    ],
)
def test_slices_must_agree(derived: list[Any], profile: str, code: str, values: Any) -> None:
    assert broken(profile, changed(derived, 1, **values))[code] == f"{next(iter(values))} has 2 values"


def test_numbers_agree_by_their_value(derived: list[Any]) -> None:
    assert broken("eclipse", changed(derived, 1, PixelSpacing=("0.70", "7e-1"), RescaleSlope=("1.0",))) == {}


@pytest.mark.parametrize(
    ("z_mm", "codes"),
    [
        ((0, 0.667, 1.333, 2), set()),
        ((0, 0.67, 1.33, 2), {"equal_spacing"}),
        ((0, 1, 2, 4), {"equal_spacing", "no_gap"}),
        ((0, 1, 1, 2), {"equal_spacing", "no_gap"}),
        ((3, 2, 1, 0), set()),
    ],
)
def test_steps_between_slices(derived: list[Any], z_mm: tuple[float, ...], codes: set[str]) -> None:
    placed = [header | {"ImagePositionPatient": ("0", "0", str(z))} for header, z in zip(derived, z_mm, strict=True)]
    assert set(broken("monaco", placed)) == codes


def test_one_slice_or_slices_without_a_place_have_no_steps(derived: list[Any]) -> None:
    assert broken("monaco", derived[:1]) == {}
    lost = changed(derived, 1, ImagePositionPatient=("0", "0"))
    assert "no_gap" not in broken("generic", lost)


def test_a_refusal_names_rule_profile_source_and_whether_it_is_proven(derived: list[Any]) -> None:
    breaches = broken_rules(load_profile("eclipse"), changed(derived, RescaleSlope=("2",), KVP=None))
    words = {breach.rule.code: breach.words() for breach in breaches}
    assert words["slope_of_one"] == (
        "RescaleSlope is 2, but a stored value is one HU (rule slope_of_one of profile planning, unproven)"
    )
    assert words["import_log"] == (
        "KVP is absent, but the import warns about each of these that is absent (rule import_log of profile eclipse)"
    )


@pytest.mark.parametrize("name", profile_names())
def test_every_rule_has_a_source_and_says_whether_it_is_proven(name: str) -> None:
    rules = load_profile(name).rules
    assert len({rule.code for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.source
        assert rule.proven is (not rule.source.startswith(("a rule of thumb", "importers in the field")))
    assert {rule.check for rule in rules} <= set(CHECKS)


def test_a_rule_that_nobody_can_check_is_refused() -> None:
    rule = load_profile("generic").rules[0]
    for wrong in ({"check": "guess"}, {"source": ""}, {"keywords": ()}):
        with pytest.raises(ValueError, match=rule.code):
            replace(rule, **wrong)
    with pytest.raises(KeyError):
        replace(rule, keywords=("NoSuchKeyword",))

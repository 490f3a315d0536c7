"""How a derived series is named: a planner tells it from its source, and a later version from an earlier one."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from node.dicom.derived_plan import NUMBER_RULES, DerivedSeriesPlan, EquipmentIdentity, ModelIdentity, SeriesOptions
from node.dicom.uids import UidFactory

LONGEST = "x" * 64
PLAN = DerivedSeriesPlan(
    series_uid="2.25.1",
    series_number=301,
    series_description="sCE-CT AI Thorax",
    uids=UidFactory(),
    equipment=EquipmentIdentity(software_version=LONGEST),
    model=ModelIdentity(
        name=LONGEST,
        version=LONGEST,
        method=LONGEST,
        weights_sha256=LONGEST,
        device=LONGEST,
        precision=LONGEST,
        hu_window_hu=(-40.5, 400.25),
        blood_level_hu=137.5,
    ),
    produced_at=datetime(2026, 1, 2, tzinfo=UTC),
    slice_spacing_mm=3.0,
)


@pytest.mark.parametrize(
    ("rule", "source", "version", "number"),
    [
        ("source*100+1", 3, 1, 301),
        ("source+9000", 3, 1, 9003),
        ("source*100+1", None, 1, 9000),
        ("source*100+1", 2**31 - 1, 1, 9000),
        ("source*100+1", -5, 1, 9000),
        ("source*100+1", 0, 1, 1),
        ("source*100+1", 3, 2, 302),
        ("source*100+1", 3, 100, 400),
        ("source*100+1", 3, 5000, 400),
        ("source+9000", 3, 2, 19003),
        ("source*100+1", None, 2, 9001),
        ("source*100+1", 21474836, 46, 2147483646),
        ("source*100+1", 21474836, 48, 9047),
    ],
)
def test_series_number(rule: str, source: int | None, version: int, number: int) -> None:
    assert SeriesOptions(number_rule=rule).series_number(source, version) == number


@pytest.mark.parametrize("rule", NUMBER_RULES)
def test_no_version_has_the_number_of_a_version_of_another_source_series(rule: str) -> None:
    names = SeriesOptions(number_rule=rule)
    numbers = [names.series_number(source, version) for source in range(1, 40) for version in range(1, 100)]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    ("source", "version", "description"),
    [
        ("Thorax  5.0 B40", 1, "sCE-CT AI Thorax 5.0 B40"),
        ("", 1, "sCE-CT AI"),
        ("Schädel\\Übersicht\n", 1, "sCE-CT AI Schadel Ubersicht"),
        ("胸部", 1, "sCE-CT AI"),
        ("x" * 100, 1, "sCE-CT AI " + "x" * 54),
        ("Thorax  5.0 B40", 2, "sCE-CT AI v2 Thorax 5.0 B40"),
        ("", 12, "sCE-CT AI v12"),
        ("x" * 100, 2, "sCE-CT AI v2 " + "x" * 51),
    ],
)
def test_series_description_is_ascii_and_short(source: str, version: int, description: str) -> None:
    assert SeriesOptions().series_description(source, version) == description
    assert len(description) <= 64


def test_the_version_stands_behind_the_longest_prefix_too() -> None:
    names = SeriesOptions(description_prefix="y" * 32)
    assert names.series_description("x" * 100, 99) == "y" * 32 + " v99 " + "x" * 27


def test_a_later_version_says_what_it_replaces_and_still_fits() -> None:
    first = PLAN.derivation_description()
    later = replace(PLAN, version=100, replaced_number=2**31 - 1).derivation_description()
    assert later.startswith(first)
    assert "it replaces series 2147483647 (version 99)" in later
    assert "replaces" not in first
    assert len(later) <= 1024  # ST


def test_the_derivation_names_the_level_of_blood_and_calls_it_a_convention() -> None:
    text = PLAN.derivation_description()
    assert "137.5 HU brighter than in the source, by convention" in text
    assert "nothing of the patient's perfusion" in text
    without = replace(PLAN, model=replace(PLAN.model, blood_level_hu=None)).derivation_description()
    assert "convention" not in without

"""What scanners really send: each case is generated, pushed over DICOM, and ends as it should.

`make test` runs the cases of FAST; `make field` (FIELD_CASES=all) runs every one.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from storage.overview import Case
from tests.field.cases import FieldCase, Pushable, field_cases
from tests.field.checks import (
    assert_clean,
    assert_corners_unchanged,
    assert_local_time,
    assert_no_black_dots,
    assert_pixels_of_truth,
    assert_tellable_apart,
    derived_by_series,
)
from tests.field.place import ROOT
from tests.slice.harness import RunningNode, StoreScp, wait_for

ALL = os.environ.get("FIELD_CASES") == "all"
FAST = [
    "b1_values_over_bitsstored",
    "c1_4d_phases",
    "d3_hfp",
    "e2_xio_zero",
    "f4_long_text",
    "g1_leading_zero",
    "h3_directdensity",
    "i1_no_agent_words",
    "j4_jpeg_lossless",
    "l6_late_end_slices",
    "o3_sequences",
    "p3_company_refused",
    "q1_refused_end_slice",
    "r2_timezone",
]
OUT_OF_ENVELOPE = ("p4_body_part",)
REFUSED = ("q1_refused_end_slice", "g3_series_uid_long")  # where the sender may be told that an instance is no use
ENDED = {"SENT", "CONFIRMED", "SKIPPED", "HELD", "INCOMPLETE", "FAILED"}
DEFAULT_TIMEOUT_S = 90
ZONE = "Asia/Tokyo"

CASES = [case for case in field_cases(ROOT) if ALL or case.name in FAST]


@pytest.fixture(scope="module")
def field_tps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreScp]:
    tps = StoreScp(tmp_path_factory.mktemp("field") / "tps").start()
    yield tps
    tps.kill()


@pytest.fixture(scope="module")
def field_node(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, field_tps: StoreScp
) -> Iterator[RunningNode]:
    """One node for all cases, each of which has a caller of its own: senders are learned by their AE titles."""
    node = RunningNode(
        tmp_path_factory.mktemp("field") / "node",
        tiny_bundle,
        [field_tps],
        completion="quiet_s = 1.0\ngive_up_s = 20.0",
        extra='outside_envelope = "warn"',
        node=f'timezone = "{ZONE}"',
    )
    yield node.start()
    node.close()
    node.forget()


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the foreign values that the cases are made of
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in OUT_OF_ENVELOPE], ids=lambda case: case.name
)
def test_a_case_from_the_field_ends_as_it_should(
    case: FieldCase, field_node: RunningNode, field_tps: StoreScp, tmp_path: Path
) -> None:
    made = case.make(tmp_path)
    cases = push_and_wait(case, made, field_node)
    check_ends(case, cases)
    derived = derived_by_series(field_tps, cases)
    if case.expected.get("clean"):
        assert_clean(made, derived)
    if case.expected.get("distinct"):
        assert_tellable_apart(derived)
    if case.name.startswith("j") and (tmp_path / "truth").is_dir():
        assert_pixels_of_truth(tmp_path / "truth", derived)
    if case.name == "b5_padding_zero_hu":
        assert_no_black_dots(made, derived)
    if case.name == "n3_large_fov":
        assert_corners_unchanged(made, derived)
    if case.name == "r2_timezone":
        assert_local_time(derived, ZoneInfo(ZONE))
    field_tps.clear()


def push_and_wait(case: FieldCase, made: Pushable, node: RunningNode) -> list[Case]:
    """Push all steps and wait for the end of every CT series; its cases, the newest of each series first."""
    series = made.ct_series()

    def ended() -> list[Case]:
        found = [one for one in node.cases() if one.series_uid in series]
        newest = {one.series_uid: one for one in reversed(found)}
        return found if set(newest) == set(series) and all(one.state in ENDED for one in newest.values()) else []

    codes = made.push(node.port, case.name[:16].upper(), lambda: wait_for("the first result", ended) and None)
    if case.name not in REFUSED:
        assert codes == [0] * len(codes), "a send job failed"
    # A slice that changes a series reopens it before it is answered, so no earlier end is taken for the last one.
    return wait_for(f"the end of {case.name}", ended, case.expected.get("timeout", DEFAULT_TIMEOUT_S))


def check_ends(case: FieldCase, cases: list[Case]) -> None:
    newest = {one.series_uid: one for one in reversed(cases)}
    wrong = [f"{one.state}: {one.reason}" for one in newest.values() if one.state not in case.expected["states"]]
    assert not wrong, f"allowed are {case.expected['states']}"
    if forbidden := case.expected.get("reason_not"):
        assert not [one.reason for one in newest.values() if forbidden in one.reason.lower()]
    for one in newest.values():
        if one.state not in ("SENT", "CONFIRMED"):
            assert one.reason
    for one in cases:
        if one not in newest.values():
            assert one.state in ("SUPERSEDED", "CANCELLED"), (one.id, one.state)

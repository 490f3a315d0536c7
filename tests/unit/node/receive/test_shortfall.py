"""In which words a series says what it lacks, and when a replaced slice is gone."""

import pytest

from node.dicom.headers import read_header
from node.receive.shortfall import describe_missing, lost_by_replacement
from storage.series import MissingInstance
from tests.builders import make_series


def missing(number, reason="refused with status A700 (the spool takes no more)", *, own=True):
    return MissingInstance(f"1.2.{number}", reason, own)


def test_nothing_missing_says_nothing():
    assert describe_missing([]) is None


def test_one_instance_is_named_with_its_status_and_the_way_out():
    assert describe_missing([missing(3)]) == (
        "1 instance of this series was refused with status A700 (the spool takes no more): 1.2.3; "
        "send the series again, or confirm that it is whole with `syncect jobs complete`"
    )


def test_many_are_counted_and_the_first_three_named():
    text = describe_missing([missing(number) for number in range(5)]) or ""
    assert text.startswith("5 instances of this series were refused")
    assert "1.2.0, 1.2.1, 1.2.2 and 2 more" in text


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (missing(3, "under way when its association was aborted"), "was under way when its association was aborted"),
        (missing(3, own=False), "of an unknown series, sent together with this one, was refused"),
        (MissingInstance("?abc", "refused with status C000 (no UID)", True), "(no UID): with a malformed UID"),
    ],
)
def test_every_kind_of_loss_has_its_words(one, words):
    assert words in (describe_missing([missing(1, "refused with status A900 (they differ)"), one]) or "")


@pytest.fixture(scope="module")
def headers(tmp_path_factory):
    return [read_header(path) for path in make_series(tmp_path_factory.mktemp("scan"), slices=6)]


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The same instances, all 40 mm away."""
    folder = tmp_path_factory.mktemp("moved")
    return [read_header(path) for path in make_series(folder, slices=6, shifted_mm=dict.fromkeys(range(6), 40.0))]


def test_a_slice_that_another_one_of_its_uid_pushed_out_is_lost(headers, moved):
    text = lost_by_replacement([*headers[:5], moved[5]], [headers[5]]) or ""
    assert text.startswith("1 instance of this series was replaced by another one of the same SOP Instance UID")
    assert headers[5].sop_instance_uid in text


def test_one_uid_at_three_positions_lost_two(headers, moved):
    text = lost_by_replacement(headers, [moved[0], moved[1]]) or ""
    assert "2 instances of this series were replaced" in text


def test_other_contents_at_the_same_position_replace_and_lose_nothing(headers):
    assert lost_by_replacement(headers, headers[:2]) is None


def test_a_slice_that_came_again_under_a_new_uid_is_not_lost(headers, moved):
    assert lost_by_replacement([*headers, moved[0]], [headers[0]]) is None


def test_a_series_that_was_corrected_as_a_whole_lost_nothing(headers, moved):
    assert lost_by_replacement(headers, moved) is None

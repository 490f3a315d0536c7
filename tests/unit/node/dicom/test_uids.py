"""UIDs, keys and seeds: deterministic, unambiguous, and the UIDs legal."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dicom.headers import read_header
from node.dicom.uids import UidFactory, job_key, join_parts, seed_of
from tests.builders import make_series

LEGAL = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


@settings(max_examples=50)
@given(st.lists(st.text(max_size=20), max_size=6), st.sampled_from([None, "1.2.826.0.1.3680043.10.1234"]))
def test_every_uid_is_legal_and_repeatable(parts: list[str], root: str | None) -> None:
    uid = UidFactory(root).make(*parts)
    assert len(uid) <= 64
    assert LEGAL.fullmatch(uid)
    assert uid == UidFactory(root).make(*parts)
    assert uid.startswith(f"{root or '2.25'}.")


@given(st.lists(st.text(max_size=6), max_size=4), st.lists(st.text(max_size=6), max_size=4))
def test_different_parts_never_join_to_the_same_text(first: list[str], second: list[str]) -> None:
    assert (join_parts(first) == join_parts(second)) == (first == second)


def series(**changes: object) -> str:
    arguments: dict[str, object] = {"bundle_digest": "b", "processing_digest": "p", "run": 1} | changes
    content = arguments.pop("content", [("1.2", "x"), ("1.3", "y")])
    source = arguments.pop("source", "1.2.3")
    return UidFactory().series_uid(source, content, **arguments)  # type: ignore[arg-type]


def test_series_uid_ignores_the_order_of_slices_and_nothing_else() -> None:
    assert series() == series(content=[("1.3", "y"), ("1.2", "x")])
    others = [
        series(source="1.2.4"),
        series(content=[("1.2", "x")]),
        series(content=[("1.2", "x"), ("1.3", "z")]),
        series(content=[("1.2", "y"), ("1.3", "x")]),
        series(bundle_digest="c"),
        series(processing_digest="q"),
        series(run=2),
    ]
    assert len({series(), *others}) == 8


def test_instance_uid_belongs_to_series_and_source_slice() -> None:
    make = UidFactory().instance_uid
    assert len({make("1.2", "1.3"), make("1.2", "1.4"), make("1.5", "1.3")}) == 3


def test_known_value_so_that_old_series_keep_their_identity() -> None:
    assert UidFactory().make("a", "bc") == "2.25.258967087722454239024598813359457137673"


@pytest.mark.parametrize("root", ["", "1", "abc", "1.2.", "1.02.3", "3.1", "1." + "9" * 40, "1.2;rm"])
def test_a_root_that_is_no_uid_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="UID root"):
        UidFactory(root)


def test_job_key_ignores_order_and_repetition_only(tmp_path: Path) -> None:
    headers = [read_header(path) for path in make_series(tmp_path, slices=4)]
    device = "cpu, fp32"
    key = job_key(headers, "b", device)
    assert key == job_key([*headers[::-1], headers[0]], "b", device)
    others = (job_key(headers[1:], "b", device), job_key(headers, "c", device), job_key(headers, "b", "other"))
    assert len({key, *others}) == 4


def test_the_seed_is_that_of_what_a_network_sees() -> None:
    hu, window = np.array([[[-1000, 0, 40], [399, 500, 3000]]], np.float32), (-40.0, 400.0)
    seed = seed_of(hu, window)
    assert 0 <= seed < 2**63
    assert seed == seed_of(np.clip(hu, -900, 450), window)
    others = [hu + (hu == 40), hu.reshape(1, 3, 2), hu[:, ::-1], hu.reshape(2, 1, 3)]
    assert len({seed, *(seed_of(other, window) for other in others)}) == 5

"""The fuzzer finds what is planted, makes its input small, and goes on."""

import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import watch
from tests.fuzz.loop import Fuzzer, Kept, Note, save
from tests.fuzz.target import KB, MB, Target, always
from tests.fuzz.watch import Finding, Watch


def _planted(data: bytes) -> None:
    if b"bad" in data:
        raise KeyError(data)
    if b"odd" in data:
        raise ValueError
    assert b"lie" not in data, f"a property does not hold: {data!r}"


def _target(run=_planted, **more) -> Target:
    return Target("planted", always(run), lambda: [b"seed", b"b__ad_____", b"x" * 40], (ValueError,), **more)


class Enough(Exception):
    """So many inputs were made: no test counts how many fit into a time."""


class Recorder(Note):
    """Notes every input once."""

    def __init__(self, most: int) -> None:
        self.inputs: list[bytes] = []
        self._most = most

    def write(self, data: bytes) -> None:
        if len(self.inputs) == self._most:
            raise Enough
        self.inputs.append(data)


def test_it_finds_a_crash_and_a_broken_property_in_small_inputs_and_goes_on():
    fuzzer = Fuzzer(_target(tokens=[b"bad", b"odd", b"lie"]), 1, 60, Recorder(3000))
    with pytest.raises(Enough):
        fuzzer.run()
    assert {(one.finding.kind, one.data) for one in fuzzer.found.values()} == {("crash", b"bad"), ("crash", b"lie")}
    assert sorted(fuzzer.found) == [
        "crash AssertionError tests/fuzz/test_loop.py:_planted a property does not hold",
        "crash KeyError tests/fuzz/test_loop.py:_planted",
    ]
    assert all(one.times > 1 for one in fuzzer.found.values())


def test_the_same_seed_makes_the_same_inputs():
    recorders = [Recorder(100), Recorder(100)]
    for recorder in recorders:
        with pytest.raises(Enough):
            Fuzzer(_target(len), 7, 60, recorder).run()
    assert recorders[0].inputs == recorders[1].inputs


def test_an_input_that_takes_too_long_is_a_hang_though_the_product_catches_every_exception():
    def hang(_data: bytes) -> None:
        while True:
            try:
                time.sleep(60)
            except Exception:
                continue

    found = Watch(_target(hang), hang, wait_s=0.1).try_one(b"")
    assert found is not None
    assert found.kind == "hang"
    assert found.where == "tests/fuzz/test_loop.py:hang"


def test_an_input_that_computes_too_long_is_a_hang():
    def compute(_data: bytes) -> None:
        while True:
            pass

    found = Watch(_target(compute), compute, limit_s=0.1).try_one(b"")
    assert found is not None
    assert found.kind == "hang"


def test_an_input_that_takes_twice_the_memory_of_its_target_is_found(monkeypatch):
    sizes = count(0, 2 * MB)  # other tests may have made this process larger than it becomes here
    monkeypatch.setattr(watch, "peak_rss_bytes", lambda: next(sizes))

    def grow(data: bytes) -> None:
        np.ones(len(data) * 4 * MB, np.uint8)

    watched = Watch(_target(grow, memory_bytes=10 * MB), grow)
    assert watched.try_one(b"x") is None
    found = watched.try_one(b"x" * 8)
    assert found is not None
    assert found.kind == "memory"


def test_an_input_is_noted_before_it_runs_and_kept_where_something_was_found(tmp_path: Path):
    note = tmp_path / "note"
    Note(note).write(b"now")
    begun_s, data = Note.read(note)
    assert data == b"now"
    assert 0 <= time.monotonic() - begun_s < 60
    kept = save(tmp_path, "planted", Kept(Finding("crash", "x", "text"), b"small"))
    assert Path(kept["file"]).read_bytes() == b"small"
    assert kept["again"] == f"python -m tests.fuzz --again planted {kept['file']}"


@pytest.mark.parametrize("name", ["uids", "ae_titles", "ids", "names"])
def test_the_corpus_has_the_kinds_of_values_that_other_tests_may_take(name: str):
    from tests.fuzz import hostile

    values = getattr(hostile, name.upper())
    assert len(values) == len(set(values)) >= 50
    assert all(len(data) <= 64 * KB for data in hostile.TOKENS)

"""A HELD result of an archive that a person releases: the node's words in every image, and a kill at any step."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq
from pydicom import dcmread

from config.settings import EligibilitySettings, ModelSettings, Settings
from node.archive import translate
from node.archive.keeping import keep_rows, read_outcomes
from node.archive.outcome import from_parquet, to_parquet
from node.archive.permits import permitted
from node.archive.release import release
from node.archive.run import Archive, list_outcomes, run_archive
from node.bootstrap import places
from node.errors import Permanent, Refused
from node.translate.carried import CarriedJobs
from storage.errors import NotFound
from tests.builders import body_hu, make_series
from tests.object_stores import FaultyStore

NOW, WHY = datetime(2026, 11, 27, 12, tzinfo=UTC), "the implant is outside"
OUT = "s3://bucket/out"


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def held(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, dict[str, bytes]]:
    """An archive that ended with one HELD result, one SKIPPED series and one that nothing was made of; its output."""
    folder = tmp_path_factory.mktemp("held")
    common: dict[str, Any] = {"hu": body_hu(8, 64, 64), "rows": 64, "columns": 64, "slices": 8}
    make_series(folder / "doubted", seed="metal", attributes={"SeriesDescription": "Thorax iMAR"}, **common)
    make_series(folder / "enhanced", seed="e", attributes={"ContrastBolusAgent": "ULTRAVIST 370"}, **common)
    pq.write_table(pa.table({"source": [str(folder / "doubted"), str(folder / "enhanced")]}), folder / "index.parquet")
    model = ModelSettings(bundle=str(tiny_bundle), allow_unproven=("tiny",), device="cpu")
    settings = Settings(model=model, eligibility=EligibilitySettings(min_slices=8))
    archive = Archive(settings, folder / "index.parquet", OUT, replace(permitted(settings)[0], device="cpu"))
    store, jobs = FaultyStore(), CarriedJobs()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(translate, "CarriedJobs", lambda: jobs)
        patched.setattr(places, "objects_of", lambda _spool: store.open)
        run_archive(archive, lambda rows, made, run: map(made(run), rows), lambda _tally: None)
    jobs.close()
    return archive, {key: store.bytes_of(key) for key in store.all_keys()}


@pytest.fixture
def store(held: Any, monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    made = FaultyStore()
    for key, data in held[1].items():
        made.put(key, data)
    monkeypatch.setattr(places, "objects_of", lambda _spool: made.open)
    return made


@pytest.fixture
def let(held: Any) -> Callable[..., str]:
    def run(series: str, actor: str = "operator anna", reason: str = WHY) -> str:
        return release(held[0].settings, OUT, series, actor=actor, reason=reason, now=NOW)

    return run


def row(held: Any, end: str = "") -> dict[str, Any]:
    """The first row, or the one that ended so."""
    return list_outcomes(held[0].settings, OUT, end)[0]


def images(store: FaultyStore) -> dict[str, bytes]:
    return {key: store.bytes_of(key) for key in sorted(store.all_keys()) if key.startswith("series/")}


def table(store: FaultyStore) -> list[dict[str, Any]]:
    """The rows of outcomes.parquet."""
    return from_parquet(store.bytes_of("outcomes.parquet"))


def test_a_released_result_is_produced_and_says_who_overruled_which_doubt(
    held: Any, store: FaultyStore, let: Callable[..., str], tmp_path: Path
) -> None:
    before = row(held, "HELD")
    place = let(before["series_uid"])
    after = row(held, "PRODUCED")
    assert place == after["place"] == f"series/{before['derived_series_uid']}"
    assert after["reason"].startswith("HELD: ")
    assert after["reason"].endswith(f". Released by operator anna: {WHY}")
    assert (after["released_by"], after["released_at"]) == ("operator anna", "2026-11-27T12:00:00+00:00")
    files = images(store)
    slices = [data for key, data in files.items() if key.endswith(".dcm")]
    assert (len(slices), len(files)) == (8, 9), "with doubt.npz"
    for data in slices:
        (tmp_path / "one.dcm").write_bytes(data)
        assert f"Released by operator anna: {WHY}" in dcmread(tmp_path / "one.dcm").DerivationDescription
    assert not [key for key in store.all_keys() if key.startswith("held/")]
    assert sorted(one["end"] for one in table(store)) == ["PRODUCED", "SKIPPED"]
    with pytest.raises(Refused, match=r"^operator anna has released it already$"):
        let(before["series_uid"], "operator ben", "me too")
    assert images(store) == files


def test_only_a_held_result_that_was_produced_can_be_released(
    held: Any, store: FaultyStore, let: Callable[..., str]
) -> None:
    with pytest.raises(Refused, match=r"^it is SKIPPED, and only a HELD result"):
        let(row(held, "SKIPPED")["key"])
    with pytest.raises(NotFound):
        let("1.2.3")
    (name,) = [key for key in store.all_keys() if key.endswith("0001.dcm")]
    whole = store.bytes_of(name)
    store.put(name, whole[:-1] + b"\1")
    with pytest.raises(Permanent, match="not those that were produced"):
        let(row(held, "HELD")["key"])
    assert not [key for key in store.all_keys() if key.startswith("released/")]


def test_a_kill_at_any_step_leaves_the_held_result_or_the_released_one_and_the_next_call_ends_it(
    held: Any, store: FaultyStore, let: Callable[..., str]
) -> None:
    """The second person's words change nothing once the first one's are written down."""
    begun, key = {name: store.bytes_of(name) for name in store.all_keys()}, row(held, "HELD")["key"]
    let(key)
    wanted, said = images(store), row(held, "PRODUCED")
    for step in itertools.count():
        for name in store.all_keys():
            store.real.delete(name)
        for name, data in begun.items():
            store.real.put(name, data)
        writes = itertools.count()

        def dies(verb: str, _key: str, at: int = step, writes: Any = writes) -> None:
            if verb in ("put", "delete") and next(writes) == at:
                raise Killed

        store.before = dies
        try:
            let(key)
            break
        except Killed:
            store.before = lambda _verb, _key: None
        now = read_outcomes(store.open)[key]
        assert now["end"] in ("HELD", "PRODUCED")
        if now["end"] == "PRODUCED":
            assert (images(store), now) == (wanted, said)
        else:
            assert any(name.startswith(now["place"]) for name in store.all_keys())
        first_was_written = any(name.startswith("released/") for name in store.all_keys())
        try:
            let(key, *(("operator ben", "another reason") if first_was_written else ()))
        except Refused:
            assert now["end"] == "PRODUCED"
        assert (images(store), row(held, "PRODUCED")) == (wanted, said)
        assert not [name for name in store.all_keys() if name.startswith("held/")]
    assert step > 12


def test_a_release_outlives_a_run_that_goes_on_and_a_second_one(
    held: Any, store: FaultyStore, let: Callable[..., str]
) -> None:
    archive, _ = held
    before = row(held, "HELD")

    def meanwhile(rows: Any, _made: Any, _run: Any) -> Any:
        let(before["key"])
        yield {"key": before["key"], "kind": "outcome", "text": json.dumps(before)}  # of a second command

    store.real.delete("outcomes.parquet")
    again = replace(archive, again=frozenset({"SKIPPED"}))
    run_archive(again, meanwhile, lambda _tally: None)
    assert row(held, "PRODUCED")["released_by"] == "operator anna"
    assert [one["end"] for one in table(store)] == ["PRODUCED"]


def test_a_release_counts_for_every_copy_of_the_series_also_for_one_that_ends_later(
    held: Any, store: FaultyStore, let: Callable[..., str]
) -> None:
    first = row(held, "HELD")
    second, third = ({**first, "key": name * 32, "source": f"/copy/{name}"} for name in "ab")
    keep_rows(store.open, [second])
    store.put("outcomes.parquet", to_parquet([first, second]))
    let(first["series_uid"])
    assert [(one["end"], one["place"]) for one in table(store)] == [("PRODUCED", row(held, "PRODUCED")["place"])] * 2
    files = images(store)
    keep_rows(store.open, [third])
    rows = [read_outcomes(store.open)[one["key"]] for one in (first, second, third)]
    about = [(one["end"], one["place"], one["sha256"], one["reason"], one["released_by"]) for one in rows]
    assert about == [about[0]] * 3
    assert about[0][0] == "PRODUCED"
    with pytest.raises(Refused, match="operator anna has released it already"):
        let(third["key"], "operator ben", "me too")
    assert images(store) == files


def test_who_releases_a_copy_after_a_release_that_was_killed_ends_it_with_the_first_words(
    held: Any, store: FaultyStore, let: Callable[..., str]
) -> None:
    first = row(held, "HELD")
    keep_rows(store.open, [second := {**first, "key": "b" * 32, "source": "/copy"}])

    def dies(verb: str, key: str) -> None:
        if verb == "put" and key.startswith("series/"):
            raise Killed

    store.before = dies
    with pytest.raises(Killed):
        let(first["key"])
    store.before = lambda _verb, _key: None
    let(second["key"], "operator ben", "me too")
    assert {one["released_by"] for one in list_outcomes(held[0].settings, OUT, "PRODUCED")} == {"operator anna"}


def test_the_command_tells_by_its_exit_code_what_became_of_each(
    held: Any, run: Any, config: Any, tmp_path: Path
) -> None:
    for name, data in held[1].items():
        (path := tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    rows = list_outcomes(held[0].settings, str(tmp_path / "out"), "HELD")
    uid, words = rows[0]["series_uid"], ("--out", tmp_path / "out", "--reason", WHY)
    assert run("archive", "release", uid, "--out", tmp_path / "out")[0] == 2
    code, _, err = run("archive", "release", uid, "1.2.3", *words)
    assert (code, err.splitlines()) == (
        3,
        [
            f"{uid}: released; its files are in series/{rows[0]['derived_series_uid']}",
            "syncect: no series of this UID or key has an outcome there",
        ],
    )
    assert run("archive", "release", uid, *words)[0] == 4
    code, out, _ = run("archive", "ls", "--out", tmp_path / "out", "--end", "PRODUCED")
    assert code == 0
    assert WHY in " ".join(out.split())

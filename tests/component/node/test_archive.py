"""An archive without Ray: its rows, what it makes, and faults; test_ray_executor.py has processes that end."""

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from config.settings import EligibilitySettings, ModelSettings, Settings
from node.archive import keeping, translate
from node.archive import run as run_module
from node.archive.index import Entry
from node.archive.outcome import Outcome, digest_of
from node.archive.pacs import Busy
from node.archive.permits import permitted
from node.archive.run import Archive, Stream, Tally, check_output, list_outcomes, run_archive
from node.archive.translate import MAX_BEGINS, MAX_BEGINS_IN_ALL, MOST_ASKED_S
from node.bootstrap import places
from node.bootstrap.places import Folder
from node.bootstrap.store import installation_uid
from node.bootstrap.worker import job_options
from node.cli import offline
from node.cli.archive import _line
from node.errors import Misconfigured, Refused, Retryable
from node.translate.carried import CarriedJobs
from storage.errors import NotFound, ObjectsUnavailable
from tests.builders import body_hu, make_series
from tests.object_stores import FaultyStore


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Series that end in each way, and what is none."""
    root = tmp_path_factory.mktemp("sources")
    hu = body_hu(8, 64, 64)
    common: dict[str, Any] = {"hu": hu, "rows": 64, "columns": 64, "slices": 8}
    make_series(root / "good", seed="good", **common)
    (root / "good" / "README.txt").write_text("no image")
    make_series(root / "Meier^Anna", seed="other", **common)
    make_series(root / "enhanced", seed="e", attributes={"ContrastBolusAgent": "ULTRAVIST 370"}, **common)
    make_series(root / "gap", seed="gap", missing=[4], slices=10, rows=64, columns=64)
    make_series(root / "doubted", seed="metal", attributes={"SeriesDescription": "Thorax iMAR"}, **common)
    make_series(root / "two", seed="first", slices=3)
    for path in make_series(root / "second", seed="second", slices=3):
        path.rename(root / "two" / f"b{path.name}")
    (root / "empty").mkdir()
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def settings(tiny_bundle: Path, tmp_path: Path) -> Settings:
    model = ModelSettings(bundle=str(tiny_bundle), allow_unproven=("tiny",), device="cpu")
    found = Settings(model=model, eligibility=EligibilitySettings(min_slices=8))
    return found.model_copy(update={"node": found.node.model_copy(update={"data_dir": tmp_path / "data"})})


@pytest.fixture
def archive(settings: Settings, tmp_path: Path) -> Callable[..., Archive]:
    def make(*folders: Path, **changed: Any) -> Archive:
        pq.write_table(pa.table({"source": [str(one) for one in folders]}), tmp_path / "index.parquet")
        ask = replace(permitted(settings)[0], device="cpu")
        return replace(Archive(settings, tmp_path / "index.parquet", str(tmp_path / "out"), ask), **changed)

    return make


@pytest.fixture(scope="module")
def jobs() -> Iterator[CarriedJobs]:
    """One loaded bundle for all tests; Ray's actors have one each."""
    made = CarriedJobs()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, jobs: CarriedJobs) -> None:
    monkeypatch.setattr(translate, "CarriedJobs", lambda: jobs)
    monkeypatch.setattr(translate, "PAUSES_S", (0.0, 0.0))


def here(rows: Any, made: Any, run: Any) -> Iterator[dict[str, str]]:
    """As an actor would do it, in this process."""
    yield from map(made(run), rows)


def go(archive: Archive, stream: Stream = here) -> Tally:
    return run_archive(archive, stream, lambda _tally: None)


def rows_of(archive: Archive) -> dict[str, dict[str, Any]]:
    """The rows of the Parquet file by the name of their folder."""
    rows = pq.read_table(Path(archive.out, "outcomes.parquet")).to_pylist()
    return {Path(row["source"]).name: row for row in rows}


def test_each_series_gets_one_row_that_says_how_it_ended(archive: Any, sources: dict[str, Path]) -> None:
    names = ("good", "enhanced", "gap", "doubted", "two", "empty")
    made = archive(*(sources[name] for name in names))
    tally = go(made)
    rows = rows_of(made)
    assert {name: row["end"] for name, row in rows.items()} == {
        "good": "PRODUCED",
        "enhanced": "SKIPPED",
        "gap": "INCOMPLETE",
        "doubted": "HELD",
        "two": "FAILED",
        "empty": "FAILED",
    }
    assert rows["two"]["reason"] == "the source holds 2 series, and the index names none"
    assert rows["good"]["unread"] == 1
    assert not tally.ended_well
    assert [path.name for path in Path(made.out, "held").iterdir()] == [rows["doubted"]["derived_series_uid"]]
    assert [path.name for path in Path(made.out, "series").iterdir()] == [rows["good"]["derived_series_uid"]]
    assert not list(Path(made.out, "begun").rglob("*.*")), "no mark is left"
    assert [row["reason"] for row in list_outcomes(made.settings, made.out, "HELD")] == [rows["doubted"]["reason"]]


def test_the_files_are_those_of_process_at_the_same_moment(
    archive: Any, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archive(sources["good"])
    go(made)
    moment = datetime.fromisoformat(json.loads(Path(made.out, "run.json").read_text())["produced_at"])
    monkeypatch.setattr(offline, "job_options", lambda settings, _now: job_options(settings, moment))
    done = offline.process_folder(made.settings, sources["good"], tmp_path / "process", "")
    place = Path(made.out, "series", done.result.series_uid)
    assert contents(place) == contents(tmp_path / "process")
    slices = sorted(place.glob("*.dcm"))
    assert len(slices) == 8
    digest = digest_of(hashlib.sha256(path.read_bytes()).hexdigest() for path in slices)
    assert digest == rows_of(made)["good"]["sha256"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_that_broke_off_goes_on_with_what_has_no_outcome(archive: Any, sources: dict[str, Path]) -> None:
    made = archive(sources["good"], sources["empty"], sources["two"])
    asked: list[str] = []

    def breaks_after_two(rows: Any, maker: Any, run: Any) -> Iterator[dict[str, str]]:
        asked.extend(row["source"] for row in rows)
        yield from itertools.islice(here(rows, maker, run), 2)
        if len(rows) > 2:
            raise Retryable("the Ray cluster ended the work")

    with pytest.raises(Retryable):
        go(made, breaks_after_two)
    before = contents(next(Path(made.out, "series").iterdir()))
    assert len(asked) == 3
    asked.clear()
    assert go(made, breaks_after_two).done == 3
    assert asked == [str(sources["two"])]
    assert go(made, breaks_after_two).done == 3
    assert asked == [str(sources["two"])], "nothing is left"
    assert contents(next(Path(made.out, "series").iterdir())) == before
    assert go(replace(made, again=frozenset({"FAILED"}))).before == 1
    assert len(rows_of(made)) == 3


def test_a_series_whose_processes_end_is_failed_after_some_and_the_others_go_on(
    archive: Any, sources: dict[str, Path]
) -> None:
    made = archive(sources["good"], sources["empty"])
    key = Entry(str(sources["good"])).key

    def marked(rows: Any, maker: Any, run: Any) -> Iterator[dict[str, str]]:
        for number in range(MAX_BEGINS):
            Folder(Path(made.out)).put(f"begun/{key}/{run.start}.{number}", b"")
        yield from here(rows, maker, run)

    assert go(made, marked).ends == {"FAILED": 2}
    assert rows_of(made)["good"]["reason"] == "processes ended 4 times while they worked on it"
    assert go(replace(made, again=frozenset({"FAILED"}))).ends == {"PRODUCED": 1, "FAILED": 1}


def test_drivers_that_ended_are_no_fault_of_the_series_until_they_are_many(
    archive: Any, sources: dict[str, Path]
) -> None:
    for count, end in ((MAX_BEGINS_IN_ALL - 1, "PRODUCED"), (MAX_BEGINS_IN_ALL, "FAILED")):
        made = archive(sources["good"], out=archive().out + end)
        for number in range(count):
            Folder(Path(made.out)).put(f"begun/{Entry(str(sources['good'])).key}/start{number}.x", b"")
        assert go(made).ends == {end: 1}


def test_two_drivers_at_once_end_with_the_same_rows(archive: Any, sources: dict[str, Path]) -> None:
    made = archive(sources["good"], sources["doubted"], sources["empty"])

    def with_another(rows: Any, maker: Any, run: Any) -> Iterator[dict[str, str]]:
        answers = here(rows, maker, run)
        yield next(answers)
        assert go(made).done == 3
        others.update(rows_of(made))
        yield from answers

    others: dict[str, dict[str, Any]] = {}
    go(made, with_another)
    assert {name: lasting(row) for name, row in rows_of(made).items()} == {n: lasting(row) for n, row in others.items()}
    (place,) = Path(made.out, "series").iterdir()
    digest = digest_of(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(place.glob("*.dcm")))
    assert digest == others["good"]["sha256"], "both wrote the same bytes"


def lasting(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("seconds", "finished_at")}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    """The object store of all s3:// URLs."""
    made = FaultyStore()
    monkeypatch.setattr(places, "objects_of", lambda _spool: made.open)
    return made


def test_an_output_that_is_away_for_some_tries_costs_nothing(
    archive: Any, sources: dict[str, Path], store: FaultyStore
) -> None:
    made = archive(sources["good"], out="s3://bucket/out")
    fails = iter([True, True])

    def away(verb: str, key: str) -> None:
        if verb == "put" and key.endswith("0003.dcm") and next(fails, False):
            raise ObjectsUnavailable("the object store does not answer, or with an error")

    store.before = away
    assert go(made).ends == {"PRODUCED": 1}
    assert next(fails, None) is None
    assert not any(key.startswith("begun/") for key in store.all_keys())


def test_an_output_that_is_away_for_good_ends_the_run_and_keeps_its_rows(
    archive: Any, sources: dict[str, Path], store: FaultyStore
) -> None:
    made = archive(sources["empty"], sources["good"], sources["two"], out="s3://bucket/out")

    def away(verb: str, key: str) -> None:
        if verb == "put" and key.startswith("series/"):
            raise ObjectsUnavailable("the object store does not answer, or with an error")

    store.before = away
    with pytest.raises(Retryable, match=r"^the output: the object store does not answer"):
        go(made)
    assert [row["source"] for row in list_outcomes(made.settings, made.out, "")] == [str(sources["empty"])]
    store.before = lambda _verb, _key: None
    assert go(made).done == 3


def test_sources_that_are_away_wait_and_end_the_run_when_they_are_several(
    archive: Any, sources: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gone = [tmp_path / "share" / f"Meier^Anna {number}" for number in range(3)]
    one = archive(gone[0], sources["Meier^Anna"])
    tally = go(one)
    assert (tally.done, list(tally.waiting.values()), tally.ended_well) == (1, ["no such folder"], False)
    ends = {name: row["end"] for name, row in rows_of(one).items()}
    assert ends == {"Meier^Anna 0": "WAITING", "Meier^Anna": "PRODUCED"}
    assert [row["reason"] for row in list_outcomes(one.settings, one.out, "WAITING")] == ["no such folder"]
    assert "waits: no such folder" in caplog.text
    assert "Meier" not in caplog.text
    (tmp_path / "share").mkdir()
    gone[0].mkdir()
    assert go(one).ends == {"PRODUCED": 1, "FAILED": 1}


def test_sources_that_never_answer_do_not_keep_the_others_from_their_turn(
    archive: Any, sources: dict[str, Path], tmp_path: Path
) -> None:
    gone = [tmp_path / "share" / str(number) for number in range(3)]
    made = archive(*gone, sources["good"])
    for ends in ({}, {"good": "PRODUCED"}):
        with pytest.raises(Retryable, match=r"^3 sources one after the other did not answer: no such folder$"):
            go(made)
        found = {Path(row["source"]).name: row["end"] for row in list_outcomes(made.settings, made.out, "")}
        assert found == {"0": "WAITING", "1": "WAITING", "2": "WAITING"} | ends


def test_a_folder_that_is_missing_beside_others_is_failed_at_once(archive: Any, sources: dict[str, Path]) -> None:
    made = archive(*(sources["good"].parent / f"{number}" for number in range(3)), sources["good"])
    assert go(made).ends == {"FAILED": 3, "PRODUCED": 1}
    assert rows_of(made)["0"]["reason"] == "there is no such folder, and there are others beside it"


def test_a_second_command_without_an_answer_leaves_the_outcome_of_the_first(
    archive: Any, sources: dict[str, Path], tmp_path: Path
) -> None:
    made = archive(tmp_path / "share" / "ct")

    def with_another(rows: Any, maker: Any, run: Any) -> Iterator[dict[str, str]]:
        answers = list(here(rows, maker, run))
        (tmp_path / "share").symlink_to(sources["good"].parent)
        (sources["good"].parent / "ct").symlink_to(sources["good"])
        assert go(made).ends == {"PRODUCED": 1}
        yield from answers

    go(made, with_another)
    assert [row["end"] for row in list_outcomes(made.settings, made.out, "")] == ["PRODUCED"]
    assert rows_of(made)["ct"]["end"] == "PRODUCED"
    (tmp_path / "share").unlink()
    failed = _row(Entry(str(tmp_path / "share" / "ct")).key, "FAILED")
    keeping.keep_rows(Folder(Path(made.out)), [failed])
    go(replace(made, again=frozenset({"FAILED"})))
    assert [row["end"] for row in list_outcomes(made.settings, made.out, "")] == ["WAITING"]


def test_a_row_is_kept_while_the_next_series_is_long_in_coming(
    archive: Any, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_SECONDS", 0.01)
    monkeypatch.setattr(keeping, "QUIET_S", 0.0)
    made, shown, was_kept, was_quiet = archive(sources["empty"], sources["two"]), [], Event(), Event()

    def show(tally: Tally) -> None:
        if was_kept.is_set() and "; none ended for 0 min" in _line(tally):
            was_quiet.set()
        shown.append(tally.done)
        if tally.done == 1:
            was_kept.set()
            raise BrokenPipeError  # and a reader who has seen enough

    def long(rows: Any, maker: Any, run: Any) -> Iterator[dict[str, str]]:
        answers = here(rows, maker, run)
        yield next(answers)
        assert was_kept.wait(10)
        assert [row["source"] for row in list_outcomes(made.settings, made.out, "")] == [str(sources["empty"])]
        assert was_quiet.wait(10), "a person is told that nothing ends"
        yield from answers

    assert run_archive(made, long, show).done == 2
    assert shown[0] == 0
    assert shown[-1] == 2


def test_a_server_that_asks_for_time_gets_it_and_not_without_end(
    archive: Any, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    asks = iter([Busy("busy", 20.0), Busy("busy", 9e9)])

    def fetch(_place: Any, _found: Any, _folder: Path) -> list[Path]:
        if (error := next(asks, None)) is not None:
            raise error
        return sorted(sources["good"].glob("*.dcm"))

    monkeypatch.setattr(translate, "fetch_all", fetch)
    monkeypatch.setattr("node.archive.translate.time.sleep", slept.append)
    assert go(archive(sources["good"])).ends == {"PRODUCED": 1}
    assert slept == [0.0, 20.0, MOST_ASKED_S]


def test_a_run_goes_on_with_the_same_bytes_on_a_host_of_another_installation(
    archive: Any, sources: dict[str, Path]
) -> None:
    made = archive(sources["good"], sources["empty"])
    go(made)
    before = contents(next(Path(made.out, "series").iterdir()))
    made.settings.node.data_dir.mkdir()
    assert installation_uid(made.settings.node.data_dir, create=True)
    for rows in Path(made.out, "outcomes").iterdir():
        rows.unlink()
    assert go(made).ends == {"PRODUCED": 1, "FAILED": 1}
    assert contents(next(Path(made.out, "series").iterdir())) == before


def test_another_list_bundle_setting_or_version_is_another_run(archive: Any, sources: dict[str, Path]) -> None:
    made = archive(sources["empty"])
    go(made)
    asks = made.ask
    strict = made.settings.model_copy(update={"eligibility": EligibilitySettings(min_slices=20)})
    for other, word in (
        (replace(made, ask=replace(asks, digest="0" * 64)), "bundle"),
        (replace(made, ask=replace(asks, version="0.0.1")), "version"),
        (replace(made, ask=replace(asks, blood_level_hu=200.0)), "settings"),
        (replace(made, settings=strict), "settings"),
        (archive(sources["good"]), "index"),
    ):
        with pytest.raises(Refused, match=f"with another .*{word}"):
            go(other)


def test_another_run_is_refused_before_a_cluster_is_started_also_where_the_device_is_not_known_yet(
    archive: Any, sources: dict[str, Path]
) -> None:
    made = archive(sources["empty"])
    check_output(made)
    go(made)
    for device in ("cpu", "auto"):
        check_output(replace(made, ask=replace(made.ask, device=device)))
        with pytest.raises(Refused, match="with another bundle"):
            check_output(replace(made, ask=replace(made.ask, device=device, digest="0" * 64)))
    with pytest.raises(Refused, match="with another settings"):
        check_output(replace(made, ask=replace(made.ask, blood_level_hu=300.0)))


def test_an_actor_that_computes_otherwise_ends_the_run(archive: Any, sources: dict[str, Path]) -> None:
    made = archive(sources["good"])
    Folder(Path(made.out)).put("arithmetic", b"cuda bf16")
    with pytest.raises(Retryable, match="this output was begun with cuda bf16, and an actor computes with"):
        go(made)
    assert not list(Folder(Path(made.out)).list("begun")), "no process ended: this start counts for nothing later"


def test_an_unexpected_error_fails_one_series_and_its_text_stays_out_of_row_and_log(
    archive: Any, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_given: Any) -> None:
        raise ValueError("Meier^Anna")

    monkeypatch.setattr(translate, "headers_of", broken)
    made = archive(sources["good"])
    go(made)
    assert rows_of(made)["good"]["reason"] == "unexpected ValueError in an actor"
    assert "Meier" not in caplog.text


def test_a_bundle_that_a_worker_refuses_is_refused(settings: Settings, tmp_path: Path) -> None:
    for change, why in (
        ({"allow_unproven": ()}, "is refused: nobody measured"),
        ({"require_acceptance": True}, "is not accepted: nobody accepted it"),
    ):
        model = settings.model.model_copy(update=change)
        with pytest.raises(Refused, match=why):
            permitted(settings.model_copy(update={"model": model}))
    model = settings.model.model_copy(update={"constancy_days": 7})
    assert permitted(settings.model_copy(update={"model": model}))[1] == ()


def test_without_the_constancy_run_that_the_settings_ask_for_the_run_ends(
    archive: Any, sources: dict[str, Path]
) -> None:
    made = archive(sources["good"], constancy=())
    model = made.settings.model.model_copy(update={"constancy_days": 7})
    made = replace(made, settings=made.settings.model_copy(update={"model": model}))
    with pytest.raises(Retryable, match="no constancy run has PASSED with this bundle"):
        go(made)


def test_rows_in_many_files_are_merged_and_a_reader_meanwhile_misses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "MANY_FILES", 4)
    out, rows = Folder(tmp_path), [_row(f"k{number}", "PRODUCED") for number in range(3)]
    for row in (_row("k0", "FAILED"), *rows):
        keeping.keep_rows(out, [row])
    found, reading = {row["key"]: row for row in rows}, Folder.get

    def merged_meanwhile(self: Folder, *of: Any) -> bytes | None:
        monkeypatch.setattr(Folder, "get", reading)
        assert keeping.merge_outcomes(out) == found
        assert len(list(out.list("outcomes"))) == 1
        return reading(self, *of)

    monkeypatch.setattr(Folder, "get", merged_meanwhile)
    assert keeping.read_outcomes(out) == found
    keeping.keep_rows(out, [_row("k1", "HELD")])
    assert keeping.merge_outcomes(out)["k1"]["end"] == "HELD", "a later row counts before a merged one"
    assert len(list(out.list("outcomes"))) == 2, "these are not many"


def _row(key: str, end: str) -> dict[str, Any]:
    values = dict.fromkeys((one.name for one in fields(Outcome)), "")
    return Outcome(**{**values, "key": key, "end": end, "slices": 1, "unread": 0, "seconds": 0.0}).row()  # type: ignore[arg-type]


def test_a_run_merges_its_files(archive: Any, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "MANY_FILES", 2)
    monkeypatch.setattr(keeping, "MANY_FILES", 2)
    monkeypatch.setattr(keeping, "_ROWS", 1)
    made = archive(sources["empty"], sources["two"], sources["empty"] / "none")
    assert go(made).ends == {"FAILED": 2}
    assert len(list(Folder(Path(made.out)).list("outcomes"))) == 2
    assert len(list_outcomes(made.settings, made.out, "")) == 3


def test_what_is_no_output_is_said(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(NotFound):
        list_outcomes(settings, str(tmp_path / "nowhere"), "")
    for url in ("s3://UPPER", "https://host/x", "relative/folder"):
        with pytest.raises(Misconfigured):
            places.open_place(url, settings.spool)

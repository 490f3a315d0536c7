"""Each light: its word and its sentence, from what the node knows of itself."""

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from config.settings import QuerySettings
from node.beats import WAITS_FOR_DATABASE, Beat
from node.ops.processes import process_lock
from node.web import lights
from node.web.lights import Lights, Word, strip_of
from storage.errors import StoreUnavailable


def light(node, name: str):
    (found,) = [one for one in strip_of(node).lights if one.name == name]
    return found


def test_a_process_that_runs_says_with_what(department):
    with process_lock(department.node.run_dir, "work", "1", "cuda:0 NVIDIA H100"):
        assert light(department.node, "Worker") == lights.Light("Worker", Word.OK, "cuda:0 NVIDIA H100")
    assert light(department.node, "Worker").word is Word.DOWN


def test_the_query_service_has_a_light_where_it_is_enabled(department):
    node = department.node
    assert "Query service" not in {one.name for one in strip_of(node).lights}
    settings = node.settings.model_copy(update={"query": QuerySettings(enabled=True)})
    assert light(replace(node, settings=settings), "Query service").word is Word.DOWN


def test_the_worst_of_several_workers_is_shown(department):
    run_dir = department.node.run_dir
    with process_lock(run_dir, "work", "1", "cuda:0"), process_lock(run_dir, "work", "2", "CANNOT WORK: no device"):
        found = light(department.node, "Worker")
    assert (found.word, found.text) == (Word.DOWN, "cannot work: no device")


@pytest.mark.parametrize(
    ("stage", "limit_s", "word", "says"),
    [
        ("translate", 0.0, Word.DOWN, "not responding for"),
        (WAITS_FOR_DATABASE, 1e9, Word.LATE, "waits for the database"),
        ("translate", 1e9, Word.OK, "cpu"),
    ],
)
def test_a_process_is_judged_by_its_beats(department, stage, limit_s, word, says):
    with process_lock(department.node.run_dir, "deliver", "1", "cpu") as sign:
        sign.beats([Beat("1", stage, 1, 2, 0.0, 0.0, limit_s)])
        found = light(department.node, "Courier")
    assert found.word is word
    assert says in found.text


def test_a_receiver_that_refuses_is_late_for_a_while(department):
    department.refuse(reason="a UID has a leading zero")
    with process_lock(department.node.run_dir, "receive", "1"):
        found = light(department.node, "Receiver")
    assert found.word is Word.LATE
    assert "refused images of CTSIM" in found.text


def test_a_destination_tells_its_last_answer_and_its_last_send(department):
    node, now = department.node, datetime.now(UTC)  # the clock of the department began when these tests did
    found = light(node, "To tps")
    assert found.word is Word.UNKNOWN  # green would say that it works
    assert found.text == "nobody has asked it yet (`syncect peers echo tps`); nothing was sent there yet"
    department.sent()
    node.peers.answered("tps", now - timedelta(seconds=90))
    found = light(node, "To tps")
    assert found.word is Word.OK
    assert re.fullmatch(r"answered 1m ago, last send \d+m ago", found.text)
    node.peers.answered("tps", now - timedelta(hours=2.1))
    found = light(node, "To tps")
    assert found.word is Word.UNKNOWN
    assert found.text.startswith("answered 2h ago, not asked since (`syncect peers echo tps`)")
    node.peers.failed("tps", "connection refused", now - timedelta(seconds=90))
    found = light(node, "To tps")
    assert found.word is Word.DOWN
    assert found.text.startswith("cannot be reached for 1m: connection refused; answered 2h ago")


@pytest.mark.parametrize(
    ("free_gb", "hours", "below", "word", "says"),
    [
        (100, None, False, Word.OK, "does not fill up"),
        (100, 1e6, False, Word.OK, "does not fill up"),
        (100, 100, False, Word.OK, "full in about 4 d"),
        (100, 23, False, Word.LATE, "full in about 23 h"),
        (20, 100, True, Word.LATE, "the oldest go early"),
        (5, 0, True, Word.DOWN, "every image is refused"),
    ],
)
def test_the_disk_tells_how_long_it_lasts(free_gb, hours, below, word, says):
    kept = {"hours_left": hours, "below_target": below, "words": "the oldest go early"}
    found = lights._disk({"free_gb": free_gb, "reserve_gb": 5, "retention": kept, "unwritable": ""})
    assert found.word is word
    assert says in found.text
    broken = {"free_gb": free_gb, "reserve_gb": 5, "retention": kept, "unwritable": "it is read-only"}
    assert lights._disk(broken).text == "it is read-only"


def test_the_series_that_waits_longest_is_late_when_it_is_overdue(department, monkeypatch):
    case_id = department.queued()
    assert light(department.node, "Oldest waiting").word is Word.OK
    later = datetime.now(UTC) + timedelta(seconds=department.node.settings.alerts.due_s)
    monkeypatch.setattr("node.web.lights.now_utc", lambda: later)
    found = light(department.node, "Oldest waiting")
    assert (found.word, found.case_id) == (Word.LATE, case_id)
    assert "overdue" in found.text


def test_the_strip_is_made_once_for_all_who_look(department, monkeypatch):
    made = []

    def counted(node):
        made.append(node)
        return strip_of(node)

    monkeypatch.setattr(lights, "strip_of", counted)
    shown = Lights(department.node)
    assert shown.now() is shown.now()
    assert len(made) == 1
    monkeypatch.setattr(lights, "KEPT_S", -1.0)
    assert shown.now() is not None
    assert len(made) == 2


def test_a_store_that_does_not_answer_is_waited_for_once_for_all_who_look(department, monkeypatch):
    waited = []

    def silent(node):
        waited.append(node)
        raise StoreUnavailable("the server did not answer for 5 s")

    monkeypatch.setattr(lights, "strip_of", silent)
    shown = Lights(department.node)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="did not answer for 5 s"):
            shown.now()
    assert len(waited) == 1
    monkeypatch.undo()
    monkeypatch.setattr(lights, "KEPT_S", -1.0)
    assert shown.now().lights


def test_a_database_that_is_damaged_where_nobody_reads_is_not_well(department):
    assert strip_of(department.node).lights
    path = department.node.settings.node.data_dir / "syncect.sqlite3"
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xa5" * 4096)
    with pytest.raises(StoreUnavailable, match=r"damaged|malformed"):
        strip_of(department.node)


def test_a_figure_stands_beside_its_limit(department):
    from node.web.measured import measured_of

    case = department.node.overview.case(department.held())
    (row,) = measured_of(department.node, case)
    assert (row.value, row.limit, row.within) == ("25 %", "at least 0.1 %", True)
    other = json.loads('{"mean_shift_hu": 150.0, "changed_outside_voxels": 0.0, "odd": 1.5, "word": "x"}')
    rows = measured_of(department.node, _with(case, other))
    assert [(row.value, row.limit, row.within) for row in rows] == [
        ("150 HU", "-20 HU to 120 HU", False),
        ("0", "none", True),
        ("1.5", "", True),
    ]


def test_noise_has_the_limit_of_the_bundle_that_made_the_case(department):
    from models.bundle import find_bundle, read_card
    from node.bootstrap.bundles import bundle_label
    from node.web.measured import measured_of

    card = read_card(find_bundle("demo-1step"))
    case = department.node.overview.case(department.held(bundle=bundle_label(card)))
    (row,) = measured_of(department.node, _with(case, {"noise_hu": 9999.0}))
    assert (row.within is False) == (card.envelope.noise_hu is not None)
    older = department.node.overview.case(department.held(bundle="demo 0 (old)"))
    assert measured_of(department.node, _with(older, {"noise_hu": 9999.0}))[0].limit == ""


def _with(case, measurements):
    from dataclasses import replace

    return replace(case, measurements=measurements)

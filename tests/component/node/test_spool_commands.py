"""`spool verify` finds what differs between the spool and the store and nothing else; `spool repair` mends it."""

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from config.load import load_settings
from node.bootstrap.store import Node, open_store
from node.ops.spool_check import SpoolCheck
from storage.intake import Intake
from storage.series import Identifiers, JobRequest, SeriesFacts
from storage.tables import Instance, Job, Series
from tests.damages import EVERY, OF_A_FILE, deleted, overwritten, spool_deleted
from tests.departments import START, Department

Run = Callable[..., tuple[int, str, str]]


class Kept(Department):
    """A department whose received files lie in the spool."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.intake = Intake(node.spool, node.series)

    def arrive(self, **_arrival: Any) -> str:
        self._arrived += 1
        number = self._arrived
        for n in range(3):
            self.send(number, n)
        self.facts = SeriesFacts("Thorax", "MRN0012345")
        return str(number)

    def send(self, number: int, n: int) -> None:
        association = self.node.series.open_association("r", "CTSIM", "h", START)
        uids = Identifiers(f"1.2.{number}", f"1.2.3.{number}", f"1.2.3.{number}.{n}", "c", "t")
        self.intake.keep(association, "CTSIM", uids, (b"%d %d" % (number, n),), START)
        self.node.series.close_association(association, released=True, now=START)

    def source(self, number: int = 1, n: int = 1) -> Path:
        return self.node.spool.path(self.node.series.sources(number)[n].spool_name)

    def product(self, case_id: str = "1") -> Path:
        return self.node.spool.path(f"{self.node.overview.case(case_id).product_dir}/0001.dcm")

    def requeue(self) -> None:
        (series,) = self.node.series.undecided(START + timedelta(days=1), 5)
        assert self.node.series.queue(series, self.facts, JobRequest("1".rjust(64, "k"), "demo 1 (abc)"), START)


@pytest.fixture
def kept(config: Path) -> Any:
    with open_store(load_settings(config)) as node:
        yield Kept(node)


def make_old(path: Path, age: timedelta = timedelta(hours=3)) -> None:
    moment = (datetime.now(UTC) - age).timestamp()
    os.utime(path, (moment, moment), follow_symlinks=False)


def findings(run: Run) -> list[tuple[str, str, str]]:
    code, out, _ = run("spool", "verify", "--json")
    found = json.loads(out)["findings"]
    assert code == bool(found)
    return [(one["kind"], one["condition"], one["sop_instance_uid"]) for one in found]


def test_a_spool_as_the_store_says_has_no_finding(run: Run, kept: Kept) -> None:
    for make in (Kept.arrive, Kept.held, Kept.produced, Kept.skipped):
        make(kept)
    assert run("spool", "verify")[::2] == (0, "18 files read; nothing differs\n")
    assert findings(run) == []


@pytest.mark.parametrize("damage", EVERY)
def test_each_damage_of_a_received_file_is_found_and_marked(
    run: Run, kept: Kept, damage: Callable[[Path], None]
) -> None:
    kept.queued()
    damage(kept.source())
    if damage is spool_deleted:  # commands want to know first that this is no disk that is not mounted
        assert run("spool", "verify")[0] == 1
        assert run("db", "adopt")[0] == 0
    assert "1.2.3.1.1" in [uid for _, _, uid in findings(run)]
    code, out, _ = run("spool", "repair", "--yes")
    assert (code, "marked as missing" in out) == (0, True)
    assert kept.node.overview.case("1-2").state == "INCOMPLETE"
    assert {kind for kind, *_ in findings(run)} == {"waiting"}
    for n in range(3):
        kept.send(1, n)
    kept.requeue()
    assert [kind for kind, *_ in findings(run) if kind != "orphan"] == []
    assert kept.node.overview.case("1").state == "QUEUED"


@pytest.mark.parametrize("damage", OF_A_FILE)
@pytest.mark.parametrize("make", [Kept.produced, Kept.sending, Kept.send_failed, Kept.held])
def test_a_damaged_result_that_is_still_needed_is_made_again(
    run: Run, kept: Kept, make: Callable[[Kept], str], damage: Callable[[Path], None]
) -> None:
    make(kept)
    damage(kept.product())
    assert [(kind, uid) for kind, _, uid in findings(run)] == [("result", "9.1.1")]
    code, out, _ = run("spool", "repair", "--yes", "--json")
    assert (code, json.loads(out)[0]["done"]) == (0, "queued: a worker makes the result again")
    assert kept.node.overview.case("1").state == "QUEUED"
    assert findings(run) == []


def test_a_result_that_was_delivered_is_left(run: Run, kept: Kept) -> None:
    kept.sent()
    deleted(kept.product())
    _, out, _ = run("spool", "repair", "--yes", "--json")
    assert json.loads(out)[0]["done"].startswith("left: the job is SENT")
    assert kept.node.overview.case("1").state == "SENT"


def test_sources_of_a_finished_result_are_left_to_a_resend(run: Run, kept: Kept) -> None:
    kept.sent()
    overwritten(kept.source())
    _, out, _ = run("spool", "repair", "--yes", "--json")
    assert json.loads(out)[0]["done"].startswith("left: the result of the series is there")
    kept.send(1, 1)
    assert findings(run) == []


def test_a_file_that_lies_in_its_place_again_counts_again(run: Run, kept: Kept) -> None:
    kept.queued()
    path = kept.source()
    path.rename(path.with_name("aside"))
    run("spool", "repair", "--yes")
    path.with_name("aside").rename(path)
    assert findings(run) == [("found", "intact", "1.2.3.1.1")]
    run("spool", "repair", "--yes")
    assert findings(run) == []
    kept.requeue()
    assert kept.node.overview.case("1").state == "QUEUED"


def test_what_belongs_to_nobody_is_set_aside_when_it_is_old(run: Run, kept: Kept) -> None:
    kept.produced()
    orphan = kept.source().with_name("0" * 32 + ".dcm")
    orphan.write_bytes(b"left by a crash between the rename and the commit")
    folder = kept.node.spool.root / "derived" / "1-r12345678"
    folder.mkdir()
    assert findings(run) == []  # a receiver may be about to write the row
    make_old(orphan)
    make_old(folder)
    assert [kind for kind, *_ in findings(run)] == ["orphan", "orphan"]
    code, _, _ = run("spool", "repair", "--dry-run")
    assert (code, orphan.exists()) == (0, True)
    _, said, _ = run("spool", "repair", "--yes")
    assert "retention removes it after 30 days" in " ".join(said.split())
    assert (orphan.exists(), folder.exists(), findings(run)) == (False, False, [])
    aside = kept.node.spool.root / "set-aside"
    assert sorted(path.name.partition("-")[2] for path in aside.iterdir()) == [
        "derived-1-r12345678",
        f"received-{orphan.parent.name}-{orphan.name}",
    ]


def test_what_retention_removed_is_no_finding(run: Run, kept: Kept) -> None:
    kept.sent()
    kept.source().unlink()
    kept.product().unlink()
    with kept.node.database.write() as session:
        session.execute(delete(Instance))  # as retention does it
        session.get_one(Series, 1).purged_at = session.get_one(Job, 1).purged_at = START
    assert findings(run) == []


def test_what_was_put_right_before_its_repair_is_left(kept: Kept) -> None:
    """An image that came again while the spool was read, and what another repair was quicker with."""
    kept.arrive()
    image, check = kept.source(), SpoolCheck(kept.node.spool, kept.node.database)
    content, orphan = image.read_bytes(), image.with_name("f" * 32 + ".dcm")
    image.write_bytes(b"torn")
    orphan.write_bytes(b"of nobody")
    make_old(orphan)
    found = list(check.verify(datetime.now(UTC)))
    assert {one.kind for one in found} == {"received", "orphan"}
    image.write_bytes(content)
    orphan.unlink()
    done = {one.finding.kind: one.done for one in check.repair(found, "x", START)}
    assert done["received"].startswith("left: it was put right meanwhile")
    assert done["orphan"] == "left: it is gone by now"


def test_repair_asks_for_a_word(run: Run, kept: Kept) -> None:
    kept.queued()
    deleted(kept.source())
    assert run("spool", "repair")[0] == 2
    assert kept.node.overview.case("1").state == "QUEUED"


def test_instances_that_arrive_meanwhile_are_no_finding(run: Run, kept: Kept) -> None:
    stop, numbers = threading.Event(), iter(range(100, 100_000))

    def receive() -> None:
        while not stop.is_set():
            number = next(numbers)
            kept.send(number, 0)
            deleted(kept.source(kept.node.overview.cases(limit=1)[0].series_id, 0))
            kept.send(number, 0)

    # Each is gone for a moment and comes again: what is gone at the second look is not.
    sender = threading.Thread(target=receive)
    sender.start()
    try:
        found = [findings(run) for _ in range(5)]
    finally:
        stop.set()
        sender.join()
    assert all(len(one) <= 1 for one in found)
    assert findings(run) == []

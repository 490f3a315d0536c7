"""A release puts its reason into every file before the outbox knows of it; a kill at any step leaves the held files."""

import os
import pkgutil
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from node.bootstrap.release import release_held
from node.bootstrap.roles import _companion_maker
from node.errors import Refused
from node.translate.proof import flush_and_digest
from storage.errors import IllegalTransition, SpoolFull
from tests.departments import DESCRIPTION, START

SAID = f"{DESCRIPTION} HELD: looks enhanced. Released by operator mia: seen by Dr Wu"


@pytest.fixture
def case(department):
    """A HELD case whose files are in the spool."""
    return department.node.overview.case(department.held())


def release(department, case, reason="seen by Dr Wu"):
    release_held(department.node, case, "operator mia", reason, START)


def folders(department):
    """Names of the folders of results, the random part of a released one left out."""
    return sorted(path.name[:3] for path in (department.node.spool.root / "derived").iterdir())


def files_of(department, case_id) -> dict[str, Path]:
    """The files that the store names for a case, by the SHA-256 that it expects."""
    case = department.node.overview.case(case_id)
    folder = department.node.spool.path(case.product_dir)
    return {made.sha256: folder / made.file_name for made in department.node.overview.products(case)}


def test_every_file_says_who_overruled_which_doubt_before_it_can_be_sent(department, case) -> None:
    before = {made.sop_instance_uid for made in department.node.overview.products(case)}
    release(department, case)
    after = department.node.overview.case(case.id)
    assert (after.state, after.reason) == ("PRODUCED", "seen by Dr Wu")
    assert after.override == "HELD: looks enhanced. Released by operator mia: seen by Dr Wu"
    assert folders(department) == ["1-r"]
    for sha256, path in files_of(department, case.id).items():
        assert flush_and_digest(path) == sha256
        assert dcmread(path).DerivationDescription == SAID
    claimed = department.node.outbox.claim("c", "tps", 60, START)
    assert claimed is not None
    assert {item.sop_instance_uid for item in claimed.missing} == before
    assert all(department.node.spool.path(item.file_name).exists() for item in claimed.missing)


def test_a_report_for_a_destination_would_tell_the_decision(department, case) -> None:
    release(department, case)
    maker: Any = _companion_maker(department.node, department.node.outbox.claim("c", "tps", 60, START))
    assert maker.folder == department.node.spool.path(department.node.overview.case(case.id).product_dir)
    assert maker.decision == "HELD: looks enhanced. Released by operator mia: seen by Dr Wu"


def test_the_store_keeps_the_name_of_who_released_it_as_it_is_written(department, case) -> None:
    release_held(department.node, case, "operator Dr. Анна Größe (anna)", "gesehen, größer", START)
    after = department.node.overview.case(case.id)
    assert after.override == "HELD: looks enhanced. Released by operator Dr. Анна Größe (anna): gesehen, größer"
    for path in files_of(department, case.id).values():  # these have no character set
        assert dcmread(path).DerivationDescription.endswith("by operator Dr. ???? Gro?e (anna): gesehen, gro?er")


@pytest.mark.parametrize("step", ["node.bootstrap.release.write_released", "storage.spool.Spool.publish"])
def test_a_disk_that_fails_leaves_the_job_held_with_its_files(department, case, monkeypatch, step) -> None:
    def fail(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(step, fail)
        with pytest.raises(OSError, match="No space"):
            release(department, case)
    assert department.node.overview.case(case.id) == case
    assert folders(department) == ["1-1"]
    release(department, case)
    assert folders(department) == ["1-r"]


class Killed(BaseException):
    """The process is gone at this line."""


@pytest.mark.parametrize("step", ["storage.spool.Spool.publish", "storage.jobs.JobStore.release"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_in_between_is_harmless(department, case, monkeypatch, step, when) -> None:
    module, kind, name = step.rsplit(".", 2)
    real = getattr(getattr(__import__(module, fromlist=[kind]), kind), name)

    def killed(*args, **kwargs):
        if when == "after":
            real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(step, killed)
        dying.setattr("storage.spool.Spool.unstage", lambda *_: None)  # nor does any cleaning happen
        with pytest.raises(Killed):
            release(department, case)
    state = department.node.overview.case(case.id).state
    assert state == ("PRODUCED" if (kind, when) == ("JobStore", "after") else "HELD")
    for sha256, path in files_of(department, case.id).items():
        assert flush_and_digest(path) == sha256
    if state == "HELD":
        release(department, case)
        assert folders(department) == ["1-r"]
        assert {dcmread(path).DerivationDescription for path in files_of(department, case.id).values()} == {SAID}


def test_a_job_that_is_held_no_more_keeps_its_files(department, case) -> None:
    department.node.jobs.reject(case.job_id, "operator max", "", START)
    with pytest.raises(IllegalTransition):
        release(department, case)
    assert folders(department) == ["1-1"]
    with pytest.raises(Refused, match="is REJECTED"):
        release(department, department.node.overview.case(case.id))


def test_after_a_reject_was_taken_back_it_is_released_like_any_other(department, case) -> None:
    department.node.jobs.reject(case.job_id, "operator max", "", START)
    department.node.jobs.reopen(case.job_id, "operator max", "", START)
    again = department.node.overview.case(case.id)
    assert again.reason == "looks enhanced"
    release(department, again)
    assert {dcmread(path).DerivationDescription for path in files_of(department, case.id).values()} == {SAID}


def test_a_full_spool_takes_no_second_copy(department, case, monkeypatch) -> None:
    monkeypatch.setattr(department.node.spool, "_min_free_bytes", 1 << 60)
    with pytest.raises(SpoolFull):
        release(department, case)
    assert folders(department) == ["1-1"]


def test_two_people_who_release_at_once_do_not_take_each_others_files(department, case, monkeypatch) -> None:
    real = department.node.jobs.release
    first: list[bool] = []

    def release_first(*args, **kwargs):
        if not first:
            first.append(True)
            release(department, case, "max was faster")
        return real(*args, **kwargs)

    monkeypatch.setattr("storage.jobs.JobStore.release", lambda _self, *args, **kwargs: release_first(*args, **kwargs))
    with pytest.raises(IllegalTransition):
        release(department, case)
    assert folders(department) == ["1-r"]
    assert {flush_and_digest(path) for path in files_of(department, case.id).values()} == set(
        files_of(department, case.id)
    )
    assert department.node.overview.case(case.id).override.endswith("max was faster")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_releases_belongs_to_the_user_of_the_node(department, case) -> None:
    held = department.node.spool.path(case.product_dir)
    os.chown(held, 65534, 65534)
    release(department, case)
    paths = [*files_of(department, case.id).values()]
    assert {path.stat().st_uid for path in (*paths, paths[0].parent)} == {65534}


@pytest.mark.parametrize("step", ["node.bootstrap.release.write_released", "storage.spool.Spool.publish"])
def test_of_two_who_release_at_the_same_moment_one_wins_and_the_other_is_told(
    department, case, monkeypatch, step
) -> None:
    holder, name = step.rsplit(".", 1)
    real = getattr(pkgutil.resolve_name(holder), name)
    others: list[str] = []

    def somebody_is_faster(*args):
        if not others:
            others.append("max")
            release_held(department.node, case, "operator max", "seen by Dr No", START)
        return real(*args)

    monkeypatch.setattr(step, somebody_is_faster)
    with pytest.raises(Refused, match="somebody was faster: it is PRODUCED now"):
        release(department, case)
    assert department.node.overview.case(case.id).reason == "seen by Dr No"
    assert folders(department) == ["1-r"]
    for sha256, path in files_of(department, case.id).items():
        assert flush_and_digest(path) == sha256


def test_who_begins_to_release_later_takes_no_files_from_who_began_before(department, case, monkeypatch) -> None:
    real = department.node.spool.publish
    begun: list[Path] = []

    def another_begins(staged):
        begun.append(department.node.spool.stage(case.job_id, "rlater"))
        return real(staged)

    monkeypatch.setattr(department.node.spool, "publish", another_begins)
    release(department, case)
    assert department.node.overview.case(case.id).state == "PRODUCED"
    assert folders(department) == ["1-r"]

"""A job that is computed again gives the same bytes and UIDs, or `replay` says what differs."""

import json
import os
from datetime import UTC, datetime

import pytest

from node.translate.composite import composite
from node.version import software_version

NOW = datetime.now(UTC)


def folder_of(node):
    return node.spool.path(node.overview.case("1").product_dir)


def test_the_same_bytes_come_out_and_nothing_is_changed(run, made) -> None:
    before = sorted(made.spool.root.rglob("*")), made.overview.case("1"), made.overview.events(made.overview.case("1"))
    code, out, err = run("replay", "1")
    assert (code, "1: the same 4 files, byte for byte, under the same UIDs" in out) == (0, True), out + err
    assert json.loads(run("replay", "1", "--json")[1])["is_same"] is True
    after = sorted(made.spool.root.rglob("*")), made.overview.case("1"), made.overview.events(made.overview.case("1"))
    assert before == after


@pytest.mark.parametrize("made", ["after metal artifact reduction"], indirect=True)
def test_a_released_result_is_compared_with_what_was_released(run, made) -> None:
    assert run("replay", "1")[0] == 0
    assert run("jobs", "release", "1", "--reason", "seen by Dr Wu")[0] == 0
    assert run("replay", "1")[0] == 0


def test_another_setting_is_named_by_the_attribute_that_differs(run, made, monkeypatch) -> None:
    monkeypatch.setenv("SYNCECT_SERIES__DESCRIPTION_PREFIX", "AI other")
    code, out, _ = run("replay", "1")
    assert (code, "0 of 4 files" in out, "differ: SeriesDescription." in out) == (1, True, True), out


def test_other_pixels_are_counted(run, made, monkeypatch) -> None:
    def brighter(volume, predicted, window):
        result = composite(volume, predicted, window)
        result.stored[0, 16, 16] += 7
        return result

    monkeypatch.setattr("node.translate.job.composite", brighter)
    code, out, _ = run("replay", "1")
    assert (code, "3 of 4 files" in out, "1 pixels differ, by at most 7 HU" in out) == (1, True, True), out


def test_another_bundle_is_named(run, made, monkeypatch) -> None:
    monkeypatch.setenv("SYNCECT_MODEL__BUNDLE", "demo")
    code, out, _ = run("replay", "1")
    assert (code, "it was made by" in out) == (1, True)


@pytest.mark.parametrize("present", ["0.9.0", "0.9.1.dev3+g0123456789"])
def test_after_an_upgrade_both_versions_are_named(run, made, monkeypatch, present: str) -> None:
    for user in ("node.bootstrap.worker", "node.bootstrap.replay", "node.dicom.uids"):
        monkeypatch.setattr(f"{user}.software_version", lambda: present)
    code, out, _ = run("replay", "1")
    assert (code, f"it was made by syncect {software_version()}; this is {present}" in out) == (1, True), out


def test_a_checkout_that_gives_other_files_says_that_its_code_may_have_changed(run, made, monkeypatch) -> None:
    monkeypatch.setattr("node.bootstrap.replay.EDITABLE", software_version()[-1])
    assert "whose code may have changed" not in run("replay", "1")[1]
    monkeypatch.setenv("SYNCECT_SERIES__DESCRIPTION_PREFIX", "AI other")
    assert "a checkout whose code may have changed in between" in run("replay", "1")[1]


def test_a_file_that_was_changed_on_the_disk_is_named(run, made) -> None:
    (folder_of(made) / "0002.dcm").write_bytes(b"x")
    (folder_of(made) / "0003.dcm").unlink()
    os.mkfifo(folder_of(made) / "0003.dcm")
    code, out, _ = run("replay", "1", "--json")
    assert (code, json.loads(out)["same"], json.loads(out)["damaged"]) == (0, 4, ["0002.dcm", "0003.dcm"])


def test_what_is_gone_cannot_be_computed_again(run, made) -> None:
    case = made.overview.case("1")
    made.jobs.cancel(case.job_id, "operator", "no", NOW)
    made.retention.purge_case(case.series_id, case.job_id, "operator", "no", NOW)
    code, _, err = run("replay", "1")
    assert (code, "were removed on" in err) == (4, True)
    assert run("replay", "7")[0] == 3

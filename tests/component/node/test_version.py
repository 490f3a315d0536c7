"""What syncect says it is: by a tag, between tags, without tags, in an archive, and as an installation."""

import json
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

import models
from config.settings import ModelSettings, Settings
from node import version
from node.bootstrap.routes import request_by
from node.dicom.headers import read_header
from node.dicom.uids import processing_digest
from node.version import UNKNOWN, find_build, software_version
from tests.builders import make_series
from tests.conftest import require_program

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    command = [require_program("git"), "-C", str(folder), *WHO, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with one commit."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    return tmp_path


def test_a_tag_is_the_version_and_what_follows_comes_before_the_next(tree: Path) -> None:
    git(tree, "tag", "not-a-version")
    git(tree, "tag", "v0.2.0")
    tagged = find_build(tree)
    assert (tagged.version, tagged.commit, tagged.changed) == ("0.2.0", git(tree, "rev-parse", "HEAD"), False)
    (tree / "file").write_text("2")
    dirty = find_build(tree)
    assert (dirty.version, dirty.changed) == (f"0.2.1.dev0+g{tagged.commit[:10]}.dirty", True)
    git(tree, "commit", "--quiet", "--all", "--message", "two")
    later = find_build(tree)
    assert later.version == f"0.2.1.dev1+g{later.commit[:10]}"
    git(tree, "tag", "v0.3.0rc1")
    (tree / "file").write_text("3")
    assert find_build(tree).version.startswith("0.3.0rc2.dev0+g")
    order = [tagged.version, dirty.version, later.version, "0.2.1", "0.3.0rc1", find_build(tree).version, "0.3.0"]
    assert order == sorted(order, key=Version)


def test_a_clone_without_tags_counts_its_commits_and_claims_no_release(tree: Path) -> None:
    commit = git(tree, "rev-parse", "HEAD")
    assert find_build(tree).version == f"0.0.dev1+g{commit[:10]}"


def test_the_variables_of_a_hook_name_no_other_tree(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tree, "tag", "v0.2.0")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert find_build(tree).version == "0.2.0"


def test_without_git_the_file_of_the_build_counts_and_without_both_nothing_is_claimed(tmp_path: Path) -> None:
    assert find_build(tmp_path).version == UNKNOWN
    (tmp_path / "node").mkdir()
    written = version.Build("0.2.0", COMMIT)
    (tmp_path / "node" / "build.json").write_text(version.as_json(written))
    assert find_build(tmp_path) == written
    for damaged in ("", "[]", json.dumps({"version": "1", "other": 1})):
        (tmp_path / "node" / "build.json").write_text(damaged)
        assert find_build(tmp_path).version == UNKNOWN


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("v0.2.0", "0.2.0"),
        ("v0.2.0-3-g0123456", "0.2.1.dev3+g0123456789"),
        ("", "0.0.dev0+g0123456789"),
    ],
)
def test_an_archive_made_by_git_carries_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, described: str, expected: str
) -> None:
    monkeypatch.setattr(version, "_ARCHIVED", (COMMIT, described))
    assert find_build(tmp_path) == version.Build(expected, COMMIT)


def test_what_stands_in_files_fits_them_and_a_checkout_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = f"10.20.30rc99.dev9999+g{COMMIT[:10]}.dirty"
    for installed, checkout, expected in (
        ("0.2.0", False, "0.2.0"),
        ("0.2.0", True, "0.2.0+editable"),
        (longest, True, f"{longest}.editable"),
    ):
        monkeypatch.setattr(metadata, "version", lambda _name, installed=installed: installed)
        monkeypatch.setattr(version, "is_checkout", lambda checkout=checkout: checkout)
        assert software_version.__wrapped__() == expected  # past the cache
        assert len(expected) <= 64  # SoftwareVersions is LO, PS3.5 6.2
        assert re.fullmatch(r"[ -\[\]-~]+", expected)  # no backslash: it would be two values
        assert str(Version(expected)) == expected


def test_images_that_come_again_after_an_upgrade_find_their_job_and_a_new_result_has_other_uids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = [read_header(path) for path in make_series(tmp_path, slices=3)]
    card = models.read_card(models.find_bundle("demo"))
    before = request_by(Settings(), card, headers).key, processing_digest("cpu")
    monkeypatch.setattr("node.dicom.uids.software_version", lambda: "0.9.0")
    after = request_by(Settings(), card, headers).key, processing_digest("cpu")
    assert before[0] == after[0]
    assert before[1] != after[1]
    other = Settings(model=ModelSettings(precision="fp32"))
    assert request_by(other, card, headers).key != before[0]
    level = Settings(model=ModelSettings(blood_level_hu=80.0))
    assert request_by(level, card, headers).key not in (before[0], request_by(other, card, headers).key)

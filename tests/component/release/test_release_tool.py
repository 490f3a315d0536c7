"""A release is refused for a tree, a tag or a changelog that is not ready, and its bytes can be made again."""

import subprocess
from datetime import date
from pathlib import Path

import pytest

from deploy.release.installed import find_python, locked_lines, newest_python
from deploy.release.release import Unfit, check_changelog, check_tree
from tests.conftest import require_program

TODAY = date(2026, 11, 27)
WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")


def git(folder: Path, *arguments: str) -> None:
    command = [require_program("git"), "-C", str(folder), *WHO, *arguments]
    subprocess.run(command, check=True, capture_output=True)


def changelog(heading: str, words: str = "- Something.") -> str:
    return f"# Changelog\n\n{heading}\n\n{words}\n\n## [0.1.0] - 2026-01-01\n\n- First.\n"


def test_a_changed_tree_an_unknown_file_and_a_missing_tag_are_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("1")
    with pytest.raises(Unfit, match=r"\?\? file"):
        check_tree(tmp_path, "")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    assert check_tree(tmp_path, "").version.startswith("0.0.dev1+g")
    with pytest.raises(Unfit, match=r"git tag -a v0\.2\.0"):
        check_tree(tmp_path, "0.2.0")
    git(tmp_path, "tag", "v0.2.0")
    assert check_tree(tmp_path, "0.2.0").version == "0.2.0"
    (tmp_path / "file").write_text("2")
    with pytest.raises(Unfit, match="files differ"):
        check_tree(tmp_path, "0.2.0")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (changelog("## [Unreleased]"), "no section `## .0.2.0. - 2026-11-27`"),
        (changelog("## [0.2.0]"), "no section"),
        (changelog("## [0.2.0] - soon"), "soon is no date"),
        (changelog("## [0.2.0] - 2026-13-01"), "is no date"),
        (changelog("## [0.2.0] - 2026-11-28"), "in the future"),
        (changelog("## [0.2.0] - 2026-11-27", words=""), "no section"),
        (changelog("## [0x2.0] - 2026-11-27"), "no section"),
    ],
)
def test_a_changelog_without_a_dated_section_with_words_is_refused(text: str, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        check_changelog(text, "0.2.0", TODAY)


def test_a_changelog_that_is_ready_passes_and_a_rehearsal_wants_what_is_unreleased() -> None:
    check_changelog(changelog("## [0.2.0] - 2026-11-27"), "0.2.0", TODAY)
    check_changelog(changelog("## [Unreleased]"), "", TODAY)
    with pytest.raises(Unfit, match="Unreleased"):
        check_changelog("# Changelog\n", "", TODAY)


def test_an_interpreter_that_does_not_run_is_none_and_the_newest_that_runs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "none"))
    assert newest_python("3.11") == "3.11"
    for number, said in (("3.12", "echo 3.12"), ("3.13", "exit 127"), ("3.14", "echo 3.14")):
        program = tmp_path / f"python{number}"
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
    assert find_python("3.13") is None
    assert newest_python("3.11") == "3.12"  # pyproject.toml allows no 3.14


def test_of_the_locked_packages_those_of_the_product_are_taken_with_their_hashes() -> None:
    text = "# words\na==1 \\\n    --hash=sha256:aa\nb-b==2 ; x \\\n    --hash=sha256:bb\n"
    assert locked_lines(text, {"b-b"}) == "b-b==2 ; x \\\n    --hash=sha256:bb\n"
    assert locked_lines(text) == text.removeprefix("# words\n")

"""The commit hooks say what a developer types: each is a word of the Makefile, and nothing comes from the network."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import require_program

ROOT = Path(__file__).parents[2]


def hooks() -> list[dict[str, Any]]:
    repositories: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    found: list[dict[str, Any]] = repositories[0]["hooks"]
    return found


def lines_of(word: str) -> list[str]:
    """The command lines behind one word of the Makefile."""
    make = [require_program("make"), "--dry-run", "--no-print-directory", "--old-file=.venv/.installed", word]
    return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_every_hook_is_a_word_of_the_makefile() -> None:
    words = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for hook in hooks():
        program, word = hook["entry"].split()
        assert (program, hook["language"], hook["pass_filenames"]) == ("make", "system", False)
        assert word in words


def test_a_commit_waits_for_all_of_make_check_but_the_types() -> None:
    (quick,) = [hook["entry"].split()[1] for hook in hooks() if hook["stages"] == ["pre-commit"]]
    left_out = set(lines_of("check")) - set(lines_of(quick))
    assert set(lines_of(quick)) < set(lines_of("check"))
    assert left_out == {".venv/bin/mypy"}

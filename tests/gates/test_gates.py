"""Every gate of `make check` accepts the tree as it is and refuses a fault planted in it.

A gate that accepts everything looks like a gate that has nothing to say. The command lines are the Makefile's own, and
the folders and import contracts are those of the repository, so that a new one without a refused fault fails here.
"""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_program

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
CONTRACTS: list[dict[str, Any]] = SETTINGS["importlinter"]["contracts"]
UNANNOTATED = frozenset({"tests"})
"""Folders where mypy checks bodies and asks for no annotations."""

PYTHON_FAULTS = {
    "ruff format": ("x = {  'a':1}\n", "File would be reformatted\n *--> {path}:1:"),
    "ruff check": ("import os\n", r"F401 (.*\n)+? *--> {path}:1:"),
    "mypy": (
        'def planted(value):\n    number: int = "text"\n    return value\n',
        r"{path}:2: error: Incompatible types",
    ),
    "codespell": ("# " + "te" + "h" + " order of letters\n", "{path}:1: "),
}
"""By gate: a file that it refuses, and what it then says about it."""


@cache
def folders() -> list[str]:
    """Every top-level folder with Python in it, but those that git ignores."""
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.endswith("/")}
    return sorted({path.relative_to(ROOT).parts[0] for path in ROOT.glob("[!.]*/**/*.py")} - ignored)


@cache
def gates() -> dict[str, str]:
    """The command lines of `make check`, by tool."""
    make = [require_program("make"), "--dry-run", "--no-print-directory", "--old-file=.venv/.installed", "check"]
    lines = subprocess.run(make, cwd=ROOT, env=_plain(), capture_output=True, text=True, check=True).stdout.splitlines()
    return {_name(line): line for line in lines}


def _name(line: str) -> str:
    program, word, *_ = [*shlex.split(line), ""]
    name = Path(program).name
    return f"{name} {word}" if name == "ruff" else name


def _plain() -> dict[str, str]:
    """An environment in which tools print plain text, and a make that runs this test passes nothing on."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))} | {
        "COLUMNS": "400",
        "NO_COLOR": "1",
    }


class Tree:
    """A copy of what `make check` reads, with the real tools beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in folders():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"):
            shutil.copy2(path, folder)
        (folder / ".venv").symlink_to(ROOT / ".venv")
        if (ROOT / ".mypy_cache").exists():  # a first run takes half a minute, a second one a second
            shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")

    def say(self, line: str) -> tuple[int, str]:
        """Exit status and output of one line of the Makefile."""
        shell = ["/bin/sh", "-c", line]
        answer = subprocess.run(shell, cwd=self.folder, env=_plain(), capture_output=True, text=True, check=False)
        return answer.returncode, answer.stdout + answer.stderr

    @contextmanager
    def planted(self, faults: dict[str, str]) -> Iterator[None]:
        """Append each text to the file of that name, which need not exist, and take it back."""
        before = {name: path.read_bytes() if (path := self.folder / name).exists() else None for name in faults}
        try:
            for name, text in faults.items():
                with (self.folder / name).open("a", encoding="utf-8") as file:
                    file.write(text)
            yield
        finally:
            for name, data in before.items():
                if data is None:
                    (self.folder / name).unlink()
                else:
                    (self.folder / name).write_bytes(data)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    if not (ROOT / ".venv" / ".installed").exists():
        pytest.skip("the gates are those that `make setup` installs")
    return Tree(tmp_path_factory.mktemp("tree"))


@pytest.mark.parametrize("gate", [*PYTHON_FAULTS, "lint-imports"])
def test_a_gate_accepts_the_tree_as_it_is(tree: Tree, gate: str) -> None:
    status, said = tree.say(gates()[gate])
    assert status == 0, said


def test_every_gate_has_a_planted_fault() -> None:
    assert set(gates()) == {*PYTHON_FAULTS, "lint-imports"}


@pytest.mark.parametrize("gate", PYTHON_FAULTS)
def test_a_fault_is_refused_in_every_folder(tree: Tree, gate: str) -> None:
    text, expected = PYTHON_FAULTS[gate]
    paths = [f"{folder}/planted_fault.py" for folder in folders()]
    with tree.planted(dict.fromkeys(paths, text)):
        status, said = tree.say(gates()[gate])
    assert status != 0
    assert [path for path in paths if not re.search(expected.format(path=path), said)] == []


def test_a_missing_annotation_is_refused_in_every_folder_but_the_tests(tree: Tree) -> None:
    paths = {f"{folder}/planted_fault.py" for folder in folders()}
    with tree.planted(dict.fromkeys(paths, "def planted(value):\n    return value\n")):
        _, said = tree.say(gates()["mypy"])
    refused = set(re.findall(r"^(\S+):1: error: Function is missing a type annotation", said, re.MULTILINE))
    assert refused == {path for path in paths if path.split("/")[0] not in UNANNOTATED}


@pytest.mark.parametrize("name", ["README.md", "deploy/planted.md"])
def test_spelling_is_refused_in_documents_too(tree: Tree, name: str) -> None:
    with tree.planted({name: "\n" + PYTHON_FAULTS["codespell"][0]}):
        status, said = tree.say(gates()["codespell"])
    assert status != 0
    assert name in said


# -- imports -------------------------------------------------------------------------------------------------------


def file_of(module: str) -> str:
    """The file that a module's own statements stand in."""
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def imports_forbidden_by(contract: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Imports that a contract must refuse, as importer and imported."""
    if contract["type"] == "forbidden":
        sources, forbidden = contract["source_modules"], contract["forbidden_modules"]
        yield from ((source, forbidden[0]) for source in sources)
        yield from ((sources[0], module) for module in forbidden[1:])
    elif contract["type"] == "layers":
        for container in contract.get("containers", [""]):
            prefix = f"{container}." if container else ""
            layers = [[f"{prefix}{name.strip()}" for name in layer.split("|")] for layer in contract["layers"]]
            for above, below in pairwise(layers):
                yield from ((low, above[0]) for low in below)
            for layer in layers:
                yield from ((one, layer[0]) for one in layer[1:])
    else:
        pytest.fail(f"write down what a contract of type {contract['type']} must refuse")


def reported_of(contract: str, said: str) -> str:
    """What lint-imports says of one broken contract: from its underlined name to the next underlined name."""
    parts = re.split(r"^(.+)\n-+\n", said, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(contract, "")


@pytest.mark.parametrize("contract", CONTRACTS, ids=[contract["name"] for contract in CONTRACTS])
def test_an_import_contract_is_broken_by_each_import_that_it_forbids(tree: Tree, contract: dict[str, Any]) -> None:
    pairs = list(imports_forbidden_by(contract))
    faults: dict[str, str] = {}
    for importer, imported in pairs:
        faults[file_of(importer)] = faults.get(file_of(importer), "") + f"\nimport {imported}\n"
    with tree.planted(faults):  # all at once: one run takes a second, and it names each import by itself
        status, said = tree.say(gates()["lint-imports"])
    assert status != 0
    report = reported_of(contract["name"], said)
    named = set(re.findall(r"^- +(\S+) -> (\S+) \(", report, flags=re.MULTILINE))
    assert [pair for pair in pairs if pair not in named] == []


@pytest.mark.parametrize(
    ("contract", "container"),
    [(one["name"], container) for one in CONTRACTS if one.get("exhaustive") for container in one["containers"]],
)
def test_a_module_without_a_layer_breaks_its_contract(tree: Tree, contract: str, container: str) -> None:
    with tree.planted({f"{container.replace('.', '/')}/planted_module.py": ""}):
        status, said = tree.say(gates()["lint-imports"])
    assert status != 0
    assert f"{contract} BROKEN" in said
    assert "planted_module" in said

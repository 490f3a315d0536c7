"""A wheel as a hospital installs it: in an environment of its own, with locked packages, far from any checkout."""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from deploy.release.lock import LOCKED, TORCH
from deploy.release.sbom import ROOT, product_packages
from node.version import Build

# What the tests read beside themselves: settings of pytest, documents, and the licence of the product.
_BESIDE_TESTS: Final = ("tests", "docs", "deploy", "bench", "pyproject.toml", LOCKED, TORCH)
TESTS: Final = ("tests/unit", "tests/slice/test_demo.py")
# Without torch: what loads no model.
TESTS_WITHOUT_TORCH: Final = ("tests/unit/config", "tests/unit/storage", "tests/unit/node")


def newest_python(oldest: str) -> str:
    """The newest 3.N that pyproject.toml allows and that this machine has; `oldest` where it has no newer one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = SpecifierSet(project["requires-python"])
    first = int(oldest.split(".")[1])
    for minor in range(first + 20, first, -1):
        if f"3.{minor}" in allowed and find_python(f"3.{minor}"):
            return f"3.{minor}"
    return oldest


def python_of(number: str) -> Path:
    """An interpreter of this version; raises FileNotFoundError."""
    if (found := find_python(number)) is None:
        raise FileNotFoundError(f"there is no python{number} on PATH or among pyenv's")
    return found


def find_python(number: str) -> Path | None:
    """The first pythonX.Y that runs: on PATH, or among pyenv's, whose own entry on PATH may run no version at all."""
    name = f"python{number}"
    on_path = [Path(folder) / name for folder in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for one in (*on_path, *sorted(pyenv.glob(f"{number}.*/bin/{name}"), reverse=True)):
        if os.access(one, os.X_OK) and _version_of(one) == number:
            return one
    return None


def _version_of(python: Path) -> str:
    command = [str(python), "-c", "import sys, venv; print('{}.{}'.format(*sys.version_info))"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def locked_lines(text: str, names: set[str] | None = None) -> str:
    """The entries of constraints.txt for these packages, with their hashes; None for all."""
    entries = re.split(r"\n(?=\S)", text)
    return "".join(
        f"{entry.rstrip()}\n"
        for entry in entries
        if not entry.startswith("#") and (names is None or canonicalize_name(entry.split("==")[0]) in names)
    )


@dataclass(frozen=True)
class Trial:
    """An environment in `folder` with the wheel in it; has_torch: whether a model can be run there."""

    folder: Path
    python: Path
    has_torch: bool

    @classmethod
    def install(cls, folder: Path, python: Path, wheel: Path, *, with_torch: bool) -> "Trial":
        """Install the wheel and the packages of the product, each with the hash that is known of it, but torch."""
        subprocess.run([str(python), "-m", "venv", str(folder / "venv")], check=True)
        trial = cls(folder, folder / "venv" / "bin" / "python", with_torch)
        locked = (ROOT / LOCKED).read_text(encoding="utf-8")
        (folder / "product.txt").write_text(locked_lines(locked, product_packages()), encoding="utf-8")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        (folder / "wheel.txt").write_text(f"syncect @ {wheel.as_uri()} --hash=sha256:{digest}\n", encoding="utf-8")
        trial._pip("--no-deps", "--require-hashes", "--requirement", str(folder / "product.txt"))
        if with_torch:
            trial._pip("--requirement", str(ROOT / TORCH))
        trial._pip("--no-deps", "--require-hashes", "--requirement", str(folder / "wheel.txt"))
        return trial

    def run(self, build: Build) -> None:
        """Try commands, demo and tests; raises CalledProcessError, and AssertionError for a wrong version."""
        empty = self.folder / "empty"
        empty.mkdir()
        (empty / "data").mkdir()
        (empty / "node.toml").write_text('[node]\ndata_dir = "data"\n', encoding="utf-8")
        said = self._say(empty, "-m", "node.cli", "--version").splitlines()
        assert said[:2] == [f"syncect {build.version}", f"commit {build.commit}"], said
        assert self.folder.as_posix() in self._say(empty, "-c", "import node; print(node.__file__)")
        looks_for_a_device = [["config", "validate"]] if self.has_torch else []
        for words in (["db", "upgrade"], ["jobs", "ls"], *looks_for_a_device):
            self._say(empty, "-m", "node.cli", "--config", "node.toml", *words)
        if self.has_torch:
            print(self._say(empty, "-m", "node.cli", "demo", "--out", str(self.folder / "demo-out")))
        self._run_tests()

    def _run_tests(self) -> None:
        """The tests of the installed product: beside them lie documents and settings, and no source of the product."""
        self._pip("--no-deps", "--require-hashes", "--requirement", str(ROOT / LOCKED))
        place = self.folder / "tests-only"
        place.mkdir()
        for name in (*_BESIDE_TESTS, *(path.name for path in ROOT.glob("*.md"))):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, place)
        chosen = TESTS if self.has_torch else TESTS_WITHOUT_TORCH
        tail = self._say(place, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--durations=0", *chosen)
        print(f"Python {self._say(place, '-V').strip()}: {tail.strip().splitlines()[-1]}")

    def _pip(self, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        subprocess.run(command, cwd=self.folder, check=True)

    def _say(self, folder: Path, *arguments: str) -> str:
        """What a command of this environment prints, with nothing of the caller's environment."""
        environment = {"PATH": os.defpath, "HOME": str(self.folder), "LANG": "C.UTF-8"}
        command = [str(self.python), *arguments]
        answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if answer.returncode:
            print(answer.stdout[-6000:], answer.stderr[-3000:])
            raise subprocess.CalledProcessError(answer.returncode, command)
        return answer.stdout

"""What an installation consists of: the built wheel, and what happens beside other packages of the same names."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from node.version import find_build

ROOT = Path(__file__).parents[2]
PACKAGES = {"config", "models", "node", "storage"}


def syncect(*arguments: str, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command with the packages of `path` before all others, in an empty folder."""
    command = [sys.executable, "-P", "-m", "node.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(path), "SYNCECT_NODE__DATA_DIR": str(folder / "data")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer does it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_four_packages_and_nothing_else(wheel: Path) -> None:
    assert {path.name for path in wheel.iterdir()} == {*PACKAGES, f"syncect-{find_build().version}.dist-info"}


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    for package in PACKAGES:
        files = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()}
        ours = {path for path in files if "__pycache__" not in path.parts}
        assert {path for path in ours if not (wheel / path).is_file()} == set()


def test_an_installed_wheel_says_the_version_and_commit_of_its_build(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    install = ["-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--no-deps", "--no-index", "--quiet"]
    (file,) = (wheel.parent / "dist").glob("*.whl")
    subprocess.run([sys.executable, *install, str(file)], check=True, capture_output=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # a path alone: no .pth there is read
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    command = [str(venv / "bin" / "syncect"), "--version"]
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    build, said = find_build(), answer.stdout.splitlines()
    assert said[0] == f"syncect {build.version}"
    assert said[1].startswith(f"commit {build.commit or 'unknown'}")
    assert not any("a checkout" in line for line in said)
    assert sum(line.startswith("shipped bundle ") for line in said) == 2


def test_the_wheel_alone_makes_a_store_and_checks_its_bundle(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for arguments in (["db", "upgrade"], ["config", "validate"], ["jobs", "ls"]):
        answer = syncect(*arguments, path=wheel, folder=tmp_path)
        assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("name", sorted(PACKAGES - {"node"}))
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_a_foreign_package_of_the_same_name_is_refused_and_not_run(tmp_path: Path, name: str, form: str) -> None:
    foreign = tmp_path / "foreign" / form.format(name)
    foreign.parent.mkdir(parents=True)
    foreign.write_text("print('the foreign package ran')\n")
    answer = syncect("config", "init", path=tmp_path / "foreign", folder=tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"syncect: Python finds a package `{name}` that is not syncect's ({foreign});")
    assert len(answer.stderr.splitlines()) == 1

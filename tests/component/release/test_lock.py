"""constraints.txt names what pyproject.toml needs, with hashes, and pip takes nothing else for it."""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.release.lock import CUDA, LOCKED, ROOT, TORCH, pins, split, unhashed

COMPILED = """\
numpy==2.4.6 ; sys_platform == 'linux' \\
    --hash=sha256:aa
nvidia-nccl-cu13==2.29.7 ; (platform_machine == 'x86_64') and sys_platform == 'linux' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
torch==2.13.0 ; sys_platform == 'linux' \\
    --hash=sha256:dd
torchmetrics==1.9.0
"""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_requirement_is_locked_within_what_pyproject_allows_and_has_hashes() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    build = tomllib.loads(text("pyproject.toml"))["build-system"]["requires"]
    locked = {**pins(text(LOCKED)), **pins(text(TORCH))}
    wanted = [
        *project["dependencies"],
        *build,
        *(one for rest in project["optional-dependencies"].values() for one in rest),
    ]
    for one in map(Requirement, wanted):
        assert locked[canonicalize_name(one.name)] in one.specifier, f"{one}: say `make constraints`"
    assert unhashed(text(LOCKED)) == unhashed(text(CUDA)) == []
    assert "torch" not in pins(text(LOCKED))
    assert pins(text(CUDA))["torch"] == pins(text(TORCH))["torch"]


def test_torch_and_what_only_its_gpu_build_needs_stand_apart() -> None:
    files = split(COMPILED)
    assert pins(files[LOCKED]) == {"numpy": "2.4.6", "torchmetrics": "1.9.0"}
    assert pins(files[CUDA]) == {"nvidia-nccl-cu13": "2.29.7", "torch": "2.13.0"}
    assert "sys_platform" not in files[LOCKED] + files[CUDA]
    assert "nvidia-nccl-cu13==2.29.7 ; (platform_machine == 'x86_64') \\\n    --hash=sha256:bb" in files[CUDA]
    assert unhashed(files[LOCKED]) == ["torchmetrics"]
    assert unhashed(files[CUDA]) == []


def test_pip_refuses_a_package_whose_file_is_not_the_locked_one(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "idna"\nversion = "1"\n[tool.hatch.build.targets.wheel]\nbypass-selection = true\n'
    )
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "locked.txt").write_text(f"idna==1 --hash=sha256:{'0' * 64}\n")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "--no-index"]
    options = [
        "--find-links",
        str(tmp_path / "dist"),
        "--target",
        str(tmp_path / "into"),
        "--requirement",
        "locked.txt",
    ]
    answer = subprocess.run([*pip, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (answer.returncode, "DO NOT MATCH THE HASHES" in answer.stderr) == (1, True), answer.stderr

"""The container's steps without a container engine: installed and run with nothing of this checkout's environment."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.ops.supervisor import GRACE_S
from tests.deploy.kit import DEPLOY, ROOT, context_paths, read, unknown_command, unknown_variables
from tests.slice.harness import dcmtk, free_port, wait_for

CONTAINERFILE = "container/Containerfile"


def instruction(name: str) -> str:
    """What the last stage says after the last instruction of this name."""
    text = read(CONTAINERFILE).replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)[-1].strip()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that install.sh made of what the build gets; its packages are those of this environment.

    They are named by a .pth file, so that pip finds every requirement already satisfied and downloads nothing.
    """
    folder = tmp_path_factory.mktemp("container")
    source, prefix, work, home = (folder / name for name in ("src", "prefix", "work", "home"))
    home.mkdir()
    for path in context_paths():
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy2
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / path, source / path)
    python = Path(sys.executable).resolve()
    for environment in (prefix, work / "build"):
        subprocess.run([str(python), "-m", "venv", *_pip_or_not(environment), str(environment)], check=True)
        (site,) = environment.glob("lib/python*/site-packages")
        (site / "there.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [source / "deploy/container/install.sh", source, prefix, work]
    answer = subprocess.run(
        command, cwd=home, env=_clean(home, PYTHON=str(python)), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert not (source / "dist").exists()
    return folder


def _pip_or_not(environment: Path) -> list[str]:
    return [] if environment.name == "build" else ["--without-pip"]


def _clean(home: Path, **more: str) -> dict[str, str]:
    """An environment of nothing but this."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "OMP_NUM_THREADS": "1", **more}


def test_the_installation_is_its_own_and_holds_no_build_tool(installed: Path) -> None:
    code = "import node, models, config, storage; print(*(m.__file__ for m in (node, models, config, storage)))"
    command = [str(installed / "prefix/bin/python"), "-c", code]
    answer = subprocess.run(
        command, cwd=installed / "home", env=_clean(installed), capture_output=True, text=True, check=True
    )
    assert all(path.startswith(str(installed / "prefix")) for path in answer.stdout.split()), answer.stdout
    assert {path.name for path in (installed / "prefix/bin").iterdir() if "pip" in path.name} == set()


@pytest.fixture
def serving(installed: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str], int]]:
    """The installed node with no settings file, as ENTRYPOINT and CMD of the image start it."""
    port = free_port()
    environment = _clean(
        tmp_path,
        PATH=f"{installed / 'prefix/bin'}:/usr/bin:/bin",
        SYNCECT_NODE__DATA_DIR=str(tmp_path / "data"),
        SYNCECT_SCP__HOST="127.0.0.1",
        SYNCECT_SCP__PORT=str(port),
        SYNCECT_WEB__PORT=str(free_port()),
        SYNCECT_RETENTION__MIN_FREE_GB="0.05",
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["syncect", "serve"], cwd=tmp_path, env=environment, stderr=log, process_group=0)
    yield process, environment, port
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_installed_node_answers_is_healthy_and_ends_at_sigterm(installed: Path, serving, tmp_path: Path) -> None:
    process, environment, port = serving

    def code(*command: str | Path) -> int:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode

    alive = (installed / "prefix/bin/python", DEPLOY / "container/alive.py")
    assert code(*alive) == 1  # nothing runs yet
    wait_for("an answer", lambda: code(dcmtk("echoscu"), "-aec", "SYNCECT", "127.0.0.1", str(port)) == 0)
    wait_for("health", lambda: code(DEPLOY / "container/healthcheck.sh") == 0)
    assert code(*alive) == 0
    process.terminate()
    assert process.wait(GRACE_S + 10) == 0
    assert code(DEPLOY / "container/healthcheck.sh") == 1
    assert code(*alive) == 1


@pytest.mark.parametrize(("status", "health"), [(0, 0), (1, 0), (2, 1), (127, 1)])
def test_a_degraded_node_is_healthy_and_one_that_is_down_is_not(tmp_path: Path, status: int, health: int) -> None:
    fake = tmp_path / "syncect"
    fake.write_text(f"#!/bin/sh\nexit {status}\n")
    fake.chmod(0o755)
    answer = subprocess.run([DEPLOY / "container/healthcheck.sh"], env={"PATH": f"{tmp_path}:/bin"}, check=False)
    assert answer.returncode == health


def test_the_last_stage_runs_as_a_user_without_rights_and_without_build_tools() -> None:
    last = read(CONTAINERFILE).split("\nFROM ")[-1]
    assert instruction("USER") == "11112:11112"
    assert "python3-venv" not in last
    assert "pip" not in last
    assert instruction("ENTRYPOINT").startswith('["/usr/bin/tini"')  # takes in what nobody waits for
    assert unknown_variables(read(CONTAINERFILE)) == set()
    assert unknown_command([word.strip('" []') for word in instruction("CMD").split(",")]) == ""
    assert instruction("EXPOSE") == "11112 11180"


def test_the_scripts_are_executable_and_the_shell_understands_them() -> None:
    scripts = sorted(DEPLOY.rglob("*.sh"))
    assert len(scripts) >= 4
    for script in scripts:
        assert os.access(script, os.X_OK), script
        subprocess.run(["sh", "-n", script], check=True)


def test_an_engine_builds_and_starts_it(tmp_path: Path) -> None:
    """Only where Docker works; what the tests before this one cannot see is the engine's part."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no Docker daemon answers")
    build = [docker, "build", "--quiet", "--file", str(DEPLOY / CONTAINERFILE), str(ROOT)]
    image = subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip()
    run = [docker, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop=ALL", image]
    answer = subprocess.run([*run, "config", "validate"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr

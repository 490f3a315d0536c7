"""The runbook's commands: what this machine can do is done, in the order of the page; what it cannot is named here."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from node.cli import run_command
from node.operate.doctor.table import CHECKS
from tests.conftest import require_program
from tests.deploy.kit import DEPLOY, read, unknown_command

# The first word of a line, and why no test types it.
NOT_RUN = {
    "apt-get": "changes the machine",
    "TORCH_INDEX=https://download.pytorch.org/whl/cpu": "downloads; test_container.py runs the script",
    "rm": "follows it",
    "install": "writes outside the test's folder",
    "chgrp": "the group exists only on the node's machine",
    "systemd-sysusers": "makes a user",
    "systemd-tmpfiles": "makes folders of the machine",
    "systemctl": "needs systemd as process 1",
    "docker": "needs a daemon",
    "deploy/compose/secrets.sh": "test_compose.py runs it",
    "kubectl": "needs a cluster",
}
NOT_TYPED = {
    "syncect users add": "asks for a password at a terminal",
    "syncect peers echo": "needs the TPS",
    "syncect alerts test": "needs a mail server",
    "syncect restore": "this node is not lost; test_backup.py destroys one",
}
ANSWERS = {"status": {0, 1, 2}, "doctor": {0, 1, 2}}  # all others: 0
BLOCKS = re.findall(r"^```sh\n(.*?)^```", read("runbook.md"), re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]


def syncect_words(line: str) -> list[str]:
    words = shlex.split(line)
    if "=" in words[0]:
        del words[0]
    return words[1:] if Path(words[0]).name == "syncect" else []


def test_every_command_of_the_page_exists() -> None:
    inline = re.findall(r"`(?:[A-Z_]+=\S+ )?syncect ([^`@]+)`", read("runbook.md"))
    found = [line.split() for line in inline] + [words for line in LINES if (words := syncect_words(line))]
    assert len(found) > 25
    assert {" ".join(words): wrong for words in found if (wrong := unknown_command(words))} == {}


def test_every_line_is_run_or_its_reason_is_given() -> None:
    firsts = {shlex.split(line)[0] for line in LINES}
    ours = {"syncect", "openssl", "chmod", "deploy/certificates.sh", "/opt/syncect/bin/syncect"}
    assert firsts == ours | set(NOT_RUN)
    assert all(any(line.startswith(start) for line in LINES) for start in NOT_TYPED)


def test_the_lines_that_can_be_run_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_program("openssl")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "etc/syncect").mkdir(parents=True)
    (tmp_path / "data").mkdir()  # systemd-tmpfiles makes it
    settings = tmp_path / "etc/syncect/node.toml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCECT_NODE__DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("node.operate.doctor.run.CHECKS", [one for one in CHECKS if one.name != "device"])
    assert typed(["db", "upgrade"], monkeypatch) == 0  # as `serve` does
    done = 0
    for line in LINES:
        if shlex.split(line)[0] in NOT_RUN or any(line.startswith(start) for start in NOT_TYPED):
            continue
        if settings.exists():
            monkeypatch.setenv("SYNCECT_CONFIG", str(settings))
        here = re.sub("(/etc|/var/backups)/syncect", rf"{tmp_path}\g<0>", line)
        words = syncect_words(here)
        code = typed(words, monkeypatch) if words else subprocess.run(["sh", "-c", here], check=False).returncode
        assert code in ANSWERS.get(words[0] if words else "", {0}), line
        done += 1
    assert done >= 14


def typed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `syncect WORDS...`, called in this process: to start a Python for each costs half a minute."""
    monkeypatch.setattr("sys.argv", ["syncect", *words])
    return run_command()


@pytest.mark.parametrize(("uid", "before"), [("0", "runuser -u syncect -- "), ("1000", "")])
def test_the_command_has_the_units_settings_and_works_as_the_nodes_user(tmp_path: Path, uid: str, before: str) -> None:
    for name, does in (
        ("id", f"echo {uid}"),
        ("runuser", 'echo runuser "$@"; env'),
        ("syncect", 'echo "$0" "$@"; env'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "command").write_text(read("systemd/syncect.sh").replace("/opt/syncect/bin", str(tmp_path)))
    answer = subprocess.run(
        ["sh", tmp_path / "command", "jobs", "why", "a b"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = answer.stdout.splitlines()
    assert said[0] == f"{before}{tmp_path}/syncect jobs why a b"
    (variables,) = re.findall(r"^Environment=(SYNCECT_CONFIG.*)$", read("systemd/syncect.service"), re.MULTILINE)
    assert set(variables.split()) <= set(said)


@pytest.mark.parametrize("page", ["runbook.md"])
def test_every_link_leads_to_a_file(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)", read(page))
    assert {target for target in targets if not (DEPLOY / target).exists()} == set()

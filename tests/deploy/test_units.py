"""The systemd units: hardened, understood by systemd, and true to what the product has."""

import re
import subprocess
from pathlib import Path

import pytest

from node.ops.health import ROLES
from node.ops.supervisor import GRACE_S
from tests.conftest import require_program
from tests.deploy.kit import DEPLOY, read, unknown_command, unknown_variables

UNITS = ("syncect.service", "syncect@.service", "syncect-backup.service")
SERVERS = UNITS[:2]


def directive(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", read(f"systemd/{unit}"), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS)
def test_the_exposure_is_below_3(unit: str) -> None:
    analyze = require_program("systemd-analyze")
    command = [analyze, "security", "--offline=true", "--threshold=29", "--no-pager", f"./{unit}"]
    answer = subprocess.run(command, cwd=DEPLOY / "systemd", capture_output=True, text=True, check=False)
    assert answer.returncode == 0, "\n".join(line for line in answer.stdout.splitlines() if "✓" not in line)


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    analyze = require_program("systemd-analyze")
    for path in (DEPLOY / "systemd").glob("syncect*.[st][ei][rm]*"):
        text = path.read_text(encoding="utf-8").replace("/opt/syncect/bin/syncect", "/bin/true")
        (tmp_path / path.name).write_text(text)
    names = ["syncect.service", "syncect-backup.service", "syncect-backup.timer"]
    names += [f"syncect@{role}.service" for role in ROLES]
    command = [analyze, "verify", "--man=no", *(f"./{name}" for name in names)]
    for name in names:  # systemd wants a file for what stands in the command line
        if "@" in name:
            (tmp_path / name).write_text((tmp_path / "syncect@.service").read_text())
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_the_hardening_is_one() -> None:
    def hardening(unit: str) -> str:
        return read(f"systemd/{unit}").partition("# -- hardening")[2].partition("[Install]")[0].strip()

    assert len({hardening(unit) for unit in UNITS}) == 1
    assert len(hardening(UNITS[0])) > 500


@pytest.mark.parametrize("unit", UNITS)
def test_commands_and_variables_exist(unit: str) -> None:
    (start,) = directive(unit, "ExecStart")
    for role in ROLES:
        words = start.replace("%i", role).replace("$ROLE_OPTIONS", "").split()
        assert words[0] == "/opt/syncect/bin/syncect"
        assert unknown_command(words[1:]) == ""
    assert unknown_variables(read(f"systemd/{unit}")) == set()


@pytest.mark.parametrize("unit", SERVERS)
def test_the_end_of_a_unit_leaves_the_node_its_time(unit: str) -> None:
    (stop,), (kill,), (oom,) = (directive(unit, name) for name in ("TimeoutStopSec", "KillMode", "OOMPolicy"))
    assert float(stop) > GRACE_S + 5
    assert kill == "mixed"  # SIGTERM for all would end decoders, and images would be taken for the cause
    assert oom == "continue"


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_is_set_that_the_node_cannot_work_with(unit: str) -> None:
    assert directive(unit, "MemoryDenyWriteExecute") == []  # torch: "could not create a primitive"
    assert directive(unit, "PrivateDevices") == []  # a GPU
    assert directive(unit, "RestrictNamespaces") == ["user net"]  # the decoders' own network
    assert directive(unit, "ProcSubset") == []  # /proc/sys/kernel/random/boot_id


def test_settings_that_can_never_work_are_not_tried_for_ever() -> None:
    from node.cli.console import Exit

    for unit in SERVERS:
        assert directive(unit, "RestartPreventExitStatus") == [str(int(Exit.USAGE))]

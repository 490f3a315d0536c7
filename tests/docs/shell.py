"""A page's commands as one shell script, and what came of each; the words of the page decide what counts as well.

Each command must end with exit code 0, or with the one that the same line names: `# exit code 4`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.not_run import NOT_RUN
from tests.docs.pages import ROOT, Block

LIMIT_S = 180.0
PROGRAM = "syncect"  # beside the world: what the pages call, as `tests.quick` makes it
QUICK = (  # what is quick there; what is not, such as `train`, is started as a reader starts it
    "alerts",
    "audit",
    "cohort",
    "config",
    "demo",
    "doctor",
    "evaluate",
    "jobs",
    "models",
    "peers",
    "process",
    "qa",
    "series",
    "serve",
    "status",
    "support-bundle",
    "users",
)
FRESH = {"README.md", "docs/quickstart.md"}  # their reader has no node yet, and so no settings
_EXIT_CODE = re.compile(r"# (?:.*\b)?exit code (\d+)")
_SERVES = re.compile(r"^\S*syncect\b.* serve$")
_MAKE = re.compile(r"^make\b")
_PYTHON = Path(sys.executable)

# Where the node was started, until its receiver answers or has ended.
_STARTED = """\
__n=0
until {status} >/dev/null 2>&1 || [ $? -eq 1 ]; do
  kill -0 $! && [ $((__n += 1)) -lt 100 ] && sleep 0.3 || {{ cat serve.log >&2; exit 98; }}
done"""

_BEGIN = """\
trap 'for __child in $(jobs -p); do kill $__child; done 2>/dev/null; wait' EXIT
"""


@dataclass(frozen=True)
class Command:
    """One command as bash reads it, perhaps over several lines, and the exit code that the page names."""

    where: str
    text: str
    exit_code: int


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block, each as many lines as bash needs for it."""
    waiting: list[str] = []
    first = block.line
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        if not waiting and (not line.strip() or line.lstrip().startswith("#")):
            continue
        first = first if waiting else number
        waiting.append(line)
        text = "\n".join(waiting)
        if _is_whole(text):
            waiting = []
            named = _EXIT_CODE.search(line)
            yield Command(f"{block.page}:{first}", text, int(named[1]) if named else 0)
    assert not waiting, f"{block.page}:{first}: bash does not find the end of this command"


def _is_whole(text: str) -> bool:
    if text.endswith("\\"):
        return False
    if "<<" not in text and not re.search(r"[(){}'\"]|\b(do|then|else|case)\b", text):
        return True  # nothing that could be open
    answer = subprocess.run(["bash", "-n"], input=text + "\n", capture_output=True, text=True, check=False)
    return answer.returncode == 0 and "here-document" not in answer.stderr


def bare(text: str) -> str:
    """A command without the comment at its end."""
    return re.sub(r"\s+#(\s.*)?$", "", text).strip()


def script(found: list[Command]) -> str:
    """One shell for the page: what a command sets or where it goes holds for those below it."""
    return _BEGIN + "\n".join(_step(command) for command in found)


def _step(command: Command) -> str:
    text = bare(command.text)
    if text in NOT_RUN:
        text = f"( {NOT_RUN[text].command} )"
    elif _MAKE.match(text):
        text = f"make --no-print-directory --dry-run -C {ROOT} {text.removeprefix('make')} >/dev/null"
    elif _SERVES.match(text):
        text = f"{text} >>serve.log 2>&1 &\n" + _STARTED.format(status=re.sub("serve$", "status", text))
    else:
        text = command.text
    wrong = f"{command.where}: exit code $__code, not {command.exit_code}"
    return (
        f"echo '+ {command.where}' >&2\n{text}\n__code=$?\n"
        f'[ $__code -eq {command.exit_code} ] || {{ echo "{wrong}" >&2; exit 99; }}'
    )


def run_page(found: list[Command], world: Path, folder: Path) -> tuple[int, str]:
    """Run the commands of a page in a copy of the world; returns the shell's exit code and everything it printed."""
    shutil.copytree(world, folder, symlinks=True)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "syncect").symlink_to(world.with_name(PROGRAM))
    (programs / "python").symlink_to(_PYTHON)
    environment = {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        **{"HOME": str(folder), "USER": "operator", "LANG": "C.UTF-8", "TERM": "dumb", "COLUMNS": "120"},
        **{"SYNCECT_CONFIG": str(folder / "node.toml"), "OMP_NUM_THREADS": "1", "REPOSITORY": str(ROOT)},
        "SERIES_UID": (world / "series-uid.txt").read_text(),
    }
    if found[0].where.rpartition(":")[0] in FRESH:
        (folder / "node.toml").unlink()
        del environment["SYNCECT_CONFIG"]
    shell = [*_alone(), "bash", "-c", script(found)]
    try:
        ended = subprocess.run(
            shell, cwd=folder, env=environment, stdin=-3, stdout=-1, stderr=-2, timeout=LIMIT_S, check=False
        )
        return ended.returncode, ended.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        return 124, (late.stdout or b"").decode(errors="replace")


def _alone() -> list[str]:
    """In a network of its own, where the machine allows that: fixed ports collide with nothing, and nothing leaves."""
    alone = ["unshare", "--net", *([] if os.getuid() == 0 else ["--map-root-user"])]
    inside = [*alone, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        return []
    return inside if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0 else []

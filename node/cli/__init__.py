"""The entry of the `syncect` command; it loads nothing of ours but the boundary that turns errors into sentences."""

import gc
import sys
from importlib.util import find_spec
from pathlib import Path

# Other projects have packages of these names too. One that Python finds before ours must not run in our place, and it
# would with the first import below; looking for a package does not run it.
for _name in ("config", "models", "storage"):
    _found = find_spec(_name)
    _place = (_found and _found.origin) or ""
    if Path(_place).parent.parent != Path(__file__).parents[2]:
        sys.exit(
            f"syncect: Python finds a package `{_name}` that is not syncect's ({_place}); start syncect in another "
            "folder, without PYTHONPATH, and from a Python environment of its own"
        )


def main() -> None:
    """Be the process of one command; whatever goes wrong becomes one sentence on standard error and an exit code."""
    # Nothing that an import makes is garbage: until the command runs, Python does not look for any. Nor does it look
    # through everything at the end, when the system takes back all. Both were a third of the time of a short command.
    gc.disable()
    code = run_command()
    gc.freeze()
    sys.exit(code)


def run_command() -> int:
    """Run the command that was typed, in a process that may go on afterwards; its exit code."""
    try:
        from node.cli.boundary import run

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("syncect: interrupted\n")
        return 130

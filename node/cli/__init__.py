"""The `syncect` command is put together here; every expected error gets its exit code."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

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

# isort: split
from config.load import CONFIG_VARIABLE, ConfigError
from models.errors import ModelsError
from models.process import settle_process
from node.cli import cohort, evaluate, jobs, models_cli, process, service, setup, status, train
from node.cli.console import Exit, say
from node.errors import Misconfigured, NodeError, Refused
from storage.errors import IllegalTransition, NotFound, StorageError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="A DICOM node that gives planning a synthetic contrast-enhanced CT beside the non-contrast one.",
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 refused for safety, 5 peer unreachable.",
)


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help=f"Settings file; otherwise {CONFIG_VARIABLE}.", metavar="FILE")
    ] = None,
) -> None:
    """Keep the settings file for the command that follows."""
    context.obj = config


service.add_to(app)
status.add_to(app)
process.add_to(app)
setup.add_to(app)
models_cli.add_to(app)
cohort.add_to(app)
train.add_to(app)
evaluate.add_to(app)
app.add_typer(jobs.app, name="jobs")


def main() -> None:
    """Run one command; every expected error becomes one sentence on standard error and its exit code."""
    settle_process()
    try:
        app()
    except (ConfigError, Misconfigured) as error:
        _leave(error, Exit.USAGE)
    except NotFound as error:
        _leave(error, Exit.NOT_FOUND)
    except (Refused, IllegalTransition) as error:
        _leave(error, Exit.REFUSED)
    except (NodeError, StorageError, ModelsError) as error:
        _leave(error, Exit.ERROR)


def _leave(error: Exception, code: Exit) -> None:
    say(f"syncect: {error}")
    sys.exit(code)

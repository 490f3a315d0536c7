"""`config` writes, shows and checks the settings."""

import importlib.resources
from pathlib import Path
from typing import Annotated

import typer

from config.load import ConfigError
from node.cli.console import ConfigOption, Exit, JsonOption, print_json, say, settings_from, write
from node.errors import Refused
from node.operate.settings_view import shown_settings

config_app = typer.Typer(no_args_is_help=True, help="Write, show and check the settings file.")


@config_app.command("init")
def init(
    target: Annotated[Path | None, typer.Argument(help="File to write; standard output without one.")] = None,
) -> None:
    """Write a commented settings file with every key at its default; never overwrites."""
    text = importlib.resources.files("config").joinpath("default.toml").read_text(encoding="utf-8")
    if target is None:
        write(text)
        return
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Refused(f"{target} exists and is not overwritten") from error
    say(f"wrote {target}; edit it, then run `syncect --config {target} config validate`")


@config_app.command("show")
def show(context: typer.Context, config: ConfigOption = None) -> None:
    """Print the settings in force as JSON, the database's password and the path of the webhook masked."""
    settings = settings_from(context, config)
    print_json(shown_settings(settings))


@config_app.command("validate")
def validate(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Check the settings and what they mean on this machine; all mistakes at once, exit code 2 if there are any."""
    mistakes, warnings = findings(context, config)
    if as_json:
        print_json({"valid": not mistakes, "mistakes": mistakes, "warnings": warnings})
    else:
        for text in mistakes:
            say(f"syncect: {text}")
        for text in warnings:
            say(f"warning: {text}")
        if not mistakes:
            say("the settings are valid")
    if mistakes:
        raise typer.Exit(Exit.USAGE)


def findings(context: typer.Context, config: Path | None) -> tuple[list[str], list[str]]:
    """Mistakes and warnings; where the settings cannot be read there is nothing that could mean anything."""
    from node.bootstrap.checks import check_settings

    try:
        settings = settings_from(context, config)
    except ConfigError as error:
        return list(error.mistakes), []
    found = list(check_settings(settings))
    return [one.text for one in found if one.is_mistake], [one.text for one in found if not one.is_mistake]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(config_app, name="config")

"""`support-bundle`: one file for whoever looks for a fault, without patient data."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from node.cli.console import ConfigOption, say

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File to write; must not exist. A name with the time without it.", metavar="FILE"),
]
Days = Annotated[int, typer.Option("--days", min=1, max=3650, help="Jobs of so many days.")]
Uids = Annotated[bool, typer.Option("--uids", help="Leave UIDs as they are, in place of pseudonyms.")]
Without = Annotated[
    list[str] | None, typer.Option("--without", help="Leave this member out, such as jobs.json.", metavar="MEMBER")
]


def support_bundle(
    context: typer.Context,
    target: Out = None,
    days: Days = 14,
    uids: Uids = False,
    without: Without = None,
    config: ConfigOption = None,
) -> None:
    """Write one zip file for support, without patient data; exit code 4, and no file, where a patient were in it."""
    from node.operate.support.pack import Asked, make_bundle  # it loads what speaks DICOM

    path = target or Path(f"syncect-support-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip")
    made = make_bundle(config or context.obj, path, Asked(days, uids, without or ()))
    say(f"wrote {made.path}, {len(made.members)} members, which only this user may read; README.txt in it says what is")
    if not made.is_checked:
        say("the store could not be read, so no patient was looked for: read the members before you send the file")
    if not any(name.startswith("log/") for name in made.members):
        say('there are no log files: add `journalctl -u syncect --since "2 days ago"`, and read it before you send it')


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command("support-bundle")(support_bundle)

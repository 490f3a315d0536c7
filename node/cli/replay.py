"""`replay`: does a job give the same bytes and UIDs again, and if not, what differs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import ConfigOption, Exit, JsonOption, print_json, progress_bar, reading
from node.cli.tables import print_text

if TYPE_CHECKING:
    from node.bootstrap.replay import Replayed

_NAMES = 12  # of attributes in a sentence; --json has all


def replay(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="Job id, as listed by `jobs ls`.", metavar="ID")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Compute a job again from its received files and compare; changes nothing. Exit code 1 if anything differs."""
    from node.bootstrap.replay import replay as compute

    with reading(context, config) as node, progress_bar() as bar:
        case = node.overview.case(job_id)
        task = bar.add_task("loading the model", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        found = compute(node, case, show)
    if as_json:
        print_json({**asdict(found), "is_same": found.is_same})
    else:
        for sentence in sentences(found):
            print_text(sentence)
    if not found.is_same:
        raise typer.Exit(Exit.ERROR)


def sentences(found: "Replayed") -> list[str]:
    """What a person reads about a replay."""
    if found.is_same:
        same = f"{found.id}: the same {found.files} files, byte for byte, under the same UIDs"
        return [f"{same} ({found.bundle}, {found.translator}).", *_damage(found)]
    said = [
        f"{found.id}: {found.same} of {found.files} files came out byte for byte.",
        *(f"{c}." for c in found.causes),
    ]
    if found.other_uids:
        what = "source, bundle, processing or arithmetic of the device is another one"
        said.append(f"{found.other_uids} instances came out under other UIDs: {what} ({found.translator}).")
    if found.attributes:
        more = f" and {len(found.attributes) - _NAMES} more" if len(found.attributes) > _NAMES else ""
        said.append(f"These attributes differ: {', '.join(found.attributes[:_NAMES])}{more}.")
    if found.pixels:
        said.append(f"{found.pixels} pixels differ, by at most {found.max_abs_hu:g} HU.")
    return said + _damage(found)


def _damage(found: "Replayed") -> list[str]:
    if not found.damaged:
        return []
    names = ", ".join(found.damaged[:_NAMES])
    return [f"{len(found.damaged)} produced files are gone or were changed after they were written: {names}."]


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(replay)

"""`qa`: constancy runs, their list and their trend."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import ConfigOption, Exit, JsonOption, print_json, print_table, reading, say, settings_from
from node.errors import Refused
from node.operate.texts import age
from storage.constancy import PASSED, ConstancyView
from storage.errors import NotFound

if TYPE_CHECKING:
    from node.bootstrap.store import Node

app = typer.Typer(
    no_args_is_help=True, help="Constancy: a phantom through the whole chain, and the trend of its figures."
)

_SHOWN = ("blood_enhancement_hu", "false_enhancement_hu", "mae_hu", "different_voxels", "result_s")


@app.command("run")
def run(
    context: typer.Context,
    destination: Annotated[
        str, typer.Option("--destination", "-d", help="Where the result goes; else the one for constancy.")
    ] = "",
    bundle: Annotated[
        str, typer.Option("--bundle", help="Another bundle than model.bundle: one that a route names.", metavar="NAME")
    ] = "",
    offline: Annotated[bool, typer.Option("--offline", help="Without a node: rules and job in this process.")] = False,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", help="With --offline: keep the result in this new or empty folder.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Send the constancy phantom through the running node, and hold its figures against the baseline.

    Exit code 0 PASSED, 1 FAILED, 4 where the bundle is damaged or no destination is meant, 5 where the receiver cannot
    be reached.
    """
    from node.bootstrap.store import open_store
    from node.operate.constancy.made import Unreached

    if offline and destination:
        raise typer.BadParameter("--offline sends nothing, so it takes no --destination")
    if out_dir is not None and not offline:
        raise typer.BadParameter("--out belongs to --offline; a node keeps its results in its spool")
    with open_store(settings_from(context, config)) as node:
        try:
            about = node if not bundle else _about(node, bundle)
            view = _run(about, destination, offline=offline, out_dir=out_dir)
        except Unreached as error:
            say(f"syncect: {error}")
            raise typer.Exit(Exit.UNREACHABLE) from None
    if as_json:
        print_json(view)
    else:
        _print_run(view)
    if view.outcome != PASSED:
        raise typer.Exit(Exit.ERROR)


def _about(node: "Node", bundle: str) -> "Node":
    """The node as if a bundle that a route names were that of `model.bundle`; raises NotFound for any other."""
    from node.bootstrap.bundles import bundles_in_use, with_bundle

    names = [one.name for one in bundles_in_use(node.settings)]
    if bundle not in names:
        raise NotFound(f"this node translates with {' and '.join(names)}, and not with {bundle}")
    model = with_bundle(node.settings.model, bundle)
    return replace(node, settings=node.settings.model_copy(update={"model": model}))


def _run(node: "Node", destination: str, *, offline: bool, out_dir: Path | None) -> ConstancyView:
    from node.operate.constancy.run import Order, destination_of, run_offline, run_through_node, sound_card

    peer = None if offline else destination_of(node, destination)
    order = Order(node, sound_card(node), say)
    return run_offline(order, out_dir) if peer is None else run_through_node(order, peer)


def _print_run(view: ConstancyView) -> None:
    from node.operate.constancy.limits import LIMITS

    tolerances = {limit.figure: limit.tolerance for limit in LIMITS}
    print_table(
        ["FIGURE", "VALUE", "TOLERANCE"],
        [
            (name, f"{value:.6g}" if isinstance(value, int | float) else str(value or "-"), tolerances.get(name, ""))
            for name, value in view.figures.items()
        ],
    )
    say(f"constancy run {view.id}: {view.outcome}{f': {view.reason}' if view.reason else ''} ({view.bundle})")


@app.command("ls")
def list_runs(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the constancy runs, oldest first, with their main figures."""
    with reading(context, config) as node:
        views = node.constancy.views()
    if as_json:
        print_json(views)
    elif not views:
        say("there was no constancy run; `syncect qa run` makes one")
    else:
        print_table(["ID", "AGE", "WAY", "OUTCOME", "BUNDLE", *_SHOWN, "REASON"], [_row(view) for view in views])


@app.command("plot")
def plot(
    context: typer.Context,
    path: Annotated[Path, typer.Option("--out", "-o", help="The picture: a name that ends with .svg or .png.")],
    config: ConfigOption = None,
) -> None:
    """Draw the trend of the newest run's bundle: figures by date, their tolerances, changes of the environment."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise typer.BadParameter("the name of the picture must end with .svg or .png")
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent}")
    with reading(context, config) as node:
        views = [view for view in node.constancy.views() if view.figures]
    if not views:
        raise NotFound("no constancy run has come to a result; `syncect qa run` makes one")
    from node.operate.constancy.plot import plot_trend

    mine = [view for view in views if view.bundle_digest == views[-1].bundle_digest]
    plot_trend(mine, path)
    say(f"{len(mine)} runs drawn into {path}")


def _row(view: ConstancyView) -> tuple[str, ...]:
    shown = (f"{view.figures[name]:.4g}" if view.figures.get(name) is not None else "-" for name in _SHOWN)
    return (str(view.id), age(view.at), view.way, view.outcome, view.bundle, *shown, view.reason)

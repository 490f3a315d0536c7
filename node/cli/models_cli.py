"""`models`: which bundles there are, whether their weights are the ones they name, and bundles from elsewhere."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import typer

import models
from models.bundle import HU_WINDOW, BundleCard
from node.bootstrap.bundles import BundleInUse, bundles_in_use
from node.cli import acceptance
from node.cli.console import ConfigOption, JsonOption, print_json, print_table, reading, say, settings_from
from node.errors import Refused
from storage.shadows import FAILED, MEASURED, ShadowView

app = typer.Typer(no_args_is_help=True, help="The model bundles.")


@app.command("ls")
def list_models(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the shipped bundles and those of the settings, and who accepted them."""
    in_use = bundles_in_use(settings_from(context, config))
    found = _known(in_use)
    used = {card.digest: ", ".join(_uses(in_use, path)) for path, card in found}
    states = acceptance.states_of(context, config, [card for _, card in found])
    if as_json:
        print_json(
            [
                {
                    "path": path,
                    "digest": card.digest,
                    "acceptance": states[card.digest],
                    "used_by": _uses(in_use, path),
                    **card.to_mapping(),
                }
                for path, card in found
            ]
        )
        return
    print_table(
        ["NAME", "VERSION", "METHOD", "MATRIX", "HU WINDOW", "DIGEST", "USED BY", "ACCEPTANCE", "INTENDED USE"],
        [
            (
                card.name,
                card.version,
                card.method,
                str(card.matrix),
                "{:g} to {:g}".format(*card.hu_window),
                card.digest[:12],
                used[card.digest],
                states[card.digest],
                card.intended_use,
            )
            for _, card in found
        ],
    )


def _known(in_use: Sequence[BundleInUse]) -> list[tuple[Path, BundleCard]]:
    """The shipped bundles, and those of the settings where they are others that can be read."""
    found = models.list_bundles()
    for one in in_use:
        with suppress(models.BundleError):
            path = models.find_bundle(one.name)
            if all(path != known for known, _ in found):
                found.append((path, models.read_card(path)))
    return found


def _uses(in_use: Sequence[BundleInUse], path: Path) -> list[str]:
    """Which settings name the bundle at a path."""
    keys = []
    for one in in_use:
        with suppress(models.BundleError):
            keys += [one.key] if models.find_bundle(one.name) == path else []
    return keys


app.command("accept")(acceptance.accept)
app.command("withdraw")(acceptance.withdraw)


@app.command("verify")
def verify(
    bundle: Annotated[str, typer.Argument(help="Name of a shipped bundle, or the path of a bundle folder.")],
    measure: Annotated[
        bool,
        typer.Option("--precision", help="Also measure on invented slices what bf16 changes; exit code 4 if much."),
    ] = False,
    device: Annotated[Literal["auto", "cuda", "cpu"], typer.Option("--device", help="Where to measure.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check a bundle: its card is valid and its weights have the checksum that the card names."""
    path = models.find_bundle(bundle)
    card = models.verify_bundle(path)
    facts: dict[str, object] = {"path": path, "digest": card.digest, "weights_sha256": card.weights_sha256}
    rows = [("bundle", f"{card.name} {card.version}"), ("digest", card.digest), ("weights", "ok")]
    loss = None
    if measure:
        from models.evaluation.precision import precision_loss

        loss = precision_loss(path, device=device)
        words = f"mean {loss.mae_hu:.3f} HU, at most {loss.max_hu:.1f} HU, PSNR {loss.psnr_change_db:+.4f} dB"
        rows.append(("bf16 against fp32", words))
        facts["bf16_against_fp32"] = {**asdict(loss), "acceptable": loss.acceptable}
    if as_json:
        print_json(facts)
    else:
        print_table(["", ""], rows)
    if loss is not None and not loss.acceptable:
        raise Refused('bf16 changes this bundle too much here (allowed: 1 HU, 15 HU, 0.02 dB); set precision = "fp32"')


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="gen_diffusive_1_EPOCH.pth or gen_diffusive_2_EPOCH.pth.")],
    origin: Annotated[Literal["syndiff"], typer.Option("--from", help="Code that wrote the checkpoint.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle; new or empty.")],
    name: Annotated[str, typer.Option("--name", help="Name of the bundle; otherwise the folder's.")] = "",
    version: Annotated[str, typer.Option("--version", help="Version of the bundle.")] = "1",
    matrix: Annotated[
        int | None, typer.Option("--matrix", min=8, max=2048, help="Rows of the training images; 256 if not given.")
    ] = None,
    timesteps: Annotated[
        int | None, typer.Option("--timesteps", min=1, help="Reverse steps of the training; 4 if not given.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", help="JSON with the configuration, in place of inferring it.")
    ] = None,
    hu_window: Annotated[
        tuple[float, float], typer.Option("--hu-window", metavar="LOW HIGH", help="HU window of the training.")
    ] = HU_WINDOW,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the weights, where you know it.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a bundle of a checkpoint that the official SynDiff code wrote; never overwrites."""
    from models import importer
    from models.diffusion import DiffusionConfig

    config, diffusion = (None, DiffusionConfig()) if network is None else importer.read_network_file(network)
    if config is not None and matrix not in (None, config.image_size):
        raise typer.BadParameter(f"--matrix is {matrix}, but the file of --network says {config.image_size}")
    try:
        card = importer.import_syndiff(
            file,
            out,
            name=name or out.resolve().name,
            version=version,
            config=config,
            image_size=matrix or 256,
            diffusion=diffusion if timesteps is None else replace(diffusion, num_timesteps=timesteps),
            hu_window=hu_window,
            licence=licence or importer.LICENCE_UNKNOWN,
        )
    except importer.FolderTaken as error:
        raise Refused(str(error)) from error
    parameters = importer.parameter_count(card)
    if as_json:
        print_json({"path": out, "digest": card.digest, "parameters": parameters, **card.to_mapping()})
        return
    facts = {"bundle": f"{card.name} {card.version}", "written to": out, "digest": card.digest}
    facts |= {"parameters": f"{parameters:,}", **card.network, **card.diffusion, "licence": card.licence}
    print_table(["", ""], [(key, str(value)) for key, value in facts.items()])
    say(f"not commissioned: {out / 'CARD.md'} says what the checkpoint does not state and you have to know")


def add_to(app_: typer.Typer) -> None:
    """Register the commands of this module."""
    app_.add_typer(app, name="models")


@app.command("shadow")
def shadow(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """What bundles of `model.shadow` made of the same scans: how many, how far from the results, how many held."""
    with reading(context, config) as node:
        views = node.shadows.views()
    rows = [_summary(bundle, [view for view in views if view.bundle == bundle]) for bundle in _bundles(views)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["BUNDLE", "MEASURED", "FAILED", "WOULD BE HELD", "MEDIAN OF MEAN |dHU|", "MEDIAN OF MAX |dHU|"],
        [
            tuple(
                "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
                for value in row.values()
            )
            for row in rows
        ],
    )


def _bundles(views: Sequence[ShadowView]) -> list[str]:
    return list(dict.fromkeys(view.bundle for view in views))


def _summary(bundle: str, views: Sequence[ShadowView]) -> dict[str, str | int | float | None]:
    measured = [view for view in views if view.outcome == MEASURED]

    def middle(key: str) -> float | None:
        return median(view.measurements[key] for view in measured) if measured else None

    return {
        "bundle": bundle,
        "measured": len(measured),
        "failed": sum(view.outcome == FAILED for view in views),
        "would_be_held": sum(bool(view.reason) for view in measured),
        "median_mean_abs_hu": middle("mean_abs_hu"),
        "median_max_abs_hu": middle("max_abs_hu"),
    }

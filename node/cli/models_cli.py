"""`models`: which bundles there are, and whether their weights are the ones their cards describe."""

from typing import Annotated

import typer

import models
from node.cli.console import JsonOption, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="The model bundles.")


@app.command("ls")
def list_models(as_json: JsonOption = False) -> None:
    """List the shipped bundles."""
    found = models.list_bundles()
    if as_json:
        print_json([{"path": path, "digest": card.digest, **card.to_mapping()} for path, card in found])
        return
    print_table(
        ["NAME", "VERSION", "METHOD", "MATRIX", "HU WINDOW", "DIGEST", "INTENDED USE"],
        [
            (
                card.name,
                card.version,
                card.method,
                str(card.matrix),
                "{:g} to {:g}".format(*card.hu_window),
                card.digest[:12],
                card.intended_use,
            )
            for _, card in found
        ],
    )


@app.command("verify")
def verify(
    bundle: Annotated[str, typer.Argument(help="Name of a shipped bundle, or the path of a bundle folder.")],
    as_json: JsonOption = False,
) -> None:
    """Check a bundle: its card is valid and its weights have the checksum that the card names."""
    path = models.find_bundle(bundle)
    card = models.verify_bundle(path)
    if as_json:
        print_json({"path": path, "digest": card.digest, "weights_sha256": card.weights_sha256})
    else:
        print_table(["", ""], [("bundle", f"{card.name} {card.version}"), ("digest", card.digest), ("weights", "ok")])


def add_to(app_: typer.Typer) -> None:
    """Register the commands of this module."""
    app_.add_typer(app, name="models")

"""`models accept` and `withdraw`: a person says that a bundle may be used for patients, or no longer."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

import models
from models import BundleCard
from node.bootstrap.store import Node, open_store, read_store
from node.cli.console import ConfigOption, JsonOption, print_json, print_table, say, settings_from
from node.commission import REPORT_MARK
from node.errors import Refused
from node.operate.situation import acceptance_words
from node.operate.texts import one_line

_MARKED: Final = re.compile(REPORT_MARK.encode() + rb"([0-9a-f]{64})")

Bundle = Annotated[str, typer.Argument(help="Name of a shipped bundle, or the path of a bundle folder.")]
Who = Annotated[str, typer.Option("--who", help="Who decides; up to 64 characters.")]


def accept(
    context: typer.Context,
    bundle: Bundle,
    report: Annotated[
        Path,
        typer.Option("--report", help="The report that was signed; its SHA-256 is kept.", exists=True, dir_okay=False),
    ],
    who: Who,
    note: Annotated[str, typer.Option("--note", help="Under which conditions, for example.")] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Accept a bundle for patients on a signed report; the worker uses it where model.require_acceptance is set."""
    card = models.verify_bundle(models.find_bundle(bundle))
    data = report.read_bytes()
    _check_report(data, card, report)
    with _opened(context, config) as node:
        node.acceptances.accept(
            _label(card),
            card.digest,
            who=_name(who),
            report_sha256=hashlib.sha256(data).hexdigest(),
            note=one_line(note),
            now=datetime.now(UTC),
        )
        _print(node, card, as_json=as_json)


def withdraw(
    context: typer.Context,
    bundle: Bundle,
    who: Who,
    note: Annotated[str, typer.Option("--note", help="Why.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Withdraw the acceptance of a bundle; a worker that requires it holds its next job."""
    card = models.read_card(models.find_bundle(bundle))
    with _opened(context, config) as node:
        if not one_line(note).strip():
            raise typer.BadParameter("it must say why", param_hint="--note")
        node.acceptances.withdraw(card.digest, who=_name(who), note=one_line(note), now=datetime.now(UTC))
        _print(node, card, as_json=as_json)


def states_of(context: typer.Context, config: Path | None, cards: list[BundleCard]) -> dict[str, str]:
    """The decision that counts about each bundle, in words, by digest; all "" where there is no store."""
    with read_store(settings_from(context, config)) as node:
        if node.is_new:
            return {card.digest: "" for card in cards}
        return {card.digest: acceptance_words(node.acceptances.newest(card.digest)) for card in cards}


@contextmanager
def _opened(context: typer.Context, config: Path | None) -> Iterator[Node]:
    with open_store(settings_from(context, config)) as node:
        yield node


def _check_report(data: bytes, card: BundleCard, report: Path) -> None:
    """A report of `syncect commission` is about one model; raises Refused where it is another one."""
    found = {match.decode() for match in _MARKED.findall(data)}
    if not found:
        say(f"{report} is no report of `syncect commission`; whether it is about this bundle is for you to know")
    elif card.digest not in found:
        other = min(found)[:12]
        raise Refused(
            f"{report} is about a bundle with the digest {other}, and {card.name} has {card.digest[:12]}: "
            f"make a report of this bundle with `syncect commission`"
        )


def _name(who: str) -> str:
    name = one_line(who).strip()
    if not name or len(name) > 64:
        raise typer.BadParameter("it must have 1 to 64 characters", param_hint="--who")
    return name


def _label(card: BundleCard) -> str:
    from node.bootstrap.bundles import bundle_label

    return bundle_label(card)


def _print(node: Node, card: BundleCard, *, as_json: bool) -> None:
    newest = node.acceptances.newest(card.digest)
    if as_json:
        print_json(newest)
        return
    rows = [("bundle", _label(card)), ("digest", card.digest), ("decision", acceptance_words(newest))]
    print_table(["", ""], rows)
    if not node.settings.model.require_acceptance:
        say("model.require_acceptance is not set: the worker does not ask for this decision")

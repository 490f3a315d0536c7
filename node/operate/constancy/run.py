"""Runs constancy: the phantom through a running node, or without one, then measured and judged.

A run that cannot come to a result has FAILED as well: the chain is what is looked at.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import models
from config.settings import AnyDestination
from models import BundleCard
from node.bootstrap.bundles import bundle_label
from node.bootstrap.roles import eligibility_policy
from node.bootstrap.store import Node
from node.errors import NodeError, Refused
from node.operate.constancy.chain import make_by_node
from node.operate.constancy.figures import Baseline, Stored, compare, digest_of, measure, pixels_of, result_of
from node.operate.constancy.limits import Reference, faults
from node.operate.constancy.made import Made
from node.operate.constancy.phantom import Scan, scan_phantom
from node.receive.eligibility import Accept, judge
from storage.constancy import FAILED, PASSED, ConstancyView
from storage.errors import NotFound

SHA256: Final = "result_sha256"
BASELINE: Final = "baseline"


@dataclass(frozen=True)
class Order:
    """What every run needs. tell(sentence) says how far it is."""

    node: Node
    card: BundleCard
    tell: Callable[[str], None]

    @property
    def level_hu(self) -> float | None:
        """The enhancement of blood that results are drawn with, HU."""
        return self.node.settings.model.blood_level_hu or self.card.blood_level_hu


def sound_card(node: Node) -> BundleCard:
    """The card of the bundle of the settings, whose weights are those that it names. Raises Refused."""
    name = node.settings.model.bundle
    try:
        return models.verify_bundle(models.find_bundle(name))
    except models.BundleError as error:
        raise Refused(f"model.bundle = {name!r} cannot be used, and nothing is run with it: {error}") from error


def destination_of(node: Node, name: str) -> AnyDestination:
    """The destination of a run: the one that is named, else the only one for constancy. Raises NotFound, Refused."""
    known = {one.name: one for one in node.settings.destination}
    if name:
        if name not in known:
            raise NotFound(f"no destination is named {name}; there are {', '.join(known) or 'none'}")
        return known[name]
    meant = [one for one in known.values() if one.receives == "constancy"]
    if len(meant) != 1:
        raise Refused(
            f'{len(meant) or "no"} destinations have receives = "constancy"; name one with --destination, '
            "or run without a node with --offline"
        )
    return meant[0]


def run_offline(order: Order, out_dir: Path | None) -> ConstancyView:
    """The phantom through the rules and a job in this process, without a network; files into `out_dir`, if given."""
    from node.operate.constancy.offline import make_offline  # loads torch

    with _files() as folder:
        scan = _scan(order, folder)
        run = order.node.constancy.begin(bundle_label(order.card), order.card.digest, order.node.clock())
        with _ended(order, run):
            _require_accepted(order, scan)
            with ExitStack() as kept:
                out = out_dir or kept.enter_context(_files())
                return _judged(order, run, scan, make_offline(order.node, scan, out, order.tell))


def run_through_node(order: Order, destination: AnyDestination) -> ConstancyView:
    """The phantom by C-STORE to the running node, until the destination has it. Raises Unreached."""
    with _files() as folder:
        scan, store = _scan(order, folder), order.node.constancy
        names = {"series_uid": scan.series_uid, "destination": destination.name}
        run = store.begin(bundle_label(order.card), order.card.digest, order.node.clock(), **names)
        with _ended(order, run):
            return _judged(order, run, scan, make_by_node(order.node, scan, run, destination, order.tell))


@contextmanager
def _files() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="syncect-qa-") as name:
        yield Path(name)


@contextmanager
def _ended(order: Order, run: int) -> Iterator[None]:
    """Write down why a run came to no result, whatever ended it; one that a person ended says nothing of the node."""
    try:
        yield
    except BaseException as error:
        is_ours = isinstance(error, NodeError)
        why = str(error) if is_ours else f"it was ended by {type(error).__name__}"
        environment = order.node.constancy.view(run).environment if is_ours else {}
        order.node.constancy.finish(run, FAILED, why, environment, {})
        raise


def _scan(order: Order, folder: Path) -> Scan:
    order.tell("making the phantom")
    return scan_phantom(folder, order.level_hu, order.card.hu_window, order.node.clock())


def _require_accepted(order: Order, scan: Scan) -> None:
    verdict = judge(scan.headers, eligibility_policy(order.node.settings))
    if not isinstance(verdict, Accept):
        raise Refused(f"the rules of this node do not take the phantom: {verdict.reason}")


def _judged(order: Order, run: int, scan: Scan, made: Made) -> ConstancyView:
    """Measure, hold against the baseline, and write down."""
    found: dict[str, float] = dict(made.times)
    if made.digest != order.card.digest:
        words = f"the node works with {made.bundle}, the settings name {bundle_label(order.card)}; restart the node"
        return order.node.constancy.finish(run, FAILED, words, made.environment, found)
    result = result_of(list(made.paths))
    found |= measure(scan, result, order.card.hu_window)
    pixels, earlier = pixels_of(result), baseline_view(order.node, made)
    reference = None
    if earlier is not None:
        baseline = Baseline(earlier.id, str(earlier.figures[SHA256]), _kept(order.node, earlier.id))
        found |= compare(pixels, baseline)
        reference = Reference(earlier.figures, earlier.environment == made.environment)
    held = [f"a gate held it: {made.held}"] if made.held else []
    reasons = held + faults(found, reference)
    is_first = reference is None or not reference.is_same
    if not reasons and is_first:
        _keep(order.node, run, pixels)
    figures = {**found, SHA256: digest_of(pixels), BASELINE: earlier.id if earlier is not None else None}
    return order.node.constancy.finish(
        run, FAILED if reasons else PASSED, "; ".join(reasons), made.environment, figures
    )


def baseline_view(node: Node, made: Made) -> ConstancyView | None:
    """The first run that PASSED with this bundle in this environment; without one, the first in any; None: neither."""
    passed = [view for view in node.constancy.ended(made.digest) if view.outcome == PASSED]
    same = [view for view in passed if view.environment == made.environment]
    return next(iter((*same, *passed)), None)


def _folder(node: Node) -> Path:
    return node.settings.node.data_dir / "constancy"


def _keep(node: Node, run: int, pixels: Stored) -> None:
    folder = _folder(node)
    folder.mkdir(mode=0o700, exist_ok=True)
    np.savez_compressed(folder / f"{run}.npz", hu=pixels)


def _kept(node: Node, run: int) -> Stored | None:
    """The pixels of a baseline; None where they are gone or damaged."""
    try:
        with np.load(_folder(node) / f"{run}.npz", allow_pickle=False) as found:
            pixels: Stored = found["hu"]
            return pixels
    except (OSError, ValueError, KeyError):
        return None

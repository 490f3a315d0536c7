"""The result of a demo: the synthetic files, checked against the source, and the picture of them."""

from dataclasses import dataclass
from pathlib import Path

import models
from node.bootstrap.store import Node
from node.demo.failed import DemoFailed
from node.demo.folder import DemoFolder
from node.demo.following import SENT
from node.demo.pairs import compare, most_changed
from node.demo.picture import write_picture
from node.demo.scanner import Scan
from node.demo.story import Story
from node.demo.tps import Tps
from storage.cases import Case

_ARRIVED_WITHIN_S = 10.0


@dataclass(frozen=True)
class Result:
    """What was made of a scan. files: none where nothing was. where: how they are to be had, as a clause."""

    files: list[Path]
    where: str
    caption: str
    bundle: str


def result_of(node: Node, case: Case, tps: Tps, seconds: float) -> Result:
    """What the TPS got, `seconds` after the last slice was sent, or what the node keeps back. Raises DemoFailed."""
    bundle = case.bundle or ""
    if case.state in SENT:
        files = tps.wait_for(case.slices.produced, _ARRIVED_WITHIN_S)
        if len(files) != case.slices.produced:
            raise DemoFailed(f"{len(files)} of {case.slices.produced} slices arrived at the TPS")
        where = f"arrived at the TPS {seconds:.1f} s after the last slice was sent"
        return Result(files, where, "as it arrived at the TPS", bundle)
    made = [] if case.product_dir is None else node.overview.products(case)
    files = [node.spool.path(f"{case.product_dir}/{one.file_name}") for one in made]
    return Result(
        files, "made and not sent: they lie in the node's spool", f"{case.state}, not sent to the TPS", bundle
    )


def show(result: Result, scan: Scan, folder: DemoFolder, bundle: str, story: Story) -> None:
    """Check the result and draw it. Raises DemoFailed."""
    if not result.files:
        story.step("There is no picture, because nothing was made of the series.")
        return
    story.step(f"{len(result.files)} synthetic slices, {result.where}. The demo compares them with the source:")
    card = models.read_card(models.find_bundle(bundle))
    with story.during("comparing source and result"):
        pairs, checked = compare(scan.headers, result.files, card.hu_window)
    for sentence in checked:
        story.note(f"checked: {sentence}")
    with story.during("drawing"):
        about = f"{scan.what}; {result.caption}"
        write_picture(folder.picture, most_changed(pairs), about=about, bundle=result.bundle)
    story.step(f"Look at the picture, the two slices that changed most: {folder.picture}")

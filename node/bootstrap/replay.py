"""Computes a job again from its received files and compares what comes out with what was produced; nothing is changed.

It is told the moment of the first production, which stands in the files, and so gives the same bytes: if it does not,
a bundle, a setting, a version or the arithmetic of the device is another one, or the node is not deterministic.
"""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.bootstrap.bundles import bundles_in_use, in_use_as, with_bundle
from node.bootstrap.store import Node
from node.bootstrap.worker import job_options, open_executor
from node.dicom.difference import FileDifference, compare_files, production_of
from node.errors import Permanent, Refused
from node.translate.job import JobResult
from node.translate.release import write_released
from node.version import EDITABLE, software_version
from storage.jobs import ProducedInstance
from storage.overview import Case
from storage.spool import Condition

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Replayed:
    """What became of a replay. files: how many were produced; same: how many of them came out byte for byte.

    causes: what is another now than it was. other_uids: how many instances came out under other UIDs. attributes:
    keywords that differ in any file. pixels: how many differ, and max_abs_hu by how much at most. damaged: produced
    files that are gone or are not what was written.
    """

    id: str
    bundle: str
    translator: str
    files: int
    same: int
    causes: tuple[str, ...] = ()
    other_uids: int = 0
    attributes: tuple[str, ...] = ()
    pixels: int = 0
    max_abs_hu: float = 0.0
    damaged: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether every file came out byte for byte."""
        return self.same == self.files > 0


def replay(node: Node, case: Case, progress: Progress) -> Replayed:
    """Compute a produced case again in a temporary folder.

    Raises Refused where files or contents that it needs are gone, ExecutorUnavailable, and what a job raises.
    """
    products = node.overview.products(case)
    _refuse_without_files(case, products)
    stored = node.spool.path(str(case.product_dir))
    intact = {
        made.sop_instance_uid: stored / made.file_name
        for made in products
        if node.spool.condition(f"{case.product_dir}/{made.file_name}", made.sha256) is Condition.INTACT
    }
    if not intact:
        raise Refused(f"no file of the result of {case.id} is left as it was written, so there is nothing to compare")
    produced_at, software = production_of(next(iter(intact.values())))
    bundle = in_use_as(bundles_in_use(node.settings), case.bundle or "")
    model = node.settings.model if bundle is None else with_bundle(node.settings.model, bundle.name)
    executor = open_executor(model)
    damaged = tuple(made.file_name for made in products if made.sop_instance_uid not in intact)
    if executor.bundle != case.bundle:
        cause = f"it was made by {case.bundle}; model.bundle of the settings is {executor.bundle}, and no route has it"
        return Replayed(case.id, executor.bundle, executor.description, len(products), 0, (cause,), damaged=damaged)
    options = job_options(node.settings, produced_at, repeat=case.repeat, version=case.version)
    names = node.series.spool_names(case.series_id)
    node.spool.fetch(node.series.wanted(names))
    with tempfile.TemporaryDirectory(prefix="syncect-replay-") as name:
        folder = Path(name) / "made"
        folder.mkdir()
        result = executor.run([node.spool.path(one) for one in names], options, folder, progress)
        made = _released(node, case, result, Path(name) / "released")
        compared = _compare(products, made, intact)
    causes = _causes(software, software_version(), is_same=compared["same"] == len(products))
    return Replayed(
        case.id, executor.bundle, executor.description, len(products), **compared, causes=causes, damaged=damaged
    )


def _causes(made_by: str, present: str, *, is_same: bool) -> tuple[str, ...]:
    if made_by != present:
        return (f"it was made by syncect {made_by}; this is {present}",)
    if present.endswith(EDITABLE) and not is_same:
        return (f"both are syncect {present}, a checkout whose code may have changed in between",)
    return ()


def _refuse_without_files(case: Case, products: Sequence[ProducedInstance]) -> None:
    if case.purged_at is not None or case.received_purged_at is not None:
        when = case.received_purged_at or case.purged_at
        raise Refused(f"files of {case.id} were removed on {when:%Y-%m-%d}, so it cannot be computed again")
    if case.product_dir is None or not products:
        raise Refused(f"{case.id} is {case.state} and has no result that could be computed again")
    if not case.is_present:
        raise Refused(f"the series of {case.id} has other contents by now, so it cannot be computed again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _released(node: Node, case: Case, result: JobResult, folder: Path) -> dict[str, Path]:
    """The files that were made, by SOP Instance UID, with the sentence of the release where there was one."""
    made = {one.sop_instance_uid: one.path for one in result.files}
    if not case.override or case.job_id is None:
        return made
    if (release := node.outbox.release_of(case.job_id)) is None:
        raise Permanent(f"the history of {case.id} does not say any more who released it")
    folder.mkdir()
    files = [(one.path, one.sha256) for one in result.files]
    write_released(files, release.doubt, release.actor, release.reason, folder)
    return {uid: folder / path.name for uid, path in made.items()}


def _compare(products: Sequence[ProducedInstance], made: dict[str, Path], intact: dict[str, Path]) -> dict[str, Any]:
    same, found = 0, list[FileDifference]()
    for product in products:
        path = made.get(product.sop_instance_uid)
        if path is not None and _sha256(path) == product.sha256:
            same += 1
        elif path is not None and product.sop_instance_uid in intact:
            found.append(compare_files(intact[product.sop_instance_uid], path))
    return {
        "same": same,
        "other_uids": sum(product.sop_instance_uid not in made for product in products),
        "attributes": tuple(dict.fromkeys(name for one in found for name in one.attributes)),
        "pixels": sum(one.pixels for one in found),
        "max_abs_hu": max((one.max_abs_hu for one in found), default=0.0),
    }

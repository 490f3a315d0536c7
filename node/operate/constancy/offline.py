"""Makes the result of a constancy run in this process: the job of the node, without network and spool."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from node.bootstrap.constancy import environment_of
from node.bootstrap.store import Node
from node.bootstrap.worker import job_options, open_executor
from node.errors import Refused
from node.operate.constancy.made import Made
from node.operate.constancy.phantom import Scan


def make_offline(node: Node, scan: Scan, out_dir: Path, tell: Callable[[str], None]) -> Made:
    """Translate the phantom into `out_dir`, made where it is missing. Raises Refused where it is not empty."""
    out_dir.mkdir(parents=True, exist_ok=True)
    if any(out_dir.iterdir()):
        raise Refused(f"{out_dir} is not empty; derived series are never mixed with other files")
    tell("loading the model")
    executor = open_executor(node.settings.model)
    environment, begun_s = environment_of(executor), time.monotonic()
    tell("translating the phantom")
    options = job_options(node.settings, datetime.now(UTC))
    result = executor.run(list(scan.paths), options, out_dir, lambda _stage, _done, _total: None)
    return Made(
        tuple(file.path for file in result.files),
        executor.bundle,
        executor.digest,
        environment,
        {"result_s": time.monotonic() - begun_s},
        result.held_reason or "",
    )

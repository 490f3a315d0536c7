"""Sends the phantom of a constancy run to the running node, and follows it until the destination has the result."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from config.settings import AnyDestination, DestinationSettings
from node.bootstrap.store import Node
from node.errors import Permanent
from node.network.no_association import Outcome
from node.operate.constancy.made import Made, Unreached
from node.operate.constancy.phantom import Scan
from node.ops.processes import running_processes, working_roles
from node.send.scu import StorageScu
from storage.cases import Case

STANDSTILL_S: Final = 600.0
POLL_S: Final = 0.2
_ENDS: Final = ("HELD", "FAILED", "SKIPPED", "INCOMPLETE", "CANCELLED", "REJECTED", "SUPERSEDED", "RECALLED")


def make_by_node(node: Node, scan: Scan, run: int, destination: AnyDestination, tell: Callable[[str], None]) -> Made:
    """Push, wait, find the files of the result. Raises Unreached, and Permanent where the series comes to nothing."""
    tell(f"sending {len(scan.paths)} slices of series {scan.series_uid}")
    begun_s = time.monotonic()
    _push(node, scan)
    pushed_at, push_s = node.clock(), time.monotonic() - begun_s
    case = _followed(node, scan.series_uid, destination, tell)
    view = node.constancy.view(run)
    paths = _files_of(node, case)
    held = case.reason if case.state == "HELD" else ""
    times = {"push_s": push_s, **_times(node, case, pushed_at)}
    return Made(paths, view.bundle, view.bundle_digest, view.environment, times, held)


def _push(node: Node, scan: Scan) -> None:
    scp = node.settings.scp
    host = "127.0.0.1" if scp.listening_host in ("0.0.0.0", "::") else scp.listening_host  # noqa: S104 - compared
    here = DestinationSettings(name="self", ae_title=scp.ae_title, host=host, port=scp.port, tls=scp.tls)
    items = [(header.sop_instance_uid, header.path) for header in scan.headers]
    report = StorageScu(here, scp.ae_title).send(items)
    if report.outcome is not Outcome.DONE:
        allow = f'{{ ae_title = "{scp.ae_title}", host = "{host}" }}'
        raise Unreached(
            f"the receiver of this node took {len(report.accepted)} of {len(items)} slices: {report.reason}. "
            f"`syncect serve` must run here, and scp.allowed_peers must hold {allow}, or be empty"
        )


def _followed(node: Node, series_uid: str, destination: AnyDestination, tell: Callable[[str], None]) -> Case:
    """The case once it is at its end; raises Permanent where nothing happens for `STANDSTILL_S`."""
    wanted = "CONFIRMED" if destination.confirm != "none" else "SENT"
    seen, moved_s = "", time.monotonic()
    while True:
        case = next(iter(node.overview.cases(series_uid=series_uid, limit=1)), None)
        if case is not None and case.state in (wanted, "CONFIRMED", *_ENDS):
            return case
        now = "" if case is None else f"{case.state} {case.progress} {case.slices}"
        if now != seen:
            seen, moved_s = now, time.monotonic()
            tell(f"{destination.name}: {case.state}" if case is not None else "")
        if time.monotonic() - moved_s > STANDSTILL_S:
            state = case.state if case is not None else "not in the store"
            roles = ", ".join(sorted(working_roles(running_processes(node.run_dir)))) or "nothing"
            raise Permanent(f"the phantom is {state} and nothing happened for {STANDSTILL_S:.0f} s; {roles} runs here")
        time.sleep(POLL_S)


def _files_of(node: Node, case: Case) -> tuple[Path, ...]:
    """The files of its result; raises Permanent where there is none, or not on this host."""
    if case.product_dir is None:
        raise Permanent(f"the phantom is {case.state} without a result: {case.reason}")
    node.spool.fetch_folder(case.product_dir)
    folder = node.spool.path(case.product_dir)
    paths = tuple(sorted(folder.glob("*.dcm")))
    if not paths:
        raise Permanent(f"the files of the result are not in {folder}; run this command on the host of the spool")
    return paths


def _times(node: Node, case: Case, pushed_at: datetime) -> dict[str, float]:
    """Seconds from the answer to the last slice until each stage was reached, by the events of the store."""
    reached = {"COMPLETE": "complete_s", "PRODUCED": "result_s", "HELD": "result_s", "SENT": "sent_s"}
    reached["CONFIRMED"] = "confirmed_s"
    return {
        reached[event.to_state]: max(0.0, (event.at - pushed_at).total_seconds())
        for event in node.overview.events(case)
        if event.to_state in reached
    }

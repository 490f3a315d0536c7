"""How fast instances are received durably, beside DCMTK's storescp, which does not sync, and Orthanc.

All three get the same series, one after the other, each with fresh UIDs: 140 slices of 512 x 512, dealt out to 1, 4, 10
and 25 associations that send at once. The seconds run from the start of the senders to the end of the last one.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.tools import NO_DELAY, echo, environment, make_scan, send_at_once, split
from node.ops.processes import running_processes
from tests.slice.harness import Orthanc, RunningNode, StoreScp, wait_for

SLICES = 140
ASSOCIATIONS = (1, 4, 10, 25)
REPEATS = 3


@dataclass(frozen=True)
class Peers:
    """The listening ports of the three receivers, which stay up over all measurements."""

    node: int
    storescp: int
    orthanc: int


def receive(folder: Path, slices: int = SLICES) -> dict[str, float]:
    """Seconds, ratios and rejects by number of associations, and the peak memory of the receiver in GB."""
    node = RunningNode(folder / "node", "demo", []).start("receive")
    # With one process for all it would take one association after the other.
    storescp = StoreScp(folder / "storescp", ae_title="SYNCECT", extra=("--fork",)).start()
    archives: list[Orthanc] = []
    try:
        with environment(**NO_DELAY):
            archives.append(Orthanc(folder / "orthanc", ae_title="SYNCECT"))
        wait_for("storescp's start", lambda: echo(storescp.port))
        peers = Peers(node.port, storescp.port, archives[0].port)
        rows: dict[str, float] = {}
        for associations in ASSOCIATIONS:
            rows |= _at_once(folder, peers, slices, associations)
        archives.append(Orthanc(folder / "orthanc-as-it-comes", ae_title="SYNCECT"))
        rows |= _beside_stock(folder, node.port, archives[1].port, slices)
        return rows | _peak_memory(node)
    finally:
        for archive in archives:
            archive.stop()
        storescp.kill()
        node.close()


def _at_once(folder: Path, peers: Peers, slices: int, associations: int) -> dict[str, float]:
    # No scan is removed before all is measured: ext4 steps over each inode that was freed in the last minutes, so that
    # a receiver whose folder lies beside three thousand of them makes a file in 0.17 ms instead of 0.04.
    # Whether it helps or harms to come first: each receiver does once.
    receivers = [peers.node, peers.storescp, peers.orthanc]
    seconds: dict[int, list[float]] = {port: [] for port in receivers}
    rejects = 0
    for repeat in range(REPEATS):
        parts = split(make_scan(folder / f"scan{associations}-{repeat}", slices, repeat), associations)
        for port in receivers[repeat % 3 :] + receivers[: repeat % 3]:
            taken, failed = _seconds(port, parts)
            seconds[port].append(taken)
            rejects += failed if port == peers.node else 0
    ours, theirs, archives = (min(seconds[port]) for port in receivers)
    label = f"{associations} association{'s' if associations > 1 else ''}"
    return {
        f"{label}: this node, durable: s for {slices} slices": ours,
        f"{label}: DCMTK storescp, not synced: s": theirs,
        f"{label}: Orthanc: s": archives,
        f"{label}: this node's rate / DCMTK's rate": theirs / ours,
        f"{label}: this node's rate / Orthanc's rate": archives / ours,
        f"{label}: this node: instances per s": slices / ours,
        f"{label}: this node: associations that failed": float(rejects),
    }


def _beside_stock(folder: Path, node: int, orthanc: int, slices: int) -> dict[str, float]:
    """Orthanc without TCP_NODELAY, which is how it comes, over one association."""
    parts = split(make_scan(folder / "scan-as-it-comes", slices, REPEATS), 1)
    archive, ours = (_seconds(port, parts)[0] for port in (orthanc, node))
    return {
        f"1 association: Orthanc as it comes: s for {slices} slices": archive,
        "1 association: this node's rate / Orthanc's rate as it comes": archive / ours,
    }


def _seconds(port: int, parts: list[Path]) -> tuple[float, int]:
    """Seconds until every association has ended, and how many of them failed."""
    os.sync()  # what another receiver left unwritten must not be written on this one's time
    start = time.perf_counter()
    failed = send_at_once(port, parts)
    return time.perf_counter() - start, failed


def _peak_memory(node: RunningNode) -> dict[str, float]:
    """The high-water mark of the receiver's resident memory; nothing where the system does not tell."""
    pids = [view.pid for view in running_processes(node.data_dir / "run") if view.role == "receive"]
    status = Path(f"/proc/{pids[0]}/status") if pids else Path()
    if not status.is_file():
        return {}
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return {"peak memory of the receiver, GB": int(line.split()[1]) / 1024**2}


def main() -> None:
    """Measure and print, for a look at this part alone."""
    folder = Path(tempfile.mkdtemp(prefix="syncect-bench-"))
    try:
        sys.stdout.write(json.dumps(receive(folder), indent=2) + "\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

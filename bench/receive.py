"""How fast instances are received durably, beside Orthanc and the storescp of DCMTK and pynetdicom, which do not sync.

All get the same series, one after the other, each with fresh UIDs: 140 slices of 512 x 512, dealt out to 1, 4, 10 and
25 associations that send at once. The seconds run from the start of the senders to the end of the last one.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from bench.tools import NO_DELAY, echo, environment, make_scan, send_at_once, split, timed
from node.ops.processes import running_processes
from tests.slice.harness import Orthanc, RunningNode, StoreScp, free_port, wait_for

SLICES = 140
ASSOCIATIONS = (1, 4, 10, 25)
REPEATS = 3
ECHO_SLICES = 1400  # enough for nearly a hundred echoes meanwhile
ECHO_EVERY_S = 0.05


@dataclass(frozen=True)
class Peers:
    """The listening ports of the three receivers, which stay up over all measurements."""

    node: int
    storescp: int
    pynetdicom: int
    orthanc: int


def receive(folder: Path, slices: int = SLICES) -> dict[str, float]:
    """Seconds, ratios and rejects by number of associations, and the peak memory of the receiver in GB."""
    node = RunningNode(folder / "node", "demo", [], is_real=True, scp="max_associations = 30").start("receive")
    # With one process for all it would take one association after the other.
    storescp = StoreScp(folder / "storescp", ae_title="SYNCECT", extra=("--fork",)).start()
    stock_port = free_port()
    stock = pynetdicom_storescp(folder / "pynetdicom", stock_port)
    archives: list[Orthanc] = []
    try:
        wait_for("pynetdicom's start", lambda: echo(stock_port))
        with environment(**NO_DELAY):
            archives.append(Orthanc(folder / "orthanc", ae_title="SYNCECT"))
        wait_for("storescp's start", lambda: echo(storescp.port))
        peers = Peers(node.port, storescp.port, stock_port, archives[0].port)
        rows: dict[str, float] = {}
        for associations in ASSOCIATIONS:
            rows |= _at_once(folder, peers, slices, associations, receiver_pid(node))
        for associations in ASSOCIATIONS[2:]:
            rows |= _echo_meanwhile(folder, node.port, associations)
        archives.append(Orthanc(folder / "orthanc-as-it-comes", ae_title="SYNCECT"))
        rows |= _beside_stock(folder, node.port, archives[1].port, slices)
        return rows | _peak_memory(node)
    finally:
        for archive in archives:
            archive.stop()
        storescp.kill()
        stock.kill()
        stock.wait()
        node.close()


def pynetdicom_storescp(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """pynetdicom's own application, which writes the files and syncs nothing."""
    folder.mkdir()
    command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-aet", "SYNCECT", "-od", str(folder), "-q"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _at_once(folder: Path, peers: Peers, slices: int, associations: int, pid: int) -> dict[str, float]:
    # No scan is removed before all is measured: ext4 steps over each inode that was freed in the last minutes, so that
    # a receiver whose folder lies beside three thousand of them makes a file in 0.17 ms instead of 0.04.
    # Each receiver comes first about once, because that may help or harm.
    receivers = [peers.node, peers.storescp, peers.pynetdicom, peers.orthanc]
    seconds: dict[int, list[float]] = {port: [] for port in receivers}
    rejects, cpu_s = 0, []
    for repeat in range(REPEATS):
        parts = split(make_scan(folder / f"scan{associations}-{repeat}", slices, repeat), associations)
        for port in receivers[repeat:] + receivers[:repeat]:
            before_s = cpu_seconds(pid)
            taken, failed = _seconds(port, parts)
            seconds[port].append(taken)
            if port == peers.node:
                rejects += failed
                cpu_s.append(cpu_seconds(pid) - before_s)
    ours, dcmtk, stock, archive = (min(seconds[port]) for port in receivers)
    label = f"{associations} association{'s' if associations > 1 else ''}"
    return {
        f"{label}: this node, durable: s for {slices} slices": ours,
        f"{label}: DCMTK storescp, not synced: s": dcmtk,
        f"{label}: pynetdicom storescp, not synced: s": stock,
        f"{label}: Orthanc: s": archive,
        f"{label}: this node's rate / pynetdicom's rate": stock / ours,
        f"{label}: this node's rate / DCMTK's rate": dcmtk / ours,
        f"{label}: this node's rate / Orthanc's rate": archive / ours,
        f"{label}: this node: instances per s": slices / ours,
        f"{label}: this node: CPU ms per slice": min(cpu_s) / slices * 1000,
        f"{label}: this node: associations that failed": float(rejects),
    }


def _echo_meanwhile(folder: Path, port: int, associations: int) -> dict[str, float]:
    """How long another peer waits for an association, a C-ECHO and a release while `associations` send."""
    parts = split(make_scan(folder / f"scan-echo{associations}", ECHO_SLICES, 0), associations)
    seconds: list[float] = []
    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(send_at_once, port, parts)
        while not sending.done():
            seconds.append(timed(_associate_and_echo, port))
            time.sleep(ECHO_EVERY_S)
    seconds.sort()
    return {
        f"{associations} associations: echo of another peer, median: s": seconds[len(seconds) // 2],
        f"{associations} associations: echo of another peer, 99th percentile: s": seconds[
            math.ceil(0.99 * len(seconds)) - 1
        ],
        f"{associations} associations: echo of another peer: count": float(len(seconds)),
        f"{associations} associations with echoes: associations that failed": float(sending.result()),
    }


def _associate_and_echo(port: int) -> None:
    """Raises AssertionError where the association or the echo fails."""
    ae = AE(ae_title="CONSOLE")
    association = ae.associate("127.0.0.1", port, contexts=[build_context(Verification)], ae_title="SYNCECT")
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()


def _beside_stock(folder: Path, node: int, orthanc: int, slices: int) -> dict[str, float]:
    """Orthanc without TCP_NODELAY, which is how it comes, over one association; the better of two for each."""
    scans = [split(make_scan(folder / f"scan-as-it-comes{n}", slices, REPEATS + n), 1) for n in range(2)]
    archive, ours = (min(_seconds(port, parts)[0] for parts in scans) for port in (orthanc, node))
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


def receiver_pid(node: RunningNode) -> int:
    """The process of the receiver."""
    return next(view.pid for view in running_processes(node.data_dir / "run") if view.role == "receive")


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process; 0 where the system does not tell."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _peak_memory(node: RunningNode) -> dict[str, float]:
    """The high-water mark of the receiver's resident memory; nothing where the system does not tell."""
    status = Path(f"/proc/{receiver_pid(node)}/status")
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

"""Figures measured side by side in one run: receiving beside DCMTK's storescp, and where the time of a job goes.

`make bench` prints a table and keeps it as JSON in bench/results/. Nothing here is a test.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import models
from config.settings import Settings
from models.phantom import make_patient
from node.bootstrap.roles import job_options
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.pipeline.run import run_job
from tests.slice.harness import RunningNode, StoreScp, dcmtk, wait_for

SLICES = 140
REPEATS = 3


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--bundle", default="demo")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="syncect-bench-"))
    try:
        results = {"receive": receive(folder, options.slices), "job": job(folder, options.bundle)}
    finally:
        shutil.rmtree(folder)
    report = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "results": results}
    kept = Path(__file__).parent / "results"
    kept.mkdir(exist_ok=True)
    (kept / f"{report['at'][:19].replace(':', '')}.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, rows in results.items():
        sys.stdout.write(f"\n{name}\n")
        for key, value in rows.items():
            sys.stdout.write(f"  {key:<58} {value:10.3f}\n")


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "numpy", "pydicom", "pynetdicom", "syncect")},
        "commit": commit.stdout.strip(),
    }


def receive(folder: Path, slices: int) -> dict[str, float]:
    """Seconds for one association of 512 x 512 CT with fresh UIDs: this node (synced) beside DCMTK (not synced)."""
    node = RunningNode(folder / "node", "demo", []).start("receive")
    scp = StoreScp(folder / "storescp", ae_title="SYNCECT").start()
    ours, theirs = [], []
    try:
        wait_for("storescp's start", lambda: echo(scp.port))
        for repeat in range(REPEATS):
            scan = make_scan(folder / f"scan{repeat}", slices, repeat)
            ours.append(timed(send, node.port, scan))
            theirs.append(timed(send, scp.port, scan))
    finally:
        scp.kill()
        node.close()
    return {
        f"this node, durable: s for {slices} slices": min(ours),
        "DCMTK storescp, not synced: s": min(theirs),
        "this node's rate / DCMTK's rate": min(theirs) / min(ours),
        "this node: instances per s": slices / min(ours),
    }


def make_scan(folder: Path, slices: int, repeat: int) -> Path:
    """A phantom series with UIDs of its own; its slices repeat a few planes, because only their size matters."""
    planes = make_patient(1, slices=4, rows=512, spacing_mm=(5.0, 0.9766, 0.9766)).ncct_hu
    hu = planes[[number % 4 for number in range(slices)]]
    folder.mkdir()
    seed = f"bench-{time.time_ns()}-{repeat}"
    write_scan(hu, (3.0, 0.9766, 0.9766), folder, ScanIdentity("BENCH", "Bench^Phantom", seed))
    return folder


def send(port: int, scan: Path) -> None:
    """DCMTK's storescu, one association."""
    command = [dcmtk("storescu"), "-aet", "CTSIM", "-aec", "SYNCECT", "+sd", "127.0.0.1", str(port), str(scan)]
    subprocess.run(command, check=True, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True)


def echo(port: int) -> bool:
    """Whether something answers a C-ECHO there."""
    command = [dcmtk("echoscu"), "-aec", "SYNCECT", "127.0.0.1", str(port)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def job(folder: Path, bundle: str) -> dict[str, float]:
    """Seconds per stage of one job of 24 slices on the CPU, from files to files, and the peak memory."""
    scan = make_scan(folder / "job", 24, 99)
    translator = models.load_bundle(models.find_bundle(bundle), device="cpu", precision="fp32")
    out_dir = folder / "out"
    out_dir.mkdir()
    stages: dict[str, float] = {}
    last = time.perf_counter()

    def progress(stage: str, _done: int, _total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        stages[stage] = stages.get(stage, 0.0) + now - last
        last = now

    options = job_options(Settings(), repeat=0, produced_at=datetime.now(UTC))
    run_job(sorted(scan.iterdir()), translator, options, out_dir, progress=progress)
    rows = {f"{stage}: s for 24 slices": seconds for stage, seconds in stages.items()}
    rows["translate: s per slice"] = stages["translate"] / 24
    rows["peak memory, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return rows


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

"""Where the time of a job goes when the network costs nothing, how it grows with the slices, and the worker's memory.

Each job runs in a process of its own, as in a worker: `python -m bench.job SCAN OUT BUNDLE MODE` prints its figures.
"""

import json
import os
import pkgutil
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

import models
from bench.gpu.timed_worker import timed
from bench.tools import make_scan
from config.settings import Settings
from models.bundle import BundleCard, write_bundle
from models.frame import Frame
from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.process import settle_process
from models.translator import Progress
from node.bootstrap.worker import job_options
from node.translate.job import run_job
from node.translate.proof_by_highdicom import load_tables
from tests.builders import SureTranslator

SLICES = 140
GROWTH = (35, 70, 140, 280, 560)
REPEATS = 3
WHOLE = "whole job without the network"
BURNT = "CPU time of the whole job, all threads"
BESIDE = "look for contrast medium and at the envelope, beside the network"
TIMED = {
    "node.dicom.volume.read_slices": "headers and digests",
    "node.dicom.volume.header_of": "headers and digests",
    "node.dicom.volume.decode_slice": "decode",
    "node.translate.job.read_volume": "read",
    "node.translate.job.find_native_contrast": BESIDE,
    "node.translate.job.judge_envelope": BESIDE,
    "node.translate.job.composite": "composite",
    "node.translate.job.judge_result": "gate",
    "node.translate.job.compare_looks": "gate, of both looks",
    "node.translate.job.build_slice": "build derived slices",
    "node.translate.job.write_part10": "write derived slices",
    "node.translate.job.prove_slice": "proof of each slice",
    "node.translate.job.write_doubt": "write the doubt",
    "node.translate.job.prove_series": "proof of the series by highdicom and SimpleITK",
}


def job(folder: Path, bundle: str) -> dict[str, float]:
    """Seconds by stage and in all (medians), seconds by number of slices, and peak memory in GB."""
    longest = make_scan(folder / "scan", max(GROWTH), 99)
    scans = {slices: shorten(longest, slices) for slices in GROWTH}
    runs: dict[int, list[dict[str, float]]] = {slices: [] for slices in GROWTH}
    for _ in range(REPEATS):  # all sizes in turn, so that what else the machine does meets all of them
        for slices, scan in scans.items():
            runs[slices].append(child(scan, folder / "out", bundle, "free"))
    rows = {
        f"{stage}: s for {SLICES} slices": statistics.median(run[stage] for run in runs[SLICES])
        for stage in runs[SLICES][0]
        if stage != "peak_gb"
    }
    totals = {slices: statistics.median(run[WHOLE] for run in runs[slices]) for slices in GROWTH}
    rows |= {f"job of {slices} slices: s": seconds for slices, seconds in totals.items()}
    rows["job time, 560 slices / 70 slices"] = totals[560] / totals[70]
    rows["worker, without a network: peak memory, GB"] = runs[SLICES][0]["peak_gb"]
    readme = folder / "readme"
    write_readme_bundle(readme)
    peak = child(scans[SLICES], folder / "out", str(readme), "one slice")["peak_gb"]
    return rows | {"worker, README configuration on the CPU: peak memory, GB": peak}


def shorten(scan: Path, slices: int) -> Path:
    """A folder with the first slices of a scan, which are a series of their own."""
    folder = scan.with_name(f"{scan.name}-{slices}")
    folder.mkdir()
    for path in sorted(scan.glob("*.dcm"))[:slices]:
        os.link(path, folder / path.name)
    return folder


def child(scan: Path, out_dir: Path, bundle: str, mode: str) -> dict[str, float]:
    """Run one job in a process of its own; its figures."""
    command = [sys.executable, "-m", "bench.job", str(scan), str(out_dir), bundle, mode]
    settle_process()
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def write_readme_bundle(path: Path) -> None:
    """A bundle of the published configuration with random weights."""
    config = NcsnppConfig()
    card = BundleCard(
        name="readme",
        version="0",
        method="syndiff",
        network={"architecture": "ncsnpp", **config.to_mapping()},
        diffusion={"num_timesteps": 4, "beta_min": 0.1, "beta_max": 20.0},
        weights_sha256="0" * 64,
        intended_use="Measurements only; the weights are random.",
    )
    state = {name: tensor.contiguous() for name, tensor in Ncsnpp(config).state_dict().items()}
    write_bundle(path, card, save(state), text="# readme\n\nRandom weights for measurements.\n")


class FewSlices(SureTranslator):
    """A translator whose network sees `few` slices; all others, and without a network all, get one and the same change.

    What is around a network stays: clipping, resizing to its matrix and back, adding the difference to the source.
    """

    def __init__(self, bundle: Path, few: int) -> None:
        self._real = models.load_bundle(bundle) if few else None
        self._few = few
        self.card = models.read_card(bundle)
        self.device, self.precision, self.description, self.arithmetic = "cpu", "fp32", "no network", "none"
        self.level_hu = self.card.blood_level_hu

    def translate(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Fulfils `models.Translator`."""
        frame, predicted = Frame.of(self.card), np.empty_like(hu)
        if self._real is not None:
            predicted[: self._few] = self._real.translate(hu[: self._few], seed, spacing_mm=spacing_mm)
        for z in range(self._few, len(hu)):
            native = torch.from_numpy(hu[z : z + 1])
            difference = torch.full_like(frame.to_model(native), 0.1)
            predicted[z : z + 1] = frame.to_native(difference, native).numpy()
        return predicted


@contextmanager
def stopwatch(seconds: dict[str, float]) -> Iterator[None]:
    """Adds up the wall-clock seconds in the functions of TIMED."""
    with ExitStack() as patches:
        for name, stage in TIMED.items():
            patches.enter_context(patch(name, timed(pkgutil.resolve_name(name), stage, seconds)))
        yield


def run_alone(scan: Path, out_dir: Path, bundle: str, mode: str) -> dict[str, float]:
    """One job in this process: wall-clock seconds by stage and in all, and the peak of resident memory in GB."""
    translator = FewSlices(models.find_bundle(bundle), few=1 if mode == "one slice" else 0)
    options = job_options(Settings(), datetime.now(UTC))
    seconds: dict[str, float] = {}
    shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.mkdir()
    load_tables()  # as a worker does before its first job
    translate = timed(translator.translate, "preprocess and translate", seconds)
    burnt = time.process_time()
    with stopwatch(seconds), patch.object(translator, "translate", translate):
        timed(run_job, WHOLE, seconds)(sorted(scan.glob("*.dcm")), translator, options, out_dir)
    reading = seconds.pop("read")
    apart = seconds["headers and digests"] + seconds["decode"]
    seconds["sorting and HU"] = reading - apart
    spent = sum(seconds.values()) - seconds[WHOLE] - seconds[BESIDE]
    seconds["waiting for threads and the disk, and the rest"] = seconds[WHOLE] - spent
    burnt = time.process_time() - burnt
    return seconds | {BURNT: burnt, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_alone(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])))

"""Plays the demo: scanner, node and TPS on the loopback interface, through the same commands an operator uses."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from config.load import load_settings
from config.settings import DestinationSettings
from models.bundle import HU_WINDOW
from models.phantom import make_patient
from node.bootstrap.store import read_store
from node.demo.picture import Image, write_picture
from node.demo.tps import Tps
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.errors import NodeError
from node.send.scu import StorageScu

SLICES = 24
ROWS = 512
SPACING_MM = (5.0, 0.9766, 0.9766)  # what the shipped bundles were trained on
SEED = 20_260
TIMEOUT_S = 300.0
SETTINGS = "node.toml"
_NOT_SENT = ("SKIPPED", "INCOMPLETE", "HELD", "FAILED")

Say = Callable[[str], None]


class DemoFailed(NodeError):
    """The demo did not end as it must; the message says where."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves: the picture, and the checks it made on what arrived at the TPS."""

    picture: Path
    seconds_from_last_slice: float
    checks: tuple[str, ...]


def play(out_dir: Path, say: Say, *, slices: int = SLICES, rows: int = ROWS, bundle: str = "demo") -> DemoResult:
    """Run the demo in a new folder below `out_dir`, leave the picture in `out_dir`; raises DemoFailed."""
    out_dir.mkdir(parents=True, exist_ok=True)
    run_dir = out_dir / time.strftime("%Y%m%d-%H%M%S")
    run_dir.mkdir()
    say(f"1. scanning a phantom: {slices} slices, {rows} x {rows}")
    spacing = (SPACING_MM[0], SPACING_MM[1] * 512 / rows, SPACING_MM[2] * 512 / rows)
    patient = make_patient(SEED, slices=slices, rows=rows, spacing_mm=spacing)
    (run_dir / "scanner").mkdir()
    identity = ScanIdentity(patient_id="DEMO-1", patient_name="Demo^Thorax", seed=f"demo-{SEED}")
    sources = write_scan(patient.ncct_hu, spacing, run_dir / "scanner", identity)
    with Tps(run_dir / "tps", ae_title="DEMO_TPS") as tps, _node(run_dir, tps, bundle) as port:
        say("2. a node and a second DICOM node that plays the TPS are up")
        _push(sources, port)
        pushed_at = time.monotonic()
        say(f"3. the scanner pushed {len(sources)} slices and got success for each")
        arrived = _wait_for_result(tps, len(sources), run_dir)
        seconds = time.monotonic() - pushed_at
    say(f"4. the synthetic series arrived at the TPS {seconds:.1f} s after the last slice was sent")
    pairs = _pairs(sources, arrived)
    checks = check_headers(pairs)
    picture = out_dir / "syncect-demo.png"
    write_picture(picture, _rows(pairs), title="syncect demo: a procedural phantom, not a patient. Not for dose.")
    return DemoResult(picture, seconds, checks)


def _wait_for_result(tps: Tps, count: int, run_dir: Path) -> list[Path]:
    """The files at the TPS once all are there; raises DemoFailed, at once where the node does not send the series."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(arrived := tps.wait_for(count, 1.0)) < count:
        with read_store(load_settings(run_dir / SETTINGS)) as node:
            ended = [f"{case.state}: {case.reason}" for case in node.overview.cases() if case.state in _NOT_SENT]
        if ended:
            raise DemoFailed(f"the node does not send the series, it is {ended[0]}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"{len(arrived)} of {count} slices arrived at the TPS; see {run_dir / 'node.log'}")
    return arrived


def check_headers(pairs: list[tuple[Dataset, Dataset]]) -> tuple[str, ...]:
    """Check what must hold between each source and derived slice; raises DemoFailed, returns the sentences."""
    same: tuple[str, ...] = (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
    )
    for source, derived in pairs:
        for keyword in same:
            _require(str(source[keyword].value) == str(derived[keyword].value), f"{keyword} differs from the source")
        _require(derived.SyntheticData == "YES", "SyntheticData is not YES")
        _require(list(derived.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"], "ImageType is not derived")
        _require(derived.SeriesInstanceUID != source.SeriesInstanceUID, "the series UID was not renewed")
        _require(derived.Manufacturer != source.Manufacturer, "the scanner's identity was copied")
        _require("ContrastBolusAgent" not in derived, "a contrast agent is claimed")
        before = hu(source)
        outside = (before < HU_WINDOW[0]) | (before > HU_WINDOW[1])
        _require(np.array_equal(before[outside], hu(derived)[outside]), "pixels outside the HU window changed")
    return (
        "study, frame of reference, position, orientation and spacing are string-equal to the source",
        "SyntheticData YES, ImageType DERIVED\\SECONDARY\\AXIAL, own equipment, no contrast agent claimed",
        f"every pixel outside [{HU_WINDOW[0]:g}, {HU_WINDOW[1]:g}] HU is equal to the source",
    )


def hu(dataset: Dataset) -> Image:
    """Pixels of one slice in HU, float32 [y, x]."""
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return (dataset.pixel_array * slope + intercept).astype(np.float32)


def _require(condition: object, what: str) -> None:
    if not condition:
        raise DemoFailed(f"the derived series is wrong: {what}")


def _pairs(sources: list[Path], arrived: list[Path]) -> list[tuple[Dataset, Dataset]]:
    by_uid = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, sources)}
    derived = [dcmread(path) for path in arrived]
    pairs = [(by_uid[image.SourceImageSequence[0].ReferencedSOPInstanceUID], image) for image in derived]
    return sorted(pairs, key=lambda pair: float(pair[0].ImagePositionPatient[2]))


def _rows(pairs: list[tuple[Dataset, Dataset]]) -> list[tuple[str, Image, Image]]:
    """The two slices that changed most, at least a sixth of the series apart: the heart, and the great vessels."""
    change = [float(np.abs(hu(derived) - hu(source)).mean()) for source, derived in pairs]
    best = int(np.argmax(change))
    apart = max(1, len(pairs) // 6)
    rest = [k for k in range(len(pairs)) if abs(k - best) >= apart]
    chosen = sorted({best, max(rest, key=change.__getitem__)} if rest else {best}, reverse=True)
    return [
        (f"z = {float(pairs[k][0].ImagePositionPatient[2]):.0f} mm", hu(pairs[k][0]), hu(pairs[k][1])) for k in chosen
    ]


def _push(sources: list[Path], port: int) -> None:
    node = DestinationSettings(name="node", ae_title="SYNCECT", host="127.0.0.1", port=port)
    report = StorageScu(node, "DEMO_CT").send(
        [(dcmread(path, stop_before_pixels=True).SOPInstanceUID, path) for path in sources]
    )
    if len(report.accepted) != len(sources):
        raise DemoFailed(f"the node accepted {len(report.accepted)} of {len(sources)} slices: {report.reason}")


@contextmanager
def _node(run_dir: Path, tps: Tps, bundle: str) -> Iterator[int]:
    """A node with settings of its own, started as an operator would; stopped and its exit checked afterwards."""
    port = _free_port()
    settings = run_dir / SETTINGS
    settings.write_text(
        f'[node]\ndata_dir = "data"\n[scp]\nhost = "127.0.0.1"\nport = {port}\n'
        '[[scp.allowed_peers]]\nae_title = "DEMO_CT"\nhost = "127.0.0.1"\n'
        f'[completion]\nquiet_s = 1.0\n[model]\nbundle = "{bundle}"\n[retention]\nmin_free_gb = 0.1\n'
        "[web]\nenabled = false\n"
        f'[[destination]]\nname = "tps"\nae_title = "{tps.ae_title}"\nhost = "127.0.0.1"\nport = {tps.port}\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-P", "-m", "node.cli", "--config", str(settings), "serve"]
    with (run_dir / "node.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_until_up(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    node = StorageScu(DestinationSettings(name="node", ae_title="SYNCECT", host="127.0.0.1", port=port), "DEMO_CT")
    deadline = time.monotonic() + 60
    while not node.echo().ok:
        if process.poll() is not None:
            raise DemoFailed(f"the node ended with code {process.returncode}; its log is beside its settings")
        if time.monotonic() > deadline:
            raise DemoFailed("the node did not answer a C-ECHO within a minute")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""The scanner of the demo: a series to push, a phantom's or one of the reader's own, and the push by C-STORE."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.errors import InvalidDicomError
from pynetdicom import build_context
from pynetdicom.association import Association

from config.settings import DestinationSettings
from models.phantom import make_patient
from node.demo.failed import DemoFailed
from node.demo.story import Story
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.headers import SliceHeader, read_header
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.errors import Refused
from node.network.no_association import NoAssociation
from node.network.requestor import associate
from node.network.status import SUCCESS, classify

AE_TITLE: Final = "DEMO_CT"
SEED: Final = 20_260
SPACING_MM: Final = (5.0, 0.9766, 0.9766)  # what the shipped bundles were trained on


@dataclass(frozen=True)
class Scan:
    """A series that the scanner pushes. what: in a few words and without patient data, for the picture."""

    headers: tuple[SliceHeader, ...]
    what: str

    @property
    def series_uid(self) -> str:
        """Its SeriesInstanceUID."""
        return self.headers[0].series_uid


def scan_phantom(folder: Path, story: Story, *, slices: int) -> Scan:
    """Make a phantom and write it as a scanner would."""
    story.step(
        f"The scanner makes a scan: {slices} slices of 512 x 512 pixels of a procedural phantom, which is no patient."
    )
    folder.mkdir()
    with story.during("computing the phantom"):
        patient = make_patient(SEED, slices=slices, spacing_mm=SPACING_MM)
        identity = ScanIdentity(patient_id="DEMO-1", patient_name="Demo^Thorax", seed=f"demo-{SEED}")
        files = write_scan(patient.ncct_hu, SPACING_MM, folder, identity)
        headers = tuple(read_header(path) for path in files)
    return Scan(headers, "a procedural phantom, not a patient")


def push(scan: Scan, port: int, story: Story) -> float:
    """Send the series to the node as it lies on the disk; returns when the last slice was answered (monotonic, s).

    Raises DemoFailed where the node cannot be reached, Refused where it takes no slice.
    """
    megabytes = sum(header.path.stat().st_size for header in scan.headers) / 1e6
    story.step(
        f"The scanner ({AE_TITLE}) pushes {len(scan.headers)} slices, {megabytes:.0f} MB, to the node by C-STORE."
    )
    peer = DestinationSettings(name="node", ae_title="SYNCECT", host="127.0.0.1", port=port)
    syntaxes = sorted({header.transfer_syntax_uid for header in scan.headers})
    begun, refused, stored = time.monotonic(), Counter[str](), 0
    try:
        with associate(peer, AE_TITLE, [build_context(CT_IMAGE_STORAGE, [syntax]) for syntax in syntaxes]) as node:
            for number, header in enumerate(scan.headers, 1):
                if why := _refusal(node, header.path, number):
                    refused[why] += 1
                else:
                    stored += 1
                if story.is_quiet:
                    story.note(f"... pushed {number}/{len(scan.headers)}")
    except NoAssociation as error:
        raise DemoFailed(f"the scanner could send {stored} of {len(scan.headers)} slices: {error.reason}") from error
    for why, count in refused.items():
        story.note(f"{count} slices were not taken: {why}")
    if not stored:
        raise Refused("the node took no slice of this series")
    pushed_at = time.monotonic()
    story.note(
        f"{stored} slices in {pushed_at - begun:.1f} s. The node answered success (0x0000) for each, "
        "which means: it is on the disk and in the store."
    )
    return pushed_at


def _refusal(node: Association, path: Path, number: int) -> str:
    """Send one file as it is; why it was not taken, or "". Raises NoAssociation."""
    try:
        status: int = node.send_c_store(path, msg_id=number % 65535 + 1).Status
    except (ValueError, AttributeError, InvalidDicomError):
        return "the node takes no image in their transfer syntax"
    return "" if status == SUCCESS else classify(status).sentence

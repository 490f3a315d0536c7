"""A scanner and a planning system beside the node, each a process of its own, by pynetdicom.

`python -m bench.gpu.peers scan PORT FOLDER SEED...` sends the series in the folder once for each seed, under UIDs of
that seed, in one association each. `python -m bench.gpu.peers plan PORT` accepts every CT image and keeps none.
"""

import sys
import threading
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from node.dicom.uids import UidFactory


def scan(port: int, folder: Path, seeds: list[str]) -> None:
    """Send; raises RuntimeError where an instance was not taken."""
    images = [dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    ae, uids = AE(ae_title="CTSIM"), UidFactory()
    ae.add_requested_context(CTImageStorage, images[0].file_meta.TransferSyntaxUID)
    for seed in seeds:
        association = ae.associate("127.0.0.1", port, ae_title="SYNCECT")
        if not association.is_established:
            raise RuntimeError(f"the node accepts no association on port {port}")
        for number, image in enumerate(images):
            image.SeriesInstanceUID = uids.make("scan series", seed)
            image.SOPInstanceUID = uids.make("scan instance", seed, str(number))
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            status = association.send_c_store(image)
            if "Status" not in status or status.Status:
                raise RuntimeError(f"image {number + 1} of a series was not taken: {status}")
        association.release()


def plan(port: int) -> None:
    """Accept until the process is ended."""
    ae = AE(ae_title="TPS")
    ae.add_supported_context(CTImageStorage)
    ae.add_supported_context(Verification)
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0x0000)])
    threading.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "scan":
        scan(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        plan(int(sys.argv[2]))

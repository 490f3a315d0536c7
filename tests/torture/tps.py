"""A TPS that writes every yes into the ledger, and that can refuse, hang, die or talk nonsense when it is told to."""

import threading
from collections.abc import Callable
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from tests.slice.harness import free_port
from tests.torture.ledger import Ledger

_OUT_OF_RESOURCES = 0xA700

Answer = Callable[["Tps", Event], "Dataset | int"]


class Tps:
    """A storage SCP in this process; `answer` is how it behaves, and may be changed at any moment."""

    ae_title = "TPS"

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.port = free_port()
        self.answer: Answer = accept
        self.released = threading.Event()  # lets go what hangs
        self.asked = threading.Event()  # set by each C-STORE
        self._ae = AE(ae_title=self.ae_title)
        self._ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
        self._ae.add_supported_context(Verification)
        self._server: object | None = None

    def start(self) -> "Tps":
        """Listen on the port that it keeps for life."""
        self.released.clear()
        self._server = self._ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        return self

    def _store(self, event: Event) -> "Dataset | int":
        self.asked.set()
        return self.answer(self, event)

    def stop(self) -> None:
        """Cut every association off and listen no more."""
        self.released.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()  # type: ignore[attr-defined]
            for association in list(self._ae.active_associations):
                association.abort(block=False)


def accept(tps: Tps, event: Event) -> int:
    """What a good TPS does."""
    data = event.encoded_dataset(include_meta=False)
    uid, source_uid = _uids(data)
    tps.ledger.take(uid, source_uid, data)
    return 0x0000


def refuse(_tps: Tps, _event: Event) -> int:
    """A full disk at the TPS."""
    return _OUT_OF_RESOURCES


def hang(tps: Tps, _event: Event) -> int:
    """No answer until it is released, and then a refusal."""
    tps.released.wait()
    return _OUT_OF_RESOURCES


def die(_tps: Tps, event: Event) -> int:
    """The association breaks at the second instance."""
    event.assoc.abort(block=False)
    return _OUT_OF_RESOURCES


def answer_for_another(_tps: Tps, _event: Event) -> Dataset:
    """A yes that names another instance than the one that was sent; nothing is kept."""
    answer = Dataset()
    answer.Status = 0x0000
    answer.AffectedSOPInstanceUID = "1.2.3.4.5"
    return answer


def unknown_status(_tps: Tps, _event: Event) -> int:
    """A status that DICOM does not know; nothing is kept."""
    return 0x5678


def _uids(data: bytes) -> tuple[str, str]:
    """The SOP Instance UID of a derived image and that of its source."""
    dataset = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    return str(dataset.SOPInstanceUID), str(dataset.SourceImageSequence[0].ReferencedSOPInstanceUID)

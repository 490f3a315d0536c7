"""A second DICOM node that plays the treatment planning system: it stores what it gets and counts it."""

import threading
from pathlib import Path
from types import TracebackType

from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.events import Event

from node.network.contexts import VERIFICATION
from node.network.status import SUCCESS


class Tps:
    """A storage SCP on a free port of the loopback interface; use as a context manager."""

    def __init__(self, folder: Path, *, ae_title: str) -> None:
        self.folder, self.ae_title = folder, ae_title
        self._arrived = threading.Condition()
        self._files: list[Path] = []
        self._ae = AE(ae_title=ae_title)
        self._ae.add_supported_context(CTImageStorage)
        self._ae.add_supported_context(VERIFICATION)

    def __enter__(self) -> "Tps":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server = self._ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        assert self._server is not None
        self.port: int = self._server.server_address[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.shutdown()

    def wait_for(self, count: int, timeout_s: float) -> list[Path]:
        """Files in order of arrival once there are `count`, or those there are when the time is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._files) >= count, timeout_s)
            return list(self._files)

    def _store(self, event: Event) -> int:
        with self._arrived:
            path = self.folder / f"{len(self._files) + 1:04}.dcm"
            path.write_bytes(event.encoded_dataset())
            self._files.append(path)
            self._arrived.notify_all()
        return SUCCESS

"""Writes the data sets of C-STORE requests to the spool as they arrive; it neither decodes nor judges them.

pynetdicom's own STORE_RECV_CHUNKED_DATASET does nearly this, but for the whole process and in the temporary folder of
the system, without a bound, and leaves a file behind whenever a transfer is aborted.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.pdu_primitives import P_DATA

from node.dicom.constants import IMPLEMENTATION_CLASS_UID, PRODUCT_NAME
from node.errors import UnreadableInstance
from node.ingest.header import check_command_set, is_uid
from storage.errors import SpoolFull
from storage.spool import Spool

log = logging.getLogger(__name__)

# Command sets, and data sets of requests that this node does not serve, have no business being larger.
MAX_MESSAGE_BYTES = 1 << 20


class TooLarge(Exception):
    """A data set is larger than the receiver accepts."""


class IncomingFile:
    """One data set on its way into the spool, as a Part 10 file with a zero preamble.

    It never raises while data arrive: a full disk must end in a refusal of this instance, not of the association. The
    first failure is kept in `failure`, the rest of the data is dropped.
    """

    def __init__(self, folder: Path, head: bytes, *, max_bytes: int) -> None:
        self.name = ""
        self.failure: Exception | None = None
        self.size_bytes = 0
        self.head_bytes = len(head)
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._stream: BinaryIO | None = None
        try:
            descriptor, self.name = tempfile.mkstemp(prefix="rx-", suffix=".part", dir=folder)
            self._stream = os.fdopen(descriptor, "wb")
        except OSError as error:
            self.failure = error
        self.write(head)

    @classmethod
    def refused(cls, failure: Exception) -> "IncomingFile":
        """A stand-in that drops everything, for a data set that cannot be accepted for a reason known beforehand."""
        file = cls.__new__(cls)
        file.name, file.failure, file.size_bytes, file.head_bytes = "", failure, 0, 0
        file._max_bytes, file._digest, file._stream = 0, hashlib.sha256(), None
        return file

    @property
    def path(self) -> Path:
        """Where the file lies until the spool accepts it."""
        return Path(self.name)

    @property
    def sha256(self) -> str:
        """Hex digest over the whole file."""
        return self._digest.hexdigest()

    @property
    def file(self) -> "IncomingFile":
        """pynetdicom flushes the `file` of its temporary files after every fragment; here that does nothing."""
        return self

    def flush(self) -> None:
        """Do nothing: the data are forced to the disk once, when the spool accepts the file."""

    def write(self, data: bytes) -> int:
        """Append a fragment, or drop it after a failure."""
        if self._stream is not None and self.failure is None:
            try:
                if self.size_bytes + len(data) > self._max_bytes:
                    raise TooLarge(f"the data set is larger than {self._max_bytes} bytes")
                self._stream.write(data)
                self._digest.update(data)
                self.size_bytes += len(data)
            except (OSError, ValueError, TooLarge) as error:
                self._fail(error)
        return len(data)

    def close(self) -> None:
        """Hand the last bytes to the operating system; a full disk may show only here."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError as error:
                self._fail(error)

    def abandon(self) -> None:
        """Close and remove the file; nothing happens where the spool has taken it already."""
        self._fail(self.failure or TooLarge("abandoned"))

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.close()
        if self.name:
            Path(self.name).unlink(missing_ok=True)


class SpoolingDimse(DIMSEServiceProvider):
    """The DIMSE provider of one association: C-STORE data sets go to files, everything else is bounded."""

    def __init__(self, assoc: Association, spool: Spool, *, max_dataset_bytes: int) -> None:
        super().__init__(assoc)
        self._spool = spool
        self._max_dataset_bytes = max_dataset_bytes
        self._loose_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments one by one, so that a file is ready before the first byte of a data set.

        Never raises: an exception here would end pynetdicom's thread with a traceback that quotes the peer.
        """
        try:
            for fragment in primitive.presentation_data_value_list:
                self._receive_fragment(fragment)
        except Exception as error:
            why = str(error) if isinstance(error, (UnreadableInstance, TooLarge)) else type(error).__name__
            log.warning("aborting an association: not a DIMSE message: %s", why)
            self.dul.event_queue.put("Evt19")  # invalid PDU: the association is aborted (PS3.8 9.2)

    def _receive_fragment(self, fragment: Any) -> None:
        if self.message is None:
            self._loose_bytes = 0
        elif _file_of(self.message) is None:
            self._loose_bytes += len(fragment[1])
            if self._loose_bytes > MAX_MESSAGE_BYTES:
                raise TooLarge(f"a message without a file is larger than {MAX_MESSAGE_BYTES} bytes")
        if fragment[1][0] & 0b11 == 0b11:  # the last fragment of a command set (PS3.8 E.2)
            begun = b"" if self.message is None else self.message.encoded_command_set.getvalue()
            check_command_set(begun + fragment[1][1:])
        part: Any = P_DATA()  # annotated as a list of tuples, checked at run time to be a list of lists
        part.presentation_data_value_list = [list(fragment)]
        super().receive_primitive(part)
        if isinstance(self.message, C_STORE_RQ) and _file_of(self.message) is None:
            self._open_file(self.message)

    def abandon(self) -> None:
        """Remove the files of every request that was not answered; to be called when the association has ended."""
        requests: list[Any] = [self.message] if self.message is not None else []
        while not self.msg_queue.empty():
            requests.append(self.msg_queue.get_nowait()[1])
        for request in requests:
            file = _file_of(request)
            if file is not None:
                file.abandon()

    def _open_file(self, message: Any) -> None:
        command, context = message.command_set, self.assoc._accepted_cx.get(message.context_id)
        class_uid = str(command.get("AffectedSOPClassUID", ""))
        instance_uid = str(command.get("AffectedSOPInstanceUID", ""))
        if context is None or not is_uid(class_uid) or not is_uid(instance_uid):
            # pynetdicom aborts the association once the message is complete.
            message._data_set_file = IncomingFile.refused(TooLarge("the request is not valid"))
            return
        try:
            self._spool.check_space()
        except (SpoolFull, OSError) as error:
            message._data_set_file = IncomingFile.refused(error)
            return
        head = _head(class_uid, instance_uid, context.transfer_syntax[0])
        message._data_set_file = IncomingFile(self._spool.incoming, head, max_bytes=self._max_dataset_bytes)


def incoming_file(request: Any) -> IncomingFile | None:
    """The file behind a C-STORE request; None where the request came without a data set."""
    return _file_of(request)


def _file_of(holder: Any) -> IncomingFile | None:
    file = getattr(holder, "_data_set_file", None) or getattr(holder, "_dataset_file", None)
    return file if isinstance(file, IncomingFile) else None


def _head(class_uid: str, instance_uid: str, transfer_syntax: UID) -> bytes:
    """Preamble, prefix and file meta information; the same instance gets the same bytes from every association."""
    meta = create_file_meta(
        sop_class_uid=UID(class_uid),
        sop_instance_uid=UID(instance_uid),
        transfer_syntax=transfer_syntax,
        implementation_uid=UID(IMPLEMENTATION_CLASS_UID),
        implementation_version=PRODUCT_NAME.upper(),  # without a number, which would change the bytes
    )
    return b"\0" * 128 + b"DICM" + encode_file_meta(meta)

"""Writes the data sets of C-STORE requests to the spool as they arrive; it neither decodes nor judges them.

pynetdicom's own STORE_RECV_CHUNKED_DATASET does nearly this, but for the whole process and in the temporary folder of
the system, without a bound, and leaves a file behind whenever a transfer is aborted.

A regular C-STORE request is served here, in the thread that reads the connection: pynetdicom would hand it to another
thread and take the answer back by queues that both look into once a millisecond. Every other message goes its way.
"""

import logging
import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from io import BufferedReader
from typing import Any, BinaryIO

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.pdu_primitives import P_DATA

from node.dicom.constants import IMPLEMENTATION_CLASS_UID, PRODUCT_NAME
from node.errors import UnreadableInstance
from node.ingest.command import StoreCommand, read_command, store_response
from node.ingest.contexts import VERIFICATION
from node.ingest.server import hurry
from storage.errors import SpoolFull
from storage.spool import Spool

log = logging.getLogger(__name__)

# Command sets, and data sets of requests that this node does not serve, have no business being larger.
MAX_MESSAGE_BYTES = 1 << 20

# The message control header of a fragment (PS3.8 E.2)
_COMMAND, _LAST = 0b01, 0b10


class TooLarge(Exception):
    """A data set is larger than the receiver accepts."""


class IncomingFile:
    """One data set on its way into the spool, as a Part 10 file with a zero preamble.

    It never raises while data arrive: a full disk must end in a refusal of this instance, not of the association. The
    first failure is kept in `failure`, the rest of the data is dropped.
    """

    def __init__(self, spool: Spool, head: bytes, *, max_bytes: int) -> None:
        self.path = spool.incoming / f"rx-{uuid.uuid4().hex}.part"
        self.failure: Exception | None = None
        self.size_bytes = 0
        self.head_bytes = len(head)
        self._max_bytes = max_bytes
        self._stream: BinaryIO | None = None
        try:
            spool.check_space()
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self._stream = os.fdopen(descriptor, "wb")
        except (OSError, SpoolFull) as error:
            self.failure = error
        self.write(head)

    def write(self, data: bytes | memoryview) -> None:
        """Append a fragment, or drop it after a failure."""
        if self._stream is not None and self.failure is None:
            try:
                if self.size_bytes + len(data) > self._max_bytes:
                    raise TooLarge(f"the data set is larger than {self._max_bytes} bytes")
                self._stream.write(data)
                self.size_bytes += len(data)
            except (OSError, ValueError, TooLarge) as error:
                self._fail(error)

    def close(self) -> None:
        """Hand the last bytes to the operating system; a full disk may show only here."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError as error:
                self._fail(error)

    def sha256(self, executor: Executor) -> "Future[str]":
        """Begin the hex digest over the whole closed file; the file may be renamed meanwhile."""
        return executor.submit(_hexdigest, self.path.open("rb"))

    def abandon(self) -> None:
        """Close and remove the file; nothing happens where the spool has taken it already."""
        self._fail(self.failure or TooLarge("abandoned"))

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.close()
        self.path.unlink(missing_ok=True)


def _hexdigest(stream: BufferedReader) -> str:
    with stream:
        return file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class StoreContext:
    """An accepted presentation context under which instances may be stored."""

    id: int
    abstract_syntax: str
    transfer_syntax: str
    implicit_vr: bool


@dataclass(frozen=True)
class StoreRequest:
    """One C-STORE request whose data set has arrived, or has been dropped for the reason in `file.failure`."""

    command: StoreCommand
    context: StoreContext
    file: IncomingFile


class SpoolingDimse(DIMSEServiceProvider):
    """The DIMSE provider of one association: C-STORE data sets go to files, everything else is bounded.

    `serve` answers a request with a status and a comment, never raises, and runs in the thread of the connection.
    """

    def __init__(
        self,
        assoc: Association,
        spool: Spool,
        serve: Callable[[Association, StoreRequest], tuple[int, str]],
        *,
        max_dataset_bytes: int,
    ) -> None:
        super().__init__(assoc)
        self._spool, self._serve = spool, serve
        self._max_dataset_bytes = max_dataset_bytes
        self._command = bytearray()
        self._loose_bytes = 0
        self._contexts: dict[int, StoreContext] = {}
        self._store: StoreRequest | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments one by one, so that a file is ready before the first byte of a data set.

        Never raises: an exception here would end pynetdicom's thread with a traceback that quotes the peer.
        """
        try:
            for context_id, data in primitive.presentation_data_value_list:
                self._receive_fragment(context_id, memoryview(data))
        except Exception as error:
            why = str(error) if isinstance(error, (UnreadableInstance, TooLarge)) else type(error).__name__
            log.warning("aborting an association: not a DIMSE message: %s", why)
            self.dul.event_queue.put("Evt19")  # invalid PDU: the association is aborted (PS3.8 9.2)

    def abandon(self) -> None:
        """Remove the file of a request that was not answered; to be called when the association has ended."""
        request, self._store = self._store, None
        if request is not None:
            request.file.abandon()

    def _receive_fragment(self, context_id: int, data: memoryview) -> None:
        control = data[0]
        if self._store is not None:
            self._receive_data(self._store, context_id, control, data[1:])
        elif control & _COMMAND:
            self._receive_command(context_id, control, data)
        else:
            self._count(data)
            self._pass_on(context_id, bytes(data))

    def _receive_data(self, request: StoreRequest, context_id: int, control: int, data: memoryview) -> None:
        if control & _COMMAND or context_id != request.context.id:
            raise UnreadableInstance("another message begins inside a data set")
        request.file.write(data)
        if control & _LAST:
            status, comment = self._serve(self.assoc, request)
            self.abandon()
            # Not `is_established`: the association's own thread sets it only after the peer may have sent its first.
            if not (self.assoc.is_aborted or self.assoc.is_released):
                self._send(context_id, store_response(request.command, status, comment))

    def _receive_command(self, context_id: int, control: int, data: memoryview) -> None:
        self._count(data)
        self._command += data[1:]
        if not control & _LAST:
            return
        raw = bytes(self._command)
        self._command.clear()
        self._loose_bytes = 0
        command = read_command(raw)
        context = None if command is None else self._store_context(context_id)
        if command is None or context is None:
            self._pass_on(context_id, bytes([control]) + raw)
            return
        head = part10_head(command.sop_class_uid, command.sop_instance_uid, context.transfer_syntax)
        file = IncomingFile(self._spool, head, max_bytes=self._max_dataset_bytes)
        self._store = StoreRequest(command, context, file)

    def _store_context(self, context_id: int) -> StoreContext | None:
        """The context of this number; None where it was not accepted, or is for C-ECHO. pynetdicom aborts then."""
        known = self._contexts.get(context_id)
        if known is None:
            accepted = self.assoc._accepted_cx.get(context_id)
            if accepted is None or accepted.abstract_syntax == VERIFICATION:
                return None
            syntax = accepted.transfer_syntax[0]
            known = StoreContext(context_id, str(accepted.abstract_syntax), str(syntax), syntax.is_implicit_VR)
            self._contexts[context_id] = known
        return known

    def _count(self, data: memoryview) -> None:
        self._loose_bytes += len(data)
        if self._loose_bytes > MAX_MESSAGE_BYTES:
            raise TooLarge(f"a message without a file is larger than {MAX_MESSAGE_BYTES} bytes")

    def _pass_on(self, context_id: int, data: bytes) -> None:
        """Let pynetdicom read and serve a message that is no regular C-STORE request."""
        super().receive_primitive(_p_data(context_id, data))
        hurry(self.assoc)

    def _send(self, context_id: int, message: bytes) -> None:
        """Queue a command set; the thread that runs this is the one that sends it next."""
        room = self.maximum_pdu_size - 6 if self.maximum_pdu_size > 6 else len(message)  # 0 stands for no limit
        for begin in range(0, len(message), room):
            control = _COMMAND | (_LAST if begin + room >= len(message) else 0)
            self.dul.send_pdu(_p_data(context_id, bytes([control]) + message[begin : begin + room]))


def _p_data(context_id: int, data: bytes) -> Any:
    part: Any = P_DATA()  # annotated as a list of tuples, checked at run time to be a list of lists
    part.presentation_data_value_list = [[context_id, data]]
    return part


def part10_head(class_uid: str, instance_uid: str, transfer_syntax: str) -> bytes:
    """Preamble, prefix and file meta information; the same instance gets the same bytes from every association."""
    value = instance_uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    before, after = _around_instance_uid(class_uid, transfer_syntax, len(value))
    return before + value + after


@lru_cache(maxsize=256)
def _around_instance_uid(class_uid: str, transfer_syntax: str, length: int) -> Sequence[bytes]:
    """What stands before and after an instance UID of this even length; encoding it anew takes a millisecond."""
    stand_in = "1" * length
    meta = create_file_meta(
        sop_class_uid=UID(class_uid),
        sop_instance_uid=UID(stand_in),
        transfer_syntax=UID(transfer_syntax),
        implementation_uid=UID(IMPLEMENTATION_CLASS_UID),
        implementation_version=PRODUCT_NAME.upper(),  # without a number, which would change the bytes
    )
    encoded = b"\0" * 128 + b"DICM" + encode_file_meta(meta)
    element = b"\2\0\3\0UI" + length.to_bytes(2, "little")  # (0002,0003) Media Storage SOP Instance UID
    before, after = encoded.split(element + stand_in.encode("ascii"), 1)
    return before + element, after

"""Writes the data sets of C-STORE requests to the spool as they arrive; it neither decodes nor judges them."""

import hashlib
import os
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import ImplicitVRLittleEndian

from node.dicom.constants import IMPLEMENTATION_CLASS_UID, PRODUCT_NAME
from node.dicom.p_data import COMMAND, LAST, data_values
from node.errors import UnreadableInstance
from node.network.contexts import VERIFICATION
from node.receive.command import StoreCommand, echo_response, read_command, read_echo, store_response
from storage.errors import SpoolFull
from storage.spool import Spool

MAX_COMMAND_BYTES = 1 << 20  # a command set has no business being larger


class TooLarge(Exception):
    """A command set or a data set is larger than the receiver accepts."""


class IncomingFile:
    """One data set on its way into the spool, as a Part 10 file with a zero preamble.

    It never raises while data arrive: a full disk must end in a refusal of this instance, not of the association. The
    first failure is kept in `failure`, the rest of the data is dropped. The file stays open until `close`.
    """

    def __init__(self, spool: Spool, head: bytes, *, max_bytes: int) -> None:
        self.path = Path(f"{spool.incoming}/rx-{uuid.uuid4().hex}.part")
        self.failure: Exception | None = None
        self.size_bytes = 0
        self.head_bytes = len(head)
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._descriptor: int | None = None
        try:
            spool.check_space()
            self._descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except (OSError, SpoolFull) as error:
            self.failure = error
        self.write(head)

    @property
    def descriptor(self) -> int:
        """The open file; only without a failure and before `close`."""
        assert self._descriptor is not None
        return self._descriptor

    def write(self, data: bytes | memoryview) -> None:
        """Append a fragment, or drop it after a failure."""
        if self._descriptor is not None and self.failure is None:
            try:
                if self.size_bytes + len(data) > self._max_bytes:
                    raise TooLarge(f"the data set is larger than {self._max_bytes} bytes")
                _write_all(self._descriptor, data)
                self._digest.update(data)
                self.size_bytes += len(data)
            except (OSError, TooLarge) as error:
                self._fail(error)

    def sha256(self) -> str:
        """The hex digest over everything that was written."""
        return self._digest.hexdigest()

    def data_set(self) -> BinaryIO:
        """A reader of the open file that stands at the first byte of the data set."""
        stream = open(self.descriptor, "rb", closefd=False)  # noqa: SIM115 - the file belongs to this object
        stream.seek(self.head_bytes)
        return stream

    def close(self) -> None:
        """Close the file; what it holds reached the disk before, or is not wanted."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def abandon(self) -> None:
        """Close and remove the file; nothing is removed where the spool has taken it already."""
        self._fail(self.failure or TooLarge("abandoned"))

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.close()
        self.path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    written = os.write(descriptor, data)
    while written < len(data):  # a nearly full disk takes a part, and says why with the next call
        written += os.write(descriptor, data[written:])


@dataclass(frozen=True)
class StoreContext:
    """An accepted presentation context."""

    id: int
    abstract_syntax: str
    transfer_syntax: str

    @property
    def implicit_vr(self) -> bool:
        """Whether data sets come without VRs."""
        return self.transfer_syntax == ImplicitVRLittleEndian


@dataclass(frozen=True)
class StoreRequest:
    """One C-STORE request whose data set has arrived, or has been dropped for the reason in `file.failure`."""

    command: StoreCommand
    context: StoreContext
    file: IncomingFile


class IncomingMessages:
    """The DIMSE messages of one association: C-STORE data sets go to files, C-ECHO is answered, others are refused.

    `serve` answers a request with a status and a comment and never raises; `answer` sends a command set.
    """

    def __init__(
        self,
        contexts: Mapping[int, StoreContext],
        spool: Spool,
        serve: Callable[[StoreRequest], tuple[int, str]],
        answer: Callable[[int, bytes], None],
        *,
        max_dataset_bytes: int,
    ) -> None:
        self._contexts, self._spool = contexts, spool
        self._serve, self._answer = serve, answer
        self._max_dataset_bytes = max_dataset_bytes
        self._command = bytearray()
        self._store: StoreRequest | None = None

    def receive(self, body: memoryview) -> None:
        """Take the fragments of one P-DATA-TF; a file is ready before the first byte of a data set.

        Raises InvalidPdu, UnreadableInstance or TooLarge where the association has to be aborted.
        """
        for context_id, value in data_values(body):
            control, data = value[0], value[1:]
            if self._store is not None:
                self._receive_data(self._store, context_id, control, data)
            elif control & COMMAND:
                self._receive_command(context_id, control, data)
            else:
                raise UnreadableInstance("a data set without a request")

    def abandon(self) -> None:
        """Remove the file of a request that was not answered; to be called when the association has ended."""
        request, self._store = self._store, None
        if request is not None:
            request.file.abandon()

    def _receive_data(self, request: StoreRequest, context_id: int, control: int, data: memoryview) -> None:
        if control & COMMAND or context_id != request.context.id:
            raise UnreadableInstance("another message begins inside a data set")
        request.file.write(data)
        if control & LAST:
            status, comment = self._serve(request)
            self.abandon()
            self._answer(context_id, store_response(request.command, status, comment))

    def _receive_command(self, context_id: int, control: int, data: memoryview) -> None:
        if len(self._command) + len(data) > MAX_COMMAND_BYTES:
            raise TooLarge(f"a command set is larger than {MAX_COMMAND_BYTES} bytes")
        self._command += data
        if not control & LAST:
            return
        raw = bytes(self._command)
        self._command.clear()
        context = self._contexts.get(context_id)
        if context is None:
            raise UnreadableInstance("a message in a presentation context that was not accepted")
        command = read_command(raw)
        if context.abstract_syntax == VERIFICATION:
            self._echo(context_id, raw)
        elif command is None:
            raise UnreadableInstance("a message that is no regular C-STORE request")
        else:
            head = part10_head(command.sop_class_uid, command.sop_instance_uid, context.transfer_syntax)
            file = IncomingFile(self._spool, head, max_bytes=self._max_dataset_bytes)
            self._store = StoreRequest(command, context, file)

    def _echo(self, context_id: int, raw: bytes) -> None:
        message_id = read_echo(raw)
        if message_id is None:
            raise UnreadableInstance("a message that is no C-ECHO request")
        self._answer(context_id, echo_response(message_id))


def part10_head(class_uid: str, instance_uid: str, transfer_syntax: str) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 7.1); one instance gets the same bytes every time."""
    elements = b"".join(
        (
            b"\2\0\1\0OB\0\0\2\0\0\0\0\1",  # version
            _meta(0x0002, b"UI", class_uid),
            _meta(0x0003, b"UI", instance_uid),
            _meta(0x0010, b"UI", transfer_syntax),
            _meta(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _meta(0x0013, b"SH", PRODUCT_NAME.upper()),  # without a number, which would change the bytes
        )
    )
    return b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0" + struct.pack("<L", len(elements)) + elements


def _meta(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value

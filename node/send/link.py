"""Requests and answers over an established association, in the thread of the caller (PS3.8 section 9.2, "Sta6").

pynetdicom negotiates; its own data transfer is left alone. It runs two more threads for each association, which hand
messages over in queues that they look into once a millisecond, and one of them can take the answer to a request off its
queue before the sender does: `Association.send_c_store` trusts a flag that the other thread has not cleared yet.
"""

import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom.uid import UID

from node.dicom.p_data import COMMAND, LAST, data_values
from node.send.command import Answer, Request, read_answer

MAX_MESSAGE_BYTES = 1 << 20  # an answer is a few hundred bytes
MAX_FRAGMENT_BYTES = 1 << 17  # whatever a peer allows
_ABORT_S = 1.0

_P_DATA_TF, _A_RELEASE_RQ, _A_RELEASE_RP, _A_ABORT = 0x04, 0x05, 0x06, 0x07
_USER, _PROVIDER = 0, 2  # source of an A-ABORT, PS3.8 section 9.3.8
_BROKEN_OFF = "the peer broke the association off"


class Broken(Exception):
    """The association has ended before its time; the text is a sentence for an administrator."""


@dataclass(frozen=True)
class Context:
    """A presentation context that the peer accepted."""

    id: int
    abstract_syntax: str
    transfer_syntax: UID


class Link:
    """One established association; after `Broken` it is closed and can only be released, which does nothing.

    `max_pdu_bytes` is what the peer receives at most, 0 without a bound. A peer may take nothing for `send_s`; request
    and answer together have `answer_s`.
    """

    def __init__(
        self,
        connection: socket.socket,
        contexts: Sequence[Context],
        *,
        max_pdu_bytes: int,
        send_s: float,
        answer_s: float,
        release_s: float,
    ) -> None:
        self.contexts = tuple(contexts)
        self._connection = connection
        self._open = True
        room = max_pdu_bytes - 6 if max_pdu_bytes > 7 else MAX_FRAGMENT_BYTES
        self._fragment_bytes = min(room, MAX_FRAGMENT_BYTES) & ~1
        self._send_s, self._answer_s, self._release_s = send_s, answer_s, release_s
        self._fragments: deque[tuple[int, memoryview]] = deque()

    def ask(self, context: Context, request: Request, data: bytes | memoryview = b"") -> Answer:
        """Send a request with its data set and wait for the answer; raises Broken."""
        with self._breaking():
            deadline = time.monotonic() + self._answer_s
            message = [*self._pdus(context.id, COMMAND, request.encoded()), *self._pdus(context.id, 0, data)]
            self._send(b"".join(message), deadline)
            return self._receive(request, deadline)

    def next_answer(self, request: Request) -> Answer:
        """Wait for one more answer to a request that gets several; raises Broken."""
        with self._breaking():
            return self._receive(request, time.monotonic() + self._answer_s)

    def release(self) -> None:
        """End the association in order, or at once where the peer does not help; never raises."""
        if not self._open:
            return
        with contextlib.suppress(Broken), self._breaking():
            deadline = time.monotonic() + self._release_s
            self._send(_simple_pdu(_A_RELEASE_RQ), deadline)
            while (kind := self._read_pdu(deadline)[0]) not in (_A_RELEASE_RP, _A_ABORT):
                if kind == _A_RELEASE_RQ:  # both at once: PS3.8 section 9.2, AR-8 and AR-9
                    self._send(_simple_pdu(_A_RELEASE_RP), deadline)
        self._close()

    # -- sending -----------------------------------------------------------------------------------------------

    def _pdus(self, context_id: int, control: int, message: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """A command set or data set as P-DATA-TF PDUs of one fragment each (PS3.8 section 9.3.5)."""
        view, size = memoryview(message), self._fragment_bytes
        for begin in range(0, len(view), size):
            fragment = view[begin : begin + size]
            last = LAST if begin + size >= len(view) else 0
            length = len(fragment) + 2
            yield struct.pack(">BxLLBB", _P_DATA_TF, length + 4, length, context_id, control | last)
            yield fragment

    def _send(self, pdus: bytes, deadline: float) -> None:
        rest = memoryview(pdus)
        while rest:
            try:
                self._connection.settimeout(min(self._send_s, _left_s(deadline)))
                rest = rest[self._connection.send(rest) :]
            except TimeoutError:
                self._close()  # inside a PDU nobody would understand an A-ABORT
                raise Broken("the peer does not take what it is sent") from None

    # -- receiving ---------------------------------------------------------------------------------------------

    def _receive(self, request: Request, deadline: float) -> Answer:
        status, data_follow = read_answer(self._read_message(COMMAND, deadline), request)
        return Answer(status, self._read_message(0, deadline) if data_follow else b"")

    def _read_message(self, kind: int, deadline: float) -> bytes:
        """A whole command set or data set."""
        message = bytearray()
        while True:
            while not self._fragments:
                body = memoryview(self._read_data(deadline))
                self._fragments.extend((value[0], value[1:]) for _, value in data_values(body))
            control, fragment = self._fragments.popleft()
            message += fragment
            if control & COMMAND != kind or len(message) > MAX_MESSAGE_BYTES:
                raise ValueError("not a message that belongs here")
            if control & LAST:
                return bytes(message)

    def _read_data(self, deadline: float) -> bytearray:
        """The body of a P-DATA-TF PDU; raises Broken where the peer ends the association instead."""
        kind, body = self._read_pdu(deadline)
        if kind == _A_RELEASE_RQ:
            self._send(_simple_pdu(_A_RELEASE_RP), deadline)
        if kind in (_A_RELEASE_RQ, _A_ABORT):
            self._close()
            raise Broken(_BROKEN_OFF)
        if kind != _P_DATA_TF:
            raise ValueError("a PDU of a kind that belongs elsewhere")
        return body

    def _read_pdu(self, deadline: float) -> tuple[int, bytearray]:
        kind, length = struct.unpack(">BxL", self._read(6, deadline))
        if length > MAX_MESSAGE_BYTES:
            raise ValueError("a PDU is longer than was agreed")
        return kind, self._read(length, deadline)

    def _read(self, count: int, deadline: float) -> bytearray:
        buffer, filled = bytearray(count), 0
        while filled < count:
            self._connection.settimeout(_left_s(deadline))
            received = self._connection.recv_into(memoryview(buffer)[filled:])
            if received == 0:
                raise ConnectionError("closed")
            filled += received
        return buffer

    # -- ending ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """Whatever goes wrong ends the association; raises Broken with what it was."""
        try:
            if not self._open:
                raise Broken(_BROKEN_OFF)
            yield
        except TimeoutError:
            self._abort(_USER)
            raise Broken(f"the peer did not answer within {self._answer_s:.0f} s") from None
        except OSError:
            self._close()
            raise Broken(_BROKEN_OFF) from None
        except ValueError:
            self._abort(_PROVIDER)
            raise Broken("the peer's answer is malformed") from None

    def _abort(self, source: int) -> None:
        with contextlib.suppress(OSError):
            self._connection.settimeout(_ABORT_S)
            self._connection.sendall(_simple_pdu(_A_ABORT, source))
        self._close()

    def _close(self) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _simple_pdu(kind: int, source: int = 0) -> bytes:
    """An A-RELEASE or A-ABORT PDU; the reason is not given (PS3.8 sections 9.3.6 to 9.3.8)."""
    return struct.pack(">BxLxxBx", kind, 4, source)


def _left_s(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left

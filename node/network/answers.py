"""What a requestor takes for an answer: pynetdicom's DIMSE provider and socket, with bounds and checks of their own.

pynetdicom takes any response for the answer to any request, keeps a message without an end, reads a PDU of any length,
ends its thread with an error on a message that it cannot decode, and does not tell a waiting sender of a release or a
malformed PDU. Each of these ends the association here, at once and with a sentence.
"""

import queue
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_MOVE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_P_ABORT, A_RELEASE, P_DATA
from pynetdicom.transport import AssociationSocket

from node.network.no_association import NoAssociation, Outcome

MAX_PDU_BYTES = (1 << 17) + 6  # sent, whatever a peer allows
MAX_MESSAGE_BYTES = 1 << 16  # received; an answer, and what a query finds, is a few hundred bytes
MAX_LIST_BYTES = 4 << 20  # received, of an N-EVENT-REPORT request or the end of a C-MOVE: the names of 20,000 instances
MAX_ANSWERS = 20_000  # to one request: a query for a series may be answered with the whole study, an image each
MAX_ANSWERS_BYTES = 16 << 20  # to one request, all together
_POLL_S = 0.05  # how often pynetdicom's thread looks whether it is to end
_LOOK_S = 0.05  # how often a waiting sender looks whether the association still exists

_BROKEN_OFF = "the peer broke the association off"
_MALFORMED = "the peer's answer is malformed"
_OF_ANOTHER = "the peer's answer names another instance than it was sent"
_NOT_TAKEN = "the peer does not take what it is sent"
_INVALID_PDU = 0x05  # reason of the A-P-ABORT that pynetdicom issues for a PDU that is none or belongs elsewhere
_P_DATA_TF, _A_ABORT = 0x04, 0x07  # PDU types, PS3.8 section 9.3.1
_COMMAND = 0x01  # message control header, PS3.8 section E.2
_RESPONSE, _EVENT_REPORT = 0x8000, 0x0100  # Command Field, PS3.7 table E.1-1


class _WakingQueue(queue.Queue[Any]):
    """What pynetdicom's thread has to send; each thing that is put in wakes the thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake = wake

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put `item` in."""
        super().put(item, block, timeout)
        self._wake()


class BoundedSocket(AssociationSocket):
    """Sends within a time limit and reads no PDU that is longer than any answer; leaves no connection open.

    It also spares pynetdicom's thread, which sends and receives, a sleep of 1 ms before and after each request, and a
    system call for each PDU.
    """

    opened: socket.socket | None = None
    """The connection, also after pynetdicom has let go of it; None where there was none."""
    stalled = False
    """Whether the peer stopped reading."""
    fault: ssl.SSLError | None = None
    """Why TLS ended: with TLS 1.3 a peer looks at our certificate after the handshake is over for us."""

    def prepare(self, send_s: float) -> None:
        """Set the options of a new connection; `send_s` bounds each sending, and each wait for the rest of a PDU."""
        connection: Any = self.socket
        connection.settimeout(send_s)
        # The end of an instance would wait for the acknowledgement of what went before, which is delayed by 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.assoc.dul._run_loop_delay = 0.0  # `ready` waits
        self._unsent = bytearray()
        self._waking, self._woken = socket.socketpair()
        self._waking.setblocking(False)
        self._waits = False
        self.assoc.dul.to_provider_queue = _WakingQueue(self._wake)
        self.opened = connection

    def _wake(self) -> None:
        if self._waits:
            with suppress(OSError):  # closed, or woken often enough already
                self._waking.send(b"\0")

    def interrupt(self) -> None:
        """End the connection, and with it whatever a thread waits for in it."""
        if self.opened is not None:
            with suppress(OSError):
                self.opened.shutdown(socket.SHUT_RDWR)

    def discard(self) -> None:
        """Close the connection, which pynetdicom leaves open where the peer closed it first."""
        if self.opened is not None:
            for one in (self.opened, self._waking, self._woken):
                one.close()

    def send(self, bytestream: bytes) -> None:
        """Send a PDU, or keep it where a P-DATA-TF follows at once; where that fails, the connection counts as closed.

        An A-ABORT is the last one: it ends pynetdicom's thread, which could not handle the rest of an instance then.
        """
        self._unsent += bytestream
        if bytestream[0] == _P_DATA_TF and len(self._unsent) < MAX_PDU_BYTES and self._more_follows():
            return
        unsent, self._unsent = self._unsent, bytearray()
        connection: Any = self.socket
        try:
            connection.sendall(unsent)
        except TimeoutError:
            self.stalled = True
            self.event_queue.put("Evt17")
        except Exception:  # a closed socket is None by now
            self.event_queue.put("Evt17")
        if bytestream[0] == _A_ABORT:
            self.assoc.dul.kill_dul()

    def _more_follows(self) -> bool:
        waiting = self.provider_queue.queue
        return bool(waiting) and isinstance(waiting[0], P_DATA)

    @property
    def ready(self) -> bool:
        """Whether there is something to read; waits for it, or for something to send, for a moment."""
        connection = self.opened
        if self._is_connected and connection is not None:
            self._waits = True
            decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending()
            if not decrypted and not self.provider_queue.queue:
                with suppress(OSError, ValueError):  # the connection may be closed meanwhile
                    readable, _, _ = select.select([connection, self._woken], [], [], _POLL_S)
                    if self._woken in readable:
                        self._woken.recv(1024)
            self._waits = False
        return super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """The next `nr_bytes` bytes, fewer at the end of the connection; raises OSError."""
        if nr_bytes > MAX_MESSAGE_BYTES:
            self.event_queue.put("Evt19")  # an invalid PDU
            raise ConnectionError("a PDU is longer than was agreed")
        try:
            return super().recv(nr_bytes)
        except ssl.SSLError as error:
            self.fault = error
            raise


class Answers(DIMSEServiceProvider):
    """Sends one request at a time and hands out nothing but the answers to it.

    Whatever else happens raises NoAssociation, out of `Association.send_c_store` and the like; `ended` then says why,
    and the association is of no more use. `answers_s` bounds the wait for all answers to one request: without it, and
    without a bound of their number and size, a peer that answers "pending" for ever is listened to for ever.
    takes_reports: whether the peer may ask, too, but by one N-EVENT-REPORT only.
    """

    def __init__(self, association: Association, answers_s: float, *, takes_reports: bool = False) -> None:
        super().__init__(association)
        self.ended = ""
        self._takes_reports = takes_reports
        self._reports: queue.Queue[tuple[int, Any]] = queue.Queue(maxsize=1)
        self._answers_s, self._deadline = answers_s, 0.0
        self._asked: Any = None
        self._context_id: int | None = None
        self._size_bytes = 0
        self._answers, self._answers_bytes = 0, 0
        self._excess = ""

    @property
    def maximum_pdu_size(self) -> int:
        """Length of the PDUs to send: what the peer takes, within bounds, and even as every fragment has to be."""
        agreed = self.assoc.acceptor.maximum_length or 0
        return min(agreed, MAX_PDU_BYTES) & ~1 if agreed > 7 else MAX_PDU_BYTES

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a request; raises NoAssociation where the association has ended since the last answer."""
        self._check()
        self._asked, self._context_id = primitive, context_id
        self._answers = self._answers_bytes = 0
        try:
            super().send_msg(primitive, context_id)
        except BaseException:
            self.ended = "a request could not be sent whole"
            raise
        self._deadline = time.monotonic() + self._answers_s

    def get_msg(self, block: bool = False) -> Any:
        """The answer to the request; raises NoAssociation. Without `block` there is none: only the reactor asks so."""
        if not block:
            return None, None
        context_id, answer = self._wait()
        if (
            type(answer) is not type(self._asked)
            or not answer.is_valid_response
            or answer.MessageIDBeingRespondedTo != self._asked.MessageID
            or context_id != self._context_id
        ):
            self._end(_MALFORMED)
        if not _names(answer, self._asked):
            self._end(_OF_ANOTHER)
        return context_id, answer

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Collect the fragments of a P-DATA-TF PDU, in pynetdicom's thread; several messages may share a PDU."""
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._collect(context_id, value)
        except Exception:  # pynetdicom and pydicom raise whatever they stumble over
            self.dul.event_queue.put("Evt19")

    def report(self, wait_s: float) -> tuple[int, Any] | None:
        """Context ID and primitive of the N-EVENT-REPORT request; None where none comes within `wait_s`."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline and self.dul.is_alive() and self.dul.peek_next_pdu() is None:
            with suppress(queue.Empty):
                return self._reports.get(timeout=_LOOK_S)
        return None

    def answer_report(self, context_id: int, asked: N_EVENT_REPORT, status: int) -> None:
        """Answer the N-EVENT-REPORT request."""
        answer = N_EVENT_REPORT()
        answer.MessageIDBeingRespondedTo = asked.MessageID
        answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID = (
            asked.AffectedSOPClassUID,
            asked.AffectedSOPInstanceUID,
        )
        answer.EventTypeID, answer.Status = asked.EventTypeID, status
        super().send_msg(answer, context_id)

    def answer_release(self) -> bool:
        """Whether the peer asked for the release of the association; it is then answered."""
        asked = self.assoc.acse.is_release_requested()
        if asked:
            self.assoc.acse.send_release(is_response=True)
        return asked

    def _collect(self, context_id: int, value: bytes) -> None:
        if self.message is None:
            self.message, self._size_bytes = DIMSEMessage(), 0
        self._size_bytes += len(value)
        begun_in = self.message.context_id
        second_command = value[0] & _COMMAND and begun_in is not None
        if second_command or begun_in not in (None, context_id) or self._size_bytes > self._max_bytes:
            raise ValueError("not a fragment that belongs here")
        part = P_DATA()
        part.presentation_data_value_list.append((context_id, value))
        if self.message.decode_msg(part):
            whole, self.message = self.message, None
            if self._takes_reports and whole.command_set.CommandField == _EVENT_REPORT:
                self._reports.put_nowait((context_id, whole.message_to_primitive()))  # raises where one waits already
                return
            if not whole.command_set.CommandField & _RESPONSE:
                raise ValueError("not an answer")
            self._count()
            self.msg_queue.put((context_id, whole.message_to_primitive()))  # type: ignore[arg-type]

    @property
    def _max_bytes(self) -> int:
        is_list = self._takes_reports or isinstance(self._asked, C_MOVE)  # which ends with the names of what failed
        return MAX_LIST_BYTES if is_list else MAX_MESSAGE_BYTES

    def _count(self) -> None:
        """Count an answer, whether somebody waits for it or not; raises where there are too many."""
        self._answers, self._answers_bytes = self._answers + 1, self._answers_bytes + self._size_bytes
        if self._answers > MAX_ANSWERS or self._answers_bytes > MAX_ANSWERS_BYTES:
            self._excess = (
                f"the peer gave more than {MAX_ANSWERS} answers or {MAX_ANSWERS_BYTES >> 20} MiB to one request"
            )
            raise ValueError(self._excess)

    def _wait(self) -> Any:
        timeout_s = self.dimse_timeout or 0.0
        deadline = time.monotonic() + timeout_s
        while True:
            if self._excess:
                self._end(self._excess)
            if time.monotonic() > self._deadline:
                self._end(f"the peer did not come to the end of its answers within {self._answers_s:g} s")
            try:
                message = self.msg_queue.get(timeout=_LOOK_S)
            except queue.Empty:
                self._check()
                if time.monotonic() > deadline:
                    self._end(f"the peer did not answer within {timeout_s:.0f} s")
                continue
            if message[1] is None:  # the peer has aborted or closed
                self._end(self._excess or _BROKEN_OFF)
            return message

    @property
    def _socket(self) -> BoundedSocket:
        bounded = self.dul.socket
        assert isinstance(bounded, BoundedSocket)
        return bounded

    def _check(self) -> None:
        """Raise NoAssociation where the association has ended."""
        if self.ended:
            self._end(self.ended)
        last: Any = self.dul.peek_next_pdu()  # an A-ABORT, A-P-ABORT or A-RELEASE
        if isinstance(last, A_P_ABORT) and last.provider_reason == _INVALID_PDU:
            self._end(self._excess or _MALFORMED)
        if isinstance(last, A_RELEASE):
            self.answer_release()
        if last is not None or not self.dul.is_alive():
            self._end(_BROKEN_OFF)

    def _end(self, why: str) -> NoReturn:
        self.ended = _NOT_TAKEN if self._socket.stalled else why
        raise NoAssociation(Outcome.TRANSIENT, self.ended)


def _names(answer: Any, asked: Any) -> bool:
    """Whether an answer is about the instance that was sent; it may leave the name out (PS3.7 table 9.1-1)."""
    name = getattr(answer, "AffectedSOPInstanceUID", None)
    wanted = getattr(asked, "RequestedSOPInstanceUID", None) or getattr(asked, "AffectedSOPInstanceUID", name)
    return not name or str(name).rstrip("\0 ") == str(wanted)

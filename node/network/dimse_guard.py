"""Guards pynetdicom's DIMSE provider: what is no message ends the association, what is a bad instance costs one status.

Without it pynetdicom 3.0.4 collects a command set or a data set of any size, raises out of its thread for malformed
ones, takes a C-STORE in the Verification context, hands "../../" to the handler or ends the association for one
malformed UID, and never answers an empty one. `tests/peers/test_dimse_guard.py` shows it.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu_primitives import P_DATA

from config.syntax import MAX_UID_CHARS, UID_ALPHABET
from node.dicom.constants import STORED_CLASSES
from node.dicom.identity import refuse_costly_request
from node.errors import UnreadableInstance
from node.network.contexts import VERIFICATION
from node.network.services import Message
from node.network.status import CANNOT_UNDERSTAND, DATASET_DOES_NOT_MATCH, OUT_OF_RESOURCES

log = logging.getLogger(__name__)

MAX_COMMAND_BYTES = 64 * 1024  # a command set has no business being larger
ALWAYS_BYTES = 2 * 1024**2  # four slices of 512 x 512
IGNORED_HEAD_BYTES = 8 * 1024**2  # of an instance that is thrown away: its UIDs stand there
REFUSED_HEAD_BYTES = 64 * 1024  # of a refused one: mostly enough to learn whose series lacks it
MAX_REQUEST_BYTES = 4 * 1024**2  # a data set of another service than storage: the names of 20,000 instances
MAX_WAITING = 2  # messages, or notes that the association is to look after something else
MAX_FRAGMENTS = 64  # in one PDU; usual is one, and every fragment costs as much as a PDU
MESSAGE_TIMEOUT_S = 60.0  # after that a message has to keep the lowest rate
MIN_RATE_BYTES_S = 2048.0
NO_UID = "0.0"  # what pynetdicom gets in the place of a UID that is none
_LOOK_UP_S = 0.25  # how often an association that waits for a message looks at its timers
_C_STORE_RQ, _C_ECHO_RQ, _NO_DATA_SET = 0x0001, 0x0030, 0x0101
_ANSWER = 0x8000  # the bit of a Command Field that tells an answer from a request
_COMMAND, _LAST = 0b01, 0b10  # message control header, PS3.8 annex E.2
_NUMBERS = (
    "CommandField",
    "CommandDataSetType",
    "MessageID",
)  # that every request needs, PS3.7 tables 9.3-1 and 9.3-12
_PRIORITIES = (0, 1, 2)  # PS3.7 table E.1-1
_CLASS_TAGS = 0x00000002, 0x00000003  # Affected and Requested SOP Class UID, by which pynetdicom chooses who answers
_MESSAGE_ID, _ANSWERED_ID = "MessageID", "MessageIDBeingRespondedTo"  # of a request, and of what answers or cancels one
_USUAL_ELEMENTS = {0x0000, 0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000}  # of a C-STORE request, PS3.7 table 9.3-1


class NotDimse(Exception):
    """The peer does not speak what was agreed; the association is aborted."""


class InFlight:
    """Counts the bytes of all data sets that were received and not yet dealt with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0

    def take(self, count: int, limit: int) -> bool:
        """Count these bytes; False where they would exceed the limit."""
        with self._lock:
            if self._bytes + count > limit:
                return False
            self._bytes += count
            return True

    def give_back(self, count: int) -> None:
        """Discount these bytes."""
        with self._lock:
            self._bytes -= count


@dataclass(frozen=True)
class MessageLimits:
    """Bounds of data sets in bytes: of one, of all that are in memory at this moment, and of these what the disk takes.

    `spare_bytes` is asked whenever data come. The first `ALWAYS_BYTES` of a data set do not count against the memory,
    so that a peer with large ones keeps nobody from sending slices.
    """

    max_dataset_bytes: int
    max_in_flight_bytes: int
    spare_bytes: Callable[[], int]
    in_flight: InFlight = field(default_factory=InFlight)


class DataSetBuffer(BytesIO):
    """The data set of one C-STORE request, or its beginning: of a refused instance, and of one that is thrown away.

    The rest is dropped as it comes, so that the next instance can come. `refusal` is the status and the comment with
    which the request is to be answered, whatever the data set holds.
    """

    def __init__(self, limits: MessageLimits, refusal: tuple[int, str] | None, *, ignored: bool) -> None:
        super().__init__()
        self._limits, self.refusal = limits, refusal
        self._is_whole = not ignored
        self._keep_bytes = REFUSED_HEAD_BYTES if refusal else IGNORED_HEAD_BYTES if ignored else None
        self._counted = 0
        self.is_released = False

    def write(self, data: Any) -> int:
        """Keep a fragment, or what of it belongs to the beginning, or nothing."""
        wanted = data if self._keep_bytes is None else data[: max(0, self._keep_bytes - self.tell())]
        if self.refusal is None and wanted:
            self.refusal = self._refusal(len(wanted))
            if self.refusal is None:
                self._counted += len(wanted)
            else:
                self._discount()
                self._cut(REFUSED_HEAD_BYTES)
                self._keep_bytes = REFUSED_HEAD_BYTES
                wanted = wanted[: REFUSED_HEAD_BYTES - self.tell()]
        super().write(wanted)
        return len(data)

    def head(self) -> bytes:
        """The beginning of what came."""
        with self.getbuffer() as whole:
            return bytes(whole[:REFUSED_HEAD_BYTES])

    def release(self) -> None:
        """Forget what came; the buffer is used no more."""
        self._discount()
        self._cut(0)
        self.is_released = True

    def _discount(self) -> None:
        self._limits.in_flight.give_back(self._counted)
        self._counted = 0

    def _cut(self, length: int) -> None:
        self.truncate(min(length, self.tell()))
        self.seek(0, 2)

    def _refusal(self, count: int) -> tuple[int, str] | None:
        if self._is_whole and self._counted + count > self._limits.max_dataset_bytes:
            megabytes = self._limits.max_dataset_bytes / 1e6
            return OUT_OF_RESOURCES, f"an instance above {megabytes:g} MB is never taken"
        limit = self._limits.spare_bytes() if self._is_whole else self._limits.max_in_flight_bytes
        if self._counted + count > ALWAYS_BYTES:
            limit = min(limit, self._limits.max_in_flight_bytes)
        if not self._limits.in_flight.take(count, limit):
            return OUT_OF_RESOURCES, "the spool or the memory takes no more at this moment"
        return None


class RequestBuffer(BytesIO):
    """The data set of a message of another service than storage; too many bytes of it end the association."""

    def write(self, data: Any) -> int:
        """Keep a fragment; raises NotDimse above the bound."""
        if self.tell() + len(data) > MAX_REQUEST_BYTES:
            raise NotDimse(f"a data set of more than {MAX_REQUEST_BYTES} bytes for a request that is no C-STORE")
        return super().write(data)


@dataclass(frozen=True)
class CutOff:
    """An instance that was under way when its association ended: what its command said, and what came of its data."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: UID
    head: bytes


@dataclass(frozen=True)
class _Request:
    """A C-STORE request that has not been answered; `uid` as the peer wrote it, without padding."""

    context_id: int
    uid: str
    is_renamed: bool
    data_set: DataSetBuffer


class DimseGuard(DIMSEServiceProvider):
    """The DIMSE provider of one association of a server: C-ECHO, C-STORE, and what else its services take.

    messages: by SOP class, what a peer may send in its contexts; another SOP class is one of storage.
    """

    def __init__(self, assoc: Any, limits: MessageLimits, messages: Mapping[str, frozenset[Message]]) -> None:
        super().__init__(assoc)
        self._limits, self._messages = limits, messages
        self._sending = threading.Lock()  # two messages in each other's fragments would be none
        self._reports = 0  # N-EVENT-REPORT requests that were not answered: pynetdicom starts a thread for each
        self._command = bytearray()
        self._unanswered: deque[_Request] = deque()
        self._contexts: dict[int, tuple[str, UID]] = {}
        self._context_id: int | None = None  # of the data set that is being received
        self._began_s = 0.0
        self._came_bytes = 0

    @property
    def is_inside_message(self) -> bool:
        """Whether a message has begun that was not answered: an A-RELEASE is not orderly then."""
        waiting = any(message is not None for _, message in list(self.msg_queue.queue))
        return waiting or bool(self._command) or self._context_id is not None

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing more is to be read: the peer asked before it was answered."""
        return self.msg_queue.qsize() + self._reports > MAX_WAITING

    def cut_off(self) -> list[CutOff]:
        """The instances that nobody has dealt with; asked when the association has ended, before `release`."""
        found = []
        for request in self._unanswered:
            if not request.data_set.is_released:
                class_uid, syntax = self._contexts[request.context_id]
                found.append(CutOff(class_uid, request.uid, syntax, request.data_set.head()))
        return found

    def release(self) -> None:
        """Forget the data sets that nobody will ask for, when the association has ended."""
        for request in self._unanswered:
            request.data_set.release()

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send an answer; it names the instance as the request did, also where pynetdicom got another name for it.

        A name that is too long for a UID is left out, which PS3.7 table 9.1-1 allows: a peer may stumble over it.
        """
        if isinstance(primitive, C_STORE) and self._unanswered:
            request = self._unanswered.popleft()
            if request.is_renamed:
                is_short = 0 < len(request.uid) <= MAX_UID_CHARS
                primitive._affected_sop_instance_uid = UID(request.uid) if is_short else None
        with self._sending:
            super().send_msg(primitive, context_id)
        if isinstance(primitive, N_EVENT_REPORT) and not primitive.is_valid_request and self._reports:
            self._reports -= 1
            upper_layer: Any = self.dul
            upper_layer.wake()

    def get_msg(self, block: bool = False) -> Any:
        """The next message, for which the association's thread sleeps a while; (None, None) without one.

        Without this it looks every millisecond.
        """
        if block:
            return super().get_msg(block=True)
        try:
            message = self.msg_queue.get(timeout=_LOOK_UP_S)
        except queue.Empty:
            return None, None
        if self.msg_queue.qsize() == MAX_WAITING:
            upper_layer: Any = self.dul
            upper_layer.wake()  # it may read on
        return message

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA primitive; aborts the association where they are no DIMSE message."""
        try:
            fragments = primitive.presentation_data_value_list
            if not 0 < len(fragments) <= MAX_FRAGMENTS:
                raise NotDimse(f"{len(fragments)} fragments in one PDU")
            for context_id, value in fragments:
                self._take(context_id, value)
        except Exception as error:  # pynetdicom and pydicom raise whatever malformed bytes make them stumble over
            reason = str(error) if isinstance(error, NotDimse) else type(error).__name__
            log.warning(
                "aborting an association: not a DIMSE message: %s", reason, extra={"event": "association_aborted"}
            )
            self.dul.event_queue.put("Evt19")  # PS3.8 table 9-10: invalid PDU, answered with A-ABORT

    def _take(self, context_id: int, value: bytes) -> None:
        if not self._command and self._context_id is None:
            self._began_s, self._came_bytes = time.monotonic(), 0
        self._came_bytes += len(value)
        self._check_progress()
        control = value[0]
        if self._context_id is not None:
            if control & _COMMAND or context_id != self._context_id:
                raise NotDimse("another message begins inside a data set")
            if control & _LAST:
                self._refuse_costly(context_id, value[1:])
                self._context_id = None
            self._pass_on(context_id, value)
        elif not control & _COMMAND:
            raise NotDimse("a data set without a request")
        else:
            self._command += value[1:]
            if len(self._command) > MAX_COMMAND_BYTES:
                raise NotDimse(f"a command set is larger than {MAX_COMMAND_BYTES} bytes")
            if control & _LAST:
                command, self._command = bytes(self._command), bytearray()
                self._begin(context_id, command)

    def _refuse_costly(self, context_id: int, end: bytes) -> None:
        """End an association whose request pydicom could not parse in a moment; `end` is the end of its data set."""
        data_set = getattr(self.message, "data_set", None)
        if isinstance(data_set, RequestBuffer):
            implicit_vr = self._contexts[context_id][1].is_implicit_VR
            try:
                refuse_costly_request(data_set.getvalue() + end, implicit_vr=implicit_vr)
            except UnreadableInstance as error:
                raise NotDimse(f"the data set of a request costs too much: {error}") from None

    def _check_progress(self) -> None:
        """End a message that drips: one byte a PDU holds a place and what came before for ever.

        Every `MESSAGE_TIMEOUT_S` is looked at by itself, so that a quick beginning pays for nothing later.
        """
        took_s = time.monotonic() - self._began_s
        if took_s > MESSAGE_TIMEOUT_S:
            if self._came_bytes < MIN_RATE_BYTES_S * took_s:
                raise NotDimse(f"{self._came_bytes} bytes of a message in {took_s:.0f} s")
            self._began_s, self._came_bytes = time.monotonic(), 0

    def _begin(self, context_id: int, raw: bytes) -> None:
        """Hand over a whole command set, or one in its place where pynetdicom would stumble over a value."""
        if not self._contexts:
            self._contexts = {
                int(one.context_id or 0): (str(one.abstract_syntax), one.transfer_syntax[0])
                for one in self.assoc.accepted_contexts
            }
        if context_id not in self._contexts:
            raise NotDimse("a message in a presentation context that was not accepted")
        abstract_syntax = self._contexts[context_id][0]
        asked = decode(BytesIO(raw), True, True)
        if abstract_syntax in self._messages:
            self._begin_other(context_id, raw, asked, abstract_syntax)
            return
        field, data_set_type, _ = (_number(asked, keyword) for keyword in _NUMBERS)
        if abstract_syntax == VERIFICATION:
            if (field, data_set_type) != (_C_ECHO_RQ, _NO_DATA_SET):
                raise NotDimse("a message that is no C-ECHO request")
            raw = _command(asked, abstract_syntax)
        elif field != _C_STORE_RQ or data_set_type == _NO_DATA_SET:
            raise NotDimse("a message that is no C-STORE request")
        else:
            raw = self._await_data_set(raw, asked, abstract_syntax, context_id)
        self._pass_on(context_id, bytes((_COMMAND | _LAST,)) + raw)

    def _begin_other(self, context_id: int, raw: bytes, asked: Dataset, abstract_syntax: str) -> None:
        """Hand over the command set of a message that is no C-STORE request, once it is one of those taken here."""
        field, data_set_type = _number(asked, "CommandField"), _number(asked, "CommandDataSetType")
        if field not in list(self._messages[abstract_syntax]):
            raise NotDimse(f"a message {field:04X} that its context does not take")
        is_answer = field & _ANSWER != 0 or field == Message.C_CANCEL_RQ
        _number(asked, _ANSWERED_ID if is_answer else _MESSAGE_ID)
        if not is_answer and {_text(asked, tag) for tag in _CLASS_TAGS if tag in asked} != {abstract_syntax}:
            raise NotDimse("a message about another SOP class than that of its context")
        for element in asked:
            if element.VR == "UI" and not UID_ALPHABET.fullmatch(_text(asked, element.tag)):
                raise NotDimse(f"{element.keyword} of a command set is no UID")
        self.message = DIMSEMessage()
        self.message.data_set = RequestBuffer()
        if data_set_type != _NO_DATA_SET:
            self._context_id = context_id
        if field == Message.N_EVENT_REPORT_RQ:
            self._reports += 1
        self._pass_on(context_id, bytes((_COMMAND | _LAST,)) + raw)

    def _await_data_set(self, raw: bytes, asked: Dataset, abstract_syntax: str, context_id: int) -> bytes:
        """Make a buffer for the data set of a C-STORE request; returns the command set for pynetdicom."""
        asked_uid, class_uid = _text(asked, 0x00001000), _text(asked, 0x00000002)
        uid, refusal = asked_uid, None
        if not UID_ALPHABET.fullmatch(uid):
            uid, refusal = NO_UID, (CANNOT_UNDERSTAND, "the Affected SOP Instance UID is not a UID")
        elif class_uid != abstract_syntax:
            refusal = DATASET_DOES_NOT_MATCH, "the Affected SOP Class UID is not that of the context"
        self._context_id = context_id
        buffer = DataSetBuffer(self._limits, refusal, ignored=abstract_syntax not in STORED_CLASSES)
        self.message = DIMSEMessage()
        self.message.data_set = buffer
        self._unanswered.append(_Request(context_id, asked_uid, uid != asked_uid, buffer))
        usual = refusal is None and asked.get("Priority") in _PRIORITIES and _USUAL_ELEMENTS.issuperset(asked.keys())
        return raw if usual else _command(asked, abstract_syntax, uid)

    def _pass_on(self, context_id: int, value: bytes) -> None:
        """Give pynetdicom one fragment, of which it knows now that it belongs where it is."""
        fragment = P_DATA()
        fragment.presentation_data_value_list = [[context_id, value]]  # type: ignore[list-item] # a list is demanded
        super().receive_primitive(fragment)


def answer_of(code: int, comment: str = "") -> Dataset:
    """What a handler answers: a status with its Error Comment, of which DICOM takes 64 characters (LO)."""
    answer = Dataset()
    answer.Status = code
    if comment:
        answer.ErrorComment = comment[:64]
    return answer


def _command(asked: Dataset, class_uid: str, instance_uid: str = "") -> bytes:
    """A command set with what a C-ECHO or C-STORE request needs, and nothing else of what was asked."""
    command = Dataset()
    command.AffectedSOPClassUID = class_uid
    for keyword in _NUMBERS:
        setattr(command, keyword, _number(asked, keyword))
    if instance_uid:
        command.AffectedSOPInstanceUID, command.Priority = instance_uid, _PRIORITIES[0]
    return encode(command, True, True) or b""


def _number(command: Dataset, keyword: str) -> int:
    value = command.get(keyword)
    if not isinstance(value, int):
        raise NotDimse(f"{keyword} of a command set is missing or malformed")
    return value


def _text(command: Dataset, tag: int) -> str:
    """A UID of a command set as the peer wrote it, without its padding; pydicom would make a list of "1.2\\3"."""
    element: Any = command.get_item(tag)
    raw = getattr(element, "value", None) or b""
    text = raw.decode("latin-1") if isinstance(raw, bytes) else str(raw)
    return text.rstrip("\0 ")

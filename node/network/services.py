"""What a server may offer beside C-ECHO and C-STORE: contexts, the messages that they may bring, and who answers them.

A service is made of policy elsewhere; here is only what the server and its guard have to know of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pynetdicom.association import Association
from pynetdicom.events import EventType
from pynetdicom.presentation import PresentationContext


class Message(IntEnum):
    """Command Field (0000,0100) of messages, PS3.7 table E.1-1."""

    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_FIND_RQ = 0x0020
    C_MOVE_RQ = 0x0021
    C_CANCEL_RQ = 0x0FFF
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_GET_RQ = 0x0110
    N_SET_RQ = 0x0120
    N_ACTION_RQ = 0x0130
    N_CREATE_RQ = 0x0140


Operation = Callable[[Association, PresentationContext, Any], None]
"""Answers one request of an association in a presentation context, all its responses included."""


@dataclass(frozen=True)
class Service:
    """One service class as an SCP, or as an SCU that is called back.

    contexts: with their roles (PS3.7 D.3.3.4) where a peer may propose others than the default ones. messages: what a
    peer may send, by SOP class; anything else ends the association. handlers: of pynetdicom's events. operations: by
    the class of the request, what answers it in place of pynetdicom.
    """

    contexts: Sequence[PresentationContext]
    messages: Mapping[str, frozenset[Message]]
    handlers: Sequence[tuple[EventType, Callable[..., Any]]]
    operations: Mapping[type, Operation] = field(default_factory=dict)


def messages_of(services: Sequence[Service]) -> dict[str, frozenset[Message]]:
    """The messages of all services, by SOP class."""
    return {sop_class: taken for service in services for sop_class, taken in service.messages.items()}


def operations_of(services: Sequence[Service]) -> dict[type, Operation]:
    """The operations of all services, by the class of the request."""
    return {request: operation for service in services for request, operation in service.operations.items()}

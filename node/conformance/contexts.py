"""Which presentation contexts the servers accept and the SCUs propose, by the functions that negotiate them.

A new service of the receiver stands in `node.bootstrap.roles.receiver_services` and is found by itself; where a setting
turns it on, `SWITCHES` names that. A new SCU needs a line in `proposals`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from pydicom.uid import UID

from config.settings import DestinationSettings, Settings
from node.bootstrap.roles import services_on_paper
from node.dicom.companions.kinds import KINDS
from node.network.commitment import commitment_context
from node.network.contexts import SIEMENS_CSA_NON_IMAGE, supported_contexts, verification_context
from node.network.query import find_context
from node.network.retrieval import move_context
from node.network.services import Message, messages_of
from node.query.service import MESSAGES, query_contexts
from node.send.rejection import KEY_OBJECT_SELECTION
from node.send.scu import contexts_for, echo_contexts

RECEIVER, QUERY = "receiver", "query"
SCP, SCU = "SCP", "SCU"
_NAMES: Final = {SIEMENS_CSA_NON_IMAGE: "Siemens CSA Non-Image Storage (private)"}
_ARCHIVE: Final = "a source `dimse:NAME` of `syncect archive run`"
# Of themselves these make a node neither an SCP nor an SCU.
_ANSWERS: Final = frozenset({Message.N_EVENT_REPORT_RSP, Message.C_CANCEL_RQ})


@dataclass(frozen=True)
class ContextRow:
    """One SOP class in one role of the node. syntaxes: UIDs of its transfer syntaxes, the most wanted first.

    setting: what turns it on, "" where nothing can turn it off. is_on: whether it is, with these settings.
    """

    where: str
    sop_class: str
    name: str
    role: str
    syntaxes: tuple[str, ...]
    setting: str = ""
    is_on: bool = True


@dataclass(frozen=True)
class Switch:
    """A setting that turns a service on, and how the settings look with it."""

    setting: str
    turned_on: Callable[[Settings], Settings]


def _scp(**changes: Any) -> Callable[[Settings], Settings]:
    return lambda settings: settings.model_copy(update={"scp": settings.scp.model_copy(update=changes)})


def _with_commitment(settings: Settings) -> Settings:
    asked = DestinationSettings(name="conformance", ae_title="ARCHIVE", host="127.0.0.1", confirm="commitment")
    return settings.model_copy(update={"destination": (*settings.destination, asked)})


SWITCHES: Final = (
    Switch('`confirm = "commitment"` of a destination', _with_commitment),
    Switch('`scp.commitment = "fail_all"`', _scp(commitment="fail_all")),
    Switch("`scp.mpps`", _scp(mpps=True)),
    Switch(
        "`query.enabled`",
        lambda settings: settings.model_copy(update={"query": settings.query.model_copy(update={"enabled": True})}),
    ),
)


def accepted(settings: Settings) -> list[ContextRow]:
    """Every context that a server of this node can accept, and whether it does with these settings."""
    rows = {_key(row): row for row in _accepted(settings)}
    plain = _without_services(settings)
    always = {_key(row) for row in _accepted(plain)}
    for switch in SWITCHES:
        for row in _accepted(switch.turned_on(plain)):
            known = rows.setdefault(_key(row), replace(row, is_on=False))
            if _key(row) not in always:
                rows[_key(row)] = replace(known, setting=switch.setting)
    return list(rows.values())


def everything_on(settings: Settings) -> Settings:
    """The settings with every service that they can turn on."""
    for switch in SWITCHES:
        settings = switch.turned_on(settings)
    return settings


def proposals(settings: Settings) -> list[ContextRow]:
    """Every context that an SCU of this node can propose; `where` is the service, `setting` what makes it ask."""
    peers = [peer for peer in settings.destination if isinstance(peer, DestinationSettings)]
    query = settings.query
    companions = {name for peer in peers for name in peer.companions}
    finds = any(peer.confirm == "find" or peer.identity_check for peer in peers) or bool(settings.completion.count_from)
    commits = any(peer.confirm == "commitment" for peer in peers)
    tells = settings.scp.commitment == "fail_all" and any(peer.port for peer in settings.scp.allowed_peers)
    rows = [
        *_rows("Verification", SCU, echo_contexts(), "`echo_s` of a destination", any(peer.echo_s for peer in peers)),
        *_rows("Storage", SCU, contexts_for(), "a `[[destination]]`", bool(peers)),
    ]
    for name, kind in KINDS.items():
        setting = f"`companions` of a destination has `{name}`"
        rows += _rows("Storage of companions", SCU, contexts_for(kind.sop_class_uid), setting, name in companions)
    notes = any(peer.rejection_notes for peer in peers)
    turned_on = "`rejection_notes` of a destination"
    rows += _rows("Rejection notes", SCU, contexts_for(KEY_OBJECT_SELECTION), turned_on, notes)
    asks = '`confirm = "find"` or `identity_check` of a destination, or `completion.count_from`'
    tell = '`scp.commitment = "fail_all"` and `port` of an allowed peer'
    rows += [
        *_rows("Query", SCU, [find_context()], asks, finds),
        *_rows("Retrieval", SCU, [find_context(), move_context()], _ARCHIVE, bool(peers)),
        *_rows("Storage Commitment", SCU, [commitment_context()], SWITCHES[0].setting, commits),
        *_rows("Storage Commitment report", SCP, [commitment_context()], tell, tells),
        *_rows("C-MOVE sub-operations", SCU, contexts_for(), "`query.enabled`", query.enabled),
    ]
    return rows


def class_name(uid: str) -> str:
    """The name of a SOP class or a transfer syntax as PS3.6 has it."""
    return _NAMES.get(uid, UID(uid).name)


def _without_services(settings: Settings) -> Settings:
    """Settings with which no service is turned on."""
    plain = _scp(commitment="refuse", mpps=False, allowed_peers=())(settings)
    query = settings.query.model_copy(update={"enabled": False})
    return plain.model_copy(update={"destination": (), "query": query})


def _key(row: ContextRow) -> tuple[str, str, str]:
    return row.where, row.sop_class, row.role


def _accepted(settings: Settings) -> Iterator[ContextRow]:
    """What the servers accept with these settings."""
    services = services_on_paper(settings)
    offered = [*supported_contexts(), *(context for service in services for context in service.contexts)]
    yield from _served(RECEIVER, offered, messages_of(services))
    if settings.query.enabled:
        yield from _served(QUERY, [verification_context(), *query_contexts()], MESSAGES)


def _served(where: str, contexts: Iterable[Any], messages: Any) -> Iterator[ContextRow]:
    for context in contexts:
        uid = str(context.abstract_syntax)
        for role in _roles(messages.get(uid)):
            yield ContextRow(where, uid, class_name(uid), role, tuple(map(str, context.transfer_syntax)))


def _roles(taken: frozenset[Message] | None) -> list[str]:
    """The roles of the node in a context of which these messages are taken; None for those of storage and C-ECHO."""
    if taken is None:
        return [SCP]
    of_an_scu = {Message.N_EVENT_REPORT_RQ, Message.C_STORE_RSP} & taken
    return [*([SCP] if taken - of_an_scu - _ANSWERS else []), *([SCU] if of_an_scu else [])]


def _rows(service: str, role: str, contexts: Iterable[Any], setting: str, is_on: bool) -> list[ContextRow]:
    """One row for each SOP class, the transfer syntaxes of its contexts together."""
    found: dict[str, list[str]] = {}
    for context in contexts:
        found.setdefault(str(context.abstract_syntax), []).extend(map(str, context.transfer_syntax))
    return [
        ContextRow(service, uid, class_name(uid), role, tuple(syntaxes), setting, is_on)
        for uid, syntaxes in found.items()
    ]

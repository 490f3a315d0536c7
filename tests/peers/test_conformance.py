"""What the conformance statement says of presentation contexts, negotiated with the servers and the SCUs themselves.

Everything that it states is proposed, and every SOP class that pynetdicom knows, in the usual syntaxes and in a share
of all others, so that every class and every syntax has its turn: what it does not state must be refused.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, build_context, build_role, evt, sop_class
from pynetdicom.sop_class import SOPClass

from config.settings import DestinationSettings, ScpSettings, Settings
from node.bootstrap.roles import make_query_scp, make_receiver
from node.bootstrap.store import Node
from node.conformance.contexts import QUERY, RECEIVER, SCP, SCU, ContextRow, accepted, everything_on, proposals
from node.dicom.companions.kinds import KINDS
from node.network.no_association import NoAssociation
from node.network.query import count_instances, find_instances
from node.network.requestor import Timeouts
from node.network.retrieval import move_series
from node.receive.commitment import CommitmentReports, CommitmentService
from node.send.commitment import CommitmentAsker
from node.send.rejection import KEY_OBJECT_SELECTION
from node.send.scu import StorageScu
from tests.peers.conftest import EXPLICIT, FakeTps, Store

BIG_ENDIAN = "1.2.840.10008.1.2.2"
SHARE = 7  # of the pairs of a class and a rarer syntax, one in so many is negotiated
MOST_CONTEXTS = 128  # in one association, PS3.8 9.3.2.2

Triple = tuple[str, str, str]


def registry() -> list[str]:
    return sorted({str(one) for one in vars(sop_class).values() if isinstance(one, SOPClass)})


def stated(rows: list[ContextRow], server: str) -> set[Triple]:
    """SOP class, transfer syntax and role of the node."""
    own = [row for row in rows if row.where == server and row.is_on]
    return {(row.sop_class, syntax, row.role) for row in own for syntax in row.syntaxes}


def pairs(said: set[Triple]) -> list[tuple[str, str]]:
    """What is proposed to a server: what it is said to accept, and much that it is not."""
    classes = sorted({*registry(), *(uid for uid, _, _ in said)})
    syntaxes = sorted({*map(str, AllTransferSyntaxes), *(syntax for _, syntax, _ in said)})
    known = {(uid, syntax) for uid, syntax, _ in said}
    return [
        (uid, syntax)
        for number, uid in enumerate(classes)
        for place, syntax in enumerate(syntaxes)
        if (uid, syntax) in known or syntax in (EXPLICIT, BIG_ENDIAN) or (number + place) % SHARE == 0
    ]


def negotiate(port: int, wanted: list[tuple[str, str]], role: str) -> set[Triple]:
    """Which of these pairs are accepted where the node is to have this role."""
    found: set[Triple] = set()
    for begin in range(0, len(wanted), MOST_CONTEXTS):
        part = wanted[begin : begin + MOST_CONTEXTS]
        roles = [build_role(uid, scp_role=True) for uid in {uid for uid, _ in part}] if role == SCU else []
        association = AE("CTSIM").associate(
            "127.0.0.1",
            port,
            ae_title="SYNCECT",
            contexts=[build_context(uid, syntax) for uid, syntax in part],
            ext_neg=[*roles],
        )
        contexts = association.accepted_contexts
        found |= {
            (str(one.abstract_syntax), str(one.transfer_syntax[0]), role)
            for one in contexts
            if (one.as_scp if role == SCU else one.as_scu)
        }
        if association.is_established:
            association.release()
    return found


@pytest.fixture
def served(store: Store, tmp_path: Path, free_port: int) -> Iterator[Callable[[str, bool], tuple[int, Settings]]]:
    """The port of a server with everything that settings turn on, or with the defaults; and these settings."""

    def start(server: str, everything: bool) -> tuple[int, Settings]:
        settings = Settings(scp=ScpSettings(host="127.0.0.1", port=free_port, max_associations=200))
        settings = everything_on(settings) if everything else settings
        query = settings.query.model_copy(update={"port": free_port})
        settings = settings.model_copy(update={"query": query if server == QUERY else settings.query})
        data = settings.node.model_copy(update={"data_dir": tmp_path})
        node = Node(settings.model_copy(update={"node": data}), store.database, "", writable=True)
        running: Any = make_receiver(node) if server == RECEIVER else make_query_scp(node)
        running.start()
        stops.append(running.stop)
        return running.port, settings

    stops: list[Callable[[float], None]] = []
    yield start
    for stop in stops:
        stop(0.0)


@pytest.mark.parametrize(
    ("server", "everything"),
    [(RECEIVER, True), (RECEIVER, False), (QUERY, True)],
    ids=["receiver", "defaults", "query"],
)
def test_what_is_accepted_is_what_is_stated(served: Any, server: str, everything: bool) -> None:
    port, settings = served(server, everything)
    said = stated(accepted(settings), server)
    proposed = pairs(said)
    if not everything:
        proposed = [one for one in proposed if one[1] == EXPLICIT]
    as_scp = {(*pair, SCP) for pair in proposed} & said
    found = negotiate(port, proposed, SCP)
    assert found - said == set(), "accepted, and not stated"
    assert as_scp - found == set(), "stated, and not accepted"
    once = [one for one in proposed if one[1] == EXPLICIT]
    as_scu = {(*pair, SCU) for pair in once} & said
    assert negotiate(port, once, SCU) == as_scu


@dataclass
class Recorder:
    """A peer that writes down what is proposed to it."""

    tps: FakeTps
    proposed: dict[str, set[Triple]] = field(default_factory=dict)

    def of(self, service: str, ask: Callable[[DestinationSettings], object]) -> None:
        """Let an SCU ask; the role of the node is SCU unless it proposes to be the SCP."""
        found: set[Triple] = set()

        def requested(event: Any) -> None:
            roles = event.assoc.requestor.role_selection
            for context in event.assoc.requestor.primitive.presentation_context_definition_list:
                uid = str(context.abstract_syntax)
                role = SCP if uid in roles and roles[uid].scp_role else SCU
                found.update((uid, str(syntax), role) for syntax in context.transfer_syntax)

        self.tps.also_handles = [(evt.EVT_REQUESTED, requested)]
        self.tps.start()
        ask(self.tps.destination())
        self.tps.stop()
        self.proposed.setdefault(service, set()).update(found)


def test_what_is_proposed_is_what_is_stated(make_tps: Callable[..., FakeTps]) -> None:
    peer = Recorder(make_tps(running=False))
    peer.of("Verification", lambda tps: StorageScu(tps, "SYNCECT").echo())
    for service in ("Storage", "C-MOVE sub-operations"):
        peer.of(service, lambda tps: StorageScu(tps, "SYNCECT").send([]))
    for kind in KINDS.values():
        send = partial(StorageScu.send, items=[], sop_class=kind.sop_class_uid)
        peer.of("Storage of companions", lambda tps, send=send: send(StorageScu(tps, "SYNCECT")))  # type: ignore[misc]
    note = partial(StorageScu.send, items=[], sop_class=KEY_OBJECT_SELECTION)
    peer.of("Rejection notes", lambda tps: note(StorageScu(tps, "SYNCECT")))
    peer.of("Query", lambda tps: count_instances(tps, "SYNCECT", "1.2", "1.3", Timeouts()))
    peer.of("Retrieval", lambda tps: find_instances(tps, "SYNCECT", "1.2", "1.3"))
    peer.of("Retrieval", lambda tps: _refused(lambda: move_series(tps, "SYNCECT", "HERE", "1.2", "1.3")))
    sent: Any = SimpleNamespace(id=1, sop_instance_uids=("1.2.3",))
    nothing: Any = None
    asker = CommitmentAsker(nothing, nothing, nothing, "SYNCECT", "deliver", nothing)
    told = CommitmentService(ScpSettings(commitment="fail_all"), CommitmentReports(nothing, (), actor="r"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("node.receive.commitment.RETRY_PAUSES_S", ())
        peer.of("Storage Commitment", lambda tps: _refused(lambda: asker._send(Dataset(), sent, tps)))
        peer.of("Storage Commitment report", lambda tps: told._report_there(_left(tps), Dataset()))
    rows = proposals(everything_on(Settings()))
    said = {
        service: {(row.sop_class, syntax, row.role) for row in rows if row.where == service for syntax in row.syntaxes}
        for service in {row.where for row in rows}
    }
    assert peer.proposed == said


def _refused(ask: Callable[[], object]) -> None:
    with suppress(NoAssociation):
        ask()


def _left(tps: DestinationSettings) -> Any:
    """A session of a peer that has left, and that listens for reports."""
    return SimpleNamespace(calling_ae=tps.ae_title, peer_host=tps.host, report_port=tps.port)

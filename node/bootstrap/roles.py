"""Wires receiver, completion and courier from the settings and the opened stores."""

import socket
from functools import partial

from pydicom.dataset import Dataset

from config.load import ConfigError
from config.settings import AskedPeer, DestinationSettings, RuleSettings, Settings
from node.beats import Beating, Numbers, no_beat
from node.bootstrap.bundles import verified_cards
from node.bootstrap.routes import request_maker, routes_of
from node.bootstrap.store import Node, installation_uid
from node.dicom.attribute_rules import Rule
from node.dicom.uids import UidFactory
from node.network.query import count_instances
from node.network.requestor import Timeouts
from node.network.services import Service
from node.ops.retention import Retention
from node.query.index import Index
from node.query.retrieve import Retriever
from node.query.scp import QueryScp
from node.receive.commitment import CommitmentReports, CommitmentService
from node.receive.completion import Completion
from node.receive.eligibility import EligibilityPolicy
from node.receive.expected import ExpectedCounts
from node.receive.mpps import StepService
from node.receive.performed_steps import PerformedSteps, StepPeers
from node.receive.receiver import Receiver
from node.receive.routing import keywords_of
from node.send.companions import CompanionMaker
from node.send.courier import Courier
from node.send.probe import Probe
from node.translate.native_contrast import why_enhanced
from storage.database import Database
from storage.notes import DueNote
from storage.offered import OfferedStore
from storage.outbox import ClaimedDelivery

QUESTION_TIMEOUTS = Timeouts(connection_s=3.0, acse_s=5.0, dimse_s=10.0, send_s=5.0, answers_s=20.0)


def make_receiver(node: Node, beat: Beating | None = None, numbers: Numbers | None = None) -> Receiver:
    """The storage SCP, and what it offers beside storage."""
    reports = _reports(node, process_name("receive"))
    return Receiver(
        node.settings.scp,
        node.spool,
        node.series,
        node.refusals,
        name=process_name("receive"),
        services=receiver_services(node, reports),
        reporting=reports.destinations,
        beat=beat,
        numbers=numbers,
        clock=node.clock,
    )


def receiver_services(node: Node, reports: CommitmentReports) -> list[Service]:
    """What the receiver offers beside storage, as the settings ask."""
    settings = node.settings.scp
    commitment = CommitmentService(settings, reports).service()
    steps = StepService(node.steps, StepPeers(settings.allowed_peers), clock=node.clock).service()
    return [*([commitment] if commitment else []), *([steps] if settings.mpps else [])]


def services_on_paper(settings: Settings) -> list[Service]:
    """What the receiver would offer beside storage, to be described: no store is opened and nothing listens."""
    database = Database.empty()
    try:
        node = Node(settings, database, "", writable=False, is_new=True)
        return receiver_services(node, _reports(node, "receive"))
    finally:
        database.close()


def make_query_scp(node: Node, beat: Beating = no_beat) -> QueryScp:
    """The Query/Retrieve SCP."""
    settings, offered = node.settings.query_scp, OfferedStore(node.database)
    index = Index(offered, node.spool)
    retriever = Retriever(index, offered, node.spool, node.settings.dimse_destinations, settings.ae_title)
    return QueryScp(settings, index, retriever, beat=beat)


def _reports(node: Node, actor: str) -> CommitmentReports:
    return CommitmentReports(node.commitments, node.settings.dimse_destinations, actor=actor, clock=node.clock)


def make_completion(node: Node, *, doubt: str = "") -> Completion:
    """The judge of what the receiver got; `doubt` holds every result for a person."""
    return Completion(
        node.series,
        node.spool,
        node.settings.completion,
        eligibility_policy(node.settings),
        request_maker(node.settings, verified_cards(node.settings), doubt, digest_of_run=node.constancy.bundle_of),
        why_enhanced=why_enhanced,
        name=process_name("complete"),
        expected=expected_counts(node.settings),
        steps=performed_steps(node),
        clock=node.clock,
    )


def expected_counts(settings: Settings) -> ExpectedCounts | None:
    """Who is asked how many images a series has; None where nobody is. Raises ConfigError."""
    source = settings.completion.count_from
    if not source:
        return None
    peer: AskedPeer | DestinationSettings
    if isinstance(source, str):
        known = {destination.name: destination for destination in settings.dimse_destinations}
        if source not in known:
            names = ", ".join(known) or "there is none"
            raise ConfigError(
                f"completion.count_from = {source!r} is no name of a [[destination]] that is asked by C-FIND ({names})"
            )
        peer, name = known[source], f"the destination {source}"
    else:
        peer, name = source, f"the peer {source.ae_title}"

    def count(study_uid: str, series_uid: str) -> int:
        return count_instances(peer, settings.scp.ae_title, study_uid, series_uid, QUESTION_TIMEOUTS)

    return ExpectedCounts(name, count)


def performed_steps(node: Node) -> PerformedSteps | None:
    """What scanners say that they have finished; None where they are not asked to."""
    scp = node.settings.scp
    return PerformedSteps(node.steps, StepPeers(scp.allowed_peers)) if scp.mpps else None


def make_courier(node: Node, name: str, beat: Beating = no_beat, numbers: Numbers | None = None) -> Courier:
    """The sender of what the workers produced."""
    return Courier(
        node.outbox,
        node.spool,
        node.settings.destination,
        peers=node.peers,
        calling_ae=node.settings.scp.ae_title,
        name=process_name("deliver", name),
        beat=beat,
        numbers=numbers,
        companions=partial(_companion_maker, node),
        commitments=(node.commitments, _reports(node, process_name("deliver", name)).take),
        notes=(node.notes, partial(_note_of, node)),
        uids=_uids(node),
        clock=node.clock,
    )


def _uids(node: Node) -> UidFactory:
    return UidFactory(node.settings.node.installation_uid_root or None)


def _companion_maker(node: Node, delivery: ClaimedDelivery) -> CompanionMaker:
    # highdicom is loaded for those who want companions, and for nobody else.
    from node.dicom.companions.make import CompanionMaker as Maker  # noqa: PLC0415

    folder = node.spool.path(delivery.product_dir)
    return Maker(folder, _uids(node), delivery.measurements, delivery.override)


def _note_of(node: Node, note: DueNote, destination: DestinationSettings) -> Dataset:
    # Loads highdicom, as above.
    from node.dicom.companions.rejection import Withdrawn, build_note  # noqa: PLC0415

    if note.product_dir:
        node.spool.fetch_folder(note.product_dir)
    withdrawn = Withdrawn(
        note.study_uid,
        note.series_uid,
        note.sop_instance_uids,
        node.spool.path(note.product_dir) if note.product_dir else None,
        destination.companions,
        note.series_number,
        note.description,
        note.patient,
        installation_uid(node.settings.node.data_dir, create=False) or "0",
    )
    return build_note(withdrawn, _uids(node), note.code, note.decided_at, node.settings.node.zone())


def make_probe(node: Node) -> Probe:
    """What asks the destinations whether they are there."""
    return Probe(node.peers, node.settings.destination, node.settings.scp.ae_title, clock=node.clock)


def make_retention(node: Node) -> Retention:
    """What removes files that no delivery needs any more."""
    return Retention(node.retention, node.jobs, node.spool, node.settings.retention, clock=node.clock)


def eligibility_policy(settings: Settings) -> EligibilityPolicy:
    """The built-in gate with the site's own rules behind it, reading what the routes look at as well.

    Raises ConfigError for a rule that cannot work.
    """
    return EligibilityPolicy(
        min_slices=settings.eligibility.min_slices,
        position_tolerance_mm=settings.eligibility.position_tolerance_mm,
        metal_artifact_reduction=settings.eligibility.metal_artifact_reduction,
        rules=tuple(_rule(number, rule) for number, rule in enumerate(settings.eligibility.rules)),
        also_read=keywords_of(routes_of(settings)),
    )


def _rule(number: int, rule: RuleSettings) -> Rule:
    try:
        return Rule(keyword=rule.keyword, op=rule.op, values=rule.values, reason=rule.reason)
    except ValueError as error:
        raise ConfigError(f"eligibility.rules.{number} cannot be used: {error}") from error


def process_name(role: str, name: str = "1") -> str:
    """Name under which a process holds leases: the same after a restart, different on every host."""
    return f"{role}-{name}@{socket.gethostname()}"[:80]

"""Wires receiver, completion and courier from the settings and the opened stores."""

import socket

import models
from config.load import ConfigError
from config.settings import RuleSettings, Settings
from models import BundleCard
from node.bootstrap.store import Node
from node.dicom.attribute_rules import Rule
from node.dicom.decoding_apart import with_decoded_digests
from node.dicom.headers import SliceHeader
from node.dicom.uids import job_key, processing_digest
from node.receive.completion import Completion
from node.receive.eligibility import EligibilityPolicy
from node.receive.receiver import Receiver
from node.send.courier import Courier
from node.translate.native_contrast import why_enhanced
from storage.series import JobRequest


def make_receiver(node: Node) -> Receiver:
    """The storage SCP."""
    return Receiver(node.settings.scp, node.spool, node.series, node.refusals, name=process_name("receive"))


def make_completion(node: Node) -> Completion:
    """The judge of what the receiver got."""
    card, model = verified_card(node.settings), node.settings.model
    # The worker chooses the device; the setting stands for it here, so that all workers take a series for one job.
    processing = processing_digest(f"{model.device}, {model.precision}")

    def request_for(headers: list[SliceHeader]) -> JobRequest:
        contents = with_decoded_digests(headers)
        return JobRequest(key=job_key(contents, card.digest, processing), bundle=bundle_label(card))

    policy = eligibility_policy(node.settings)
    return Completion(node.series, node.spool, node.settings.completion, policy, request_for, why_enhanced=why_enhanced)


def make_courier(node: Node, name: str) -> Courier:
    """The sender of what the workers produced."""
    return Courier(
        node.outbox,
        node.spool,
        node.settings.destination,
        calling_ae=node.settings.scp.ae_title,
        name=process_name("deliver", name),
    )


def verified_card(settings: Settings) -> BundleCard:
    """The card of the configured bundle after its weights were checked; raises ConfigError."""
    try:
        return models.verify_bundle(models.find_bundle(settings.model.bundle))
    except models.BundleError as error:
        raise ConfigError(f"model.bundle = {settings.model.bundle!r} cannot be used: {error}") from error


def bundle_label(card: BundleCard) -> str:
    """How a bundle is called in jobs and logs: name, version and the first digits of its digest."""
    return f"{card.name} {card.version} ({card.digest[:12]})"


def eligibility_policy(settings: Settings) -> EligibilityPolicy:
    """The built-in gate with the site's own rules behind it; raises ConfigError for a rule that cannot work."""
    return EligibilityPolicy(
        min_slices=settings.eligibility.min_slices,
        metal_artifact_reduction=settings.eligibility.metal_artifact_reduction,
        rules=tuple(_rule(number, rule) for number, rule in enumerate(settings.eligibility.rules)),
    )


def _rule(number: int, rule: RuleSettings) -> Rule:
    try:
        return Rule(keyword=rule.keyword, op=rule.op, values=rule.values, reason=rule.reason)
    except ValueError as error:
        raise ConfigError(f"eligibility.rules.{number} cannot be used: {error}") from error


def process_name(role: str, name: str = "1") -> str:
    """Name under which a process holds leases: the same after a restart, different on every host."""
    return f"{role}-{name}@{socket.gethostname()}"[:80]

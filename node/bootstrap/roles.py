"""Wires receiver, worker and courier from the settings and the opened stores."""

import socket
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version

import models
from config.load import ConfigError
from config.settings import ModelSettings, RuleSettings, Settings
from models import BundleCard
from node.bootstrap.store import Node, installation_uid
from node.dicom.derived_plan import EquipmentIdentity, SeriesOptions
from node.dicom.headers import SliceHeader
from node.dicom.uids import UidFactory
from node.pipeline.run import JobOptions, job_key, processing_digest
from node.receive.completion import Completion
from node.receive.eligibility import EligibilityPolicy, Rule
from node.receive.receiver import Receiver
from node.send.courier import Courier
from node.work.executor import Executor, LocalExecutor
from node.work.worker import ExecutorUnavailable, Worker
from storage.series import JobRequest


def make_receiver(node: Node) -> Receiver:
    """The storage SCP."""
    return Receiver(node.settings.scp, node.spool, node.series, node.refusals, name=process_name("receive"))


def make_completion(node: Node) -> Completion:
    """The judge of what the receiver got."""
    card, model = verified_card(node.settings), node.settings.model
    # The worker chooses the device; the setting stands for it here, so that a series has one job whoever works.
    processing = processing_digest(f"{model.device}, {model.precision}")

    def request_for(headers: list[SliceHeader]) -> JobRequest:
        return JobRequest(key=job_key(headers, card.digest, processing), bundle=bundle_label(card))

    policy = eligibility_policy(node.settings)
    return Completion(node.series, node.spool, node.settings.completion, policy, request_for)


def make_worker(node: Node, name: str, announce: Callable[[str], None]) -> Worker:
    """A worker with an executor in its own process; `announce` gets in words what it works with."""
    settings = node.settings
    return Worker(
        node.jobs,
        node.spool,
        lambda: open_executor(settings.model),
        lambda repeat, produced_at: job_options(settings, repeat, produced_at),
        node.destination_names,
        name=process_name("work", name),
        announce=announce,
    )


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


def open_executor(settings: ModelSettings) -> Executor:
    """Load the bundle on the configured device; raises ExecutorUnavailable, never takes another device or bundle."""
    try:
        path = models.find_bundle(settings.bundle)
        translator = models.load_bundle(
            path, device=settings.device, precision=settings.precision, batch_size=settings.batch_size or None
        )
    except (models.BundleError, models.DeviceUnavailable) as error:
        raise ExecutorUnavailable(str(error)) from error
    return LocalExecutor(bundle_label(translator.card), translator)


def eligibility_policy(settings: Settings) -> EligibilityPolicy:
    """The built-in gate with the site's own rules behind it; raises ConfigError for a rule that cannot work."""
    return EligibilityPolicy(
        min_slices=settings.eligibility.min_slices,
        rules=tuple(_rule(number, rule) for number, rule in enumerate(settings.eligibility.rules)),
    )


def _rule(number: int, rule: RuleSettings) -> Rule:
    try:
        return Rule(keyword=rule.keyword, op=rule.op, values=rule.values, reason=rule.reason)
    except ValueError as error:
        raise ConfigError(f"eligibility.rules.{number} cannot be used: {error}") from error


def job_options(settings: Settings, repeat: int, produced_at: datetime) -> JobOptions:
    """What the settings say about a derived series; an installation that never served has no UID of its own yet."""
    uid = installation_uid(settings.node.data_dir, create=False)
    return JobOptions(
        equipment=EquipmentIdentity(
            software_version=version("syncect"), device_serial_number=uid or "0", installation_uid=uid
        ),
        produced_at=produced_at,
        series=SeriesOptions(
            description_prefix=settings.series.description_prefix, number_rule=settings.series.number_rule
        ),
        uids=UidFactory(settings.node.installation_uid_root or None),
        run=repeat + 1,
    )


def process_name(role: str, name: str = "1") -> str:
    """Name under which a process holds leases: the same after a restart, different on every host."""
    return f"{role}-{name}@{socket.gethostname()}"[:80]

"""The one place where parts meet: settings in, wired parts out; it decides nothing."""

import json
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import models
from config.load import ConfigError
from config.settings import ModelSettings, RuleSettings, Settings
from models import BundleCard
from node.delivery.courier import Courier
from node.dicom.derived_plan import EquipmentIdentity, SeriesOptions
from node.dicom.headers import SliceHeader
from node.dicom.uids import UidFactory
from node.ingest.completion import Completion
from node.ingest.eligibility import EligibilityPolicy, Rule
from node.ingest.scp import Receiver
from node.pipeline.run import JobOptions, job_key, processing_digest
from node.work.executor import Executor, LocalExecutor
from node.work.worker import ExecutorUnavailable, Worker
from storage.database import Database
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.series import JobRequest, SeriesStore
from storage.spool import Spool


@dataclass(frozen=True)
class Node:
    """The parts of one node. Stores are opened at once; receiver, worker and courier are made by who runs them."""

    settings: Settings
    database: Database
    spool: Spool
    series: SeriesStore
    jobs: JobStore
    outbox: OutboxStore
    overview: Overview

    @property
    def run_dir(self) -> Path:
        """Where the processes of this node hold their locks."""
        return self.settings.node.data_dir / "run"

    @property
    def destination_names(self) -> list[str]:
        """Every configured destination."""
        return [destination.name for destination in self.settings.destination]

    @property
    def card(self) -> BundleCard:
        """The card of the configured bundle, its weights checked against their checksum."""
        return verified_card(self.settings)

    def receiver(self) -> Receiver:
        """The storage SCP."""
        return Receiver(self.settings.scp, self.spool, self.series, name=process_name("receive"))

    def completion(self) -> Completion:
        """The judge of what the receiver got."""
        card, model = self.card, self.settings.model
        # The worker chooses the device; the setting stands for it here, so that a series has one job whoever works.
        processing = processing_digest(precision=model.precision, device=model.device)

        def request_for(headers: list[SliceHeader]) -> JobRequest:
            return JobRequest(key=job_key(headers, card.digest, processing), bundle=bundle_label(card))

        policy = eligibility_policy(self.settings)
        return Completion(self.series, self.spool, self.settings.completion, policy, request_for)

    def worker(self, name: str) -> Worker:
        """A worker with an executor in its own process."""
        return Worker(
            self.jobs,
            self.spool,
            lambda: open_executor(self.settings.model),
            lambda repeat, produced_at: job_options(self.settings, repeat, produced_at),
            self.destination_names,
            name=process_name("work", name),
        )

    def courier(self, name: str) -> Courier:
        """The sender of what the workers produced."""
        return Courier(
            self.outbox,
            self.spool,
            self.settings.destination,
            calling_ae=self.settings.scp.ae_title,
            name=process_name("deliver", name),
            confirmations=self.outbox,
        )


@contextmanager
def open_store(settings: Settings) -> Iterator[Node]:
    """Open spool and database, creating them where there are none; raises ConfigError or SchemaMismatch."""
    data_dir = settings.node.data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f"node.data_dir = {str(data_dir)!r} cannot be used: {error.strerror}; "
            "it must be a folder this user may write"
        ) from error
    installation_uid(data_dir, create=True)
    database = Database(settings.node.url())
    try:
        database.ensure_schema()
        yield Node(
            settings=settings,
            database=database,
            spool=Spool(data_dir / "spool", min_free_gb=settings.retention.min_free_gb),
            series=SeriesStore(database),
            jobs=JobStore(database),
            outbox=OutboxStore(database),
            overview=Overview(database),
        )
    finally:
        database.close()


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


def installation_uid(data_dir: Path, *, create: bool) -> str | None:
    """UID of this installation, made once at random and kept in `data_dir` (InstanceCreatorUID, DeviceSerialNumber)."""
    path = data_dir / "installation.json"
    if not path.exists():
        if not create:
            return None
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"uid": f"2.25.{uuid.uuid4().int}"}), encoding="utf-8")
        with suppress(FileExistsError):  # another process was first; its UID counts
            os.link(draft, path)
        draft.unlink()
    uid = json.loads(path.read_text(encoding="utf-8"))["uid"]
    assert isinstance(uid, str)
    return uid


def process_name(role: str, name: str = "1") -> str:
    """Name under which a process holds leases: the same after a restart, different on every host."""
    return f"{role}-{name}@{socket.gethostname()}"[:80]

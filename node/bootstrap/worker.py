"""Wires the worker, and the job of `process`, from the settings; importing it loads what only a job needs."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from importlib import metadata
from pathlib import PurePath
from zoneinfo import ZoneInfo

import models
from config.settings import ModelSettings, Settings
from node.bootstrap.roles import bundle_label, process_name
from node.bootstrap.store import Node, installation_uid
from node.dicom.derived_plan import EquipmentIdentity, SeriesOptions
from node.dicom.uids import UidFactory
from node.translate.job import Executor, JobOptions
from node.translate.shadow import ShadowRunner
from node.translate.worker import ExecutorUnavailable, Worker

log = logging.getLogger(__name__)


def make_worker(node: Node, name: str, announce: Callable[[str], None]) -> Worker:
    """A worker with an executor in its own process; `announce` gets in words what it works with."""
    settings = node.settings
    return Worker(
        node.jobs,
        node.spool,
        lambda: open_executor(settings.model),
        lambda job, produced_at: replace(
            job_options(settings, produced_at, repeat=job.repeat, version=job.version),
            sha256={PurePath(source.spool_name).name: source.sha256 for source in job.sources},
        ),
        node.destination_names,
        name=process_name("work", name),
        announce=announce,
        idle=_shadow(node, process_name("work", name)),
    )


def _shadow(node: Node, name: str) -> Callable[[threading.Event], bool]:
    """What a worker does where no job is due: the second bundle of the settings, if there is one that can be read."""
    settings = node.settings
    if not settings.model.shadow:
        return lambda _stop: False
    second = settings.model.model_copy(update={"bundle": settings.model.shadow})
    try:
        label = bundle_label(models.read_card(models.find_bundle(second.bundle)))
    except models.BundleError as error:
        log.error("model.shadow = %r cannot be used, so nothing is measured: %s", second.bundle, error)
        return lambda _stop: False
    return ShadowRunner(
        node.shadows,
        node.spool,
        label,
        lambda: open_executor(second),
        lambda job, now: job_options(settings, now, repeat=job.repeat, version=job.version),
        name=name,
    ).run_once


def open_executor(settings: ModelSettings) -> Executor:
    """Load the bundle on the configured device; raises ExecutorUnavailable, never takes another device or bundle."""
    try:
        path = models.find_bundle(settings.bundle)
        translator = models.load_bundle(
            path, device=settings.device, precision=settings.precision, batch_size=settings.batch_size or None
        )
    except (models.BundleError, models.DeviceUnavailable) as error:
        raise ExecutorUnavailable(str(error)) from error
    return Executor(bundle_label(translator.card), translator)


def job_options(settings: Settings, produced_at: datetime, *, repeat: int = 0, version: int = 1) -> JobOptions:
    """What the settings say about a derived series; an installation that never served has no UID of its own yet."""
    uid = installation_uid(settings.node.data_dir, create=False)
    return JobOptions(
        equipment=EquipmentIdentity(
            software_version=metadata.version("syncect"), device_serial_number=uid or "0", installation_uid=uid
        ),
        produced_at=produced_at,
        series=SeriesOptions(
            description_prefix=settings.series.description_prefix, number_rule=settings.series.number_rule
        ),
        uids=UidFactory(settings.node.installation_uid_root or None),
        run=repeat + 1,
        version=version,
        position_tolerance_mm=settings.eligibility.position_tolerance_mm,
        timezone=ZoneInfo(settings.node.timezone) if settings.node.timezone else None,
        outside_envelope=settings.model.outside_envelope,
    )

"""Wires the worker, and the job of `process`, from the settings; importing it loads what only a job needs."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import PurePath
from typing import Protocol
from zoneinfo import ZoneInfo

import models
from config.load import ConfigError
from config.settings import ModelSettings, Settings
from node.beats import Beating, Numbers
from node.bootstrap.allowed import unproven_words, why_not_accepted, why_refused
from node.bootstrap.bundles import BundleInUse, bundle_label, bundles_in_use, in_use_as, with_bundle
from node.bootstrap.constancy import require_constancy
from node.bootstrap.store import Node, installation_uid
from node.bootstrap.turns import rules_at
from node.dicom.derived_plan import EquipmentIdentity, SeriesOptions
from node.dicom.uids import UidFactory
from node.ops.processes import process_name
from node.ops.supervised import previous_end
from node.translate.device_record import DeviceRecord
from node.translate.job import AnyExecutor, Executor, JobOptions, Recorded
from node.translate.loaded import ExecutorUnavailable
from node.translate.ray_cluster import ask_for_token
from node.translate.shadow import ShadowRunner
from node.translate.worker import Worker
from node.version import software_version
from storage.jobs import ClaimedJob
from storage.pauses import host_of
from storage.states import Stage
from storage.wakes import Bell

log = logging.getLogger(__name__)

Idle = Callable[[threading.Event], bool]
Load = Callable[[ModelSettings, int], AnyExecutor]
"""Called as load(model, faults): loads the bundle of `model`, after so many faults of the device."""
DEVICE_FILE = "device.json"  # in the data folder


class AnyWorker(Protocol):
    """What the role `work` runs."""

    def run(self, stop: threading.Event) -> None: ...
    def release_expired(self) -> None: ...


def worker_of_settings(
    node: Node,
    name: str,
    announce: Callable[[str], None],
    beat: Beating,
    numbers: Numbers,
    *,
    bell_of: Callable[[], Bell],
) -> AnyWorker:
    """`make_worker`, or the worker of a Ray cluster where `model.executor` says so; raises ConfigError without Ray.

    bell_of: makes a bell for each thread that waits for jobs.
    """
    if node.settings.model.executor != "ray":
        return make_worker(node, name, announce, beat, numbers, bell=bell_of())
    ask_for_token()
    try:  # it is loaded for those who want it, and for nobody else
        from node.bootstrap.ray_worker import make_ray_worker  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError('model.executor = "ray" needs the package ray: pip install "syncect[ray]"') from error
    return make_ray_worker(node, name, announce, beat, numbers, bell_of=bell_of)


def make_worker(
    node: Node,
    name: str,
    announce: Callable[[str], None],
    beat: Beating,
    numbers: Numbers | None = None,
    *,
    bell: Bell | None = None,
) -> Worker:
    """A worker with an executor in its own process; `announce` gets in words what it works with.

    bell: says when to look for a job; None for every half second.
    """
    if numbers is not None and node.settings.model.device != "cpu":
        numbers.ask(_device_numbers)
    own, record = process_name("work", name), record_of(node.settings)
    return wire_worker(
        node,
        own,
        record,
        lambda model, faults: open_recorded(model, record, faults),
        announce=announce,
        idle=_shadow(node, own, record, beat),
        beat=beat,
        numbers=numbers,
        bell=bell,
    )


def wire_worker(
    node: Node,
    name: str,
    record: DeviceRecord,
    load: Load,
    *,
    announce: Callable[[str], None],
    beat: Beating,
    numbers: Numbers | None,
    bell: Bell | None,
    idle: Idle = lambda _stop: False,
    has_room: Callable[[], bool] = lambda: True,
    device_elsewhere: bool = False,
) -> Worker:
    """A worker as the settings want it, wherever its executors are; name: that of its process. Else see `Worker`."""
    settings = node.settings
    return Worker(
        node.jobs,
        node.spool,
        partial(open_in_use, settings, load),
        partial(options_of_job, settings),
        node.destination_names,
        forbids=partial(_why_forbidden, node),
        name=name,
        announce=announce,
        idle=idle,
        permit=partial(require_constancy, node),
        rules=partial(rules_at, settings),
        beat=beat,
        numbers=numbers,
        record=record,
        previous_end=previous_end(),
        bell=bell,
        has_room=has_room,
        device_elsewhere=device_elsewhere,
        clock=node.clock,
    )


def record_of(settings: Settings) -> DeviceRecord:
    """What this installation remembers of its device."""
    return DeviceRecord(settings.node.data_dir / DEVICE_FILE)


def open_in_use(settings: Settings, load: Load, label: str, faults: int) -> AnyExecutor:
    """The bundle in use that jobs call `label`, "" for that of `model.bundle`; raises ExecutorUnavailable."""
    bundles = bundles_in_use(settings)
    bundle = in_use_as(bundles, label) if label else bundles[0]
    if bundle is None:
        raise ExecutorUnavailable(
            f"the job was queued for bundle {label}, and this worker has {_named(bundles)}; cancel the job, or start a "
            "worker with that bundle and retry"
        )
    model = with_bundle(settings.model, bundle.name)
    return _proven(load(model, faults), model)


def _named(bundles: Sequence[BundleInUse]) -> str:
    """The bundles in use by their labels, or what is wrong with them."""
    found = []
    for bundle in bundles:
        try:
            found.append(bundle_label(bundle.card()))
        except models.BundleError as error:
            found.append(f"{bundle.key} = {bundle.name!r}, which cannot be used: {error}")
    return ", ".join(found)


def _proven(executor: AnyExecutor, settings: ModelSettings) -> AnyExecutor:
    """The executor, where its bundle may be used; raises ExecutorUnavailable."""
    if why := why_refused(executor.card, settings):
        raise ExecutorUnavailable(why)
    if words := unproven_words(executor.card, settings):
        log.warning("%s", words, extra={"event": "bundle_unproven"})
    return executor


def _why_forbidden(node: Node, executor: AnyExecutor) -> str:
    """Why the loaded bundle may not be used now, or ""; asked before each job, since a person may withdraw it."""
    if not node.settings.model.require_acceptance:
        return ""
    named = in_use_as(bundles_in_use(node.settings), executor.bundle)
    name = node.settings.model.bundle if named is None else named.name
    return why_not_accepted(executor.card.digest, executor.bundle, name, node.acceptances)


def _device_numbers() -> dict[str, float]:
    memory = models.device_memory()
    return {} if memory is None else {"device_used_bytes": memory[0], "device_bytes": memory[1]}


def _shadow(node: Node, name: str, record: DeviceRecord, beat: Beating) -> Idle:
    """What a worker does where no job is due: the second bundle of the settings, if there is one that can be read.

    A host that is paused or drains begins nothing of that either.
    """
    settings = node.settings
    if not settings.model.shadow:
        return lambda _stop: False
    second = settings.model.model_copy(update={"bundle": settings.model.shadow, "blood_level_hu": 0.0})
    try:
        label = bundle_label(models.read_card(models.find_bundle(second.bundle)))
    except models.BundleError as error:
        log.error(
            "model.shadow = %r cannot be used, so nothing is measured: %s",
            second.bundle,
            error,
            extra={"event": "shadow_unusable"},
        )
        return lambda _stop: False
    runner = ShadowRunner(
        node.shadows,
        node.spool,
        label,
        lambda: open_recorded(second, record, 0),
        lambda job, now: job_options(settings, now, repeat=job.repeat, version=job.version),
        name=name,
        beat=beat,
        clock=node.clock,
    )

    def unless_paused(stop: threading.Event) -> bool:
        return node.pauses.of(Stage.TRANSLATE, host_of(name)) is None and runner.run_once(stop)

    return unless_paused


def open_recorded(settings: ModelSettings, record: DeviceRecord, faults: int) -> Executor:
    """`open_executor` for an installation that remembers its GPU, and never goes on without it unless it is told to."""
    executor, device = _opened(settings, faults)
    require_remembered(settings, record, device)
    return executor


def require_remembered(settings: ModelSettings, record: DeviceRecord, device: str) -> None:
    """Raise ExecutorUnavailable where an installation had a GPU, and would go on without it although nobody said so."""
    if settings.device == "auto" and device == "cpu" and record.had_gpu:
        raise ExecutorUnavailable(
            "the GPU is gone: this node translated on one before, and torch finds none now; bring it back, or set "
            'model.device = "cpu" to translate on the processor, which is slower'
        )
    record.uses(device)


def open_executor(settings: ModelSettings) -> Executor:
    """Load the bundle on the configured device; raises ExecutorUnavailable, never takes another device or bundle."""
    return _opened(settings, 0)[0]


def _opened(settings: ModelSettings, faults: int) -> tuple[Executor, str]:
    """The executor and its device; after a fault one slice at a time, after each more on the next GPU of its kind."""
    alike = models.count_alike_gpus() if settings.device != "cpu" else 0
    try:
        path = models.find_bundle(settings.bundle)
        translator = models.load_bundle(
            path,
            device=settings.device,
            precision=settings.precision,
            batch_size=1 if faults else settings.batch_size or None,
            gpu=min(max(0, faults - 1), max(0, alike - 1)),
            blood_level_hu=settings.blood_level_hu or None,
        )
    except (models.BundleError, models.DeviceUnavailable) as error:
        raise ExecutorUnavailable(str(error)) from error
    return Executor(bundle_label(translator.card), translator, max(0, alike - 1)), translator.device


def options_of_job(settings: Settings, job: ClaimedJob, produced_at: datetime) -> JobOptions:
    """`job_options` for a job of the store, with what the store recorded of its files."""
    files = {PurePath(source.spool_name).name: source for source in job.sources}
    return replace(
        job_options(settings, produced_at, repeat=job.repeat, version=job.version),
        sha256={name: source.sha256 for name, source in files.items()},
        recorded=Recorded(
            job.study_uid,
            job.series_uid,
            {name: source.sop_instance_uid for name, source in files.items()},
            job.patient,
        ),
    )


def equipment_of(uid: str | None) -> EquipmentIdentity:
    """How results name the installation of this UID; None for one that never served."""
    return EquipmentIdentity(software_version=software_version(), device_serial_number=uid or "0", installation_uid=uid)


def job_options(settings: Settings, produced_at: datetime, *, repeat: int = 0, version: int = 1) -> JobOptions:
    """What the settings say about a derived series; an installation that never served has no UID of its own yet."""
    return JobOptions(
        equipment=equipment_of(installation_uid(settings.node.data_dir, create=False)),
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
        doubt=settings.model.doubt,
    )

"""Wires the worker of `model.executor = "ray"` from the settings; importing it loads Ray."""

from collections.abc import Callable
from functools import partial

import models
from config.settings import ModelSettings, Settings
from node.beats import Beating, Numbers
from node.bootstrap.bundles import bundle_label
from node.bootstrap.store import Node
from node.bootstrap.worker import record_of, require_remembered, wire_worker
from node.ops.processes import process_name
from node.translate.carried import BundleAsk
from node.translate.device_record import DeviceRecord
from node.translate.loaded import ExecutorUnavailable
from node.translate.ray_cluster import ClusterPlan
from node.translate.ray_executor import ActorPool
from node.translate.ray_worker import RayExecutor, RayWorker
from node.translate.worker import Worker
from node.version import software_version
from storage.wakes import Bell


def make_ray_worker(
    node: Node,
    name: str,
    announce: Callable[[str], None],
    beat: Beating,
    numbers: Numbers,
    *,
    bell_of: Callable[[], Bell],
) -> RayWorker:
    """A worker that has many jobs in hand, on the actors of a cluster; see `worker_of_settings`."""
    settings, own = node.settings, process_name("work", name)
    record = record_of(settings)

    def lane(pool: ActorPool, number: int) -> Worker:
        def beat_of_lane(_line: str, stage: str, done: int, total: int, limit_s: float) -> None:
            beat(f"job {number + 1}", stage, done, total, limit_s)

        return wire_worker(
            node,
            own,
            record,
            partial(_load, pool, record),
            announce=announce if number == 0 else lambda _words: None,
            beat=beat_of_lane,
            numbers=numbers,
            bell=bell_of(),
            has_room=pool.has_room,
            device_elsewhere=True,
        )

    return RayWorker(
        plan_of(settings),
        settings.model.device,
        lane,
        announce=announce,
        beat=beat,
        jobs=node.jobs,
        clock=node.clock,
    )


def plan_of(settings: Settings) -> ClusterPlan:
    """The settings of [ray]."""
    return ClusterPlan(**settings.ray.model_dump())


def ask_of(model: ModelSettings, faults: int = 0) -> BundleAsk:
    """What actors are asked to load; raises ExecutorUnavailable where this host has no such bundle to compare with."""
    try:
        card = models.read_card(models.find_bundle(model.bundle))
    except models.BundleError as error:
        raise ExecutorUnavailable(str(error)) from error
    return BundleAsk(
        bundle=model.bundle,
        label=bundle_label(card),
        digest=card.digest,
        version=software_version(),
        device=model.device,
        precision=model.precision,
        batch_size=model.batch_size or None,
        blood_level_hu=model.blood_level_hu or None,
        careful=faults > 0,
    )


def _load(pool: ActorPool, record: DeviceRecord, model: ModelSettings, faults: int) -> RayExecutor:
    executor = RayExecutor(pool, ask_of(model, faults), record.limit_s)
    require_remembered(model, record, executor.device)
    return executor

"""What the processes have counted (`node.beats.Numbers`), read from their files as metrics.

A process that starts again begins at zero, which Prometheus understands. Only what is named here comes out, under
labels of ours or of the settings.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from node.beats import LATENCY_BOUNDS_S
from node.network import status
from node.ops.processes import ProcessView

STATUSES: Final = tuple(
    f"{code:04X}"
    for code in (
        status.SUCCESS,
        status.NOT_AUTHORIZED,
        status.OUT_OF_RESOURCES,
        status.DATASET_DOES_NOT_MATCH,
        status.CANNOT_UNDERSTAND,
    )
)
"""What the receiver answers; they are there from the start, so that the first refusal is an increase."""

_OF_WORKERS: Final = (
    ("slices", CounterMetricFamily, "syncect_translated_slices_total", "Slices of results that a worker has made."),
    (
        "translation_s",
        CounterMetricFamily,
        "syncect_translation_seconds_total",
        "Seconds that these slices took, from the reading of the source until the result was written.",
    ),
    (
        "slice_s",
        GaugeMetricFamily,
        "syncect_translation_seconds_per_slice",
        "Seconds per slice of the last result of a worker.",
    ),
    (
        "device_used_bytes",
        GaugeMetricFamily,
        "syncect_device_memory_used_bytes",
        "Memory in use, by all programs, of the GPU of a worker.",
    ),
    ("device_bytes", GaugeMetricFamily, "syncect_device_memory_bytes", "Memory of the GPU of a worker."),
)
_OF_COURIERS: Final = (
    ("sent", "syncect_sent_instances_total", "Instances that a destination has accepted."),
    ("send_s", "syncect_send_seconds_total", "Seconds that associations with a destination took to send instances."),
    ("failures", "syncect_send_failures_total", "Attempts to send a result that ended without all of its instances."),
)


def of_processes(
    views: Sequence[ProcessView], roles: Collection[str], up: Collection[str], destinations: Collection[str]
) -> Iterator[Metric]:
    """Every metric of these processes. roles: those that have to run. up: those that run and respond."""
    alive = GaugeMetricFamily("syncect_process_up", "1 where a process of a role runs and responds.", labels=["role"])
    for role in roles:
        alive.add_metric([role], float(role in up))
    yield alive
    yield _ends([view for view in views if view.role == "serve"], roles)
    for view in views:
        if view.role == "receive":
            yield from _of_receiver(view.numbers)
    yield from _of_workers([view for view in views if view.role == "work"])
    yield from _of_couriers([view for view in views if view.role == "deliver"], destinations)


def _ends(views: Sequence[ProcessView], roles: Collection[str]) -> Metric:
    family = CounterMetricFamily(
        "syncect_process_ends_total",
        "How often a process of a role ended by itself, or was killed because it hung, since `serve` began.",
        labels=["role"],
    )
    for view in views:
        for role in roles:
            family.add_metric([role], view.numbers.get(f"ends:{role}", 0))
    return family


def _of_receiver(numbers: Mapping[str, float]) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "syncect_cstore_answers_total",
        "C-STORE requests by the DIMSE status that they were answered with; 0000 is stored, all others are refused.",
        labels=["status"],
    )
    found = {name.partition(":")[2] for name in numbers if name.startswith("stores:")}
    for code in sorted(found | set(STATUSES)):
        answers.add_metric([code], numbers.get(f"stores:{code}", 0))
    yield answers
    yield CounterMetricFamily(
        "syncect_cstore_received_bytes_total",
        "Bytes of the data sets of all C-STORE requests that were answered.",
        value=numbers.get("store_bytes", 0),
    )
    buckets, total = [], 0.0
    for bound in (*(f"{bound:g}" for bound in LATENCY_BOUNDS_S), "+Inf"):
        total += numbers.get(f"store_s:{bound}", 0)
        buckets.append((bound, total))
    yield HistogramMetricFamily(
        "syncect_cstore_duration_seconds",
        "Time from the last byte of an instance until its answer.",
        buckets=buckets,
        sum_value=numbers.get("store_s_sum", 0),
    )


def _of_workers(views: Sequence[ProcessView]) -> Iterator[Metric]:
    for key, kind, name, words in _OF_WORKERS:
        family = kind(name, words, labels=["process"])
        for view in views:
            if key in view.numbers or kind is CounterMetricFamily:
                family.add_metric([view.name], view.numbers.get(key, 0))
        yield family


def _of_couriers(views: Sequence[ProcessView], destinations: Collection[str]) -> Iterator[Metric]:
    for key, name, words in _OF_COURIERS:
        family = CounterMetricFamily(name, words, labels=["destination", "process"])
        for view in views:
            for destination in destinations:
                family.add_metric([destination, view.name], view.numbers.get(f"{key}:{destination}", 0))
        yield family

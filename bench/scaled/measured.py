"""What the model is told: figures of the newest reports in bench/results that have them, each with where it stands.

Nothing here is a number by itself but the assumptions, which are named as such.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.scaled.model import Stage, Times
from config.settings import CompletionSettings
from storage.wakes import POLL_S

RESULTS = Path(__file__).parents[1] / "results"
SLICES = 140
PIXEL_BYTES = 512 * 512 * 2
HEADER_BYTES = 2_000
"""Of an instance, roughly: pixel data are 99 % of it."""


@dataclass(frozen=True)
class Sourced:
    """A figure and the report that has it; or an assumption, where `source` says that."""

    name: str
    value: float
    source: str


@dataclass(frozen=True)
class Measured:
    """All figures of the model by their names."""

    figures: Mapping[str, Sourced]

    def __getitem__(self, name: str) -> float:
        return self.figures[name].value

    def times(self) -> Times:
        """The service times of a node with GPUs."""
        host_s, share = self["host part of a job"], self["cores of a job"]
        alone, ten = self["receive, 1 association"], self["receive, 10 associations"]
        return Times(
            receive=Stage(alone),
            judge=Stage(self["judge"]),
            job=Stage(host_s * share, cores=max(1.0, share), wait_s=0.0) if share > 1 else Stage(host_s),
            gpu_s=self["GPU part of a job"] * (1 + self["second look / translation"]),
            transactions_s=1 / self["claims per s"],
            deliver=Stage(self["deliver"]),
            quiet_s=self["quiet"],
            poll_s=POLL_S,
            receivers=alone / ten,
        )


Find = Callable[[dict[str, Any]], float | None]


def measured(bundle: str, database: str = "PostgreSQL", folder: Path = RESULTS) -> Measured:
    """The figures for a bundle ("syndiff", "demo", "demo-1step"). Raises LookupError where no report has one."""
    whole, cpu = (
        "whole job without the network: s for 140 slices",
        "CPU time of the whole job, all threads: s for 140 slices",
    )
    found = [
        _newest(
            folder, "receive, 1 association", _bench("receive", "1 association: this node, durable: s for 140 slices")
        ),
        _newest(
            folder,
            "receive, 10 associations",
            _bench("receive", "10 associations: this node, durable: s for 140 slices"),
        ),
        _newest(folder, "judge", _bench("job", "headers and digests: s for 140 slices")),
        _newest(folder, "whole job", _bench("job", whole)),
        _newest(folder, "processor time of it", _bench("job", cpu)),
        _newest(folder, "deliver", _bench("delivery", "delivery, this node's courier: s for 140 slices")),
        _newest(folder, "GPU part of a job", lambda report: _gpu_s(report, bundle)),
        _second_look(folder, bundle),
        _newest(folder, "claims per s", lambda report: _claims(report, database)),
        Sourced("quiet", CompletionSettings().quiet_s, "config/settings.py"),
    ]
    figures = {one.name: one for one in found}
    host = _host(folder, figures)
    share = Sourced(
        "cores of a job",
        figures["processor time of it"].value / figures["whole job"].value,
        f"processor time / time of the whole job, {figures['whole job'].source}",
    )
    return Measured(figures | {host.name: host, share.name: share})


def _host(folder: Path, figures: Mapping[str, Sourced]) -> Sourced:
    """What a job takes besides its translation: beside a GPU where that was measured, else on the processor alone."""
    name = "host part of a job"
    try:
        return _newest(folder, name, _host_s)
    except LookupError:
        return Sourced(name, figures["whole job"].value, figures["whole job"].source)


def _second_look(folder: Path, bundle: str) -> Sourced:
    """How long the look of `model.doubt` takes, which is on unless somebody switches it off, beside the translation."""
    name = "second look / translation"

    def ratio(report: dict[str, Any]) -> float | None:
        rows = _rows(report, "bundles", name, bundle=bundle, precision="bf16")
        return float(rows[0]["value"]) if rows else None

    try:
        return _newest(folder, name, ratio)
    except LookupError:
        return Sourced(name, 1.0, "assumed, as it is another translation")


def _bench(section: str, figure: str) -> Find:
    def find(report: dict[str, Any]) -> float | None:
        value = report.get("results", {}).get(section, {}).get(figure)
        return None if value is None else float(value)

    return find


def _rows(report: dict[str, Any], section: str, figure: str, **of: object) -> list[dict[str, Any]]:
    rows = report.get("sections", {}).get(section, {}).get("rows", []) if not report.get("dry_run") else []
    return [row for row in rows if row.get("figure") == figure and of.items() <= row.items()]


def _host_s(report: dict[str, Any]) -> float | None:
    """Of the node section of a GPU report: one warm worker's job without its translation and its second look."""
    whole, *network = (
        _rows(report, "node", figure, workers=1, slices=SLICES)
        for figure in ("job in the worker", "translate", "second look")
    )
    return float(whole[0]["value"] - sum(rows[0]["value"] for rows in network)) if whole and all(network) else None


def _gpu_s(report: dict[str, Any], bundle: str) -> float | None:
    """The seconds of a GPU for one look at 140 slices: of the shared device, with as many processes as gained most."""
    rows = _rows(report, "sharing", "translation by processes that share the device", bundle=bundle, slices=SLICES)
    return min((float(row["value"]) for row in rows), default=None)


def _claims(report: dict[str, Any], database: str) -> float | None:
    checks = report.get("sections", {}).get("claims", {}).get("checks", []) if not report.get("short") else []
    name = f"claims, {database}, 1 processes: jobs per s"
    return next((float(check["value"]) for check in checks if check["name"] == name), None)


def _newest(folder: Path, name: str, find: Find) -> Sourced:
    """Of the reports, by the time in their names. Raises LookupError."""
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem[-17:], reverse=True):
        value = find(json.loads(path.read_text(encoding="utf-8")))
        if value is not None:
            return Sourced(name, float(value), path.name)
    raise LookupError(f"no report in {folder} has the figure {name!r}")

"""What a worker asks of constancy: did a run pass lately with this very bundle, device and software?"""

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

from node.bootstrap.bundles import bundles_in_use, in_use_as
from node.bootstrap.store import Node
from node.translate.job import AnyExecutor
from node.translate.loaded import ExecutorUnavailable
from node.version import software_version
from storage.constancy import FAILED, PASSED, THROUGH_NODE, ConstancyView
from storage.jobs import ClaimedJob

COMMAND: Final = "`syncect qa run`"

_LIBRARIES: Final = ("torch", "numpy", "scipy", "pydicom", "highdicom")  # what may change a pixel or a header
_DRIVER: Final = Path("/proc/driver/nvidia/version")


def environment_of(executor: AnyExecutor) -> dict[str, str]:
    """All beside the bundle that may change a result, by name; two runs of equal environments must give equal bits."""
    return {
        "arithmetic": executor.arithmetic,
        "driver": _driver() if executor.device == "cuda" else "",
        "syncect": software_version(),
        **{library: version(library) for library in _LIBRARIES},
        "system": " ".join((platform.system(), *platform.libc_ver())).strip(),  # the kernel changes no result
        "processor": _processor(),
    }


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The parts of two environments that are not the same, each as "name: before -> after"."""
    names = dict.fromkeys((*before, *after))
    return [
        f"{name}: {before.get(name, '') or '-'} -> {after.get(name, '') or '-'}"
        for name in names
        if before.get(name, "") != after.get(name, "")
    ]


def require_constancy(node: Node, job: ClaimedJob, executor: AnyExecutor) -> None:
    """Raise ExecutorUnavailable where the settings ask for a constancy run that did not pass.

    The series of a run itself is let through: it is known by the UID that the run drew and named in the store before
    it sent anything, and wherever it came from, its result goes to the destination of the run alone.
    """
    environment = environment_of(executor)
    if node.constancy.translated(job.series_uid, executor.bundle, executor.digest, environment) is not None:
        return
    days = node.settings.model.constancy_days
    if not days:
        return
    ended = node.constancy.ended(executor.digest)
    if why := why_missing(ended, environment, days, node.clock()):
        raise ExecutorUnavailable(f"{why}; run {_command(node, executor.bundle)}, then retry this job")


def _command(node: Node, label: str) -> str:
    """What makes a run with the bundle that jobs call `label`."""
    named = in_use_as(bundles_in_use(node.settings)[1:], label)
    return COMMAND if named is None else f"`syncect qa run --bundle {named.name}`"


def why_missing(ended: Sequence[ConstancyView], environment: Mapping[str, str], days: int, now: datetime) -> str:
    """Why no run counts for the present bundle and environment, or "": the last one must have PASSED not too long ago.

    ended: the runs with the present bundle, oldest first. Those without a node do not count: they show nothing of the
    worker and of its device.
    """
    asked = f"model.constancy_days = {days}"
    through = [view for view in ended if view.way == THROUGH_NODE]
    here = [view for view in through if view.environment == environment]
    if here and here[-1].outcome == FAILED:
        return f"the last constancy run FAILED: {here[-1].reason} ({asked})"
    if not here:
        before = [view for view in through if view.outcome == PASSED]
        if not before:
            return f"no constancy run has PASSED with this bundle ({asked})"
        changed = "; ".join(differences(before[-1].environment, environment))
        return f"no constancy run has PASSED since the node changed ({changed}; {asked})"
    age = now - here[-1].at
    if age > timedelta(days=days):
        return f"the last constancy run that PASSED is {age.days} days old ({asked})"
    return ""


def _driver() -> str:
    """The first line of what the driver says of itself."""
    try:
        return _DRIVER.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return "unknown"


def _processor() -> str:
    """The model of the processor as Linux calls it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())

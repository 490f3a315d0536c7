"""The doctor's look at constancy runs."""

from datetime import UTC, datetime

from models.errors import ModelsError
from node.bootstrap.bundles import BundleInUse, bundles_in_use
from node.bootstrap.store import Node
from node.operate.doctor.report import Line, Lines, Mark
from node.operate.texts import span
from storage.constancy import FAILED, PASSED, THROUGH_NODE

_RUN = "`syncect qa run`, while the node serves"


def constancy(node: Node) -> Lines:
    """The last constancy run, and whether the settings ask for a newer one.

    What the worker computes with is not known here: only it says whether the last run was made with the same.
    """
    days, last = node.settings.model.constancy_days, node.constancy.last()
    asked = f"model.constancy_days = {days}"
    if last is None:
        if days:
            yield Line("constancy", Mark.FAIL, f"no run was made, and {asked}: jobs are HELD", _RUN)
        else:
            yield Line("constancy", Mark.SKIP, f"no run was made, and none is asked for ({asked})")
        return
    found = f"run {last.id} {last.outcome} {span(_age_s(last.at))} ago with {last.bundle}"
    if last.outcome == FAILED:
        yield Line("constancy", Mark.WARN, f"{found}: {last.reason}", "docs/physics/constancy.md says what to do")
    elif days and (why := _missing(node, days)):
        yield Line("constancy", Mark.FAIL, f"{found}, but {why} ({asked}): jobs are HELD", _RUN)
    else:
        yield Line("constancy", Mark.OK, found)


def _missing(node: Node, days: int) -> str:
    """What is missing of the first bundle in use of which anything is, "" for nothing."""
    bundles = bundles_in_use(node.settings)
    for bundle in bundles:
        if why := _missing_of(node, bundle, days):
            return why if bundle == bundles[0] else f"with the {bundle.key} ({bundle.name}) {why}"
    return ""


def _missing_of(node: Node, bundle: BundleInUse, days: int) -> str:
    try:
        digest = bundle.card().digest
    except ModelsError:  # the check of the bundle says what is wrong
        return ""
    through = [view for view in node.constancy.ended(digest) if view.way == THROUGH_NODE]
    passed = [view for view in through if view.outcome == PASSED]
    if not passed:
        return "none PASSED through the node with the present bundle"
    return "it is too old" if _age_s(passed[-1].at) > days * 86400 else ""


def _age_s(moment: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())

"""How the node is: what runs, what waits and what is wrong, for `status`, for the page and for monitoring."""

import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from config.settings import Settings
from node.beats import CANNOT_WORK
from node.bootstrap.store import Node, why_not_together
from node.operate.texts import local_time, zone_of
from node.operate.turns import pause_words
from node.ops.alert_rules import silent_words
from node.ops.alerts import urgency
from node.ops.certificates import check_all_tls, first_to_end
from node.ops.disk import why_unwritable
from node.ops.health import ROLES, Facts, Health, judge, roles_of
from node.ops.processes import ProcessView, Waiting, roles_elsewhere, running_processes, working_roles
from storage.acceptances import AcceptanceView
from storage.errors import StoreUnavailable
from storage.hosts import Host, roles_on
from storage.pauses import Pause
from storage.retention import Ages
from storage.states import Stage

if TYPE_CHECKING:
    from models import BundleCard


def essentials(node: Node) -> dict[str, Any]:
    """What `health_of` needs; quick also with many jobs.

    Raises StoreUnavailable, also where the database is damaged or takes no writes, and where the spool is not there or
    another one, as when its disk is not mounted.
    """
    node.database.check_writable()
    if not node.is_new and (why := why_not_together(node.settings, node.database)):
        raise StoreUnavailable(why)
    processes = running_processes(node.run_dir)
    hosts = node.hosts.all()
    working = working_roles(processes) | roles_elsewhere(processes, hosts)
    return {
        "processes": processes,
        "missing": [role for role in roles_of(node.settings) if role not in working],
        "not_started": [role for view in processes for role in view.waiting],
        "unwritable": why_unwritable(node.settings.node.data_dir),
        "counts": node.overview.counts(),
        "refused_24_h": node.overview.refused_since(datetime.now(UTC), hours=24),
        "reserve_gb": node.settings.retention.min_free_gb,
        "alerts": _alerts(node),
        "hosts": hosts,
        "pauses": node.pauses.all(),
        "peers": [view for view in node.peers.all() if view.destination in node.destination_names],
    }


def facts(node: Node) -> dict[str, Any]:
    """What is known about a node now: the JSON of `status`, whose keys are a contract."""
    return {
        "ae_title": node.settings.scp.ae_title,
        "host": node.settings.scp.listening_host,
        "port": node.settings.scp.port,
        "only_this_machine": node.settings.scp.is_closed,
        "bundle": node.settings.model.bundle,
        "unproven": unproven(node.settings),
        "acceptance": acceptance(node),
        "more_ae_titles": node.settings.scp.more_ae_titles,
        "routes": [route.name for route in node.settings.route],
        "bundles_of_routes": of_routes(node),
        **essentials(node),
        "oldest_queued_at": node.overview.oldest_queued_at(),
        "last_sent_at": node.overview.last_sent_at(),
        "free_gb": round(node.spool.free_bytes() / 1024**3, 1),
        "object_store": node.settings.spool.url,
        "retention": retention(node),
        "destinations": node.destination_names,
        "constancy": constancy(node),
        "certificates": certificates(node.settings),
    }


def certificates(settings: Settings) -> dict[str, Any]:
    """When the first certificate or revocation list ends, of which setting, and what is wrong with any of them."""
    now = datetime.now(UTC)
    try:
        first = first_to_end(settings)
    except (OSError, ValueError, IndexError):
        first = None  # the findings say why
    found = [finding for _, finding in check_all_tls(settings, now)]
    return {
        "first_to_end": first[1] if first else None,
        "ends_at": first[0] if first else None,
        "mistakes": [one.text for one in found if one.is_mistake],
        "warnings": [one.text for one in found if not one.is_mistake],
    }


def constancy(node: Node) -> dict[str, Any] | None:
    """The last constancy run; None where there was none."""
    last = node.constancy.last()
    if last is None:
        return None
    return {"id": last.id, "at": last.at, "outcome": last.outcome, "bundle": last.bundle, "reason": last.reason}


def unproven(settings: Settings) -> str:
    """Why the bundle of the settings is not proven to be better than no model; "" also where it cannot be read."""
    return _unproven(_card(settings.model.bundle))


def _unproven(card: "BundleCard | None") -> str:
    if card is None:
        return ""
    import models

    return models.why_unproven(card)


def acceptance(node: Node) -> str:
    """Who accepted the bundle of the settings, in words; "" where nobody has to, or it cannot be read."""
    return _acceptance(node, node.settings.model.bundle)


def _acceptance(node: Node, bundle: str) -> str:
    card = _card(bundle) if node.settings.model.require_acceptance and not node.is_new else None
    return "" if card is None else acceptance_words(node.acceptances.newest(card.digest))


def of_routes(node: Node) -> list[dict[str, str]]:
    """The further bundles that routes name: where, whether each is proven, and who accepted it."""
    if not node.settings.route:
        return []
    from node.bootstrap.bundles import bundles_in_use

    return [
        {
            "bundle": one.name,
            "used_by": one.key,
            "unproven": _unproven(_card(one.name)),
            "acceptance": _acceptance(node, one.name),
        }
        for one in bundles_in_use(node.settings)[1:]
    ]


def _card(bundle: str) -> "BundleCard | None":
    """The card of a bundle as the settings name it, None where it cannot be read."""
    import models  # with numpy, for which no list of jobs shall wait

    try:
        return models.read_card(models.find_bundle(bundle))
    except (models.BundleError, OSError):
        return None


def acceptance_words(newest: AcceptanceView | None) -> str:
    """The decision that counts about a bundle, for people."""
    if newest is None:
        return "not accepted"
    if newest.is_valid:
        return f"accepted by {newest.who} on {newest.at:%Y-%m-%d}, report {newest.report_sha256[:12]}"
    return f"withdrawn by {newest.who} on {newest.at:%Y-%m-%d}: {newest.note}"


def retention(node: Node) -> dict[str, Any]:
    """How long the disk lasts, whether it is so full that files go early, and what goes next."""
    settings, now = node.settings.retention, datetime.now(UTC)
    free_gb = node.spool.free_bytes() / 1024**3
    growth_gb_per_h = node.retention.growth_bytes_per_h(now) / 1024**3
    spare_gb = max(0.0, free_gb - settings.min_free_gb)
    first = node.retention.first_to_go(Ages(now, now))
    next_at = first[1] + timedelta(days=settings.days) if first is not None and settings.days else None
    below = free_gb < settings.target_free_gb
    return {
        "growth_gb_per_h": round(growth_gb_per_h, 4),
        "hours_left": round(spare_gb / growth_gb_per_h, 1) if growth_gb_per_h > 0 else None,
        "target_free_gb": settings.target_free_gb,
        "below_target": below,
        "next_id": first[0] if first is not None else None,
        "next_at": next_at,
        "words": _goes(first, next_at, zone_of(node.settings), below=below),
    }


def _goes(first: tuple[str, datetime] | None, next_at: datetime | None, zone: tzinfo | None, *, below: bool) -> str:
    state = "less is free than target_free_gb: the oldest go early; " if below else ""
    if first is None:
        return f"{state}nothing may go: everything on the disk is still needed"
    when = f"on {local_time(next_at, zone)}" if next_at else "only where space is needed" if below else "by no setting"
    return f"{state}the files of {first[0]} go first, {when}"


def _alerts(node: Node) -> dict[str, Any]:
    """How many alerts are open, how many of them nobody acknowledged, and the most urgent of these in words."""
    standing = sorted(node.alerts.open(), key=urgency)
    unknown = [alert for alert in standing if alert.acknowledged_at is None]
    return {
        "open": len(standing),
        "unacknowledged": len(unknown),
        "most_urgent": f"{unknown[0].kind}: {unknown[0].text}" if unknown else "",
        "channels_failing": [alert.text for alert in standing if alert.kind == "channel"],
    }


def health_of(node: Node, found: dict[str, Any]) -> Health:
    """How the node is, from these facts."""
    return judge(
        Facts(
            missing=found["missing"],
            counts=found["counts"],
            free_gb=node.spool.free_bytes() / 1024**3,
            reserve_gb=found["reserve_gb"],
            now=datetime.now(UTC),
            refused=[(row.last_at, row.calling_ae, row.reason) for row in found["refused_24_h"]],
            unreachable={
                peer.destination: (peer.failing_since, peer.reason) for peer in found["peers"] if peer.failing_since
            },
            standing=node.peers.standing(),
            waiting={one.role: waits(one) for one in found["not_started"]},
            troubles=_troubles(found),
            silent=[view.role for view in found["processes"] if view.silent() is not None],
            alerts=(found["alerts"]["unacknowledged"], found["alerts"]["most_urgent"]),
            pauses=[pause_words(pause, zone_of(node.settings)) for pause in found["pauses"]],
            receiving_is_paused=_keeps_images_out(found["pauses"], found["hosts"]),
        )
    )


def _keeps_images_out(pauses: Sequence[Pause], hosts: Sequence[Host]) -> bool:
    """Whether every receiver refuses every instance: that of each host that has one, or else of this host."""
    paused = {pause.host for pause in pauses if pause.stage is Stage.RECEIVE}
    receiving = {host.name for host in hosts if "receive" in roles_on([host])} or {socket.gethostname()}
    return "" in paused or receiving <= paused


def _troubles(facts: dict[str, Any]) -> list[str]:
    """What is wrong with the disk and with processes that run, and why the node as a whole cannot start."""
    found = [facts["unwritable"]] if facts["unwritable"] else []
    found += [f"the node cannot start {waits(one)}" for one in facts["not_started"] if one.role == "serve"]
    found += [words for host in facts["hosts"] for words in silent_words(host).values()]
    found += [
        f"{ROLES.get(one.role, one.role)} of {one.host} cannot work: {one.details.removeprefix(CANNOT_WORK)}"
        for host in facts["hosts"]
        if host.name != socket.gethostname()
        for one in host.processes
        if one.details.startswith(CANNOT_WORK) and one.name not in host.silent
    ]
    for view in facts["processes"]:
        if words := silence(view):
            found.append(f"{ROLES.get(view.role, view.role)} is {words}")
        elif view.waits_for_database:
            found.append(f"{ROLES.get(view.role, view.role)} waits for the database; its log says why")
        elif view.cannot_work:
            found.append(f"{ROLES.get(view.role, view.role)} cannot work: {view.cannot_work}")
    return found


def silence(view: ProcessView) -> str:
    """How long a process has not responded, and where it was; "" for one that responds."""
    late = view.silent()
    return f"not responding for {late.silent_s(time.monotonic()):.0f} s, at {late.work}" if late is not None else ""


def waits(one: Waiting) -> str:
    """Since when and why a role does not run, and when it is tried again."""
    left_s = max(0.0, (datetime.fromisoformat(one.next_try_at) - datetime.now(UTC)).total_seconds())
    since = datetime.fromisoformat(one.since).astimezone()
    return f"since {since:%Y-%m-%d %H:%M}, next try in {left_s:.0f} s: {one.reason}"

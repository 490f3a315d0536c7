"""Wires the watch and the channels that tell what it finds from the settings and the opened store."""

import socket
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

from config.settings import Settings
from node.bootstrap.store import Node
from node.ops import alert_rules
from node.ops.alert_channels import Channel, Mail, Teller, Webhook, failing
from node.ops.alert_machine import Certificates, Disk, Processes, Silence, UnknownImages
from node.ops.alerts import Look, Watch
from node.ops.certificates import check_all_tls
from node.ops.health import roles_of
from node.ops.processes import ProcessView, roles_elsewhere
from storage.alerts import Cause
from storage.errors import StorageError
from storage.gauges import Gauges
from storage.watching import WatchStore


def make_watch(node: Node, tellers: Sequence[Teller]) -> Watch:
    """Every look at this node; `tellers` are looked at, too."""
    settings, zone = node.settings, node.settings.node.zone()
    watching, alerts = WatchStore(node.database), node.alerts
    expected = [role for role in roles_of(settings) if role != "watch"]
    processes = Processes(node.run_dir, expected, elsewhere=partial(_elsewhere, node, expected))
    disk = Disk(lambda: node.spool.free_bytes() / 1024**3, settings.retention.min_free_gb)
    certificates = Certificates(partial(check_all_tls, settings))
    silence = Silence(watching, alerts, zone)
    unknown = UnknownImages(node.spool, node.retention.unknown, watching)
    looks = [
        Look(alert_rules.OF_SERIES, partial(alert_rules.series, node.overview, settings.alerts.due_s, zone)),
        Look(frozenset({"host"}), partial(alert_rules.hosts, node.hosts.all)),
        Look(frozenset({"deaths"}), partial(alert_rules.deaths, watching)),
        Look(frozenset({"peer", "leftover"}), partial(alert_rules.peers, node.peers, node.destination_names, zone)),
        Look(frozenset({"paused"}), partial(alert_rules.paused, node.pauses, settings.queue.pause_alert_s, zone)),
        Look(frozenset({"unconfirmed"}), partial(alert_rules.unconfirmed, watching)),
        Look(frozenset({"refused"}), partial(alert_rules.refused, node.overview, zone)),
        Look(frozenset({"channel"}), partial(failing, tellers)),
        Look(frozenset(), partial(_keep_counts, Gauges(node.database))),
        *(Look(frozenset(one.kinds), one.find) for one in (processes, disk, certificates, silence, unknown)),
    ]

    def tell_of_store(trouble: str) -> None:
        for teller in tellers:
            teller.store_trouble = trouble

    return Watch(looks, alerts, on_store=tell_of_store)


def _elsewhere(node: Node, expected: Sequence[str], views: Sequence[ProcessView]) -> Collection[str]:
    """The roles that other hosts run; any may, while the store cannot tell."""
    try:
        return roles_elsewhere(views, node.hosts.all())
    except StorageError:
        return expected


def _keep_counts(gauges: Gauges, now: datetime) -> list[Cause]:
    """No cause of an alert, but of quick answers: what readers of a large store need not count."""
    gauges.keep(now)
    return []


def make_channels(settings: Settings) -> list[Channel]:
    """The channels of the settings; none is the default."""
    found: list[Channel] = []
    if settings.alerts.webhook:
        found.append(Webhook(settings.alerts.webhook))
    if settings.alerts.smtp is not None:
        found.append(Mail(settings.alerts.smtp))
    return found


def make_tellers(node: Node) -> list[Teller]:
    """One for each channel."""
    alerts = node.settings.alerts
    return [
        Teller(
            channel,
            node.alerts,
            node_name(node.settings),
            remind_s=alerts.remind_s,
            quiet=alerts.quiet,
            zone=node.settings.node.zone(),
        )
        for channel in make_channels(node.settings)
    ]


def node_name(settings: Settings) -> str:
    """How a message names this node."""
    return f"{settings.scp.ae_title}@{socket.gethostname()}"

"""Wires what /metrics tells of a node."""

import models
from node.bootstrap.bundles import bundle_label
from node.bootstrap.store import Node
from node.operate.situation import essentials, health_of
from node.ops.metrics import NodeCollector, Stores
from node.version import software_version
from storage.gauges import Gauges
from storage.watching import WatchStore


def make_collector(node: Node) -> NodeCollector:
    """All metrics of a node, whose bundle is read once."""
    stores = Stores(
        Gauges(node.database),
        node.peers,
        node.alerts,
        WatchStore(node.database),
        node.retention,
        node.spool,
        node.constancy,
        node.hosts,
    )
    return NodeCollector(
        node.settings,
        node.run_dir,
        stores,
        lambda: health_of(node, essentials(node)).state,
        version=software_version(),
        bundle=_bundle(node),
    )


def _bundle(node: Node) -> str:
    try:
        return bundle_label(models.read_card(models.find_bundle(node.settings.model.bundle)))
    except models.BundleError:  # the worker says what is wrong with it
        return ""

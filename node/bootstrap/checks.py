"""Puts all checks of the settings together, for `config validate` and `doctor`."""

from collections.abc import Iterator
from datetime import UTC, datetime

from config.load import ConfigError
from config.settings import Settings
from node.bootstrap.bundles import bundles_in_use
from node.bootstrap.roles import eligibility_policy
from node.ops.certificates import check_all_tls
from node.ops.checks import (
    check_bundles,
    check_callers,
    check_data_dir,
    check_database,
    check_dicomweb,
    check_hosts,
    check_objects,
    check_port,
    check_reports,
)
from node.ops.findings import Finding
from node.ops.route_checks import check_routes


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Everything that can be known to be wrong, or doubtful, before the node starts; nothing is changed."""
    yield from check_data_dir(settings.node.data_dir)
    yield from check_database(settings.node.url())
    yield from check_hosts(settings)
    yield from check_port(settings.scp, settings.node.data_dir / "run")
    yield from (finding for _, finding in check_all_tls(settings, datetime.now(UTC)))
    try:
        eligibility_policy(settings)
    except ConfigError as error:
        yield from map(Finding, error.mistakes)
    yield from check_bundles(settings.model, {one.key: one.name for one in bundles_in_use(settings)})
    yield from check_routes(settings)
    yield from check_callers(settings.scp)
    yield from check_reports(settings)
    yield from check_dicomweb(settings)
    yield from check_objects(settings.spool)

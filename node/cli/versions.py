"""What `syncect --version` prints: the version, the commit, and the models that came with it or are set."""

from collections.abc import Iterator
from pathlib import Path

import models
from config.load import ConfigError, load_settings
from models import BundleCard
from node.bootstrap.bundles import bundle_label, bundles_in_use
from node.version import find_build, is_checkout, software_version


def version_lines(config: Path | None) -> Iterator[str]:
    """One fact a line; the weights' checksums are those of the cards, which `models verify` compares with the files."""
    build = find_build()
    yield f"syncect {build.version}"
    changed = ", and files that were changed since" if build.changed else ""
    yield f"commit {build.commit or 'unknown'}{changed}"
    if is_checkout():
        yield f"a checkout: what it derives carries the version of its installation, {software_version()}"
    for _, card in models.list_bundles():
        yield f"shipped bundle {_named(card)}"
    yield from _configured(config)


def _named(card: BundleCard) -> str:
    return f"{bundle_label(card)}, weights {card.weights_sha256[:12]}"


def _configured(config: Path | None) -> Iterator[str]:
    try:
        in_use = bundles_in_use(load_settings(config))
    except ConfigError:
        yield "model.bundle: unknown, since the settings cannot be read (`syncect config validate` says why)"
        return
    for one in in_use:
        try:
            yield f"{one.key}: {_named(one.card())}"
        except models.BundleError as error:
            yield f"{one.key}: {error}"

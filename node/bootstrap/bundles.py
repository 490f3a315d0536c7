"""The bundles in use: that of `model.bundle`, and those that routes name. What is asked of one is asked of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import models
from config.load import ConfigError
from config.settings import ModelSettings, Settings
from models import BundleCard


@dataclass(frozen=True)
class BundleInUse:
    """A bundle as the settings name it. key: where, for a sentence: "model.bundle", or "bundle of route neck"."""

    name: str
    key: str

    def card(self) -> BundleCard:
        """Its card, without a look at the weights; raises BundleError."""
        return models.read_card(models.find_bundle(self.name))

    def verified(self) -> BundleCard:
        """Its card after its weights were checked; raises ConfigError."""
        try:
            return models.verify_bundle(models.find_bundle(self.name))
        except models.BundleError as error:
            raise ConfigError(f"{self.key} = {self.name!r} cannot be used: {error}") from error


def bundles_in_use(settings: Settings) -> tuple[BundleInUse, ...]:
    """Each bundle by which jobs may be translated, once; that of `model.bundle` first."""
    found = {settings.model.bundle: "model.bundle"}
    for route in settings.route:
        if route.bundle:
            found.setdefault(route.bundle, f"bundle of route {route.name}")
    return tuple(BundleInUse(name, key) for name, key in found.items())


def with_bundle(model: ModelSettings, name: str) -> ModelSettings:
    """The settings of the model with another bundle in the place of its own."""
    return model.model_copy(update={"bundle": name})


def verified_cards(settings: Settings) -> dict[str, BundleCard]:
    """The card of each bundle in use, by its name in the settings, weights checked; raises ConfigError for any."""
    return {bundle.name: bundle.verified() for bundle in bundles_in_use(settings)}


def bundle_label(card: BundleCard) -> str:
    """How a bundle is called in jobs and logs: name, version and the first digits of its digest."""
    return f"{card.name} {card.version} ({card.digest[:12]})"


def in_use_as(bundles: Sequence[BundleInUse], label: str) -> BundleInUse | None:
    """The bundle in use that jobs call `label`; None for one that is not in use, or cannot be read."""
    for bundle in bundles:
        try:
            if bundle_label(bundle.card()) == label:
                return bundle
        except (models.BundleError, OSError):  # whoever needs it says what is wrong with it
            continue
    return None

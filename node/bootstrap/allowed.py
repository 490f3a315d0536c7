"""Whether the bundle of the settings may be used: is it better than no model, and did a person accept it?"""

import logging

import models
from config.settings import ModelSettings
from models import BundleCard
from node.errors import Refused
from storage.acceptances import AcceptanceStore

log = logging.getLogger(__name__)


def why_refused(card: BundleCard, settings: ModelSettings) -> str:
    """Why a bundle must not translate: it is unproven, and the settings do not name it; "" where it may."""
    why = "" if card.name in settings.allow_unproven else models.why_unproven(card)
    if not why:
        return ""
    return (
        f"bundle {card.name} {card.version} is refused: {why}. Measure it (`syncect evaluate --write-card`), use "
        f'another one, or set model.allow_unproven = ["{card.name}"] to use it all the same'
    )


def unproven_words(card: BundleCard, settings: ModelSettings) -> str:
    """What has to be said of a bundle that is only used because the settings name it; "" for a proven one."""
    why = models.why_unproven(card) if card.name in settings.allow_unproven else ""
    return f"UNPROVEN bundle {card.name} {card.version}, allowed by model.allow_unproven: {why}" if why else ""


def refuse_unproven(card: BundleCard, settings: ModelSettings) -> None:
    """Raise Refused for an unproven bundle that the settings do not name; say aloud that another one is used."""
    if why := why_refused(card, settings):
        raise Refused(why)
    if words := unproven_words(card, settings):
        log.warning("%s", words, extra={"event": "bundle_unproven"})


def why_not_accepted(digest: str, label: str, bundle: str, store: AcceptanceStore) -> str:
    """Why a bundle must not translate where `model.require_acceptance` is set; "" where a person accepted it.

    digest: of the model that was loaded, hex. bundle: as the settings call it.
    """
    newest = store.newest(digest)
    if newest is not None and newest.is_valid:
        return ""
    state = "nobody accepted it" if newest is None else f"{newest.who} withdrew it on {newest.at:%Y-%m-%d}"
    return (
        f"model.require_acceptance is set, and bundle {label} is not accepted: {state}. `syncect commission --bundle "
        f"{bundle}` makes the report, `syncect models accept {bundle} --report FILE --who NAME` accepts it"
    )

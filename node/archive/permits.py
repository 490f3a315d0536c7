"""What a worker asks before it translates, asked of an archive: is the bundle proven, accepted, and constant?"""

import models
from config.settings import Settings
from node.bootstrap.allowed import refuse_unproven, why_not_accepted
from node.bootstrap.ray_worker import ask_of
from node.bootstrap.store import read_store
from node.errors import Refused
from node.translate.carried import BundleAsk
from storage.constancy import ConstancyView


def permitted(settings: Settings) -> tuple[BundleAsk, tuple[ConstancyView, ...] | None]:
    """What actors shall load, and the constancy runs with it, None where the settings ask for none.

    The store is opened only where the settings ask for what stands in it. Raises Refused for a bundle that may not be
    used, ExecutorUnavailable where there is none, StoreUnavailable.
    """
    model, ask = settings.model, ask_of(settings.model)
    card = models.read_card(models.find_bundle(model.bundle))
    refuse_unproven(card, model)
    if not (model.require_acceptance or model.constancy_days):
        return ask, None
    with read_store(settings) as node:
        forbidden = model.require_acceptance and why_not_accepted(
            card.digest, ask.label, model.bundle, node.acceptances
        )
        if forbidden:
            raise Refused(forbidden)
        return ask, tuple(node.constancy.ended(card.digest)) if model.constancy_days else None

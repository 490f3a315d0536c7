"""Wires the routes of the settings: what a series gets by them, and the job that is made of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from config.load import ConfigError
from config.routes import SENDER, ConditionSettings, RouteSettings, return_to
from config.settings import Settings
from models import BundleCard
from node.bootstrap.bundles import bundle_label
from node.dicom.attribute_rules import Rule
from node.dicom.decoding_apart import with_decoded_digests
from node.dicom.headers import SliceHeader
from node.dicom.uids import job_key
from node.receive.routing import Call, Choice, Route, choose
from storage.series import JobRequest
from storage.states import Priority

RequestFor = Callable[[list[SliceHeader], Call], JobRequest]


@dataclass(frozen=True)
class Plan:
    """What a series gets. bundle: as the settings name it. destinations: as in `Job`. doubt: "" for no reason."""

    choice: Choice
    bundle: str
    destinations: tuple[str, ...]
    doubt: str

    @property
    def route(self) -> str:
        """The name of the route, "" where none matches."""
        return "" if self.choice.route is None else self.choice.route.name


def routes_of(settings: Settings) -> tuple[Route, ...]:
    """The routes in the order in which they are asked; raises ConfigError for a rule that cannot work."""
    return tuple(_route(number, route) for number, route in enumerate(settings.route))


def _route(number: int, route: RouteSettings) -> Route:
    rules = tuple(_rule(f"route.{number}.rules.{place}", rule) for place, rule in enumerate(route.rules))
    return Route(
        route.name,
        route.called_ae,
        route.calling_ae,
        rules,
        route.bundle,
        route.destinations,
        route.priority,
        route.target_s,
    )


def _rule(key: str, rule: ConditionSettings) -> Rule:
    try:
        return Rule(rule.keyword, rule.op, rule.values, reason="it takes another route")
    except ValueError as error:
        raise ConfigError(f"{key} cannot be used: {error}") from error


def plan_of(settings: Settings, routes: Sequence[Route], headers: Sequence[SliceHeader], call: Call) -> Plan:
    """What a series gets by its titles and headers."""
    choice = choose(routes, call, headers)
    if choice.route is None:
        return Plan(choice, settings.model.bundle, (), choice.doubt)
    destinations, doubt = _resolved(settings, choice.route, call)
    doubts = "; ".join(clause for clause in (choice.doubt, doubt) if clause)
    return Plan(choice, choice.route.bundle or settings.model.bundle, destinations, doubts)


def _resolved(settings: Settings, route: Route, call: Call) -> tuple[tuple[str, ...], str]:
    """The destinations of a route, the sender by its name, and why a person has to look where it has none."""
    if SENDER not in route.destinations:
        return route.destinations, ""
    sender, doubt = settings.destination_of_title.get(call.calling_ae), ""
    if sender is None:
        sender = return_to(call.calling_ae)
        who = f"no destination has its AE title, {call.calling_ae}" if call.calling_ae else "who that is is not known"
        doubt = f"route {route.name} returns the result to the sender, and {who}"
    found = [sender if name == SENDER else name for name in route.destinations]
    return tuple(dict.fromkeys(found)), doubt


def request_maker(
    settings: Settings,
    cards: Mapping[str, BundleCard],
    doubt: str = "",
    *,
    digest_of_run: Callable[[str], str | None] = lambda _series_uid: None,
) -> RequestFor:
    """What names the job that a series gets.

    cards: of the bundles in use, by their names in the settings. doubt: about whatever is received.
    `digest_of_run(series_uid)` tells the digest of the bundle that a constancy run is about, None for any other series:
    a run takes no route.
    """
    routes = routes_of(settings)

    def request_for(headers: list[SliceHeader], call: Call) -> JobRequest:
        digest = digest_of_run(headers[0].series_uid)
        plan = plan_of(settings, routes if digest is None else (), headers, call)
        card = next((one for one in cards.values() if one.digest == digest), cards[plan.bundle])
        doubts = "; ".join(clause for clause in (doubt, plan.doubt) if clause)
        asked = request_by(settings, card, headers)
        priority, target_s = turn_of(settings, plan.choice)
        return replace(
            asked,
            doubt=doubts,
            route=plan.route,
            destinations=plan.destinations,
            why=plan.choice.why,
            priority=priority,
            target_s=target_s,
        )

    return request_for


def turn_of(settings: Settings, choice: Choice) -> tuple[Priority, float]:
    """The priority of a job by its route, and in how many seconds its result is wanted."""
    route = choice.route
    if route is None:
        return Priority.ROUTINE, settings.queue.target_s
    return Priority[route.priority.upper()], route.target_s or settings.queue.target_s


def found_request(
    settings: Settings, cards: Mapping[str, BundleCard], card: BundleCard, headers: list[SliceHeader]
) -> JobRequest:
    """The request of a job whose result by this bundle lies in the spool, and of which nobody knows how it came.

    It has the route that the headers alone lead to, where no AE title is asked for and the bundle is that of the route.
    """
    plan, asked = plan_of(settings, routes_of(settings), headers, Call()), request_by(settings, card, headers)
    if plan.doubt or cards[plan.bundle].digest != card.digest:
        return asked
    return replace(asked, route=plan.route, destinations=plan.destinations)


def request_by(settings: Settings, card: BundleCard, headers: list[SliceHeader]) -> JobRequest:
    """The request of a job of these images by one bundle, without a route."""
    # The worker chooses the device; the setting stands for it here, so that all workers take a series for one job.
    model = settings.model
    device = f"{model.device}, {model.precision}"
    if model.blood_level_hu:  # named only where it is set, so that older keys stay
        device += f", blood at {model.blood_level_hu:g} HU"
    key = job_key(with_decoded_digests(headers), card.digest, device)
    return JobRequest(key, bundle_label(card), patient=headers[0].patient.by_keyword(), slices=len(headers))

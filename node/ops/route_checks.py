"""Checks what the routes of the settings mean together: which can never match, and senders to whom nothing returns."""

from collections.abc import Iterator

from config.routes import SENDER, RouteSettings
from config.settings import Settings
from node.ops.findings import Finding, warning


def check_routes(settings: Settings) -> Iterator[Finding]:
    """Senders of a route that returns results to them and that are no destination; and routes that nothing takes."""
    known = set(settings.destination_of_title)
    callers = {peer.ae_title for peer in settings.scp.allowed_peers}
    after_all = ""
    for route in settings.route:
        if after_all:
            yield warning(f"route {route.name} is never taken: route {after_all} before it takes every series")
        if strangers := [title for title in route.calling_ae if callers and title not in callers]:
            yield warning(f"route {route.name}: scp.allowed_peers does not let {', '.join(strangers)} send")
        yield from _check_return(route, known, callers)
        if not (route.called_ae or route.calling_ae or route.rules):
            after_all = after_all or route.name


def _check_return(route: RouteSettings, known: set[str], callers: set[str]) -> Iterator[Finding]:
    """Who a route names is a mistake without a destination; who may send by [scp] may be meant for another route."""
    if not route.returns:
        return
    lost = f"route {route.name} returns results to the sender ({SENDER}), and no destination has the AE title"
    if missing := [title for title in route.calling_ae if title not in known]:
        yield Finding(f"{lost} {', '.join(missing)}")
    elif not route.calling_ae and (others := sorted(callers - known)):
        yield warning(f"{lost} {', '.join(others)}, so what they send by this route is HELD")

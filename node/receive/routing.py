"""Which route a series takes: the first whose conditions all hold, by AE titles and headers alone.

It looks at headers that others read and knows neither store nor network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from config.queue import PriorityName
from node.dicom.attribute_rules import Rule
from node.dicom.headers import SliceHeader


@dataclass(frozen=True, slots=True)
class Call:
    """By which AE titles a series came; "" where nobody knows one.

    also_called: further titles of this node under which instances of the same series came.
    """

    called_ae: str = ""
    calling_ae: str = ""
    also_called: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One route: its conditions, which bundle translates ("" for that of the node), and names of destinations.

    called_ae, calling_ae: one of these, empty for any. rules: what every slice has to meet. destinations: empty for
    all that get results; `config.routes.SENDER` for the sender itself. priority: a name of `config.queue.PriorityName`.
    target_s: results are wanted so long after the series was complete; 0 for that of the node.
    """

    name: str
    called_ae: tuple[str, ...] = ()
    calling_ae: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    bundle: str = ""
    destinations: tuple[str, ...] = ()
    priority: PriorityName = "routine"
    target_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Missed:
    """The first condition of a route that does not hold. found: the values that the series has instead of it.

    keyword: the attribute, "" where the condition is about an AE title. slices: how many do not meet it. is_unknown:
    nobody knows the AE title, so that the condition may have held.
    """

    route: str
    condition: str
    found: tuple[str, ...] = ()
    keyword: str = ""
    slices: int = 0
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What the routes say of a series. route: the one that it takes, None where none matches.

    missed: why each route before it was not taken. doubt: why a person has to look, "" for no reason.
    """

    route: Route | None
    missed: tuple[Missed, ...] = ()
    doubt: str = ""

    @property
    def why(self) -> str:
        """Why this route, as a clause of the texts of the settings; "" where there are no routes."""
        if self.route is not None:
            return f"route {self.route.name}: {describe(self.route)}"
        return f"none of the routes {', '.join(one.route for one in self.missed)} matches" if self.missed else ""


def keywords_of(routes: Sequence[Route]) -> tuple[str, ...]:
    """The attributes that the rules of routes look at: headers must be read with them."""
    return tuple(sorted({rule.keyword for route in routes for rule in route.rules}))


def choose(routes: Sequence[Route], call: Call, headers: Sequence[SliceHeader]) -> Choice:
    """The route of a series of which these are all headers, read with `keywords_of(routes)`.

    The first AE title of a series that came under several counts; where another would have led elsewhere, a person has
    to look. So it is where a title is not known that a route asks for. Raises KeyError for a header that lacks a
    keyword.
    """
    taken, missed = _first(routes, call, headers)
    doubts = []
    if unknown := [one for one in missed if one.is_unknown]:
        names = ", ".join(one.route for one in unknown)
        doubts.append(f"by which AE title it came is not known, so that route {names} may have been meant")
    for title in call.also_called:
        other, _ = _first(routes, Call(title, call.calling_ae), headers)
        if other != taken:
            doubts.append(
                f"it came under the AE titles {call.called_ae} and {title}, which lead to {_named(taken)} and to "
                f"{_named(other)}; {_named(taken)} was taken"
            )
    return Choice(taken, tuple(missed), "; ".join(doubts))


def describe(route: Route) -> str:
    """The conditions of a route in words, by the texts of the settings."""
    clauses = [f"called as {' or '.join(route.called_ae)}"] if route.called_ae else []
    clauses += [f"sent by {' or '.join(route.calling_ae)}"] if route.calling_ae else []
    clauses += [_condition(rule) for rule in route.rules]
    return ", ".join(clauses) or "it takes every series"


def _first(routes: Sequence[Route], call: Call, headers: Sequence[SliceHeader]) -> tuple[Route | None, list[Missed]]:
    missed: list[Missed] = []
    for route in routes:
        why = why_missed(route, call, headers)
        if why is None:
            return route, missed
        missed.append(why)
    return None, missed


def why_missed(route: Route, call: Call, headers: Sequence[SliceHeader]) -> Missed | None:
    """The first condition of a route that does not hold; None where all do. A known one that fails comes first."""
    titles = (("called as", route.called_ae, call.called_ae), ("sent by", route.calling_ae, call.calling_ae))
    unknown = None
    for words, wanted, title in titles:
        if not wanted or title in wanted:
            continue
        if title:
            return Missed(route.name, f"{words} {' or '.join(wanted)}", (title,))
        unknown = unknown or Missed(route.name, f"{words} {' or '.join(wanted)}", is_unknown=True)
    for rule in route.rules:
        if broken := [found for one in headers if not rule.holds(found := one.attribute(rule.keyword))]:
            return Missed(route.name, _condition(rule), broken[0], rule.keyword, len(broken))
    return unknown


def _condition(rule: Rule) -> str:
    return " ".join((rule.keyword, rule.op, *([", ".join(rule.values)] if rule.values else [])))


def _named(route: Route | None) -> str:
    return "no route" if route is None else f"route {route.name}"

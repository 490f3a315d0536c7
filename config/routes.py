"""Which series go where, and what translates them: the routes of the settings."""

from collections.abc import Collection, Sequence
from typing import Annotated, Final

from pydantic import Field

from config.fields import AeTitle, Section
from config.queue import PriorityName

SENDER: Final = "@sender"
"""Among the destinations of a route: the one whose AE title is that by which the series was sent."""

TITLE_MARK: Final = "@"
"""What no name of a destination begins with: behind it stands the AE title of a sender that has none."""


class ConditionSettings(Section):
    """What the value of an attribute has to be.

    Keyword, operation and values are checked together, where the rule is made (`node.dicom.attribute_rules.Rule`).
    """

    keyword: str
    op: str
    values: tuple[str, ...] = ()


class RouteSettings(Section):
    """One route: what holds for the series that take it, which bundle translates them, and where results go.

    called_ae, calling_ae: one of these AE titles, empty for any. rules: what each image of the series has to meet.
    bundle: "" for `model.bundle`. destinations: names, or `SENDER`; empty for all that get results. priority: of the
    jobs; target_s: their results are wanted so long after the series was complete, seconds; 0 for `queue.target_s`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    called_ae: tuple[AeTitle, ...] = ()
    calling_ae: tuple[AeTitle, ...] = ()
    rules: tuple[ConditionSettings, ...] = ()
    bundle: str = ""
    destinations: tuple[str, ...] = ()
    priority: PriorityName = "routine"
    target_s: Annotated[float, Field(ge=0, le=7 * 86400)] = 0.0

    @property
    def returns(self) -> bool:
        """Whether results go back to who sent the series."""
        return SENDER in self.destinations


def return_to(calling_ae: str) -> str:
    """What stands among the names of destinations for a sender whose AE title no destination has."""
    return f"{TITLE_MARK}{calling_ae}"


def titles_without_name(destinations: Sequence[str]) -> list[str]:
    """The AE titles of senders to which results shall return, and that no destination had."""
    return [name.removeprefix(TITLE_MARK) for name in destinations if name.startswith(TITLE_MARK)]


def check_routes(
    routes: Sequence[RouteSettings], called: Collection[str], destinations: Sequence[tuple[str, str]]
) -> None:
    """Raise ValueError for routes that name what is not there.

    called: the AE titles of the receiver. destinations: name and AE title, or "", of each that gets results.
    """
    names = [route.name for route in routes]
    if len(set(names)) != len(names):
        raise ValueError("two routes have the same name; each needs its own")
    for route in routes:
        for title in route.called_ae:
            if title not in called:
                raise ValueError(
                    f"route {route.name}: called_ae has {title}, which is neither scp.ae_title nor one of "
                    "scp.more_ae_titles"
                )
        _check_destinations(route, destinations)


def _check_destinations(route: RouteSettings, destinations: Sequence[tuple[str, str]]) -> None:
    known = [name for name, _ in destinations]
    if len(set(route.destinations)) != len(route.destinations):
        raise ValueError(f"route {route.name}: each destination should be named once")
    for name in route.destinations:
        if name not in (*known, SENDER):
            raise ValueError(
                f"route {route.name}: {name!r} is no name of a [[destination]] that gets results "
                f"({', '.join(known) or 'there is none'}), nor {SENDER}"
            )
    titles = [title for _, title in destinations if title]
    twice = next((title for title in titles if titles.count(title) > 1), "")
    if route.returns and twice:
        raise ValueError(f"route {route.name}: {SENDER} cannot tell apart two destinations with the AE title {twice}")

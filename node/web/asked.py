"""What the address of the page asks for: a tab, the filters of `jobs ls` by their names, and where to go on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlencode

from fastapi import Request

from node.operate.listing import Asked, named_states
from node.operate.next_steps import NEXT_STEP
from node.operate.texts import NotUnderstood
from storage.filters import UNFINISHED

TABS: Final = {"now": "Now", "needs-you": "Needs you", "done": "Done", "all": "All"}
FILTERS: Final = ("state", "patient", "study", "series", "from", "to", "bundle", "since", "older", "stuck", "limit")
ROWS: Final = 50
MOST_ROWS: Final = 500
_LONGEST: Final = 200  # characters of a value; a UID has 64
_DONE: Final = tuple(state for state in NEXT_STEP if state not in UNFINISHED)
_YES: Final = frozenset({"1", "on", "true", "yes"})
_NO: Final = frozenset({"", "0", "off", "false", "no"})


@dataclass(frozen=True)
class Address:
    """The part behind the question mark, as typed. filters: those that are given; after: the case to go on behind."""

    tab: str = ""
    filters: dict[str, str] = field(default_factory=dict)
    after: str = ""

    @property
    def shown_tab(self) -> str:
        """Without a tab it is what goes on now; whoever filters looks for something, which may be over."""
        if self.tab in TABS:
            return self.tab
        return "all" if set(self.filters) - {"limit"} else "now"

    def query(self, *, tab: str = "", after: str = "") -> str:
        """The same address with another tab, or another place in the listing."""
        values = {"tab": tab or self.tab, **self.filters, "after": after}
        return urlencode({name: value for name, value in values.items() if value})

    @property
    def here(self) -> str:
        """The same address once more."""
        return self.query(after=self.after)


def address_of(request: Request) -> Address:
    """What a request asks for; names that mean nothing here are left out."""
    given = request.query_params
    found = {name: ",".join(value for value in given.getlist(name) if value) for name in FILTERS}
    filters = {name: value.strip() for name, value in found.items() if value.strip()}
    return Address(given.get("tab", ""), filters, given.get("after", ""))


def asked_of(address: Address) -> Asked:
    """What to list; raises NotUnderstood."""
    if address.tab and address.tab not in TABS:
        raise NotUnderstood(f"there is no such tab; there are {', '.join(TABS)}")
    for name, value in address.filters.items():
        if not value.isprintable() or len(value) > _LONGEST:
            raise NotUnderstood(f"{name}: at most {_LONGEST} characters, and none that cannot be shown")
    get = address.filters.get
    states = named_states([get("state", "")])
    asked = Asked(
        state=states,
        patient=get("patient", ""),
        study=get("study", ""),
        series=get("series", ""),
        calling_ae=get("from", ""),
        destination=get("to", ""),
        bundle=get("bundle", ""),
        since=get("since", ""),
        older=get("older", ""),
        stuck=_flag(get("stuck", "")),
        limit=_limit(get("limit", "")),
        after=address.after,
    )
    return _of_tab(asked, address.shown_tab, states)


def _of_tab(asked: Asked, tab: str, states: Sequence[str]) -> Asked:
    if tab == "done":
        wanted = [state for state in states if state in _DONE]
        if states and not wanted:
            raise NotUnderstood(f"{', '.join(states)} is not done; the tab {TABS['all']} has it")
        return replace(asked, state=wanted or _DONE)
    return replace(asked, needs_person=tab == "needs-you", lively=tab == "now")


def _flag(text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise NotUnderstood("stuck is 1, or is left out")
    return text.lower() in _YES


def _limit(text: str) -> int:
    if not text:
        return ROWS
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MOST_ROWS):
        raise NotUnderstood(f"limit is a whole number from 1 to {MOST_ROWS}")
    return int(text)

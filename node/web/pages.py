"""The pages: what arrived, what became of it, and what a person does next."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from node.bootstrap.store import Node
from node.operate.next_steps import NEXT_STEP
from node.operate.texts import NotUnderstood, now_utc, zone_of
from node.web.access import FIND_PATIENT, Person, Role, audit, needs
from node.web.actions import offers_of
from node.web.asked import FILTERS, TABS, Address, address_of, asked_of
from node.web.drawer import drawer_of
from node.web.lights import Lights
from node.web.looks import Looks
from node.web.rows import Listing, listing_of, needing_a_person
from node.web.templating import is_part, page
from storage.errors import NotFound

router = APIRouter()
Viewer = Annotated[Person, Depends(needs(Role.VIEWER))]


@router.get("/")
def front(request: Request, person: Viewer) -> Response:
    """How the node is, and what goes on."""
    listed = _listed(request, person)
    return page(request, "front.html", 422 if listed["mistake"] else 200, person=person, **_lights(request), **listed)


@router.get("/lights")
def lights(request: Request, _person: Viewer) -> Response:
    """The strip of lights, which the page asks for again and again."""
    return page(request, "_lights.html", **_lights(request))


@router.get("/rows")
def rows(request: Request, person: Viewer) -> Response:
    """The tabs and the table, which the page asks for again and again."""
    listed = _listed(request, person)
    return page(request, "_list.html", 422 if listed["mistake"] else 200, **listed)


@router.get("/cases/{case_id}")
def case(request: Request, case_id: str, person: Viewer, did: str = "") -> Response:
    """Everything about one case; did: the verb that was just done, where no script showed its outcome."""
    node = _node(request)
    found = node.overview.case(case_id)
    drawer = drawer_of(node, found)
    offers = offers_of(node, drawer, person)
    done = {offer.button.verb: offer.button.done for offer in offers}.get(did, "")
    return page(
        request,
        "_drawer.html" if is_part(request) else "case.html",
        person=person,
        drawer=drawer,
        offers=offers,
        which="",
        said=f"Job {found.id}: {done}." if done else "",
        refused="",
        ask=None,
        reason="",
    )


@router.get("/cases/{case_id}/live")
def live(request: Request, case_id: str, person: Viewer) -> Response:
    """What changes of a case, which the drawer asks for again and again."""
    node = _node(request)
    return page(request, "_live_answer.html", person=person, drawer=drawer_of(node, node.overview.case(case_id)))


@router.get("/cases/{case_id}/verbs")
def verbs(request: Request, case_id: str, person: Viewer) -> Response:
    """What a person may do about a case now, which the drawer asks for while nobody types in it."""
    node = _node(request)
    drawer = drawer_of(node, node.overview.case(case_id))
    offers = offers_of(node, drawer, person)
    return page(request, "_verbs.html", person=person, drawer=drawer, offers=offers, reason="", ask=None)


def _node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


def _lights(request: Request) -> dict[str, Any]:
    state = request.app.state
    if not hasattr(state, "lights"):
        state.lights = Lights(_node(request))
    return {"strip": state.lights.now(), "zone": zone_of(_node(request).settings)}


def _listed(request: Request, person: Person) -> dict[str, Any]:
    """The table, and what was not understood of the address, which then lists nothing."""
    node, address, now = _node(request), address_of(request), now_utc()
    listing, mistake = Listing(), ""
    try:
        asked = asked_of(address)
        _note_search(request, person, asked.patient)
        listing = listing_of(node, asked, now)
    except (NotUnderstood, NotFound) as error:
        mistake = str(error)
    return {
        "address": address if address.tab in ("", *TABS) else Address("", address.filters),
        "listing": listing,
        "mistake": mistake,
        "needing": needing_a_person(node, now),
        "tabs": TABS,
        "filters": FILTERS,
        "states": tuple(NEXT_STEP),
    }


def _note_search(request: Request, person: Person, patient: str) -> None:
    """Note that somebody looks for a patient; raises NotUnderstood where he may not guess a part of an ID.

    With `*` and `?` every character of a masked ID can be found out, one question after the other.
    """
    if not patient:
        return
    if any(c in patient for c in "*?") and person.role < Role.PHYSICIST:
        raise NotUnderstood("a patient ID is written in full; with * and ? only the role physicist may look for one")
    state = request.app.state
    if not hasattr(state, "searches"):
        state.searches = Looks()
    state.searches.note(person.name, patient, lambda: audit(request, FIND_PATIENT))

"""What a person does about a case with a button: the verbs of the command line, by the same functions."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from node.bootstrap.store import Node
from node.errors import Refused
from node.operate import verbs
from node.operate.cases import which_case
from node.operate.texts import MAX_REASON, NotUnderstood, tidy_reason
from node.ops.audit import SEE_PATIENT
from node.web.access import ROLE_OF_VERB, Person, Role, audit, needs, person_of
from node.web.actors import actor_of
from node.web.drawer import Drawer, drawer_of, refused_now, seen_of, senders_of
from node.web.templating import is_part, page
from storage.cases import Case
from storage.errors import StorageError
from storage.states import Priority

router = APIRouter()
_NAMED: Final = re.compile(r"`syncect jobs (\w+) ")
_NEVER_SENT: Final = "Its result is never sent. That can be taken back."
_STOPS: Final = (
    "It stops, and is sent nowhere any more; what a destination has got stays there. That can be taken back."
)
_DROPS: Final = "What this sender sent is taken out of the series, which is judged anew; the sender adds no more to it."
_MAY_AGAIN: Final = "What this sender sends for the series is taken again."
_MAKE_URGENT: Final[verbs.Act] = partial(verbs.set_turn, priority=Priority.URGENT, due_in=None)
_REMOVES: Final = "Its files leave the disk of this node. That cannot be taken back."


@dataclass(frozen=True)
class Button:
    """A verb as a button: what stands on it, and what was done in words.

    effect: what it does, for those that are asked once more first; "" for the others.
    """

    verb: str
    label: str
    done: str
    act: verbs.Act | None = None
    effect: str = ""
    needs_reason: bool = False

    @property
    def asks(self) -> bool:
        """Whether a person is asked once more first."""
        return bool(self.effect)

    @property
    def question(self) -> str:
        """The beginning of the question before it is done."""
        return {"drop": "Drop a sender from", "allow_again": "Allow a sender for"}.get(self.verb, self.verb.title())


BUTTONS: Final = {
    button.verb: button
    for button in (
        Button("release", "Release and send", "released", verbs.release, needs_reason=True),
        Button("retry", "Try again", "queued again", verbs.retry),
        Button("set_turn", "Make it urgent", "made urgent", _MAKE_URGENT),
        Button("resend", "Send again", "to be sent again", verbs.resend),
        Button("complete", "It is all there", "completed", verbs.complete),
        Button("acknowledge", "It is dealt with at the destination", "acknowledged", verbs.acknowledge),
        Button("reopen", "Take back", "reopened", verbs.reopen),
        Button("reject", "Reject: never send", "rejected", verbs.reject, _NEVER_SENT, needs_reason=True),
        Button("cancel", "Cancel", "cancelled", verbs.cancel, _STOPS),
        Button("drop", "Drop what one sender sent", "dropped", None, _DROPS),
        Button("allow_again", "Let a dropped sender send again", "allowed", None, _MAY_AGAIN),
        Button("purge", "Remove its files", "purged", verbs.purge, _REMOVES),
    )
}


@dataclass(frozen=True)
class Offer:
    """A button for one case and one person. why_not: why it cannot be pressed, "" where it can."""

    button: Button
    why_not: str
    is_advised: bool


@dataclass(frozen=True)
class Decision:
    """What was filled in. seen: what the case was when its form was made, so that nobody decides about another one."""

    reason: str = ""
    seen: str = ""
    confirmed: bool = False
    sender: str = ""
    to: Sequence[str] = field(default_factory=tuple)


def _decision(
    reason: Annotated[str, Form()] = "",
    seen: Annotated[str, Form()] = "",
    confirmed: Annotated[str, Form()] = "",
    sender: Annotated[str, Form(alias="from")] = "",
    to: Annotated[list[str] | None, Form()] = None,
) -> Decision:
    return Decision(reason, seen, confirmed == "yes", sender, tuple(to or ()))


def offers_of(node: Node, drawer: Drawer, person: Person) -> list[Offer]:
    """Every button, those that the next step names first, then the others that can be pressed."""
    case, advised = drawer.case, set(_NAMED.findall(drawer.step))
    found = []
    for verb, button in BUTTONS.items():
        role = ROLE_OF_VERB[verb]
        why_not = refused_now(node, case, verb) or ("" if person.role >= role else f"it needs the role {role}")
        found.append(Offer(button, why_not, verb in advised))
    return sorted(found, key=lambda offer: (bool(offer.why_not), not offer.is_advised))


@router.post("/cases/{case_id}/reveal")
def reveal(request: Request, case_id: str, person: Annotated[Person, Depends(needs(Role.PHYSICIST))]) -> Response:
    """Show the patient's ID and what was typed at the scanner, this once; it is noted first."""
    case = _node(request).overview.case(case_id)
    audit(request, SEE_PATIENT, case=case.id, study_uid=case.study_uid)
    return _shown(request, case, person, phi=True)


@router.post("/cases/{case_id}/{verb}")
def press(
    request: Request,
    case_id: str,
    verb: str,
    person: Annotated[Person, Depends(needs(Role.VIEWER))],
    decision: Annotated[Decision, Depends(_decision)],
) -> Response:
    """Do a verb, or ask first; 409 with the sentence where it is refused, 422 where something has to be filled in."""
    button = BUTTONS.get(verb)
    if button is None:
        raise HTTPException(404, f"there is no such button; there are {', '.join(BUTTONS)}")
    needs(ROLE_OF_VERB[verb])(request)
    node = _node(request)
    case = node.overview.case(case_id)
    try:
        reason = tidy_reason(decision.reason)
        _look_again(case, decision)
        if why_not := refused_now(node, case, verb):
            raise Refused(why_not)
        if button.needs_reason and not reason:
            raise NotUnderstood(
                f"Write a reason first: a person must be able to read later why job {case.id} was {button.done}."
            )
        if button.asks and not decision.confirmed:
            return _shown(request, case, person, ask=button, reason=reason)
        act = _act(node, case, button, decision)
    except NotUnderstood as error:
        asked = button if button.asks else None
        return _shown(request, case, person, 422, refused=str(error), ask=asked, reason=decision.reason[:MAX_REASON])
    except Refused as error:
        audit(request, verb, case=case.id, outcome="refused", detail=str(error), study_uid=case.study_uid)
        return _shown(request, case, person, 409, refused=f"Not {button.done}: {error}.", reason=decision.reason)
    return _do(request, case, button, act, reason)


def _do(request: Request, case: Case, button: Button, act: verbs.Act, reason: str) -> Response:
    """Note it, then do it: what cannot be noted is not done."""
    node, person = _node(request), person_of(request)
    audit(request, button.verb, case=case.id, detail=reason, study_uid=case.study_uid)
    try:
        more = act(node, case, actor_of(person.name, person.full_name), reason, node.now())
    except verbs.FAILED as error:
        outcome = next(outcome for kinds, outcome in verbs.FAILURES if isinstance(error, kinds))
        said = verbs.told(case.id, error)
        audit(request, button.verb, case=case.id, outcome=outcome.replace("not found", "failed"), detail=said)
        return _shown(request, case, person, 409, refused=f"Not {button.done}: {said}.", reason=reason)
    except Exception:
        with suppress(StorageError):  # which may be what failed
            audit(request, button.verb, case=case.id, outcome="failed", detail="by an error that nobody expected")
        raise
    if not is_part(request):
        return RedirectResponse(f"/cases/{case.id}?did={button.verb}", 303)
    words = f"Job {case.id}: {button.done}" + (f"; {more}." if more else ".")
    return _shown(request, node.overview.case(case.id), person, said=words)


def _look_again(case: Case, decision: Decision) -> None:
    if decision.seen and decision.seen != seen_of(case):
        was = decision.seen.partition(" ")[0]
        change = f"it was {was} when you looked and is {case.state} now" if was != case.state else "somebody was faster"
        raise Refused(f"{change}; look again before you decide")


def _act(node: Node, case: Case, button: Button, decision: Decision) -> verbs.Act:
    """How the verb is done; raises NotUnderstood for what was filled in."""
    if button.act is None:
        known = senders_of(node, case) if button.verb == "drop" else node.series.barred(case.series_id)
        if decision.sender not in known:
            raise NotUnderstood("Choose the sender.")
        return partial(verbs.drop if button.verb == "drop" else verbs.allow_again, calling_ae=decision.sender)
    if button.verb == "resend" and decision.to:
        if unknown := [name for name in decision.to if name not in node.destination_names]:
            raise NotUnderstood(f"No destination is named {unknown[0]}.")
        return partial(verbs.resend, to=decision.to)
    return button.act


def _node(request: Request) -> Node:
    node: Node = request.app.state.node
    return node


def _shown(request: Request, case: Case, person: Person, status: int = 200, **about: Any) -> Response:
    """The case after something was done or refused; the table beside it is asked for anew."""
    node = _node(request)
    context: dict[str, Any] = {"said": "", "refused": "", "ask": None, "reason": ""} | about
    drawer = drawer_of(node, case, phi=context.pop("phi", False))
    answer = page(
        request,
        "_drawer.html" if is_part(request) else "case.html",
        status,
        person=person,
        drawer=drawer,
        offers=offers_of(node, drawer, person),
        which=which_case(case),
        **context,
    )
    answer.headers["HX-Trigger"] = "tick"
    return answer

"""Who asks, and what he may do: every page and every button asks here, by `needs` and `person_of`.

The gate (`node.web.gate`) has found out who asks before a page is called; a path that it does not know as open is
never reached without a person.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import HTTPException, Request

from node.operate.texts import now_utc
from node.ops.audit import FIND_PATIENT, OK, SEE_IMAGES, SEE_PATIENT, Auditor
from storage.audit import AuditEntry
from storage.roles import Role

__all__ = [
    "CSRF_FIELD",
    "CSRF_HEADER",
    "FIND_PATIENT",
    "POLL_HEADER",
    "ROLE_OF_VERB",
    "SEE_IMAGES",
    "SEE_PATIENT",
    "Person",
    "Role",
    "audit",
    "needs",
    "needs_monitor",
    "person_of",
]

CSRF_FIELD: Final = "csrf"  # the name of the form's field
CSRF_HEADER: Final = "X-CSRF-Token"
POLL_HEADER: Final = "X-Syncect-Poll"
"""A request with this header, whatever its value, is the page's own and does not count as use of the session."""

ROLE_OF_VERB: Final = {
    **dict.fromkeys(("retry", "cancel", "resend", "complete", "reopen", "acknowledge", "set_turn"), Role.OPERATOR),
    **dict.fromkeys(("release", "reject"), Role.PHYSICIST),
    **dict.fromkeys(("drop", "allow_again", "purge"), Role.ADMIN),
}
"""The least role that may call a function of `node.operate.verbs`; whoever is logged in may look."""


@dataclass(frozen=True)
class Person:
    """Who is logged in. name: as the log and the history call him. csrf: what every form of his must carry."""

    name: str
    full_name: str
    role: Role
    csrf: str


def person_of(request: Request) -> Person:
    """Who asks. Raises HTTPException 401 where nobody is logged in."""
    person = getattr(request.state, "person", None)
    if not isinstance(person, Person):
        raise HTTPException(401, "nobody is logged in")
    return person


def needs(role: Role) -> Callable[[Request], Person]:
    """A dependency of FastAPI that lets nobody below `role` pass (403, audited), and gives the person."""

    def check(request: Request) -> Person:
        person = person_of(request)
        if person.role < role:
            audit(request, "forbidden", outcome="refused", detail=f"{request.method} {_route_of(request)} needs {role}")
            raise HTTPException(403, f"this needs the role {role}; {person.name} has the role {person.role}")
        return person

    return check


def needs_monitor(request: Request) -> None:
    """A dependency for /healthz, /readyz and /metrics: an address in `web.monitors`, or somebody who is logged in."""
    if not getattr(request.state, "is_monitor", False):
        person_of(request)


def audit(
    request: Request, action: str, *, case: str = "", outcome: str = OK, detail: str = "", study_uid: str = ""
) -> None:
    """Note what the person did or looked at: a verb, `SEE_PATIENT`, `SEE_IMAGES` or `FIND_PATIENT`.

    outcome: `ok`, `refused` or `failed`. detail: such as the reason that was typed. Raises StoreUnavailable: what
    cannot be noted is not shown.
    """
    auditor: Auditor = request.app.state.auditor
    who, address = person_of(request).name, str(request.state.address)
    auditor.note(AuditEntry(now_utc(), who, address, action, outcome, case, detail), study_uid)


def _route_of(request: Request) -> str:
    """The pattern of the path: the path itself can hold what was looked for."""
    return str(getattr(request.scope.get("route"), "path", "a page"))

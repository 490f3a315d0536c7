"""Who asks, and what he may do: every page and every button asks here, by `needs` and `person_of`.

The gate (`node.web.gate`) has found out who asks before a page is called; a path that it does not know as open is
never reached without a person.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import HTTPException, Request

from storage.roles import Role

__all__ = ["CSRF_FIELD", "CSRF_HEADER", "ROLE_OF_VERB", "Person", "Role", "needs", "needs_monitor", "person_of"]

CSRF_FIELD: Final = "csrf"  # the name of the form's field
CSRF_HEADER: Final = "X-CSRF-Token"

ROLE_OF_VERB: Final = {
    **dict.fromkeys(("retry", "cancel", "resend", "complete", "reopen", "acknowledge"), Role.OPERATOR),
    **dict.fromkeys(("release", "reject"), Role.PHYSICIST),
    **dict.fromkeys(("drop", "purge"), Role.ADMIN),
}
"""The least role that may press a button; whoever is logged in may look."""


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
    """A dependency of FastAPI that lets nobody below `role` pass (403), and gives the person."""

    def check(request: Request) -> Person:
        person = person_of(request)
        if person.role < role:
            raise HTTPException(403, f"this needs the role {role}; {person.name} has the role {person.role}")
        return person

    return check


def needs_monitor(request: Request) -> None:
    """A dependency for /healthz, /readyz and /metrics: an address in `web.monitors`, or somebody who is logged in."""
    if not getattr(request.state, "is_monitor", False):
        person_of(request)

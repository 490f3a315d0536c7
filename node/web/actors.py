"""Who acts on the page, as the history of a job and a released image name him."""

from typing import Final

MAX_CHARACTERS: Final = 80  # of an actor in the history


def actor_of(name: str, full_name: str) -> str:
    """`operator Dr. Anna Muster (anna)`, at most 80 characters: the full name is shortened before the login name.

    The login name is what tells two people of one name apart, and it is ASCII whatever the full name is.
    """
    full_name = " ".join(full_name.split())
    if not full_name or full_name == name:
        return f"operator {name}"[:MAX_CHARACTERS]
    room = MAX_CHARACTERS - len(f"operator  ({name})")
    if len(full_name) > room:
        full_name = f"{full_name[: room - 3]}..."
    return f"operator {full_name} ({name})" if room > len("...") else f"operator {name}"[:MAX_CHARACTERS]

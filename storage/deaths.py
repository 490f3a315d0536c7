"""Counts the processes that ended while they had a series or a job in hand, alone or together with the whole node."""

from storage.states import MAX_DEATHS, MAX_NODE_DEATHS
from storage.tables import Job, Series


def count_death(row: Series | Job, starter: str, ended: str) -> str:
    """Count that the process ended which had `row` in hand; return why it is not tried again, or "".

    starter: what started the process that found it out. Where the ended one was started by the same, it ended alone,
    and what it had in hand is to blame. Else a power cut or a person may have ended the node: that is forgiven more
    often, but not for ever, since contents may end a whole machine. ended: what such processes did, for the reason.
    """
    if row.starter == starter:
        row.deaths += 1
        if row.deaths >= MAX_DEATHS:
            return f"{row.deaths} {ended}"
        return ""
    row.node_deaths += 1
    if row.node_deaths >= MAX_NODE_DEATHS:
        return f"the whole node ended {row.node_deaths} times while it was in hand"
    return ""

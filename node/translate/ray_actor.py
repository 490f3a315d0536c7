"""What Ray runs in a process of its own, without Ray; `node.translate.ray_executor` starts it and asks it."""

import logging
import os
from collections.abc import Callable
from typing import Any

from models.translator import DeviceFault
from node.errors import NodeError, Retryable
from node.translate.carried import BundleAsk, CarriedJobs, Hello, Parcel
from node.translate.job import JobOptions

log = logging.getLogger(__name__)


class Actor:
    """Errors that are meant go back as values, so that Ray logs no traceback.

    node_here: the ID of the node of Ray that the calling process belongs to.
    """

    def __init__(self, node_here: Callable[[], str]) -> None:
        self._jobs, self._node_here = CarriedJobs(), node_here

    def hello(self, ask: BundleAsk) -> tuple[Hello | Exception, str, int]:
        """What it loaded, or why it could not; and where it stands: the node of Ray, and the process there."""
        node, pid = self._node_here(), os.getpid()
        try:
            return self._jobs.hello(ask), node, pid
        except (NodeError, DeviceFault) as error:
            return _plain(error), node, pid

    def run(self, ticket: str, ask: BundleAsk, options: JobOptions, parcel: Parcel) -> Any:
        """See `CarriedJobs.run`; any error is returned."""
        try:
            return self._jobs.run(ticket, ask, options, parcel)
        except (NodeError, DeviceFault) as error:
            return _plain(error)
        except Exception as error:  # its text may quote a value of the source, and Ray would log it
            log.exception("a job of an actor ended with an unexpected error", extra={"event": "job_crashed"})
            return Retryable(f"unexpected {type(error).__name__} in an actor; the logs of its host have the details")

    def reached(self, ticket: str) -> tuple[str, int, int] | None:
        """See `CarriedJobs.reached`."""
        return self._jobs.reached(ticket)

    def cancel(self, ticket: str) -> None:
        """See `CarriedJobs.cancel`."""
        self._jobs.cancel(ticket)


def _plain(error: Exception) -> Exception:
    """Without its frames and what caused it, which need not fit through a pipe."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)

"""Asks each destination by C-ECHO or QIDO-RS whether it is there, also where nothing is to be sent.

So a person learns before the first patient that it is not.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Final

from config.settings import AnyDestination
from node.network.requestor import Timeouts
from node.send.peer import sender_for
from storage.peers import PeerStore

log = logging.getLogger(__name__)

TICK_S: Final = 15.0
_AT_ONCE: Final = 8
_TIMEOUTS: Final = Timeouts(connection_s=3.0, acse_s=5.0, dimse_s=5.0, send_s=5.0)


class Probe:
    """Each `tick` asks the destinations that nobody has asked for `echo_s` seconds, several at once."""

    def __init__(
        self,
        peers: PeerStore,
        destinations: Sequence[AnyDestination],
        calling_ae: str,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._peers, self._calling_ae, self._clock = peers, calling_ae, clock
        self._destinations = [destination for destination in destinations if destination.echo_s]
        self._asked: dict[str, datetime] = {}

    def tick(self) -> None:
        """Ask who is due, and keep the answers."""
        if due := self._due(self._clock()):
            with ThreadPoolExecutor(min(_AT_ONCE, len(due)), thread_name_prefix="probe") as pool:
                list(pool.map(self._ask, due))

    def _due(self, now: datetime) -> list[AnyDestination]:
        answered = {peer.destination: peer.answered_at for peer in self._peers.all()}
        return [one for one in self._destinations if self._is_due(one, answered.get(one.name), now)]

    def _is_due(self, destination: AnyDestination, answered_at: datetime | None, now: datetime) -> bool:
        """An answer to a delivery counts as well. A moment in the future is of a clock that was set back."""
        moments = [at for at in (answered_at, self._asked.get(destination.name)) if at is not None and at <= now]
        return not moments or now - max(moments) >= timedelta(seconds=destination.echo_s)

    def _ask(self, destination: AnyDestination) -> None:
        now = self._clock()
        self._asked[destination.name] = now
        answer = sender_for(destination, self._calling_ae, _TIMEOUTS).echo()
        if answer.ok:
            self._peers.answered(destination.name, now)
            return
        if answer.latency_s:  # it is there, and what it lacks would be told of every delivery as well
            self._peers.answered(destination.name, now)
        else:
            self._peers.failed(destination.name, answer.detail, now)
        log.warning(
            "%s does not answer as it should: %s",
            destination.name,
            answer.detail,
            extra={"event": "peer_not_answering", "destination": destination.name},
        )

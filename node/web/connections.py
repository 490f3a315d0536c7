"""Ends connections that only occupy the page: it answers few at a time, and whoever holds them all shuts everybody out.

uvicorn waits for the head of a request, and for a reader who does not read, as long as the other side wishes.
"""

from asyncio import BaseTransport, TimerHandle
from collections import Counter
from typing import Any, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from node.web.caller import Networks

MOST_ANSWERED: Final = 100  # connections; what comes beyond is told to come later
MOST_OPEN: Final = 200  # what comes beyond is closed without an answer, before it takes a file descriptor for long
MOST_OF_ONE_ADDRESS: Final = 30  # a browser has 6; a trusted proxy, which speaks for many people, has no such limit
HEAD_WITHIN_S: Final = 10.0  # from the connection, or from the last answer, to the end of the next request's head
ANSWER_WITHIN_S: Final = 120.0  # from there to the end of the answer, however slowly it is read
_LOOK_EVERY_S: Final = 1.0


def bounded(proxies: Networks) -> type[H11Protocol]:
    """The protocol of one server, which ends what takes too long or is too much for one address."""
    open_of: Counter[str] = Counter()

    class Bounded(H11Protocol):
        _address = ""
        _watch: TimerHandle | None = None
        _stage: tuple[RequestResponseCycle | None, bool] = (None, False)
        _since_s = 0.0

        def connection_made(self, transport: BaseTransport) -> None:
            super().connection_made(cast("Any", transport))
            self._address = (self.client or ("", 0))[0]
            open_of[self._address] += 1
            too_many = open_of[self._address] > MOST_OF_ONE_ADDRESS and self._address not in proxies
            if too_many or len(self.connections) > MOST_OPEN:
                self.transport.abort()
                return
            self._since_s = self.loop.time()
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._watch is not None:
                self._watch.cancel()
            open_of[self._address] -= 1
            if open_of[self._address] <= 0:
                del open_of[self._address]
            super().connection_lost(exc)

        def _look(self) -> None:
            """End the connection where its request, or its answer, has lasted too long."""
            now_s = self.loop.time()
            is_answering = self.cycle is not None and not self.cycle.response_complete
            if self._stage != (self.cycle, is_answering):
                self._stage, self._since_s = (self.cycle, is_answering), now_s
            if now_s - self._since_s > (ANSWER_WITHIN_S if is_answering else HEAD_WITHIN_S):
                self.transport.abort()
                return
            self._watch = self.loop.call_later(_LOOK_EVERY_S, self._look)

    return Bounded

"""Counts logins by address, in memory and with a bound on its size."""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MOST: Final = 20  # refused logins ...
WINDOW_S: Final = 600.0  # ... in this time
ADDRESSES: Final = 4096


class Attempts:
    """How many logins an address may still try. A name's own lock is in the store and survives a restart."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._turn = threading.Lock()
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()  # address -> (begin of its window, attempts)

    def take(self, address: str) -> float:
        """Count one more login; 0, or the seconds for which this address must wait instead."""
        key, now_s = _key(address), self._clock_s()
        with self._turn:
            began_s, count = self._seen.pop(key, (now_s, 0))
            if now_s - began_s >= WINDOW_S:
                began_s, count = now_s, 0
            is_allowed = count < MOST
            self._seen[key] = began_s, count + is_allowed
            while len(self._seen) > ADDRESSES:
                self._seen.popitem(last=False)
        return 0.0 if is_allowed else began_s + WINDOW_S - now_s

    def give_back(self, address: str) -> None:
        """The login that was counted last was right."""
        with self._turn:
            if _key(address) in self._seen:
                began_s, count = self._seen[_key(address)]
                self._seen[_key(address)] = began_s, max(0, count - 1)

    def __len__(self) -> int:
        return len(self._seen)


def _key(address: str) -> str:
    """One machine owns a whole /64 of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(found if found.version == 4 else ipaddress.ip_network((int(found) >> 64 << 64, 64)))

"""How often a password may be tried: pauses that grow, for an address and for an account.

Called from the threads of the routes; touches nothing. Kept in memory: a restart forgives.
"""

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

FREE = 4  #: failures in a row without a pause; then 1 s, 2 s, 4 s …
LONGEST_SECONDS = 60.0  #: nobody can keep the owner out for longer
FORGET_SECONDS = 900.0  #: after that long without another one, failures are forgotten
MOST = 10_000  #: keys that are remembered; beyond, the oldest is forgotten


class Throttle:
    """Counts what fails, by any keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key → how many, the last one at

    def begin(self, keys: Iterable[str]) -> float:
        """A try that counts as failed until `succeeded`, so that many at once are no way round → 0; or the seconds
        to wait first, and then it counts for nothing."""
        now, keys = self._clock(), tuple(keys)
        with self._lock:
            found = [self._known(key, now) for key in keys]
            pause = min(LONGEST_SECONDS, max(_pause(count) - (now - at) for count, at in found))
            if pause > 0:
                return pause
            for key, (count, _) in zip(keys, found, strict=True):
                self._failures[key] = count + 1, now
                self._failures.move_to_end(key)
            while len(self._failures) > MOST:
                self._failures.popitem(last=False)
        return 0.0

    def succeeded(self, keys: Iterable[str]) -> None:
        """Forget the failures of these."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def _known(self, key: str, now: float) -> tuple[int, float]:
        count, at = self._failures.get(key, (0, now))
        return (count, at) if now - at < FORGET_SECONDS else (0, now)


def _pause(failures: int) -> float:
    return 0.0 if failures < FREE else min(LONGEST_SECONDS, 2.0 ** min(failures - FREE, 10))


def network(address: str) -> str:
    """What counts as one address: whoever has one of IPv6 has 2^64 of them (RFC 6177)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)

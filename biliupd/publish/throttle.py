"""A limit of bytes per second that everything shares which is given the same Throttle.

Called by the threads that send. Touches nothing but the clock. When the limit holds and for how long (the time of day,
a live stream that needs the line) is the business of whoever gives `limit`.
"""

import math
import threading
import time
from collections.abc import Callable

ASK_SECONDS = 1.0  #: the limit is asked for anew this often
BURST_SECONDS = 0.5  #: what was not used this long may be sent at once
LEAST_PIECE_BYTES = 4096
PIECES_PER_SECOND = 8


class Throttle:
    """`limit()` says how many bytes per second all threads together may send; 0: as many as they like.

    Whoever comes first is served first: each `take` reserves the next bytes of one common stream, and waits until
    time has come to their end.
    """

    def __init__(self, limit: Callable[[], float]) -> None:
        self._ask = limit
        self._lock = threading.Lock()
        self._limit = 0.0
        self._asked_at = -math.inf
        self._moved_at = time.monotonic()
        self._reserved = 0.0  #: bytes asked for so far, those that still wait included
        self._allowed = 0.0  #: bytes that time has allowed so far

    def limits(self) -> bool:
        """Whether there is a limit at this moment."""
        if time.monotonic() - self._asked_at >= ASK_SECONDS:
            with self._lock:
                self._move_on()
        return self._limit > 0

    def piece(self, count: int) -> int:
        """How many of `count` bytes are best taken at once, so that the stream stays even and no reader times out."""
        if not self.limits():
            return count
        return max(1, min(count, max(LEAST_PIECE_BYTES, int(self._limit / PIECES_PER_SECOND))))

    def take(self, count: int, over: threading.Event) -> None:
        """Wait until `count` bytes may be sent; return earlier when `over` is set."""
        if not self.limits():
            return
        with self._lock:
            self._move_on()
            self._reserved += count
            mine = self._reserved
        while (seconds := self._seconds_until(mine)) > 0:
            if over.wait(min(seconds, ASK_SECONDS)):
                with self._lock:
                    self._allowed += count  # they are not sent: those behind move up
                return

    def _seconds_until(self, mine: float) -> float:
        with self._lock:
            self._move_on()
            return (mine - self._allowed) / self._limit if self._limit else 0.0

    def _move_on(self) -> None:
        """Let the time since the last call allow its bytes; with the lock held."""
        now = time.monotonic()
        self._allowed += (now - self._moved_at) * self._limit
        self._moved_at = now
        if now - self._asked_at >= ASK_SECONDS:
            limit = self._ask()
            self._limit, self._asked_at = (limit if 0 < limit < math.inf else 0.0), now
        if self._limit:
            self._allowed = min(self._allowed, self._reserved + self._limit * BURST_SECONDS)
        else:
            self._allowed = self._reserved

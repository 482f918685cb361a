"""How long the free space of one volume lasts, and what follows from that.

Pure: it is given the free bytes and what is being recorded, and says what to do. Used by places.py, on the crew thread.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

RESERVE_SECONDS = 120.0  # of what runs: nothing new is begun when less than this is left
AGAIN = 1.25  # a forecast has to be better by so much before the warning goes
CHANGED = 0.25  # of the time left: a forecast that differs by less is the same one
LEAST_CHANGE_SECONDS = 600.0


class Load(NamedTuple):
    """What one recording takes. `merged`: its parts are merged when they are whole, so each byte is needed twice;
    `bytes` are those recorded so far."""

    bits_per_second: float
    bytes: int
    merged: bool


def bytes_per_second(loads: Sequence[Load]) -> float:
    """How fast the recordings themselves fill the disk."""
    return sum(load.bits_per_second for load in loads) / 8


def headroom_bytes(loads: Sequence[Load]) -> int:
    """What merging all that is recorded so far will need."""
    return sum(load.bytes for load in loads if load.merged)


def seconds_left(free: int, least_free: int, loads: Sequence[Load], unmerged: int) -> float:
    """Until `least_free` is reached, merges included; infinite when nothing is recorded.

    `unmerged`: bytes of parts of other broadcasts that are still to be merged.
    """
    rate = bytes_per_second(loads) + bytes_per_second([load for load in loads if load.merged])
    left = free - least_free - unmerged - headroom_bytes(loads)
    return max(0.0, left / rate) if rate > 0 else math.inf


class Space:
    """What the last look at a volume says.

    `short`: nothing new may begin, and so it stays until twice `least_free` (and the reserve) is free; `below`: less
    than `least_free` is left, a recording has to end; `warning`: for people, empty when all is well.
    """

    def __init__(self) -> None:
        self.short = self.below = False
        self.warning = ""
        self._full_at: datetime | None = None  # what the warning says

    def look(self, free: int, least_free: int, loads: Sequence[Load]) -> None:
        """Before each start, and as often as one likes."""
        reserve = RESERVE_SECONDS * bytes_per_second(loads)
        self.below = free < least_free
        self.short = free < again_bytes(least_free) + reserve if self.short else free < least_free + reserve

    def forecast(self, free: int, least_free: int, loads: Sequence[Load], unmerged: int, hours: float,
                 now: datetime) -> None:
        """Once a minute; `hours`: warn of what happens within them, 0: never; `now`: aware."""
        left, limit = seconds_left(free, least_free, loads, unmerged), hours * 3600
        if left >= limit * (AGAIN if self.warning else 1):
            self.warning, self._full_at = "", None
            return
        full_at = now + timedelta(seconds=left)
        if self._full_at is not None:
            moved = abs((full_at - self._full_at).total_seconds())
            if moved < max(LEAST_CHANGE_SECONDS, CHANGED * left):
                return
        self._full_at = full_at
        merges = headroom_bytes(loads) + unmerged
        self.warning = (
            f"{shown(free)} are free, and what is being recorded fills that by {full_at.astimezone():%H:%M}"
            f" (all but the {shown(least_free)} that stay free"
            + (f", and {shown(merges)} that merging will take)" if merges else ")"))

    def is_full(self) -> None:
        """A recorder met the end of the disk."""
        self.short = True


def again_bytes(least_free: int) -> int:
    """Free space from which on recording begins again."""
    return 2 * least_free


def shown(size: int) -> str:
    """Bytes for people."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"

"""What a room's media was, what of it anybody got, and what was held back: the truth a ledger is compared with.

The encoder's output is noted tag by tag (FLV) or segment by segment (HLS) before any fault touches it, so that what
was never handed out is known whatever the reason. Pure, but for the clock; the owner of an account locks it.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

MOST_UNITS = 100_000  # of FLV about twenty minutes; what is older is forgotten
SHORTEST_HOLE_SECONDS = 0.3  # less than this is on its way


class Withheld(NamedTuple):
    """Media nobody got. `what`: the last thing that was done to the room before; `since`: when its start was made.

    `at_seconds`: where in the broadcast's media, counted from the encoder's first picture.
    """

    what: str
    since: datetime
    seconds: float
    at_seconds: float


@dataclass(eq=False, slots=True)
class Unit:
    """A tag or a segment as the encoder made it. `seconds` and `length`: its media time; `made_at`: seconds since 1970.

    `forbidden`: it will never be handed out. Of sound `length` is 0: holes are counted by the picture.
    """

    seconds: float
    length: float
    digest: bytes
    made_at: float
    delivered: bool = False
    forbidden: bool = False


@dataclass
class Account:
    """One broadcast of one room."""

    units: deque[Unit] = field(default_factory=lambda: deque(maxlen=MOST_UNITS))
    acts: list[tuple[float, str]] = field(default_factory=list)

    def made(self, seconds: float, length: float, content: bytes) -> Unit:
        """Note what the encoder made just now."""
        unit = Unit(seconds, length, digest(content), time.time())
        self.units.append(unit)
        return unit

    def did(self, what: str) -> None:
        """Note what is done to the room."""
        self.acts.append((time.time(), what))

    def withheld(self, *, open_units: int = 0) -> list[Withheld]:
        """The holes in what was handed out, after its first piece. The last `open_units` may still be asked for."""
        units = [unit for unit in list(self.units) if unit.length]
        first = next((n for n, unit in enumerate(units) if unit.delivered), len(units))
        closed = len(units) - open_units
        holes: list[list[Unit]] = []
        running = False
        for n, unit in enumerate(units[first:], first):
            missing = unit.forbidden or (not unit.delivered and n < closed)
            if missing and running:
                holes[-1].append(unit)
            elif missing:
                holes.append([unit])
            running = missing
        return [hole for hole in map(self._hole, holes) if hole.seconds >= SHORTEST_HOLE_SECONDS]

    def _hole(self, units: list[Unit]) -> Withheld:
        began = units[0].made_at
        before = [what for at, what in self.acts if at <= began + 1.0]  # an act takes effect a moment before or after
        what = before[-1] if before else self.acts[0][1] if self.acts else "nobody listened"
        length = sum(unit.length for unit in units)
        return Withheld(what, datetime.fromtimestamp(began, UTC), round(length, 3), round(units[0].seconds, 3))


def digest(content: bytes | Iterable[bytes]) -> bytes:
    """What tells two payloads apart."""
    return hashlib.blake2b(content if isinstance(content, bytes) else b"".join(content), digest_size=16).digest()

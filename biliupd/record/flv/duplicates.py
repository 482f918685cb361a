"""Drop groups of pictures that a server sends again.

Pure. Runs in the recorder process. Some CDNs repeat their last seconds, with the old times or with new ones. A group (a
keyframe and all up to the next) whose every byte equals one of the last groups is dropped, unless it only goes on as a
still picture does: at the pace of the clock. Tags pass at once; only a group that begins like a known one is held until
it is known to be one.
"""

from collections import deque
from collections.abc import Iterable

from biliupd.record.flv.tags import SCRIPT, VIDEO, Role, Tag, look_at

REMEMBERED = 16
LOOPING = 10  # groups dropped in a row: the server goes round in circles
SMOOTH_MS = 500
LARGEST_HELD = 16 << 20
MOST_HELD = 8192


class Duplicates:
    """`dropped` lists the lengths in milliseconds of the groups dropped since it was last emptied."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self._in_a_row = 0
        self._known: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)  # hash of the keyframe, hash of the group
        self._hashes: list[int] = []
        self._held: list[Tag] | None = None
        self._held_size = 0
        self._begun: tuple[int, float] | None = None  # time of the group's keyframe, moment it came
        self._last = 0

    @property
    def holding(self) -> bool:
        """Whether something waits here to be known."""
        return self._held is not None

    @property
    def looping(self) -> bool:
        """Whether the server brings nothing new any more."""
        return self._in_a_row > LOOPING

    def feed(self, tags: Iterable[Tag], now: float) -> list[Tag]:
        """The tags to go on with; `now`: monotonic seconds at which these came."""
        passed: list[Tag] = []
        for tag in tags:
            body = tag.body
            key = tag.type == VIDEO and len(body) > 5 and body[0] & 0x70 == 0x10
            role = look_at(tag).role if key else None
            if role is Role.KEYFRAME:
                passed += self._end_group()
                self._begin_group(tag, now)
            if tag.type != SCRIPT and role is not Role.HEADER:
                self._hashes.append(hash(body))
                self._last = tag.timestamp
            if self._held is None:
                passed.append(tag)
                continue
            self._held.append(tag)
            self._held_size += len(body)
            if self._held_size > LARGEST_HELD or len(self._held) > MOST_HELD:
                passed += self.flush()
        return passed

    def flush(self) -> list[Tag]:
        """What is held: it is not complete, so it is no repetition. The group goes on."""
        held, self._held = self._held or [], None
        return held

    def reconnected(self) -> None:
        """What comes next does not follow what came last."""
        self._hashes, self._begun, self._held = [], None, None

    def _begin_group(self, tag: Tag, now: float) -> None:
        begun, self._begun = self._begun, (tag.timestamp, now)
        if begun is None or not any(key == hash(tag.body) for key, _ in self._known):
            return
        steady = now - begun[1] > (tag.timestamp - begun[0]) / 2000
        if not (steady and abs(tag.timestamp - self._last) <= SMOOTH_MS):
            self._held, self._held_size = [], 0

    def _end_group(self) -> list[Tag]:
        """The group is whole: give out what is held of it, or drop it."""
        hashes, self._hashes = self._hashes, []
        held, self._held = self._held, None
        if not hashes or self._begun is None:
            return held or []
        known = (hashes[0], hash(tuple(hashes)))
        if held is not None and known in self._known:
            self.dropped.append(self._last - self._begun[0])
            self._in_a_row += 1
            return [tag for tag in held if look_at(tag).role in (Role.SCRIPT, Role.HEADER, Role.END)]
        self._in_a_row = 0
        self._known.append(known)
        return held or []

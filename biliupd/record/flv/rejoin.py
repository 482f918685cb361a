"""Where the tags of a new connection go on from what is written already.

Pure. Runs in the recorder process. A server that is connected to anew sends what it still has first, which is often
what the last connection brought before it broke. The last tags written are looked for in it; once found, recording goes
on behind them, and nothing is missing or there twice. Also for a connection that is opened before the old one is left.
"""

from collections.abc import Sequence
from typing import NamedTuple

from biliupd.record.flv.tags import AUDIO, SCRIPT, START, VIDEO, Role, Tag, look_at

LONGEST_SEARCH_MS = 20_000
LARGEST_SEARCH = 8 << 20
LARGEST_WAIT = 32 << 20
LEAST_MATCH = 3
TELLING_BYTES = 32  # frames of silence are shorter, and all alike
LONGEST_MATCH = 10
SAME_CLOCK_MS = 60_000
TOLERANCE_MS = 50  # the times of what is written may have been repaired
NEXT_MS = 100  # after what is written: nothing is missing between


class Seam(NamedTuple):
    """How the new connection joins. `tags` come next; their times have to be moved by `shift` to go on.

    `seamless`: they follow what is written without a break. Else `missing_ms` by the clock of the stream when both
    connections have the same one, None when nobody knows.
    """

    tags: list[Tag]
    shift: int
    seamless: bool
    missing_ms: int | None


def _is_media(tag: Tag) -> bool:
    return tag.type in (AUDIO, VIDEO) and look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)


class Search:
    """Holds the tags of a new connection back until it is known how they join."""

    def __init__(self) -> None:
        self._tags: list[Tag] = []
        self._media: list[int] = []  # places of the media tags in `_tags`
        self._size = 0
        self._at: dict[tuple[int, int], int] = {}  # place of a media tag by its type and time

    @property
    def has_media(self) -> bool:
        """Whether the connection has brought any."""
        return bool(self._media)

    def feed(self, tags: Sequence[Tag]) -> None:
        """What the new connection brings, in order."""
        for tag in tags:
            if _is_media(tag):
                self._media.append(len(self._tags))
                self._at[tag.type, tag.timestamp] = len(self._tags)
            self._tags.append(tag)
            self._size += len(tag.body)

    def seam(self, tail: Sequence[Tag], *, from_keyframe: bool = False, final: bool = False) -> Seam | None:
        """The place behind `tail`, the last media tags written, with their times; None: not there yet, or not at all.

        `from_keyframe`: a new file begins, so go back to the last keyframe before that place. `final`: nothing more
        will come.
        """
        if not tail:
            return None
        if not from_keyframe and (seam := self._by_time(tail, final)):
            return seam
        last = tail[-1].body
        for number in range(len(self._media) - 1, -1, -1):
            place = self._media[number]
            tag = self._tags[place]
            if len(tag.body) == len(last) and tag.body == last and self._matches(number, tail):
                after = place + 1
                if from_keyframe:
                    if not any(look_at(t).role is Role.KEYFRAME for t in self._tags[after:]):
                        continue  # wait for the next one: maybe nothing has to be repeated
                    after = self._keyframe_before(place)
                headers = [t for t in self._tags[:after] if t.type == SCRIPT or look_at(t).role is Role.HEADER]
                shift = 0 if from_keyframe else tail[-1].timestamp - tag.timestamp
                return Seam([*headers, *self._tags[after:]], shift, True, 0)
        return None

    def _by_time(self, tail: Sequence[Tag], final: bool) -> Seam | None:
        """Both have the same clock, proven by a tag with the same time and content: cut behind the last time of each
        kind. What the old connection left out does not matter then."""
        for written in reversed(tail):
            place = self._at.get((written.type, written.timestamp))
            if place is None or len(written.body) <= TELLING_BYTES or self._tags[place].body != written.body:
                continue
            last = {kind: max(tag.timestamp for tag in tail if tag.type == kind) for kind in {t.type for t in tail}}
            newest = {kind: max((time for k, time in self._at if k == kind), default=-1) for kind in last}
            if not final and any(newest[kind] <= last[kind] for kind in last):
                return None  # more of what is written may follow
            kept = [tag for number, tag in enumerate(self._tags) if not _is_media(tag)
                    or (tag.timestamp > last[tag.type] if tag.type in last else number > place)]
            return Seam(kept, 0, True, 0)
        return None

    def _keyframe_before(self, place: int) -> int:
        """Where to begin so that nothing after `place` is lost: behind it when a keyframe is next, else before it."""
        rest = [number for number in self._media if number > place]
        if rest and look_at(self._tags[rest[0]]).role is Role.KEYFRAME:
            return place + 1
        return next((number for number in range(place, -1, -1) if look_at(self._tags[number]).role is Role.KEYFRAME), 0)

    def _matches(self, number: int, tail: Sequence[Tag]) -> bool:
        """Whether the media up to `number` end like `tail`: so many tags, at the same distances, that it is no chance.
        """
        telling = 0
        shift = tail[-1].timestamp - self._tags[self._media[number]].timestamp
        for matched, written in enumerate(reversed(tail), 1):
            if matched > number + 1:
                return False
            tag = self._tags[self._media[number + 1 - matched]]
            if tag.type != written.type or tag.body != written.body:
                return False
            if abs(written.timestamp - tag.timestamp - shift) > TOLERANCE_MS:
                return False
            telling += len(tag.body) > TELLING_BYTES
            if telling >= LEAST_MATCH or matched >= LONGEST_MATCH:
                return True
        return True

    def hopeless(self, tail: Sequence[Tag]) -> bool:
        """Whether `tail` will not come any more: other headers, a later clock, or long enough looked for."""
        if not tail or self._size > LARGEST_SEARCH or any(tag.type == START for tag in self._tags[1:]):
            return True
        if not self._media:
            return False
        first, newest = self._tags[self._media[0]].timestamp, self._tags[self._media[-1]].timestamp
        return newest - first > LONGEST_SEARCH_MS or self.is_later(tail)

    def is_later(self, tail: Sequence[Tag]) -> bool:
        """Both have the same clock, and the new connection begins after what is written."""
        if not tail or not self._media:
            return False
        first = min(self._tags[place].timestamp for place in self._media[:LEAST_MATCH])
        return 0 < first - tail[-1].timestamp <= SAME_CLOCK_MS

    def give_up(self, tail: Sequence[Tag]) -> Seam:
        """All it has brought, to be joined with a gap."""
        tags, self._tags = self._tags, []
        missing: int | None = None
        if tail and self._media:
            first = min(tags[place].timestamp for place in self._media[:LEAST_MATCH])
            if 0 < first - tail[-1].timestamp <= SAME_CLOCK_MS:
                missing = first - max(tag.timestamp for tag in tail)
        return Seam(tags, 0, missing is not None and missing <= NEXT_MS, missing)

    @property
    def full(self) -> bool:
        """Whether it holds more than anybody should wait for, while an old connection still delivers."""
        return self._size > LARGEST_WAIT

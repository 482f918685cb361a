"""The tags of a stream as it came → the tags of well-formed files.

Pure. Runs in the recorder process. Drops what no player can use, starts a new file where decoders need one, gives each
file a clock that starts at 0 and never steps back, splits at keyframes. Tags pass as they come; only the first second
of a file is held, to find where its clock starts. Numbers that are not settings are milliseconds and bytes.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from biliupd.record.flv.meta import OPENING_BYTES
from biliupd.record.flv.tags import AUDIO, START, VIDEO, Look, Role, Tag, look_at

JUMP = 500  # between groups: a larger step of the clock is closed and reported
JUMP_WITHOUT_HISTORY = 25_000
JUMP_INSIDE_GROUP = 25_000
STEP_BACK_INSIDE_GROUP = 500
LONGEST_GROUP = 30_000
LARGEST_GROUP = 64 << 20
MOST_TAGS_IN_GROUP = 8192
AUDIO_ONLY_AFTER = 3_000
AUDIO_ONLY_GROUP = 1_000
LARGEST_LEAD = 4 << 20
SHORTEST_FILE = 5_000  # before a split that is not needed
LONGEST_TAIL = 16
HOLD, MOST_HELD, LARGEST_HELD = 1_000, 256, 16 << 20
USUAL_SPACING = {VIDEO: 33, AUDIO: 22}
CREDIBLE_SPACING = {VIDEO: range(15, 51), AUDIO: range(20, 25)}
TAG_OVERHEAD = 15


class NewFile(NamedTuple):
    """End the open file, if any, and begin the next.

    Causes: '' (the first), codec-change, end-tag, limit-split, or what `split` was given.
    """

    cause: str


class Gap(NamedTuple):
    """Something is missing, or the clock jumped, at `media_ms` of the open file.

    `seconds` is None for a join after a reconnect: only the caller knows the wall clock. Causes: gap, jump (closed),
    hole (stays in the file as a pause), dropped-tags. `since`: the stream's own time (ms) up to which all was well.
    """

    cause: str
    seconds: float | None
    media_ms: int
    since: int = 0


Event = Tag | NewFile | Gap
_KEYFRAME, _MEDIA = Role.KEYFRAME, Role.MEDIA


class _Header(NamedTuple):
    identity: tuple[bytes, bytes]
    tag: Tag


@dataclass(slots=True)
class _Group:
    """From one keyframe to the next."""

    start: int
    tags: int = 0
    size: int = 0
    has_video: bool = False
    last: dict[int, int] = field(default_factory=dict)  # original time, per type
    highest: dict[int, int] = field(default_factory=dict)
    first_two: dict[int, list[int]] = field(default_factory=dict)  # output times


@dataclass(slots=True)
class _File:
    """The open file; `offset` is None while its first tags are held."""

    cause: str
    headers: dict[int, _Header]
    joined: bool  # the first of a new connection: wall time is missing before it
    offset: int | None = None
    held: list[tuple[Tag, int]] = field(default_factory=list)
    held_size: int = 0
    last_out: dict[int, int] = field(default_factory=dict)
    last_of: dict[int, int] = field(default_factory=dict)  # original time, per type
    last: int = 0  # original time of the last tag
    highest: int | None = None
    target: int = 0
    size: int = OPENING_BYTES
    biggest_group: int = 0
    longest_group: int = 0

    @property
    def end(self) -> int:
        return max(self.last_out.values(), default=0)


class Repair:
    """Feed it the tags of all connections of a recording, in order; it returns what is to be written.

    `split_size` in bytes and `split_seconds` of media; 0: never. `tail`: the last media tags given out, with the
    times they came with; the last one of each kind is among them.
    """

    def __init__(self, split_size: int = 0, split_seconds: float = 0) -> None:
        self._split_size, self._split_ms = split_size, split_seconds * 1000
        self._headers: dict[int, _Header] = {}
        self._file: _File | None = None
        self._next_cause = ""
        self._group: _Group | None = None
        self._need_keyframe = True
        self._ended = False
        self._news = False  # headers or an end have come since the last media
        self._begun = False
        self._lead: list[tuple[Tag, int]] = []
        self._lead_size = 0
        self._join = False
        self._near_zero = True  # a clock may begin slightly below 0
        self._steps: deque[int] = deque(maxlen=32)
        self._dropped: list[int] | None = None  # times; None: at the start of a connection it is no loss
        self._events: list[Event] = []
        self._split_cause = ""
        self._tail: deque[Tag] = deque(maxlen=LONGEST_TAIL)
        self._latest: dict[int, Tag] = {}

    @property
    def tail(self) -> list[Tag]:
        kinds = {tag.type for tag in self._tail}
        return [*(tag for kind, tag in self._latest.items() if kind not in kinds), *self._tail]

    def feed(self, tags: Iterable[Tag]) -> list[Event]:
        """Take tags as the parser gives them."""
        for tag in tags:
            if tag.type == START:
                self._reconnect()
                continue
            look = look_at(tag)
            role = look.role
            if role is _MEDIA or role is _KEYFRAME:
                self._media(tag, look)
            elif role is Role.HEADER:
                self._headers[tag.type] = _Header((look.codec, look.config), Tag(tag.type, 0, tag.body))
                self._news = True
            elif role is Role.END:
                self._ended = self._news = True
        return self._taken()

    def reconnected(self, *, split: str = "") -> list[Event]:
        """The next tags come from a new connection and do not follow the last ones; `split`: why in a new file."""
        self._reconnect()
        if split and self._file:
            self._end_file(split)
        return self._taken()

    def split(self, cause: str) -> None:
        """Begin a new file at the next keyframe, but not within the first seconds of one."""
        self._split_cause = cause

    def flush(self) -> list[Event]:
        """End of a connection or of everything: give out what is still held. More may follow."""
        self._settle()
        return self._taken()

    def _settle(self) -> None:
        if self._lead and (self._file or VIDEO not in self._headers):
            self._release_lead()
        self._lead, self._lead_size = [], 0
        if self._file:
            self._let_go(self._file)

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _reconnect(self) -> None:
        self._settle()
        self._need_keyframe = self._near_zero = True
        self._dropped = None
        self._join = self._begun

    def _media(self, tag: Tag, look: Look) -> None:
        if look.codec and tag.type not in self._headers:
            return  # no decoder can begin without the sequence header
        if self._news:
            self._news = False
            self._end_file_if_headers_changed()
        time = self._unwrapped(tag.timestamp) if self._near_zero else tag.timestamp
        if not self._need_keyframe:
            self._grouped(tag, time, look.role is _KEYFRAME)
        elif look.role is Role.KEYFRAME:
            self._need_keyframe = False
            if self._lead:
                self._release_lead(keyframe=True, limit=time)
                self._grouped(tag, time, keyframe=False)
            else:
                self._grouped(tag, time, keyframe=True)
            self._report_dropped()
        elif tag.type == VIDEO:
            if self._dropped is not None:
                self._dropped.append(time)
        else:
            self._audio_before_keyframe(tag, time)

    def _unwrapped(self, timestamp: int) -> int:
        if timestamp >= 0xFFFF0000:
            return timestamp - (1 << 32)
        self._near_zero = False
        return timestamp

    def _end_file_if_headers_changed(self) -> None:
        file = self._file
        ended, self._ended = self._ended, False
        if file is None:
            return
        if ended:
            self._end_file("end-tag")
            self._wait_for_keyframe()
            return
        changed = {kind for kind, header in self._headers.items()
                   if kind not in file.headers or file.headers[kind].identity != header.identity}
        if file.offset is None:  # nothing is written yet: a header that was missing may still come first
            for kind in [kind for kind in changed if kind not in file.headers]:
                file.headers[kind] = self._headers[kind]
                changed.discard(kind)
        if changed:
            self._end_file("codec-change")
            if VIDEO in changed and not self._need_keyframe:
                self._wait_for_keyframe()

    def _wait_for_keyframe(self) -> None:
        self._need_keyframe, self._dropped = True, []

    def _end_file(self, next_cause: str) -> None:
        if self._file:
            self._let_go(self._file)
        self._file, self._group, self._next_cause, self._split_cause = None, None, next_cause, ""

    def _audio_before_keyframe(self, tag: Tag, time: int) -> None:
        """Kept for the keyframe that follows; when none does, audio is all there is."""
        if self._group and not self._group.has_video and not self._join:
            self._grouped(tag, time, keyframe=False)
            return
        self._lead.append((tag, time))
        self._lead_size += len(tag.body)
        if abs(time - self._lead[0][1]) >= AUDIO_ONLY_AFTER or self._lead_size > LARGEST_LEAD:
            self._release_lead()

    def _release_lead(self, *, keyframe: bool = False, limit: int | None = None) -> None:
        lead, self._lead, self._lead_size = self._lead, [], 0
        earliest = min([time for _, time in lead] + ([] if limit is None else [limit]))
        for tag, time in lead:
            self._grouped(tag, time, keyframe=keyframe, start=earliest)
            keyframe = False

    def _report_dropped(self) -> None:
        times, self._dropped = self._dropped, None
        if times and self._file:
            self._let_go(self._file)
            self._events.append(Gap("dropped-tags", max(0, times[-1] - times[0]) / 1000, self._file.end))

    def _grouped(self, tag: Tag, time: int, keyframe: bool, start: int | None = None) -> None:
        group = self._group
        if group is None or keyframe or self._join or self._bounded(group, tag, time):
            group = self._begin_group(time if start is None else start, keyframe or self._need_keyframe)
        group.tags += 1
        group.size += len(tag.body) + TAG_OVERHEAD
        group.has_video = group.has_video or tag.type == VIDEO
        group.last[tag.type] = time
        time = group.highest[tag.type] = max(time, group.highest.get(tag.type, time))
        file = self._file
        assert file is not None
        if file.offset is not None:
            self._put(file, group, tag, time)
            return
        file.held.append((tag, time))
        file.held_size += len(tag.body)
        if time - file.held[0][1] >= HOLD or len(file.held) >= MOST_HELD or file.held_size > LARGEST_HELD:
            self._let_go(file)

    def _bounded(self, group: _Group, tag: Tag, time: int) -> bool:
        """True when `tag` cannot join the group."""
        if group.tags >= MOST_TAGS_IN_GROUP or group.size >= LARGEST_GROUP or time - group.start >= LONGEST_GROUP:
            return True
        if not group.has_video and tag.type == AUDIO and self._need_keyframe and time - group.start >= AUDIO_ONLY_GROUP:
            return True
        before = group.last.get(tag.type)
        if self._split_size and self._file and self._file.size >= 2 * self._split_size:
            return True
        return before is not None and not before - STEP_BACK_INSIDE_GROUP <= time < before + JUMP_INSIDE_GROUP

    def _begin_group(self, start: int, may_split: bool) -> _Group:
        if self._file:
            self._finish_group(self._file)
            if self._over_limit(self._file, may_split):
                self._end_file("limit-split")
            elif self._split_cause and may_split and self._file.target >= SHORTEST_FILE:
                self._end_file(self._split_cause)
        file, old = self._file, self._group
        group = self._group = _Group(start)
        if file is None:
            self._file = _File(self._next_cause, dict(self._headers), joined=self._join)
            self._next_cause, self._join, self._begun = "", False, True
        elif self._join:
            self._join = False
            self._events.append(Gap("gap", None, file.end))
            file.offset, file.highest = start - file.target, start
        elif old is not None:
            self._close_jump(file, start)
        return group

    def _finish_group(self, file: _File) -> None:
        self._let_go(file)
        group = self._group
        if group is None:
            return
        file.biggest_group = max(file.biggest_group, group.size)
        file.longest_group = max(file.longest_group, max(group.highest.values(), default=group.start) - group.start)
        ends = []
        for kind, last in file.last_out.items():
            outputs = group.first_two.get(kind, [])
            spacing = outputs[1] - outputs[0] if len(outputs) == 2 else 0
            ends.append(last + (spacing if spacing in CREDIBLE_SPACING[kind] else USUAL_SPACING[kind]))
        file.target = max(ends, default=0)

    def _over_limit(self, file: _File, may_split: bool) -> bool:
        if self._split_size and file.size >= 2 * self._split_size:
            return True
        if not may_split:
            return False
        if self._split_size and file.size + file.biggest_group >= self._split_size:
            return True
        return bool(self._split_ms) and file.target + file.longest_group > self._split_ms

    def _close_jump(self, file: _File, start: int) -> None:
        assert file.offset is not None
        steps = [start - file.last, *(start - last for last in file.last_of.values())]
        nearest = min(steps, key=abs)  # audio may run ahead of video: only a step of both is one of the clock
        if abs(nearest) <= self._largest_pause():
            return
        hole = start - file.offset - file.target
        file.offset, file.highest = start - file.target, start
        if hole:
            self._events.append(Gap("jump", hole / 1000, file.target, start - hole))

    def _largest_pause(self) -> float:
        return max(JUMP, 4 * median(self._steps)) if self._steps else JUMP_WITHOUT_HISTORY

    def _let_go(self, file: _File) -> None:
        """The clock of the file is known: write its headers and what was held."""
        if file.offset is not None or not file.held or self._group is None:
            return
        file.offset = min(time for _, time in file.held)
        self._events.append(NewFile(file.cause))
        if file.joined:
            self._events.append(Gap("gap", None, 0))
        for kind in (VIDEO, AUDIO):
            if kind in file.headers:
                self._events.append(file.headers[kind].tag)
                file.size += len(file.headers[kind].tag.body) + TAG_OVERHEAD
        held, file.held = file.held, []
        for tag, time in held:
            self._put(file, self._group, tag, time)

    def _put(self, file: _File, group: _Group, tag: Tag, time: int) -> None:
        assert file.offset is not None
        out = max(time - file.offset, file.last_out.get(tag.type, 0))
        if file.highest is not None and time > file.highest:
            step = time - file.highest
            if step > JUMP and step > self._largest_pause():
                self._events.append(Gap("hole", step / 1000, file.end, file.highest))
            self._steps.append(step)
        file.highest = time if file.highest is None else max(file.highest, time)
        file.last = file.last_of[tag.type] = time
        file.last_out[tag.type] = out
        file.size += len(tag.body) + TAG_OVERHEAD
        first_two = group.first_two.setdefault(tag.type, [])
        if len(first_two) < 2:
            first_two.append(out)
        given = self._latest[tag.type] = Tag(tag.type, time, tag.body)
        self._tail.append(given)
        self._events.append(Tag(tag.type, out, tag.body))

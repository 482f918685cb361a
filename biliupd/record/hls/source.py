"""Follow one HLS address: reload its playlist, fetch what is new, hand it on in order.

Runs on network threads of a recorder process: one as long as the stream keeps up, a few while several segments are due
or one is held up. They share what is below under one lock, and hand everything to the main thread through `inbox`.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from queue import Queue
from threading import Condition, Event, Thread

from biliupd.record import container
from biliupd.record.hls.fetch import Fetch
from biliupd.record.hls.following import Follow, Position, follow, resume
from biliupd.record.hls.items import End, Item, Joined, Missing, Over, Piece, Reset, Restricted, Sound, Task, Trouble
from biliupd.record.hls.reload import Reload
from biliupd.record.ledger import Cause
from biliupd.record.playlist import MediaPlaylist, Segment
from biliupd.record.spec import Spec
from biliupd.record.wire import Wire

log = logging.getLogger("recorder")

MOST_BYTES = 64 << 20  # fetched and not written yet
MOST_AHEAD = 16  # segments fetched beyond one that is held up
MOST_THREADS = 4
SEVERAL = 3  # more than so many due segments are fetched side by side
READ_SECONDS = 10.0
HELD_UP_SEGMENTS = 10  # so many later ones are there: a segment is given up …
HELD_UP_SECONDS = 5.0  # … or when the first of them has been there for so long
BAD_IN_A_ROW = 3  # more, and another address is tried
SHORTEST_RELOAD = 1.0
SECOND_LOOK = 0.5  # after EXT-X-ENDLIST was seen
OVERDUE_SECONDS = 1.0


class _Slot:
    """A place in the order: a segment to fetch, then what came of it."""

    __slots__ = ("item", "probe", "ready_at", "segment", "taken")

    def __init__(self, segment: Segment | None = None, item: Item | None = None, probe: bool = False) -> None:
        self.segment, self.item, self.probe = segment, item, probe
        self.taken = item is not None  # by a thread
        self.ready_at = 0.0


class Source:
    """One address as long as it works. The main thread takes from `inbox`, calls `look` now and then and `written`
    for what it has taken; at last an `Over`, `Restricted` or `Trouble` comes.
    """

    def __init__(self, spec: Spec, task: Task) -> None:
        self.inbox: Queue[Item] = Queue()
        self.task = task
        self._spec = spec
        self._last = task.position
        self._joining = task.position is not None
        self._away_seconds = task.away_seconds
        self._stale = 0
        self._new_at = time.monotonic()
        self._ended = False  # EXT-X-ENDLIST was seen
        self._sound = ""
        self._stop = Event()
        self._playlists = Reload(spec, task, self._stop)
        self._segments = Fetch(self._stop, patient=task.patient)
        self._state = Condition()  # guards all below
        self._slots: deque[_Slot] = deque()
        self._bytes = 0
        self._spare: list[bytearray] = []
        self._threads = 0
        self._leader = False  # a thread waits until the next reload is due
        self._reloading = False
        self._reload_at = 0.0

    def start(self) -> None:
        """Begin to reload and fetch."""
        with self._state:
            self._hire()

    def abandon(self) -> None:
        """Fetch no more; a thread that waits for a silent server ends by its own time-out."""
        self._stop.set()
        with self._state:
            self._state.notify_all()

    def written(self, body: container.Body) -> None:
        """A body out of `inbox` is not needed any more: its memory may hold the next one."""
        with self._state:
            full = self._bytes >= MOST_BYTES
            self._bytes -= len(body)
            if isinstance(body, bytearray):
                self._spare[:] = [body]
            if full:
                self._state.notify()

    def look(self) -> None:
        """Give up what is held up, and get help for threads that are."""
        now = time.monotonic()
        with self._state:
            if self._stop.is_set():
                return
            if self._slots:
                self._emit(now)
            if now > self._reload_at + OVERDUE_SECONDS and not self._reloading and not self._leader:
                self._hire()

    def _hire(self) -> None:
        if self._threads <= MOST_THREADS and not self._stop.is_set():
            self._threads += 1
            Thread(target=self._run, name="network", daemon=True).start()

    def _run(self) -> None:
        stream, spec = self.task.stream, self._spec
        wire = Wire(stream.url, stream.headers, spec.connect_timeout_seconds, min(READ_SECONDS, spec.stall_seconds),
                    self._spare)
        try:
            while job := self._job():
                job(wire)
        except End as end:
            self._end(end.item)
        except Exception:
            log.exception("a network thread failed")
            self._end(Trouble("an error of our own"))
        finally:
            wire.close()

    def _end(self, item: Item) -> None:
        with self._state:
            if not self._stop.is_set():
                self._stop.set()
                self.inbox.put(item)
            self._state.notify_all()

    def _job(self) -> Callable[[Wire], None] | None:
        """What this thread is to do next; None: it is not needed any more."""
        with self._state:
            while not self._stop.is_set():
                now = time.monotonic()
                if now >= self._reload_at and not self._reloading:
                    self._reloading = True
                    return self._reload
                if slot := self._due():
                    slot.taken = True
                    return lambda wire: self._fetch(wire, slot)
                if self._leader or self._reloading:
                    break
                self._leader = True
                self._state.wait(max(0.0, self._reload_at - now))
                self._leader = False
            self._threads -= 1
            return None

    def _due(self) -> _Slot | None:
        """The next segment to fetch, within bounds."""
        for place, slot in enumerate(self._slots):
            if not slot.taken:
                waited_for = place == 0 and any(later.item for later in self._slots)  # by what is fetched already
                return slot if waited_for or (self._bytes < MOST_BYTES and place < MOST_AHEAD) else None
        return None

    def _reload(self, wire: Wire) -> None:
        began = time.monotonic()
        since = self._last.sequence + 1 if self._last and not self._joining else 0
        playlist = self._playlists.read(wire, since, ended=self._ended)
        if playlist is None:
            return
        step = self._step(playlist)
        with self._state:
            self._enter(playlist, step, began)
            self._reloading = False
            self._emit(time.monotonic())
            due = sum(not slot.taken for slot in self._slots)
            if due > SEVERAL:
                for _ in range(min(MOST_THREADS, due) - self._threads):
                    self._hire()

    def _step(self, playlist: MediaPlaylist) -> Follow:
        """What of a reload is to be taken."""
        self._joining = self._joining or (self._playlists.moved and self._last is not None)
        if self._joining and self._last is not None and playlist.length:
            self._joining = self._playlists.moved = False
            return resume(playlist, self._last, self._away_seconds + time.monotonic() - self._new_at)
        step = follow(playlist, self._last, self._stale)
        self._stale = self._stale + 1 if step.kind == "stale" else 0
        return step

    def _enter(self, playlist: MediaPlaylist, step: Follow, began: float) -> None:
        """Queue what is new, and say when to look again. Called with the lock held."""
        now = time.monotonic()
        target = playlist.target_duration or 2.0
        if self._playlists.choice.audio != self._sound:
            self._sound = self._playlists.choice.audio
            self._slots.append(_Slot(item=Sound(self._sound)))
        if step.kind == "joined":
            self._slots.append(_Slot(item=Joined(step.missing_seconds, step.known)))
        elif step.kind == "reset":
            missing = step.missing_seconds
            if not step.known:  # only our own clock tells
                missing = max(0.0, now - self._new_at - sum(segment.duration for segment in step.segments))
            self._slots.append(_Slot(item=Reset(missing if missing > target else 0.0)))
        elif step.missing_seconds:
            self._slots.append(_Slot(item=Missing(Cause.SKIPPED_SEGMENT, step.missing_seconds)))
        for place, segment in enumerate(step.segments):
            if segment.key and not segment.key.usable:
                raise End(Restricted(f"restricted (encrypted with {segment.key.method[:30]}, "
                                     f"{segment.key.key_format[:60]})"))
            item = Missing(Cause.AD if segment.ad else Cause.GAP_TAG, segment.duration, segment)
            self._slots.append(_Slot(segment, item if segment.ad or segment.gap else None, place < step.probes))
        if step.segments or step.kind == "joined":
            self._last = Position.after((step.segments or playlist.segments)[-1])
        if step.segments:
            self._new_at, self._away_seconds = now, 0.0
            self._playlists.delivered()
            pause = min(target, playlist.window_seconds / 2)
        else:
            pause = target / 2
        shortest = min(SHORTEST_RELOAD, target)
        self._reload_at = began + max(shortest, pause)
        if playlist.ended and step.kind != "stale":
            if self._ended and not self._slots:
                raise End(Over())
            self._reload_at = now + (shortest if self._ended else min(SECOND_LOOK, shortest))
        self._ended = playlist.ended and step.kind != "stale"
        silent = now - self._new_at
        if silent > max(self._spec.stall_seconds, 3 * target) and not self._slots and not self._ended:
            raise End(Trouble(f"no new segment for {silent:.0f} s", Cause.STALL))

    def _fetch(self, wire: Wire, slot: _Slot) -> None:
        segment = slot.segment
        assert segment is not None
        found = self._segments.media(wire, segment, lambda: slot.item is not None)
        with self._state:
            if slot.item is not None or self._stop.is_set():  # given up meanwhile
                return
            if found is None:
                slot.item = Missing(Cause.SKIPPED_SEGMENT, segment.duration, segment)
            else:
                body, init = found
                slot.item = Piece(segment, body, container.suffix(body, segment), init, self._playlists.choice.label,
                                  slot.probe)
                self._bytes += len(body)
            slot.ready_at = time.monotonic()
            self._emit(slot.ready_at)

    def _emit(self, now: float) -> None:
        """Hand on what is there, in order; called with the lock held."""
        slots = self._slots
        while slots:
            head = slots[0]
            if head.item is None:
                later = [slot.ready_at for slot in slots if slot.ready_at]
                if not head.taken or not later or (
                        len(later) < HELD_UP_SEGMENTS and now - min(later) < HELD_UP_SECONDS):
                    return
                assert head.segment is not None
                log.warning("segment %d is held up, and given up", head.segment.sequence)
                head.item = Missing(Cause.SKIPPED_SEGMENT, head.segment.duration, head.segment)
            lost = isinstance(head.item, Missing) and head.item.cause is Cause.SKIPPED_SEGMENT
            if lost and self.task.others and self._hopeless():
                return
            slots.popleft()
            self.inbox.put(head.item)

    def _hopeless(self) -> bool:
        """Whether the missing segments at the head are better asked for elsewhere, or it is not known yet."""
        bad = 0
        for slot in self._slots:
            if isinstance(slot.item, Piece):
                return False
            bad += slot.item is not None and slot.segment is not None
        if bad > BAD_IN_A_ROW:
            self._stop.set()
            self.inbox.put(Trouble(f"{bad} segments in a row are not to be had", Cause.SERVER_DROP))
            return True
        return not self._ended or any(slot.item is None for slot in self._slots)

"""Say when a path has stopped changing (pure: events, looks and a clock in, settled paths out).

Runs on the watcher thread and touches nothing: how a path looks comes from the callables it is given. Events are only
hints that something may have changed; how a path looks at the beginning and at the end of its quiet time decides.
"""

import heapq
import os
from collections.abc import Callable, Container
from typing import NamedTuple

from biliupd.watch.listing import INIT_NAME, Entry, is_segment

MANY_ENTRIES = 16  #: a subject with more files than this is not looked at again for every event


class Settled(NamedTuple):
    """What became of a path."""

    path: str  #: the subject: a file, or a directory of segments
    entries: tuple[Entry, ...]  #: what is there; empty: it is gone, the file or the whole directory
    growing: bool  #: still changing, reported because `limit_seconds` have passed


def subject_of(path: str, roots: Container[str]) -> str:
    """What settles as one with this file: itself, or for a segment its directory unless that is a watched root."""
    directory = os.path.dirname(path)
    return directory if is_segment(path) and directory not in roots else path


class _Subject:
    __slots__ = ("before", "changed_at", "due_at", "many", "reported_at")

    def __init__(self, now: float) -> None:
        self.changed_at = now  # the beginning of its quiet time
        self.reported_at = now  # last word to the caller, or the first event
        self.due_at = now
        self.before: tuple[Entry, ...] | None = None  # how it looked when its quiet time began
        self.many = False


class Settler:
    """Paths that may be changing.

    Quiet for `quiet_seconds`: settled. Changing all the while: reported every `limit_seconds` as growing, so that a
    file somebody writes to for hours is known meanwhile. `look(subject)` gives its files, () when it is gone, None when
    one cannot tell at the moment; `is_open(files)` says that somebody still writes, whatever the files look like.
    Times are seconds of any clock that never steps back.
    """

    def __init__(
        self, quiet_seconds: float, limit_seconds: float, look: Callable[[str], tuple[Entry, ...] | None],
        is_open: Callable[[tuple[Entry, ...]], bool] = lambda entries: False,
    ) -> None:
        self.quiet_seconds = quiet_seconds
        self.limit_seconds = limit_seconds
        self._look = look
        self._is_open = is_open
        self._subjects: dict[str, _Subject] = {}
        self._due: list[tuple[float, str]] = []  # a heap; an item counts only while it agrees with its subject

    def __len__(self) -> int:
        return len(self._subjects)

    def note(self, subject: str, now: float) -> None:
        """Something may have changed: quiet begins anew."""
        state = self._subjects.get(subject)
        if state is None:
            state = self._subjects[subject] = _Subject(now)
            heapq.heappush(self._due, (now, subject))
            return
        state.changed_at = now
        if state.before is not None:
            state.before = None
            self._schedule(subject, state, now)

    def forget(self, belongs: Callable[[str], bool]) -> None:
        """Drop the subjects for which `belongs` holds."""
        self._subjects = {name: state for name, state in self._subjects.items() if not belongs(name)}

    def next_at(self) -> float | None:
        """When `turn` has something to do; None: nothing is waiting."""
        while self._due:
            due_at, subject = self._due[0]
            state = self._subjects.get(subject)
            if state is not None and state.due_at == due_at:
                return due_at
            heapq.heappop(self._due)
        return None

    def turn(self, now: float, at_most: int = 500) -> list[Settled]:
        """Look at what is due. Once `at_most` reports are together the rest waits for the next turn."""
        found: list[Settled] = []
        while len(found) < at_most and (due_at := self.next_at()) is not None and due_at <= now:
            subject = heapq.heappop(self._due)[1]
            report = self._step(subject, self._subjects[subject], now)
            if report is not None:
                found.append(report)
        return found

    def _schedule(self, subject: str, state: _Subject, at: float) -> None:
        state.due_at = at
        heapq.heappush(self._due, (at, subject))

    def _step(self, subject: str, state: _Subject, now: float) -> Settled | None:
        limit_at = state.reported_at + self.limit_seconds
        if state.before is None:
            # A directory with thousands of segments gets a new one every few seconds: listing it each time would cost
            # more than recording it, so it is left alone until half of its quiet time has passed without an event.
            first_look_at = state.changed_at + self.quiet_seconds / 2
            if state.many and now < first_look_at and now < limit_at:
                self._schedule(subject, state, min(first_look_at, limit_at))
                return None
            self._remember(state, self._look(subject), now)
        elif now >= state.changed_at + self.quiet_seconds:
            entries = self._look(subject)
            if entries is not None and _form(entries) == _form(state.before) and not self._is_open(entries):
                del self._subjects[subject]
                return Settled(subject, entries, growing=False)
            state.changed_at = now
            self._remember(state, entries, now)
        report = None
        if now >= limit_at:
            state.reported_at = now
            report = Settled(subject, state.before, growing=True) if state.before else None
        self._schedule(
            subject, state, min(state.changed_at + self.quiet_seconds, state.reported_at + self.limit_seconds))
        return report

    def _remember(self, state: _Subject, entries: tuple[Entry, ...] | None, now: float) -> None:
        state.before = entries
        if entries is None:
            state.changed_at = now
        else:
            state.many = len(entries) > MANY_ENTRIES


def _form(entries: tuple[Entry, ...]) -> list[tuple[str, int, int, int]]:
    """What must stay the same. Not the ctime: a hard link or a chmod is no change of content."""
    return [(entry.path, entry.size_bytes, entry.mtime_ns, entry.inode) for entry in entries]


def only_init(entries: tuple[Entry, ...]) -> bool:
    """Whether a directory holds no segment but a file that is merely called like an init section."""
    return bool(entries) and all(os.path.basename(entry.path) == INIT_NAME for entry in entries)

"""Say when a path has stopped changing (pure: events, looks and a clock in, settled paths out).

Runs on the watcher thread and touches nothing: how a path looks comes from the eyes it is given. Events are only hints
that something may have changed; how a path looks, and how old the file itself says it is, decides.
"""

import heapq
import os
from collections.abc import Callable, Container
from typing import NamedTuple, Protocol

from biliupd.watch.listing import INIT_NAME, Entry, is_segment

LONGEST_PAUSE_SECONDS = 60.0  #: between two looks at what rests but is not finished


class Settled(NamedTuple):
    """What became of a path."""

    path: str  #: the subject: a file, or a directory of segments
    entries: tuple[Entry, ...]  #: what is there; empty: it is gone, the file or the whole directory
    growing: bool  #: still changing, reported because `limit_seconds` have passed


def subject_of(path: str, roots: Container[str]) -> str:
    """What settles as one with this file: itself, or for a segment its directory unless that is a watched root."""
    directory = os.path.dirname(path)
    return directory if is_segment(path) and directory not in roots else path


class Wait(NamedTuple):
    """Why files at rest are not taken yet."""

    why: str
    patience_seconds: float  #: after so long they are taken nevertheless
    pause_seconds: float  #: the longest between two looks


class Eyes(Protocol):
    """How paths look. Each answer is of this moment."""

    def look(self, subject: str) -> tuple[Entry, ...] | None:
        """Its files, () when it is gone, None when one cannot tell at the moment."""

    def quiet_seconds(self, subject: str) -> float:
        """How long it must not change."""

    def age_seconds(self, entries: tuple[Entry, ...]) -> float | None:
        """How long ago the youngest changed by its own times; None when these do not tell."""

    def told(self, subject: str) -> bool:
        """Whether events tell of its changes."""

    def is_open(self, entries: tuple[Entry, ...]) -> bool:
        """Whether somebody still writes, whatever the files look like."""

    def unfinished(self, entries: tuple[Entry, ...]) -> Wait | None:
        """What files at rest wait for; None: nothing."""


class _Subject:
    __slots__ = (
        "before", "changed_at", "due_at", "not_before", "pause_seconds", "quiet_seconds", "reported_at", "timed")

    def __init__(self, now: float, age_seconds: float, quiet_seconds: float, timed: bool) -> None:
        self.quiet_seconds = quiet_seconds
        self.timed = timed  # its own times say when it changed
        self.changed_at = now - min(age_seconds, quiet_seconds)  # the beginning of its quiet time
        self.reported_at = now  # last word to the caller, or the first event
        self.due_at = now
        self.before: tuple[Entry, ...] | None = None  # how it looked when its quiet time began
        self.pause_seconds = 0.0  # it rests, but is not finished: looked at after this pause,
        self.not_before = 0.0  # that is, then


class Settler:
    """Paths that may be changing.

    Quiet long enough, with nobody who writes and nothing that is missing: settled. Changing all the while: reported
    every `limit_seconds` as growing, so that a file somebody writes to for hours is known meanwhile. `waits` says of
    paths at rest why they are not settled. Times are seconds of any clock that never steps back.

    A file whose own times tell when it last changed is looked at twice at most: in the middle of its quiet time, when
    most events about it have come, and at the end. Else the whole quiet time lies between two looks.
    """

    def __init__(self, limit_seconds: float, eyes: Eyes) -> None:
        self.limit_seconds = limit_seconds
        self.waits: dict[str, str] = {}
        self._eyes = eyes
        self._subjects: dict[str, _Subject] = {}
        self._due: list[tuple[float, str]] = []  # a heap; an item counts only while it agrees with its subject

    def __len__(self) -> int:
        return len(self._subjects)

    def __contains__(self, subject: str) -> bool:
        return subject in self._subjects

    def note(self, subject: str, now: float, *, timed: bool = False) -> None:
        """Something may have changed: quiet begins anew.

        `timed`: the subject is a file whose own times tell when. Then nothing begins anew before it is looked at, for
        the event may come long after the change.
        """
        state = self._subjects.get(subject)
        if state is None:
            self.find(subject, now, timed=timed)
            return
        if state.not_before > now:  # what it waits for may have come
            state.not_before = state.pause_seconds = 0.0
            self._schedule(subject, state, now)
        if state.timed and timed:
            return
        state.changed_at = now
        if state.before is not None:
            state.before = None
            self._schedule(subject, state, self._first_look_at(subject, state))

    def find(self, subject: str, now: float, age_seconds: float = 0.0, *, timed: bool = False) -> None:
        """It was found by a scan, last changed so long ago; nothing happens if it is known already."""
        if subject in self._subjects:
            return
        quiet_seconds = self._eyes.quiet_seconds(subject)
        state = self._subjects[subject] = _Subject(now, age_seconds, quiet_seconds, timed)
        self._schedule(subject, state, self._first_look_at(subject, state))

    def forget(self, belongs: Callable[[str], bool]) -> None:
        """Drop the subjects for which `belongs` holds."""
        self._subjects = {name: state for name, state in self._subjects.items() if not belongs(name)}
        self.waits = {name: why for name, why in self.waits.items() if name in self._subjects}

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
            state = self._subjects[subject]
            try:
                report = self._step(subject, state, now)
            except Exception:
                self._schedule(subject, state, now + state.quiet_seconds)  # whatever it was, it is looked at again
                raise
            if report is not None:
                found.append(report)
        return found

    def _schedule(self, subject: str, state: _Subject, at: float) -> None:
        state.due_at = at
        heapq.heappush(self._due, (at, subject))

    def _first_look_at(self, subject: str, state: _Subject) -> float:
        # Of what no event tells, the first look begins the quiet time. Else it may wait: one look for many events.
        return state.changed_at + (state.quiet_seconds / 2 if self._eyes.told(subject) else 0.0)

    def _step(self, subject: str, state: _Subject, now: float) -> Settled | None:
        limit_at = state.reported_at + self.limit_seconds
        if state.before is None and now < min(first_at := self._first_look_at(subject, state), limit_at):
            self._schedule(subject, state, min(first_at, limit_at))
            return None
        if state.before is None or now >= max(state.changed_at + state.quiet_seconds, state.not_before):
            entries = self._eyes.look(subject)
            if state.before is None or entries is None or _form(entries) != _form(state.before):
                self._begin(subject, state, entries, now)
            if entries is not None and now >= state.changed_at + state.quiet_seconds:
                settled = self._judge(subject, state, entries, now)
                if settled is not None:
                    return settled
        report = None
        if now >= limit_at:
            state.reported_at = now
            if state.before and any(entry.size_bytes for entry in state.before):
                report = Settled(subject, state.before, growing=True)
        quiet_at = max(state.changed_at + state.quiet_seconds, state.not_before)
        self._schedule(subject, state, min(quiet_at, state.reported_at + self.limit_seconds))
        return report

    def _begin(self, subject: str, state: _Subject, entries: tuple[Entry, ...] | None, now: float) -> None:
        """Remember how it looks: what is the beginning of its quiet time?"""
        age_seconds = self._eyes.age_seconds(entries) if entries else None
        state.timed = age_seconds is not None
        if age_seconds is not None:
            state.changed_at = now - min(age_seconds, state.quiet_seconds)
        elif entries is None or state.before is not None:
            state.changed_at = now
        state.before = entries
        state.pause_seconds = state.not_before = 0.0
        self.waits.pop(subject, None)

    def _judge(self, subject: str, state: _Subject, entries: tuple[Entry, ...], now: float) -> Settled | None:
        """It rests: has it settled? If not, say why, and when to look again."""
        if self._eyes.is_open(entries):
            self.waits[subject] = "somebody has it open for writing"
            state.not_before = now + state.quiet_seconds
            return None
        wait = self._eyes.unfinished(entries)
        if wait is None or now >= state.changed_at + wait.patience_seconds:
            del self._subjects[subject]
            self.waits.pop(subject, None)
            return Settled(subject, entries, growing=False)
        self.waits[subject] = wait.why
        state.pause_seconds = max(state.quiet_seconds, min(2 * state.pause_seconds, wait.pause_seconds))
        state.not_before = min(now + state.pause_seconds, state.changed_at + wait.patience_seconds)
        return None


def _form(entries: tuple[Entry, ...]) -> list[tuple[str, int, int, int]]:
    """What must stay the same. Not the ctime: a hard link or a chmod is no change of content."""
    return [(entry.path, entry.size_bytes, entry.mtime_ns, entry.inode) for entry in entries]


def only_init(entries: tuple[Entry, ...]) -> bool:
    """Whether a directory holds no segment but a file that is merely called like an init section."""
    return bool(entries) and all(entry.path.endswith("/" + INIT_NAME) for entry in entries)

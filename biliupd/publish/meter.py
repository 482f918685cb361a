"""How far one upload has come: parts acknowledged, bytes under way, bytes in vain.

Shared by the threads of one upload, written by those that send and read by the one that waits. Touches nothing else.
"""

import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace

from biliupd.errors import PermanentError
from biliupd.publish.session import Session

LEAST_RESENT_BYTES = 256 << 20  #: in vain may be this much at least, or as much as the file has
RATE_SECONDS = 10.0
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Progress:
    """Where an upload stands; `sent_bytes` never goes back.

    `bytes_per_second` is that of the last ten seconds or so, without what was there already when it went on;
    `eta_seconds` is None while nothing moves.
    """

    sent_bytes: int
    total_bytes: int
    bytes_per_second: float
    eta_seconds: float | None
    line: str


class Meter:
    """The state of one upload. `resent_bytes` is what former tries for the same file sent in vain."""

    def __init__(self, name: str, size_bytes: int, resent_bytes: int = 0) -> None:
        self._name, self.size_bytes = name, size_bytes
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._aside: Session | None = None
        self._done: set[int] = set()
        self._flying: dict[int, int] = {}
        self._resent_bytes = resent_bytes
        self._frozen = False
        self.too_much: PermanentError | None = None  #: set once too much was sent in vain, whoever else failed first
        self._version = 0
        self._era = 0

    def begin(self, session: Session) -> None:
        """From now on this ticket counts, with the parts that it has already."""
        with self._lock:
            self._session, self._done = session, set(session.done)
            self._flying.clear()
            self._era += 1
            self._version += bool(session.upload_id)

    def change(self, **facts: object) -> None:
        """Replace fields of the session that are neither `done` nor `resent_bytes`."""
        with self._lock:
            assert self._session
            self._session = replace(self._session, **facts)  # type: ignore[arg-type]
            self._version += 1

    def fly(self, number: int, count: int) -> None:
        """`count` bytes of a part have been handed to the network."""
        self._flying[number] = count

    def land(self, number: int) -> None:
        """A part was acknowledged. Raises PermanentError when what was set aside for it is too much."""
        with self._lock:
            self._flying.pop(number, None)
            self._done.add(number)
            self._version += 1
            if self._aside:
                lost, self._aside = self._aside, None
                self._waste(_landed(lost, lost.done))

    def drop(self, number: int) -> None:
        """A try of a part failed. Raises PermanentError when too much was sent in vain."""
        with self._lock:
            self._waste(self._flying.pop(number, 0))

    def abandon(self) -> None:
        """The ticket is given up, and with it all that was sent. Raises PermanentError when that is too much."""
        with self._lock:
            if self._session:
                lost = _landed(self._session, self._done)
                self._session, self._done = self._session.ended(0), set()
                self._version += 1
                self._waste(lost)

    def set_aside(self) -> None:
        """Another ticket is tried, but this one is given up only when the other has its first part: perhaps it is the
        network that does not serve, and then the parts are good for the next time."""
        with self._lock:
            if self._session:
                if self._done:
                    self._aside = replace(self._session, done=frozenset(self._done))
                self._session, self._done = self._session.ended(0), set()

    def freeze(self) -> None:
        """Whoever waits wants it to end: what is cut off from now on has not failed."""
        with self._lock:
            self._frozen = True

    def _waste(self, count: int) -> None:
        if self.too_much:
            raise self.too_much
        if not count or self._frozen:
            return
        self._resent_bytes += count
        self._version += 1
        allowed, resent = max(self.size_bytes, LEAST_RESENT_BYTES), self._resent_bytes
        if resent > allowed:
            self._resent_bytes = 0  # when a person has it tried again, the count begins anew
            self.too_much = PermanentError(
                f"{self._name}: {_mib(resent)} were sent in vain, more than the {_mib(allowed)} allowed for a file of "
                f"{_mib(self.size_bytes)}", hint="look at the network and the upload line, then `biliupd retry`")
            raise self.too_much

    @property
    def current(self) -> Session | None:
        """The session that is worked on; None before the first one."""
        with self._lock:
            return self._session and replace(self._session, done=frozenset(self._done))

    @property
    def session(self) -> Session:
        """The same where there is one."""
        found = self.current
        assert found
        return found

    def told(self) -> tuple[int, Session | None]:
        """A number that grows with each change worth remembering, and the session to remember."""
        with self._lock:
            if self._aside:
                return self._version, replace(self._aside, resent_bytes=self._resent_bytes)
            if not self._session:
                return self._version, None
            return self._version, replace(self._session, done=frozenset(self._done), resent_bytes=self._resent_bytes)

    def version(self) -> int:
        return self._version

    def moved(self) -> tuple[int, int, str]:
        """Which ticket it is, counted from 1; bytes at UPOS or on their way there; the name of the line."""
        with self._lock:
            if not self._session:
                return 0, 0, ""
            moved = _landed(self._session, self._done) + sum(list(self._flying.values()))
            return self._era, min(moved, self.size_bytes), self._session.line


def _landed(session: Session, done: Collection[int]) -> int:
    landed = len(done) * session.chunk_size
    return landed - (session.chunk_size - session.size_of(session.count) if session.count in done else 0)


class Rate:
    """Progress out of what the meter shows from time to time; used by one thread."""

    def __init__(self, meter: Meter) -> None:
        self._meter, self._total_bytes = meter, meter.size_bytes
        self._samples: deque[tuple[float, int]] = deque()
        self._era = self._highest = 0

    def progress(self) -> Progress | None:
        """How it stands now; None before there is a ticket."""
        era, moved, line = self._meter.moved()
        if not era:
            return None
        now = time.monotonic()
        if era != self._era:
            self._era = era
            self._samples.clear()
        samples = self._samples
        if not samples or now - samples[-1][0] >= SAMPLE_SECONDS:
            samples.append((now, moved))
        while len(samples) > 2 and now - samples[1][0] >= RATE_SECONDS:
            samples.popleft()
        seconds = now - samples[0][0]
        speed = max(0.0, (moved - samples[0][1]) / seconds) if seconds >= SAMPLE_SECONDS / 2 else 0.0
        self._highest = max(self._highest, moved)
        eta = (self._total_bytes - moved) / speed if speed else None
        return Progress(self._highest, self._total_bytes, speed, eta, line)


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"

"""What has to be remembered of an upload so that it can go on after a restart, a crash or a cut.

Pure values and their text: nothing here touches a file or the network. The text holds the ticket, which lets its
holder write this one object for five days; keep it where only the daemon's user can read it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from biliupd.publish.wire import is_host

TICKET_SECONDS = 5 * 24 * 3600.0
SLACK_SECONDS = 3600.0  #: a ticket that old, less this, is not begun with again
MOST_PARTS = 100_000  #: far more than UPOS takes
LARGEST_CHUNK_BYTES = 1 << 30
VERSION = 1


@dataclass(frozen=True)
class Session:
    """An upload under way: the ticket of § preupload, the file it is for, and how far it has come.

    `endpoints` are //host[:port], the one in use first; `began_at` is the moment of the ticket in Unix seconds; `done`
    are the part numbers (from 1) that UPOS acknowledged; `resent_bytes` is what was sent for this file in vain so far.
    Without `upload_id` there is nothing to go on with, only that count.
    """

    line: str
    line_query: str
    endpoints: tuple[str, ...]
    path: str
    filename: str
    cid: int
    chunk_size: int
    threads: int
    retry_seconds: float
    auth: str = field(repr=False)
    profile: str
    upload_id: str
    began_at: float
    size_bytes: int
    mtime_ns: int
    inode: int
    mid: int = 0  #: the account the ticket was given to
    done: frozenset[int] = frozenset()
    resent_bytes: int = 0
    completes_failed: int = 0  #: how many times everything was there and "complete" got no answer

    @property
    def count(self) -> int:
        """How many parts the file has."""
        return -(-self.size_bytes // self.chunk_size)

    def size_of(self, number: int) -> int:
        return min(self.chunk_size, self.size_bytes - (number - 1) * self.chunk_size)

    def is_of(self, size_bytes: int, mtime_ns: int, inode: int) -> bool:
        """Whether it is for a file that looks like this, so that its content is the one the parts were read from."""
        return (self.size_bytes, self.mtime_ns, self.inode) == (size_bytes, mtime_ns, inode)

    def can_go_on(self, mid: int, now: float) -> bool:
        """Whether the account may still use the ticket at `now` (Unix seconds)."""
        return bool(self.upload_id) and self.mid == mid and now - self.began_at < TICKET_SECONDS - SLACK_SECONDS

    def ended(self, resent_bytes: int) -> "Session":
        """What is left when the ticket is worth nothing any more: the count of bytes."""
        return replace(self, upload_id="", auth="", done=frozenset(), completes_failed=0, resent_bytes=resent_bytes)

    def dumps(self) -> str:
        """One line of JSON; a hundred thousand parts in a row take no more room than one."""
        return json.dumps({"version": VERSION, **asdict(self), "endpoints": list(self.endpoints),
                           "done": _to_ranges(self.done)}, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> "Session | None":
        """The session of `dumps`; None for anything else, which means: start afresh."""
        try:
            content = json.loads(text)
            if content.pop("version") != VERSION:
                return None
            session = cls(**{**content, "endpoints": tuple(content["endpoints"]),
                             "done": _from_ranges(content["done"])})
            return session if _is_sound(session) else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _is_sound(session: Session) -> bool:
    texts: tuple[Any, ...] = (session.line, session.line_query, session.path, session.filename, session.auth,
                              session.profile, session.upload_id, *session.endpoints)
    counts = (session.cid, session.chunk_size, session.threads, session.size_bytes, session.mtime_ns, session.inode,
              session.mid, session.resent_bytes, session.completes_failed)
    return (
        all(isinstance(text, str) and text.isprintable() for text in texts) and session.auth.isascii()
        and all(type(count) is int for count in counts) and session.path.startswith("/")
        and all(isinstance(number, int | float) for number in (session.retry_seconds, session.began_at))
        and bool(session.endpoints) and all(is_host(host) for host in session.endpoints)
        and 0 < session.chunk_size <= LARGEST_CHUNK_BYTES and session.size_bytes > 0 and session.resent_bytes >= 0
        and session.count <= MOST_PARTS and session.threads >= 1 and 0 <= session.retry_seconds <= 60
        and all(1 <= number <= session.count for number in session.done)
    )


def _to_ranges(numbers: Iterable[int]) -> str:
    """{1, 2, 3, 7} → 1-3,7"""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def _from_ranges(text: str) -> frozenset[int]:
    numbers: set[int] = set()
    for piece in text.split(",") if text != "" else ():
        first, _, last = piece.partition("-")
        if int(last or first) > MOST_PARTS:
            raise ValueError("more parts than there can be")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)

"""What the crew is told of a streamer who is live, and what it tells of its recorders. Plain values, any thread."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from biliupd.record.broadcast import Figures
from biliupd.record.spec import Stream

LONGEST_TITLE_BYTES = 120
_UNSAFE = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_"))


@dataclass(frozen=True)
class Show:
    """A streamer that is live now. `streams` are ways to its media, the best first."""

    streamer: str
    platform: str
    url: str
    title: str
    cover_url: str
    live_id: str
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class Started:
    """A recorder began to run."""

    task_id: str
    broadcast_id: str
    streamer: str
    pid: int
    directory: Path
    at: datetime


@dataclass(frozen=True)
class Ended:
    """A recorder ended, or (`over`) its broadcast did, which may be told in one or in two calls.

    `reason` is that of the recorder (over, needs_url, stopped, no_space, orphaned, unsupported, crashed), or waited:
    another streamer was given its place.
    """

    task_id: str
    broadcast_id: str
    streamer: str
    at: datetime
    reason: str
    over: bool


@dataclass(frozen=True)
class Running:
    """A recorder that runs now. `pid` is 0 until an adopted one has told it."""

    streamer: str
    task_id: str
    broadcast_id: str
    directory: Path
    pid: int
    started_at: str
    figures: Figures


def safe_title(title: str) -> str:
    """A title as part of a folder's name: at most 120 bytes, no separator, nothing a NAS would refuse."""
    text = "".join(c for c in title.translate(_UNSAFE) if c.isprintable())
    text = text.encode(errors="ignore")[:LONGEST_TITLE_BYTES].decode(errors="ignore")
    return " ".join(text.split()).strip(". ")

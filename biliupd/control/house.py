"""What the API wants of the rest of the house, as one interface that `daemon` fills. Control knows only the catalog.

Every method may be called from any thread and returns at once, unless it says that it waits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from biliupd.control.models import (
    Disk,
    Figures,
    LogLine,
    Mode,
    NewStreamer,
    Preview,
    QrCode,
    Settings,
    StreamerChange,
    Sync,
    Waiting,
    Watcher,
)


class Running(NamedTuple):
    """A recorder that runs now."""

    task_id: str
    streamer: str
    broadcast_id: str
    pid: int
    figures: Figures


class Look(NamedTuple):
    """What the last look at a room told. `number` counts them, so that a later one can be told from an earlier."""

    number: int
    status: str
    reason: str


class House(Protocol):
    """The daemon, as control sees it. What cannot be done is a `Refusal` or another of our errors."""

    version: str
    started_at: str
    harmless: frozenset[str]  #: causes of rows in a ledger for which nothing is missing; what is not known is a loss

    def trouble(self) -> list[str]:
        """What does not work right now; empty: all does."""

    def running(self) -> list[Running]:
        """The recorders that run now."""

    def waiting(self) -> list[Waiting]:
        """Who is live and waits for a place."""

    def recording_file(self, task_id: str) -> Path | None:
        """What the recorder of a task writes now: a file, or the playlist of its segments; None: nothing (yet)."""

    def disk(self) -> Disk | None:
        """How much is free where recordings go; None when that cannot be told."""

    # streamers

    def origin(self, streamer: str) -> str:
        """File and line of a streamer of the YAML; empty for another."""

    def make_streamer(self, wanted: NewStreamer) -> int:
        """Add one, in force at once → its id. Refusal 409: the name is taken; 422: nobody answers its address."""

    def change_streamer(self, id: int, change: StreamerChange) -> None:
        """Only what was given changes. Refusal 404, 409 (of the YAML, naming file and line), 422."""

    def remove_streamer(self, id: int) -> None:
        """Its recording ends properly, its videos stay. Refusal 404, 409."""

    def set_mode(self, id: int, mode: Mode) -> None:
        """on: have it looked at now; skipped, paused: its recording ends properly. Refusal 404."""

    def look(self, streamer: str) -> Look:
        """What the site said last of a room."""

    # the library and publishing

    def mp4(self, path: Path, from_seconds: float) -> Iterator[bytes]:
        """Any recording as fragmented MP4 that a browser plays, from about there on; closing the iterator ends it.

        Waits. Refusal 409 when it cannot be played, 503 when too many are being played.
        """

    def glimpse(self, path: Path) -> bytes:
        """The newest keyframe of a recording that grows, as a small JPEG. Waits, 10 s at most.

        PermanentError when there is none in it (yet).
        """

    def preview(self, what: str) -> list[Preview]:
        """What would be sent for a broadcast's id or a path. Waits. PermanentError when there is nothing to send."""

    def accounts(self) -> list[str]:
        """Names of the accounts of the configuration, in its order."""

    def retry_account(self, name: str) -> None:
        """A person says that an account may be used again. Refusal 404."""

    def qr_code(self, account: str) -> QrCode:
        """A code to log in with: the one that is open for this account, or a new one. Waits for Bilibili."""

    def poll_qr_code(self, id: str) -> QrCode:
        """How it stands; once confirmed, the login is in the account's file. Waits for Bilibili. Refusal 404."""

    # the watcher, the settings, the log

    def watcher(self) -> Watcher:
        """What it is doing."""

    def suspend_watcher(self) -> None: ...

    def resume_watcher(self) -> None: ...

    def sync(self, wanted: Sync) -> None:
        """Look through all watched directories soon."""

    def roots(self) -> list[Path]:
        """The watched directories: files are served from nowhere else."""

    def settings(self) -> Settings:
        """The configuration in force, each value with where it came from."""

    def log_lines(self, after: int) -> list[LogLine]:
        """The lines after that number that are still remembered (the last 2,000), oldest first."""

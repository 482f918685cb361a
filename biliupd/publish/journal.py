"""What has to be remembered of a publication by hand, so that a second run goes on where the first one stopped.

Used by `publish.once`, on its caller's thread. Writes one small file for each publication below the directory it is
given, whole or not at all, and reads nothing else. A file holds upload tickets: only its owner may read it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from biliupd.errors import PermanentError, TemporaryError
from biliupd.publish import private_file

FINISHED_SECONDS = 30 * 24 * 3600.0  #: what is done is remembered this long
LARGEST_BYTES = 64 << 20
Moment = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]  #: Unix seconds that a date can be


class UnderWay(TemporaryError):
    """Another process works on the same publication at this moment."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Look(_Table):
    """How a file looked: as long as it does so, its content is taken to be the same."""

    size_bytes: int
    mtime_ns: int
    inode: int


class FileEntry(_Table):
    """One file: its session while it is under way, UPOS's name and cid when it is there."""

    look: Look
    session: str = ""
    filename: str = ""
    cid: int = 0


class CoverEntry(_Table):
    """A picture that is at Bilibili already; no `look` for one that came from an address."""

    source: str
    look: Look | None
    url: str


class Intent(_Table):
    """A submit or an edit that was sent, or was about to be; moments in Unix seconds.

    `missed_at`: when it was looked for in vain first, 0 if it was not. `tries`: how often it was sent. `refused`: what
    Bilibili said, when the last one was refused because of an earlier one. `body`: what was submitted.
    """

    title: str
    filenames: Annotated[list[str], Field(min_length=1)]
    began_at: Moment
    body: dict[str, Any] = {}
    tries: PositiveInt = 1
    missed_at: Moment = 0.0
    refused: str = ""


class Outcome(_Table):
    """It is published."""

    aid: int
    bvid: str
    at: Moment


class Content(_Table):
    """The whole file."""

    version: int = 1
    mid: int
    verb: str
    vid: str
    paths: list[str]
    files: dict[str, FileEntry] = {}
    cover: CoverEntry | None = None
    intent: Intent | None = None
    outcome: Outcome | None = None


def state_directory() -> Path:
    """Where biliupd keeps what the commands remember: below XDG_STATE_HOME, else ~/.local/state.

    Raises PermanentError where there is neither.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise PermanentError("there is no home directory to remember in what was published",
                             hint="set XDG_STATE_HOME to a directory that you may write to") from error
    return base / "biliupd"


class Journal:
    """The memory of one publication: the account, new or appended to `vid`, the absolute paths in order.

    A context manager: entering takes the lock, leaving gives it back. Without a directory nothing is written and
    nothing outlives the object. Entering raises UnderWay while another process has the lock, PermanentError when the
    directory or the file cannot be used.
    """

    def __init__(self, directory: Path | None, *, mid: int, verb: str, vid: str, paths: Sequence[str]) -> None:
        self._directory = directory
        self._new = Content(mid=mid, verb=verb, vid=vid, paths=list(paths))
        key = json.dumps([mid, verb, vid, list(paths)])
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self.path = directory / f"{name}.json" if directory else None
        self.content = self._new.model_copy(deep=True)
        self._lock: int | None = None
        self._warned = False

    def __enter__(self) -> "Journal":
        if self._directory and self.path:
            try:
                _make(self._directory)
                self._lock = _take(self.path.with_suffix(".lock"))
            except BlockingIOError:
                raise UnderWay("the same files are being published by another biliupd at this moment",
                               hint="wait until it is done; a later run then says what became of it") from None
            except OSError as error:
                raise PermanentError(f"{self._directory} cannot be used: {error.strerror}",
                                     hint="set XDG_STATE_HOME to a directory that you may write to") from error
            try:
                forget_finished(self._directory, time.time())
                self.content = _read(self.path) or self.content
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin_anew(self) -> None:
        """Forget everything, in memory; the next `save` makes it so on the disk."""
        self.content = self._new.model_copy(deep=True)

    def save(self) -> None:
        """Write it down for good. Raises TemporaryError when that is not possible."""
        if not self.path:
            return
        try:
            private_file.replace(self.path, _dumped(self.content))
        except OSError as error:
            raise TemporaryError(f"{self.path} cannot be written: {error.strerror}",
                                 hint="without it nobody would know later what was published") from error

    def keep(self) -> None:
        """The same for what a second run can do without: a failure is a warning."""
        try:
            self.save()
        except TemporaryError as error:
            if not self._warned:
                logger.warning("{}; a second run may send again what is sent now", error)
            self._warned = True


def submitted_body(directory: Path | None, bvid: str) -> dict[str, Any]:
    """What was submitted as `bvid` from this machine, if that is remembered; else nothing."""
    for path in _journals(directory) if directory else ():
        with contextlib.suppress(PermanentError):
            content = _read(path)
            if content and content.outcome and content.intent and content.outcome.bvid == bvid and content.intent.body:
                return content.intent.body
    return {}


def sent_since(directory: Path | None, bvid: str, moment: float) -> frozenset[str]:
    """UPOS's names of the files that this machine put into a submission after that moment (Unix seconds)."""
    found: set[str] = set()
    for path in _journals(directory) if directory else ():
        with contextlib.suppress(PermanentError):
            content = _read(path)
            if content and content.outcome and content.outcome.bvid == bvid and content.outcome.at > moment:
                found.update(entry.filename for entry in content.files.values() if entry.filename)
    return frozenset(found)


def forget_finished(directory: Path, now: float) -> None:
    """Remove what was finished a month before `now` (Unix seconds), unless somebody is at it."""
    for path in _journals(directory):
        with contextlib.suppress(OSError, PermanentError):
            if now - path.stat().st_mtime < FINISHED_SECONDS:
                continue
            lock = _take(path.with_suffix(".lock"))
            try:
                content = _read(path)
                if content and content.outcome and now - content.outcome.at >= FINISHED_SECONDS:
                    path.unlink()
                    path.with_suffix(".lock").unlink()
            finally:
                os.close(lock)


def _journals(directory: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path for path in sorted(directory.iterdir()) if re.fullmatch(r"[0-9a-f]{32}\.json", path.name))


def _dumped(content: Content) -> bytes:
    """ASCII: a path that is no UTF-8 survives as half a pair of surrogates."""
    return json.dumps(content.model_dump(), indent=1).encode()


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if directory.stat().st_mode & 0o077:
        directory.chmod(0o700)


def _take(path: Path) -> int:
    """The descriptor that holds the lock. Raises BlockingIOError when somebody else does, OSError for the rest."""
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = os.fstat(held)
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(path)
                if (there.st_dev, there.st_ino) == (known.st_dev, known.st_ino):
                    return held
        except BaseException:
            os.close(held)
            raise
        os.close(held)  # it was removed between our opening it and our locking it


def _read(path: Path) -> Content | None:
    """The content; None when there is no such file. Raises PermanentError for one that cannot be understood: it may
    know of a submission that nobody else knows of."""
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
        content = Content.model_validate(json.loads(raw))
        if content.version != 1:
            raise ValueError("written by a newer biliupd")
        return content
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PermanentError(f"{path}: {error.strerror}") from error
    except (ValidationError, ValueError, RecursionError) as error:
        raise PermanentError(
            f"{path} cannot be understood",
            hint="look at the account's submissions for these files, then remove it") from error

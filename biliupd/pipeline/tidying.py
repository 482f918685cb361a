"""What becomes of files that Bilibili shows: kept, deleted or moved, and how many of them stay.

One worker of the pipeline. The only code that removes what was recorded or dropped, and it removes a file only when its
video is published, nobody pinned it, and it still is what was uploaded.
"""

import contextlib
import errno
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loguru import logger

from biliupd.catalog import records, videos
from biliupd.catalog.database import stamp
from biliupd.catalog.videos import Video
from biliupd.config import RetentionConfig
from biliupd.pipeline.desk import Desk

LOOK_SECONDS = 60.0


class Tidying:
    """Looks once a minute."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._look_at = 0.0
        self._settings: RetentionConfig | None = None
        self._refused: dict[int, str] = {}

    def hurry(self) -> None:
        """The disk fills up: what may go goes with the next turn. Any thread."""
        self._look_at = 0.0

    def turn(self) -> bool:
        """Every published file as the settings want it; False: there is nothing more to do for now."""
        settings = self._desk.config.retention
        if settings == self._settings and time.monotonic() < self._look_at:
            return False
        self._settings, self._look_at = settings, time.monotonic() + LOOK_SECONDS
        if settings == RetentionConfig():  # everything stays: no need to look at a large library each minute
            records.notice(self._desk.db, "retention", "")
            return False
        found = (video for video in videos.published(self._desk.db) if not video["pinned"])
        there = [video for video in found if os.path.lexists(video["file_path"])]  # the rest may come back
        self._refused = {video["id"]: self._refused[video["id"]] for video in there if video["id"] in self._refused}
        if settings.after_publishing == "move" and settings.move_to:
            for video in there:
                self._move(video, settings.move_to)
        else:
            for video in surplus(there, settings, datetime.now(UTC)):
                self._delete(video)
        trouble = "; ".join(list(self._refused.values())[:3])
        records.notice(self._desk.db, "retention", trouble)
        return False

    def _delete(self, video: Video) -> None:
        path = Path(video["file_path"])
        if not self._is_what_was_uploaded(video, path):
            return
        try:
            path.unlink()
        except OSError as error:
            self._refuse(video, f"{path} cannot be deleted: {error.strerror}")
            return
        self._done(video, None)
        logger.bind(video=video["id"]).info("deleted, {} is published: {}", video["bvid"], path)

    def _move(self, video: Video, target: Path) -> None:
        path = Path(video["file_path"])
        goal = target / video["path"]
        if not self._is_what_was_uploaded(video, path):
            return
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(goal) and not _is_copy(goal, path):  # a copy: a move that was interrupted
                goal = goal.with_stem(f"{goal.stem} {video['bvid']}-{video['id']}")
            _bring(path, goal)
        except OSError as error:
            self._refuse(video, f"{path} cannot be moved to {goal}: {error.strerror or error}")
            return
        self._done(video, str(goal))
        logger.bind(video=video["id"]).info("moved, {} is published: {}", video["bvid"], goal)

    def _is_what_was_uploaded(self, video: Video, path: Path) -> bool:
        """A file that changed since holds something that nobody has; one may also be pinned while others are moved."""
        now = videos.get(self._desk.db, video["id"])
        if now is None or now["pinned"] or now["file_path"] != video["file_path"]:
            return False
        try:
            status = os.lstat(path)
        except OSError as error:
            self._refuse(video, f"{path}: {error.strerror}")
            return False
        if video["source_size"] is None:  # an older biliupd did not write down what it uploaded
            return False
        if (status.st_size, status.st_mtime_ns) != (video["source_size"], video["source_mtime_ns"]):
            self._refuse(video, f"{path} stays: it is not what was uploaded as {video['bvid']} any more")
            return False
        return True

    def _refuse(self, video: Video, why: str) -> None:
        if self._refused.get(video["id"]) != why:
            logger.bind(video=video["id"]).warning("{}", why)
        self._refused[video["id"]] = why

    def _done(self, video: Video, path: str | None) -> None:
        self._refused.pop(video["id"], None)
        videos.removed(self._desk.db, video["id"], path)


def _bring(path: Path, goal: Path) -> None:
    """Rename; across file systems copy, see it on the disk under its own name, and only then remove the original."""
    try:
        os.rename(path, goal)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        if os.path.lexists(path) and os.path.samefile(path, goal):  # two names of one file: a rename leaves both
            path.unlink()
        return
    part = goal.with_name(f".{goal.name}.part")
    before = _state_of(path)
    try:
        shutil.copy2(path, part)
        _sync(part)
        if _state_of(path) != before:
            raise OSError(errno.EBUSY, "it changed while it was copied")
        os.replace(part, goal)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()  # a disk that is full needs the room
        raise
    _sync(goal.parent)
    path.unlink()


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _state_of(path: Path) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _is_copy(one: Path, other: Path) -> bool:
    """Same size, and the time of change that a copy is given; some file systems know it to two seconds only."""
    if not one.is_file():
        return False
    found, wanted = one.stat(), other.stat()
    return found.st_size == wanted.st_size and abs(found.st_mtime - wanted.st_mtime) <= 2


def surplus(there: list[Video], settings: RetentionConfig, at: datetime) -> list[Video]:
    """Which of the published files, the oldest first, go: all, or those that are too old, too large, too many."""
    if settings.after_publishing == "delete":
        return there
    gone: dict[int, Video] = {}
    if settings.days:
        oldest = stamp(at - timedelta(days=settings.days))
        gone |= {video["id"]: video for video in there if video["uploaded_at"] < oldest}
    left = [video for video in there if video["id"] not in gone]
    size, count = sum(video["file_size"] for video in left), len(left)
    for video in left:
        if not ((settings.size and size > settings.size) or (settings.count and count > settings.count)):
            break
        gone[video["id"]] = video
        size, count = size - video["file_size"], count - 1
    return list(gone.values())

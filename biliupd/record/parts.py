"""One part of a recording on disk: an FLV file, or a folder of HLS segments with its own playlist.

Runs in the recorder process. Touches one broadcast's folder. A part has a name that the watcher ignores (`.part`), or a
playlist without end, until `finish`. `OSError` comes out as it is: the recorder knows a full disk from a broken one.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from biliupd.record.disk import replace_file, sync_directory, write_all
from biliupd.record.flv import DURATION_AT, FILESIZE_AT, Role, Tag, double, look_at, opening, tag_bytes
from biliupd.record.playlist import Entry, write

INDEX = "index.m3u8"
SEGMENT_SUFFIXES = (".ts", ".m4s", ".aac")
REMEMBERED = 64  # digests of the last segments, against recording one twice
_NUMBERED = re.compile(r"P(\d{3,})(?:\D|$)")


def next_number(directory: Path, known: Iterable[str] = ()) -> int:
    """The number of the next part: above every name in the folder and every `known` one, which may be gone by now."""
    names = [*known, *(entry.name for entry in os.scandir(directory))]
    return max((int(match[1]) for name in names if (match := _NUMBERED.match(name))), default=0) + 1


def digest_of(body: bytes) -> str:
    """What tells two segments apart."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


class FlvPart:
    """`P001.flv.part`, which becomes `P001.flv`. Never holds a torn tag, not even when the disk is full."""

    def __init__(self, directory: Path, number: int) -> None:
        self.name = f"P{number:03}.flv"
        self.media_ms = 0
        self._directory = directory
        self._path = directory / f"{self.name}.part"
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._has_media = False
        self.bytes = 0
        try:
            self._append(opening())
        except OSError:
            self.finish()
            raise

    @property
    def seconds(self) -> float:
        """Media time of the last tag."""
        return self.media_ms / 1000

    def write(self, tags: list[Tag]) -> None:
        """Append tags with the times they shall have in the file; a full disk takes as many whole ones as fit."""
        try:
            self._append(tag_bytes(tags))
        except OSError:
            for tag in tags:
                self._append(tag_bytes([tag]))
                self._note([tag])
        self._note(tags)

    def _note(self, tags: list[Tag]) -> None:
        for tag in tags:
            self._has_media = self._has_media or look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)
            self.media_ms = max(self.media_ms, tag.timestamp)

    def _append(self, content: bytes) -> None:
        try:
            write_all(self._handle, content)
        except OSError:
            os.ftruncate(self._handle, self.bytes)
            os.lseek(self._handle, self.bytes, os.SEEK_SET)
            raise
        self.bytes += len(content)

    def sync(self) -> None:
        """Everything written so far is on the disk itself, with a duration that fits it."""
        self._stamp()
        os.fdatasync(self._handle)

    def _stamp(self) -> None:
        os.pwrite(self._handle, double(self.seconds), DURATION_AT)
        os.pwrite(self._handle, double(self.bytes), FILESIZE_AT)

    def finish(self) -> bool:
        """End the file properly; False when it held no media, then nothing is left of it."""
        try:
            if self._has_media:
                self._stamp()
                os.fsync(self._handle)
        finally:
            os.close(self._handle)
        if self._has_media:
            os.rename(self._path, self._directory / self.name)
        else:
            self._path.unlink()
        sync_directory(self._directory)
        return self._has_media


class SegmentPart:
    """The folder `P001/`: `init.mp4` for fMP4, `000001.ts` …, and `index.m3u8`, which ends when the part ends."""

    def __init__(self, directory: Path, number: int, init: bytes = b"") -> None:
        folder = f"P{number:03}"
        self.name = f"{folder}/{INDEX}"
        self.bytes = 0
        self.seconds = 0.0
        self.init = init
        self._folder = directory / folder
        self._folder.mkdir()
        self._entries: list[Entry] = []
        sync_directory(directory)

    def add(self, body: bytes, duration: float, suffix: str, *, discontinuity: bool = False) -> None:
        """Append a whole segment; it is on the disk itself when this returns.

        `discontinuity`: one before it is missing, so that its timestamps do not go on from the last one's.
        """
        if self.init and not self._entries:
            replace_file(self._folder / "init.mp4", self.init, durable=False)
            self.bytes += len(self.init)
        name = f"{len(self._entries) + 1:06}{suffix}"
        replace_file(self._folder / name, body, durable=False)
        self._entries.append(Entry(name, duration, discontinuity and bool(self._entries)))
        try:
            self._write_index(ended=False)
        except OSError:
            self._entries.pop()
            (self._folder / name).unlink()
            raise
        self.bytes += len(body)
        self.seconds += duration

    def _write_index(self, *, ended: bool) -> None:
        text = write(self._entries, init="init.mp4" if self.init else "", ended=ended)
        replace_file(self._folder / INDEX, text.encode())

    def sync(self) -> None:
        """Nothing to do: each segment was synced when it came."""

    def finish(self) -> bool:
        """Write the end into the playlist; False when there was no segment, then nothing is left of the folder."""
        for stray in self._folder.glob("*.part"):
            stray.unlink()
        if self._entries:
            self._write_index(ended=True)
            return True
        for left in self._folder.iterdir():
            left.unlink()
        self._folder.rmdir()
        sync_directory(self._folder.parent)
        return False


Part = FlvPart | SegmentPart

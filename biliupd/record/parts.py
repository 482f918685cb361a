"""One part of a recording on disk: what all kinds have, and the folder of HLS segments with its own playlist.

Runs in the recorder process. Touches one broadcast's folder. A part has a name that the watcher ignores (`.part`), or a
playlist without end, until `finish`. `OSError` comes out as it is: the recorder knows a full disk from a broken one.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from biliupd.record.container import Form
from biliupd.record.disk import replace_file, sync_directory
from biliupd.record.playlist import Entry, write

INDEX = "index.m3u8"
SEGMENT_SUFFIXES = (".ts", ".m4s", ".aac")
REMEMBERED = 64  # digests of the last segments, against recording one twice
DIGESTED = 16 << 10  # bytes at either end of a segment
_NUMBERED = re.compile(r"P(\d{3,})(?:\D|$)")

Buffer = bytes | bytearray


def next_number(directory: Path, known: Iterable[str] = ()) -> int:
    """The number of the next part: above every name in the folder and every `known` one, which may be gone by now."""
    names = [*known, *(entry.name for entry in os.scandir(directory))]
    return max((int(match[1]) for name in names if (match := _NUMBERED.match(name))), default=0) + 1


def digest_of(body: Buffer) -> str:
    """What tells two segments apart: their size, beginning and end, where the times of their media stand."""
    digest = hashlib.blake2b(body[:DIGESTED], digest_size=16)
    digest.update(body[-DIGESTED:])
    digest.update(str(len(body)).encode())
    return digest.hexdigest()


class Part(Protocol):
    """`name` is relative to the broadcast's folder; `seconds` of media and `bytes` are in it by now."""

    name: str

    @property
    def seconds(self) -> float: ...

    @property
    def bytes(self) -> int: ...

    def sync(self) -> None:
        """Everything written so far is on the disk itself."""

    def finish(self) -> bool:
        """End it properly; False when it held no media, then nothing is left of it."""


class SegmentPart:
    """The folder `P001/`: `init.mp4` for fMP4, `000001.ts` …, and `index.m3u8`, which ends when the part ends.

    A segment gets its name when it is whole; it is listed, and on the disk itself, at the next `sync`. `form` says what
    a decoder has to know of the media (empty: `init` does), `label` which variant they are.
    """

    def __init__(self, directory: Path, number: int, init: bytes = b"", form: Form = (), label: str = "") -> None:
        folder = f"P{number:03}"
        self.name = f"{folder}/{INDEX}"
        self.bytes = 0
        self.seconds = 0.0
        self.init, self.form, self.label, self.suffix = init, form, label, ""
        self._folder = directory / folder
        self._folder.mkdir()
        self._entries: list[Entry] = []
        self._waiting: list[Path] = []  # not on the disk itself yet
        sync_directory(directory)

    def add(self, body: Buffer, duration: float, suffix: str, *, discontinuity: bool = False) -> None:
        """Append a whole segment.

        `discontinuity`: its timestamps do not go on from those of the one before it.
        """
        first, self.suffix = not self._entries, suffix
        if self.init and first:
            self.bytes += self._put("init.mp4", self.init)
        name = f"{len(self._entries) + 1:06}{suffix}"
        self.bytes += self._put(name, body)
        self._entries.append(Entry(name, duration, discontinuity and not first))
        self.seconds += duration
        if first:  # so that nobody takes it for a video of its own
            self._write_index(ended=False)

    def _put(self, name: str, body: Buffer) -> int:
        """Write a file of the folder under a name that salvage removes, then give it its own."""
        path, part = self._folder / name, self._folder / f"{name}.part"
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(handle, view):]
        finally:
            os.close(handle)
        os.rename(part, path)
        self._waiting.append(path)
        return len(body)

    def _write_index(self, *, ended: bool) -> None:
        text = write(self._entries, init="init.mp4" if self.init else "", ended=ended)
        replace_file(self._folder / INDEX, text.encode())

    def sync(self) -> None:
        """Everything written so far is on the disk itself, and listed."""
        if self._waiting:
            self._sync_segments()
            self._write_index(ended=False)

    def _sync_segments(self) -> None:
        while self._waiting:
            handle = os.open(self._waiting[0], os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(handle)
            finally:
                os.close(handle)
            del self._waiting[0]

    def finish(self) -> bool:
        """Write the end into the playlist; False when there was no segment, then nothing is left of the folder."""
        for stray in self._folder.glob("*.part"):
            stray.unlink()
        if self._entries:
            self._sync_segments()
            self._write_index(ended=True)
            return True
        for left in self._folder.iterdir():
            left.unlink()
        self._folder.rmdir()
        sync_directory(self._folder.parent)
        return False

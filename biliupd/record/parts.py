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

from biliupd.record.disk import replace_file, sync_directory
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

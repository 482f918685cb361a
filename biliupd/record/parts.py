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
from biliupd.record.playlist import Entry, head, line, write_master

INDEX = "index.m3u8"
VIDEO_LIST, SOUND_LIST = "video.m3u", "sound.m3u"  # no .m3u8: they are no videos of their own
SEGMENT_SUFFIXES = (".ts", ".m4s", ".aac")
JOINED_LINES = 200
REMEMBERED = 64  # digests of the last segments, against recording one twice
DIGESTED = 4 << 10  # bytes at either end of a segment
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

    With sound in files of its own (`sound000001.m4s`, `sound-init.mp4`) there are two playlists, `video.m3u` and
    `sound.m3u`, and `index.m3u8` is a master playlist that names them; it ends, too. A segment gets its name when it is
    whole; it is listed, and on the disk itself, at the next `sync`. `form` says what a decoder has to know of the
    pictures (empty: `init` does), `label` which variant they are.
    """

    def __init__(self, directory: Path, number: int, init: bytes = b"", form: Form = (), label: str = "") -> None:
        folder = f"P{number:03}"
        self.name = f"{folder}/{INDEX}"
        self.init, self.form, self.label = init, form, label
        self._folder = directory / folder
        self._folder.mkdir()
        self._waiting: list[Path] = []  # not on the disk itself yet
        self._video = _Track(self._folder, "", "init.mp4", init, self._waiting)
        self.sound: _Track | None = None
        sync_directory(directory)

    @property
    def seconds(self) -> float:
        return self._video.seconds

    @property
    def bytes(self) -> int:
        return self._video.bytes + (self.sound.bytes if self.sound else 0)

    @property
    def suffix(self) -> str:
        """How the names of its segments end; empty while there is none."""
        return self._video.suffix

    def add(self, body: Buffer, duration: float, suffix: str, *, discontinuity: bool = False) -> None:
        """Append a whole segment.

        `discontinuity`: its timestamps do not go on from those of the one before it.
        """
        first = not self._video.count
        self._video.add(body, duration, suffix, discontinuity=discontinuity)
        if first:  # so that nobody takes it for a video of its own
            self._write_index(ended=False)

    def add_sound(self, body: Buffer, duration: float, suffix: str, init: Buffer = b"") -> None:
        """Append a segment of sound, when it is not in the others. `init` is the same for all of them."""
        if self.sound is None:
            self.sound = _Track(self._folder, "sound", "sound-init.mp4", init, self._waiting)
        self.sound.add(body, duration, suffix)

    def _write_index(self, *, ended: bool) -> None:
        if self.sound is None:
            replace_file(self._folder / INDEX, self._video.text(ended=ended).encode())
            return
        for name, track in ((VIDEO_LIST, self._video), (SOUND_LIST, self.sound)):
            replace_file(self._folder / name, track.text(ended=ended).encode(), durable=False)
        replace_file(self._folder / INDEX, write_master(VIDEO_LIST, SOUND_LIST, ended=ended).encode())

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
        if self._video.count:
            self._sync_segments()
            self._write_index(ended=True)
            return True
        for left in self._folder.iterdir():
            left.unlink()
        self._folder.rmdir()
        sync_directory(self._folder.parent)
        return False


class _Track:
    """Segments of one kind in a part's folder. New files are put into `waiting`."""

    def __init__(self, folder: Path, prefix: str, init_name: str, init: Buffer, waiting: list[Path]) -> None:
        self.count = 0
        self._target = 0.0
        self._lines: list[str] = []  # a text each, not a value: there may be tens of thousands
        self.seconds, self.bytes, self.suffix, self.init = 0.0, 0, "", init
        self._folder, self._prefix, self._init_name, self._waiting = folder, prefix, init_name, waiting

    def add(self, body: Buffer, duration: float, suffix: str, *, discontinuity: bool = False) -> None:
        if self.init and not self.count:
            self.bytes += self._put(self._init_name, self.init)
        self.suffix = suffix
        name = f"{self._prefix}{self.count + 1:06}{suffix}"
        self.bytes += self._put(name, body)
        self._lines.append(line(Entry(name, duration, discontinuity and self.count > 0)))
        if len(self._lines) > JOINED_LINES:
            self._lines = ["".join(self._lines)]
        self.count += 1
        self._target = max(self._target, duration)
        self.seconds += duration

    def _put(self, name: str, body: Buffer) -> int:
        """Write a file under a name that salvage removes, then give it its own."""
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

    def text(self, *, ended: bool) -> str:
        begin = head(self._target, init=self._init_name if self.init else "")
        return "".join([begin, *self._lines, "#EXT-X-ENDLIST\n" if ended else ""])

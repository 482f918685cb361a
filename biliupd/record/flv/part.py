"""One FLV file of a recording: `P001.flv.part`, which becomes `P001.flv`.

Runs in the recorder process. Touches one broadcast's folder. `OSError` comes out as it is: the recorder knows a full
disk from a broken one.
"""

import os
from pathlib import Path
from typing import Any

from biliupd.record.disk import sync_directory, write_all
from biliupd.record.flv.meta import OPENING_BYTES, FileMeta, opening
from biliupd.record.flv.rejoin import LONGEST_MATCH
from biliupd.record.flv.tags import VIDEO, Parser, Role, Tag, look_at, tag_bytes


class FlvPart:
    """Never holds a torn tag, not even when the disk is full; from each `sync` on it can be seeked in, killed or not.

    `source`: what the server's own onMetaData says. Raises `FileExistsError` when the name is taken.
    """

    def __init__(self, directory: Path, number: int, source: dict[str, object] | None = None) -> None:
        self.name = f"P{number:03}.flv"
        self.media_ms = 0
        self.bytes = 0
        self._directory = directory
        self._path = directory / f"{self.name}.part"
        self._has_media = False
        self._meta = FileMeta()
        self._meta.source(source or {})
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            self._append(opening(self._meta))
            sync_directory(directory)
        except OSError:
            self.finish()
            raise

    @property
    def seconds(self) -> float:
        """Media time of the last tag."""
        return self.media_ms / 1000

    def write(self, tags: list[Tag]) -> None:
        """Append tags with the times they shall have in the file; a full disk takes as many whole ones as fit."""
        at = self.bytes
        try:
            self._append(tag_bytes(tags))
        except OSError:
            for tag in tags:
                at = self.bytes
                self._append(tag_bytes([tag]))
                self._note([tag], at)
        self._note(tags, at)

    def _note(self, tags: list[Tag], at: int) -> None:
        for tag in tags:
            body = tag.body
            if (tag.type == VIDEO and body[0] & 0x70 == 0x10) or not self._has_media:
                self._look(tag, at)
            if tag.timestamp > self.media_ms:
                self.media_ms = tag.timestamp
            at += len(body) + 15

    def _look(self, tag: Tag, at: int) -> None:
        look = look_at(tag)
        if look.role is Role.HEADER:
            self._meta.header(tag, look)
        elif look.role in (Role.KEYFRAME, Role.MEDIA):
            self._has_media = True
            self._meta.facts.setdefault("hasVideo" if tag.type == VIDEO else "hasAudio", 1.0)
            if look.role is Role.KEYFRAME:
                self._meta.keyframe(tag.timestamp, at)

    def _append(self, content: bytes) -> None:
        try:
            write_all(self._handle, content)
        except OSError:
            os.ftruncate(self._handle, self.bytes)
            os.lseek(self._handle, self.bytes, os.SEEK_SET)
            raise
        self.bytes += len(content)

    def sync(self) -> None:
        """Everything written so far is on the disk itself, with a duration and an index that fit it."""
        stamp(self._handle, self._meta, self.media_ms, self.bytes)
        os.fdatasync(self._handle)

    def finish(self) -> bool:
        """End the file properly; False when it held no media, then nothing is left of it."""
        try:
            if self._has_media:
                stamp(self._handle, self._meta, self.media_ms, self.bytes)
                os.fsync(self._handle)
        finally:
            os.close(self._handle)
        if self._has_media:
            os.rename(self._path, self._directory / self.name)
        else:
            self._path.unlink()
        sync_directory(self._directory)
        return self._has_media


def last_tags(directory: Path, files: list[dict[str, Any]]) -> list[Tag]:
    """The last media tags of the newest FLV file of a broadcast; none when it is gone or no FLV."""
    name = str(files[-1].get("name")) if files else ""
    if not name.endswith(".flv"):
        return []
    try:
        handle = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    found: list[Tag] = []
    try:
        at = os.fstat(handle).st_size
        while at > OPENING_BYTES and len(found) < LONGEST_MATCH:
            start = at - 4 - int.from_bytes(os.pread(handle, 4, at - 4), "big")
            if start < OPENING_BYTES:
                break
            found += (tag for tag in Parser().feed(os.pread(handle, at - start, start))[:1] if _is_media(tag))
            at = start
    finally:
        os.close(handle)
    return found[::-1]


def _is_media(tag: Tag) -> bool:
    return look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)


def stamp(handle: int, meta: FileMeta, last_ms: int, size: int) -> None:
    """Write the script tag of a file of ours anew."""
    os.pwrite(handle, opening(meta, last_ms, size), 0)

"""One FLV file of a recording.

Runs in the recorder process. Touches one broadcast's folder. `OSError` comes out as it is.
"""

import os
from pathlib import Path

from biliupd.record.disk import sync_directory, write_all
from biliupd.record.flv import DURATION_AT, FILESIZE_AT, Role, Tag, double, look_at, opening, tag_bytes


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

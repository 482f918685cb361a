"""A DASH stream of the stand-in live site: the manifest and the segments that its ffmpeg keeps on the disk.

It is there because only ffmpeg reads it. Any thread that answers a request, one at a time; reads the room's directory.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from biliupd.rehearsal.live_account import Unit, digest
from biliupd.rehearsal.live_hls import Body, Shelf
from biliupd.rehearsal.live_media import HLS_SEGMENT_SECONDS


@dataclass
class Manifest(Shelf):
    """Of the faults of a shelf it knows only segments that are not to be had."""

    index: ClassVar[str] = "index.mpd"
    kind: ClassVar[str] = "application/dash+xml"
    _chunks: dict[str, Unit] = field(default_factory=dict)

    def refresh(self) -> None:
        """Take in the segments of the picture that were written since."""
        with self._lock:
            for manifest in self._runs:
                for path in sorted(manifest.parent.glob(f"{manifest.stem}-0-*.m4s")):
                    if path not in self._paths:
                        self._paths.add(path)
                        self._note(path)

    def _note(self, path: Path) -> None:
        units = self.account.units
        begins = units[-1].seconds + units[-1].length if units else 0.0
        unit = self.account.made(begins, float(HLS_SEGMENT_SECONDS), path.read_bytes())
        unit.made_at = path.stat().st_mtime
        if self.faults.drop:
            self.faults.drop -= 1
            unit.forbidden = True
        self._chunks[path.name] = unit

    def playlist(self, behind: int = 0) -> bytes:
        with self._lock:
            self.refresh()
            return self._runs[-1].read_bytes()

    def fetch(self, name: str, directory: Path, asked_range: str, token: str | None) -> Body:
        with self._lock:
            self.refresh()
            unit = self._chunks.get(name)
            if (unit and unit.forbidden) or not name.startswith(self.live_id) or not name.endswith(".m4s"):
                return Body(404, "text/plain", b"not here\n")
            try:
                content = (directory / name).read_bytes()
            except FileNotFoundError:
                return Body(404, "text/plain", b"not any more\n")
            return Body(200, "video/mp4", content, ((unit, digest(content)),) if unit else ())

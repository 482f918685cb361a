"""What a recorder process is told, and how it says why it ended.

A spec is a JSON file of mode 0600, because headers may hold cookies. Written by the crew, read by the recorder.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path

from biliupd.errors import PermanentError
from biliupd.record.disk import replace_file


class Exit(IntEnum):
    """Exit codes of a recorder. In broadcast.json the name stands in small letters."""

    OVER = 0  # the server says that nothing more will come
    NEEDS_URL = 10  # the address does not work any more
    STOPPED = 11  # SIGTERM or SIGINT
    NO_SPACE = 12
    ORPHANED = 13  # no daemon for orphan_seconds
    UNSUPPORTED = 14  # encrypted, or of a form biliupd does not record

    @property
    def reason(self) -> str:
        """As it is written into broadcast.json."""
        return self.name.lower()


@dataclass(frozen=True)
class Stream:
    """Where the media come from; `protocol` is flv, hls or ffmpeg (whatever that program reads).

    `expires_at`: ISO 8601 moment after which the address is refused, or its connection cut; empty when not known.
    """

    url: str
    protocol: str
    headers: dict[str, str] = field(default_factory=dict)
    expires_at: str = ""


@dataclass(frozen=True)
class Spec:
    """One run of a recorder. `streams` are ways to the same media, the best first.

    The crew may write the file anew while the recorder runs: other `streams` are taken up without a break (and are the
    answer to `needs_address` in broadcast.json), another `title` begins a new file when `split_on_title` is set.
    `cause` (a ledger.Cause) goes with the gap between this run and the one before. `heartbeat` is a file whose mtime
    the daemon moves about every second; without one (empty) nobody is waited for. `figures_path` is a file in which the
    recorder writes its figures every other second, as in broadcast.json; its mtime is the recorder's heartbeat.
    `max_height` in pixels, `max_bitrate` in bits a second (0: no limit) and `codecs` (avc, hevc, av1; those wanted, the
    most wanted first) choose among the variants of an HLS stream.
    """

    directory: str
    streams: tuple[Stream, ...]
    title: str = ""
    heartbeat: str = ""
    figures_path: str = ""
    cause: str = "restart"
    split_size: int = 0
    split_seconds: float = 0.0
    split_on_title: bool = False
    split_gap_seconds: float = 60.0
    fragment_seconds: float = 5.0
    connect_timeout_seconds: float = 10.0
    stall_seconds: float = 15.0
    progress_seconds: float = 30.0
    reconnect_seconds: float = 20.0
    sync_seconds: float = 10.0
    orphan_seconds: float = 300.0
    max_height: int = 0
    max_bitrate: int = 0
    codecs: tuple[str, ...] = ("avc", "hevc", "av1")
    ffmpeg: str = "ffmpeg"

    @property
    def stream(self) -> Stream:
        """The way tried first."""
        return self.streams[0]


def read(path: Path) -> Spec:
    """Read a spec; raises `PermanentError` when it cannot be used."""
    try:
        content = json.loads(path.read_bytes())
        spec = Spec(**{**content, "streams": tuple(Stream(**stream) for stream in content["streams"]),
                       "codecs": tuple(content["codecs"])})
        if not spec.streams:
            raise ValueError("no streams")
        for text in (spec.directory, spec.heartbeat):
            if b"\0" in os.fsencode(text):
                raise ValueError("no path")
        return spec
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise PermanentError(f"{path}: {type(error).__name__}: not a readable spec") from error


def write(path: Path, spec: Spec) -> None:
    """Write a spec, readable by its owner only. Raises `OSError`."""
    replace_file(path, json.dumps(asdict(spec), ensure_ascii=False).encode(), mode=0o600)

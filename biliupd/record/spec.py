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
    """Where the media come from; `protocol` is flv or hls."""

    url: str
    protocol: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    """One run of a recorder. `cause` goes with the gap between this run and the one before.

    `heartbeat` is a file whose mtime the daemon moves about every second; without one (empty) nobody is waited for.
    """

    directory: str
    stream: Stream
    heartbeat: str = ""
    cause: str = "restart"
    split_size: int = 0
    split_seconds: float = 0.0
    connect_timeout_seconds: float = 10.0
    stall_seconds: float = 15.0
    reconnect_seconds: float = 20.0
    sync_seconds: float = 10.0
    orphan_seconds: float = 300.0


def read(path: Path) -> Spec:
    """Read a spec; raises `PermanentError` when it cannot be used."""
    try:
        content = json.loads(path.read_bytes())
        spec = Spec(**{**content, "stream": Stream(**content["stream"])})
        for text in (spec.directory, spec.heartbeat):
            if b"\0" in os.fsencode(text):
                raise ValueError("no path")
        return spec
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise PermanentError(f"{path}: {type(error).__name__}: not a readable spec") from error


def write(path: Path, spec: Spec) -> None:
    """Write a spec, readable by its owner only. Raises `OSError`."""
    replace_file(path, json.dumps(asdict(spec), ensure_ascii=False).encode(), mode=0o600)

"""The file `broadcast.json` in a broadcast's folder: what is known of one show, its figures and its ledger.

Written by the recorder while one runs, else by the crew; read by whoever wants to know. Also says whether the recorder
named in it still lives. Light, because a recorder process imports it.
"""

import fcntl
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit, urlunsplit

from biliupd.errors import PermanentError
from biliupd.record.disk import replace_file

NAME = "broadcast.json"
LARGEST_BYTES = 64 << 20
LARGEST_PID = 1 << 22  # the kernel's own limit


@dataclass
class Figures:
    """Sums over the broadcast.

    `live_seconds`: wall time from the first to the last media, without `paused_seconds`, in which the streamer was
    not on air. `empty_seconds` within the files are holes that players wait through; they do not count as media. Of the
    last half minute: `bitrate` in bits per second, `speed` in seconds of media per second.
    """

    bytes: int = 0
    media_seconds: float = 0.0
    live_seconds: float = 0.0
    paused_seconds: float = 0.0
    empty_seconds: float = 0.0
    lost_seconds: float = 0.0
    gaps: int = 0
    files: int = 0
    reconnects: int = 0
    bitrate: float = 0.0
    speed: float = 0.0


@dataclass
class Broadcast:
    """One show of one streamer. Moments are ISO 8601 texts with their offset (UTC), empty or None when not known.

    `ledger`: see record.ledger. `files`: {name, seconds, bytes}, name relative to the folder, with `fragment: true`
    when it is shorter than wanted. `position`: where an HLS recording goes on. `needs_address`: why its recorder has no
    address any more that works, empty when it has.
    """

    id: str
    streamer: str
    platform: str = ""
    url: str = ""
    title: str = ""
    cover_url: str = ""
    live_id: str = ""
    started_at: str = ""
    ended_at: str | None = None
    task_id: str = ""
    pid: int | None = None
    pid_started: int | None = None
    boot_id: str = ""
    exit: str | None = None
    needs_address: str = ""
    first_media_at: str | None = None
    last_media_at: str | None = None
    figures: Figures = field(default_factory=Figures)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    position: dict[str, Any] | None = None
    unknown: dict[str, Any] = field(default_factory=dict)
    """Keys of the file that this version does not know; they are written back."""


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_HINTS = get_type_hints(Broadcast)
_FIGURES = {item.name for item in fields(Figures)}


def public_address(url: str) -> str:
    """A room's address without user, password and query: the file is for everybody to read."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def read(directory: Path) -> Broadcast | None:
    """The broadcast of a folder; None when it has none.

    Raises `PermanentError` when the file is there and cannot be used.
    """
    path = directory / NAME
    try:
        raw = _content(path)
        content = json.loads(raw)
        if _HALF.search(raw):  # \\ud800 and the like are JSON, and no text that can be stored or shown
            json.dumps(content, ensure_ascii=False).encode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise PermanentError(f"{path}: {type(error).__name__}: not a readable broadcast.json") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in ("id", "streamer")):
        raise PermanentError(f"{path}: has no id and streamer")
    unknown = {key: content.pop(key) for key in list(content) if key not in _HINTS or key == "unknown"}
    for key, value in content.items():
        if key != "figures" and not _fits(value, _HINTS[key]):
            raise PermanentError(f"{path}: {key} is of the wrong kind")
    for key in ("started_at", "ended_at", "first_media_at", "last_media_at"):
        if content.get(key) and not _is_moment(content[key]):
            raise PermanentError(f"{path}: {key} is no moment with its offset")
    if not 0 < (content.get("pid") or 1) <= LARGEST_PID:
        raise PermanentError(f"{path}: pid is none")
    if not all(isinstance(item, dict) for key in ("ledger", "files") for item in content.get(key, ())):
        raise PermanentError(f"{path}: ledger and files hold objects only")
    figures = content.pop("figures", {})
    if not isinstance(figures, dict) or not all(isinstance(value, int | float) for value in figures.values()):
        raise PermanentError(f"{path}: figures are numbers")
    known = {key: value for key, value in figures.items() if key in _FIGURES}
    return Broadcast(**content, figures=Figures(**known), unknown=unknown)


def _content(path: Path) -> bytes:
    """A regular file's bytes: it lies where others may write, and a pipe of that name would be waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("no regular file")
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise OSError("too large")
    return content


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        return False


def _fits(value: object, hint: Any) -> bool:
    """Whether a value from JSON is of an annotated kind; of lists and dicts only the outside is looked at."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return any(isinstance(value, get_origin(kind) or kind) for kind in kinds)


def write(directory: Path, broadcast: Broadcast, *, durable: bool = True) -> None:
    """Put it into its folder: `.part`, fsync, rename, fsync of the folder unless not `durable`. Raises `OSError`."""
    content = asdict(broadcast)
    content = {**content.pop("unknown"), **content}
    replace_file(directory / NAME, json.dumps(content, ensure_ascii=False, indent=1).encode(errors="replace"),
                 durable=durable)


def write_figures(path: Path, broadcast: Broadcast) -> None:
    """The figures of now and the moment of the last media, for whoever looks at a running recording.

    Not synced: after a power cut nothing runs. Raises `OSError`.
    """
    content = {**vars(broadcast.figures), "last_media_at": broadcast.last_media_at}
    part = f"{path}.part"
    with open(part, "w") as file:
        file.write(json.dumps(content))
    os.replace(part, path)


def read_figures(path: Path, broadcast: Broadcast) -> None:
    """Put them into `broadcast`; nothing happens when there are none, or none that can be read."""
    try:
        content = json.loads(path.read_bytes())
        figures = Figures(**{key: content[key] for key in _FIGURES})
        if content["last_media_at"] and _is_moment(content["last_media_at"]):
            broadcast.last_media_at = content["last_media_at"]
        broadcast.figures = figures
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return


def alive(broadcast: Broadcast) -> bool:
    """True while the recorder named in it runs: same boot, same process (pid and start time), and no zombie."""
    return broadcast.pid is not None and broadcast.boot_id == boot_id() and runs(
        broadcast.pid, broadcast.pid_started)


def runs(pid: int, started: int | None) -> bool:
    """Whether the process that has this number and start time (`process_started`) runs; a zombie does not."""
    state, found = _process(pid)
    return found is not None and found == started and state not in ("Z", "X")


def process_started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); None when there is none."""
    return _process(pid)[1]


def _process(pid: int) -> tuple[str, int | None]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "", None
    after_name = text.rpartition(")")[2].split()  # the name may hold spaces and brackets
    return after_name[0], int(after_name[19])


def boot_id() -> str:
    """A text that changes with each boot of the machine; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def lock(directory: Path) -> int | None:
    """Hold a folder for one recorder: a descriptor that holds the lock until it is closed, None when another has it.

    Raises `OSError` when the folder cannot be opened. A file system without locks lets everyone in.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        pass
    return handle


def locked(directory: Path) -> bool:
    """True while a recorder holds the folder."""
    try:
        handle = lock(directory)
    except OSError:
        return False
    if handle is not None:
        os.close(handle)
    return handle is None

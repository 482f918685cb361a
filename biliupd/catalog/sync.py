"""A listing against the rows: what is new, changed, moved or gone, and the transaction that writes it down.

`compare` is pure. The same file under another name (same inode, size and time of change) is a move, so it keeps its
row and is never uploaded a second time.
"""

import os.path
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from sqlite_utils import Database

from biliupd.catalog.database import now, write
from biliupd.catalog.states import State, move, rows

BATCH = 500
VIDEO_ENDINGS = (
    ".mp4", ".flv", ".mkv", ".mov", ".webm", ".m4v", ".avi", ".wmv", ".mpg", ".mpeg", ".m2ts", ".mts", ".3gp", ".rm",
    ".rmvb", ".ts", ".f4v", ".ogv",
)  # fmt: skip


class Found(NamedTuple):
    """Something on the disk that deserves a row: a video file, or the playlist of a directory of segments."""

    file_path: str
    root: str
    kind: str  #: file or playlist
    size_bytes: int
    mtime_ns: int
    inode: int
    device: int
    growing: bool = False
    title: str = ""
    broadcast_id: str | None = None
    streamer_id: int | None = None
    task_id: str | None = None

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """What stays when a file is renamed."""
        return self.device, self.inode, self.size_bytes, self.mtime_ns


class Row(NamedTuple):
    """What `compare` needs to know of a video's row."""

    id: int
    file_path: str
    size_bytes: int
    mtime_ns: int
    inode: int
    device: int
    state: State
    was: State | None

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """As of `Found`."""
        return self.device, self.inode, self.size_bytes, self.mtime_ns


@dataclass
class Changes:
    """What a listing says; each list is written by `apply`."""

    added: list[Found] = field(default_factory=list)
    changed: list[tuple[Row, Found]] = field(default_factory=list)
    moved: list[tuple[Row, Found]] = field(default_factory=list)
    gone: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.moved or self.gone)


def compare(
    found: Iterable[Found], known: Sequence[Row], *, exists: Callable[[str], bool], all_listed: bool
) -> Changes:
    """Hold a listing against the rows.

    `known` are the rows at the found paths and those that share an inode with them; with `all_listed` also every other
    row of the root, and those not found are gone. `exists` says whether a path is still there.
    """
    by_path = {row.file_path: row for row in known}
    by_identity: dict[tuple[int, int, int, int], Row] = {row.identity: row for row in known}
    seen: set[int] = set()
    changes = Changes()
    new: list[Found] = []
    for thing in found:
        row = by_path.get(thing.file_path)
        if row is None:
            new.append(thing)
            continue
        seen.add(row.id)
        settled = row.state is State.RECORDING and not thing.growing
        if row.identity != thing.identity or settled or row.state is State.MISSING:
            changes.changed.append((row, thing))
    for thing in new:
        row = by_identity.get(thing.identity)
        if row is not None and row.id not in seen and not exists(row.file_path):
            seen.add(row.id)
            changes.moved.append((row, thing))
        else:
            changes.added.append(thing)
    if all_listed:
        changes.gone = [row for row in known if row.id not in seen and row.state in _CAN_GO]
    return changes


_CAN_GO = frozenset({State.RECORDING, State.RECORDED, State.READY, State.HELD, State.IGNORED})
_TAKES_NEW_CONTENT = frozenset(
    {State.RECORDING, State.RECORDED, State.READY, State.HELD, State.IGNORED, State.MISSING}
)


def apply(db: Database, changes: Changes) -> None:
    """Write what `compare` found, some hundred rows to a transaction. Safe to repeat."""
    for batch in _batches(changes.added):
        with write(db):
            _insert(db, batch)
    for pairs in _batches(changes.moved):
        with write(db):
            for row, thing in pairs:
                rows(db, "videos").update(row.id, _place(thing))
                if row.state is State.MISSING:
                    move(db, row.id, State.MISSING, row.was or State.RECORDED, was=None, last_error=None)
    for pairs in _batches(changes.changed):
        with write(db):
            for row, thing in pairs:
                _change(db, row, thing)
    for lost in _batches(changes.gone):
        with write(db):
            for row in lost:
                # back from missing it takes up where it was, but for a file that was still growing
                was = State.RECORDED if row.state is State.RECORDING else row.state
                move(db, row.id, row.state, State.MISSING, was=was)


def _insert(db: Database, things: Sequence[Found]) -> None:
    at = now()
    rows(db, "videos").insert_all(
        (
            {
                **_place(thing),
                **_content(thing),
                "title": thing.title,
                "streamer_id": thing.streamer_id,
                "task_id": thing.task_id,
                "broadcast_id": thing.broadcast_id,
                "state": State.RECORDING if thing.growing else State.RECORDED,
                "since": at,
                "created_at": at,
            }
            for thing in things
        ),
        ignore=True,
    )


def _change(db: Database, row: Row, thing: Found) -> None:
    same = row.identity == thing.identity
    if row.state is State.MISSING and same:
        move(db, row.id, State.MISSING, row.was or State.RECORDED, was=None, last_error=None)
        return
    if row.state in (State.EDITING, State.UPLOADING):
        return  # its owner notices for itself
    if row.state not in _TAKES_NEW_CONTENT:
        if _is_another(db, row, thing):
            _insert(db, [thing])
            return
        rows(db, "videos").update(row.id, _content(thing))
        return  # what is uploaded stays uploaded
    fresh = {"attempts": 0, "retry_at": None, "last_error": None, "waits_for": None, "was": None}
    rows(db, "videos").update(row.id, {**_content(thing), **fresh})
    target = State.RECORDING if thing.growing else State.RECORDED
    if row.state is not target:
        move(db, row.id, row.state, target)


def _is_another(db: Database, row: Row, thing: Found) -> bool:
    """Whether a file comes under the name of one that was removed when it was published; that gives its name up then.

    One of the same size may be the same once more, which is not published twice.
    """
    found = db.execute(
        "select v.bvid, u.source_size from videos v join uploads u on u.video_id = v.id"
        " where v.id = ? and v.removed_at is not null",
        [row.id],
    ).fetchone()
    if found is None or found[1] == thing.size_bytes:
        return False
    base, ending = os.path.splitext(row.file_path)
    rows(db, "videos").update(row.id, {"file_path": f"{base} {found[0]}-{row.id}{ending}"})
    return True


def _place(thing: Found) -> dict[str, Any]:
    path = os.path.relpath(thing.file_path, thing.root)
    return {"file_path": thing.file_path, "root": thing.root, "path": path, "parent_path": os.path.dirname(path)}


def _content(thing: Found) -> dict[str, Any]:
    return {
        "kind": thing.kind,
        "file_size": thing.size_bytes,
        "mtime_ns": thing.mtime_ns,
        "inode": thing.inode,
        "device": thing.device,
    }


def rows_of_root(db: Database, root: str) -> list[Row]:
    """Every row below a watched directory."""
    return _rows(db, "root = ?", [root])


def rows_near(db: Database, found: Sequence[Found]) -> list[Row]:
    """The rows at these paths and those that share an inode with one of them."""
    near: dict[int, Row] = {}
    for batch in _batches(found):
        marks = ",".join("?" * len(batch))
        paths, inodes = [thing.file_path for thing in batch], [thing.inode for thing in batch]
        for row in (
            *_rows(db, f"file_path in ({marks})", paths),
            *_rows(db, f"inode in ({marks})", inodes),
        ):
            near[row.id] = row
    return list(near.values())


def rows_below(db: Database, path: str) -> list[Row]:
    """The row of a file, or the rows of everything below a directory."""
    return _rows(db, "file_path = ? or substr(file_path, 1, ?) = ?", [path, len(path) + 1, path + "/"])


def spoken_for(db: Database) -> set[str]:
    """Paths that belong to a row already: what a merge is making, and playlists that were merged."""
    found = db.execute(
        "select output_path from videos where output_path is not null"
        " union all select merged_from from videos where merged_from is not null"
    )
    return {path for (path,) in found}


def _rows(db: Database, where: str, values: Sequence[Any]) -> list[Row]:
    found = db.execute(
        f"select id, file_path, file_size, mtime_ns, inode, device, state, was from videos where {where}", values
    )
    return [
        Row(id, path, size, mtime_ns, inode, device, State(state), State(was) if was else None)
        for id, path, size, mtime_ns, inode, device, state, was in found
    ]


def _batches(things: Sequence[Any]) -> Iterator[Sequence[Any]]:
    source = iter(things)
    while batch := list(islice(source, BATCH)):
        yield batch

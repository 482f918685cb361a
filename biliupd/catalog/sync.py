"""A listing against the rows: what is new, changed, moved or gone, and the transaction that writes it down.

`compare` is pure. The same file under another name (same inode, size and time of change) is a move, so it keeps its
row and is never uploaded a second time. Another file under a known name has a row of its own, and the former one gives
the name up; so does what was uploaded when its file changes. Of the same name, size and time it is the same file,
whatever the inode says: many a file system counts anew with each mount.
"""

import os.path
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from sqlite_utils import Database

from biliupd.catalog import copies
from biliupd.catalog.database import now, write
from biliupd.catalog.paths import PATH, PATH_COLUMNS, below, is_text, parent, readable, stored
from biliupd.catalog.states import State, move, rows

BATCH = 500  #: rows to a query by paths
TRANSACTION = 2000  #: rows to a transaction
VIDEO_ENDINGS = (
    ".mp4", ".flv", ".mkv", ".mov", ".webm", ".m4v", ".avi", ".wmv", ".mpg", ".mpeg", ".m2ts", ".mts", ".3gp", ".rm",
    ".rmvb", ".ts", ".f4v", ".ogv",
)  # fmt: skip


class Found(NamedTuple):
    """Something on the disk that deserves a row: a video file, a playlist, or a folder of numbered segments."""

    file_path: str
    root: str
    kind: str  #: file, playlist or folder
    size_bytes: int
    mtime_ns: int
    inode: int
    device: int
    growing: bool = False
    title: str = ""
    broadcast_id: str | None = None
    streamer_id: int | None = None

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
    removed: bool = False  #: published, and its file is not there any more

    @property
    def identity(self) -> tuple[int, int, int, int]:
        """As of `Found`."""
        return self.device, self.inode, self.size_bytes, self.mtime_ns

    def looks_like(self, thing: Found) -> bool:
        """Whether what was found at its path is its file, unchanged."""
        return self.size_bytes == thing.size_bytes and self.mtime_ns == thing.mtime_ns


@dataclass
class Changes:
    """What a listing says; each list is written by `apply`."""

    added: list[Found] = field(default_factory=list)
    changed: list[tuple[Row, Found]] = field(default_factory=list)
    moved: list[tuple[Row, Found]] = field(default_factory=list)
    gone: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.moved or self.gone)


def compare(found: Iterable[Found], known: Sequence[Row], *, lies_there: Callable[[Row], bool]) -> Changes:
    """Hold what was found against `known`, the rows at these paths and those that share an inode with them.

    `lies_there` says whether a row's file is still at the row's path. A file is known by what it is first and by its
    name second, so that rows follow files that swap their names. What is gone is not decided here: see `gone`.
    """
    by_path = {row.file_path: row for row in known}
    by_inode: dict[tuple[int, int], list[Row]] = {}  # several are names of one file; those that were there last first
    for row in sorted(known, key=lambda row: row.state is State.MISSING or row.removed):
        by_inode.setdefault((row.device, row.inode), []).append(row)
    taken: set[int] = set()
    changes = Changes()
    others: list[Found] = []
    for thing in found:
        here = by_path.get(thing.file_path)
        if here is not None and here.looks_like(thing):
            taken.add(here.id)
            settled = here.state is State.RECORDING and not thing.growing
            if settled or here.state is State.MISSING or here.removed or here.identity != thing.identity:
                changes.changed.append((here, thing))
            continue
        moved = (
            row
            for row in by_inode.get((thing.device, thing.inode), ())
            if (row.identity == thing.identity or row.state is State.RECORDING)
            and row is not here and row.id not in taken and not lies_there(row)
        )  # fmt: skip
        if former := next(moved, None):
            taken.add(former.id)
            changes.moved.append((former, thing))
        else:
            others.append(thing)
    for thing in others:
        here = by_path.get(thing.file_path)
        if here is None or here.id in taken:
            changes.added.append(thing)
        else:
            taken.add(here.id)
            changes.changed.append((here, thing))
    return changes


def gone(known: Iterable[Row]) -> Changes:
    """The change that these rows' files are not there (any more)."""
    return Changes(gone=[row for row in known if row.state in _CAN_GO or (row.state in _DONE and not row.removed)])


_CAN_GO = frozenset({State.RECORDING, State.RECORDED, State.READY, State.HELD, State.IGNORED})
_DONE = frozenset({State.UPLOADED, State.PUBLISHED})
_BUSY = frozenset({State.EDITING, State.UPLOADING})


def apply(db: Database, changes: Changes, content: Callable[[str], str] = lambda path: "") -> None:
    """Write what was found, some thousand rows to a transaction. Safe to repeat.

    `content` is asked for the fingerprint of a file that changed after it was uploaded; empty: it cannot be read.
    """
    if changes.moved:
        with write(db):
            _make_way(db, changes.moved)
            for row, thing in changes.moved:
                _move(db, row, thing)
    for pairs in _batches(changes.changed, TRANSACTION):
        with write(db):
            for row, thing in pairs:
                _change(db, row, thing, content)
    for batch in _batches(changes.added, TRANSACTION):
        with write(db):
            _insert(db, batch)
    for lost in _batches(changes.gone, TRANSACTION):
        with write(db):
            for row in lost:
                _lose(db, row)


_INSERT = f"""
insert or ignore into videos (
    file_path, root, path, parent_path, kind, file_size, mtime_ns, inode, device, title, streamer_id, broadcast_id,
    state, since, created_at
) values ({PATH}, {PATH}, {PATH}, {PATH}, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def _insert(db: Database, things: Sequence[Found]) -> None:
    at = now()
    (last,) = db.execute("select coalesce(max(id), 0) from videos").fetchone()
    db.conn.executemany(_INSERT, (_values(thing, at) for thing in things))
    # what triggers do for other rows and other changes; for each of these it would cost half as much as the row itself
    db.execute("insert into changes (kind, row) select 'video', id from videos where id > ?", [last])


def _values(thing: Found, at: str) -> tuple[Any, ...]:
    path = below(thing.root, thing.file_path)
    place: tuple[str | bytes, ...] = (thing.file_path, thing.root, path, parent(path))
    title = thing.title
    if not is_text(thing.file_path):
        place, title = tuple(stored(str(text)) for text in place), readable(title)
    state = "recording" if thing.growing else "recorded"
    return (
        *place, thing.kind, thing.size_bytes, thing.mtime_ns, thing.inode, thing.device, title, thing.streamer_id,
        thing.broadcast_id, state, at, at,
    )  # fmt: skip


def _move(db: Database, row: Row, thing: Found) -> None:
    """The same file lies elsewhere: its row goes with it, wherever it has come to."""
    facts = _place(thing)
    if row.identity != thing.identity:
        facts |= _content(thing)
    if row.state not in _DONE and thing.broadcast_id is None and _is_named_after(db, row):
        facts["title"] = readable(thing.title)
    rows(db, "videos").update(row.id, facts, conversions=PATH_COLUMNS)
    copies.look_around(db, row.id)
    _found_again(db, row)
    if row.state is State.RECORDING and not thing.growing:
        move(db, row.id, State.RECORDING, State.RECORDED)


def title_of(kind: str, path: str, root: str) -> str:
    """What a dropped thing is called until a sidecar says otherwise: its own name, or that of a playlist's folder."""
    folder, _, name = path.rpartition("/")
    if kind == "folder":
        return name
    return os.path.basename(folder) if kind == "playlist" and folder != root else os.path.splitext(name)[0]


def _make_way(db: Database, moved: Sequence[tuple[Row, Found]]) -> None:
    """Names are unique: those that move give theirs up first, for they may swap them. Of another row that has one of
    the new names, the file was replaced."""
    for row, _ in moved:
        _rename(db, row, "moving")
    for _, thing in moved:
        for row in _rows(db, f"file_path = {PATH}", [stored(thing.file_path)]):
            _give_way(db, row, "former")


def _rename(db: Database, row: Row, word: str) -> None:
    """Give a row's name up: it keeps one that no file has."""
    base, ending = os.path.splitext(row.file_path)
    (root,) = db.execute("select root from videos where id = ?", [row.id]).fetchone()
    path = f"{base} {word}-{row.id}{ending}"
    name = {"file_path": stored(path), "path": stored(below(root, path))}
    rows(db, "videos").update(row.id, name, conversions=PATH_COLUMNS)


def _is_named_after(db: Database, row: Row) -> bool:
    title, kind, root = db.execute("select title, kind, root from videos where id = ?", [row.id]).fetchone()
    return bool(title == readable(title_of(kind, row.file_path, root)))


def _change(db: Database, row: Row, thing: Found, content: Callable[[str], str]) -> None:
    """What lies at a row's path is not what it was, or is there again."""
    if row.state in _BUSY:
        return  # its owner notices for itself
    if row.removed and not (row.inode == thing.inode and row.looks_like(thing)):
        _give_way(db, row, "former")
        _insert(db, [thing])  # somebody put it there anew; a copy of what is published is known for one later
    elif row.looks_like(thing):
        rows(db, "videos").update(row.id, _content(thing))
        if row.state is State.RECORDING and not thing.growing:
            move(db, row.id, State.RECORDING, State.RECORDED)
        _found_again(db, row)
    elif row.state in _DONE:
        _change_of_uploaded(db, row, thing, content)
    elif row.state is State.HELD and _is_version(db, row):  # and so it stays, whatever version it is by now
        if not thing.growing:
            rows(db, "videos").update(row.id, _content(thing))
    elif row.inode != thing.inode and thing.kind == "file" and row.state is not State.RECORDING:
        _give_way(db, row, "former")
        _insert(db, [thing])
    else:
        fresh = {"attempts": 0, "retry_at": None, "last_error": None, "waits_for": None, "was": None, "same_as": None}
        rows(db, "videos").update(row.id, {**_content(thing), **fresh, "fingerprint": None})
        copies.free(db, row.id)
        target = State.RECORDING if thing.growing else State.RECORDED
        if row.state is not target:
            move(db, row.id, row.state, target)


def _change_of_uploaded(db: Database, row: Row, thing: Found, content: Callable[[str], str]) -> None:
    """What is uploaded stays uploaded. Other bytes under its name are a new version, which a person has to want."""
    if thing.growing:
        return
    size, fingerprint, bvid = db.execute(
        "select coalesce(u.source_size, v.file_size), v.fingerprint, v.bvid from videos v"
        " left join uploads u on u.video_id = v.id where v.id = ?",
        [row.id],
    ).fetchone()
    if size == thing.size_bytes and (fingerprint is None or content(thing.file_path) in (fingerprint, "")):
        rows(db, "videos").update(row.id, _content(thing))
        _found_again(db, row)
        return
    _give_way(db, row, bvid or "uploaded")
    _insert(db, [thing])
    (id,) = db.execute(f"select id from videos where file_path = {PATH}", [stored(thing.file_path)]).fetchone()
    why = (
        f"its file changed after it was uploaded{f' as {bvid}' if bvid else ''};"
        f" biliupd retry video:{id} publishes the new version, too"
    )
    move(db, id, State.RECORDED, State.HELD, last_error=why, version_of=row.id)


def _is_version(db: Database, row: Row) -> bool:
    (original,) = db.execute("select version_of from videos where id = ?", [row.id]).fetchone()
    return original is not None


def _give_way(db: Database, row: Row, word: str) -> None:
    """Another file has its name; its own lies elsewhere, which is found then, or nowhere."""
    _rename(db, row, word)
    _lose(db, row)


def _found_again(db: Database, row: Row) -> None:
    if row.state is State.MISSING:
        copies.come_back(db, row.id, row.was)
    elif row.removed:
        rows(db, "videos").update(row.id, {"removed_at": None})


def _lose(db: Database, row: Row) -> None:
    if row.state in _DONE and not row.removed:
        rows(db, "videos").update(row.id, {"removed_at": now()})
    if row.state not in _CAN_GO:
        return
    # back from missing it takes up where it was, but for a file that was still growing
    was = State.RECORDED if row.state is State.RECORDING else row.state
    move(db, row.id, row.state, State.MISSING, was=was)
    copies.free(db, row.id)


def _place(thing: Found) -> dict[str, Any]:
    path = below(thing.root, thing.file_path)
    return {
        "file_path": stored(thing.file_path), "root": stored(thing.root), "path": stored(path),
        "parent_path": stored(parent(path)),
    }  # fmt: skip


def _content(thing: Found) -> dict[str, Any]:
    return {
        "kind": thing.kind,
        "file_size": thing.size_bytes,
        "mtime_ns": thing.mtime_ns,
        "inode": thing.inode,
        "device": thing.device,
    }


Standing = tuple[str, int, int, int, int, bool, int]  #: path, size, mtime, inode, device, nothing is due, id


def rows_in(db: Database, root: str, folder: str) -> dict[str, Standing]:
    """By path, what is known of the files directly in a folder (its path below `root`), as plain tuples: a scan looks
    at 100,000 of them."""
    found = db.execute(
        "select file_path, file_size, mtime_ns, inode, device, kind = 'file' and removed_at is null"
        f" and state not in ('recording', 'missing'), id from videos where root = {PATH} and parent_path = {PATH}",
        [stored(root), stored(folder)],
    )
    return {row[0]: row for row in found}


def folders_of(db: Database, root: str) -> set[str]:
    """Every folder below `root` of which a row is known."""
    found = db.execute(f"select distinct parent_path from videos where root = {PATH}", [stored(root)])
    return {path for (path,) in found}


def count_of(db: Database, root: str) -> int:
    """Number of rows below `root`."""
    (count,) = db.execute(f"select count(*) from videos where root = {PATH}", [stored(root)]).fetchone()
    return int(count)


def rows_by_id(db: Database, ids: Sequence[int]) -> list[Row]:
    """These rows as they are now."""
    return [
        row for batch in _batches(ids, BATCH) for row in _rows(db, f"id in ({','.join('?' * len(batch))})", batch)
    ]


def rows_near(db: Database, found: Sequence[Found]) -> list[Row]:
    """The rows at these paths and those that share an inode with one of them."""
    near: dict[int, Row] = {}
    for batch in _batches(found, BATCH):
        paths, inodes = [stored(thing.file_path) for thing in batch], [thing.inode for thing in batch]
        for row in (
            *_rows(db, f"file_path in ({','.join([PATH] * len(batch))})", paths),
            *_rows(db, f"inode in ({','.join('?' * len(batch))})", inodes),
        ):
            near[row.id] = row
    return list(near.values())


def rows_below(db: Database, path: str) -> list[Row]:
    """The row of a file, or the rows of everything below a directory."""
    values = [stored(text) for text in (path, f"{path}/", f"{path}0")]  # 0 comes after /
    return _rows(db, f"file_path = {PATH} or (file_path > {PATH} and file_path < {PATH})", values)


def spoken_for(db: Database, paths: Sequence[str]) -> set[str]:
    """Those of `paths` that belong to another row: what a merge is making, and what was merged and is still there."""
    taken: set[str] = set()
    for batch in _batches(paths, BATCH):
        marks, values = ",".join([PATH] * len(batch)), [stored(path) for path in batch]
        found = db.execute(
            f"select output_path from videos where output_path is not null and output_path in ({marks}) union all"
            f" select merged_from from videos where merged_from is not null and source_gone = 0"
            f" and merged_from in ({marks})",
            [*values, *values],
        )
        taken.update(path for (path,) in found)
    return taken


def pieces(db: Database, root: str, folder: str, segments: Container[str], of: str) -> None:
    """Files of a folder that were taken for videos of their own until the playlist `of` came, which lists them."""
    ids = [row[6] for path, row in rows_in(db, root, folder).items() if path in segments]
    for row in rows_by_id(db, ids):
        if row.state in (State.RECORDING, State.RECORDED, State.READY, State.HELD):
            move(db, row.id, row.state, State.IGNORED, last_error=f"a segment of {readable(of)}")


def _rows(db: Database, where: str, values: Sequence[Any]) -> list[Row]:
    found = db.execute(
        "select id, file_path, file_size, mtime_ns, inode, device, state, was, removed_at is not null"
        f" from videos where {where}",
        values,
    )
    return [
        Row(id, path, size, mtime_ns, inode, device, State(state), State(was) if was else None, bool(removed))
        for id, path, size, mtime_ns, inode, device, state, was, removed in found
    ]


def _batches(things: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    source = iter(things)
    while batch := list(islice(source, size)):
        yield batch

"""What has settled in the watched directories → rows in the catalog.

Runs on the watcher's thread. Reads `broadcast.json` and the ends of playlists; the listing itself comes from `watch`,
the decision what changed from `catalog.sync`. This is the one door for recordings and dropped files alike.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from biliupd.catalog import records, sync
from biliupd.catalog.database import Catalog
from biliupd.catalog.sync import VIDEO_ENDINGS, Found
from biliupd.errors import PermanentError
from biliupd.record import broadcast as broadcast_file
from biliupd.record.broadcast import Broadcast
from biliupd.watch.listing import Entry
from biliupd.watch.settle import Settled

PLAYLIST = ".m3u8"
BROADCAST = "broadcast.json"
MANY = 50  #: that many rows missing at once, and a fifth of all, are believed only when a second scan says so, too


class _Place(NamedTuple):
    """What a directory says of the files in it."""

    broadcast: Broadcast | None
    streamer_id: int | None
    title: str


class Intake:
    """Joins `Watcher` and `catalog`; its methods are the callables the watcher is given."""

    def __init__(self, catalog: Catalog, recordings: Path, roots: Sequence[Path]) -> None:
        self._catalog = catalog
        self._recordings = os.path.abspath(recordings)
        self._roots: list[str] = []
        self.apply(roots)
        self._doubtful: dict[str, set[int]] = {}
        self._refused: set[str] = set()

    def apply(self, roots: Sequence[Path]) -> None:
        """Other directories are watched from now on."""
        self._roots = [os.path.abspath(root) for root in roots]

    def settled(self, batch: Sequence[Settled]) -> None:
        """Paths that came to rest, still grow, or are gone."""
        db = self._catalog.db
        entries: list[Entry] = []
        growing: set[str] = set()
        for thing in batch:
            if not thing.entries:
                self._gone(thing.path)
                continue
            entries += thing.entries
            if thing.growing:
                growing.update(entry.path for entry in thing.entries)
        found = self._found(entries, growing)
        changes = sync.compare(found, sync.rows_near(db, found), exists=os.path.lexists, all_listed=False)
        self._write(changes)

    def scanned(self, root: Path, listing: list[Entry], complete: bool) -> list[Entry]:
        """A whole root: what is gone is written down; what is new or changed is returned, to settle first."""
        db, here = self._catalog.db, os.path.abspath(root)
        known = sync.rows_of_root(db, here)
        found = self._found(listing, set())
        changes = sync.compare(found, known, exists=os.path.lexists, all_listed=complete)
        if self._believable(here, changes.gone, len(known)):
            sync.apply(db, sync.Changes(gone=changes.gone))
            for row in changes.gone:
                logger.bind(video=row.id).warning("{} is gone", row.file_path)
        fresh = {thing.file_path for thing in changes.added}
        fresh.update(thing.file_path for _, thing in (*changes.changed, *changes.moved))
        folders = {os.path.dirname(path) for path in fresh if path.endswith(PLAYLIST)}
        self._broadcasts(entry.path for entry in listing)
        return [entry for entry in listing if entry.path in fresh or os.path.dirname(entry.path) in folders]

    def broadcast(self, directory: Path) -> None:
        """A broadcast began: its row need not wait for its files to settle."""
        self._broadcast(os.path.abspath(directory))

    def broadcast_over(self, id: str) -> None:
        """A broadcast ended; one that recorded nothing left no folder, and leaves no row."""
        row = records.get_broadcast(self._catalog.db, id)
        if row is not None and self._broadcast(row["directory"]) is None and not os.path.lexists(row["directory"]):
            records.forget_broadcast(self._catalog.db, id)

    def root(self, root: Path, trouble: str) -> None:
        """A watched directory went away, or came back (no trouble)."""
        records.notice(self._catalog.db, f"root:{root}", f"{root}: {trouble}" if trouble else "")

    def _believable(self, root: str, gone: Sequence[sync.Row], known: int) -> bool:
        """An emptied directory is an accident until a second scan says the same."""
        ids = {row.id for row in gone}
        if len(gone) > MANY and len(gone) * 5 > known and not ids <= self._doubtful.get(root, set()):
            self._doubtful[root] = ids
            text = f"{len(gone)} of {known} known files are not there; nothing is changed until a second scan agrees"
            records.notice(self._catalog.db, f"emptied:{root}", f"{root}: {text}")
            logger.error("{}: {}", root, text)
            return False
        self._doubtful.pop(root, None)
        records.notice(self._catalog.db, f"emptied:{root}", "")
        return True

    def _gone(self, path: str) -> None:
        rows = [row for row in sync.rows_below(self._catalog.db, path) if not os.path.lexists(row.file_path)]
        changes = sync.compare([], rows, exists=os.path.lexists, all_listed=True)
        sync.apply(self._catalog.db, changes)
        for row in changes.gone:
            logger.bind(video=row.id).warning("{} is gone", row.file_path)

    def _write(self, changes: sync.Changes) -> None:
        sync.apply(self._catalog.db, changes)
        for thing in changes.added:
            if not thing.growing:
                logger.info("new in the library: {}", thing.file_path)
        for row, thing in changes.moved:
            logger.bind(video=row.id).info("{} is now {}", row.file_path, thing.file_path)

    def _found(self, entries: Sequence[Entry], growing: set[str]) -> list[Found]:
        """The files among `entries` that deserve a row."""
        taken = sync.spoken_for(self._catalog.db)
        folders: dict[str, list[Entry]] = {}
        for entry in entries:
            folders.setdefault(os.path.dirname(entry.path), []).append(entry)
        found: list[Found] = []
        for folder, here in folders.items():
            root = next((r for r in self._roots if folder == r or folder.startswith(r + os.sep)), None)
            if root is None:
                continue
            place = self._place(folder, root)
            playlists = [entry for entry in here if entry.path.endswith(PLAYLIST)]
            segments = _segment_endings(folder, root, bool(playlists))
            for entry in here:
                name = os.path.basename(entry.path)
                if name == BROADCAST or entry.path in taken or not self._speakable(entry.path):
                    continue
                ending = os.path.splitext(name)[1].lower()
                if entry in playlists:
                    size = sum(e.size_bytes for e in here if os.path.splitext(e.path)[1].lower() in segments)
                    still = entry.path in growing or self._unfinished(entry.path, place)
                    found.append(_as_found(entry, root, "playlist", still, place, size_bytes=size))
                elif ending in VIDEO_ENDINGS and ending not in segments:
                    found.append(_as_found(entry, root, "file", entry.path in growing, place))
        return found

    def _unfinished(self, playlist: str, place: _Place) -> bool:
        """Our own recorder closes its playlists, even after a crash; others may leave theirs open."""
        if place.broadcast is None or place.broadcast.ended_at is not None:
            return False
        try:
            return b"#EXT-X-ENDLIST" not in Path(playlist).read_bytes()[-200:]
        except OSError:
            return True

    def _place(self, folder: str, root: str) -> _Place:
        """The broadcast a directory belongs to: its own `broadcast.json`, or that of the directory above."""
        if root == self._recordings:
            for directory in (folder, os.path.dirname(folder)):
                if directory.startswith(root + os.sep) and (known := self._broadcast(directory)):
                    return known
        return _Place(None, None, "")

    def _broadcast(self, directory: str) -> _Place | None:
        """Reads `broadcast.json` and keeps the row of that broadcast in step with it."""
        try:
            facts = broadcast_file.read(Path(directory))
        except PermanentError as error:
            if directory not in self._refused:
                self._refused.add(directory)
                logger.error("{}", error)
            return None
        if facts is None:
            return None
        db = self._catalog.db
        streamer = records.streamer_id(db, facts.streamer, platform=facts.platform, url=facts.url)
        records.broadcast(
            db,
            {
                "id": facts.id, "streamer_id": streamer, "title": facts.title, "cover_url": facts.cover_url,
                "live_id": facts.live_id, "directory": directory, "started_at": facts.started_at,
                "ended_at": facts.ended_at, "parts": len(facts.files),
            },
        )  # fmt: skip
        return _Place(facts, streamer, facts.title)

    def _broadcasts(self, paths: Iterable[str]) -> None:
        for path in paths:
            if os.path.basename(path) == BROADCAST and path.startswith(self._recordings + os.sep):
                self._broadcast(os.path.dirname(path))

    def _speakable(self, path: str) -> bool:
        """Names that are no valid text cannot be catalogued yet; said once, and the file stays where it is."""
        try:
            path.encode()
        except UnicodeEncodeError:
            if path not in self._refused:
                self._refused.add(path)
                logger.error("{}: its name is not UTF-8; rename it, then it is taken", path)
            return False
        return True


def _segment_endings(folder: str, root: str, has_playlist: bool) -> tuple[str, ...]:
    """Which files of a directory are pieces of its playlist, not videos of their own."""
    if not has_playlist:
        try:
            has_playlist = any(name.endswith(PLAYLIST) for name in os.listdir(folder))
        except OSError:
            return ()
    if not has_playlist:
        return ()
    return (".ts", ".m4s") if folder == root else (".ts", ".m4s", ".mp4", ".m4v")


def _as_found(entry: Entry, root: str, kind: str, growing: bool, place: _Place, size_bytes: int | None = None) -> Found:
    title = Path(entry.path).parent.name if kind == "playlist" else Path(entry.path).stem
    return Found(
        entry.path, root, kind, entry.size_bytes if size_bytes is None else size_bytes, entry.mtime_ns, entry.inode,
        entry.device, growing, title, place.broadcast.id if place.broadcast else None, place.streamer_id, None,
    )  # fmt: skip


"""What has settled in the watched directories → rows in the catalog.

Runs on the watcher's thread. Reads `broadcast.json` and the ends of playlists; the listing itself comes from `watch`,
the decision what changed from `catalog.sync`. This is the one door for recordings and dropped files alike.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from biliupd import sidecars
from biliupd.catalog import ledgers, records, sync, videos
from biliupd.catalog.database import Catalog, write
from biliupd.catalog.paths import below
from biliupd.catalog.sync import VIDEO_ENDINGS, Found
from biliupd.config import WatchConfig
from biliupd.edit import loose
from biliupd.edit import playlist as playlists
from biliupd.edit.fingerprint import fingerprint
from biliupd.errors import BiliupdError, PermanentError
from biliupd.pipeline.orders import stamp_of
from biliupd.record import broadcast as broadcast_file
from biliupd.record.broadcast import Broadcast
from biliupd.watch import listing
from biliupd.watch.listing import Entry
from biliupd.watch.settle import Settled

PLAYLIST = ".m3u8"
BROADCAST = "broadcast.json"
MANY = 50  #: that many rows missing at once, and a fifth of all, are believed only when a second scan says so, too
FEWEST_SEGMENTS = 10  #: of a folder without a playlist that is one video all the same
LARGEST_SEGMENT_BYTES = 64 << 20
MASTER_LEVELS = 3  #: so far above a playlist its master is looked for
LARGEST = 1e15  #: a number in broadcast.json that is larger is none
_PIECES = (".ts", ".m4s", ".mp4", ".m4v")  #: what a playlist's folder holds of it
_NO_VIDEOS = (PLAYLIST, ".m4s", ".m4i")  #: nothing by themselves
_ENDINGS = frozenset((*VIDEO_ENDINGS, *_NO_VIDEOS))


class _Place(NamedTuple):
    """What a directory says of the files in it."""

    broadcast: Broadcast | None
    streamer_id: int | None


class Intake:
    """Joins `Watcher` and `catalog`; its methods are the callables the watcher is given."""

    def __init__(self, catalog: Catalog, recordings: Path, roots: Sequence[Path]) -> None:
        self._catalog = catalog
        self._recordings = os.path.abspath(recordings)
        self._roots: list[str] = []
        self.apply(roots)
        self.doubtful: dict[str, set[int]] = {}
        self._refused: set[str] = set()
        self._fragments: dict[str, dict[str, str]] = {}  # by broadcast and file: why it is not published
        self._missing: dict[str, tuple[object, ...]] = {}  # by open broadcast: its ledger as it was read

    def apply(self, roots: Sequence[Path]) -> None:
        """Other directories are watched from now on."""
        self._roots = [os.path.abspath(root) for root in roots]

    def settled(self, batch: Sequence[Settled]) -> None:
        """Paths that came to rest, still grow, or are gone."""
        entries: list[Entry] = []
        growing: set[str] = set()
        for thing in batch:
            if not thing.entries:
                self._gone(thing.path)
            entries += thing.entries
            if thing.growing:
                growing.update(entry.path for entry in thing.entries)
        self.sidecars(thing.path for thing in batch)
        folders: dict[str, list[Entry]] = {}
        for entry in entries:
            folders.setdefault(entry.path.rpartition("/")[0], []).append(entry)
        found: list[Found] = []
        for folder, here in folders.items():
            root = self._root_of(folder)
            if root is None:
                continue
            if self.is_ours(folder) and any(entry.path.endswith("/" + BROADCAST) for entry in here):
                self.read_broadcast(folder, only_news=len(here) == 1)
            found += self.found(folder, root, here, growing)
        db = self._catalog.db
        changes = sync.compare(found, sync.rows_near(db, found), lies_there=_lies_there)
        fragments = {thing.broadcast_id for thing in found} & self._fragments.keys()
        with write(db) if fragments else contextlib.nullcontext():  # no worker takes one in between
            sync.apply(db, changes, fingerprint)
            for id in filter(None, fragments):
                videos.set_aside(db, id, self._fragments[id])
        for new in changes.added:
            if not new.growing:
                logger.info("new in the library: {}", new.file_path)
        for row, new in changes.moved:
            logger.bind(video=row.id).info("{} is now {}", row.file_path, new.file_path)

    def survey(self, root: Path) -> "Survey":
        """A scan of a root begins."""
        return Survey(self, self._catalog, os.path.abspath(root))

    def broadcast(self, directory: Path) -> None:
        """A broadcast began: its row need not wait for its files to settle."""
        self.read_broadcast(os.path.abspath(directory))

    def broadcast_told(self, id: str) -> None:
        """A recorder of a broadcast ended, or all of it did; one that recorded nothing left no folder, and leaves no
        row."""
        row = records.get_broadcast(self._catalog.db, id)
        if row is not None and self.read_broadcast(row["directory"]) is None and not os.path.lexists(row["directory"]):
            records.forget_broadcast(self._catalog.db, id)

    def forget_what_was_read(self) -> None:
        """The next scan reads every broadcast.json and sidecar again. Any thread."""
        records.forget_what_was_read(self._catalog.db)

    def root(self, root: Path, trouble: str) -> None:
        """A watched directory went away, or came back (no trouble)."""
        records.notice(self._catalog.db, f"root:{root}", f"{root}: {trouble}" if trouble else "")

    def is_ours(self, path: str) -> bool:
        """Whether a path lies in the recordings, where broadcasts are."""
        return path.startswith(self._recordings + os.sep)

    def sidecars(self, paths: Iterable[str]) -> None:
        """Some of these may be sidecars, there or gone."""
        for path in filter(sidecars.is_sidecar, paths):
            root = self._root_of(os.path.dirname(path))
            if root is not None and root != self._recordings:
                sidecars.look(self._catalog.db, path)

    def _root_of(self, folder: str) -> str | None:
        return next((root for root in self._roots if folder == root or folder.startswith(root + os.sep)), None)

    def _gone(self, path: str) -> None:
        db = self._catalog.db
        changes = sync.gone(row for row in sync.rows_below(db, path) if not os.path.lexists(row.file_path))
        sync.apply(db, changes)
        for row in changes.gone:
            logger.bind(video=row.id).warning("{} is gone", row.file_path)

    def found(self, folder: str, root: str, here: Sequence[Entry], growing: set[str]) -> list[Found]:
        """The files among `here`, all of them directly in `folder`, that deserve a row."""
        here = [entry for entry in here if is_video(entry.path)]
        if not here:
            return []
        taken = sync.spoken_for(self._catalog.db, [folder, *(entry.path for entry in here)])
        here = [entry for entry in here if entry.path not in taken]
        place = self._place(folder, root)
        lists = [entry for entry in here if entry.path.endswith(PLAYLIST)]
        ours = place.broadcast is not None
        segments = _segments(folder, root, here, lists, ours)
        if lists and not ours:
            segments |= _named_by_masters(folder, root)
        found: list[Found] = []
        if not segments and (numbered := _numbered(folder, root, here)):
            segments = {entry.path for entry in numbered}
            if folder not in taken:
                found.append(_as_folder(folder, root, numbered, growing, place))
        if segments and (lists or found):
            whole = os.path.basename(lists[0].path if lists else folder)
            sync.pieces(self._catalog.db, root, below(root, folder), segments, whole)
        for entry in lists:
            if entry.path in segments:
                continue
            size = sum(e.size_bytes for e in here if e.path in segments)
            still = entry.path in growing or _unfinished(entry.path, place)
            found.append(_as_found(entry, root, "playlist", still, place, size_bytes=size))
        for entry in here:
            if entry.path not in segments and not entry.path.lower().endswith(_NO_VIDEOS):
                found.append(_as_found(entry, root, "file", entry.path in growing, place))
        return found

    def _place(self, folder: str, root: str) -> _Place:
        """The broadcast a directory belongs to: its own `broadcast.json`, or that of the directory above."""
        if root == self._recordings:
            for directory in (folder, os.path.dirname(folder)):
                if self.is_ours(directory) and (known := self.read_broadcast(directory)):
                    return known
        return _Place(None, None)

    def read_broadcast(self, directory: str, *, only_news: bool = False) -> _Place | None:
        """Keeps the row of a broadcast in step with its `broadcast.json`.

        A recorder that runs writes its figures there every ten seconds; only what is missing in its ledger is news.
        """
        stamp = stamp_of(Path(directory, BROADCAST))
        try:
            facts = broadcast_file.read(Path(directory))
        except PermanentError as error:
            if directory not in self._refused:
                self._refused.add(directory)
                logger.error("{}", error)
            return None
        if facts is None:
            return None
        db, figures = self._catalog.db, facts.figures
        streamer = records.streamer_id(db, facts.streamer, platform=facts.platform, url=facts.url)
        fragments = {
            os.path.join(directory, str(file["name"])): f"a fragment of {_number(file.get('seconds')):.1f} s;"
            " biliupd retry publishes it"
            for file in facts.files if file.get("fragment") and file.get("name")
        }  # fmt: skip
        missing = (len(facts.ledger), figures.gaps, figures.lost_seconds)
        same = fragments == self._fragments.get(facts.id, {}) and missing == self._missing.get(facts.id)
        if only_news and same and broadcast_file.alive(facts):
            return _Place(facts, streamer)
        self._missing[facts.id] = missing
        if facts.ended_at is not None:
            del self._missing[facts.id]
        if fragments:
            self._fragments[facts.id] = fragments
        with write(db):
            changed = records.broadcast(
                db,
                {
                    "id": facts.id, "streamer_id": streamer, "title": facts.title, "cover_url": facts.cover_url,
                    "live_id": facts.live_id, "directory": directory, "started_at": facts.started_at,
                    "ended_at": facts.ended_at, "parts": len(facts.files), "file": stamp,
                    "first_media_at": facts.first_media_at, "last_media_at": facts.last_media_at,
                    "live_seconds": _number(figures.live_seconds), "media_seconds": _number(figures.media_seconds),
                    "lost_seconds": _number(figures.lost_seconds), "gaps": int(_number(figures.gaps)),
                },
            )  # fmt: skip
            if changed:
                ledgers.keep(db, facts.id, [_ledger_row(row) for row in facts.ledger])
                videos.set_aside(db, facts.id, fragments)
        return _Place(facts, streamer)


class Survey:
    """One scan of a root: folder by folder against the rows, so that nothing but what differs is kept in memory."""

    def __init__(self, intake: Intake, catalog: Catalog, root: str) -> None:
        self._intake, self._catalog, self._root = intake, catalog, root
        self._unvisited = sync.folders_of(catalog.db, root)
        self._broadcasts = records.broadcast_files(catalog.db)
        self._absent: list[int] = []

    def look(self, directory: str, entries: list[Entry]) -> list[Entry]:
        """All regular files directly in a directory → those that are new or changed, which have to settle first."""
        db, folder = self._catalog.db, below(self._root, directory)
        known = sync.rows_in(db, self._root, folder) if folder in self._unvisited else {}
        self._unvisited.discard(folder)
        rest = []
        seen = 0
        for entry in entries:
            row = known.get(entry[0])
            if row is not None:
                seen += 1
                if row[5] and row[1] == entry[1] and row[2] == entry[2] and row[3] == entry[4] and row[4] == entry[5]:
                    continue
            rest.append(entry)
        if seen != len(known):
            present = {entry.path for entry in entries}
            self._absent += [row[6] for path, row in known.items() if path not in present]
        if not rest:
            return []
        self._intake.sidecars(entry.path for entry in rest)
        return self._differing(directory, entries, rest)

    def end(self, complete: bool) -> None:
        """The scan is over: rows whose files were not found are looked for once more, and are gone."""
        if not complete:
            return
        db = self._catalog.db
        sidecars.look_for_gone(db, self._root)
        for folder in self._unvisited:
            self._absent += [row[6] for row in sync.rows_in(db, self._root, folder).values()]
        # rows as they are now: a file may have been moved, or merged into another, while the scan went on
        rows = [row for row in sync.rows_by_id(db, self._absent) if not os.path.lexists(row.file_path)]
        changes = sync.gone(rows)
        if self._believable(changes.gone):
            sync.apply(db, changes)
            for row in changes.gone:
                logger.bind(video=row.id).warning("{} is gone", row.file_path)

    def _differing(self, directory: str, entries: list[Entry], rest: list[Entry]) -> list[Entry]:
        """The files that differ, out of those of which no row says just what the disk says."""
        if self._intake.is_ours(directory):
            path = Path(directory, BROADCAST)
            if any(entry.path == str(path) for entry in rest) and self._broadcasts.get(directory) != stamp_of(path):
                self._intake.read_broadcast(directory)
        if not any(entry.path.endswith(PLAYLIST) for entry in rest):
            return [entry for entry in rest if is_video(entry.path)]
        found = self._intake.found(directory, self._root, entries, set())
        changes = sync.compare(found, sync.rows_near(self._catalog.db, found), lies_there=_lies_there)
        fresh = {thing.file_path for thing in changes.added}
        fresh.update(thing.file_path for _, thing in (*changes.changed, *changes.moved))
        return [entry for entry in rest if entry.path in fresh]

    def _believable(self, gone: Sequence[sync.Row]) -> bool:
        """An emptied directory is an accident until a second scan says the same."""
        db, root, doubtful = self._catalog.db, self._root, self._intake.doubtful
        ids = {row.id for row in gone}
        if len(gone) > MANY and not ids <= doubtful.get(root, set()):
            known = sync.count_of(db, root)
            if len(gone) * 5 > known:
                doubtful[root] = ids
                text = (
                    f"{len(gone)} of {known} known files are not there;"
                    " nothing is changed until a second scan agrees"
                )
                records.notice(db, f"emptied:{root}", f"{root}: {text}")
                logger.error("{}: {}", root, text)
                return False
        if doubtful.pop(root, None) is not None:
            records.notice(db, f"emptied:{root}", "")
        return True


def _ledger_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a ledger as anybody may have left it."""
    numbers = {name: _number(row.get(name)) for name in ("media_seconds_at", "seconds")}
    return {name: numbers[name] if name in numbers else str(row.get(name, "")) for name in ledgers.COLUMNS}


def _number(found: object) -> float:
    """A number that a table takes."""
    return float(found) if isinstance(found, int | float) and 0 <= found <= LARGEST else 0.0


def fill(intake: Intake, root: Path, watch: WatchConfig) -> list[str]:
    """A whole root at once, without a watcher: what may still be growing is noted as such, and settles at the next
    start. What could not be listed. Raises TemporaryError when the catalog cannot be written."""
    unreadable: list[str] = []
    survey = intake.survey(root)
    for folder, entries in listing.scan(
        os.path.abspath(root), watch.ignore, lambda path, error: unreadable.append(f"{path}: {error.strerror}")
    ):
        if survey.look(folder, entries):
            since_ns = int((time.time() - watch.network_quiet_seconds) * 1e9)
            young = any(max(entry.mtime_ns, entry.ctime_ns) > since_ns for entry in entries)
            intake.settled([Settled(folder, tuple(entries), growing=young)])
    survey.end(not unreadable)
    return unreadable


def is_video(path: str) -> bool:
    """Whether a file is a video, a piece of one or a playlist, by its name."""
    return path[path.rfind(".") :].lower() in _ENDINGS


def _lies_there(row: sync.Row) -> bool:
    """Whether a row's file is still what lies at its path; a playlist's row has the size of its segments."""
    try:
        status = os.stat(row.file_path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino, status.st_mtime_ns) == (row.device, row.inode, row.mtime_ns)


def _unfinished(playlist: str, place: _Place) -> bool:
    """Our own recorder closes its playlists, even after a crash; others may leave theirs open."""
    if place.broadcast is None or place.broadcast.ended_at is not None:
        return False
    try:
        with open(playlist, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200))
            return b"#EXT-X-ENDLIST" not in file.read()
    except OSError:
        return True


def _segments(folder: str, root: str, here: Sequence[Entry], lists: Sequence[Entry], ours: bool) -> set[str]:
    """Which files of a folder are pieces of its playlists, not videos of their own."""
    names = {entry.path for entry in lists}
    pieces = [entry.path for entry in here if entry.path.lower().endswith(_PIECES)]
    if pieces:
        names.update(_playlists_in(folder))
    if folder == root and not ours:  # beside a playlist at the top lie other things, too
        return {path for name in names for path in _listed(name)[0]}
    return set(pieces) if names else set()


def _named_by_masters(folder: str, root: str) -> set[str]:
    """Playlists that a master playlist beside or above them names: the master is the video."""
    named: set[str] = set()
    for _ in range(MASTER_LEVELS):
        for playlist in _playlists_in(folder):
            named |= _listed(playlist)[1]
        if folder == root:
            break
        folder = os.path.dirname(folder)
    return named


def _listed(playlist: str) -> tuple[set[str], set[str]]:
    """The files a media playlist names, and the playlists a master playlist does."""
    try:
        listing = playlists.read(Path(playlist))
    except BiliupdError:
        return set(), set()
    files = [ref for entry in listing.entries for ref in (entry.segment, entry.init) if ref]
    lists = [ref for variant in listing.variants for ref in (variant.playlist, variant.audio) if ref]
    base = os.path.dirname(playlist)

    def paths(refs: Sequence[playlists.Ref]) -> set[str]:
        return {os.path.join(base, name) for ref in refs for name in playlists.spellings(ref.name)}

    return paths(files), paths(lists)


def _numbered(folder: str, root: str, here: Sequence[Entry]) -> list[Entry]:
    """The pieces in a folder that a downloader left without a playlist; empty when it is another kind of folder.

    A few large files with numbers are parts that somebody recorded so, and stay apart.
    """
    if folder == root or len(here) < FEWEST_SEGMENTS or not any(listing.is_segment(entry.path) for entry in here):
        return []
    try:
        names = loose.files(os.listdir(folder))
    except OSError:
        return []
    found = [entry for entry in here if os.path.basename(entry.path) in names]
    if len(found) != len(names) or len(found) < FEWEST_SEGMENTS:
        return []
    return found if max(entry.size_bytes for entry in found) <= LARGEST_SEGMENT_BYTES else []


def _as_folder(folder: str, root: str, pieces: Sequence[Entry], growing: set[str], place: _Place) -> Found:
    newest = max(pieces, key=lambda entry: entry.mtime_ns)
    size = sum(entry.size_bytes for entry in pieces)
    whole = newest._replace(path=folder, inode=os.stat(folder).st_ino)
    return _as_found(whole, root, "folder", any(entry.path in growing for entry in pieces), place, size_bytes=size)


def _playlists_in(folder: str) -> list[str]:
    """Those that are files: a pipe or a folder of such a name has no segments."""
    try:
        names = [name for name in os.listdir(folder) if name.endswith(PLAYLIST) and name[0] != "."]
    except OSError:
        return []
    return [path for name in names if os.path.isfile(path := os.path.join(folder, name))]


def _as_found(entry: Entry, root: str, kind: str, growing: bool, place: _Place, size_bytes: int | None = None) -> Found:
    title = sync.title_of(kind, entry.path, root)
    if place.broadcast is not None and place.broadcast.title:
        title = f"{place.broadcast.title} {title}"  # every show has a P001
    return Found(
        entry.path, root, kind, entry.size_bytes if size_bytes is None else size_bytes, entry.mtime_ns, entry.inode,
        entry.device, growing, title, place.broadcast.id if place.broadcast else None, place.streamer_id,
    )  # fmt: skip

"""Daily copies of the catalog, and a new one out of what is left of one that was damaged or lost.

`keep` runs on the tidying worker, `mend` on the main thread before anything opens the catalog, `rebuild` in a command
that holds the daemon's lock. They touch the catalog, its copies and the files kept aside, all in its own folder.
"""

import json
import os
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loguru import logger
from sqlite_utils import Database

from biliupd.catalog.database import (
    BACKUPS,
    COPY,
    Damaged,
    ailment,
    connect,
    copy,
    migrate,
    now,
    put_in_place,
    refuse_newer,
    write,
)
from biliupd.catalog.salvage import carry_over, forget_what_a_scan_finds, tie_up
from biliupd.catalog.states import Stage, State, advance
from biliupd.errors import BiliupdError, PermanentError, TemporaryError

EVERY = timedelta(days=1)
_DAILY = "daily-%Y%m%dT%H%M%SZ.db"
_HISTORY = "what was published since then is looked up at Bilibili before anything is sent"


@dataclass(frozen=True)
class Rebuilt:
    """What `rebuild` made a catalog of."""

    aside: Path | None  #: where the old one is kept
    sources: Sequence[Path]  #: what was read for it
    unreadable: int  #: gaps, of one row or many, that nothing could be made of
    videos: int  #: carried over: those that were sent to Bilibili, or pinned
    submissions: int


def default_target(path: Path) -> Path:
    """Where a copy made by hand goes: beside the daily ones, but it is not one of them."""
    return path.parent / BACKUPS / f"{path.stem}-{_stamp()}.db"


def keep(path: Path, count: int) -> Path | None:
    """Make the copy of the day, unless there is one, and remove the oldest beyond `count`; 0: leave all as it is.

    Raises as `copy` does; the older ones stay then.
    """
    kept = sorted((path.parent / BACKUPS).glob("daily-*.db"))
    at = datetime.now(UTC)
    if count == 0 or (kept and abs(at - _made_at(kept[-1])) < EVERY):
        return None
    made = path.parent / BACKUPS / at.strftime(_DAILY)
    copy(path, made)
    for old in kept[: max(0, len(kept) + 1 - count)]:
        with suppress(OSError):
            old.unlink()
    return made


def _made_at(copied: Path) -> datetime:
    try:
        return datetime.strptime(copied.name, _DAILY).replace(tzinfo=UTC)
    except ValueError:  # somebody's own
        return datetime.min.replace(tzinfo=UTC)


def told(path: Path) -> str:
    """What `mend` has to say, until somebody removes the file in which it says so."""
    try:
        said = _note(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return f"{said} Read it? Then remove {_note(path)}" if said else ""


def mend(path: Path, *, unclean: bool) -> None:
    """Before the catalog is opened: see that it is whole, else put the newest good copy in its place.

    Without one it is made of what can still be read of it. `unclean`: its last owner did not end properly, so that it
    is looked at thoroughly, and its absence is an accident. What was damaged is kept aside. Raises TemporaryError when
    the disk cannot be read or written now.
    """
    if not os.path.exists(path):
        set_aside(path, "corrupt")  # a log alone is nothing, and must not be played into another file
    why = _illness(path, unclean)
    if not why:
        return
    logger.error("{}: {}", path, why)
    part = _fresh_part(path)
    try:
        origin = _from_a_copy(path, part)
        if origin is None and os.path.exists(path) and os.path.getsize(path):
            origin = _from_what_is_left(path, part)
        aside = set_aside(path, "corrupt")
        text = f"{now():.19}Z: {path}: {why}. " + (f"It is kept as {aside}. " if aside else "") + (
            f"{origin}; {_HISTORY}. " if origin else
            "There was no good copy, so the library is made anew from the folders; what is older is looked up at "
            "Bilibili before anything is sent. ")  # fmt: skip
        _say(path, text)
        if origin:
            put_in_place(part, path)
    except OSError as error:
        raise TemporaryError(f"{path}: {why}; it cannot be mended: {error.strerror}", hint="make room, or write there"
                             ) from error  # fmt: skip
    finally:
        _remove(part)
    logger.error("{}", text)


def heed_copy(path: Path, db: Database) -> None:
    """After the catalog was opened: is it a copy that somebody put there? It knows nothing of what was sent since.

    Raises TemporaryError when that cannot be written down.
    """
    (mark,) = db.execute("pragma user_version").fetchone()
    if mark != COPY:
        return
    text = f"{now():.19}Z: {path} is a copy that somebody put there; {_HISTORY}."
    try:
        _say(path, text)
    except OSError as error:
        raise TemporaryError(f"{path}: {error.strerror}", hint="make room, or write there") from error
    doubt(db)
    logger.warning("{}", text)


def _say(path: Path, text: str) -> None:
    with _note(path).open("a", encoding="utf-8", errors="backslashreplace") as note:
        note.write(text + "\n")


def _illness(path: Path, unclean: bool) -> str:
    beside = (path.parent / BACKUPS, path.parent / "covers", _log(path))
    if not os.path.exists(path):
        return "it was gone" if unclean and _copies(path) else ""
    if os.path.getsize(path) == 0:  # for SQLite a new database
        return "the file was empty" if any(map(os.path.exists, beside)) else ""
    why = ailment(path, thorough=unclean)
    return f"it was damaged ({why})" if why else ""


def _from_a_copy(path: Path, part: Path) -> str | None:
    for found in _copies(path):
        try:
            if why := ailment(found, thorough=True):
                raise Damaged(found, why)
            refuse_newer(found)
            copy(found, part)
            with closing(connect(part)) as db:
                migrate(db)
                doubt(db)
        except PermanentError as error:
            logger.error("this copy cannot be used: {}", error)
            _remove(part)
            continue
        at = datetime.fromtimestamp(found.stat().st_mtime, UTC)
        return f"The copy {found} of {at:%Y-%m-%d %H:%M} UTC took its place"
    return None


def _from_what_is_left(path: Path, part: Path) -> str | None:
    try:
        with closing(connect(part)) as db:
            migrate(db)
            unreadable = carry_over(db, path)
            tie_up(db)
            doubt(db)
    except PermanentError as error:
        logger.error("nothing can be read of it: {}", error)
        return None
    return f"There was no good copy, so it was made anew of what could be read ({unreadable} gaps)"


def rebuild(path: Path) -> Rebuilt:
    """A new catalog in the place of the old one, which is kept aside.

    Carried over is what no directory tells: what was sent to Bilibili, its history, accounts, users, what is pinned.
    Where the old one cannot be read the newest good copy fills in. The rest is for the next scan to find. Raises
    PermanentError for a catalog of a newer biliupd, TemporaryError when the disk cannot be written.
    """
    with suppress(Damaged):
        refuse_newer(path)
    part = _fresh_part(path)
    sources: list[Path] = []
    unreadable = 0
    try:
        with closing(connect(part)) as db:
            migrate(db)
            good = (found for found in _copies(path) if not ailment(found))
            for source in (path, next(good, None)):
                if source is None or not os.path.exists(source) or (sources and not unreadable):
                    continue
                try:
                    unreadable += carry_over(db, source)
                    sources.append(source)
                except BiliupdError as error:
                    logger.error("nothing can be read of {}: {}", source, error)
                    unreadable += 1
            forget_what_a_scan_finds(db)
            tie_up(db)
            doubt(db)
            videos, submissions = (int(db[name].count) for name in ("videos", "submissions"))
        if why := ailment(part, thorough=True):
            raise Damaged(part, why)
        aside = set_aside(path, "before")
        put_in_place(part, path)
    except OSError as error:
        raise TemporaryError(f"{path} cannot be made anew: {error.strerror}") from error
    finally:
        _remove(part)
    return Rebuilt(aside, sources, unreadable, videos, submissions)


def doubt(db: Database) -> None:
    """This catalog may lack the latest that happened: whatever it would send is looked up at Bilibili before.

    Videos that are not uploaded yet are older than `made_at` now. Of a submission whose parts are uploaded it is not
    known any more whether it was sent, so that it takes the way of one whose answer was lost.
    """
    with write(db):
        db.execute("pragma user_version = 0")
        db.execute("update _sqlite_migrations set applied_at = ?", [str(datetime.now(UTC))])
        for id, state, since in db.execute(
            "select id, state, created_at from submissions where state in (?, ?) and bvid is null",
            [Stage.COLLECTING, Stage.HELD],
        ).fetchall():
            names = [name for (name,) in db.execute(
                "select u.filename from uploads u join videos v on v.id = u.video_id"
                " where v.submission_id = ? and v.state = ? and v.bvid is null and u.filename is not null",
                [id, State.UPLOADED],
            ).fetchall()]  # fmt: skip
            if not names:
                continue
            db.execute(
                "update submissions set filenames = ?, submit_started_at = coalesce(submit_started_at, ?) where id = ?",
                [json.dumps(names), since, id],
            )
            if state == Stage.COLLECTING:
                advance(db, id, Stage.COLLECTING, Stage.SUBMITTING, retry_at=None, lookups=0, waits_for=None,
                        last_error="the catalog was restored: perhaps it was sent before")  # fmt: skip


def set_aside(path: Path, word: str) -> Path | None:
    """Rename a catalog and its write-ahead log; None when there is neither. Raises OSError."""
    aside = path.with_name(f"{path.name}.{word}-{_stamp()}")
    for ending in ("", "-wal"):
        if os.path.lexists(f"{path}{ending}") and (not ending or os.path.getsize(_log(path))):
            os.rename(f"{path}{ending}", f"{aside}{ending}")
    for ending in ("-wal", "-shm"):  # an empty log, and its index, which SQLite makes anew
        Path(f"{path}{ending}").unlink(missing_ok=True)
    return aside if os.path.lexists(aside) else None


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _copies(path: Path) -> list[Path]:
    """Every copy in backups/, the newest first."""
    found: list[tuple[float, Path]] = []
    for one in (path.parent / BACKUPS).glob("*.db"):
        with suppress(OSError):
            found.append((one.stat().st_mtime, one))
    return [one for _, one in sorted(found, reverse=True)]


def _fresh_part(path: Path) -> Path:
    part = path.with_name(f"{path.name}.part")
    _remove(part)
    return part


def _remove(part: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            os.unlink(f"{part}{ending}")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.mended.txt")


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")

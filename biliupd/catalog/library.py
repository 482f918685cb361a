"""The library for people: as a tree, searched, sorted, paged, and in sums. Reads only."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlite_utils import Database

from biliupd.catalog.database import stamp
from biliupd.catalog.paths import PATH, readable, stored
from biliupd.catalog.states import State
from biliupd.catalog.submissions import in_order
from biliupd.catalog.videos import Video

RECORDED_NS = (  # as the indexes have it, which are used only where it is written the same
    "case when mtime_ns > 0 then mtime_ns"
    " else (strftime('%s', created_at) * 1000 + substr(created_at, 21, 3)) * 1000000 end"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Sort = Literal["recorded_at", "created_at", "title", "duration", "file_size", "uploaded_at"]
_ORDER: dict[Sort, str] = {  # rows are made in the order of time
    "recorded_at": f"{RECORDED_NS} {{way}}, id {{way}}", "created_at": "id {way}", "title": "title {way}, id {way}",
    "duration": "duration {way}, id {way}", "file_size": "file_size {way}, id {way}",
    "uploaded_at": "uploaded_at {way}, id {way}",
}  # fmt: skip
SORTS = tuple(_ORDER)


class Page(NamedTuple):
    """A piece of a longer list."""

    videos: list[Video]  #: as `page` gives them
    total: int  #: length of the whole list


class Wanted(NamedTuple):
    """Which videos: those whose title or streamer's name contains `text`, in any case of the letters a to z.

    `streamer` is a whole name, `root` a watched directory, `broadcast` an id; without `states` those that are missing
    are left out. Recorded: from `recorded_after` on, but before `recorded_before`.
    """

    text: str = ""
    streamer: str = ""
    states: tuple[State, ...] = ()
    root: str = ""
    broadcast: str = ""
    recorded_after: datetime | None = None
    recorded_before: datetime | None = None


ALL = Wanted()  #: but for the missing ones


class Sums(NamedTuple):
    """What there is of one streamer, or of all that was dropped."""

    streamer: str  #: empty: dropped files
    videos: int
    published: int
    broadcasts: int
    bytes: int
    seconds: float
    latest_at: str  #: when the last video came; empty when there is none


_VIDEOS = (  # only what people look at: of 100 videos on a page, what is not read saves a third of the time
    "select v.id, v.title, v.streamer_id, v.broadcast_id, v.submission_id, v.root, v.path, v.file_path, v.kind,"
    " v.file_size, v.duration, v.width, v.height, v.video_codec, v.audio_codec, v.bitrate, v.state, v.since,"
    " v.waits_for, v.last_error, v.attempts, v.retry_at, v.bvid, v.pinned, v.removed_at, v.thumbnail_path, v.gaps,"
    " v.same_as, v.uploaded_at, v.created_at, v.mtime_ns, s.name as streamer, u.bytes_total, u.bytes_sent,"
    " u.bytes_per_second, u.eta_seconds, u.line, u.started_at, u.finished_at"
    " from {source} left join streamers s on s.id = v.streamer_id left join uploads u on u.video_id = v.id"
)
_AT_WORK = (State.RECORDING, State.EDITING, State.UPLOADING, State.HELD)


def search(
    db: Database, text: str = "", *, streamer: str = "", states: Sequence[State] = (), root: str = "",
    sort: Sort = "recorded_at", descending: bool = True, limit: int = 50, offset: int = 0,
) -> Page:  # fmt: skip
    """A page of what is wanted, and how much that is."""
    wanted = Wanted(text, streamer, tuple(states), root)
    return Page(page(db, wanted, sort, descending=descending, limit=limit, offset=offset), total(db, wanted))


def page(
    db: Database, wanted: Wanted = ALL, sort: Sort = "recorded_at", *, descending: bool = True, limit: int = 50,
    offset: int = 0,
) -> list[Video]:  # fmt: skip
    """Rows for people: with the streamer's name as `streamer`, and how far its upload is, if there is one."""
    condition, values = _condition(wanted, sort)
    order = _ORDER[sort].format(way="desc" if descending else "asc")
    # the ids come from an index wherever one holds what is asked; only a page of rows is read
    chosen = db.execute(
        f"select id from videos where {condition} order by {order} limit ? offset ?", [*values, limit, offset])
    return some(db, [id for (id,) in chosen.fetchall()])


def total(db: Database, wanted: Wanted = ALL) -> int:
    """How many they are."""
    if wanted == ALL:
        return sum(count for state, count in counts(db).items() if state != State.MISSING)
    condition, values = _condition(wanted)
    (count,) = db.execute(f"select count(*) from videos where {condition}", values).fetchone()
    return int(count)


def counts(db: Database) -> dict[str, int]:
    """Number of videos by state. Those that most are in after a while are not counted one by one."""
    others = [state for state in State if state is not State.PUBLISHED]
    found = dict(db.execute(
        f"select state, count(*) from videos where state in ({','.join('?' * len(others))}) group by state", others
    ).fetchall())  # fmt: skip
    (count,) = db.execute("select count(*) from videos").fetchone()
    if published := count - sum(found.values()):
        found[State.PUBLISHED.value] = published
    return dict(sorted(found.items()))


def recorded_at(video: Video) -> str:
    """When its file was last written; where that is not known, when its row was made. As RECORDED_NS says it."""
    if video["mtime_ns"] <= 0:
        return str(video["created_at"])
    return stamp(_EPOCH + timedelta(microseconds=video["mtime_ns"] // 1000))


def _condition(wanted: Wanted, sort: Sort | None = None) -> tuple[str, list[str | bytes | int]]:
    """A + keeps SQLite from an index by which it would find most of all rows, and then sort them."""
    where: list[str] = []
    values: list[str | bytes | int] = []
    dated = (wanted.recorded_after or wanted.recorded_before) is not None
    by_date = dated or sort == "recorded_at"
    for moment, sign in ((wanted.recorded_after, ">="), (wanted.recorded_before, "<")):
        if moment is not None:
            where.append(f"{RECORDED_NS} {sign} ?")
            values.append((moment - _EPOCH) // timedelta(microseconds=1) * 1000)
    if wanted.text:
        like = "%" + wanted.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        has = "(title like ? escape '\\' or streamer_id in (select id from streamers where name like ? escape '\\'))"
        where.append(f"+id in (select id from videos where {has})" if by_date else has)
        values += [like, like]
    if wanted.streamer:
        where.append("streamer_id = (select id from streamers where name = ?)")
        values.append(wanted.streamer)
    if wanted.root:
        where.append(f"{'+' if dated else ''}root = {PATH}")
        values.append(stored(wanted.root))
    if wanted.broadcast:
        where.append("broadcast_id = ?")
        values.append(wanted.broadcast)
    among = f"{'in' if wanted.states else 'not in'} ({','.join('?' * max(len(wanted.states), 1))})"
    where.append(f"{'+' if by_date else ''}state {among}")
    return " and ".join(where), [*values, *(wanted.states or [State.MISSING])]


def some(db: Database, ids: Sequence[int]) -> list[Video]:
    """Those of these ids that are there, in their order, as `page` gives them."""
    cursor = db.execute(f"{_VIDEOS.format(source='videos v')} where v.id in ({','.join('?' * len(ids))})", list(ids))
    names = [column[0] for column in cursor.description]
    found = {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}
    return [found[id] for id in ids if id in found]


def current(db: Database, newest: int = 50, most: int = 200) -> list[Video]:
    """The newest, and those at work or held (at most `most` of each state), the newest first."""
    ids = {video["id"] for video in page(db, sort="created_at", limit=newest)}
    for state in _AT_WORK:
        ids.update(id for (id,) in db.execute(
            "select id from videos where state = ? order by id desc limit ?", [state, most]).fetchall())  # fmt: skip
    return some(db, sorted(ids, reverse=True))


def of_submission(db: Database, id: int) -> list[Video]:
    """The videos of a submission, in the order of its parts, as `page` gives them."""
    found = db.query(f"{_VIDEOS.format(source='videos v')} where v.submission_id = ?", [id])
    return in_order(found)


def folders(db: Database, root: str, folder: str = "") -> list[tuple[str, int]]:
    """The folders in `folder`, which is relative to `root`, with the number of videos in and below each."""
    start = f"{folder}/" if folder else ""
    found: dict[str, int] = {}
    for path, count in db.execute(
        f"select parent_path, count(*) from videos where root = {PATH} and state != ?"
        f" and parent_path > {PATH} and (parent_path < {PATH} or ? = '') group by parent_path",
        [stored(root), State.MISSING, stored(start), stored(f"{folder}0"), stored(folder)],  # 0 comes after /
    ):
        name = path[len(start) :].split("/", 1)[0]
        found[name] = found.get(name, 0) + count
    return sorted(found.items())


def directly_in(db: Database, root: str, folder: str, *, limit: int = -1, offset: int = 0) -> Page:
    """A page of the videos that lie in `folder` itself, by name; without a limit all of them."""
    here = f"from videos where root = {PATH} and parent_path = {PATH} and state != ?"
    values = [stored(root), stored(folder), State.MISSING]
    (count,) = db.execute(f"select count(*) {here}", values).fetchone()
    found = db.query(
        f"{_VIDEOS.format(source='videos v')} where v.id in (select id {here} order by path limit ? offset ?)"
        " order by v.path",
        [*values, limit, offset],
    )
    return Page(list(found), int(count))


def children(db: Database, root: str, folder: str = "") -> tuple[list[tuple[str, int]], list[Video]]:
    """One level of the tree: its folders and all of its videos."""
    return folders(db, root, folder), directly_in(db, root, folder).videos


def folder_read_as(db: Database, root: str, folder: str) -> str:
    """The folder that people read so: its name may hold bytes that are no UTF-8. Itself when there is none."""
    found = ""
    for name in folder.split("/") if folder else ():
        names = [one for one, _ in folders(db, root, found)]
        match = name if name in names else next((one for one in names if readable(one) == name), None)
        if match is None:
            return folder
        found = f"{found}/{match}" if found else match
    return found


def roots(db: Database) -> list[tuple[str, int]]:
    """The directories that videos lie in, with the number of those in each."""
    return db.execute(
        "select root, count(*) from videos where state != ? group by root order by root", [State.MISSING]
    ).fetchall()


def sums(db: Database) -> list[Sums]:
    """Statistics for each streamer that has a video, the one with the latest first, dropped files included."""
    found: list[dict[str, Any]] = list(
        db.query(
            "select coalesce(s.name, '') as streamer, count(*) as videos, sum(v.state = 'published') as published,"
            " count(distinct v.broadcast_id) as broadcasts, sum(v.file_size) as bytes,"
            " coalesce(sum(v.duration), 0) as seconds, coalesce(max(v.created_at), '') as latest_at"
            " from videos v left join streamers s on s.id = v.streamer_id where v.state not in (?, ?)"
            " group by v.streamer_id order by latest_at desc",
            [State.MISSING, State.IGNORED],
        )
    )
    return [Sums(**row) for row in found]

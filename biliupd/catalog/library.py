"""The library for people: as a tree, searched, sorted, paged, and in sums. Reads only."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlite_utils import Database

from biliupd.catalog.paths import PATH, stored
from biliupd.catalog.states import State
from biliupd.catalog.videos import Video

Sort = Literal["created_at", "title", "duration", "file_size", "uploaded_at"]
_ORDER: dict[Sort, str] = {  # rows are made in the order of time
    "created_at": "id {way}", "title": "title {way}, id {way}", "duration": "duration {way}, id {way}",
    "file_size": "file_size {way}, id {way}", "uploaded_at": "uploaded_at {way}, id {way}",
}  # fmt: skip
SORTS = tuple(_ORDER)


class Page(NamedTuple):
    """A piece of a longer list."""

    videos: list[Video]  #: rows with the streamer's name as `streamer`
    total: int  #: length of the whole list


class Sums(NamedTuple):
    """What there is of one streamer, or of all that was dropped."""

    streamer: str  #: empty: dropped files
    videos: int
    published: int
    broadcasts: int
    bytes: int
    seconds: float
    latest_at: str  #: when the last video came; empty when there is none


def search(
    db: Database, text: str = "", *, streamer: str = "", states: Sequence[State] = (), root: str = "",
    sort: Sort = "created_at", descending: bool = True, limit: int = 50, offset: int = 0,
) -> Page:  # fmt: skip
    """Videos whose title or streamer's name contains `text`, in any case of the letters a to z.

    `streamer` is a whole name, `root` a watched directory; without `states` those that are missing are left out.
    """
    where: list[str] = []
    values: list[str | bytes | int] = []
    if text:
        like = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        where.append(
            "(title like ? escape '\\' or streamer_id in (select id from streamers where name like ? escape '\\'))"
        )
        values += [like, like]
    if streamer:
        where.append("streamer_id = (select id from streamers where name = ?)")
        values.append(streamer)
    if root:
        where.append(f"root = {PATH}")
        values.append(stored(root))
    where.append(f"state {'in' if states else 'not in'} ({','.join('?' * max(len(states), 1))})")
    values += list(states) or [State.MISSING]
    condition, order = " and ".join(where), _ORDER[sort].format(way="desc" if descending else "asc")
    # the ids come from an index wherever one holds what is asked; only a page of rows is read
    found = db.query(
        "select v.*, s.name as streamer from"
        f" (select id from videos where {condition} order by {order} limit ? offset ?)"
        " page join videos v on v.id = page.id left join streamers s on s.id = v.streamer_id"
        f" order by {', '.join('v.' + term for term in order.split(', '))}",
        [*values, limit, offset],
    )
    (total,) = db.execute(f"select count(*) from videos where {condition}", values).fetchone()
    return Page(list(found), int(total))


def children(db: Database, root: str, folder: str = "") -> tuple[list[tuple[str, int]], list[Video]]:
    """One level of the tree: the folders in `folder`, which is relative to `root`, with the number of videos below
    each, and its videos."""
    start = f"{folder}/" if folder else ""
    folders: dict[str, int] = {}
    for path, count in db.execute(
        f"select parent_path, count(*) from videos where root = {PATH} and state != ?"
        f" and parent_path > {PATH} and (parent_path < {PATH} or ? = '') group by parent_path",
        [stored(root), State.MISSING, stored(start), stored(f"{folder}0"), stored(folder)],  # 0 comes after /
    ):
        name = path[len(start) :].split("/", 1)[0]
        folders[name] = folders.get(name, 0) + count
    here = db.query(
        f"select * from videos where root = {PATH} and parent_path = {PATH} and state != ? order by path",
        [stored(root), stored(folder), State.MISSING],
    )
    return sorted(folders.items()), list(here)


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

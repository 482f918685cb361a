"""What would be sent to Bilibili for a file, a folder or a broadcast, without sending anything.

Used by `biliupd preview`. Reads the catalog if there is one, and the sidecars; decides the same way as the workers do.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from biliupd.catalog import submissions, videos
from biliupd.catalog.sync import VIDEO_ENDINGS
from biliupd.catalog.videos import Video
from biliupd.config import Config
from biliupd.errors import PermanentError
from biliupd.pipeline.orders import Order, Wait, body_of, order_for, order_of_dropped, show_of

NOT_YET = "(Bilibili's name for it, known after the upload)"


@dataclass(frozen=True)
class Preview:
    """One submission: the account, why nothing would be sent for now (empty: nothing stands in the way), the bvid it
    has already, its files in their order, and the JSON body."""

    account: str
    waits_for: str
    bvid: str
    files: tuple[str, ...]
    cover: str
    body: dict[str, Any]


def preview(config: Config, db: Database | None, what: str) -> list[Preview]:
    """The submissions of `what`: a file, a dropped folder, a broadcast's folder or its id.

    Raises PermanentError when it is none of these, and when Bilibili would refuse the submission.
    """
    found = _known(db, what) if db is not None else []
    if not found:
        found = _on_disk(what)
    first = found[0]
    order = order_for(config, db, first) if db is not None and first["id"] else _of_file(config, first)
    why = ""
    if isinstance(order, Wait):
        why, order = order.why, _without_settings(config, first)
    show, most = show_of(db, first, order), config.publish.parts_per_submission
    made: list[Preview] = []
    for number, start in enumerate(range(0, len(found), most), 1):
        parts = [_as_uploaded(video) for video in found[start : start + most]]
        before = (made[-1].bvid or "BV…") if made else ""
        body = body_of(order, show, parts, "", number=number, offset=start, before=before)
        made.append(Preview(order.account, why, parts[0]["bvid"] or "", tuple(video["file_path"] for video in parts),
                            _cover(order, parts[0]), body))  # fmt: skip
    return made


def _known(db: Database, what: str) -> list[Video]:
    """Rows of a broadcast, of a file, or of everything below a folder."""
    path = os.path.abspath(what)
    return submissions.in_order(
        videos.of_broadcast(db, what) or videos.of_broadcast_at(db, path) or videos.at_or_below(db, path)
    )


def _on_disk(what: str) -> list[Video]:
    path = Path(os.path.abspath(what))
    try:
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
        found = [_row(one) for one in files if one.suffix.lower() in VIDEO_ENDINGS or one == path]
        return submissions.in_order(found) or _nothing(what)
    except OSError as error:
        raise PermanentError(f"{what}: {error.strerror}") from error


def _nothing(what: str) -> list[Video]:
    raise PermanentError(
        f"{what!r} is no file, no folder with files, and no broadcast of the catalog",
        hint="biliupd status names broadcasts; a path is relative to the working directory",
    )


def _row(path: Path) -> Video:
    status = path.stat()
    return {"id": None, "file_path": str(path), "title": path.stem, "broadcast_id": None, "root": "",
            "mtime_ns": status.st_mtime_ns, "cover_path": None, "bvid": None, "filename": None, "cid": 0}


def _of_file(config: Config, video: Video) -> Order | Wait:
    """As if it lay in the catalog already: by the drop folder it is in."""
    path = Path(video["file_path"])
    for user in config.drop_folders:
        if path.is_relative_to(os.path.abspath(user.directory)):
            return order_of_dropped(config, user, path)
    return Wait("not published: it lies in no drop folder of the configuration")


def _without_settings(config: Config, video: Video) -> Order:
    """What the template says all the same, so that there is something to look at."""
    path = Path(video["file_path"])
    user = next((one for one in config.drop_folders if path.is_relative_to(os.path.abspath(one.directory))), None)
    return Order(config.template(user.template if user else "default"), next(iter(config.accounts), ""))


def _as_uploaded(video: Video) -> dict[str, Any]:
    return {**video, "filename": video.get("filename") or f"{NOT_YET} {os.path.basename(video['file_path'])}",
            "cid": video.get("cid") or 0}


def _cover(order: Order, video: Video) -> str:
    words = {"frame": f"a frame of {os.path.basename(video['file_path'])}", "live": "the picture the room showed"}
    return words.get(order.template.cover, order.template.cover)


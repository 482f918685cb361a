"""What the configuration wants done with a video, and the words its submission gets.

Used by the pipeline's workers. Reads the catalog; decides, and does nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlite_utils import Database

from biliupd.catalog import records
from biliupd.catalog.videos import Video
from biliupd.config import Config, DropFolder, Streamer, Template, fill
from biliupd.publish.submission import Metadata, Part


@dataclass(frozen=True)
class Order:
    """Publish it so. `streamer` is empty for a dropped file."""

    template: Template
    account: str
    streamer: str


@dataclass(frozen=True)
class Show:
    """What the placeholders of a template speak of."""

    title: str
    began: datetime

    def fill(self, text: str, streamer: str, part: int = 1, file: str = "") -> str:
        """The text with its placeholders filled in: no double space, and no control character out of a file's name."""
        done = fill(text, streamer=streamer, title=self.title, started_at=self.began, part=part, file=file)
        lines = (" ".join(line.split()) for line in done.splitlines())
        return "\n".join("".join(c for c in line if c.isprintable()) for line in lines).strip()


def order_for(config: Config, db: Database, video: Video) -> Order | str:
    """What to do with a ready video, or why nothing is done with it for now."""
    user = _user_of(config, db, video)
    if user is None:
        return "not published: it belongs to no streamer and no drop folder of the configuration"
    if isinstance(user, Streamer) and not user.auto_upload:
        return f"not published: auto_upload is off for {user.name}"
    if isinstance(user, DropFolder) and not user.upload:
        return "not published: upload is off for this drop folder"
    if not config.accounts:
        return "waits for an account: there is none in the configuration (accounts:)"
    account = user.account or next(iter(config.accounts))
    streamer = user.name if isinstance(user, Streamer) else ""
    return Order(config.template(user.template), account, streamer)


def _user_of(config: Config, db: Database, video: Video) -> Streamer | DropFolder | None:
    if video["broadcast_id"]:
        broadcast = records.get_broadcast(db, video["broadcast_id"])
        name = broadcast["streamer"] if broadcast else None
        return next((streamer for streamer in config.streamers if streamer.name == name), None)
    root = video["root"]
    return next((folder for folder in config.drop_folders if os.path.abspath(folder.directory) == root), None)


def show_of(db: Database, video: Video) -> Show:
    """The broadcast a video belongs to, or the dropped file itself."""
    broadcast = records.get_broadcast(db, video["broadcast_id"]) if video["broadcast_id"] else None
    if broadcast:  # one that somebody wrote by hand may not say when it began
        began = datetime.fromisoformat(broadcast["started_at"] or broadcast["created_at"])
        return Show(broadcast["title"], began)
    return Show(video["title"], datetime.fromtimestamp(video["mtime_ns"] / 1e9, UTC))


def submission_of(
    order: Order, show: Show, parts: Sequence[Video], cover_url: str
) -> tuple[Metadata, list[Part]]:
    """The template filled in, and the parts named in their order."""
    template, first = order.template, parts[0]

    def filled(text: str, part: int = 1, video: Video = first) -> str:
        return show.fill(text, order.streamer, part, Path(video["file_path"]).stem)

    metadata = Metadata(
        title=filled(template.title), desc=filled(template.desc), tags=list(template.tags),
        tid=template.tid, copyright=template.copyright, source=filled(template.source),
        dynamic=filled(template.dynamic), cover_url=cover_url, no_reprint=template.no_reprint,
        is_only_self=template.is_only_self, extra_fields=template.extra_fields,
    )  # fmt: skip
    named = [
        Part(filename=video["filename"], title=filled(template.part_title, n, video), cid=video["cid"])
        for n, video in enumerate(parts, 1)
    ]
    return metadata, named

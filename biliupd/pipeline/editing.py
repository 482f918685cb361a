"""A recorded video → one whole file with a cover, ready to be uploaded. One worker of the pipeline."""

import os
from pathlib import Path

from loguru import logger

from biliupd.catalog import videos
from biliupd.catalog.states import State, move
from biliupd.catalog.videos import Video
from biliupd.edit import cover, media, merge
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.errors import BiliupdError, PermanentError
from biliupd.pipeline.desk import Desk


class Editing:
    """Merge, probe, cover."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def turn(self) -> bool:
        """One recorded video on its way to ready; False when there was nothing to do."""
        desk, db = self._desk, self._desk.db
        if not desk.config.edit.keep_segments:
            for video in videos.with_sources(db):
                self._remove_source(video)
        for video in videos.due(db, State.RECORDED):
            if move(db, video["id"], State.RECORDED, State.EDITING, owner=desk.owner, waits_for=None):
                desk.step(video, State.EDITING, State.RECORDED, self._edit)
                return True
        return False

    def _edit(self, video: Video) -> None:
        desk, log = self._desk, logger.bind(video=video["id"])
        ffmpeg = Ffmpeg(desk.config.edit, desk.stop)
        path = Path(video["file_path"])
        if video["kind"] == "playlist":
            path = self._merge(video, ffmpeg)
        facts = media.probe(path, ffmpeg)
        picture = desk.catalog.path.parent / "covers" / f"{video['id']}.jpg"
        picture.parent.mkdir(exist_ok=True, mode=0o700)
        if cover.make_cover(path, picture, ffmpeg, duration_seconds=facts.duration_seconds):
            log.info("cover made: {}", picture.name)
        else:
            log.warning("no frame could be taken for a cover; the default picture is used")
        videos.edited(
            desk.db, video, path, cover=str(picture), duration=facts.duration_seconds, width=facts.width,
            height=facts.height, status=os.stat(path),
        )  # fmt: skip
        log.info("ready: {} ({:.1f} s, {}x{})", path.name, facts.duration_seconds, facts.width, facts.height)
        edited = videos.get(desk.db, video["id"])
        if edited and edited["merged_from"] and not edited["source_gone"] and not desk.config.edit.keep_segments:
            self._remove_source(edited)

    def _merge(self, video: Video, ffmpeg: Ffmpeg) -> Path:
        """One mp4 of a playlist. Where it will lie is written down first: after a crash it is known for ours."""
        playlist = Path(video["file_path"])
        output = Path(video["output_path"]) if video["output_path"] else _free_name(playlist, video["root"])
        videos.will_be(self._desk.db, video["id"], str(output))
        merged = merge.merge(playlist, output, ffmpeg)
        logger.bind(video=video["id"]).info("merged into {} ({:.1f} s)", output.name, merged.duration_seconds)
        return output

    def _remove_source(self, video: Video) -> None:
        if not os.path.exists(video["file_path"]):
            return
        try:
            playlist = Path(video["merged_from"])
            merge.remove_source(playlist, and_directory=str(playlist.parent) != video["root"])
        except BiliupdError as error:
            logger.bind(video=video["id"]).warning("the segments stay for now: {}", error)
            return
        videos.source_is_gone(self._desk.db, video["id"])


def _free_name(playlist: Path, root: str) -> Path:
    """Where the mp4 of a playlist will lie: beside its directory, or beside itself at the top of a watched folder."""
    base = playlist.with_suffix("") if str(playlist.parent) == root else playlist.parent
    for n in range(1, 1000):
        path = base.with_name(f"{base.name}{f' ({n})' if n > 1 else ''}.mp4")
        if not os.path.lexists(path):
            return path
    raise PermanentError(f"{base}.mp4 and a thousand names like it are taken")

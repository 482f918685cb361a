"""A recorded video → one whole file with a cover, ready to be uploaded. One worker of the pipeline."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loguru import logger

from biliupd.catalog import copies, videos
from biliupd.catalog.database import write
from biliupd.catalog.states import State, move
from biliupd.catalog.videos import Video
from biliupd.edit import cover, media, merge
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.edit.fingerprint import fingerprint, same_content
from biliupd.edit.segments import SegmentDamaged, SegmentMissing
from biliupd.errors import BiliupdError, PermanentError, TemporaryError
from biliupd.pipeline import orders
from biliupd.pipeline.desk import Desk

COMPLETE_AGAIN_SECONDS = 600.0
BUSY = (State.EDITING, State.UPLOADING)
DONE = (State.UPLOADED, State.PUBLISHED)
LONGEST_NAME_BYTES = 255


class Editing:
    """Merge, probe, cover; and what is a copy is left alone."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._complete_at = 0.0
        self._left: dict[int, str] = {}  # why the segments of a video are still there

    def turn(self) -> bool:
        """One recorded video on its way to ready; False when there was nothing to do."""
        desk, db = self._desk, self._desk.db
        self._remove_sources()
        for video in videos.with_other_sidecar(db):
            self._read_sidecar(video)
        for video in videos.due(db, State.RECORDED):
            if move(db, video["id"], State.RECORDED, State.EDITING, owner=desk.owner, waits_for=None):
                desk.step(video, State.EDITING, State.RECORDED, self._edit)
                return True
        if time.monotonic() >= self._complete_at and (left := videos.incomplete(db)):
            self._complete(left)
            return True
        return False

    def _edit(self, video: Video) -> None:
        desk, log = self._desk, logger.bind(video=video["id"])
        ffmpeg = Ffmpeg(desk.config.edit, desk.stop)
        path = Path(video["file_path"])
        if not orders.lies_in(path, Path(video["root"])):  # a scan takes no such link, but it may have come since
            raise PermanentError(f"{path.name!a} leads out of the watched folder", hint="copy the file itself there")
        facts: dict[str, Any] = {}
        if video["kind"] != "file":
            merged = self._merge(video, ffmpeg)
            path = merged.path
            facts["gaps"] = json.dumps([gap._asdict() for gap in merged.gaps])
        before = os.stat(path)
        found = media.probe(path, ffmpeg)
        facts |= _facts(found)
        title, sidecar = orders.title_and_sidecar(desk.config, video, path)
        facts |= {"title": title, "sidecar": sidecar}
        if self._is_known(video, path, before, facts):
            return
        pictures = self._pictures(video, path, title, found.duration_seconds, ffmpeg)
        videos.edited(desk.db, video, path, self._unchanged(path, before), **facts, **pictures)
        log.info("ready: {} ({:.1f} s, {}x{})", path.name, found.duration_seconds, found.width, found.height)
        self._remove_sources()

    def _pictures(self, video: Video, path: Path, title: str, seconds: float, ffmpeg: Ffmpeg) -> dict[str, str]:
        """Its cover and, for the library, a small one; made anew whenever a video is edited, that is, has changed."""
        picture = self._desk.catalog.path.parent / "covers" / f"{video['id']}.jpg"
        small = picture.with_name(f"{video['id']}.small.jpg")
        picture.parent.mkdir(exist_ok=True, mode=0o700)
        log = logger.bind(video=video["id"])
        if cover.make_cover(path, picture, ffmpeg, duration_seconds=seconds, title=title):
            log.info("cover made: {}", picture.name)
        else:
            log.warning("no frame could be taken for a cover; the default picture is used")
        cover.make_thumbnail(picture, small, ffmpeg)
        return {"cover_path": str(picture), "thumbnail_path": str(small)}

    def _complete(self, video: Video) -> None:
        """Find out what an older version did not write down."""
        ffmpeg, path = Ffmpeg(self._desk.config.edit, self._desk.stop), Path(video["file_path"])
        facts: dict[str, Any] = {"thumbnail_path": ""}
        try:
            found = media.probe(path, ffmpeg)
            facts |= _facts(found) | {"fingerprint": fingerprint(str(path))}
            facts |= self._pictures(video, path, video["title"], found.duration_seconds, ffmpeg)
        except PermanentError as error:
            logger.bind(video=video["id"]).warning("no small picture: {}", error)
        except BiliupdError:
            self._complete_at = time.monotonic() + COMPLETE_AGAIN_SECONDS
            return
        videos.complete(self._desk.db, video["id"], **facts)

    def _unchanged(self, path: Path, before: os.stat_result) -> os.stat_result:
        """Its state, if it is still what was looked at: else nobody would know what is uploaded."""
        now = os.stat(path)
        if _identity(now) != _identity(before):
            raise TemporaryError(f"{path.name!a} changed while it was looked at",
                                 retry_after_seconds=self._desk.config.watch.quiet_seconds)  # fmt: skip
        return now

    # copies

    def _is_known(self, video: Video, path: Path, before: os.stat_result, facts: dict[str, Any]) -> bool:
        """Whether another video has the same content; then this one is ignored, or the other one's file came here."""
        desk, db = self._desk, self._desk.db
        mark = fingerprint(str(path))
        others = copies.note(db, video["id"], mark)
        if video["again"] or orders.wants_copies(desk.config, video):
            return False
        for other in others:
            if other["state"] not in DONE and not orders.is_wanted(desk.config, db, other):
                continue  # a recording that is not published by itself may be copied into a folder that is
            whole = other["output_path"] or other["file_path"]  # of a merge that goes on, what it has made
            there = os.path.isfile(whole)
            if there and not same_content(str(path), whole, desk.stop) and not _changed_since_upload(other):
                continue
            if not there and other["removed_at"] is None:
                if self._takes_over(video, path, other, mark):
                    return True
                continue
            with write(db):
                if not copies.stands(db, other):
                    raise TemporaryError("what it is a copy of went on meanwhile", retry_after_seconds=1)
                videos.edited(db, video, path, self._unchanged(path, before), **facts)
                copies.ignore(db, video["id"], State.READY, other)
            logger.bind(video=video["id"]).info(
                "{} has the same content as {}: ignored", path.name, other["file_path"]
            )
            return True
        return False

    def _takes_over(self, video: Video, path: Path, other: Video, mark: str) -> bool:
        """The file of `other` is not where it was, and here lies the same: it was moved from another disk."""
        if {video["kind"], other["kind"]} != {"file"} or video["broadcast_id"] not in (None, other["broadcast_id"]):
            return False
        if other["state"] in BUSY:
            raise TemporaryError("its first copy is being worked on, and is gone", retry_after_seconds=5)
        status = os.stat(path)
        new = {**video, "fingerprint": mark, "file_size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if not copies.take_over(self._desk.db, other, new):
            raise TemporaryError("its first copy went on meanwhile", retry_after_seconds=1)
        logger.bind(video=other["id"]).info("{} is now {}", other["file_path"], path)
        return True

    # metadata

    def _read_sidecar(self, video: Video) -> None:
        """Its sidecar came, changed or went."""
        title, sidecar = orders.title_and_sidecar(self._desk.config, video, Path(video["file_path"]))
        videos.describe(self._desk.db, video["id"], title, sidecar)
        if title != video["title"]:
            logger.bind(video=video["id"]).info("{} is now called {}", video["title"], title)

    # merging

    def _merge(self, video: Video, ffmpeg: Ffmpeg) -> merge.Merged:
        """One mp4 of a playlist. Where it will lie is written down first: after a crash it is known for ours."""
        source = Path(video["file_path"])
        output = Path(video["output_path"]) if video["output_path"] else _free_name(source, video["root"])
        videos.will_be(self._desk.db, video["id"], str(output))
        try:
            merged = merge.merge(source, output, ffmpeg)
        except (SegmentMissing, PermanentError) as error:
            self._insist_on_all(video, error)
            merged = merge.merge(source, output, ffmpeg, gaps="merge")
        log = logger.bind(video=video["id"])
        log.info("merged into {} ({:.1f} s)", output.name, merged.duration_seconds)
        for gap in merged.gaps:
            log.warning("left out {}, {:.1f} s at {:.1f} s: {}", gap.segment, gap.seconds, gap.at_seconds, gap.cause)
        return merged

    def _insist_on_all(self, video: Video, error: BiliupdError) -> None:
        """A segment is missing or of no use. Raises unless the rest is to be merged without it.

        What is missing is waited for. A broadcast of our own is merged then, for nobody sits there to say so, and its
        segments stay; for what was dropped the settings say.
        """
        config = self._desk.config.edit
        wait = timedelta(seconds=config.segment_wait_seconds)
        missing = isinstance(error, SegmentMissing)
        if missing and datetime.now(UTC) - datetime.fromisoformat(video["created_at"]) < wait:
            raise error
        if config.missing_segments == "hold" and not video["broadcast_id"]:
            if not isinstance(error, SegmentMissing | SegmentDamaged):
                raise error
            vain = f", in vain for {config.segment_wait_seconds:g} s" if missing else ""
            raise PermanentError(f"{error}{vain}; edit.missing_segments: merge leaves it out") from error

    def _remove_sources(self) -> None:
        if not self._desk.config.edit.keep_segments:
            for video in videos.with_sources(self._desk.db):
                self._remove_source(video)

    def _remove_source(self, video: Video) -> None:
        try:
            made_ns = os.stat(video["file_path"]).st_mtime_ns
        except OSError:
            return  # the segments may be all there is
        try:
            source = Path(video["merged_from"])
            folder = source if source.is_dir() else source.parent
            merge.remove_source(source, until_ns=made_ns, and_directory=str(folder) != video["root"])
        except BiliupdError as error:
            if self._left.get(video["id"]) != str(error):
                logger.bind(video=video["id"]).warning("the segments stay for now: {}", error)
            self._left[video["id"]] = str(error)
            return
        self._left.pop(video["id"], None)
        videos.source_is_gone(self._desk.db, video["id"])


def _changed_since_upload(video: Video) -> bool:
    """Whether what was uploaded is not what lies at its path: then its fingerprint is all that is known of it."""
    try:
        status = os.stat(video["file_path"])
    except OSError:
        return False
    changed = (status.st_size, status.st_mtime_ns) != (video["file_size"], video["mtime_ns"])
    return changed and video["state"] in DONE


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _facts(found: media.Media) -> dict[str, Any]:
    return {
        "duration": found.duration_seconds, "width": found.width, "height": found.height,
        "video_codec": found.video_codec, "audio_codec": found.audio_codec, "bitrate": found.bitrate,
    }  # fmt: skip


def _free_name(source: Path, root: str) -> Path:
    """Where the mp4 of a playlist will lie: beside its directory, or beside itself at the top of a watched folder."""
    base = source.with_suffix("") if str(source.parent) == root else source.parent
    if source.is_dir():
        base = source
    for n in range(1, 1000):
        path = base.with_name(_shortened(base.name, f" ({n}).mp4" if n > 1 else ".mp4"))
        if not os.path.lexists(path):
            return path
    raise PermanentError(f"{base}.mp4 and a thousand names like it are taken")


def _shortened(name: str, ending: str) -> str:
    """A name with an ending, no longer than a file's may be; a folder's may have been as long before."""
    while len(os.fsencode(name)) > LONGEST_NAME_BYTES - len(ending):
        name = name[:-1]
    return name + ending

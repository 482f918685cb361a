"""A ready video → an object at Bilibili. One worker of the pipeline, or several."""

import contextlib
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from loguru import logger

from biliupd.catalog import copies, submissions, videos
from biliupd.catalog.database import write
from biliupd.catalog.states import State
from biliupd.catalog.videos import Video
from biliupd.errors import NeedsPerson, PermanentError, TemporaryError
from biliupd.pipeline.accounts import ACCOUNT_SECONDS, Accounts
from biliupd.pipeline.desk import IDLE_SECONDS, Desk, moment
from biliupd.pipeline.orders import Order, Wait, order_for, show_of
from biliupd.publish import archives, upos
from biliupd.publish.member import Member
from biliupd.publish.session import Session
from biliupd.publish.upos import Progress

PROGRESS_SECONDS = 1.0  #: how often a running upload is written down


class Uploading:
    """Uploads what the settings want published."""

    def __init__(self, desk: Desk, accounts: Accounts) -> None:
        self._desk, self._accounts = desk, accounts
        self._lock = threading.Lock()
        self._progress: dict[int, Progress] = {}

    @property
    def progress(self) -> dict[int, Progress]:
        """How far each running upload is, by video; fresher than the catalog, which is told once a second."""
        with self._lock:
            return dict(self._progress)

    def turn(self) -> bool:
        """One ready video to Bilibili; False when there was nothing to do."""
        desk, db = self._desk, self._desk.db
        for video in videos.due(db, State.READY):
            order = order_for(desk.config, db, video)
            if isinstance(order, Wait):
                videos.wait(db, video["id"], order.why, order.until)
                continue
            order = replace(order, account=submissions.account_of(db, video, order.account, order.folder))
            try:
                member = self._accounts.member(desk.config, order.account)
            except TemporaryError as error:
                seconds = ACCOUNT_SECONDS if isinstance(error, NeedsPerson) else error.retry_after_seconds
                videos.wait(db, video["id"], str(error), moment(max(seconds, IDLE_SECONDS)))
                continue
            if self._is_other_than_edited(video):
                continue
            if videos.begin_upload(db, video, desk.owner):
                desk.step(video, State.UPLOADING, State.READY, partial(self._upload, member=member, order=order))
                return True
        return False

    def _is_other_than_edited(self, video: Video) -> bool:
        """What changed while it was uploaded, or just now, is looked at again first: it may be no whole video."""
        try:
            status = os.stat(video["file_path"])
        except OSError:
            return False  # the upload says why
        if (status.st_size, status.st_mtime_ns) == (video["file_size"], video["mtime_ns"]):
            return False
        logger.bind(video=video["id"]).warning("{} changed: it is looked at again first", video["title"])
        with write(self._desk.db):
            videos.changed(self._desk.db, video, status, moment(self._desk.config.watch.quiet_seconds))
            copies.free(self._desk.db, video["id"])
        return True

    def _upload(self, video: Video, member: Member, order: Order) -> None:
        desk, path, log = self._desk, Path(video["file_path"]), logger.bind(video=video["id"])
        submissions.of_video(desk.db, video, order.account, order.folder, exists=os.path.lexists)
        self._refuse_what_is_published(video, member, order)
        book = _Book(desk, video["id"])
        left = Session.loads(videos.session(desk.db, video["id"]))
        try:
            with self._accounts.watching(order.account):
                lines = self._accounts.lines.ranked(member, desk.stop)
                log.info("uploading {} by line {}", path.name, left.line if left and left.done else lines[0].name)
                done = upos.upload(
                    path, member, lines, stop=desk.stop, throttle=self._accounts.throttle, session=left,
                    on_progress=partial(self._on_progress, book, video["id"]), on_session=book.on_session,
                    on_line_failed=self._accounts.lines.failed, inside=Path(video["root"]),
                )  # fmt: skip
        finally:
            with self._lock:
                self._progress.pop(video["id"], None)
            book.close()
        assert book.session
        mtime_ns = book.session.mtime_ns
        desk.insist(
            lambda: videos.end_upload(
                desk.db, video["id"], filename=done.filename, cid=done.cid, line=done.line, size_bytes=done.size_bytes,
                mtime_ns=mtime_ns,
            )
        )  # fmt: skip
        log.info("uploaded {} in {:.1f} s", path.name, done.seconds)

    def _on_progress(self, book: "_Book", video: int, progress: Progress) -> None:
        with self._lock:
            self._progress[video] = progress
        book.on_progress(progress)

    def _refuse_what_is_published(self, video: Video, member: Member, order: Order) -> None:
        """A library whose catalog was lost must not be published a second time: ask Bilibili for the title."""
        show = show_of(self._desk.db, video, order)
        since = show.began if video["broadcast_id"] else _changed_at(Path(video["file_path"]))
        if video["again"] or since >= self._desk.catalog.made_at:
            return
        with self._accounts.watching(order.account):
            found = archives.titled(member, show.title_of(order), since)
        if found:
            raise PermanentError(
                f"older than this catalog, and Bilibili has {found.bvid} of the same title: probably this one;"
                f" biliupd retry video:{video['id']} publishes it all the same"
            )


class _Book:
    """Writes a running upload down, once a second. A busy catalog is no reason to stop an upload."""

    def __init__(self, desk: Desk, video: int) -> None:
        self._desk, self._video = desk, video
        self._next = 0.0
        self._written: Session | None = None
        self.session: Session | None = None

    def on_session(self, session: Session) -> None:
        fresh = self.session is None or session.upload_id != self.session.upload_id
        self.session = session
        if fresh:  # a new ticket: at once, so that a crash finds it
            self._keep()

    def on_progress(self, progress: Progress) -> None:
        at = time.monotonic()
        if at >= self._next or progress.sent_bytes == progress.total_bytes:
            self._next = at + PROGRESS_SECONDS
            self._keep(progress)

    def close(self) -> None:
        """Whatever was acknowledged must not be sent again."""
        self._keep()

    def _keep(self, progress: Progress | None = None) -> None:
        db, session = self._desk.db, self.session
        with contextlib.suppress(TemporaryError):
            with write(db):  # one transaction, one fsync
                if session and session != self._written:
                    videos.keep_session(db, self._video, session.dumps(), session.line)
                if progress:
                    videos.progress(db, self._video, progress.sent_bytes, progress.total_bytes,
                                    progress.bytes_per_second, progress.eta_seconds)  # fmt: skip
            self._written = session


def _changed_at(path: Path) -> datetime:
    """When the file came here, as far as the disk knows: no tool sets this time."""
    return datetime.fromtimestamp(os.stat(path).st_ctime, UTC)

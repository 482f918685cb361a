"""The workers: claim a row, run its next step, write down the outcome.

Three kinds, a few threads each: editing (merge, probe, cover), uploading, submitting. Whoever raises says whether
another try can help; what follows from that is decided here: back to rest with a time, or held for a person.
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from loguru import logger

from biliupd.accounts import ACCOUNT_SECONDS, Accounts
from biliupd.catalog import submissions, videos
from biliupd.catalog.database import Catalog, stamp
from biliupd.catalog.states import Stage, State, move
from biliupd.catalog.submissions import Submission
from biliupd.catalog.videos import Video
from biliupd.config import Config
from biliupd.edit import cover, media, merge
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.errors import BiliupdError, NeedsPerson, PermanentError, Stopped, TemporaryError, UnknownOutcome
from biliupd.orders import Order, order_for, show_of, submission_of
from biliupd.publish import submission as bilibili
from biliupd.publish import upos
from biliupd.publish.member import Member

IDLE_SECONDS = 1.0
COLLECT_SECONDS = 2.0  #: collecting submissions are looked at this often though nothing was written
LONGEST_WAIT_SECONDS = 3600.0
NEVER = "9999"  #: sorts behind every moment: due again only when the settings change


class Pipeline:
    """Owns the worker threads. `apply` gives it new settings while it runs."""

    def __init__(self, config: Config, catalog: Catalog, hide: Callable[[Iterable[str]], None]) -> None:
        self.config = config
        self._catalog = catalog
        self._owner = f"{os.getpid()}"
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accounts = Accounts(catalog, hide)
        self._version: int | None = None
        self._look_again_at = 0.0
        self.turned_at: dict[str, float] = {}

    def start(self) -> None:
        """Start the workers, after putting back what a dead daemon left claimed."""
        if put_back := videos.release(self._catalog.db):
            logger.info("{} videos were being worked on when the last daemon ended; they go on", put_back)
        kinds: list[tuple[str, int, Callable[[], bool]]] = [
            ("edit", self.config.edit.workers, self.edit_turn),
            ("upload", self.config.publish.workers, self.upload_turn),
            ("submit", 1, self.submit_turn),
        ]
        for name, count, turn in kinds:
            for n in range(count):
                thread = threading.Thread(target=self._work, args=(turn,), name=f"{name}-{n + 1}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self, deadline_seconds: float) -> None:
        """Stop: ffmpeg and uploads are ended, their rows go back to rest."""
        self._stop.set()
        until = time.monotonic() + deadline_seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def is_alive(self) -> bool:
        """Whether every worker lives."""
        return all(thread.is_alive() for thread in self._threads)

    def apply(self, config: Config) -> None:
        """New settings for every step that begins from now on; what waited for settings is looked at again."""
        self.config = config
        videos.wake(self._catalog.db)

    def _work(self, turn: Callable[[], bool]) -> None:
        name = threading.current_thread().name
        while not self._stop.is_set():
            self.turned_at[name] = time.monotonic()
            try:
                busy = turn()
            except TemporaryError as error:  # the catalog is busy or its disk full
                logger.warning("{}: {}", name, error)
                self._stop.wait(max(error.retry_after_seconds, IDLE_SECONDS))
                continue
            if not busy:
                self._stop.wait(IDLE_SECONDS)

    # editing

    def edit_turn(self) -> bool:
        """One recorded video on its way to ready; False when there was nothing to do."""
        db = self._catalog.db
        if not self.config.edit.keep_segments:
            for video in videos.with_sources(db):
                self._remove_source(video)
        for video in videos.due(db, State.RECORDED):
            if move(db, video["id"], State.RECORDED, State.EDITING, owner=self._owner, waits_for=None):
                self._step(video, State.EDITING, State.RECORDED, self._edit)
                return True
        return False

    def _edit(self, video: Video) -> None:
        log = logger.bind(video=video["id"])
        ffmpeg = Ffmpeg(self.config.edit, self._stop)
        path = Path(video["file_path"])
        if video["kind"] == "playlist":
            path = self._merge(video, ffmpeg)
        facts = media.probe(path, ffmpeg)
        picture = self._catalog.path.parent / "covers" / f"{video['id']}.jpg"
        picture.parent.mkdir(exist_ok=True, mode=0o700)
        if cover.make_cover(path, picture, ffmpeg, duration_seconds=facts.duration_seconds):
            log.info("cover made: {}", picture.name)
        else:
            log.warning("no frame could be taken for a cover; the default picture is used")
        videos.edited(
            self._catalog.db, video, path, cover=str(picture), duration=facts.duration_seconds, width=facts.width,
            height=facts.height, status=os.stat(path),
        )  # fmt: skip
        log.info("ready: {} ({:.1f} s, {}x{})", path.name, facts.duration_seconds, facts.width, facts.height)
        edited = videos.get(self._catalog.db, video["id"])
        if edited and edited["merged_from"] and not edited["source_gone"] and not self.config.edit.keep_segments:
            self._remove_source(edited)

    def _merge(self, video: Video, ffmpeg: Ffmpeg) -> Path:
        """One mp4 of a playlist. Where it will lie is written down first: after a crash it is known for ours."""
        playlist = Path(video["file_path"])
        output = Path(video["output_path"]) if video["output_path"] else _free_name(playlist, video["root"])
        videos.will_be(self._catalog.db, video["id"], str(output))
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
        videos.source_is_gone(self._catalog.db, video["id"])

    # uploading

    def upload_turn(self) -> bool:
        """One ready video to Bilibili; False when there was nothing to do."""
        db = self._catalog.db
        for video in videos.due(db, State.READY):
            order = order_for(self.config, db, video)
            if isinstance(order, str):
                videos.wait(db, video["id"], order, NEVER)
                continue
            order = replace(order, account=submissions.account_of(db, video, order.account))
            try:
                member = self._accounts.member(self.config, order.account)
            except NeedsPerson as error:
                videos.wait(db, video["id"], str(error), _moment(ACCOUNT_SECONDS))
                continue
            if videos.begin_upload(db, video, self._owner):
                self._step(video, State.UPLOADING, State.READY, partial(self._upload, member=member, order=order))
                return True
        return False

    def _upload(self, video: Video, member: Member, order: Order) -> None:
        path, log = Path(video["file_path"]), logger.bind(video=video["id"])
        submissions.of_video(self._catalog.db, video, order.account)
        self._refuse_what_is_published(video, member, order)
        last = 0.0

        def on_progress(sent: int, total: int) -> None:
            nonlocal last
            moment = time.monotonic()
            if moment - last >= 0.5 or sent == total:
                last = moment
                with contextlib.suppress(TemporaryError):  # only shown: a busy catalog is no reason to stop an upload
                    videos.progress(self._catalog.db, video["id"], sent, total)

        with self._accounts.watching(order.account):
            line = self._accounts.line(self.config, member)
            videos.sends_by(self._catalog.db, video["id"], line.name)
            log.info("uploading {} by line {}", path.name, line.name)
            try:
                done = upos.upload(path, member, line, stop=self._stop, on_progress=on_progress)
            except TemporaryError:
                self._accounts.forget_line()
                raise
        self._insist(
            lambda: videos.end_upload(
                self._catalog.db, video["id"], filename=done.filename, cid=done.cid, line=done.line,
                size_bytes=done.size_bytes,
            )
        )  # fmt: skip
        log.info("uploaded {} in {:.1f} s", path.name, done.seconds)

    def _refuse_what_is_published(self, video: Video, member: Member, order: Order) -> None:
        """A library whose catalog was lost must not be published a second time: ask Bilibili for the title."""
        show = show_of(self._catalog.db, video)
        since = show.began if video["broadcast_id"] else _changed_at(Path(video["file_path"]))
        if video["again"] or since >= self._catalog.made_at:
            return
        with self._accounts.watching(order.account):
            found = bilibili.titled(member, show.fill(order.template.title, order.streamer), since)
        if found:
            raise PermanentError(
                f"older than this catalog, and Bilibili has {found.bvid} of the same title: probably this one;"
                f" biliupd retry video:{video['id']} publishes it all the same"
            )

    # submitting

    def submit_turn(self) -> bool:
        """Every submission one step further; False when nothing moved."""
        db = self._catalog.db
        moved = False
        for row in submissions.due(db, Stage.SUBMITTING):
            moved |= self._try(row, Stage.SUBMITTING, self._look_up)
        if self._may_be_complete():
            for row in submissions.due(db, Stage.COLLECTING):
                moved |= self._try(row, Stage.COLLECTING, self._submit)
        for row in submissions.due(db, Stage.SUBMITTED):
            moved |= self._try(row, Stage.SUBMITTED, self._look_whether_shown)
        return moved

    def _may_be_complete(self) -> bool:
        """Whether to look at what is being collected: another thread wrote something, or a while has passed."""
        (version,) = self._catalog.db.execute("pragma data_version").fetchone()
        now = time.monotonic()
        if version == self._version and now < self._look_again_at:
            return False
        self._version, self._look_again_at = version, now + COLLECT_SECONDS
        return True

    def _submit(self, row: Submission) -> bool:
        db, log = self._catalog.db, logger.bind(submission=row["id"])
        parts = submissions.parts(db, row["id"])
        why = submissions.obstacle(db, row)
        order = order_for(self.config, db, parts[0]) if parts else why
        if why or isinstance(order, str):
            submissions.wait(db, row["id"], f"waits for {why}" if why else str(order), None)
            return False
        order = replace(order, account=row["account"])  # who uploaded it; the settings may name another by now
        last = submissions.last_submit(db, order.account)
        if last and (gap := self._pause_after(last)) > 0:
            submissions.wait(db, row["id"], "waits for the pause between two submissions", _moment(gap))
            return False
        member = self._accounts.member(self.config, order.account)
        with self._accounts.watching(order.account):
            cover_url = self._cover(order, parts[0], member)
        metadata, sent = submission_of(order, show_of(db, parts[0]), parts, cover_url)
        filenames = [part["filename"] for part in parts]
        if not submissions.begin(db, row, metadata.title, filenames, self._owner):
            return False
        with self._accounts.watching(order.account):
            try:
                done = bilibili.submit(member, self.config.publish, metadata, sent)
            except UnknownOutcome as error:
                log.warning("no trustworthy answer to the submit: {}; looking for it", error)
                self._failed(row, Stage.SUBMITTING, Stage.SUBMITTING, str(error), None)
                return True
            except NeedsPerson as error:
                self._failed(row, Stage.SUBMITTING, Stage.COLLECTING, str(error), _moment(ACCOUNT_SECONDS))
                raise
            except TemporaryError as error:
                self._later(row, Stage.SUBMITTING, Stage.COLLECTING, error)
                return True
            except PermanentError as error:
                self._failed(row, Stage.SUBMITTING, Stage.HELD, str(error), None)
                log.error("held: {}", error)
                return True
            except Exception as error:  # a bug: nobody knows whether it was sent
                log.exception("a bug in biliupd")
                self._failed(row, Stage.SUBMITTING, Stage.SUBMITTING, f"{type(error).__name__}: {error}", None)
                return True
        self._insist(lambda: submissions.accepted(db, row["id"], done.aid, done.bvid))
        log.info("submitted {} as {} with {} parts", metadata.title, done.bvid, len(parts))
        return True

    def _cover(self, order: Order, video: Video, member: Member) -> str:
        """Its address at Bilibili; empty: Bilibili takes a frame."""
        picture = order.template.cover or (Path(video["cover_path"]) if video["cover_path"] else None)
        if picture is None:
            return ""
        try:
            return bilibili.upload_cover(member, picture)
        except PermanentError as error:
            logger.warning("no cover, Bilibili takes a frame: {}", error)
            return ""

    def _look_up(self, row: Submission) -> bool:
        """What became of a submit whose answer is not known (bilibili-upload.md, 5.8)."""
        db, log = self._catalog.db, logger.bind(submission=row["id"])
        member = self._accounts.member(self.config, row["account"])
        since = datetime.fromisoformat(row["submit_started_at"])
        with self._accounts.watching(row["account"]):
            found = bilibili.find(member, submissions.filenames(row), since)
        if found:
            submissions.accepted(db, row["id"], found.aid, found.bvid)
            log.info("Bilibili has it already: {}", found.bvid)
            return True
        if row["lookups"] == 0:
            until = _moment(self.config.publish.lookup_seconds)
            why = "not in the account's list; looking once more before anything is sent again"
            self._failed(row, Stage.SUBMITTING, Stage.SUBMITTING, why, until, lookups=1)
            return True
        if row["resubmits"] == 0:
            log.warning("twice not in the account's list: it is sent once more")
            why = "the first submit was not accepted"
            self._failed(row, Stage.SUBMITTING, Stage.COLLECTING, why, None, resubmits=1)
            return True
        why = "sent twice without an answer, and not in the account's list: look at Bilibili, then retry or leave it"
        self._failed(row, Stage.SUBMITTING, Stage.HELD, why, None)
        log.error("held: {}", why)
        return True

    def _look_whether_shown(self, row: Submission) -> bool:
        db, log = self._catalog.db, logger.bind(submission=row["id"])
        member = self._accounts.member(self.config, row["account"])
        with self._accounts.watching(row["account"]):
            review = bilibili.review(member, row["bvid"])
        if review.refused:
            self._failed(row, Stage.SUBMITTED, Stage.HELD, review.refused, None)
            log.error("held: {} {}", row["bvid"], review.refused)
            return True
        if review.shows(submissions.filenames(row)):
            submissions.shown(db, row["id"])
            log.info("published: {}", row["bvid"])
            return True
        until = _moment(self.config.publish.review_seconds)
        submissions.wait(db, row["id"], "waits until Bilibili shows every part", until)
        return False

    # what follows from a failure

    def _step(self, video: Video, doing: State, rest: State, action: Callable[[Video], None]) -> None:
        """Run one step of a claimed video; whatever happens, its row is at rest afterwards."""
        db, log, attempts = self._catalog.db, logger.bind(video=video["id"]), video["attempts"]

        def hold(why: str) -> None:
            gone = not os.path.lexists(video["file_path"])
            target = State.MISSING if gone else State.HELD
            self._insist(lambda: videos.put_back(db, video, doing, target, why, None, attempts))
            log.error("{}: {}: {}", target, video["title"], why)

        def later(why: str, seconds: float, attempts: int, waits_for: str | None = None) -> None:
            at = _moment(seconds) if seconds else None
            self._insist(lambda: videos.put_back(db, video, doing, rest, why, at, attempts, waits_for=waits_for))

        try:
            with logger.contextualize(video=video["id"]):
                action(video)
        except Stopped:
            later("put down because the daemon stops", 0, attempts)
        except NeedsPerson as error:
            later(str(error), ACCOUNT_SECONDS, attempts, waits_for=str(error))
        except (TemporaryError, OSError) as error:
            attempts += 1
            if attempts >= self.config.publish.attempts:
                return hold(f"{error} (after {attempts} tries)")
            seconds = self._wait_seconds(attempts, error)
            log.warning("{}: {}; again in {:.0f} s", video["title"], error, seconds)
            later(str(error), seconds, attempts)
        except BiliupdError as error:
            hold(str(error))
        except Exception as error:  # a bug must not stop every other video
            log.exception("a bug in biliupd")
            hold(f"a bug in biliupd: {type(error).__name__}: {error}")

    def _insist(self, write: Callable[[], object]) -> None:
        """Write an outcome down, however long the catalog is busy. When the daemon stops before, the row stays claimed
        by a dead owner, and the next start puts it back."""
        while True:
            try:
                write()
                return
            except TemporaryError as error:
                logger.warning("an outcome waits to be written down: {}", error)
                if self._stop.wait(max(error.retry_after_seconds, IDLE_SECONDS)):
                    return

    def _try(self, row: Submission, stage: Stage, action: Callable[[Submission], bool]) -> bool:
        """The same for a submission, which stays in its stage when another try may help."""
        db, log = self._catalog.db, logger.bind(submission=row["id"])
        try:
            with logger.contextualize(submission=row["id"]):
                return action(row)
        except Stopped:
            return False
        except NeedsPerson as error:
            submissions.wait(db, row["id"], str(error), _moment(ACCOUNT_SECONDS))
        except (TemporaryError, OSError) as error:
            self._later(row, stage, stage, error)
        except Exception as error:
            if not isinstance(error, BiliupdError):
                log.exception("a bug in biliupd")
            self._failed(row, stage, Stage.HELD, f"{type(error).__name__}: {error}", None)
            log.error("held: {}", error)
        return False

    def _failed(
        self, row: Submission, old: Stage, new: Stage, why: str, retry_at: str | None, **facts: object
    ) -> None:
        self._insist(lambda: submissions.failed(self._catalog.db, row, old, new, why, retry_at, **facts))

    def _later(self, row: Submission, old: Stage, rest: Stage, error: Exception) -> None:
        attempts = row["attempts"] + 1
        log = logger.bind(submission=row["id"])
        if attempts >= self.config.publish.attempts and rest is Stage.COLLECTING:
            why = f"{error} (after {attempts} tries)"
            self._failed(row, old, Stage.HELD, why, None, attempts=attempts)
            log.error("held: {}", why)
            return
        seconds = self._wait_seconds(attempts, error)
        log.warning("{}; again in {:.0f} s", error, seconds)
        self._failed(row, old, rest, str(error), _moment(seconds), attempts=attempts)

    def _wait_seconds(self, attempts: int, error: Exception) -> float:
        own: float = min(self.config.publish.retry_seconds * 2 ** (attempts - 1), LONGEST_WAIT_SECONDS)
        asked = error.retry_after_seconds if isinstance(error, TemporaryError) else 0.0
        return max(own * random.uniform(0.8, 1.2), asked)

    def _pause_after(self, last: str) -> float:
        since = (datetime.now(UTC) - datetime.fromisoformat(last)).total_seconds()
        return self.config.publish.submit_interval_seconds - max(since, 0.0)


def _moment(seconds: float) -> str:
    return stamp(datetime.now(UTC) + timedelta(seconds=seconds))


def _changed_at(path: Path) -> datetime:
    """When the file came here, as far as the disk knows: no tool sets this time."""
    return datetime.fromtimestamp(path.stat().st_ctime, UTC)


def _free_name(playlist: Path, root: str) -> Path:
    """Where the mp4 of a playlist will lie: beside its directory, or beside itself at the top of a watched folder."""
    base = playlist.with_suffix("") if str(playlist.parent) == root else playlist.parent
    for n in range(1, 1000):
        path = base.with_name(f"{base.name}{f' ({n})' if n > 1 else ''}.mp4")
        if not os.path.lexists(path):
            return path
    raise PermanentError(f"{base}.mp4 and a thousand names like it are taken")

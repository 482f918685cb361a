"""Uploaded videos → a submission with a bvid, once; parts appended to it; its review followed to the end.

One worker of the pipeline. The intent is written down before anything is sent, and what became of it is looked up
before anything is sent again (bilibili-upload.md, 5.8).
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loguru import logger

from biliupd.catalog import records, submissions
from biliupd.catalog.states import Stage, State
from biliupd.catalog.submissions import Submission
from biliupd.catalog.videos import Video
from biliupd.errors import NeedsPerson, PermanentError, TemporaryError, UnknownOutcome
from biliupd.pipeline.accounts import ACCOUNT_SECONDS, Accounts
from biliupd.pipeline.desk import Desk, moment
from biliupd.pipeline.orders import Order, Wait, body_of, order_for, parts_of, show_of
from biliupd.publish import archives
from biliupd.publish import submission as bilibili
from biliupd.publish.covers import fetch_picture, upload_cover
from biliupd.publish.member import Member

COLLECT_SECONDS = 2.0  #: collecting submissions are looked at this often though nothing was written
LONGEST_REVIEW_SECONDS = 900.0  #: a review that takes long is looked at less often
_MOVING = (State.RECORDED, State.EDITING, State.READY, State.UPLOADING)


class Submitting:
    """Submits what is complete, looks up what is not known, appends what comes later, follows the review."""

    def __init__(self, desk: Desk, accounts: Accounts) -> None:
        self._desk, self._accounts = desk, accounts
        self._version: int | None = None
        self._look_again_at = 0.0

    def turn(self) -> bool:
        """Every submission one step further; False when nothing moved."""
        desk, db = self._desk, self._desk.db
        moved = False
        for row in submissions.due(db, Stage.SUBMITTING):
            moved |= desk.attempt(row, Stage.SUBMITTING, self._look_up)
        for row in submissions.due(db, Stage.APPENDING):
            moved |= desk.attempt(row, Stage.APPENDING, self._append_again)
        if self._may_be_complete():
            for row in submissions.due(db, Stage.COLLECTING):
                moved |= desk.attempt(row, Stage.COLLECTING, self._submit)
            for row in submissions.with_more(db):
                moved |= desk.attempt(row, Stage(row["state"]), self._append)
        for row in submissions.due(db, Stage.SUBMITTED):
            moved |= desk.attempt(row, Stage.SUBMITTED, self._look_whether_shown)
        return moved

    def _may_be_complete(self) -> bool:
        """Whether to look at what is being collected: another thread wrote something, or a while has passed."""
        (version,) = self._desk.db.execute("pragma data_version").fetchone()
        now = time.monotonic()
        if version == self._version and now < self._look_again_at:
            return False
        self._version, self._look_again_at = version, now + COLLECT_SECONDS
        return True

    # a new submission

    def _submit(self, row: Submission) -> bool:
        desk, db, log = self._desk, self._desk.db, logger.bind(submission=row["id"])
        found = submissions.parts(db, row["id"])
        order = order_for(desk.config, db, found[0]) if found else None
        if isinstance(order, Wait):
            submissions.wait(db, row["id"], order.why, None)
            return False
        why = submissions.obstacle(
            db, row, early=order.early if order else False, quiet_seconds=order.quiet_seconds if order else 0
        )
        before = submissions.get(db, row["continues"]) if row["continues"] else None
        if not why and before and not before["bvid"]:
            why = f"the submission that it continues, which is {before['state']}"
        if why or order is None:
            submissions.wait(db, row["id"], f"waits for {why}", None)
            return False
        order = replace(order, account=row["account"])  # who uploaded it; the settings may name another by now
        sent = submissions.leading(db, found) if order.early else found
        most = desk.config.publish.parts_per_submission
        if len(sent) > most:
            further = submissions.split(db, row, most)
            log.info("more than {} parts: the rest goes into submission {}", most, further)
            sent = sent[:most]
        if self._must_wait(row, order.account):
            return False
        member = self._accounts.member(desk.config, order.account)
        with self._accounts.watching(order.account):
            cover_url = self._cover(order, sent[0], member)
        number, offset = _place_in_row(desk, row)
        body = body_of(
            order, show_of(db, sent[0], order), sent, cover_url, number=number, offset=offset,
            before=str(before["bvid"]) if before else "",
        )  # fmt: skip
        return self._send(
            row, order.account, Stage.SUBMITTING, Stage.COLLECTING,
            claim=lambda: submissions.begin(db, row, body, desk.owner, moment(-max(0.0, member.clock_ahead_seconds))),
            action=lambda: bilibili.submit(member, body), done=lambda made: submissions.accepted(
                db, row["id"], made.aid, made.bvid),
        )  # fmt: skip

    def _must_wait(self, row: Submission, account: str) -> bool:
        """Whether the pace that is polite lets it go now; a way back for what waits."""
        pause, why = self._accounts.pause(self._desk.config, account)
        if pause > 0:
            submissions.wait(self._desk.db, row["id"], f"waits for {why}", moment(pause))
        return pause > 0

    def _send(
        self, row: Submission, account: str, doing: Stage, rest: Stage, *, claim: Callable[[], bool],
        action: Callable[[], archives.Submitted], done: Callable[[archives.Submitted], object],
    ) -> bool:  # fmt: skip
        """Claim, send once, write down what came of it."""
        desk, log = self._desk, logger.bind(submission=row["id"])
        with ExitStack() as alone:
            try:
                alone.enter_context(self._accounts.submitting(desk.config, account))
            except TemporaryError as error:
                submissions.wait(desk.db, row["id"], f"waits for {error}", moment(error.retry_after_seconds))
                return False
            if not claim():
                return False
            desk.catalog.settle()  # whatever becomes of the disk: that it may have been sent is known
            try:
                with self._accounts.watching(account):
                    made = action()
            except UnknownOutcome as error:
                log.warning("no trustworthy answer: {}; looking for it", error)
                desk.failed(row, doing, doing, str(error), None, refused=str(error) if error.refused else "")
                return True
            except NeedsPerson as error:
                desk.failed(row, doing, rest, str(error), moment(ACCOUNT_SECONDS))
                raise
            except TemporaryError as error:
                desk.later(row, doing, rest, error)
                return True
            except PermanentError as error:
                if doing is Stage.SUBMITTING and self._upload_again(row, error):
                    return True
                desk.failed(row, doing, Stage.HELD, str(error), None)
                log.error("held: {}", error)
                return True
            except Exception as error:  # a bug: nobody knows whether it was sent
                log.exception("a bug in biliupd")
                desk.failed(row, doing, doing, f"{type(error).__name__}: {error}", None)
                return True
        desk.insist(lambda: done(made))
        log.info("{} as {}", "submitted" if doing is Stage.SUBMITTING else "parts appended", made.bvid)
        return True

    def _upload_again(self, row: Submission, error: PermanentError) -> bool:
        """Bilibili says that a part is broken: once, it is uploaded anew; when it does not say which, all of them."""
        current = submissions.get(self._desk.db, row["id"])
        sent = submissions.sent_parts(self._desk.db, current) if current else []
        number = bilibili.broken_part(error, len(sent))
        if current is None or number is None or current["reuploads"]:
            return False
        again = [video["id"] for video in (sent if number == 0 else [sent[number - 1]])]
        logger.bind(submission=row["id"]).warning("{}; uploading {} of {} parts again", error, len(again), len(sent))
        self._desk.insist(lambda: submissions.upload_again(self._desk.db, current, again, str(error)))
        return True

    def _cover(self, order: Order, video: Video, member: Member) -> str:
        """Its address at Bilibili; empty: Bilibili takes a frame."""
        wanted = order.template.cover
        frame = Path(video["cover_path"]) if video["cover_path"] else None
        try:
            if wanted == "live" and (url := records.live_cover(self._desk.db, video["broadcast_id"])):
                with TemporaryDirectory(prefix="biliupd-") as directory:
                    return upload_cover(member, fetch_picture(url, Path(directory) / "cover"))
            picture = frame if wanted in ("frame", "live") else Path(wanted)
            return upload_cover(member, picture) if picture else ""
        except NeedsPerson:
            raise
        except PermanentError as error:
            logger.warning("not that cover: {}", error)
        except TemporaryError as error:
            if wanted != "live":
                raise
            logger.warning("not the live cover: {}", error)
        if wanted == "frame" or frame is None:
            return ""
        try:
            return upload_cover(member, frame)
        except PermanentError as error:
            logger.warning("no cover, Bilibili takes a frame: {}", error)
            return ""

    # what became of it

    def _look_up(self, row: Submission) -> bool:
        """What became of a submit whose answer is not known."""
        desk, db, log = self._desk, self._desk.db, logger.bind(submission=row["id"])
        member = self._accounts.member(desk.config, row["account"])
        since = datetime.fromisoformat(row["submit_started_at"])
        with self._accounts.watching(row["account"]):
            found = archives.find(member, submissions.filenames(row), since)
        if found:
            submissions.accepted(db, row["id"], found.aid, found.bvid)
            log.info("Bilibili has it already: {}", found.bvid)
            return True
        if row["lookups"] == 0:
            until = moment(desk.config.publish.lookup_seconds)
            why = "not in the account's list; looking once more before anything is sent again"
            desk.failed(row, Stage.SUBMITTING, Stage.SUBMITTING, why, until, lookups=1)
            return True
        if row["refused"]:  # it was answered, so that it is not there: another try may be, later
            error = TemporaryError(row["refused"], retry_after_seconds=bilibili.SAME_TITLE_SECONDS)
            desk.later(row, Stage.SUBMITTING, Stage.COLLECTING, error)
            return True
        if row["resubmits"] == 0:
            log.warning("twice not in the account's list: it is sent once more")
            why = "the first submit was not accepted"
            desk.failed(row, Stage.SUBMITTING, Stage.COLLECTING, why, None, resubmits=1)
            return True
        why = "sent twice without an answer, and not in the account's list: look at Bilibili, then retry or leave it"
        desk.failed(row, Stage.SUBMITTING, Stage.HELD, why, None)
        log.error("held: {}", why)
        return True

    # further parts

    def _append(self, row: Submission) -> bool:
        """Parts that were uploaded after it was sent, at their place in the order of recording."""
        desk, db = self._desk, self._desk.db
        found = submissions.parts(db, row["id"])
        order = order_for(desk.config, db, found[0])
        early = order.early if isinstance(order, Order) else False
        if not early and any(video["state"] in _MOVING for video in found):
            return False  # all of them with one edit
        ready = submissions.leading(db, found)
        sent = [video for video in ready if video["bvid"]]
        most = desk.config.publish.parts_per_submission
        if len(ready) > most:
            further = submissions.split(db, row, most)
            logger.bind(submission=row["id"]).info("has {} parts: what comes goes into submission {}", most, further)
            return True
        if len(ready) == len(sent) or isinstance(order, Wait) or self._must_wait(row, row["account"]):
            return False
        _, offset = _place_in_row(desk, row)
        parts = parts_of(replace(order, account=row["account"]), show_of(db, found[0], order), ready, offset=offset)
        names = [part.filename for part in parts]
        new = [part for part, video in zip(parts, ready, strict=True) if not video["bvid"]]
        member = self._accounts.member(desk.config, row["account"])
        # later, what is missing was taken out by somebody at Bilibili
        expected = [str(video["filename"]) for video in sent] if _is_young(row) else []
        self._view(row, member, expected)
        return self._send(
            row, row["account"], Stage.APPENDING, Stage.SUBMITTED,
            claim=lambda: submissions.begin_append(db, row, names, desk.owner),
            action=lambda: bilibili.append(
                member, row["bvid"], new, json.loads(row["body"]), order=names, expected=expected),
            done=lambda made: self._appended(row["id"]),
        )  # fmt: skip

    def _append_again(self, row: Submission) -> bool:
        """What became of an edit whose answer is not known: the view says it; otherwise it is sent anew, later."""
        desk = self._desk
        member = self._accounts.member(desk.config, row["account"])
        with self._accounts.watching(row["account"]):
            review = archives.review(member, row["bvid"])
        if set(submissions.filenames(row)) <= review.filenames:
            self._appended(row["id"])
            return True
        attempts = row["attempts"] + 1
        if attempts >= desk.config.publish.attempts:
            why = f"{row['last_error']} (after {attempts} tries)"
            desk.failed(row, Stage.APPENDING, Stage.HELD, why, None, attempts=attempts)
            return True
        until = moment(desk.config.publish.lookup_seconds)
        why = row["last_error"] or "the parts are not in it yet"
        desk.failed(row, Stage.APPENDING, Stage.SUBMITTED, why, until, attempts=attempts)
        return True

    def _appended(self, id: int) -> None:
        if (row := submissions.get(self._desk.db, id)) and submissions.appended(self._desk.db, row):
            logger.bind(submission=id).info("{} has {} parts now", row["bvid"], len(submissions.filenames(row)))

    # the review

    def _look_whether_shown(self, row: Submission) -> bool:
        desk, db, log = self._desk, self._desk.db, logger.bind(submission=row["id"])
        member = self._accounts.member(desk.config, row["account"])
        review = archives.review_of(self._view(row, member))
        submissions.reviewed(db, row["id"], review.state, review.refused or review.state_desc)
        if review.refused:
            desk.failed(row, Stage.SUBMITTED, Stage.HELD, review.refused, None)
            log.error("held: {} {}", row["bvid"], review.refused)
            return True
        if review.shows(submissions.filenames(row)):
            submissions.shown(db, row["id"])
            log.info("published: {}", row["bvid"])
            return True
        pause = min(max(_age_seconds(row) / 20, desk.config.publish.review_seconds), LONGEST_REVIEW_SECONDS)
        submissions.wait(db, row["id"], "waits until Bilibili shows every part", moment(pause))
        return False

    def _view(self, row: Submission, member: Member, expected: Sequence[str] = ()) -> dict[str, Any]:
        """What Bilibili says of it; that it says nothing soon after it was accepted is no error."""
        try:
            with self._accounts.watching(row["account"]):
                return bilibili.whole(member, row["bvid"], expected)
        except PermanentError as error:
            if not _is_young(row):
                raise
            raise TemporaryError(f"accepted, but not to be seen yet: {error}") from error


def _age_seconds(row: Submission) -> float:
    """How long it has been in its state."""
    return (datetime.now(UTC) - datetime.fromisoformat(row["since"])).total_seconds()


def _is_young(row: Submission) -> bool:
    """Whether what Bilibili shows of it may be older than what it accepted."""
    return abs(_age_seconds(row)) < archives.LAG_SECONDS


def _place_in_row(desk: Desk, row: Submission) -> tuple[int, int]:
    """The how-manieth submission of its broadcast or folder it is, and how many parts those before it have."""
    number, offset, before = 1, 0, row["continues"]
    while before and (earlier := submissions.get(desk.db, before)):
        number, offset, before = number + 1, offset + len(submissions.filenames(earlier)), earlier["continues"]
    return number, offset

"""Publish files once, or append them to a submission, without daemon and catalog: for the commands and as a library.

Runs on its caller's thread. Reads the files, talks to Bilibili, keeps a journal below the state directory it is given,
and in it the intent before anything is submitted; so a run that was ended in any way is gone on with by the next one,
and what may have been accepted is looked up before anything is sent again (bilibili-upload.md, 5.8).
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import urlsplit

from biliupd.config import PublishConfig, Template
from biliupd.errors import BiliupdError, NeedsPerson, PermanentError, Stopped, TemporaryError, UnknownOutcome
from biliupd.publish import submission, upos
from biliupd.publish.archives import LAG_SECONDS, Submitted, find, view
from biliupd.publish.covers import fetch_picture, upload_cover
from biliupd.publish.credential import Credential
from biliupd.publish.journal import (
    Content,
    CoverEntry,
    FileEntry,
    Intent,
    Journal,
    Look,
    Outcome,
    sent_since,
    submitted_body,
)
from biliupd.publish.line import Lines
from biliupd.publish.manners import StandingFile, spoken
from biliupd.publish.member import Member
from biliupd.publish.session import Session
from biliupd.publish.source import Source
from biliupd.publish.studio import MOST_PARTS, Part, studio
from biliupd.publish.throttle import Throttle
from biliupd.publish.upos import Progress

RETRY_SECONDS, MOST_RETRY_SECONDS = 5.0, 120.0
LONGEST_PAUSE_SECONDS = 600.0  #: what has to wait longer is for a later run
LOOK_AFTER_SECONDS = (5.0, 25.0, 60.0, 120.0)
MOST_SENT = 2  #: without an answer
PICTURE_HOSTS = (".hdslb.com", ".biliimg.com")
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What is wanted: `files` as parts in this order, as a new submission or at the end of `vid` (BV… or av…).

    `template` holds literal text, no placeholders. `cover` is the path or the address of a picture, empty: Bilibili
    takes a frame. `again`: forget what an earlier run has done.
    """

    cookies: Path
    files: tuple[Path, ...]
    template: Template = field(default_factory=Template)
    cover: str = ""
    vid: str = ""
    again: bool = False


@dataclass(frozen=True)
class Published:
    """What it became; `before`: an earlier run had done it, and nothing was sent now."""

    aid: int
    bvid: str
    parts: tuple[Part, ...]
    before: bool


def upload_video(
    cookies: Path | str, file_path: Path | str, title: str, desc: str = "", *,
    on_progress: Callable[[int, int], None] | None = None, publish: PublishConfig | None = None,
    cover: Path | str | None = None, stop: threading.Event | None = None,
    wait: Callable[[float], object] | None = None, state_directory: Path | None = None, again: bool = False,
    **fields: Any,
) -> str:
    """Upload a file, submit it as a video of one part and return its bvid.

    `fields` are those of `Template` (tags, tid, copyright, source, dynamic, ...); `on_progress(sent, total)` in bytes;
    `wait(seconds)` sleeps. With a `state_directory` a second call goes on where one that was ended stopped, and gives
    the bvid of what is published already unless `again` is set; without, nothing is remembered.

    Raises the errors of the family: Stopped after `stop` was set; UnknownOutcome when the submit got no answer and the
    account's list does not show it after some minutes: look at Bilibili before you publish the file again.
    """
    template = Template().model_copy(update={"title": title, "desc": desc, **fields})
    order = Order(Path(cookies), (Path(file_path),), template, str(cover or ""), again=again)

    def told(_: int, progress: Progress) -> None:
        if on_progress:
            on_progress(progress.sent_bytes, progress.total_bytes)

    return Job(publish or PublishConfig(), order, state_directory=state_directory, stop=stop, on_progress=told,
               wait=wait).run().bvid


class Job:
    """One order, carried out by `run`, in the caller's thread.

    `on_progress(number, progress)` counts files from 0; `on_note(text)` says what a person who waits wants to know.
    """

    def __init__(
        self, publish: PublishConfig, order: Order, *, state_directory: Path | None,
        stop: threading.Event | None = None, on_progress: Callable[[int, Progress], object] | None = None,
        on_note: Callable[[str], object] | None = None, wait: Callable[[float], object] | None = None,
    ) -> None:
        self._publish, self._order, self._state_directory = publish, order, state_directory
        self._journals = state_directory / "uploads" if state_directory else None
        self._stop = stop or threading.Event()
        self._on_progress, self._note = on_progress or _nothing, on_note or _nothing
        self._wait = wait or self._stop.wait
        self._standing = StandingFile(order.cookies)
        self._throttle = Throttle(lambda: publish.bandwidth_at(datetime.now().astimezone().time()))
        self._submitted: dict[str, Any] = {}
        self._expected: frozenset[str] = frozenset()
        self._reuploaded = False

    def run(self) -> Published:
        """Do what is left to do. Safe to repeat, in this process or another.

        Raises UnderWay while another process works on the same order, PermanentError and NeedsPerson for what waits for
        somebody, TemporaryError for what a later run may achieve, UnknownOutcome when a submission may exist that is
        not to be seen (the next run looks for it first), Stopped within about a second of an upload after `stop`.
        """
        self._looks = check_files(self._order.files, self._publish.parts_per_submission)
        if self._order.cover and not _is_address(self._order.cover):
            _look(Path(self._order.cover))
        self._member = Member(self._publish, Credential.load(self._order.cookies))
        verb = "append" if self._order.vid else "upload"
        with Journal(self._journals, mid=self._member.credential.mid, verb=verb, vid=self._order.vid,
                     paths=list(self._looks)) as journal:  # fmt: skip
            self._journal = journal
            if journal.content.outcome and not self._order.again and self._unchanged():
                return self._published(before=True)
            self._standing.refuse_while_quiet()
            self._lines = Lines(self._state_directory / "lines.json" if self._state_directory else None)
            self._tried(self._member.whoami)
            if self._settled_from_before():
                return self._published(before=True)
            self._check_before()
            cover_url = self._cover()
            for number, path in enumerate(self._looks):
                self._upload(number, path)
            self._submit(cover_url)
            return self._published(before=False)

    @property
    def _content(self) -> Content:
        return self._journal.content

    def _published(self, *, before: bool) -> Published:
        outcome = self._content.outcome
        assert outcome
        return Published(outcome.aid, outcome.bvid, tuple(self._parts()), before)

    def _parts(self) -> list[Part]:
        entries = self._content.files
        return [Part(entries[path].filename, _shown(Path(path).stem), entries[path].cid) for path in self._looks]

    def _unchanged(self) -> bool:
        """Whether every file looks as it did when it was uploaded."""
        known = self._content.files
        return all(path in known and known[path].look == look for path, look in self._looks.items())

    # -- what an earlier run has done -------------------------------------------------------------------------------

    def _settled_from_before(self) -> bool:
        """Find out what became of an earlier run; whether it has done everything."""
        content, again = self._content, self._order.again
        if content.intent and not content.outcome:
            self._note("an earlier run does not know whether Bilibili took it: looking")
            if self._look_up(at_once=True):
                if self._unchanged():
                    return True
            elif content.intent and content.intent.tries >= MOST_SENT and not again:
                raise _never_answered()
        if again:
            self._journal.begin_anew()
        elif content.outcome:
            self._note(f"a file has changed since {content.outcome.bvid} was published: publishing anew")
            self._journal.begin_anew()
        elif not self._unchanged():  # what was sent, if anything, was something else
            content.intent = None
        self._content.files = {
            path: entry for path, entry in self._content.files.items() if entry.look == self._looks.get(path)}
        return False

    # -- before anything is sent ------------------------------------------------------------------------------------

    def _check_before(self) -> None:
        """What Bilibili would refuse after gigabytes were sent is refused now."""
        if not self._order.vid:
            studio(self._order.template, [Part(path, "", 0) for path in self._looks])
            return
        content = self._tried(lambda: view(self._member, self._order.vid))
        had = len(content["videos"] or [])
        if had + len(self._looks) > MOST_PARTS:
            raise PermanentError(
                f"{self._order.vid} has {had} parts; with {len(self._looks)} more it would have more than the "
                f"{MOST_PARTS} Bilibili takes", hint="publish them with biliupd upload")
        bvid = str(content["archive"].get("bvid") or self._order.vid)
        self._submitted = submitted_body(self._journals, bvid)
        self._expected = sent_since(self._journals, bvid, time.time() - LAG_SECONDS)

    def _cover(self) -> str:
        """The address of the picture at Bilibili; empty: there is none."""
        source = self._order.cover
        if not source or urlsplit(source).netloc.endswith(PICTURE_HOSTS):
            return source
        address = _is_address(source)
        source, look = (source, None) if address else (os.path.abspath(source), _look(Path(source)))
        known = self._content.cover
        if not known or (known.source, known.look) != (source, look):
            url = self._tried(partial(self._fetched if address else self._upload_cover, source))
            self._content.cover = known = CoverEntry(source=source, look=look, url=url)
            self._journal.keep()
        return known.url

    def _fetched(self, address: str) -> str:
        with TemporaryDirectory(prefix="biliupd-") as directory:
            return self._upload_cover(str(fetch_picture(address, Path(directory) / "cover")))

    def _upload_cover(self, path: str) -> str:
        return upload_cover(self._member, Path(path))

    # -- the files --------------------------------------------------------------------------------------------------

    def _upload(self, number: int, path: str) -> None:
        """One file to Bilibili, unless it is there."""
        entry = self._content.files.setdefault(path, FileEntry(look=self._looks[path]))
        name, left = _shown(Path(path).name), Session.loads(entry.session)
        if entry.filename:
            self._note(f"{name}: is there already")
            return
        if left and left.done:
            self._note(f"{name}: goes on, {len(left.done)} of {left.count} pieces are there")

        def remember(session: Session) -> None:
            entry.look = Look(size_bytes=session.size_bytes, mtime_ns=session.mtime_ns, inode=session.inode)
            entry.session = session.dumps()
            self._journal.keep()

        def send() -> upos.Uploaded:
            lines = self._lines.ranked(self._member, self._stop)
            return upos.upload(
                Path(path), self._member, lines, stop=self._stop, throttle=self._throttle,
                session=Session.loads(entry.session), on_session=remember, on_line_failed=self._lines.failed,
                on_progress=partial(self._on_progress, number))  # fmt: skip

        done = self._tried(send)
        entry.filename, entry.cid, entry.session = done.filename, done.cid, ""
        self._journal.keep()

    # -- the submission ---------------------------------------------------------------------------------------------

    def _submit(self, cover_url: str) -> None:
        """Submit or append, exactly once."""
        failures = 0
        while not self._content.outcome:
            try:
                self._send(cover_url)
            except UnknownOutcome as error:
                self._note(f"{error}: looking whether Bilibili has it")
                intent = self._intent
                intent.refused = str(error) if error.refused else ""
                self._journal.keep()
                if not self._look_up(at_once=False) and intent.tries >= MOST_SENT:
                    raise _never_answered() from error
            except NeedsPerson:
                raise
            except TemporaryError as error:
                failures += 1
                self._before_another_try(error, failures)
            except PermanentError as error:
                number = submission.broken_part(error, len(self._looks))
                if number is None or self._reuploaded:
                    raise
                self._upload_again(number, str(error))

    def _upload_again(self, number: int, why: str) -> None:
        """Bilibili calls a part broken, or does not say which (0): once, they are uploaded anew."""
        self._reuploaded = True
        for n, path in enumerate(self._looks):
            if number in (0, n + 1):
                self._note(f"{why}: uploading {_shown(Path(path).name)} again")
                self._content.files[path] = FileEntry(look=self._looks[path])
                self._upload(n, path)

    @property
    def _intent(self) -> Intent:
        assert self._content.intent
        return self._content.intent

    def _send(self, cover_url: str) -> None:
        """Write down what is about to be sent, and send it. Every error but UnknownOutcome: it was not accepted."""
        parts = self._parts()
        body = {} if self._order.vid else studio(self._order.template, parts, cover_url=cover_url)
        if self._expected:  # looking first, because that does not count as a submission
            self._tried(partial(submission.whole, self._member, self._order.vid, self._expected))
        with ExitStack() as alone:
            self._wait_for_my_turn(alone)
            self._intend(parts, body)
            try:
                with self._standing.warned():
                    made = (submission.append(self._member, self._order.vid, parts, self._submitted,
                                              expected=self._expected)
                            if self._order.vid else submission.submit(self._member, body))
            except UnknownOutcome:
                raise
            except BiliupdError:
                self._content.intent = None
                self._journal.keep()
                raise
        self._accepted(made)

    def _intend(self, parts: Sequence[Part], body: dict[str, Any]) -> None:
        names = [part.filename for part in parts]
        known = self._content.intent
        self._content.intent = Intent(
            title=str(body.get("title", "")), filenames=names, body=body, tries=known.tries + 1 if known else 1,
            began_at=known.began_at if known else time.time())
        try:
            self._journal.save()
        except TemporaryError:  # nothing was sent
            self._content.intent = known
            raise

    def _accepted(self, made: Submitted) -> None:
        self._content.outcome = Outcome(aid=made.aid, bvid=made.bvid, at=time.time())
        self._journal.keep()

    def _wait_for_my_turn(self, alone: ExitStack) -> None:
        while True:
            try:
                alone.enter_context(self._standing.submitting(self._publish))
                return
            except TemporaryError as error:
                seconds = error.retry_after_seconds
                if seconds > LONGEST_PAUSE_SECONDS:
                    raise TemporaryError(
                        f"everything is uploaded, but the account may submit again only in {spoken(seconds)}: {error}",
                        hint="run the same command again then: it goes on from here", retry_after_seconds=seconds,
                    ) from error
                self._note(f"{error}: submitting in {spoken(seconds)}")
                self._pause(seconds)

    def _look_up(self, *, at_once: bool) -> bool:
        """Whether what was sent is at Bilibili; False once it was missed twice, long enough apart.

        Raises UnknownOutcome when that cannot be found out, TemporaryError when it was refused for an earlier one.
        """
        intent, least = self._intent, self._publish.lookup_seconds
        *pauses, last = LOOK_AFTER_SECONDS
        for seconds in (0.0 if at_once else pauses[0], *pauses[1:], max(last, least)):
            self._pause(seconds)
            try:
                found = self._tried(self._found)
            except NeedsPerson:
                raise
            except TemporaryError as error:
                raise UnknownOutcome(f"it may have been accepted, and looking for it failed: {error}",
                                     hint="run the same command again later: it looks first") from error
            if found:
                self._note(f"Bilibili has it: {found.bvid}")
                self._accepted(found)
                return True
            now = time.time()
            if not 0 < intent.missed_at <= now:
                intent.missed_at = now
            self._journal.keep()
            if now - intent.missed_at >= least:
                break
        if intent.refused and intent.tries < MOST_SENT:
            self._content.intent = None
            self._journal.keep()
            raise TemporaryError(f"{intent.refused}; but the account's list does not show one",
                                 hint="another title may help; or run the same command again in ten minutes",
                                 retry_after_seconds=submission.SAME_TITLE_SECONDS)
        return False

    def _found(self) -> Submitted | None:
        intent, vid = self._intent, self._order.vid
        if not vid:
            return find(self._member, intent.filenames, datetime.fromtimestamp(intent.began_at, UTC))
        content = view(self._member, vid)
        there = {str(one["filename"]) for one in content["videos"] or []}
        archive = content["archive"]
        return Submitted(int(archive["aid"]), str(archive.get("bvid") or vid)) if there.issuperset(
            intent.filenames) else None

    # -- trying again -----------------------------------------------------------------------------------------------

    def _tried(self, step: Callable[[], T]) -> T:
        """What the step gives, after some tries if need be. A warning it brings is written down."""
        failures = 0
        while True:
            try:
                with self._standing.warned():
                    return step()
            except NeedsPerson:
                raise
            except TemporaryError as error:
                failures += 1
                self._before_another_try(error, failures)

    def _before_another_try(self, error: TemporaryError, failures: int) -> None:
        """Wait a while, or raise the error when it has been tried often enough."""
        seconds = max(min(RETRY_SECONDS * 2.0 ** (failures - 1), MOST_RETRY_SECONDS), error.retry_after_seconds)
        if failures >= self._publish.attempts or seconds > LONGEST_PAUSE_SECONDS:
            raise error
        self._note(f"{error}; once more in {spoken(seconds)}")
        self._pause(seconds)

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self._wait(seconds)
        if self._stop.is_set():
            raise Stopped("stopped; the same command goes on from here")


def check_files(files: Sequence[Path], most: int) -> dict[str, Look]:
    """How each file looks, by its absolute path, in order. Raises PermanentError that names everything wrong."""
    looks: dict[str, Look] = {}
    problems = []
    for path in files:
        place = os.path.abspath(path)
        try:
            if place in looks:
                raise PermanentError(f"{_shown(str(path))}: named twice")
            looks[place] = _look(path)
        except PermanentError as error:
            problems.append(str(error))
    if len(files) > most:
        raise PermanentError(f"{len(files)} files; a submission takes at most {most}",
                             hint=f"publish them as several submissions of at most {most} files")
    if not files:
        problems.append("no file is named")
    if problems:
        raise PermanentError("\n".join(problems), hint="nothing was sent")
    return looks


def _look(path: Path) -> Look:
    """How a file looks that can be uploaded. Raises PermanentError for any other."""
    try:
        with Source(path) as source:
            return Look(size_bytes=source.size_bytes, mtime_ns=source.mtime_ns, inode=source.inode)
    except TemporaryError as error:
        raise PermanentError(str(error)) from error


def _is_address(cover: str) -> bool:
    return cover.startswith(("http://", "https://"))


def _never_answered() -> UnknownOutcome:
    return UnknownOutcome(
        f"it was sent {MOST_SENT} times without an answer, and Bilibili does not show it",
        hint="look at the account's submissions; if it is not there some hours later, run the command with --again")


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def _nothing(*_: object) -> None:
    pass

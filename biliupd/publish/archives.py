"""What Bilibili has of an account: its list of submissions, one of them opened, and how its review stands.

Runs on the pipeline's workers. Only asks; bilibili-upload.md, 5.5, 5.6 and 5.8.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from loguru import logger

from biliupd.errors import PermanentError, TemporaryError
from biliupd.publish.member import Member
from biliupd.publish.studio import title_of

PAGE_SIZE = 50
MOST_PAGES = 200
LAG_SECONDS = 3600.0  #: what was accepted may take so long to be seen
CLOCK_SLACK = timedelta(minutes=5)
REFUSED_STATES = (-2, -4, -16)  #: rejected, locked, cannot be transcoded
SHOWN_STATES = (0, -50)  #: public; visible to oneself only, as asked for
EVER = datetime.fromtimestamp(0, UTC)
STATUSES = ("is_pubing", "pubed", "not_pubed")  #: in progress, passed, not passed


@dataclass(frozen=True)
class Submitted:
    """Bilibili's numbers for a submission."""

    aid: int
    bvid: str


@dataclass(frozen=True)
class Entry:
    """One row of the account's list; `created` in Unix seconds by Bilibili's clock."""

    aid: int
    bvid: str
    title: str
    created: float
    state: int
    state_desc: str
    reject_reason: str


@dataclass(frozen=True)
class Review:
    """How far Bilibili is with a submission: its state, in words too, why it was refused, and the parts it shows."""

    state: int
    state_desc: str
    reject_reason: str
    filenames: frozenset[str]
    shown: frozenset[str]
    broken: str = ""

    @property
    def refused(self) -> str:
        """Why a person has to look at it; empty when it is on its way."""
        if self.state in REFUSED_STATES:
            return f"Bilibili refused it: {self.reject_reason or self.state_desc or self.state}"
        return f"Bilibili cannot use a part: {self.broken}" if self.broken else ""

    def shows(self, filenames: Iterable[str]) -> bool:
        """Whether it has passed review and every one of these parts with it."""
        return self.state in SHOWN_STATES and set(filenames) <= self.shown


def find(member: Member, filenames: Iterable[str], since: datetime) -> Submitted | None:
    """The submission that holds any of these files among those made after `since`; None when there is none.

    The list has no file names, so each candidate is opened. Newest first, until a whole page is older than five
    minutes before `since`; a clock of ours that is ahead of Bilibili's is allowed for. Raises what `Member.call`
    raises, TemporaryError when list and view contradict each other: an error is no answer.
    """
    wanted, seen = set(filenames), set()
    for entry in listed(member, since):
        if entry.bvid not in seen and wanted & _filenames(member, entry.bvid):
            logger.info("{} holds the files that were looked for", entry.bvid)
            return Submitted(entry.aid, entry.bvid)
        seen.add(entry.bvid)
    return None


def titled(member: Member, title: str, since: datetime) -> Submitted | None:
    """The newest submission of exactly this title made after `since`; for a library whose catalog was lost.

    Raises as `find` does.
    """
    for entry in listed(member, since):
        if entry.title == title_of(title):
            return Submitted(entry.aid, entry.bvid)
    return None


def listed(
    member: Member, since: datetime = EVER, statuses: Iterable[str] = STATUSES
) -> Iterator[Entry]:
    """The account's submissions made after `since` (five minutes of slack), newest first."""
    for page in range(1, MOST_PAGES + 1):
        rows, count = _page(member, page, ",".join(statuses))
        until = (since - CLOCK_SLACK).timestamp() - max(0.0, member.clock_ahead_seconds)
        young = [entry for entry in rows if entry.created >= until]
        yield from young
        if not young or page * PAGE_SIZE >= count:
            return
    raise TemporaryError(f"archive list: no end after {MOST_PAGES} pages")


def _filenames(member: Member, bvid: str) -> frozenset[str]:
    try:
        return review(member, bvid).filenames
    except PermanentError as error:
        raise TemporaryError(f"{bvid} is in the list, but: {error}") from error


def _page(member: Member, page: int, status: str) -> tuple[list[Entry], int]:
    """One page of the list, and how many entries there are in all."""
    what = "archive list"
    content = member.call("GET", f"{member.publish.member_url}/x/web/archives", what=what, params={
        "status": status, "pn": page, "ps": PAGE_SIZE})
    try:
        entries = [row["Archive"] for row in content["arc_audits"] or []]
        rows = [
            Entry(int(entry["aid"]), str(entry["bvid"]), str(entry.get("title") or ""), float(entry["ctime"]),
                  int(entry.get("state") or 0), str(entry.get("state_desc") or ""),
                  str(entry.get("reject_reason") or ""))
            for entry in entries]  # fmt: skip
        if not all(math.isfinite(row.created) for row in rows):  # else it is neither old nor young
            raise ValueError("no moment")
        return rows, int(content["page"]["count"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TemporaryError(f"{what}: an answer that cannot be used") from error


def view(member: Member, vid: str) -> dict[str, Any]:
    """All that Bilibili says of a submission (BV… or av…). Raises PermanentError when it does not exist (any more)."""
    what = f"view of {vid}"
    key = {"aid": vid[2:]} if vid[:2].lower() == "av" and vid[2:].isdecimal() else {"bvid": vid}
    address = f"{member.publish.member_url}/x/vupre/web/archive/view"
    content = member.call("GET", address, what=what, params={**key, "topic_grey": 1})
    try:
        usable = int(content["archive"]["aid"]) and all(str(one["filename"]) for one in content["videos"] or [])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TemporaryError(f"{what}: an answer that cannot be used") from error
    if not usable:
        raise TemporaryError(f"{what}: an answer that cannot be used")
    return dict(content)


def review(member: Member, bvid: str) -> Review:
    """How Bilibili stands to a submission. Raises as `view` does."""
    return review_of(view(member, bvid))


def review_of(content: dict[str, Any]) -> Review:
    """The same, out of a view at hand."""
    archive, videos = content["archive"], content["videos"] or []
    try:
        return Review(
            int(archive["state"]), str(archive.get("state_desc") or ""), str(archive.get("reject_reason") or ""),
            frozenset(str(video["filename"]) for video in videos),
            frozenset(str(video["filename"]) for video in videos if _is_good(video)),
            next((_complaint(video) for video in videos if video.get("fail_code")), ""))  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TemporaryError("view: an answer that cannot be used") from error


def _is_good(video: dict[str, Any]) -> bool:
    return int(video.get("status") or 0) >= 0 and not video.get("fail_code")


def _complaint(video: dict[str, Any]) -> str:
    said = video.get("fail_desc") or video.get("reject_reason") or f"code {video['fail_code']}"
    return f"{video.get('title') or video['filename']}: {said}"

"""Parts and metadata → a submission (稿件), and whether Bilibili has it and shows it.

Runs on the pipeline's workers. A submission is sent once; what became of it when no answer came is for `find` to say.
"""

import base64
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from loguru import logger

from biliupd.config import PublishConfig
from biliupd.errors import PermanentError, TemporaryError, UnknownOutcome
from biliupd.publish.member import APP_AGENT, TV_KEY, TV_SECRET, Member, Unsent, code_of, parsed, sign

MOST_PARTS = 100
MOST_TAGS = 10
MOST_TAG_CHARACTERS = 20
MOST_TITLE_CHARACTERS = 80
MOST_COVER_BYTES = 10 << 20
PAGE_SIZE = 50
MOST_PAGES = 200
CLOCK_SLACK = timedelta(minutes=5)
KEPT_FIELDS = ("videos", "aid", "csrf")  #: extra_fields may not touch these
PICTURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"RIFF": "webp"}
MAYBE_ACCEPTED = (10009, 21012, -500, -503, -504, 20001)  #: an earlier try may have got through
REFUSED_STATES = (-2, -4, -16)  #: rejected, locked, cannot be transcoded (bilibili-upload.md, 5.5)
SHOWN_STATES = (0, -50)  #: public; visible to oneself only, as asked for


@dataclass(frozen=True)
class Part:
    """One uploaded file as a part (分P): UPOS's name, the title under which it is shown, and its cid (0: unknown)."""

    filename: str
    title: str
    cid: int
    desc: str = ""


@dataclass(frozen=True)
class Metadata:
    """Everything a submission says about itself, placeholders already filled in."""

    title: str
    desc: str = ""
    tags: Sequence[str] = ("直播录像",)
    tid: int = 171
    copyright: int = 1
    source: str = ""
    dynamic: str = ""
    cover_url: str = ""
    no_reprint: bool = True
    is_only_self: bool = False
    extra_fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Submitted:
    """Bilibili's numbers for a submission."""

    aid: int
    bvid: str


@dataclass(frozen=True)
class Review:
    """How far Bilibili is with a submission: its state, in words too, why it was refused, and the parts it shows."""

    state: int
    state_desc: str
    reject_reason: str
    filenames: frozenset[str]
    shown: frozenset[str]

    @property
    def refused(self) -> str:
        """Why a person has to look at it; empty when it is on its way."""
        if self.state not in REFUSED_STATES:
            return ""
        return f"Bilibili refused it: {self.reject_reason or self.state_desc or self.state}"

    def shows(self, filenames: Iterable[str]) -> bool:
        """Whether it has passed review and every one of these parts with it."""
        return self.state in SHOWN_STATES and set(filenames) <= self.shown


def studio(metadata: Metadata, parts: Sequence[Part]) -> dict[str, Any]:
    """The JSON body of a new submission. Cuts what is too long; raises PermanentError for what cannot be cut."""
    title, tags = cut(" ".join(metadata.title.split()), MOST_TITLE_CHARACTERS), _tags(metadata.tags)
    names = [part.filename for part in parts]
    problems = {
        "the title is empty": not title,
        "there is no tag": not tags,
        "copyright is 1, 2 or 3": metadata.copyright not in (1, 2, 3),
        "a repost needs its source": metadata.copyright == 2 and not metadata.source.strip(),
        f"{len(parts)} parts; Bilibili takes 1 to {MOST_PARTS}": not 1 <= len(parts) <= MOST_PARTS,
        "the same file is there twice": len(set(names)) != len(names),
    }
    if wrong := [text for text, holds in problems.items() if holds]:
        raise PermanentError(f"not submitted: {'; '.join(wrong)}", hint="mend the template, then retry")
    body: dict[str, Any] = {
        "copyright": metadata.copyright, "source": cut(metadata.source.strip(), 200) if metadata.copyright != 1 else "",
        "tid": metadata.tid, "cover": metadata.cover_url, "title": title, "tag": ",".join(tags),
        "desc_format_id": 0, "desc": cut(metadata.desc, 2000), "desc_v2": None, "dynamic": cut(metadata.dynamic, 233),
        "subtitle": {"open": 0, "lan": ""}, "open_subtitle": False, "interactive": 0, "mission_id": None, "dtime": None,
        "dolby": 0, "lossless_music": 0, "no_reprint": int(metadata.no_reprint),
        "is_only_self": int(metadata.is_only_self), "up_selection_reply": False, "up_close_reply": False,
        "up_close_danmu": False,
    }
    body |= {name: entry for name, entry in metadata.extra_fields.items() if name not in KEPT_FIELDS}
    body["videos"] = [_video(part) for part in parts]
    return body


def _video(part: Part) -> dict[str, Any]:
    title = cut(" ".join(part.title.split()), MOST_TITLE_CHARACTERS)
    return {"filename": part.filename, "title": title, "desc": part.desc} | ({"cid": part.cid} if part.cid else {})


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; what is cut ends in …, and not within a character made of several."""
    if len(text) <= limit:
        return text
    end = limit - 1
    while end and (unicodedata.combining(text[end]) or text[end] in "\u200d\ufe0e\ufe0f" or text[end - 1] == "\u200d"):
        end -= 1
    return text[:end].rstrip() + "…"


def _tags(tags: Iterable[str]) -> list[str]:
    """Tags without commas, blanks around them and repetitions, as many and as long as Bilibili takes."""
    words = [" ".join(word.split()) for tag in tags for word in tag.replace("，", ",").split(",")]
    return list(dict.fromkeys(word[:MOST_TAG_CHARACTERS].strip() for word in words if word))[:MOST_TAGS]


def upload_cover(member: Member, path: Path) -> str:
    """A JPEG, PNG or WebP file → its address at Bilibili. Raises PermanentError for anything else."""
    try:
        with open(path, "rb") as file:
            picture = file.read(MOST_COVER_BYTES + 1)
    except OSError as error:
        raise PermanentError(f"cover {path}: {error.strerror}") from error
    kind = next((PICTURES[start] for start in PICTURES if picture.startswith(start)), None)
    if not kind or len(picture) > MOST_COVER_BYTES:
        raise PermanentError(f"cover {path}: not a JPEG, PNG or WebP picture of at most {MOST_COVER_BYTES >> 20} MiB")
    form = {"cover": f"data:image/{kind};base64,{base64.b64encode(picture).decode()}", "csrf": member.credential.csrf}
    answer = member.call("POST", f"{member.publish.member_url}/x/vu/web/cover/up", what="cover", form=form)
    url = answer.get("url") if isinstance(answer, dict) else None
    if not isinstance(url, str) or not url:
        raise TemporaryError("cover: Bilibili gave no address for it")
    return url


def submit(member: Member, publish: PublishConfig, metadata: Metadata, parts: Sequence[Part]) -> Submitted:
    """Send a new submission, once.

    Raises UnknownOutcome when it may have been accepted, so that it must be looked up before anything else; every
    other error (NeedsPerson, TemporaryError, PermanentError) means that it was not.
    """
    what, body = "submit", studio(metadata, parts)
    if publish.submit == "app":
        address = f"{publish.member_url}/x/vu/app/add?{urlencode(_app_fields(member.token()))}"
        options: dict[str, Any] = {"cookies": False, "agent": APP_AGENT}
    else:
        csrf = member.credential.csrf
        address = f"{publish.member_url}/x/vu/web/add/v3?{urlencode({'t': time.time_ns() // 10**6, 'csrf': csrf})}"
        body, options = {**body, "csrf": csrf}, {}
    try:  # on a connection of its own: an old one may be dead, and then nobody knows what was read from it
        response = member.send("POST", address, what=what, json=body, fresh=True, **options)
    except Unsent:
        raise
    except TemporaryError as error:
        raise UnknownOutcome(f"{error}; it may have been accepted") from error.__cause__
    answer = parsed(response)
    code = code_of(answer)
    if code == 0 and isinstance(answer.get("data"), dict):
        aid, bvid = answer["data"].get("aid"), answer["data"].get("bvid")
        if isinstance(aid, int) and isinstance(bvid, str) and bvid:
            return Submitted(aid, bvid)
    refusal = member.refusal(response, answer, what)
    intercepted = response.status_code in (412, 429)
    if code in MAYBE_ACCEPTED or response.status_code >= 500 or (code in (None, 0) and not intercepted):
        raise UnknownOutcome(f"{refusal}; it may have been accepted")
    raise refusal


def _app_fields(token: str) -> dict[str, str]:
    return sign({
        "access_key": token, "appkey": TV_KEY, "build": "7800300", "c_locale": "zh-Hans_CN", "channel": "bili",
        "disable_rcmd": "0", "mobi_app": "android", "platform": "android", "s_locale": "zh-Hans_CN",
        "statistics": '"appId":1,"platform":3,"version":"7.80.0","abtest":""', "ts": str(int(time.time()))}, TV_SECRET)


def find(member: Member, filenames: Iterable[str], since: datetime) -> Submitted | None:
    """The submission that holds any of these files among those made after `since`; None when there is none.

    The list has no file names, so each candidate is opened. Newest first, until a whole page is older than five
    minutes before `since`; a clock of ours that is ahead of Bilibili's is allowed for. Raises what `Member.call`
    raises, TemporaryError when list and view contradict each other: an error is no answer.
    """
    wanted, seen = set(filenames), set()
    for entry in _listed(member, since):
        if entry.bvid not in seen and wanted & _filenames(member, entry.bvid):
            logger.info("{} holds the files that were looked for", entry.bvid)
            return Submitted(entry.aid, entry.bvid)
        seen.add(entry.bvid)
    return None


def titled(member: Member, title: str, since: datetime) -> Submitted | None:
    """The newest submission of exactly this title made after `since`; for a library whose catalog was lost.

    Raises as `find` does.
    """
    for entry in _listed(member, since):
        if entry.title == cut(title, MOST_TITLE_CHARACTERS):
            return Submitted(entry.aid, entry.bvid)
    return None


class _Entry(NamedTuple):
    aid: int
    bvid: str
    title: str
    created: float


def _listed(member: Member, since: datetime) -> Iterator[_Entry]:
    """The account's submissions made after `since` (five minutes of slack), newest first."""
    for page in range(1, MOST_PAGES + 1):
        rows, count = _page(member, page)
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


def _page(member: Member, page: int) -> tuple[list[_Entry], int]:
    """One page of the list, and how many entries there are in all."""
    what = "archive list"
    content = member.call("GET", f"{member.publish.member_url}/x/web/archives", what=what, params={
        "status": "is_pubing,pubed,not_pubed", "pn": page, "ps": PAGE_SIZE})
    try:
        entries = [row["Archive"] for row in content["arc_audits"] or []]
        rows = [
            _Entry(int(entry["aid"]), str(entry["bvid"]), str(entry.get("title") or ""), float(entry["ctime"]))
            for entry in entries]
        return rows, int(content["page"]["count"])
    except (KeyError, TypeError, ValueError) as error:
        raise TemporaryError(f"{what}: an answer that cannot be used") from error


def review(member: Member, bvid: str) -> Review:
    """How Bilibili stands to a submission. Raises PermanentError when it does not exist (any more)."""
    what = f"view of {bvid}"
    address = f"{member.publish.member_url}/x/vupre/web/archive/view"
    content = member.call("GET", address, what=what, params={"bvid": bvid, "topic_grey": 1})
    try:
        archive, videos = content["archive"], content["videos"] or []
        return Review(
            int(archive["state"]), str(archive.get("state_desc") or ""), str(archive.get("reject_reason") or ""),
            frozenset(str(video["filename"]) for video in videos),
            frozenset(str(video["filename"]) for video in videos if _is_good(video)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TemporaryError(f"{what}: an answer that cannot be used") from error


def _is_good(video: dict[str, Any]) -> bool:
    return int(video.get("status") or 0) >= 0 and not video.get("fail_code")

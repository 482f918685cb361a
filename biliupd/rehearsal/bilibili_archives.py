"""Submissions of the stand-in Bilibili: the checks at submit, the review, the list and the views.

Called by the server's connection threads. Covers go to its directory; everything else is in memory.
Speaks §4 and §5 of the upload protocol.
"""

import base64
import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from biliupd.rehearsal.bilibili_accounts import Account
from biliupd.rehearsal.bilibili_envelope import fine, refuse
from biliupd.rehearsal.bilibili_objects import Objects
from biliupd.rehearsal.bilibili_studio import MOST_PARTS, STATE_WORDS, check, shown_archive, shown_beside
from biliupd.rehearsal.bilibili_wire import Answer, Incoming

GROUPS = {"is_pubing": (-1, -30, -6, -7, -8, -10, -13, -40, -60), "pubed": (0, -50), "not_pubed": (-2, -4, -16)}
PASSED, REFUSED = (0, -40, -50), (-2, -4, -16)
SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}


@dataclass
class Part:
    """One video of a submission; the rest says how it fared in transcoding and review, when a test wants that."""

    filename: str
    title: str
    desc: str
    cid: int
    status: int | None = None
    fail_code: int = 0
    fail_desc: str = ""
    reject_reason: str = ""
    xcode_state: int = 6


@dataclass
class Archive:
    """An accepted submission. `body` is the JSON as it was submitted last, `edits` how often it was edited.

    `history` holds the bodies before, `past` the same with their parts and until when they counted.
    """

    aid: int
    bvid: str
    uid: int
    body: dict[str, Any]
    parts: list[Part]
    created_at: float
    reviewed_from: float
    review_state: int = -30
    forced_state: int | None = None
    reject_reason: str = ""
    edits: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    past: list[tuple[float, dict[str, Any], list[Part]]] = field(default_factory=list)

    @property
    def title(self) -> str:
        return str(self.body["title"])

    def state(self, review_seconds: float) -> int:
        """In review at first (-30, after an edit -6 unless it had been refused), then public, or waiting for its hour,
        or only for oneself."""
        if self.forced_state is not None:
            return self.forced_state
        if time.time() - self.reviewed_from < review_seconds:
            return self.review_state
        if (self.body.get("dtime") or 0) > time.time():
            return -40
        return -50 if self.body.get("is_only_self") else 0

    def seen(self, at: float) -> tuple[dict[str, Any], list[Part]]:
        """Body and parts as they were at that moment."""
        return next(((body, parts) for until, body, parts in self.past if at < until), (self.body, self.parts))


class Archives:
    """Everything submitted to this server, and the covers."""

    def __init__(self, directory: Path, objects: Objects) -> None:
        self.directory = directory
        self.review_seconds: float = 0
        self.listing_delay_seconds: float = 0
        self.view_delay_seconds: float = 0
        self.banned_tags: set[str] = set()
        self.submit_interval_seconds: float = 30
        self.same_title_seconds: float = 180
        self._objects = objects
        self._lock = threading.RLock()
        self._all: list[Archive] = []
        directory.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[Archive]:
        with self._lock:
            return list(self._all)

    def submit(self, account: Account, body: Any) -> Answer:
        """Accept a new submission, or refuse it with the code Bilibili uses (§4.6)."""
        with self._lock:
            check(body, banned_tags=self.banned_tags)
            self._check_references(body)
            parts = [self._new_part(account, video) for video in body["videos"]]
            now = time.time()
            if any(archive.uid == account.uid and archive.title == body["title"]
                   and now - archive.created_at < self.same_title_seconds for archive in self._all):
                refuse(21012)
            if now - account.last_submit_at < self.submit_interval_seconds:
                refuse(21070)
            account.last_submit_at = now
            aid = 113_000_000_000_000 + len(self._all) * 7919 + account.uid % 7919
            archive = Archive(aid, _bvid(aid), account.uid, body, parts, now, now)
            self._all.append(archive)
        return fine({"aid": archive.aid, "bvid": archive.bvid})

    def edit(self, account: Account, body: Any) -> Answer:
        """Replace a submission by what is given; parts it had already stay what they are (§5.7)."""
        with self._lock:
            aid = body.get("aid") if isinstance(body, dict) else None
            archive = next((item for item in self._all if item.aid == aid), None)
            if not archive:
                refuse(-404)
            if archive.uid != account.uid:
                refuse(-403)
            check(body, banned_tags=self.banned_tags, before=archive.body)
            self._check_references(body)
            parts = self._edited_parts(account, archive, body["videos"])
            now = time.time()
            archive.history.append(archive.body)
            archive.past.append((now, archive.body, archive.parts))
            archive.body, archive.parts = body, parts
            archive.edits += 1
            archive.review_state = -30 if archive.forced_state in REFUSED else -6
            archive.reviewed_from, archive.forced_state, archive.reject_reason = now, None, ""
        return fine({"aid": archive.aid, "bvid": archive.bvid})

    def _edited_parts(self, account: Account, archive: Archive, videos: list[dict[str, Any]]) -> list[Part]:
        """Parts it had are known by their cid or their file; only those that come with their cid count as old ones."""
        by_name = {part.filename: part for part in archive.parts}
        by_cid = {part.cid: part for part in archive.parts}
        if sum(video.get("cid") not in by_cid for video in videos) > MOST_PARTS:
            refuse(21058)
        parts: list[Part] = []
        for video in videos:
            name, cid = video.get("filename"), video.get("cid") or 0
            old = by_name.get(name) if name else by_cid.get(cid)
            if old and cid in (0, old.cid):
                title, desc = video.get("title") or old.title, video.get("desc") or ""
                parts.append(replace(old, title=title, desc=desc))
            elif not name:
                refuse(-400, "cid 有误")
            else:
                parts.append(self._new_part(account, video, archive))
        if len({part.filename for part in parts}) != len(parts):
            refuse(10009)
        return parts

    def _check_references(self, body: dict[str, Any]) -> None:
        """No file twice, and only covers that were uploaded here."""
        names = [video["filename"] for video in body["videos"] if video.get("filename")]
        if len(set(names)) != len(names):
            refuse(10009)
        for cover in (body.get("cover"), body.get("cover43")):
            if cover and "/bfs/archive/" in cover and not self.cover_path(cover):
                refuse(-400, "封面不存在")

    def _new_part(self, account: Account, video: dict[str, Any], into: Archive | None = None) -> Part:
        filename, title = video["filename"], video.get("title") or ""
        stored = self._objects.find(filename)
        if not stored or not stored.completed or stored.uid != account.uid:
            refuse(21015, f"视频 {filename} 不存在，请重新上传")
        if any(part.filename == filename for item in self._all if item is not into for part in item.parts):
            refuse(10009)
        if video.get("cid") not in (None, 0, stored.biz_id):
            refuse(-400, "cid 有误")
        return Part(filename, title, video.get("desc") or "", stored.biz_id)

    # -- covers -------------------------------------------------------------------------------------------------

    def cover(self, form: dict[str, str], base_url: str) -> Answer:
        """§5.1: a data URL of a JPEG, PNG or WebP picture → its address."""
        matched = re.fullmatch(r"data:image/(?:jpeg|jpg|png|webp);base64,([0-9A-Za-z+/=]+)", form.get("cover", ""))
        try:
            picture = base64.b64decode(matched[1], validate=True) if matched else b""
        except ValueError:
            picture = b""
        extension = next((SIGNATURES[start] for start in SIGNATURES if picture.startswith(start)), None)
        if not extension:
            refuse(-400, "图片格式有误")
        name = f"{hashlib.sha1(picture).hexdigest()}.{extension}"
        (self.directory / name).write_bytes(picture)
        return fine({"url": f"{base_url}/bfs/archive/{name}"})

    def cover_path(self, address: str) -> Path | None:
        """The file of a cover, by the address that was answered for it."""
        name = address.rsplit("/", 1)[-1]
        path = self.directory / name
        return path if re.fullmatch(r"[0-9a-f]{40}\.(jpg|png|webp)", name) and path.is_file() else None

    # -- lists and views ----------------------------------------------------------------------------------------

    def listing(self, account: Account, query: dict[str, str]) -> Answer:
        """§5.5, newest first; `Videos` is null, as it is in real answers."""
        wanted = query.get("status", "is_pubing,pubed,not_pubed").split(",")
        states = {state for name in wanted for state in GROUPS.get(name, ())}
        try:
            number, size = max(1, int(query.get("pn", 1))), min(50, max(1, int(query.get("ps", 10))))
        except ValueError:  # not a number, or one of thousands of digits
            refuse(-400)
        shown = [archive for archive in reversed(self.all())
                 if archive.uid == account.uid and archive.state(self.review_seconds) in states
                 and time.time() - archive.created_at >= self.listing_delay_seconds
                 and query.get("keyword", "") in archive.title
                 and query.get("tid", "") in ("", "0", str(archive.body.get("tid")))]
        rows = [{"Archive": self._archive(archive, archive.body), "Videos": None, "captions_count": 0,
                 "stat": {"aid": archive.aid, "view": 0, "danmaku": 0, "reply": 0, "favorite": 0, "coin": 0,
                          "share": 0, "like": 0}}
                for archive in shown[(number - 1) * size:number * size]]
        return fine({"arc_audits": rows or None, "page": {"pn": number, "ps": size, "count": len(shown)}})

    def view(self, account: Account, query: dict[str, str], *, web: bool = True) -> Answer:
        """§5.6; what a view says may be as old as `view_delay_seconds`."""
        archive = next((item for item in self.all() if item.uid == account.uid and (
            query.get("bvid") == item.bvid or query.get("aid") == str(item.aid))), None)
        at = time.time() - self.view_delay_seconds
        if not archive or archive.created_at > at:
            refuse(10003)
        body, parts = archive.seen(at)
        state = archive.state(self.review_seconds)
        videos = [_video(archive, part, index, 0 if state in PASSED else state) for index, part in enumerate(parts, 1)]
        return fine({"archive": self._archive(archive, body), "videos": videos, **(shown_beside(body) if web else {})})

    def _archive(self, archive: Archive, body: dict[str, Any]) -> dict[str, Any]:
        numbers = {"aid": archive.aid, "bvid": archive.bvid, "mid": archive.uid, "ptime": int(archive.created_at),
                   "ctime": int(archive.created_at)}
        return shown_archive(body, numbers, archive.state(self.review_seconds), archive.reject_reason)


def _video(archive: Archive, part: Part, index: int, status: int) -> dict[str, Any]:
    status = status if part.status is None else part.status
    return {
        "aid": archive.aid, "bvid": archive.bvid, "title": part.title, "desc": part.desc, "filename": part.filename,
        "cid": part.cid, "duration": 0, "index": index, "status": status, "status_desc": STATE_WORDS.get(status, ""),
        "reject_reason": part.reject_reason or archive.reject_reason, "reject_reason_url": "",
        "fail_code": part.fail_code, "fail_desc": part.fail_desc, "xcode_state": part.xcode_state,
        "ctime": int(archive.created_at)}


def _bvid(aid: int) -> str:
    """Twelve characters that look like one; the real mapping does not matter here."""
    letters = "FcwAPNKTMug3GV5Lj7EJnHpWsx4tb8haYeviqBz6rkCy12mUSDQX9RdoZf"
    number, text = aid ^ 23442827791579, ""
    for _ in range(9):
        number, rest = divmod(number, 58)
        text += letters[rest]
    return f"BV1{text}"


def parse(incoming: Incoming) -> Any:
    """A JSON body; anything else is a bad request."""
    try:
        return json.loads(incoming.read())
    except (ValueError, RecursionError):
        refuse(-400)

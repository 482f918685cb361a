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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biliupd.rehearsal.bilibili_accounts import Account, fine, refuse
from biliupd.rehearsal.bilibili_objects import Objects
from biliupd.rehearsal.bilibili_wire import Answer, Incoming

ZONES = {
    160, 138, 254, 250, 251, 239, 161, 162, 21, 4, 17, 65, 172, 171, 173, 136, 121, 19, 5, 71, 241, 242, 137, 36,
    201, 124, 228, 207, 208, 209, 229, 122, 181, 182, 183, 85, 256, 184, 3, 31, 59, 130, 29, 193, 244, 28, 30,
    243, 1, 24, 25, 47, 257, 210, 86, 253, 27, 155, 157, 252, 158, 159, 211, 76, 212, 213, 214, 215, 223, 245,
    246, 247, 248, 240, 227, 176, 234, 235, 249, 164, 236, 237, 238, 188, 95, 230, 231, 232, 233, 217, 218, 219,
    222, 221, 220, 75, 129, 20, 154, 255, 198, 199, 200, 156, 167, 153, 168, 169, 170, 195, 119, 22, 26, 126, 216,
    127, 177, 37, 178, 179, 180, 13, 51, 152, 32, 33, 11, 185, 23, 147,
}
HUMAN_TYPES = set(range(1001, 1032)) - {1028}
GROUPS = {"is_pubing": (-1, -30, -6, -40), "pubed": (0, -50), "not_pubed": (-2, -4, -16)}
STATE_WORDS = {0: "开放浏览", -30: "审核中", -6: "修复待审", -40: "审核通过", -50: "仅自己可见", -2: "打回", -4: "锁定",
               -16: "转码失败"}
SIGNATURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}


@dataclass
class Part:
    """One video of a submission."""

    filename: str
    title: str
    desc: str
    cid: int


@dataclass
class Archive:
    """An accepted submission. `body` is the JSON as it was submitted last, `edits` how often it was edited."""

    aid: int
    bvid: str
    uid: int
    body: dict[str, Any]
    parts: list[Part]
    created_at: float
    reviewed_from: float
    forced_state: int | None = None
    reject_reason: str = ""
    edits: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        return str(self.body["title"])

    def state(self, review_seconds: float) -> int:
        """In review at first (-30, after an edit -6), then public, or waiting for its hour, or only for oneself."""
        if self.forced_state is not None:
            return self.forced_state
        if time.time() - self.reviewed_from < review_seconds:
            return -6 if self.edits else -30
        if (self.body.get("dtime") or 0) > time.time():
            return -40
        return -50 if self.body.get("is_only_self") else 0


class Archives:
    """Everything submitted to this server, and the covers."""

    def __init__(self, directory: Path, objects: Objects) -> None:
        self.directory = directory
        self.review_seconds: float = 0
        self.listing_delay_seconds: float = 0
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
            self._check(account, body)
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
            archive = next((item for item in self._all if item.aid == aid and item.uid == account.uid), None)
            if not archive:
                refuse(-404)
            self._check(account, body)
            had = {part.filename: part for part in archive.parts}
            parts, fresh = [], 0
            for video in body["videos"]:
                old = had.get(video.get("filename", ""))
                if old and video.get("cid") in (None, 0, old.cid):
                    parts.append(Part(old.filename, video.get("title") or old.title, video.get("desc") or "", old.cid))
                else:
                    parts.append(self._new_part(account, video, archive))
                    fresh += 1
            if fresh > 100:
                refuse(21058)
            archive.history.append(archive.body)
            archive.body, archive.parts = body, parts
            archive.edits += 1
            archive.reviewed_from, archive.forced_state = time.time(), None
        return fine({"aid": archive.aid, "bvid": archive.bvid})

    def _check(self, account: Account, body: Any) -> None:
        if not isinstance(body, dict) or not isinstance(body.get("videos"), list) or not body["videos"]:
            refuse(-400)
        title, tags = body.get("title"), body.get("tag")
        if not isinstance(title, str) or not 1 <= len(title) <= 80:
            refuse(21103)
        words = [word for word in tags.split(",") if word] if isinstance(tags, str) else []
        if not 1 <= len(words) <= 12 or any(len(word) > 20 for word in words):
            refuse(21005)
        if body.get("copyright") not in (1, 2, 3) or (body["copyright"] == 2 and not body.get("source")):
            refuse(-400, "copyright 或 source 有误")
        if body.get("tid") not in ZONES and body.get("human_type2") not in HUMAN_TYPES:
            refuse(-400, "分区不存在")
        for name, most in (("desc", 2000), ("dynamic", 233), ("source", 200)):
            if not isinstance(body.get(name) or "", str) or len(body.get(name) or "") > most:
                refuse(-400, f"{name} 过长")
        if (dtime := body.get("dtime")) and not 2 * 3600 - 60 <= dtime - time.time() <= 15 * 86400 + 60:
            refuse(-400, "定时发布时间有误")
        if len(body["videos"]) > 100:
            refuse(21058)
        if not all(isinstance(video, dict) and isinstance(video.get("filename"), str) for video in body["videos"]):
            refuse(-400)
        names = [video["filename"] for video in body["videos"]]
        if len(set(names)) != len(names):
            refuse(10009)
        if (cover := body.get("cover")) and "/bfs/archive/" in cover and not self.cover_path(cover):
            refuse(-400, "封面不存在")

    def _new_part(self, account: Account, video: dict[str, Any], into: Archive | None = None) -> Part:
        filename, title = video["filename"], video.get("title") or ""
        stored = self._objects.find(filename)
        if not stored or not stored.completed or stored.uid != account.uid:
            refuse(21015, f"视频 {filename} 不存在，请重新上传")
        if any(part.filename == filename for item in self._all if item is not into for part in item.parts):
            refuse(10009)
        if len(title) > 80:
            refuse(21103, "分P标题须在80字以内")
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
        except ValueError:
            refuse(-400)
        shown = [archive for archive in reversed(self.all())
                 if archive.uid == account.uid and archive.state(self.review_seconds) in states
                 and time.time() - archive.created_at >= self.listing_delay_seconds
                 and query.get("keyword", "") in archive.title]
        rows = [{"Archive": self._archive(archive), "Videos": None, "captions_count": 0,
                 "stat": {"aid": archive.aid, "view": 0, "danmaku": 0, "reply": 0, "favorite": 0, "coin": 0,
                          "share": 0, "like": 0}}
                for archive in shown[(number - 1) * size:number * size]]
        return fine({"arc_audits": rows or None, "page": {"pn": number, "ps": size, "count": len(shown)}})

    def view(self, account: Account, query: dict[str, str]) -> Answer:
        """§5.6, for the web and the app alike."""
        archive = next((item for item in self.all() if item.uid == account.uid and (
            query.get("bvid") == item.bvid or query.get("aid") == str(item.aid))), None)
        if not archive:
            refuse(10003)
        state = archive.state(self.review_seconds)
        status = 0 if state in (0, -40, -50) else state
        videos = [{
            "aid": archive.aid, "bvid": archive.bvid, "title": part.title, "desc": part.desc, "filename": part.filename,
            "cid": part.cid, "duration": 0, "index": index, "status": status,
            "status_desc": STATE_WORDS.get(status, ""), "reject_reason": archive.reject_reason, "reject_reason_url": "",
            "fail_code": 0, "fail_desc": "", "xcode_state": 6, "ctime": int(archive.created_at)}
            for index, part in enumerate(archive.parts, 1)]
        return fine({"archive": self._archive(archive), "videos": videos, "subtitle": {"allow": False, "lan": ""},
                     "staffs": None, "watermark": {"state": 0}, "no_disturbance": 0, "origin_state": 0})

    def _archive(self, archive: Archive) -> dict[str, Any]:
        body, state = archive.body, archive.state(self.review_seconds)
        return {
            "aid": archive.aid, "bvid": archive.bvid, "mid": archive.uid, "tid": body.get("tid", 0), "author": "",
            "title": archive.title, "cover": body.get("cover") or "", "tag": body["tag"],
            "desc": body.get("desc") or "", "desc_format_id": 0, "desc_v2": None, "dynamic": body.get("dynamic") or "",
            "source": body.get("source") or "", "copyright": body["copyright"], "duration": 0, "attribute": 0,
            "no_reprint": body.get("no_reprint") or 0, "mission_id": body.get("mission_id") or 0,
            "reject_reason": archive.reject_reason, "reject_reason_url": "", "state": state,
            "state_desc": STATE_WORDS.get(state, str(state)), "state_panel": 0, "dtime": body.get("dtime") or 0,
            "ptime": int(archive.created_at), "ctime": int(archive.created_at), "interactive": 0, "is_360": -1,
            "limited_free": None}


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
    except ValueError:
        refuse(-400)

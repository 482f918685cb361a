"""UPOS of the stand-in Bilibili: tickets, parts, complete; the bytes go straight to disk.

Called by the server's connection threads. Writes below its directory, one file per object, each part at its place.
Speaks §2 and §3 of the upload protocol and refuses whatever deviates from it.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from biliupd.rehearsal.bilibili_accounts import Account
from biliupd.rehearsal.bilibili_wire import Answer, Incoming, Refused

BUCKET = "ugcfx2lf"
TICKET_SECONDS = 5 * 24 * 3600


@dataclass
class Stored:
    """One object: what preupload promised and what has arrived."""

    filename: str
    extension: str
    uid: int
    name: str
    size: int | None
    chunk_size: int
    biz_id: int
    auth: str
    path: Path
    line: str = ""  #: upcdn of the preupload
    issued_at: float = 0
    upload_id: str | None = None
    total: int | None = None
    ticket_expired: bool = False
    completed: bool = False
    parts: dict[int, tuple[int, str]] = field(default_factory=dict)  #: part number → size in bytes, SHA-256
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def uri(self) -> str:
        return f"upos://{BUCKET}/{self.filename}{self.extension}"


class Objects:
    """All objects of this server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.chunk_size_bytes = 10 << 20
        self.chunk_retry = 10
        self.chunk_retry_delay: float = 3
        self.threads = 3
        self.ticket_seconds: float = TICKET_SECONDS
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._all: dict[str, Stored] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def get(self, filename: str) -> Stored:
        """Raises `KeyError` for a name that was never handed out."""
        with self._lock:
            return self._all[filename]

    def find(self, filename: str) -> Stored | None:
        with self._lock:
            return self._all.get(filename)

    def all(self) -> list[Stored]:
        with self._lock:
            return list(self._all.values())

    def by_path(self, path: str) -> Stored | None:
        """The object behind the path of a UPOS request."""
        matched = re.fullmatch(rf"/{BUCKET}/([0-9a-z]+)((?:\.[0-9A-Za-z.]+)?)", path)
        item = self.find(matched[1]) if matched else None
        return item if item and matched and matched[2] == item.extension else None

    def preupload(self, incoming: Incoming, account: Account, endpoints: list[str]) -> Answer:
        """§3.1: a fresh key, ticket and biz_id each time. The endpoints all lead here."""
        query = incoming.query
        if query.get("r") != "upos" or not query.get("name") or not query.get("profile"):
            _refuse(400, "缺少参数 r, name 或 profile")
        size = query.get("size")
        if size is not None and not _is_number(size):
            _refuse(400, "size 不是数字")
        letters = "abcdefghijklmnopqrstuvwxyz0123456789"
        filename = time.strftime("n%y%m%d", time.gmtime()) + "ad2" + "".join(secrets.choice(letters) for _ in range(22))
        extension = re.sub(r"[^.0-9A-Za-z]", "", os.path.splitext(query["name"])[1])[:12]
        item = Stored(filename, extension, account.uid, query["name"], int(size) if size else None,
                      self.chunk_size_bytes, 500_000_000_000_000 + secrets.randbelow(10**12), "",
                      self.directory / f"{filename}{extension}", query.get("upcdn", ""), time.time())
        item.auth = self._ticket(item, endpoints[0])
        with self._lock:
            self._all[filename] = item
        return Answer.json({
            "OK": 1, "auth": item.auth, "biz_id": item.biz_id, "chunk_retry": self.chunk_retry,
            "chunk_retry_delay": self.chunk_retry_delay, "chunk_size": item.chunk_size,
            "endpoint": f"//{endpoints[0]}", "endpoints": [f"//{endpoint}" for endpoint in endpoints],
            "expose_params": None, "put_query": f"os=upos&profile={quote(query['profile'], safe='')}",
            "threads": self.threads, "timeout": 1200, "uip": "127.0.0.1", "upos_uri": item.uri})

    def _ticket(self, item: Stored, address: str) -> str:
        fields = {"ak": "1494471752", "cdn": f"//{address}", "os": "upos", "timestamp": f"{item.issued_at:.3f}",
                  "uid": str(item.uid), "uip": "127.0.0.1", "uport": "0", "use_dqp": "0"}
        sign = hmac.new(self._key, (item.uri + urlencode(fields)).encode(), "md5").hexdigest()
        return urlencode(dict(sorted({**fields, "sign": sign}.items())))

    def at(self, incoming: Incoming) -> Stored:
        """The object a UPOS request is about, its ticket checked: 404 unknown, 403 forged or too old."""
        item = self.by_path(incoming.path)
        if not item:
            _refuse(404, "NoSuchKey")
        given = incoming.headers.get("x-upos-auth", "")
        if not hmac.compare_digest(given.encode(), item.auth.encode()):
            _refuse(403, "Forbidden")
        if item.ticket_expired or time.time() - item.issued_at > self.ticket_seconds:
            now, seconds = int(time.time()), TICKET_SECONDS + 1
            raise Refused(Answer(403, b"Forbidden", "text/plain", {
                "X-Upos-Auth": f"AUTH_TS_GT_5DAY AUTH={now - seconds} Now={now} DURATION={seconds}"}))
        return item

    def init(self, incoming: Incoming) -> Answer:
        """§3.2."""
        if "uploads" not in incoming.query:
            _refuse(404, "NoSuchUpload")
        item = self.at(incoming)
        for name, right in (("filesize", item.size), ("partsize", item.chunk_size), ("biz_id", item.biz_id)):
            if name in incoming.query and right is not None and incoming.query[name] != str(right):
                _refuse(400, f"{name} 与 preupload 不符")
        with item.lock:
            if item.completed:
                _refuse(404, "NoSuchUpload")
            token = secrets.token_hex(16)
            item.upload_id = "-".join((token[:8], token[8:12], token[12:16], token[16:20], token[20:]))
            item.parts.clear()
            item.total = None
        return Answer.json({"OK": 1, "bucket": BUCKET, "key": item.uri.removeprefix(f"upos://{BUCKET}"),
                            "upload_id": item.upload_id})

    def put(self, incoming: Incoming) -> Answer:
        """§3.3: one part, written at its place while it arrives."""
        item = self.at(incoming)
        self._check_upload(item, incoming)
        number, start, size = self._check_part(item, incoming)
        with item.lock:
            item.parts.pop(number, None)  # from here on its bytes on disk are neither the old nor the new ones
        digest, received = hashlib.sha256(), 0
        target = os.open(item.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for block in incoming.blocks():
                os.pwrite(target, block, start + received)
                digest.update(block)
                received += len(block)
        finally:
            os.close(target)
        with item.lock:
            if item.completed or item.upload_id != incoming.query["uploadId"]:
                _refuse(404, "NoSuchUpload")
            item.parts[number] = (size, digest.hexdigest())
        return Answer(200, b"MULTIPART_PUT_SUCCESS", "text/plain", {"ETag": f'"{digest.hexdigest()[:32]}"'})

    def _check_upload(self, item: Stored, incoming: Incoming) -> None:
        with item.lock:
            if not item.upload_id or incoming.query.get("uploadId") != item.upload_id or item.completed:
                _refuse(404, "NoSuchUpload")

    def _check_part(self, item: Stored, incoming: Incoming) -> tuple[int, int, int]:
        names = ("partNumber", "chunk", "chunks", "size", "start", "end", "total")
        if not all(_is_number(incoming.query.get(name, "")) for name in names):
            _refuse(400, "缺少参数或不是数字")
        if "content-length" not in incoming.headers:
            _refuse(411, "Length Required")
        number, chunk, chunks, size, start, end, total = (int(incoming.query[name]) for name in names)
        with item.lock:
            known = item.size if item.size is not None else item.total
            if known is None:
                item.total = known = total
        count = -(-total // item.chunk_size)
        right = {"total": known, "chunks": count, "partNumber": chunk + 1, "start": chunk * item.chunk_size,
                 "size": min(item.chunk_size, total - chunk * item.chunk_size), "end": start + incoming.length}
        given = {"total": total, "chunks": chunks, "partNumber": number, "start": start, "size": size, "end": end}
        wrong = [name for name in right if right[name] != given[name]]
        if wrong or chunk >= chunks or size != incoming.length:
            _refuse(400, f"参数不符: {', '.join(wrong) or 'chunk, Content-Length'}")
        return number, start, size

    def complete(self, incoming: Incoming) -> Answer:
        """§3.4; the server counts the parts itself, a list of them must agree. Asking again is harmless."""
        item = self.at(incoming)
        listed = _part_numbers(incoming.read())
        with item.lock:
            if not item.upload_id or incoming.query.get("uploadId") != item.upload_id:
                _refuse(404, "NoSuchUpload")
            if incoming.query.get("biz_id", str(item.biz_id)) != str(item.biz_id):
                _refuse(400, "biz_id 与 preupload 不符")
            if not item.completed:
                total = item.size if item.size is not None else item.total or 0
                count = -(-total // item.chunk_size)
                present = sorted(item.parts)
                if present != list(range(1, count + 1)) or (listed and sorted(listed) != present) or (
                        sum(size for size, _ in item.parts.values()) != total):
                    raise Refused(Answer.json({
                        "error": f"UposstorException: PART_COUNT_ERR_GOT_{len(present)}_EXPECT_{count}",
                        "http_code": 500, "reqid": "", "title": "UposstorException"}, 500))
                with open(item.path, "ab") as file:
                    file.truncate(total)
                item.completed = True
        key = item.uri.removeprefix(f"upos://{BUCKET}")
        return Answer.json({"OK": 1, "location": f"{BUCKET}{key}", "bucket": BUCKET, "key": key, "etag": "etag"})

    def sha256(self, filename: str) -> str:
        """SHA-256 of the whole object, in hex."""
        with open(self.get(filename).path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _part_numbers(body: bytes) -> list[int]:
    try:
        content: Any = json.loads(body or b"{}")
        return [int(part["partNumber"]) for part in content.get("parts") or []]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        _refuse(400, "parts 无法解析")


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]{1,18}", text) is not None


def _refuse(status: int, message: str) -> NoReturn:
    """An answer as UPOS and preupload give it."""
    raise Refused(Answer.json({"OK": 0, "code": status, "message": message, "info": message}, status))

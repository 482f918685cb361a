"""A stand-in for Bilibili on one loopback port: login, preupload, UPOS, covers, submissions, with faults on demand.

Used by `biliupd demo` and by the tests; the real `biliup` works against it too. Its threads are its own. Writes below
the directory it was given and nowhere else. Strict: what the real site refuses is refused here, with the same codes.
"""

import ssl
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from biliupd.rehearsal.bilibili_accounts import Account, Accounts, refuse, signed
from biliupd.rehearsal.bilibili_archives import Archive, Archives, parse
from biliupd.rehearsal.bilibili_objects import Objects
from biliupd.rehearsal.bilibili_wire import Answer, Dropped, Incoming, Refused, Request, Server

LINES = {"bda2": 0.12, "bldsa": 0.06, "tx": 0.0, "txa": 0.2}  #: name → delay of its probe in seconds
KEPT_REQUESTS = 20_000
UPOS_ROUTES = ("probe_list", "probe", "preupload", "init", "put", "complete", "picture", "unknown")


class Bilibili:
    """The stand-in. `start()` answers on `url` until `close()`.

    `review_seconds` (0: public at once), `lines`, `chunk_size_bytes`, `submit_interval_seconds`, `same_title_seconds`
    and `chunk_retry_delay` may be changed at any time.
    """

    def __init__(self, directory: Path, *, ssl_context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._log: deque[Request] = deque(maxlen=KEPT_REQUESTS)
        self._faults: list[_Fault] = []
        self._under_way: list[str] = []
        self.lines = dict(LINES)
        self._server = Server(port, ssl_context, self._answer, self._note)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if ssl_context else 'http'}://{self.address}"
        self.accounts = Accounts()
        self.objects = Objects(directory / "objects", self._server.closing)
        self._archives = Archives(directory / "covers", self.objects)
        self._routes = self._table()

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.close()

    # -- what a test or a demo wants to know --------------------------------------------------------------------

    @property
    def requests(self) -> list[Request]:
        """Every request that was answered or dropped, oldest first (the last 20,000)."""
        with self._lock:
            return list(self._log)

    @property
    def under_way(self) -> list[str]:
        """Routes of the requests being answered at this moment."""
        with self._lock:
            return list(self._under_way)

    @property
    def archives(self) -> list[Archive]:
        """Every accepted submission, oldest first."""
        return self._archives.all()

    @property
    def chunks_seen(self) -> list[int]:
        """Part numbers in the order their PUTs ended, failed ones included."""
        return [int(item.query["partNumber"]) for item in self.requests if item.route == "put"]

    @property
    def filenames(self) -> list[str]:
        """UPOS names of all completed objects, oldest first."""
        return [item.filename for item in self.objects.all() if item.completed]

    def stored(self, filename: str) -> Path:
        """The file with an object's bytes."""
        return self.objects.get(filename).path

    def sha256(self, filename: str) -> str:
        return self.objects.sha256(filename)

    def part_sha256(self, filename: str) -> dict[int, str]:
        """SHA-256 of each part that arrived whole."""
        return {number: digest for number, (_, digest) in sorted(self.objects.get(filename).parts.items())}

    def picture(self, address: str) -> bytes:
        """The cover behind an address that was answered for one; raises `KeyError` for any other."""
        path = self._archives.cover_path(address)
        if not path:
            raise KeyError(address)
        return path.read_bytes()

    def write_cookies(self, path: Path, *, uid: int = 10001) -> Path:
        """A valid cookies.json of account `uid`, as biliup writes it (mode 0600)."""
        return self.accounts.write_cookies(path, uid)

    def confirm_login(self, auth_code: str | None = None, *, uid: int = 10001) -> None:
        """Do what the phone does after it scanned the QR code; without a code, the newest one."""
        self.accounts.confirm(auth_code, uid)

    # -- settings -----------------------------------------------------------------------------------------------

    review_seconds = property(
        lambda self: self._archives.review_seconds, lambda self, to: setattr(self._archives, "review_seconds", to))
    submit_interval_seconds = property(
        lambda self: self._archives.submit_interval_seconds,
        lambda self, to: setattr(self._archives, "submit_interval_seconds", to))
    same_title_seconds = property(
        lambda self: self._archives.same_title_seconds,
        lambda self, to: setattr(self._archives, "same_title_seconds", to))
    chunk_size_bytes = property(
        lambda self: self.objects.chunk_size_bytes, lambda self, to: setattr(self.objects, "chunk_size_bytes", to))
    chunk_retry_delay = property(
        lambda self: self.objects.chunk_retry_delay, lambda self, to: setattr(self.objects, "chunk_retry_delay", to))

    def set_state(self, bvid: str, state: int | None, reject_reason: str = "") -> None:
        """Let the review end like this (-2 rejected, -4 locked, 0 public; None: by time again)."""
        archive = next(item for item in self.archives if item.bvid == bvid)
        archive.forced_state, archive.reject_reason = state, reject_reason

    # -- faults -------------------------------------------------------------------------------------------------

    def drop_connection(self, *, on_chunk: int, times: int = 1) -> None:
        """Reset the connection when half of part number `on_chunk` has arrived."""
        self.objects.drops.append([on_chunk, times])

    def fail(self, route: str, status: int, body: Any = b"", times: int = 1, headers: dict[str, str] | None = None,
             ) -> None:
        """Answer the next `times` requests of a route so, without doing anything; a body that is not bytes is JSON."""
        answer = Answer(status, body, "text/html", headers or {}) if isinstance(body, bytes) else Answer.json(
            body, status, headers)
        self._add(_Fault(route, times, answer=answer))

    def refuse(self, route: str, code: int, message: str = "", times: int = 1, content: Any = None) -> None:
        """The same with HTTP 200 and Bilibili's envelope around a code."""
        self.fail(route, 200, {"code": code, "message": message or str(code), "ttl": 1, "data": content}, times)

    def drop(self, route: str, times: int = 1) -> None:
        """Reset the connection before the request is handled."""
        self._add(_Fault(route, times, drop=True))

    def lose_answer(self, route: str, times: int = 1) -> None:
        """Handle the request in full, then reset the connection instead of answering."""
        self._add(_Fault(route, times, drop=True, after=True))

    def lose_submit_answer(self, times: int = 1) -> None:
        """Accept the submission, then reset the connection instead of answering."""
        self.lose_answer("submit", times)

    def spoil_answer(self, route: str, status: int, body: bytes = b"<html>Bad Gateway</html>", times: int = 1) -> None:
        """Handle the request in full, then answer like a gateway that lost its backend."""
        self._add(_Fault(route, times, answer=Answer(status, body, "text/html"), after=True))

    def stall(self, route: str, seconds: float, times: int = 1) -> None:
        """Wait this long before the request is handled."""
        self._add(_Fault(route, times, seconds=seconds))

    def slow(self, bytes_per_second: float) -> None:
        """Read parts no faster than this on each connection; 0: as fast as they come."""
        self.objects.bytes_per_second = bytes_per_second

    def delay_listing(self, seconds: float) -> None:
        """Leave a submission out of the archive list for this long."""
        self._archives.listing_delay_seconds = seconds

    def expire_login(self, uid: int | None = None) -> None:
        """Cookies and tokens of one account, or of all, are no longer accepted; `write_cookies` logs in again."""
        for account in self.accounts.all():
            if uid in (None, account.uid):
                account.logged_in = False

    def expire_tickets(self) -> None:
        """Every upload ticket handed out so far is too old."""
        for item in self.objects.all():
            item.ticket_expired = True

    def ask_for_refresh(self, uid: int = 10001) -> None:
        """Let oauth2/info say that the token should be refreshed."""
        self.accounts.get(uid).wants_refresh = True

    def _add(self, fault: "_Fault") -> None:
        names = sorted({name for name, _ in self._routes.values()} | set(UPOS_ROUTES))
        if fault.route not in names:
            raise ValueError(f"there is no route {fault.route!r}; there are {', '.join(names)}")
        with self._lock:
            self._faults.append(fault)

    def _next_fault(self, route: str) -> "_Fault | None":
        with self._lock:
            fault = next((item for item in self._faults if item.route == route), None)
            if fault:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
            return fault

    # -- answering ----------------------------------------------------------------------------------------------

    def _note(self, request: Request) -> None:
        with self._lock:
            self._log.append(request)

    def _answer(self, incoming: Incoming) -> tuple[str, Answer]:
        route, handler = self._find(incoming)
        with self._lock:
            self._under_way.append(route)
        try:
            return route, self._handle(route, handler, incoming)
        finally:
            with self._lock:
                self._under_way.remove(route)

    def _handle(self, route: str, handler: Callable[[Incoming], Answer], incoming: Incoming) -> Answer:
        fault = self._next_fault(route)
        if fault and fault.seconds:
            self._server.closing.wait(fault.seconds)
        if fault and not fault.after and (fault.drop or fault.answer):
            if fault.drop or not fault.answer:
                raise Dropped(route)
            return fault.answer
        try:
            answer = handler(incoming)
        except Refused as refused:
            return refused.answer
        if fault and fault.after:
            if fault.drop or not fault.answer:
                raise Dropped(route)
            return fault.answer
        return answer

    def _find(self, incoming: Incoming) -> tuple[str, Callable[[Incoming], Answer]]:
        known = self._routes.get((incoming.method, incoming.path))
        if known:
            return known
        if incoming.path == "/preupload" and incoming.method == "GET":
            probing = incoming.query.get("r") == "probe"
            return ("probe_list", self._probe_list) if probing else ("preupload", self._preupload)
        if incoming.path == "/OK":
            return "probe", self._probe
        if incoming.path.startswith("/bfs/archive/"):
            return "picture", self._picture
        if incoming.path.startswith("/ugc"):
            if incoming.method == "PUT":
                return "put", self.objects.put
            if incoming.method == "POST":
                return ("complete", self.objects.complete) if "uploadId" in incoming.query else (
                    "init", self.objects.init)
        return "unknown", _not_found

    def _table(self) -> dict[tuple[str, str], tuple[str, Callable[[Incoming], Answer]]]:
        accounts, archives = self.accounts, self._archives
        return {
            **accounts.routes(self.url),
            ("POST", "/x/vu/web/cover/up"): ("cover", self._cover),
            ("POST", "/x/vu/app/add"): ("submit", lambda call: archives.submit(*_by_sign(accounts, call))),
            ("POST", "/x/vu/mvp/add"): ("submit", lambda call: archives.submit(*_by_sign(accounts, call))),
            ("POST", "/x/vu/web/add/v3"): ("submit", lambda call: archives.submit(*_by_csrf(accounts, call))),
            ("POST", "/x/vu/app/edit/full"): ("edit", lambda call: archives.edit(*_by_sign(accounts, call))),
            ("POST", "/x/vu/web/edit"): ("edit", lambda call: archives.edit(*_by_csrf(accounts, call))),
            ("GET", "/x/web/archives"): (
                "archives", lambda call: archives.listing(accounts.by_cookies(call), call.query)),
            ("GET", "/x/vupre/web/archive/view"): (
                "view", lambda call: archives.view(accounts.by_cookies(call), call.query)),
            ("GET", "/x/client/archive/view"): (
                "view", lambda call: archives.view(accounts.by_token(call.query), call.query)),
        }

    def _probe_list(self, incoming: Incoming) -> Answer:
        lines = [{"os": "upos", "query": f"probe_version=20250923&upcdn={name}&zone=cs",
                  "probe_url": f"//{self.address}/OK?upcdn={name}"} for name in self.lines]
        return Answer.json({"OK": 1, "lines": lines, "probe": {"post": 0.1}})

    def _probe(self, incoming: Incoming) -> Answer:
        incoming.drain()
        self._server.closing.wait(self.lines.get(incoming.query.get("upcdn", ""), 0))
        return Answer(200, b"OK", "text/plain")

    def _preupload(self, incoming: Incoming) -> Answer:
        try:
            account = self.accounts.by_cookies(incoming)
        except Refused:
            return Answer.json({"OK": 0, "code": -101, "message": "账号未登录", "info": "not login"})
        return self.objects.preupload(incoming, account, self.address)

    def _cover(self, incoming: Incoming) -> Answer:
        form = incoming.form()
        self.accounts.by_csrf(incoming, form.get("csrf"), incoming.query.get("csrf"))
        return self._archives.cover(form, self.url)

    def _picture(self, incoming: Incoming) -> Answer:
        path = self._archives.cover_path(incoming.path)
        if not path:
            return _not_found(incoming)
        return Answer(200, path.read_bytes(), f"image/{path.suffix[1:].replace('jpg', 'jpeg')}")


class _Fault:
    """Something to go wrong with the next `times` requests of a route."""

    def __init__(self, route: str, times: int, *, answer: Answer | None = None, drop: bool = False,
                 after: bool = False, seconds: float = 0) -> None:
        self.route, self.times, self.answer = route, times, answer
        self.drop, self.after, self.seconds = drop, after, seconds


def _by_sign(accounts: Accounts, incoming: Incoming) -> tuple[Account, Any]:
    body = parse(incoming)
    return accounts.by_token(signed(incoming.raw_query)), body


def _by_csrf(accounts: Accounts, incoming: Incoming) -> tuple[Account, Any]:
    body = parse(incoming)
    inside = body.get("csrf") if isinstance(body, dict) else None
    if "csrf" not in incoming.query:
        refuse(-111)
    return accounts.by_csrf(incoming, incoming.query["csrf"], inside), body


def _not_found(incoming: Incoming) -> Answer:
    return Answer.json({"code": -404, "message": "啥都木有", "ttl": 1, "data": None}, 404)

"""A stand-in for Bilibili on one loopback port: login, preupload, UPOS, covers, submissions, with faults on demand.

Used by `biliupd demo` and by the tests; the real `biliup` works against it too. Its threads are its own. Writes below
the directory it was given and nowhere else. Strict: what the real site refuses is refused here, with the same codes.
"""

import contextlib
import ssl
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from biliupd.rehearsal.bilibili_accounts import Account, Accounts
from biliupd.rehearsal.bilibili_archives import Archive, Archives, parse
from biliupd.rehearsal.bilibili_envelope import refuse, signed
from biliupd.rehearsal.bilibili_faults import Faults
from biliupd.rehearsal.bilibili_objects import Objects
from biliupd.rehearsal.bilibili_wire import Answer, Dropped, Incoming, Refused, Request, Server

LINES = {"bda2": 0.12, "bldsa": 0.06, "tx": 0.0, "txa": 0.2}  #: name → delay of its probe in seconds
KEPT_REQUESTS = 20_000
DISCONTINUED = "PC投稿工具已下线，请使用网页端或手机客户端"


class Bilibili(Faults):
    """The stand-in. `start()` answers on `url` until `close()`.

    `review_seconds` (0: public at once), `lines`, `endpoints`, `chunk_size_bytes`, `chunk_retry_delay`, `threads`,
    `ticket_seconds`, `submit_interval_seconds`, `same_title_seconds` and `banned_tags` may be changed at any time.
    """

    def __init__(self, directory: Path, *, ssl_context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._log: deque[Request] = deque(maxlen=KEPT_REQUESTS)
        self._under_way: list[str] = []
        self.lines = dict(LINES)
        self._ssl_context = ssl_context
        self._server = Server(port, ssl_context, self._answer, self._note)
        self.address = self._server.address
        self.url = f"{'https' if ssl_context else 'http'}://{self.address}"
        self.accounts = Accounts()
        self.objects = Objects(directory / "objects")
        self._archives = Archives(directory / "covers", self.objects)
        self._more_servers: dict[str, Server] = {}
        self.endpoints = [self.address]  #: host:port of each, as preupload lists them; all lead to the same objects
        self._routes = self._table()
        super().__init__([name for name, _ in self._routes.values()])

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        for server in reversed(self._servers(None)):
            server.close()
        self._more_servers.clear()

    def add_endpoint(self) -> str:
        """One more port that leads to everything here; its address, which preupload lists from now on."""
        server = Server(0, self._ssl_context, self._answer, self._note)
        server.start()
        self._more_servers[server.address] = server
        self.endpoints.append(server.address)
        return server.address

    def close_endpoint(self, address: str) -> None:
        """Refuse connections at a port that `add_endpoint` made and end those it has; preupload still lists it."""
        self._more_servers.pop(address).close()

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
    banned_tags = property(
        lambda self: self._archives.banned_tags, lambda self, to: setattr(self._archives, "banned_tags", set(to)))
    chunk_size_bytes = property(
        lambda self: self.objects.chunk_size_bytes, lambda self, to: setattr(self.objects, "chunk_size_bytes", to))
    chunk_retry_delay = property(
        lambda self: self.objects.chunk_retry_delay, lambda self, to: setattr(self.objects, "chunk_retry_delay", to))
    threads = property(lambda self: self.objects.threads, lambda self, to: setattr(self.objects, "threads", to))
    ticket_seconds = property(
        lambda self: self.objects.ticket_seconds, lambda self, to: setattr(self.objects, "ticket_seconds", to))

    def set_state(self, bvid: str, state: int | None, reject_reason: str = "") -> None:
        """Let the review end like this (-2 rejected, -4 locked, -16 not transcoded, 0 public; None: by time again)."""
        archive = next(item for item in self.archives if item.bvid == bvid)
        archive.forced_state, archive.reject_reason = state, reject_reason

    def set_part(self, filename: str, *, status: int | None = None, fail_code: int = 0, fail_desc: str = "",
                 reject_reason: str = "", xcode_state: int = 6) -> None:
        """Let one part of a submission fare like this, whatever becomes of the others; without words, well again."""
        part = next(one for archive in self.archives for one in archive.parts if one.filename == filename)
        part.status, part.fail_code, part.fail_desc = status, fail_code, fail_desc
        part.reject_reason, part.xcode_state = reject_reason, xcode_state

    # -- faults (those of single requests: bilibili_faults.py) --------------------------------------------------

    def cut_handshake(self, times: float = 1, endpoint: str | None = None) -> None:
        """Reset the next connections in the middle of the TLS handshake; without TLS, before the request is read."""
        self._servers(endpoint)[0].handshakes_to_cut = times

    def hang_up(self, endpoint: str | None = None) -> None:
        """End every connection there is at this moment, idle ones and those under way; new ones are welcome."""
        for server in self._servers(endpoint):
            server.hang_up_all()

    def heal(self, route: str | None = None) -> None:
        super().heal(route)
        if route is None:
            for server in self._servers(None):
                server.handshakes_to_cut = 0

    def _servers(self, endpoint: str | None) -> list[Server]:
        """The one at that address, or all, the first one first."""
        servers = {self.address: self._server, **self._more_servers}
        return [servers[endpoint]] if endpoint else list(servers.values())

    def delay_listing(self, seconds: float) -> None:
        """Leave a submission out of the archive list for this long."""
        self._archives.listing_delay_seconds = seconds

    def delay_view(self, seconds: float) -> None:
        """Let views be as old as this: a new submission is not there yet, an edit is not seen yet."""
        self._archives.view_delay_seconds = seconds

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

    # -- answering ----------------------------------------------------------------------------------------------

    def _note(self, request: Request) -> None:
        with self._lock:
            self._log.append(request)

    def _answer(self, incoming: Incoming) -> Answer:
        route, handler = self._find(incoming)
        incoming.route = route
        with self._lock:
            self._under_way.append(route)
        try:
            return self._handle(route, handler, incoming)
        finally:
            with self._lock:
                self._under_way.remove(route)

    def _handle(self, route: str, handler: Callable[[Incoming], Answer], incoming: Incoming) -> Answer:
        facts = self._facts(incoming)
        if route == "put":
            incoming.pace = lambda: self.speed(facts)
        fault = self.next_fault(route, facts)
        if not fault:
            return _judged(handler, incoming)
        if fault.seconds:
            incoming.closing.wait(fault.seconds)
        incoming.breaks_off = fault.half
        instead = fault.drop or fault.answer is not None
        answer = None if instead and not fault.after else _judged(handler, incoming)
        if fault.drop:
            raise Dropped
        return fault.answer or answer or Answer(500)

    def _facts(self, incoming: Incoming) -> dict[str, Any]:
        """What faults may be aimed at (`Where`)."""
        stored, query = self.objects.by_path(incoming.path), incoming.query
        part = query.get("partNumber", "")
        return {"endpoint": incoming.endpoint, "line": stored.line if stored else query.get("upcdn"),
                "part": int(part) if part.isdecimal() and len(part) < 10 else None,
                "uid": stored.uid if stored else self._uid(incoming)}

    def _uid(self, incoming: Incoming) -> int | None:
        with contextlib.suppress(Refused):
            return self.accounts.by_cookies(incoming).uid
        with contextlib.suppress(Refused):
            return self.accounts.by_token(incoming.query).uid
        return None

    def _find(self, incoming: Incoming) -> tuple[str, Callable[[Incoming], Answer]]:
        known = self._routes.get((incoming.method, incoming.path)) or self.accounts.find(incoming)
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
            ("POST", "/x/vu/web/add"): ("submit", lambda call: archives.submit(*_by_csrf(accounts, call))),
            ("POST", "/x/vu/mvp/pc/add"): ("submit", lambda call: archives.submit(*_by_csrf(accounts, call))),
            ("POST", "/x/vu/client/add"): ("submit", _discontinued),
            ("POST", "/x/vu/client/edit"): ("edit", _discontinued),
            ("POST", "/x/vu/app/edit/full"): ("edit", lambda call: archives.edit(*_by_sign(accounts, call))),
            ("POST", "/x/vu/web/edit"): ("edit", lambda call: archives.edit(*_by_csrf(accounts, call))),
            ("GET", "/x/web/archives"): (
                "archives", lambda call: archives.listing(accounts.by_cookies(call), call.query)),
            ("GET", "/x/vupre/web/archive/view"): (
                "view", lambda call: archives.view(accounts.by_cookies(call), call.query)),
            ("GET", "/x/client/archive/view"): (
                "view", lambda call: archives.view(accounts.by_token(call.query), call.query, web=False)),
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
        return self.objects.preupload(incoming, account, self.endpoints)

    def _cover(self, incoming: Incoming) -> Answer:
        form = incoming.form()
        self.accounts.by_csrf(incoming, form.get("csrf"), incoming.query.get("csrf"))
        return self._archives.cover(form, self.url)

    def _picture(self, incoming: Incoming) -> Answer:
        path = self._archives.cover_path(incoming.path)
        if not path:
            return _not_found(incoming)
        return Answer(200, path.read_bytes(), f"image/{path.suffix[1:].replace('jpg', 'jpeg')}")


def _judged(handler: Callable[[Incoming], Answer], incoming: Incoming) -> Answer:
    try:
        return handler(incoming)
    except Refused as refused:
        return refused.answer


def _by_sign(accounts: Accounts, incoming: Incoming) -> tuple[Account, Any]:
    body = parse(incoming)
    return accounts.by_token(signed(incoming.raw_query)), body


def _by_csrf(accounts: Accounts, incoming: Incoming) -> tuple[Account, Any]:
    body = parse(incoming)
    inside = body.get("csrf") if isinstance(body, dict) else None
    if "csrf" not in incoming.query:
        refuse(-111)
    return accounts.by_csrf(incoming, incoming.query["csrf"], inside), body


def _discontinued(incoming: Incoming) -> Answer:
    refuse(21590, DISCONTINUED)


def _not_found(incoming: Incoming) -> Answer:
    return Answer.json({"code": -404, "message": "啥都木有", "ttl": 1, "data": None}, 404)

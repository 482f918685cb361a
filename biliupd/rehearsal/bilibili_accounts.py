"""Accounts of the stand-in Bilibili: who is asking, how long a login lasts, how it is renewed.

Called by the server's connection threads. Keeps everything in memory; `write_cookies` is its only file.
Speaks §1 of the upload protocol: the biliup form of cookies.json, the app's tokens, the web page's renewal of cookies.
How somebody logs in is in bilibili_logins.
"""

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from Crypto.Cipher import PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA

from biliupd.rehearsal.bilibili_envelope import APP_SECRETS, fine, refuse, signed
from biliupd.rehearsal.bilibili_logins import Logins, Routes
from biliupd.rehearsal.bilibili_wire import Answer, Incoming

__all__ = ["APP_SECRETS", "Account", "Accounts", "Session", "fine", "refuse", "signed"]

TOKEN_SECONDS = 15_552_000
CORRESPOND = "/correspond/1/"


@dataclass
class Session:
    """One login of an account: its secrets, random, and how long they count."""

    seconds: float = TOKEN_SECONDS
    sessdata: str = ""
    bili_jct: str = field(default_factory=lambda: secrets.token_hex(16))
    access_token: str = field(default_factory=lambda: secrets.token_hex(16))
    refresh_token: str = field(default_factory=lambda: secrets.token_hex(16))
    web_refresh_token: str = field(default_factory=lambda: secrets.token_hex(16))
    token_lives: bool = True
    ends_at: float = 0.0

    def __post_init__(self) -> None:
        self.ends_at = time.time() + self.seconds
        self.sessdata = "%2C".join(
            [secrets.token_hex(4), str(int(self.ends_at)), f"{secrets.token_hex(3)}%2A{secrets.token_hex(12)}"])

    @property
    def left_seconds(self) -> int:
        return max(0, int(self.ends_at - time.time()))


@dataclass
class Account:
    """Somebody who can log in here, any number of times."""

    uid: int
    name: str
    sessions: list[Session] = field(default_factory=list)
    logged_in: bool = True
    wants_refresh: bool = False
    last_submit_at: float = 0.0

    def log_in(self, seconds: float = TOKEN_SECONDS) -> Session:
        """One login more; those before go on, unless the account was logged out."""
        if not self.logged_in:
            self.sessions.clear()
        self.logged_in, self.wants_refresh = True, False
        self.sessions.append(Session(seconds))
        return self.sessions[-1]

    def living(self) -> list[Session]:
        """The logins that count at this moment."""
        return [session for session in self.sessions if self.logged_in and session.ends_at > time.time()]

    # the newest login's
    sessdata = property(lambda self: self.sessions[-1].sessdata)
    bili_jct = property(lambda self: self.sessions[-1].bili_jct)
    access_token = property(lambda self: self.sessions[-1].access_token)
    refresh_token = property(lambda self: self.sessions[-1].refresh_token)

    def cookies(self, session: Session) -> list[dict[str, Any]]:
        pairs = [("SESSDATA", session.sessdata, 1), ("bili_jct", session.bili_jct, 0), ("DedeUserID", str(self.uid), 0),
                 ("DedeUserID__ckMd5", hashlib.md5(str(self.uid).encode()).hexdigest()[:16], 0),
                 ("sid", hashlib.md5(session.sessdata.encode()).hexdigest()[:8], 0)]
        return [{"name": name, "value": text, "http_only": http_only, "expires": int(session.ends_at), "secure": 0}
                for name, text, http_only in pairs]

    def login_info(self, session: Session | None = None) -> dict[str, Any]:
        """What a successful login or refresh answers (LoginInfo), for the newest login or another one."""
        session = session or self.sessions[-1]
        token = {"mid": self.uid, "access_token": session.access_token, "refresh_token": session.refresh_token,
                 "expires_in": session.left_seconds}
        return {"is_new": False, **token, "token_info": token,
                "cookie_info": {"cookies": self.cookies(session), "domains": [".bilibili.com"]},
                "sso": ["https://passport.bilibili.com/api/v2/sso"]}


class Accounts:
    """Everybody this server knows.

    `token_seconds` is how long logins made from now on last. `refresh_ends_cookies` False lets the cookies of before
    live on when the app's tokens are renewed. `logins` says how people log in.
    """

    def __init__(self) -> None:
        self.token_seconds: float = TOKEN_SECONDS
        self.refresh_ends_cookies = True
        self.logins = Logins(self.log_in, self.by_csrf)
        self._lock = threading.Lock()
        self._known: dict[int, Account] = {}
        self._words: dict[str, Session] = {}  # refresh_csrf → whose

    def get(self, uid: int) -> Account:
        """The account with that number, made when it is new."""
        with self._lock:
            if uid not in self._known:
                self._known[uid] = Account(uid, f"主播{uid}")
                self._known[uid].log_in(self.token_seconds)
            return self._known[uid]

    def all(self) -> list[Account]:
        with self._lock:
            return list(self._known.values())

    def log_in(self, uid: int) -> tuple[Account, Session]:
        """One login more for that account."""
        account = self.get(uid)
        return account, account.log_in(self.token_seconds)

    def write_cookies(self, path: Path, uid: int) -> Path:
        """A cookies.json as biliup writes it, mode 0600; logs the account in again if it was logged out."""
        account = self.get(uid)
        if not account.living():
            account.log_in(self.token_seconds)
        info = account.login_info()
        content = {name: info[name] for name in ("cookie_info", "sso", "token_info")} | {"platform": "BiliTV"}
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(content, file, indent=2)
        return path

    def by_cookies(self, incoming: Incoming) -> Account:
        return self._by_cookies(incoming)[0]

    def _by_cookies(self, incoming: Incoming) -> tuple[Account, Session]:
        given = incoming.cookies.get("SESSDATA", "")
        for account in self.all():
            for session in account.living():
                if secrets.compare_digest(session.sessdata.encode(), given.encode()):
                    return account, session
        refuse(-101)

    def by_csrf(self, incoming: Incoming, *tokens: str | None) -> Account:
        """The session of the cookies; each csrf that was given must be the one of this session, and one must be."""
        return self._by_csrf(incoming, *tokens)[0]

    def _by_csrf(self, incoming: Incoming, *tokens: str | None) -> tuple[Account, Session]:
        account, session = self._by_cookies(incoming)
        shown = [token for token in tokens if token is not None]
        if not shown or any(token != session.bili_jct for token in shown):
            refuse(-111)
        return account, session

    def by_token(self, pairs: dict[str, str]) -> Account:
        return self._by_token(pairs)[0]

    def _by_token(self, pairs: dict[str, str]) -> tuple[Account, Session]:
        for account in self.all():
            for session in account.living():
                if session.token_lives and session.access_token == pairs.get("access_key"):
                    return account, session
        refuse(-101)

    def confirm(self, code: str | None, uid: int) -> None:
        """What the phone does after it scanned the QR code; without a code, the newest one."""
        self.get(uid)
        self.logins.confirm(code, uid)

    # -- routes of passport.bilibili.com, api.bilibili.com and www.bilibili.com ------------------------------------

    def routes(self, base_url: str) -> Routes:
        """Method and path → a name for it, and who answers."""
        oauth, web = "/x/passport-login/oauth2", "/x/passport-login/web"
        return {
            **self.logins.routes(base_url),
            ("GET", f"{oauth}/info"): ("info", self.info),
            ("POST", f"{oauth}/refresh_token"): ("refresh", self.refresh),
            ("GET", f"{web}/cookie/info"): ("web_info", self.web_info),
            ("POST", f"{web}/cookie/refresh"): ("web_refresh", self.web_refresh),
            ("POST", f"{web}/confirm/refresh"): ("web_confirm", self.web_confirm),
            ("GET", "/x/space/myinfo"): ("myinfo", self.myinfo),
            ("GET", "/x/web-interface/nav"): ("nav", self.nav),
            ("GET", "/x/frontend/finger/spi"): ("spi", self.spi),
        }

    def find(self, incoming: Incoming) -> tuple[str, Callable[[Incoming], Answer]] | None:
        """Who answers below a path that is not the same each time."""
        if incoming.method == "GET" and incoming.path.startswith(CORRESPOND):
            return "correspond", self.correspond
        return None

    def info(self, incoming: Incoming) -> Answer:
        account, session = self._by_token(signed(incoming.raw_query))
        return fine({"mid": account.uid, "access_token": session.access_token, "expires_in": session.left_seconds,
                     "refresh": account.wants_refresh})

    def refresh(self, incoming: Incoming) -> Answer:
        form = signed(incoming.read().decode())
        account, old = self._by_token(form)
        if form.get("refresh_token") != old.refresh_token:
            refuse(-400)
        session = account.log_in(self.token_seconds)
        old.token_lives = False
        if self.refresh_ends_cookies:
            account.sessions.remove(old)
        return fine(account.login_info(session))

    def web_info(self, incoming: Incoming) -> Answer:
        account, _ = self._by_csrf(incoming, incoming.query.get("csrf"))
        return fine({"refresh": account.wants_refresh, "timestamp": int(time.time() * 1000)})

    @property
    def correspond_key(self) -> str:
        """The public key that this stand-in's web page would encrypt with (PEM); the real site has another one."""
        return _site_key().public_key().export_key().decode()

    def correspond(self, incoming: Incoming) -> Answer:
        """The page with the word to renew the cookies with, for whoever encrypted the present moment."""
        _, session = self._by_cookies(incoming)
        try:
            sealed = bytes.fromhex(incoming.path.removeprefix(CORRESPOND))
            name, _, moment = PKCS1_OAEP.new(_site_key(), SHA256).decrypt(sealed).decode().partition("_")
            good = name == "refresh" and abs(int(moment) / 1000 - time.time()) < 300
        except ValueError:
            good = False
        if not good:
            return Answer(404, b"<html><body>404</body></html>", "text/html; charset=utf-8")
        word = secrets.token_hex(16)
        with self._lock:
            self._words[word] = session
        page = f"<!DOCTYPE html><html><body><div id=\"1-name\">{word}</div><div id=\"2-name\"></div></body></html>"
        return Answer(200, page.encode(), "text/html; charset=utf-8")

    def web_refresh(self, incoming: Incoming) -> Answer:
        """New cookies and a new refresh token; the old ones count until they are confirmed away."""
        form = incoming.form()
        account, session = self._by_csrf(incoming, form.get("csrf"))
        with self._lock:
            mine = self._words.pop(form.get("refresh_csrf", ""), None) is session
        if not mine or form.get("refresh_token") != session.web_refresh_token or form.get("source") != "main_web":
            refuse(86095)
        new = account.log_in(self.token_seconds)
        answer = fine({"status": 0, "message": "", "refresh_token": new.web_refresh_token})
        return self.logins.with_cookies(answer, account.cookies(new))

    def web_confirm(self, incoming: Incoming) -> Answer:
        """The new login says which one it replaces, by that one's refresh token."""
        form = incoming.form()
        account, session = self._by_csrf(incoming, form.get("csrf"))
        old = [one for one in account.sessions
               if one is not session and one.web_refresh_token == form.get("refresh_token")]
        if not old:
            refuse(86095)
        account.sessions.remove(old[0])
        return fine()

    def nav(self, incoming: Incoming) -> Answer:
        account = self.by_cookies(incoming)
        return fine({"isLogin": True, "mid": account.uid, "uname": account.name})

    def myinfo(self, incoming: Incoming) -> Answer:
        account = self.by_cookies(incoming)
        return fine({"mid": account.uid, "name": account.name, "level": 6})

    def spi(self, incoming: Incoming) -> Answer:
        return fine({"b_3": f"{secrets.token_hex(16).upper()}infoc", "b_4": f"{secrets.token_hex(16).upper()}=="})


@lru_cache(maxsize=1)
def _site_key() -> RSA.RsaKey:
    return RSA.generate(1024)

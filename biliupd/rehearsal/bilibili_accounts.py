"""Accounts of the stand-in Bilibili: who is asking, signatures, tokens, login by QR code.

Called by the server's connection threads. Keeps everything in memory; `write_cookies` is its only file.
Speaks §1 of the upload protocol: the envelope, its codes, the app signature, the biliup form of cookies.json.
"""

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote_plus

from biliupd.rehearsal.bilibili_wire import Answer, Incoming, Refused

APP_SECRETS = {
    "4409e2ce8ffd12b8": "59b43e04ad6965f34319062b478f83dd",  # TV
    "783bbb7264451d82": "2653583c8873dea268ab9386918b1d65",  # Android
    "5dce947fe22167f9": "5491a31c6bc11fb764a9b1f8d4acf092",  # BCut
    "1d8b6e7d45233436": "560c52ccd288fed045859ed18bffd973",  # the one of the published test vector
}
MESSAGES = {
    -3: "API校验密匙错误", -101: "账号未登录", -111: "csrf 校验失败", -400: "请求错误", -403: "访问权限不足",
    -404: "啥都木有", 10003: "不存在该稿件", 10009: "该文件名暂时不能用于其它稿件", 20042: "标签有误，请检查标签",
    21005: "标签数量须为1到12个，每个不超过20字", 21012: "请勿短时间内重复提交同名稿件", 21058: "一次最多投递100个分P",
    21070: "投稿过于频繁，请等待30秒后再试", 21103: "标题须在80字以内", 86038: "二维码已失效", 86039: "二维码尚未确认",
}
TOKEN_SECONDS = 15_552_000
QR_SECONDS = 180
CLOCK_SECONDS = 600


def fine(content: Any = None) -> Answer:
    """Bilibili's envelope around a success."""
    return Answer.json({"code": 0, "message": "0", "ttl": 1, "data": content})


def refuse(code: int, message: str = "", content: Any = None) -> NoReturn:
    """Answer with Bilibili's envelope around a refusal: HTTP 200 all the same."""
    raise Refused(Answer.json(
        {"code": code, "message": message or MESSAGES.get(code, str(code)), "ttl": 1, "data": content}))


@dataclass
class Account:
    """Somebody who can log in here; the secrets are random and change with a refresh or a new login."""

    uid: int
    name: str
    sessdata: str = ""
    bili_jct: str = ""
    access_token: str = ""
    refresh_token: str = ""
    logged_in: bool = True
    wants_refresh: bool = False
    last_submit_at: float = 0.0

    def renew(self) -> None:
        """New cookies and tokens; the old ones are worth nothing any more."""
        until = int(time.time()) + TOKEN_SECONDS
        self.sessdata = f"{secrets.token_hex(4)}%2C{until}%2C{secrets.token_hex(3)}%2A{secrets.token_hex(12)}"
        self.bili_jct = secrets.token_hex(16)
        self.access_token = secrets.token_hex(16)
        self.refresh_token = secrets.token_hex(16)
        self.logged_in, self.wants_refresh = True, False

    def login_info(self) -> dict[str, Any]:
        """What a successful login or refresh answers (LoginInfo)."""
        until = int(time.time()) + TOKEN_SECONDS
        pairs = [("SESSDATA", self.sessdata, 1), ("bili_jct", self.bili_jct, 0), ("DedeUserID", str(self.uid), 0),
                 ("DedeUserID__ckMd5", hashlib.md5(str(self.uid).encode()).hexdigest()[:16], 0),
                 ("sid", hashlib.md5(self.sessdata.encode()).hexdigest()[:8], 0)]
        token = {"mid": self.uid, "access_token": self.access_token, "refresh_token": self.refresh_token,
                 "expires_in": TOKEN_SECONDS}
        cookies = [{"name": name, "value": text, "http_only": http_only, "expires": until, "secure": 0}
                   for name, text, http_only in pairs]
        return {"is_new": False, **token, "token_info": token,
                "cookie_info": {"cookies": cookies, "domains": [".bilibili.com"]},
                "sso": ["https://passport.bilibili.com/api/v2/sso"]}


@dataclass
class _Code:
    made_at: float = field(default_factory=time.time)
    uid: int | None = None


class Accounts:
    """Everybody this server knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[int, Account] = {}
        self._codes: dict[str, _Code] = {}

    def get(self, uid: int) -> Account:
        """The account with that number, made when it is new."""
        with self._lock:
            if uid not in self._known:
                self._known[uid] = Account(uid, f"主播{uid}")
                self._known[uid].renew()
            return self._known[uid]

    def all(self) -> list[Account]:
        with self._lock:
            return list(self._known.values())

    def write_cookies(self, path: Path, uid: int) -> Path:
        """A cookies.json as biliup writes it, mode 0600; logs the account in again if it was logged out."""
        account = self.get(uid)
        if not account.logged_in:
            account.renew()
        info = account.login_info()
        content = {name: info[name] for name in ("cookie_info", "sso", "token_info")} | {"platform": "BiliTV"}
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(content, file, indent=2)
        return path

    def by_cookies(self, incoming: Incoming) -> Account:
        given = incoming.cookies.get("SESSDATA", "")
        for account in self.all():
            if account.logged_in and secrets.compare_digest(account.sessdata.encode(), given.encode()):
                return account
        refuse(-101)

    def by_csrf(self, incoming: Incoming, *tokens: str | None) -> Account:
        """The session of the cookies; each csrf that was given must be the one of this session, and one must be."""
        account = self.by_cookies(incoming)
        shown = [token for token in tokens if token is not None]
        if not shown or any(token != account.bili_jct for token in shown):
            refuse(-111)
        return account

    def by_token(self, pairs: dict[str, str]) -> Account:
        for account in self.all():
            if account.logged_in and account.access_token == pairs.get("access_key"):
                return account
        refuse(-101)

    def confirm(self, code: str | None, uid: int) -> None:
        """What the phone does after it scanned the QR code; without a code, the newest one."""
        self.get(uid)
        with self._lock:
            if not self._codes:
                raise LookupError("nobody asked for a QR code yet")
            self._codes[code or list(self._codes)[-1]].uid = uid

    # -- routes of passport.bilibili.com and api.bilibili.com ---------------------------------------------------

    def routes(self, base_url: str) -> dict[tuple[str, str], tuple[str, Callable[[Incoming], Answer]]]:
        """Method and path → a name for it, and who answers."""
        passport, tv = "/x/passport-login/oauth2", "/x/passport-tv-login"
        return {
            ("GET", f"{passport}/info"): ("info", self.info),
            ("POST", f"{passport}/refresh_token"): ("refresh", self.refresh),
            ("POST", f"{tv}/qrcode/auth_code"): ("auth_code", lambda call: self.auth_code(call, base_url)),
            ("POST", f"{tv}/qrcode/poll"): ("poll", self.poll),
            ("POST", f"{tv}/h5/qrcode/confirm"): ("confirm", self.confirm_by_cookies),
            ("GET", f"{tv}/h5/qrcode/auth"): ("confirm", self.confirm_by_visit),
            ("GET", "/x/space/myinfo"): ("myinfo", self.myinfo),
            ("GET", "/x/web-interface/nav"): ("nav", self.nav),
            ("GET", "/x/frontend/finger/spi"): ("spi", self.spi),
        }

    def info(self, incoming: Incoming) -> Answer:
        account = self.by_token(signed(incoming.raw_query))
        return fine({"mid": account.uid, "access_token": account.access_token, "expires_in": TOKEN_SECONDS,
                     "refresh": account.wants_refresh})

    def refresh(self, incoming: Incoming) -> Answer:
        form = signed(incoming.read().decode())
        account = self.by_token(form)
        if form.get("refresh_token") != account.refresh_token:
            refuse(-400)
        account.renew()
        return fine(account.login_info())

    def auth_code(self, incoming: Incoming, base_url: str) -> Answer:
        signed(incoming.read().decode())
        code = secrets.token_hex(16)
        with self._lock:
            self._codes[code] = _Code()
        return fine({"url": f"{base_url}/x/passport-tv-login/h5/qrcode/auth?auth_code={code}", "auth_code": code})

    def poll(self, incoming: Incoming) -> Answer:
        form = signed(incoming.read().decode())
        with self._lock:
            code = self._codes.get(form.get("auth_code", ""))
        if not code:
            refuse(-404)
        if time.time() - code.made_at > QR_SECONDS:
            refuse(86038)
        if code.uid is None:
            refuse(86039)
        with self._lock:
            self._codes.pop(form["auth_code"], None)
        account = self.get(code.uid)
        account.renew()
        return fine(account.login_info())

    def confirm_by_cookies(self, incoming: Incoming) -> Answer:
        form = incoming.form()
        account = self.by_csrf(incoming, form.get("csrf"))
        if form.get("auth_code", "") not in self._codes:
            refuse(-404)
        self.confirm(form["auth_code"], account.uid)
        return fine({})

    def confirm_by_visit(self, incoming: Incoming) -> Answer:
        """Opening the address in the QR code is enough here; the real page asks for a tap in the app."""
        code = incoming.query.get("auth_code", "")
        if code not in self._codes:
            return Answer(404, "没有这个二维码".encode(), "text/plain; charset=utf-8")
        self.confirm(code, 10001)
        return Answer(200, "已确认登录".encode(), "text/plain; charset=utf-8")

    def nav(self, incoming: Incoming) -> Answer:
        account = self.by_cookies(incoming)
        return fine({"isLogin": True, "mid": account.uid, "uname": account.name})

    def myinfo(self, incoming: Incoming) -> Answer:
        account = self.by_cookies(incoming)
        return fine({"mid": account.uid, "name": account.name, "level": 6})

    def spi(self, incoming: Incoming) -> Answer:
        return fine({"b_3": f"{secrets.token_hex(16).upper()}infoc", "b_4": f"{secrets.token_hex(16).upper()}=="})


def signed(text: str) -> dict[str, str]:
    """The parameters of a form-urlencoded text whose `sign` is right; refuses with -3 otherwise (§1.1)."""
    pairs = dict(parse_qsl(text, keep_blank_values=True))
    secret = APP_SECRETS.get(pairs.get("appkey", ""))
    raw = sorted(piece for piece in text.split("&") if not piece.startswith("sign="))
    encoded = [f"{quote_plus(name)}={quote_plus(pairs[name])}" for name in sorted(pairs) if name != "sign"]
    right = {hashlib.md5(("&".join(pieces) + (secret or "")).encode()).hexdigest() for pieces in (raw, encoded)}
    if not secret or pairs.get("sign") not in right:
        refuse(-3)
    if not pairs.get("ts", "").isdecimal() or abs(int(pairs["ts"]) - time.time()) > CLOCK_SECONDS:
        refuse(-3, "ts 与服务器时间相差过大")
    return pairs

"""How people log in at the stand-in Bilibili: QR codes of the television and the web, SMS, password.

Called by the server's connection threads; keeps everything in memory. Speaks §1.2 to §1.6 of the upload protocol, with
its codes. What the real site sends to a phone is told to whoever asks here: `sms_code`, `puzzle`.
"""

import base64
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from Crypto.Cipher import PKCS1_v1_5
from Crypto.PublicKey import RSA

from biliupd.rehearsal.bilibili_envelope import fine, refuse, signed
from biliupd.rehearsal.bilibili_wire import Answer, Incoming

Routes = dict[tuple[str, str], tuple[str, Callable[[Incoming], Answer]]]
ANDROID = "783bbb7264451d82"
SOLVED = "solved"  #: `validate` of every solved puzzle


@dataclass
class _Code:
    made_at: float = field(default_factory=time.time)
    scanned: bool = False
    uid: int | None = None


@dataclass
class _Sms:
    phone: str
    code: str
    sent_at: float = field(default_factory=time.time)


class Logins:
    """Where logins begin.

    To be changed at any time: `qr_seconds`, `hash_seconds`, `sms_seconds` (life of a QR code, a password's hash, an SMS
    code), `sms_pause_seconds` (between two SMS), `sms_a_day`, `captcha_demanded`, `verification_demanded`,
    `passwords` (name → password and account), `phones` (number → account, 10001 for all others).
    """

    def __init__(self, log_in: Callable[[int], tuple[Any, Any]], by_csrf: Callable[..., Any]) -> None:
        self.qr_seconds: float = 180
        self.hash_seconds: float = 20
        self.sms_seconds: float = 300
        self.sms_pause_seconds: float = 60
        self.sms_a_day = 5
        self.captcha_demanded = False
        self.verification_demanded = False
        self.passwords: dict[str, tuple[str, int]] = {"streamer": ("correct horse 电池", 10001)}
        self.phones: dict[str, int] = {}
        self._log_in = log_in
        self._by_csrf = by_csrf
        self._lock = threading.Lock()
        self._codes: dict[str, _Code] = {}
        self._hashes: dict[str, float] = {}
        self._sms: dict[str, _Sms] = {}
        self._puzzles: dict[str, str] = {}

    # -- what a person does, elsewhere --------------------------------------------------------------------------

    def confirm(self, code: str | None, uid: int) -> None:
        """Tap on "log in" after scanning; without a code, the newest one."""
        with self._lock:
            self._code(code).uid = uid

    def scan(self, code: str | None = None) -> None:
        """Scan without the tap: from now on polls say 86090."""
        with self._lock:
            self._code(code).scanned = True

    def _code(self, code: str | None) -> _Code:
        if not self._codes:
            raise LookupError("nobody asked for a QR code yet")
        return self._codes[code or list(self._codes)[-1]]

    def sms_code(self, phone: str) -> str:
        """What the last SMS to that phone said."""
        with self._lock:
            return [sms for sms in self._sms.values() if sms.phone == phone][-1].code

    @property
    def puzzle(self) -> tuple[str, str]:
        """Challenge and token of the last puzzle that was given to somebody."""
        with self._lock:
            return list(self._puzzles.items())[-1]

    # -- routes -------------------------------------------------------------------------------------------------

    def routes(self, base_url: str) -> Routes:
        tv, login = "/x/passport-tv-login", "/x/passport-login"
        return {
            ("POST", f"{tv}/qrcode/auth_code"): ("auth_code", lambda call: self.auth_code(call, base_url)),
            ("POST", f"{tv}/qrcode/poll"): ("poll", self.poll),
            ("POST", f"{tv}/h5/qrcode/confirm"): ("confirm", self.confirm_by_cookies),
            ("GET", f"{tv}/h5/qrcode/auth"): ("confirm", self.confirm_by_visit),
            ("GET", f"{login}/web/qrcode/generate"): ("web_qr", lambda call: self.web_qr(call, base_url)),
            ("GET", f"{login}/web/qrcode/poll"): ("web_poll", self.web_poll),
            ("POST", f"{login}/sms/send"): ("sms_send", lambda call: self.sms_send(call, base_url)),
            ("POST", f"{login}/login/sms"): ("sms_login", self.sms_login),
            ("GET", f"{login}/web/key"): ("key", self.key),
            ("POST", f"{login}/oauth2/login"): ("password", lambda call: self.password(call, base_url)),
        }

    def auth_code(self, incoming: Incoming, base_url: str) -> Answer:
        signed(incoming.read().decode())
        code = self._new_code()
        return fine({"url": f"{base_url}/x/passport-tv-login/h5/qrcode/auth?auth_code={code}", "auth_code": code})

    def _new_code(self) -> str:
        code = secrets.token_hex(16)
        with self._lock:
            self._codes[code] = _Code()
        return code

    def poll(self, incoming: Incoming) -> Answer:
        state, uid = self._look(signed(incoming.read().decode()).get("auth_code", ""))
        if state:
            refuse(86039 if state == 86101 else state)
        account, session = self._log_in(uid)
        return fine(account.login_info(session))

    def _look(self, name: str) -> tuple[int, int]:
        """The code of the answer (0: done, and that code is used up), and who confirmed it."""
        with self._lock:
            code = self._codes.get(name)
            if not code:
                refuse(-404)
            if time.time() - code.made_at > self.qr_seconds:
                return 86038, 0
            if code.uid is None:
                return (86090 if code.scanned else 86101), 0
            del self._codes[name]
            return 0, code.uid

    def confirm_by_cookies(self, incoming: Incoming) -> Answer:
        form = incoming.form()
        account = self._by_csrf(incoming, form.get("csrf"))
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

    def web_qr(self, incoming: Incoming, base_url: str) -> Answer:
        key = self._new_code()
        return fine({"url": f"{base_url}/x/passport-tv-login/h5/qrcode/auth?auth_code={key}", "qrcode_key": key})

    def web_poll(self, incoming: Incoming) -> Answer:
        state, uid = self._look(incoming.query.get("qrcode_key", ""))
        if state:
            return fine({"url": "", "refresh_token": "", "timestamp": 0, "code": state, "message": str(state)})
        account, session = self._log_in(uid)
        cookies = account.cookies(session)
        query = "&".join(f"{one['name']}={one['value']}" for one in cookies)
        answer = fine({"url": f"https://passport.biligame.com/x/passport-login/web/crossDomain?{query}&gourl=x",
                       "refresh_token": session.web_refresh_token, "timestamp": int(time.time() * 1000), "code": 0,
                       "message": ""})
        return self.with_cookies(answer, cookies)

    def with_cookies(self, answer: Answer, cookies: list[dict[str, Any]]) -> Answer:
        """The same answer with a Set-Cookie line for each, as a browser gets them."""
        lines = []
        for one in cookies:
            left = max(0, int(one["expires"] - time.time()))
            ends = formatdate(one["expires"], usegmt=True)
            lines.append(f"{one['name']}={one['value']}; Path=/; Domain=bilibili.com; Expires={ends}; Max-Age={left}"
                         + ("; HttpOnly" if one["http_only"] else ""))
        # an Answer has each header once
        return Answer(answer.status, answer.body, answer.content_type, {"Set-Cookie": "\r\nSet-Cookie: ".join(lines)})

    def sms_send(self, incoming: Incoming, base_url: str) -> Answer:
        form = _android(incoming)
        phone, now = form.get("tel", ""), time.time()
        if not phone.isdecimal() or (len(phone) != 11 if form.get("cid") == "86" else not 5 <= len(phone) <= 15):
            refuse(1002)
        if self.captcha_demanded and not self._solved(form, "gee_challenge", "gee_validate", "gee_seccode"):
            return fine({"is_new": False, "captcha_key": "", "recaptcha_url": self._new_puzzle(base_url)})
        with self._lock:
            sent = [sms for sms in self._sms.values() if sms.phone == phone]
            if sent and now - sent[-1].sent_at < self.sms_pause_seconds:
                refuse(1003)
            if len(sent) >= self.sms_a_day:
                refuse(86203)
            key = secrets.token_hex(16)
            self._sms[key] = _Sms(phone, f"{secrets.randbelow(10**6):06}")
        return fine({"is_new": False, "captcha_key": key, "recaptcha_url": ""})

    def sms_login(self, incoming: Incoming) -> Answer:
        form = _android(incoming)
        with self._lock:
            sms = self._sms.get(form.get("captcha_key", ""))
        if not sms or sms.phone != form.get("tel"):
            refuse(-400)
        if time.time() - sms.sent_at > self.sms_seconds:
            refuse(1007)
        if form.get("code") != sms.code:
            refuse(1006)
        sms.sent_at = 0  # good once
        account, session = self._log_in(self.phones.get(sms.phone, 10001))
        return fine(account.login_info(session))

    def key(self, incoming: Incoming) -> Answer:
        made = secrets.token_hex(8)
        with self._lock:
            self._hashes[made] = time.time()
        return fine({"hash": made, "key": _password_key().public_key().export_key().decode()})

    def password(self, incoming: Incoming, base_url: str) -> Answer:
        form = _android(incoming)
        name, sealed = form.get("username", ""), form.get("password", "")
        if not name or not sealed:
            refuse(-653)
        try:
            text = PKCS1_v1_5.new(_password_key()).decrypt(base64.b64decode(sealed + "=" * (-len(sealed) % 4)), b"")
            made, password = text[:16].decode(), text[16:].decode()
        except ValueError:
            refuse(86000)
        if not text:
            refuse(86000)
        with self._lock:
            hashed_at = self._hashes.pop(made, 0)
        if time.time() - hashed_at > self.hash_seconds:
            refuse(-662)
        if self.captcha_demanded and not self._solved(form, "challenge", "validate", "seccode"):
            refuse(-105, content={"url": self._new_puzzle(base_url)})
        known, uid = self.passwords.get(name, ("", 0))
        if not uid or password != known:
            refuse(-629)
        if self.verification_demanded:
            return fine({"status": 2, "message": "本次登录环境存在风险", "url": f"{base_url}/verify?tmp_token={made}",
                         "token_info": None, "cookie_info": None, "sso": None})
        account, session = self._log_in(uid)
        return fine(account.login_info(session))

    def _new_puzzle(self, base_url: str) -> str:
        challenge, token = secrets.token_hex(16), secrets.token_hex(16)
        with self._lock:
            self._puzzles[challenge] = token
        query = urlencode({"ct": "geetest", "recaptcha_token": token, "gee_gt": "9a5d2c1f", "gee_challenge": challenge})
        return f"{base_url}/h5/project-msg-auth/verify?{query}"

    def _solved(self, form: dict[str, str], challenge: str, validate: str, seccode: str) -> bool:
        """Whether there is a solution in it; refuses a wrong one. A puzzle is good once."""
        if not form.get(challenge):
            return False
        with self._lock:
            token = self._puzzles.pop(form[challenge], None)
        given = form.get("recaptcha_token", token)
        if token is None or given != token or (form.get(validate), form.get(seccode)) != (SOLVED, f"{SOLVED}|jordan"):
            refuse(2406)
        return True


def _android(incoming: Incoming) -> dict[str, str]:
    """The form of a call that only the Android app makes, with its signature."""
    form = signed(incoming.read().decode())
    if form["appkey"] != ANDROID or form.get("actionKey") != "appkey":
        refuse(-3)
    return form


@lru_cache(maxsize=1)
def _password_key() -> RSA.RsaKey:
    return RSA.generate(1024)

"""Become somebody at Bilibili: by QR code, SMS, password, or with the cookies of a browser.

Called by the command line, and by whatever else shows a person a code. Nothing here waits, prints or writes a file:
each step is one question to passport.bilibili.com, and a login is a Credential in the caller's hands. Protocol: the TV
and web QR codes, and the Android app's SMS and password logins with its signature.
"""

import base64
import contextlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import mktime_tz, parsedate_tz
from typing import Any, NoReturn, TypeGuard
from urllib.parse import parse_qs, urlsplit

import requests
from loguru import logger

from biliupd.config import PublishConfig
from biliupd.errors import BiliupdError, NeedsPerson, PermanentError, TemporaryError
from biliupd.publish.credential import Credential, check_cookies, mid_of
from biliupd.publish.member import (
    ANDROID_KEY,
    ANDROID_SECRET,
    APP_AGENT,
    TV_KEY,
    TV_SECRET,
    Member,
    code_of,
    parsed,
    sign,
)

QR_SECONDS = 180  #: a QR code lives this long
COOKIES = ("SESSDATA", "bili_jct", "DedeUserID", "DedeUserID__ckMd5", "sid", "buvid3", "buvid4")
_SCAN_AGENT = "Mozilla/5.0 (Linux; Android 13) AppleWebKit/537.36 (KHTML, like Gecko) Mobile BiliApp/7800300"
_QR_DEAD, _QR_SHOWN, _QR_SEEN, _WEB_QR_SHOWN = 86038, 86039, 86090, 86101
_MOST_PHONE = re.compile(r"[0-9]{4,15}")
_DAY = 86400.0
MOST_ADDRESS = 2000  #: a QR code holds 2,953 characters
_NOBODY = Credential((), "", "", 0, None)
_CAPTCHA_CODES = (-105, 2400, 2406)


class Expired(PermanentError):
    """The QR code or the SMS code is too old: start again."""


class Rejected(PermanentError):
    """What the person typed was not accepted: ask again."""


@dataclass(frozen=True)
class Geetest:
    """A puzzle that a person solves in a browser at `url`, or in any page that shows Geetest's `gt` and `challenge`."""

    url: str
    gt: str
    challenge: str
    token: str


@dataclass(frozen=True)
class Captcha:
    """The solved puzzle; without a `seccode` the usual one is made from `validate`."""

    challenge: str
    validate: str
    seccode: str = ""
    token: str = ""

    @property
    def code(self) -> str:
        return self.seccode or f"{self.validate}|jordan"


class CaptchaDemanded(NeedsPerson):
    """The login goes on only with a Captcha; `puzzle` is what to solve."""

    def __init__(self, message: str, puzzle: Geetest) -> None:
        super().__init__(message, hint=f"solve the puzzle at {puzzle.url or 'bilibili.com'}, or log in by QR code")
        self.puzzle = puzzle


class TvQr:
    """A QR code for Bilibili's app that logs in like a television: cookies and tokens.

    Making one asks for it; raises what a refusal means, TemporaryError when there is no answer.
    """

    def __init__(self, publish: PublishConfig) -> None:
        self._passport = _Passport(publish)
        made = self._passport.tv("qrcode/auth_code", {}, what="QR code")
        self.auth_code = _text(made, "auth_code")  #: whoever has it can ask for the login, too
        self.url = _address(made, "url")  #: what the QR code says
        self.expires_at = datetime.now(UTC) + timedelta(seconds=QR_SECONDS)

    def poll(self) -> Credential | None:
        """The login, or None until the person has confirmed it; ask about once a second. Raises Expired."""
        answer = self._passport.tv_answer("qrcode/poll", {"auth_code": self.auth_code}, "QR code")
        code = code_of(answer.content)
        if code in (_QR_SHOWN, _QR_SEEN):
            return None
        if code in (_QR_DEAD, -404):
            raise Expired("the QR code has expired", hint="start again")
        return Credential.from_login(answer.fine(), "BiliTV")


class WebQr:
    """A QR code for Bilibili's app that logs in like a browser: cookies, and a token that renews them. As TvQr."""

    def __init__(self, publish: PublishConfig) -> None:
        self._passport = _Passport(publish)
        made = self._passport.ask("GET", "/x/passport-login/web/qrcode/generate", what="QR code").fine()
        self._key = _text(made, "qrcode_key")
        self.url = _address(made, "url")
        self.expires_at = datetime.now(UTC) + timedelta(seconds=QR_SECONDS)

    def poll(self) -> Credential | None:
        """The login, or None until the person has confirmed it; ask about once a second. Raises Expired."""
        answer = self._passport.ask(
            "GET", "/x/passport-login/web/qrcode/poll", what="QR code", params={"qrcode_key": self._key})
        found = answer.fine()
        code = code_of(found)
        if code in (_WEB_QR_SHOWN, _QR_SEEN):
            return None
        if code == _QR_DEAD:
            raise Expired("the QR code has expired", hint="start again")
        if code != 0:
            raise TemporaryError(f"QR code: Bilibili says {code}")
        return web_credential(answer.response, found)


class SmsLogin:
    """A code is on its way to the phone, unless `captcha_needed`: then solve that and send again."""

    def __init__(self, publish: PublishConfig, fields: dict[str, str], key: str, captcha: Geetest | None) -> None:
        self.captcha_needed = captcha
        self._passport = _Passport(publish)
        self._fields = fields
        self._key = key

    def confirm(self, code: str) -> Credential:
        """Log in with the code of the SMS. Raises Rejected for a wrong one, Expired for an old one."""
        fields = {**self._fields, "captcha_key": self._key, "code": code}
        answer = self._passport.android("/x/passport-login/login/sms", fields, "login by SMS")
        return _logged_in(answer.fine(), "login by SMS")


def send_code(publish: PublishConfig, phone: str, country: int = 86, captcha: Captcha | None = None) -> SmsLogin:
    """Let Bilibili send a code (good for 5 minutes, another one after 60 s) to a phone in that country.

    Raises Rejected for what is no phone number, TemporaryError when too many were sent.
    """
    if not _MOST_PHONE.fullmatch(phone):
        raise Rejected("a phone number is 4 to 15 digits, without the country's code")
    fields = {"build": "6510400", "buvid": _buvid(), "c_locale": "zh_CN", "channel": "bili", "cid": str(country),
              "device": "phone", "mobi_app": "android", "platform": "android", "tel": phone}
    solved = {} if not captcha else {
        "gee_challenge": captcha.challenge, "gee_validate": captcha.validate, "gee_seccode": captcha.code,
        "recaptcha_token": captcha.token}
    found = _Passport(publish).android("/x/passport-login/sms/send", {**fields, **solved}, "SMS").fine()
    if isinstance(found, dict) and found.get("recaptcha_url"):
        return SmsLogin(publish, fields, "", _geetest(_address(found, "recaptcha_url")))
    return SmsLogin(publish, fields, _text(found, "captcha_key"), None)


def password_login(publish: PublishConfig, user: str, password: str, captcha: Captcha | None = None) -> Credential:
    """Log in by name and password.

    Raises Rejected when these are wrong, CaptchaDemanded, or NeedsPerson with the address where Bilibili wants the
    person to prove more.
    """
    passport = _Passport(publish)
    for final in (False, True):
        fields = {
            "build": "6270200", "captcha": "", "channel": "bili", "device": "phone", "mobi_app": "android",
            "password": _sealed(passport, password), "permission": "ALL", "platform": "android", "subid": "1",
            "username": user, "challenge": captcha.challenge if captcha else "",
            "seccode": captcha.code if captcha else "", "validate": captcha.validate if captcha else ""}
        answer = passport.android("/x/passport-login/oauth2/login", fields, "login by password")
        if code_of(answer.content) != -662 or final:  # a hash lives for 20 s: the network was slow
            break
    return _logged_in(answer.fine(), "login by password")


def from_cookies(publish: PublishConfig, text: str) -> Credential:
    """The login in what a person copied from a browser or another program (see `parse_cookies`).

    When it has no tokens, they are asked for; when that fails it is a login by cookies alone, and the log says so.
    """
    credential = parse_cookies(text)
    if credential.access_token:
        return credential
    try:
        return exchange_for_token(publish, credential)
    except BiliupdError as error:
        logger.warning("no app tokens for these cookies ({}): this login can submit by web only", error)
        return credential


def parse_cookies(text: str) -> Credential:
    """A Cookie header, a cookies.txt of Netscape's form, a browser extension's JSON, or a cookies.json of biliup's.

    Raises PermanentError, quoting nothing, when there is no login in it.
    """
    text = text.removeprefix("\ufeff").strip()
    try:
        if text[:1] in ("{", "["):
            return _from_json(text)
        return _from_pairs(_netscape(text) if "\t" in text else _header(text))
    except ValueError as error:
        raise PermanentError(
            f"no login in these cookies: {error}",
            hint="log in at bilibili.com and copy its cookies: SESSDATA=…; bili_jct=…; DedeUserID=…",
        ) from None


def exchange_for_token(publish: PublishConfig, credential: Credential) -> Credential:
    """A login with tokens for one with cookies alone: a television logs in, and these cookies confirm it.

    The cookies given stay good. Raises NeedsPerson when they are not, TemporaryError when it did not work out.
    """
    code = TvQr(publish)
    Member(publish, credential).call(
        "POST", f"{publish.passport_url}/x/passport-tv-login/h5/qrcode/confirm", what="tokens for cookies",
        form={"auth_code": code.auth_code, "csrf": credential.csrf, "scanning_type": "3"}, agent=_SCAN_AGENT)
    found = code.poll() or code.poll()
    if not found:
        raise TemporaryError("tokens for cookies: the confirmation was not seen")
    return replace(found, cookies=merged(credential.cookies, found.cookies))


def web_credential(response: requests.Response, found: Any) -> Credential:
    """The login that an answer of the web's passport sets as cookies; `found` is its data. Raises TemporaryError."""
    pairs, ends = set_cookies(response)
    address = found.get("url") if isinstance(found, dict) else None
    query = urlsplit(address).query if _is_address(address) else ""
    inside = dict(piece.split("=", 1) for piece in query.split("&") if "=" in piece)
    cookies = {name: inside[name] for name in COOKIES if inside.get(name)} | pairs
    token = found.get("refresh_token") if isinstance(found, dict) else None
    try:
        check_cookies(tuple(cookies.items()))
    except ValueError as error:
        raise TemporaryError(f"Bilibili's answer holds no login: {error}") from None
    content = {"cookie_info": {"cookies": [
        {"name": name, "value": text, "expires": ends.get(name, 0)} for name, text in cookies.items()]}}
    return replace(Credential.parse(content), web_refresh_token=token if isinstance(token, str) else "")


def set_cookies(response: requests.Response) -> tuple[dict[str, str], dict[str, int]]:
    """What an answer's Set-Cookie lines set, whatever their domain, and when each ends (Unix seconds)."""
    pairs: dict[str, str] = {}
    ends: dict[str, int] = {}
    for line in response.raw.headers.getlist("Set-Cookie"):
        first, *attributes = (piece.strip() for piece in line.split(";"))
        name, _, text = first.partition("=")
        pairs[name] = text
        for attribute in attributes:
            kind, _, given = attribute.partition("=")
            if kind.lower() == "max-age" and given.isascii() and given.isdecimal() and len(given) < 10:
                ends[name] = int(time.time()) + int(given)
            elif kind.lower() == "expires" and (parts := parsedate_tz(given)):
                with contextlib.suppress(ValueError, OverflowError):
                    ends.setdefault(name, max(0, mktime_tz(parts)))
    return {name: text for name, text in pairs.items() if text and name in COOKIES}, ends


def merged(old: tuple[tuple[str, str], ...], new: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The new cookies, and the old ones of other names."""
    return tuple((dict(old) | dict(new)).items())


# -- asking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    """What passport said: the response, and its JSON."""

    member: Member
    what: str
    response: requests.Response
    content: Any

    def fine(self) -> Any:
        """`data`, when the code is 0; else raises what the refusal means for somebody who logs in."""
        code = code_of(self.content)
        if code == 0 and self.response.status_code < 400:
            return self.content.get("data")
        _refuse(self, code)


class _Passport:
    """passport.bilibili.com, asked by nobody in particular."""

    def __init__(self, publish: PublishConfig) -> None:
        self._base = publish.passport_url
        self._member = Member(publish, _NOBODY)

    def ask(self, method: str, path: str, *, what: str, **options: Any) -> _Answer:
        response = self._member.send(method, self._base + path, what=what, cookies=False, **options)
        return _Answer(self._member, what, response, parsed(response))

    def tv_answer(self, path: str, fields: dict[str, str], what: str) -> _Answer:
        given = {**fields, "appkey": TV_KEY, "local_id": "0", "ts": str(int(time.time()))}
        return self.ask("POST", f"/x/passport-tv-login/{path}", what=what, form=sign(given, TV_SECRET), agent=APP_AGENT)

    def tv(self, path: str, fields: dict[str, str], what: str) -> Any:
        return self.tv_answer(path, fields, what).fine()

    def android(self, path: str, fields: dict[str, str], what: str) -> _Answer:
        given = {**fields, "actionKey": "appkey", "appkey": ANDROID_KEY, "ts": str(int(time.time()))}
        return self.ask("POST", path, what=what, form=sign(given, ANDROID_SECRET), agent=APP_AGENT)


_REFUSALS: Mapping[int, tuple[type[BiliupdError], str]] = {
    1002: (Rejected, "that is no phone number it knows; look at the country's code, too"),
    1003: (TemporaryError, "a code was sent already: wait a minute, or type that one"),
    1006: (Rejected, "that is not the code of the SMS"),
    1007: (Expired, "the code is too old: have another one sent"),
    1025: (TemporaryError, "too many codes were asked for: try again later, or log in by QR code"),
    86203: (TemporaryError, "no more codes today: log in by QR code"),
    -629: (Rejected, "the name or the password is wrong"),
    -653: (Rejected, "the name or the password is empty"),
    -662: (TemporaryError, "the network is too slow for a login by password: use the QR code"),
    86000: (TemporaryError, "the password could not be read there: try again, or use the QR code"),
    86066: (NeedsPerson, "the account is frozen: ask Bilibili"),
}
_PAUSES = {1003: 60.0, 1025: 3600.0, 86203: _DAY}


def _refuse(answer: _Answer, code: int | None) -> NoReturn:
    detail = answer.content.get("data") if isinstance(answer.content, dict) else None
    address = detail.get("url") or detail.get("recaptcha_url") if isinstance(detail, dict) else None
    text = f"{answer.what}: Bilibili says {code}"
    if code in _CAPTCHA_CODES:
        raise CaptchaDemanded(f"{text}: it wants a captcha", _geetest(address if _is_address(address) else ""))
    if code in (-2001, -2100):
        _verify(text, address)
    if code is None or code not in _REFUSALS:
        raise answer.member.refusal(answer.response, answer.content, answer.what)
    kind, hint = _REFUSALS[code]
    if issubclass(kind, TemporaryError):
        raise kind(text, hint=hint, retry_after_seconds=_PAUSES.get(code, 0.0))
    raise kind(text, hint=hint)


def _verify(text: str, address: object) -> NoReturn:
    where = address if _is_address(address) else "bilibili.com"
    raise NeedsPerson(f"{text}: it wants to know more", hint=f"open {where} in a browser, then log in again by QR code")


def _logged_in(found: Any, what: str) -> Credential:
    if isinstance(found, dict) and not found.get("cookie_info") and found.get("url"):
        _verify(what, found["url"])
    return Credential.from_login(found, "Android")


def _geetest(address: str) -> Geetest:
    query = parse_qs(urlsplit(address).query)

    def first(*names: str) -> str:
        return next((query[name][0] for name in names if name in query), "")

    token = first("recaptcha_token", "token")
    return Geetest(address, first("gee_gt", "gt"), first("gee_challenge", "challenge"), token)


def _sealed(passport: _Passport, password: str) -> str:
    """The password as it travels: Bilibili's hash and it, encrypted for Bilibili."""
    from Crypto.Cipher import PKCS1_v1_5  # for a password alone: else it costs every start of the daemon
    from Crypto.PublicKey import RSA

    given = passport.ask("GET", "/x/passport-login/web/key", what="key for the password").fine()
    try:
        key = RSA.import_key(_text(given, "key"))
    except (ValueError, IndexError, TypeError) as error:
        raise TemporaryError("key for the password: Bilibili's answer holds none") from error
    try:
        return base64.b64encode(PKCS1_v1_5.new(key).encrypt((_text(given, "hash") + password).encode())).decode()
    except ValueError:
        raise Rejected("the password is longer than any") from None


def _buvid() -> str:
    """A device's number, as the Android app makes it up."""
    digits = secrets.token_hex(16).upper()
    return f"XY{digits[2]}{digits[12]}{digits[22]}{digits}"


def _text(found: Any, name: str) -> str:
    held = found.get(name) if isinstance(found, dict) else None
    if not isinstance(held, str) or not held:
        raise TemporaryError(f"Bilibili's answer lacks {name}")
    return held


def _address(found: Any, name: str) -> str:
    """The same for an address that a person is to open or to scan."""
    held = _text(found, name)
    if not _is_address(held):
        raise TemporaryError(f"Bilibili's answer has no address as {name}")
    return held


def _is_address(given: Any) -> TypeGuard[str]:
    """Whether it can be shown, opened, and drawn as a QR code."""
    if not isinstance(given, str) or len(given) > MOST_ADDRESS or not (given.isascii() and given.isprintable()):
        return False
    try:
        return urlsplit(given).scheme in ("http", "https")
    except ValueError:
        return False


# -- cookies in other people's forms --------------------------------------------------------------------------------


def _from_json(text: str) -> Credential:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not whole JSON") from None
    if isinstance(content, dict) and isinstance(content.get("cookie_info"), dict):
        return Credential.parse(content)
    inner = content.get("cookies", content) if isinstance(content, dict) else content
    if isinstance(inner, dict):
        pairs = {name: held for name, held in inner.items() if isinstance(held, str)}
    else:
        pairs = {one["name"]: one["value"] for one in inner if _is_cookie(one)} if isinstance(inner, list) else {}
    credential = _from_pairs(pairs)
    tokens = content if isinstance(content, dict) else {}
    access, refresh = tokens.get("access_token"), tokens.get("refresh_token")
    if isinstance(access, str) and isinstance(refresh, str) and access and refresh:
        return replace(credential, access_token=access, refresh_token=refresh)
    return credential


def _is_cookie(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("value"), str) and _ours(
        one.get("domain") or "bilibili.com")


def _ours(domain: Any) -> bool:
    """Whether a cookie of that domain is Bilibili's own; exports of a whole browser hold all the others, too."""
    return isinstance(domain, str) and f".{domain.lower().removeprefix('#httponly_')}".endswith(".bilibili.com")


def _netscape(text: str) -> dict[str, str]:
    rows = (line.rstrip("\r\n").split("\t") for line in text.splitlines())
    return {row[5]: row[6] for row in rows if len(row) == 7 and _ours(row[0])}


def _header(text: str) -> dict[str, str]:
    pieces = re.split(r"[;\r\n]+", re.sub(r"(?i)^cookie:", "", text))
    pairs = (piece.strip().split("=", 1) for piece in pieces if "=" in piece)
    return {name.strip(): held.strip().strip('"') for name, held in pairs}


def _from_pairs(pairs: dict[str, str]) -> Credential:
    """A login by cookies alone. `ac_time_value` is what the web page calls the token that renews them."""
    kept = {name: pairs[name] for name in COOKIES if pairs.get(name)}
    if "SESSDATA" in kept:  # some tools show it decoded
        kept["SESSDATA"] = kept["SESSDATA"].replace(",", "%2C").replace("*", "%2A")
    cookies = tuple(kept.items())
    check_cookies(cookies)
    found = Credential.parse({"cookie_info": {"cookies": [{"name": name, "value": held} for name, held in cookies]}})
    return replace(found, mid=mid_of(kept.get("DedeUserID")), web_refresh_token=pairs.get("ac_time_value", ""))

"""Talk to Bilibili's member, passport and api hosts as one account, and say what its answers mean.

Called by the pipeline's workers, several at a time: each thread has a session of its own. The query of a request may
hold the access token, a signature or the csrf, and requests quotes it in its errors; so no text of theirs gets out.
"""

import contextlib
import email.utils
import hashlib
import threading
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
import urllib3.exceptions

from biliupd.config import PublishConfig, trusted_certificates
from biliupd.errors import BiliupdError, Cooling, NeedsPerson, PermanentError, TemporaryError, Unreachable
from biliupd.publish.credential import Credential

TV_KEY, TV_SECRET = "4409e2ce8ffd12b8", "59b43e04ad6965f34319062b478f83dd"
ANDROID_KEY, ANDROID_SECRET = "783bbb7264451d82", "2653583c8873dea268ab9386918b1d65"
WEB_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"
APP_AGENT = ("Mozilla/5.0 BiliDroid/7.80.0 (bbcallen@gmail.com) os/android model/MI 6 mobi_app/android build/7800300 "
             "channel/bili innerVer/7800310 osVer/13 network/2")
REFERER = "https://www.bilibili.com/"
LARGEST_ANSWER_BYTES = 16 << 20
HOUR = 3600.0

_LOG_IN = "log in to Bilibili again (biliupd login), so that the account's cookies.json is written anew"
_CAPTCHA = ("submit something by hand on bilibili.com with this account and solve its captcha, then: biliupd retry "
            "account:NAME; or wait")
_REST = "nothing to do: it goes on by itself; if this happens often, upload fewer and larger files"
LOGIN: dict[int, tuple[float, str]] = {  #: code → seconds until another look is polite, what the person can do
    -2: (900, _LOG_IN), -101: (900, _LOG_IN), -111: (900, _LOG_IN),
    -102: (6 * HOUR, "the account is banned: ask Bilibili"),
}
RISK: dict[int, tuple[float, str]] = {  #: code → seconds the account keeps quiet at first
    -105: (3 * HOUR, _CAPTCHA), -352: (HOUR, _CAPTCHA), -412: (HOUR, _CAPTCHA), 412: (HOUR, _CAPTCHA),
    406: (HOUR, _REST), 601: (HOUR, _CAPTCHA), -509: (600, _REST), -799: (600, _REST), 429: (600, _REST),
    21564: (24 * HOUR, _CAPTCHA), 21566: (6 * HOUR, _CAPTCHA), 137022: (12 * HOUR, _CAPTCHA),
}
VOUCHER_SECONDS = 3 * HOUR
LATER: dict[int, float] = {  #: code → seconds to wait at least; 0: the caller's own back-off
    -500: 0, -503: 0, -504: 0, 20001: 0, 21070: 35,
}
HINTS = {
    -3: "a wrong signature is a bug of biliupd", 16025: "remove that tag", 20042: "check the tags of the template",
    21005: "1 to 10 tags of at most 20 characters", 21015: "upload that part again", 21058: "at most 100 parts",
    21103: "at most 80 characters of title", 21160: "shorten the description",
}


class Unsent(Unreachable):
    """The request never reached the server: no address, no connection, no believable certificate."""


class Member:
    """One account at Bilibili. Safe to use from several threads."""

    def __init__(self, publish: PublishConfig, credential: Credential) -> None:
        self.publish = publish
        self.credential = credential
        self.scheme = urlsplit(publish.member_url).scheme
        self.clock_ahead_seconds = 0.0  #: our clock against Bilibili's, by its last answer
        self._local = threading.local()

    def whoami(self) -> str:
        """The account's name. Raises NeedsPerson when the login is worth nothing any more."""
        found = self.call("GET", f"{self.publish.api_url}/x/web-interface/nav", what="login check")
        if not isinstance(found, dict) or not found.get("isLogin", True):
            raise NeedsPerson("login check: not logged in", hint=_LOG_IN, retry_after_seconds=900)
        if self.publish.submit == "app":
            self._check_token()
        return str(found.get("uname") or self.credential.mid)

    def _check_token(self) -> None:
        address, refused = f"{self.publish.passport_url}/x/passport-login/oauth2/info", None
        for key, secret in apps_of(self.credential.platform):
            fields = {"access_key": self.token(), "actionKey": "appkey", "appkey": key, "ts": str(int(time.time()))}
            try:
                self.call("GET", address, what="token check", params=sign(fields, secret), cookies=False)
                return
            except PermanentError as error:
                refused = error
        raise NeedsPerson(f"the access token is not accepted: {refused}", hint=_LOG_IN) from refused

    def token(self) -> str:
        """The access token; raises NeedsPerson when cookies.json has none."""
        if not self.credential.access_token:
            raise NeedsPerson("cookies.json holds no access token, which publish.submit: app needs",
                              hint="log in by QR code, or set publish.submit: web")
        return self.credential.access_token

    def call(self, method: str, url: str, *, what: str, **options: Any) -> Any:
        """Send a request (options as for `send`) and return `data` of the envelope; what it refuses is raised."""
        return self.content(self.send(method, url, what=what, **options), what)

    def send(
        self, method: str, url: str, *, what: str, params: dict[str, Any] | None = None,
        form: dict[str, str] | None = None, json: Any = None, cookies: bool = True, agent: str = WEB_AGENT,
        fresh: bool = False,
    ) -> requests.Response:
        """One request, one answer of any status, never repeated. `fresh` takes a new connection.

        Raises Unsent when the server cannot have seen it, TemporaryError when it may have.
        """
        headers = {"User-Agent": agent}
        if cookies:
            headers |= {"Cookie": self.credential.cookie_header, "Referer": REFERER}
        session = _session() if fresh else self._session()
        try:
            response = session.request(
                method, url, params=params, data=form, json=json, headers=headers, stream=True, allow_redirects=False,
                timeout=(min(15.0, self.publish.timeout_seconds), self.publish.timeout_seconds))
            with response:
                self._read(response)
            self._compare_clocks(response)
            return response
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            root = _root(error)
            kind = Unsent if _never_sent(error, root) else TemporaryError
            raise kind(f"{what}: {_described(error, root)} ({urlsplit(url).netloc})") from root
        finally:
            if fresh:
                session.close()

    def _read(self, response: requests.Response) -> None:
        """Take in the body, within bounds of size and time."""
        response._content = body_of(response, LARGEST_ANSWER_BYTES, 2 * self.publish.timeout_seconds)

    def _compare_clocks(self, response: requests.Response) -> None:
        date = email.utils.parsedate_tz(response.headers.get("Date", ""))
        if date:
            with contextlib.suppress(ValueError, OverflowError):
                self.clock_ahead_seconds = time.time() - email.utils.mktime_tz(date)

    def content(self, response: requests.Response, what: str) -> Any:
        """`data` of Bilibili's envelope. Raises what a refusal means, or TemporaryError for what is no envelope."""
        answer = parsed(response)
        if code_of(answer) == 0 and response.status_code < 400:
            return answer.get("data")
        raise self.refusal(response, answer, what)

    def refusal(self, response: requests.Response, answer: Any, what: str) -> BiliupdError:
        """What an answer that is no success means, as one of our errors."""
        code = code_of(answer)
        if code is None or code == 0:
            return self._by_status(response, what)
        error = self._by_code(response, answer, code, what)
        error.code = code
        return error

    def _by_code(self, response: requests.Response, answer: Any, code: int, what: str) -> BiliupdError:
        detail = answer.get("data") if isinstance(answer.get("data"), dict) else answer.get("detail")
        inside = detail.get("v_voucher") if isinstance(detail, dict) else None
        voucher = inside or response.headers.get("x-bili-gaia-vvoucher")
        text = f"{what}: Bilibili says {code} {self.clean(str(answer.get('message') or ''))}".rstrip()
        if voucher:
            return Cooling(f"{text} (captcha)", hint=_CAPTCHA, retry_after_seconds=VOUCHER_SECONDS)
        if code in RISK or response.status_code in RISK:
            seconds, hint = RISK[code if code in RISK else response.status_code]
            return Cooling(text, hint=hint, retry_after_seconds=max(seconds, _asked(response)))
        if code in LOGIN:
            seconds, hint = LOGIN[code]
            return NeedsPerson(text, hint=hint, retry_after_seconds=seconds)
        if code in LATER or response.status_code >= 500:
            return TemporaryError(text, retry_after_seconds=LATER.get(code, 0))
        return PermanentError(text, hint=HINTS.get(code, "the files are kept; look the code up, then retry"))

    def _by_status(self, response: requests.Response, what: str) -> BiliupdError:
        status = response.status_code
        text = f"{what}: HTTP {status} without Bilibili's envelope"
        if status in RISK:
            seconds, hint = RISK[status]
            return Cooling(text, hint=hint, retry_after_seconds=max(seconds, _asked(response)))
        return TemporaryError(text, retry_after_seconds=_asked(response))

    def clean(self, text: str) -> str:
        """A server's text, fit for a log: one line, not too long, without anything of the login."""
        for secret in self.credential.secrets:
            text = text.replace(secret, "***")
        return "".join(c for c in " ".join(text.split()) if c.isprintable())[:200]

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = _session()
        session: requests.Session = self._local.session
        return session


def _asked(response: requests.Response) -> float:
    """Seconds that the answer itself asks for, at most a day; 0 when it does not."""
    pause = response.headers.get("Retry-After", "")
    return min(float(pause), 24 * HOUR) if pause.isascii() and pause.isdecimal() else 0.0


def apps_of(platform: str | None) -> tuple[tuple[str, str], ...]:
    """Key and secret of the app that tokens are of, by `platform` of cookies.json. When the file does not say, both are
    tried, Android first: biliup takes such tokens for Android's, and older programs wrote the television's silently."""
    android, tv = (ANDROID_KEY, ANDROID_SECRET), (TV_KEY, TV_SECRET)
    return {"Android": (android,), "BiliTV": (tv,)}.get(platform or "", (android, tv))


def sign(fields: dict[str, str], secret: str) -> dict[str, str]:
    """The fields in order, with the `sign` of Bilibili's apps added."""
    ordered = dict(sorted(fields.items()))
    digest = hashlib.md5((urlencode(ordered) + secret).encode()).hexdigest()
    return {**ordered, "sign": digest}


def body_of(response: requests.Response, most_bytes: int, most_seconds: float) -> bytes:
    """The body of a streamed answer, as it trickles in. Raises ContentDecodingError for one that does not end."""
    until, content = time.monotonic() + most_seconds, bytearray()
    while block := response.raw.read1(65536, decode_content=True):
        content += block
        if len(content) > most_bytes or time.monotonic() > until:
            raise requests.exceptions.ContentDecodingError("an answer that does not end")
    return bytes(content)


def parsed(response: requests.Response) -> Any:
    """The JSON of an answer; None when it is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def code_of(answer: Any) -> int | None:
    """`code` of an envelope; None when it is none."""
    code = answer.get("code") if isinstance(answer, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None


class _Unled(requests.Session):
    """Told not to follow a redirect, requests still reads its body to the end; told that there is none, it does not."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _session() -> requests.Session:
    session = _Unled()
    session.verify = trusted_certificates()
    session.auth = no_netrc
    return session


def no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Given as `auth`, so that requests does not add a password it finds in ~/.netrc."""
    return request


def _root(error: BaseException) -> BaseException | None:
    """The exception of the socket, TLS or HTTP layer under those of requests and urllib3, which quote the address."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        reason = getattr(current, "reason", None)
        inner = [item for item in (reason, *current.args) if isinstance(item, BaseException)]
        current = current.__cause__ or (inner[0] if inner else current.__context__)
    deepest = [item for item in seen if not type(item).__module__.startswith(("requests", "urllib3"))]
    return deepest[-1] if deepest else None


def _never_sent(error: BaseException, root: BaseException | None) -> bool:
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ProxyError) or isinstance(
        reason, urllib3.exceptions.NewConnectionError) or type(root).__name__ == "SSLCertVerificationError"


def _described(error: BaseException, root: BaseException | None) -> str:
    if isinstance(error, requests.exceptions.Timeout | TimeoutError):
        return "no answer in time"
    if isinstance(root, OSError) and root.strerror:
        return root.strerror
    return "the connection was closed" if root is None else type(root).__name__

"""Keep a login alive: see how long it lasts, and have it renewed before it ends.

Run by the daemon now and then, and by the command line. Talks to passport, api and www.bilibili.com; replaces the file
it was given under its lock, and nothing else. A login with tokens is renewed as the app does it, one with cookies alone
as the web page does; tokens that died under living cookies are asked for anew.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from loguru import logger

from biliupd.config import PublishConfig
from biliupd.errors import BiliupdError, NeedsPerson, PermanentError, TemporaryError
from biliupd.publish.credential import Credential, locked
from biliupd.publish.login import exchange_for_token, merged, web_credential
from biliupd.publish.member import (
    APP_AGENT,
    Member,
    apps_of,
    code_of,
    parsed,
    sign,
)

EARLY = timedelta(days=30)  #: renewed when less is left, or a third of the login's whole life
#: What www.bilibili.com's own page encrypts the time of a renewal with.
CORRESPOND_KEY = """-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDLgd2OAkcGVtoE3ThUREbio0Eg
Uc/prcajMKXvkCKFCWhJYJcLkcM2DKKcSeFpD/j6Boy538YXnR6VhcuUJOhH2x71
nzPjfdTcqMz7djHum0qSZA0AyCBDABUqCrfNgCiJ00Ra7GmRj+YCK1NJEuewlb40
JNrRuoEUXpabUzGB8QIDAQAB
-----END PUBLIC KEY-----"""
LOGGED_OUT = (-101, -2)
_REFRESH_CSRF = re.compile(r"""<div\s+id=["']?1-name["']?\s*>\s*([0-9A-Za-z_-]+)\s*</div>""")
_AGAIN = "log in to Bilibili again: biliupd login"


@dataclass(frozen=True)
class Health:
    """How a login stands. `token_valid` is None when it has no token; `expires_at` None when nobody says."""

    name: str
    mid: int
    cookies_valid: bool
    token_valid: bool | None
    expires_at: datetime | None
    refresh_wanted: bool

    @property
    def interfaces(self) -> tuple[str, ...]:
        """What it can submit by, as publish.submit names it."""
        if not self.cookies_valid:
            return ()
        return ("app", "web") if self.token_valid else ("web",)

    def days_left(self, now: datetime) -> float | None:
        return None if self.expires_at is None else (self.expires_at - now) / timedelta(days=1)


@dataclass(frozen=True)
class Kept:
    """What `keep_alive` found, and the login as it is in the file now."""

    health: Health
    credential: Credential
    renewed: bool


def state(member: Member) -> Health:
    """Ask Bilibili how a login stands; a login that is worth nothing is an answer, too.

    Raises TemporaryError when Bilibili does not say, NeedsPerson when it wants something else of the person first.
    """
    credential = member.credential
    name, mid = _named(member)
    valid = name is not None
    token_valid, ends, wanted = None, credential.expires_at, False
    if credential.access_token:
        info = _info(member)
        token_valid = info is not None
        if info is not None:
            left = _number(info.get("expires_in"))
            ends = ends if left is None else datetime.now(UTC) + timedelta(seconds=min(left, 2**32))
            wanted = info.get("refresh") is True or not valid
    elif valid and credential.web_refresh_token:
        wanted = _web_info(member).get("refresh") is True
    alive = token_valid or (valid and token_valid is None)
    wanted = bool(alive and (wanted or due(ends, credential.expires_in, datetime.now(UTC)))) and renewable(credential)
    return Health(name or "", mid or credential.mid, valid, token_valid, ends, wanted)


def due(ends: datetime | None, life_seconds: int, now: datetime) -> bool:
    """Whether a login that ends then is to be renewed now."""
    early = min(EARLY, timedelta(seconds=life_seconds) / 3) if life_seconds else EARLY
    return ends is not None and ends - now < early


def renewable(credential: Credential) -> bool:
    """Whether it holds what a renewal asks for."""
    return bool(credential.access_token and credential.refresh_token) or bool(
        not credential.access_token and credential.web_refresh_token)


def renew(member: Member, save: Callable[[Credential], None]) -> Credential:
    """Have Bilibili give a new login for this one. `save` has it on the disk before the old one is given up.

    Raises NeedsPerson when this login cannot be renewed any more, TemporaryError when the answer was lost or is no
    whole login, and what `save` raises. Nothing is saved then; whether the old login still counts, `state` can say.
    """
    credential = member.credential
    if not renewable(credential):
        raise NeedsPerson("this login has nothing to renew it with", hint="log in by QR code: biliupd login")
    return _renew_app(member, save) if credential.access_token else _renew_web(member, save)


def keep_alive(publish: PublishConfig, path: Path, *, force: bool = False, wait: bool = False) -> Kept:
    """Look at the login in that file and renew it when that is due (`force`: anyway). One program at a time.

    Raises NeedsPerson when the login is worth nothing any more, and what `state`, `renew` and `locked` raise.
    """
    with locked(path, wait=wait):
        credential = Credential.load(path)
        member = Member(publish, credential)
        health = state(member)
        if not health.cookies_valid and not (health.token_valid and renewable(credential)):
            raise NeedsPerson(f"{path}: Bilibili does not know this login any more", hint=_AGAIN,
                              retry_after_seconds=300)
        lacks_token = not health.token_valid and (bool(credential.access_token) or publish.submit == "app")
        if not (force or health.refresh_wanted or lacks_token):
            return Kept(health, credential, renewed=False)
        credential.save(path)  # as it is: a file that cannot be replaced is found while nothing is lost yet
        found = _tokens(publish, credential, path) if lacks_token else None
        if found is None:
            if not (force or health.refresh_wanted):
                return Kept(health, credential, renewed=False)
            found = renew(member, lambda new: new.save(path))
        logger.info("the login of {} in {} was renewed until {}", health.name or health.mid, path, found.expires_at)
        return Kept(health, found, renewed=True)


def _tokens(publish: PublishConfig, credential: Credential, path: Path) -> Credential | None:
    """Tokens by the cookies that still count; None when Bilibili gives none."""
    try:
        found = exchange_for_token(publish, credential)
    except BiliupdError as error:
        logger.warning("{}: no app tokens for these cookies ({}): submits by web only", path, error)
        return None
    found.save(path)
    return found


# -- how it stands --------------------------------------------------------------------------------------------------


def _named(member: Member) -> tuple[str | None, int]:
    """Name and number of the account; no name when the cookies do not count."""
    what = "login check"
    response = member.send("GET", f"{member.publish.api_url}/x/web-interface/nav", what=what)
    if code_of(parsed(response)) in LOGGED_OUT:
        return None, 0
    found = member.content(response, what)
    if not isinstance(found, dict) or not found.get("isLogin", True):
        return None, 0
    return member.clean(str(found.get("uname") or member.credential.mid)), _number(found.get("mid")) or 0


def _info(member: Member) -> dict[str, Any] | None:
    """What passport says about the access token; None when it counts for nothing."""
    what, credential = "token check", member.credential
    for app in apps_of(credential.platform):
        fields = {"access_key": credential.access_token}
        response = member.send("GET", f"{member.publish.passport_url}/x/passport-login/oauth2/info", what=what,
                               params=_signed(fields, app), cookies=False)
        found = _accepted(member, response, what)
        if found is not None:
            return found
    return None


def _accepted(member: Member, response: requests.Response, what: str) -> dict[str, Any] | None:
    """`data` of the answer, None when it is a refusal for good; raises when another time may be better."""
    answer = parsed(response)
    if code_of(answer) in LOGGED_OUT:
        return None
    try:
        found = member.content(response, what)
    except PermanentError as error:
        logger.debug("{}", error)
        return None
    return found if isinstance(found, dict) else {}


def _signed(fields: dict[str, str], app: tuple[str, str]) -> dict[str, str]:
    key, secret = app
    return sign({**fields, "actionKey": "appkey", "appkey": key, "ts": str(int(time.time()))}, secret)


def _number(given: Any) -> int | None:
    good = isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**63
    return given if good else None


# -- as the app does it ---------------------------------------------------------------------------------------------


def _renew_app(member: Member, save: Callable[[Credential], None]) -> Credential:
    what, old = "renewal", member.credential
    address = f"{member.publish.passport_url}/x/passport-login/oauth2/refresh_token"
    fields = {"access_key": old.access_token, "refresh_token": old.refresh_token}
    for app in apps_of(old.platform):
        response = member.send(
            "POST", address, what=what, form=_signed(fields, app), cookies=False, agent=APP_AGENT)
        found = _accepted(member, response, what)
        if found is not None:
            return _kept(old, Credential.from_login(found, old.platform), save)
    raise NeedsPerson("renewal: Bilibili does not take these tokens", hint=_AGAIN, retry_after_seconds=300)


def _kept(old: Credential, new: Credential, save: Callable[[Credential], None]) -> Credential:
    if old.mid and new.mid and old.mid != new.mid:
        raise TemporaryError("renewal: Bilibili's answer is the login of another account")
    whole = replace(new, cookies=merged(old.cookies, new.cookies), mid=new.mid or old.mid)
    save(whole)
    return whole


# -- as the web page does it ----------------------------------------------------------------------------------------


def _web_info(member: Member) -> dict[str, Any]:
    found = member.call("GET", f"{member.publish.passport_url}/x/passport-login/web/cookie/info", what="cookie check",
                        params={"csrf": member.credential.csrf})
    return found if isinstance(found, dict) else {}


def _renew_web(member: Member, save: Callable[[Credential], None]) -> Credential:
    what, old = "renewal", member.credential
    web = f"{member.publish.passport_url}/x/passport-login/web"
    moment = _number(_web_info(member).get("timestamp")) or int(time.time() * 1000)
    form = {"csrf": old.csrf, "refresh_csrf": _refresh_csrf(member, moment), "source": "main_web",
            "refresh_token": old.web_refresh_token}
    response = member.send("POST", f"{web}/cookie/refresh", what=what, form=form)
    if code_of(parsed(response)) == 86095:
        raise NeedsPerson("renewal: Bilibili does not take this login's refresh token", hint=_AGAIN,
                          retry_after_seconds=300)
    new = web_credential(response, member.content(response, what))
    if not new.web_refresh_token:
        raise TemporaryError("renewal: Bilibili's answer lacks refresh_token")
    new = _kept(old, replace(new, platform=old.platform), save)
    try:
        Member(member.publish, new).call(
            "POST", f"{web}/confirm/refresh", what="end of the old login",
            form={"csrf": new.csrf, "refresh_token": old.web_refresh_token})
    except BiliupdError as error:  # the new login is on the disk and counts; the old one just lives a little longer
        logger.warning("{}", member.clean(str(error)))
    return new


def _refresh_csrf(member: Member, moment: int) -> str:
    """The word that www.bilibili.com gives for the moment of the renewal (Unix time in milliseconds)."""
    from Crypto.Cipher import PKCS1_OAEP  # once in weeks: else it costs every start of the daemon
    from Crypto.Hash import SHA256
    from Crypto.PublicKey import RSA

    sealed = PKCS1_OAEP.new(RSA.import_key(CORRESPOND_KEY), SHA256).encrypt(f"refresh_{moment}".encode()).hex()
    response = member.send("GET", f"{www(member.publish)}/correspond/1/{sealed}", what="renewal")
    found = _REFRESH_CSRF.search(response.text)
    if response.status_code != 200 or not found:
        raise TemporaryError(f"renewal: HTTP {response.status_code} without the word to renew with",
                             hint="is this machine's clock right? otherwise log in by QR code")
    return found[1]


def www(publish: PublishConfig) -> str:
    """The web site that belongs to the passport; a stand-in is both at one address."""
    scheme, host = urlsplit(publish.passport_url)[:2]
    return f"{scheme}://{host.replace('passport.bilibili.', 'www.bilibili.')}"

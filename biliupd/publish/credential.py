"""cookies.json ↔ what proves to Bilibili who we are. Reads the file and replaces it; nothing else.

The form is the one biliup writes; the older one with the tokens at the top level is read, too. What biliup has no
place for (when the token ends, the web login's refresh token) is in an object of our own, which biliup passes over.
Used by the workers, by whoever renews a login, and by the command line.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loguru import logger

from biliupd.errors import NeedsPerson, TemporaryError
from biliupd.publish import private_file

LARGEST_FILE_BYTES = 1 << 20
SECRET_COOKIES = ("SESSDATA", "bili_jct", "DedeUserID__ckMd5", "sid")
DOMAINS = (".bilibili.com", ".biligame.com", ".bigfun.cn", ".bigfunapp.cn", ".dreamcast.hk")
LARGEST_NUMBER = 2**32 - 1  #: biliup reads seconds as 32 bits
_OUTDATED = ("access_token", "refresh_token", "mid", "expires_in")  #: the older form's, at the top level
_warned: set[Path] = set()
_warned_lock = threading.Lock()


@dataclass(frozen=True)
class Credential:
    """A login: the cookies as they are in the file, the app's tokens (empty when there are none) and the account.

    `expires_in` is the whole life of the tokens in seconds, 0 when unknown, and `expires_at` their end. `cookie_ends`
    holds the end of each cookie that has one, in Unix seconds. `web_refresh_token` belongs to a login by the web.
    """

    cookies: tuple[tuple[str, str], ...] = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    mid: int
    platform: str | None
    expires_in: int = 0
    expires_at: datetime | None = None
    web_refresh_token: str = field(default="", repr=False)
    cookie_ends: tuple[tuple[str, int], ...] = ()
    domains: tuple[str, ...] = DOMAINS
    sso: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> "Credential":
        """Read a cookies.json. Raises NeedsPerson, naming the file and what is wrong with it."""
        try:
            with open(path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(LARGEST_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            raise _unusable(path, getattr(error, "strerror", None) or type(error).__name__) from error
        if len(raw) > LARGEST_FILE_BYTES:
            raise _unusable(path, "much larger than a login is")
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError):
            raise _unusable(path, "not JSON") from None  # the decoder's text could quote the file
        try:
            credential = cls.parse(content)
        except ValueError as error:
            raise _unusable(path, str(error)) from None
        if stat.S_IMODE(mode) & 0o077:
            _warn_once(path, stat.S_IMODE(mode))
        return credential

    @classmethod
    def parse(cls, content: Any) -> "Credential":
        """The login in the content of a cookies.json. Raises ValueError that says what is wrong and quotes nothing."""
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        info = _table(content.get("cookie_info"))
        listed = info.get("cookies")
        if not isinstance(listed, list) or not all(
                isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("value"), str)
                for one in listed):
            raise ValueError("cookie_info.cookies is not a list of names and values")
        cookies = tuple((one["name"], one["value"]) for one in listed)
        check_cookies(cookies)
        inner = content.get("token_info")
        tokens: dict[str, Any] = inner if isinstance(inner, dict) else content
        token, refresh = (tokens.get(name) or "" for name in ("access_token", "refresh_token"))
        platform = content.get("platform")
        if not all(isinstance(text, str) for text in (token, refresh, platform or "")):
            raise ValueError("access_token, refresh_token and platform must be text")
        own = _table(content.get("biliupd"))
        web = own.get("web_refresh_token")
        ends = tuple((one["name"], _number(one.get("expires"))) for one in listed if _number(one.get("expires")))
        return cls(
            cookies, token, refresh, mid_of(tokens.get("mid") or dict(cookies).get("DedeUserID")), platform,
            _number(tokens.get("expires_in")), _moment(own.get("expires_at")) or _session_end(cookies, ends),
            web if isinstance(web, str) else "", ends, _texts(info.get("domains")) or DOMAINS,
            _texts(content.get("sso")))

    @classmethod
    def from_login(cls, info: Any, platform: str | None) -> "Credential":
        """What a login or a refresh of the app answered (LoginInfo), just now.

        Raises TemporaryError when it holds no whole login: cookies or tokens are missing.
        """
        try:
            found = cls.parse({**_table(info), "platform": platform})
        except ValueError as error:
            raise TemporaryError(f"Bilibili's answer holds no login: {error}") from None
        if not found.access_token or not found.refresh_token:
            raise TemporaryError("Bilibili's answer holds no login: the tokens are missing")
        ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=found.expires_in)
        return replace(found, expires_at=ends if found.expires_in else found.expires_at)

    @property
    def csrf(self) -> str:
        return dict(self.cookies)["bili_jct"]

    @property
    def cookie_header(self) -> str:
        """The cookies verbatim, SESSDATA first."""
        return "; ".join(f"{name}={text}" for name, text in self._ordered)

    @property
    def _ordered(self) -> list[tuple[str, str]]:
        return sorted(self.cookies, key=lambda pair: pair[0] != "SESSDATA")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must never be seen in a log, longest first."""
        cookies = [text for name, text in self.cookies if name in SECRET_COOKIES]
        texts = {self.access_token, self.refresh_token, self.web_refresh_token, *cookies}
        return tuple(sorted((text for text in texts if len(text) >= 6), key=len, reverse=True))

    def dumps(self, old: Any = None) -> str:
        """The text of a cookies.json, with whatever `old`, the content of the file before, holds that is not ours."""
        before = {name: held for name, held in _table(old).items() if name not in _OUTDATED}
        ends = dict(self.cookie_ends)
        cookies = [{"name": name, "value": text, "http_only": int(name == "SESSDATA"), "expires": ends.get(name, 0),
                    "secure": 0} for name, text in self._ordered]
        content = before | {
            "cookie_info": _table(before.get("cookie_info")) | {"cookies": cookies, "domains": list(self.domains)},
            "sso": list(self.sso),
            "token_info": _table(before.get("token_info")) | {
                "access_token": self.access_token, "expires_in": self.expires_in, "mid": self.mid,
                "refresh_token": self.refresh_token},
            "platform": self.platform,
            "biliupd": _table(before.get("biliupd")) | {
                "expires_at": self.expires_at.isoformat(timespec="seconds") if self.expires_at else None,
                "web_refresh_token": self.web_refresh_token},
        }
        return json.dumps(content, indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Replace the file as a whole, mode 0600 from its first byte; a symbolic link stays one.

        Fields of the old file that are not ours stay. Raises TemporaryError when it cannot be written; then the old
        file is as it was. Whoever read the file before and wants nobody in between holds `locked(path)`.
        """
        place = Path(os.path.realpath(path))
        try:
            private_file.replace(place, self.dumps(_content(place)).encode())
        except OSError as error:
            raise _unwritable(path, place, error) from error


def check_cookies(cookies: tuple[tuple[str, str], ...]) -> None:
    """Raise ValueError unless these cookies can be sent and are a login."""
    if not all(_sendable(text) for pair in cookies for text in pair):
        raise ValueError("a cookie holds characters that no cookie can have")
    for needed in ("SESSDATA", "bili_jct"):
        if not dict(cookies).get(needed):
            raise ValueError(f"the cookie {needed} is missing")


def mid_of(given: Any) -> int:
    """The account's number; 0 when that is none."""
    text = str(given or 0)
    return int(text) if text.isdecimal() and text.isascii() and len(text) <= 20 else 0


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other programs of ours from replacing the file meanwhile; with `wait`, until they are done with it.

    Raises TemporaryError when somebody else is at it, or the directory is not there. The lock is the directory's own,
    so nothing is left behind; a file system without locks is used without.
    """
    place = Path(os.path.realpath(path))
    try:
        folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(path, place, error) from error
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise TemporaryError(f"{path}: another program is renewing a login in this directory",
                                 retry_after_seconds=30) from None
        except OSError as error:
            logger.debug("{} cannot be locked: {}", place.parent, error.strerror)
        yield
    finally:
        os.close(folder)


def check_writable(path: Path) -> None:
    """Raise TemporaryError, with what to do about it, when `save` could not write there; touches no file there is."""
    place = Path(os.path.realpath(path))
    try:
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with contextlib.suppress(FileNotFoundError), open("/proc/self/mountinfo", encoding="utf-8",
                                                          errors="surrogateescape") as table:
            if is_mounted(place, table.read()):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        os.unlink(private_file.part(place, b""))
    except OSError as error:
        raise _unwritable(path, place, error) from error


def is_mounted(place: Path, mounts: str) -> bool:
    """Whether something is mounted at exactly that path, by the text of a mountinfo table."""
    escaped = "".join(f"\\{ord(c):03o}" if c in "\\ \t\n" else c for c in str(place))
    return any(line.split(" ")[4:5] == [escaped] for line in mounts.splitlines())


def _content(place: Path) -> Any:
    """What the file holds now; nothing when it is no file of ours."""
    try:
        with open(place, "rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
        return json.loads(raw) if len(raw) <= LARGEST_FILE_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def _table(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def _texts(given: Any) -> tuple[str, ...]:
    return tuple(one for one in given if isinstance(one, str)) if isinstance(given, list) else ()


def _number(given: Any) -> int:
    good = isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= LARGEST_NUMBER
    return given if good else 0


def _moment(given: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(given)
        return found.astimezone(UTC) if found.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def _session_end(cookies: tuple[tuple[str, str], ...], ends: tuple[tuple[str, int], ...]) -> datetime | None:
    """When SESSDATA ends: as it came with it, or as it says itself (digest, Unix seconds, digest)."""
    inside = re.match(r"[0-9a-zA-Z]+(?:%2C|,)([0-9]{9,10})(?:%2C|,)", dict(cookies)["SESSDATA"])
    seconds = dict(ends).get("SESSDATA") or (int(inside[1]) if inside else 0)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _sendable(text: str) -> bool:
    return text.isascii() and text.isprintable() and ";" not in text


def _unusable(path: Path, why: str) -> NeedsPerson:
    return NeedsPerson(
        f"{path}: {why}", hint=f"log in to Bilibili, so that {path} is written anew: biliupd login -u {path}")


def _unwritable(path: Path, place: Path, error: OSError) -> TemporaryError:
    hint = f"make {place.parent} a directory that the user biliupd runs as may write to"
    if place.is_mount() or error.errno == errno.EBUSY:  # a container that was given the file alone
        hint = f"mount the directory {place.parent} instead of the file alone, so that the file can be replaced"
    return TemporaryError(f"{path}: cannot be written: {error.strerror or type(error).__name__}", hint=hint)


def _warn_once(path: Path, mode: int) -> None:
    with _warned_lock:
        first = path not in _warned
        _warned.add(path)
    if first:
        logger.warning("{} can be read by other users (mode {:04o}): chmod 600 it", path, mode)

"""cookies.json → what proves to Bilibili who we are. Reads the file, never writes it.

The form is the one biliup writes; the older one with the tokens at the top level is read, too.
"""

import json
import os
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loguru import logger

from biliupd.errors import NeedsPerson

LARGEST_FILE_BYTES = 1 << 20
SECRET_COOKIES = ("SESSDATA", "bili_jct", "DedeUserID__ckMd5", "sid")
_warned: set[Path] = set()
_warned_lock = threading.Lock()


@dataclass(frozen=True)
class Credential:
    """A login: the cookies as they are in the file, the app's tokens (empty when there are none) and the account."""

    cookies: tuple[tuple[str, str], ...] = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    mid: int
    platform: str | None

    @classmethod
    def load(cls, path: Path) -> "Credential":
        """Read a cookies.json. Raises NeedsPerson, naming the file and what is wrong with it."""
        try:
            with open(path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(LARGEST_FILE_BYTES + 1)
        except OSError as error:
            raise _unusable(path, error.strerror or type(error).__name__) from error
        if len(raw) > LARGEST_FILE_BYTES:
            raise _unusable(path, "much larger than a login is")
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError):
            raise _unusable(path, "not JSON") from None  # the decoder's text could quote the file
        credential = cls._from(content, path)
        if stat.S_IMODE(mode) & 0o077:
            _warn_once(path, stat.S_IMODE(mode))
        return credential

    @classmethod
    def _from(cls, content: Any, path: Path) -> "Credential":
        if not isinstance(content, dict):
            raise _unusable(path, "not a JSON object")
        info = content.get("cookie_info")
        listed = info.get("cookies") if isinstance(info, dict) else None
        if not isinstance(listed, list) or not all(
                isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("value"), str)
                for one in listed):
            raise _unusable(path, "cookie_info.cookies is not a list of names and values")
        cookies = tuple((one["name"], one["value"]) for one in listed)
        if not all(_sendable(text) for pair in cookies for text in pair):
            raise _unusable(path, "a cookie holds characters that no cookie can have")
        for needed in ("SESSDATA", "bili_jct"):
            if not dict(cookies).get(needed):
                raise _unusable(path, f"the cookie {needed} is missing")
        inner = content.get("token_info")
        tokens: dict[str, Any] = inner if isinstance(inner, dict) else content
        token, refresh = (tokens.get(name) or "" for name in ("access_token", "refresh_token"))
        platform = content.get("platform")
        if not all(isinstance(text, str) for text in (token, refresh, platform or "")):
            raise _unusable(path, "access_token, refresh_token and platform must be text")
        mid = str(tokens.get("mid") or dict(cookies).get("DedeUserID") or 0)
        return cls(cookies, token, refresh, int(mid) if mid.isdecimal() and mid.isascii() else 0, platform)

    @property
    def csrf(self) -> str:
        return dict(self.cookies)["bili_jct"]

    @property
    def cookie_header(self) -> str:
        """The cookies verbatim, SESSDATA first."""
        ordered = sorted(self.cookies, key=lambda pair: pair[0] != "SESSDATA")
        return "; ".join(f"{name}={text}" for name, text in ordered)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything that must never be seen in a log, longest first."""
        cookies = [text for name, text in self.cookies if name in SECRET_COOKIES]
        texts = {self.access_token, self.refresh_token, *cookies}
        return tuple(sorted((text for text in texts if len(text) >= 6), key=len, reverse=True))


def _sendable(text: str) -> bool:
    return text.isascii() and text.isprintable() and ";" not in text


def _unusable(path: Path, why: str) -> NeedsPerson:
    return NeedsPerson(
        f"{path}: {why}", hint=f"log in to Bilibili again so that {path} is written anew (mode 0600)")


def _warn_once(path: Path, mode: int) -> None:
    with _warned_lock:
        first = path not in _warned
        _warned.add(path)
    if first:
        logger.warning("{} can be read by other users (mode {:04o}): chmod 600 it", path, mode)

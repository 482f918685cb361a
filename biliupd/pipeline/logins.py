"""Log in to Bilibili by a QR code that a page shows: one code per account, kept until it is confirmed or too old.

Called by control's threads; Bilibili is asked at most once a second for a code, however many look at it. Writes the
account's cookies file, which the workers then notice by themselves.
"""

import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from loguru import logger

from biliupd.config import Config
from biliupd.errors import BiliupdError, PermanentError
from biliupd.publish.credential import Credential, check_writable, locked
from biliupd.publish.login import Expired, TvQr

POLL_SECONDS = 1.0
KEPT_SECONDS = 600.0  #: how a code ended is told for so long


@dataclass
class Code:
    """A QR code. `detail`: why the last question about it told nothing."""

    id: str
    account: str
    url: str
    expires_at: datetime
    state: Literal["waiting", "confirmed", "expired"] = "waiting"
    detail: str = ""


@dataclass
class _Open:
    code: Code
    made: TvQr
    path: Path
    credential: Credential | None = None  # confirmed, and not in the file yet
    made_at: float = field(default_factory=time.monotonic)
    asked_at: float = -POLL_SECONDS
    busy: threading.Lock = field(default_factory=threading.Lock)


class Logins:
    """The codes that are open. Any thread."""

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._codes: dict[str, _Open] = {}

    def begin(self, config: Config, account: str) -> Code:
        """The code that is open for an account (empty: the first one), or a new one. Waits for Bilibili.

        Raises PermanentError when there is no such account, TemporaryError when Bilibili gives none, or the cookies
        file could not be written.
        """
        name = account or next(iter(config.accounts), "")
        if name not in config.accounts:
            raise PermanentError(f"there is no account {name!r} in the configuration" if name else
                                 "there is no account in the configuration", hint="add it under accounts:")  # fmt: skip
        path = config.accounts[name].cookies
        with self._making:
            now = time.monotonic()
            self._codes = {id: one for id, one in self._codes.items() if now - one.made_at < KEPT_SECONDS}
            for one in self._codes.values():
                if (one.code.account, one.path, one.code.state) == (name, path, "waiting") and not _is_old(one.code):
                    return one.code
            check_writable(path)
            made = TvQr(config.publish)
            code = Code(secrets.token_urlsafe(16), name, made.url, made.expires_at)
            self._codes[code.id] = _Open(code, made, path)
        return code

    def poll(self, id: str) -> Code | None:
        """How a code stands, asking Bilibili when that is due; None: there is no such code. Waits for Bilibili.

        Once it is confirmed, the login is in the account's file.
        """
        one = self._codes.get(id)
        if one is None:
            return None
        if one.code.state == "waiting" and one.busy.acquire(blocking=False):
            try:
                self._ask(one)
            finally:
                one.busy.release()
        return one.code

    def _ask(self, one: _Open) -> None:
        code = one.code
        if code.state != "waiting" or time.monotonic() - one.asked_at < POLL_SECONDS:
            return
        one.asked_at = time.monotonic()
        try:
            one.credential = one.credential or one.made.poll()
            if one.credential is not None:
                with locked(one.path, wait=True):
                    one.credential.save(one.path)
                code.state = "confirmed"
                logger.info("account {}: logged in by QR code as {}", code.account, one.credential.mid)
                one.credential = None
            code.detail = ""
        except Expired:
            code.state = "expired"
        except BiliupdError as error:
            code.detail = str(error)
        if code.state == "waiting" and one.credential is None and _is_old(code):
            code.state = "expired"


def _is_old(code: Code) -> bool:
    return datetime.now(UTC) > code.expires_at

"""Who may talk to Bilibili now: an account's credential, its connection, and the upload line it uses.

Used by the pipeline's workers. How an account stands is in the catalog, so that everything that uses it keeps quiet
together and `biliupd status` can say why.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from loguru import logger

from biliupd.catalog import records
from biliupd.catalog.database import Catalog, stamp
from biliupd.config import Config
from biliupd.errors import NeedsPerson
from biliupd.publish import line as lines
from biliupd.publish.credential import Credential
from biliupd.publish.line import Line
from biliupd.publish.member import Member

LINE_SECONDS = 3600.0  #: a measured line is believed for this long
ACCOUNT_SECONDS = 60.0  #: an account that waits for a person is looked at this often


class Accounts:
    """Shared by the workers; safe to use from several threads."""

    def __init__(self, catalog: Catalog, hide: Callable[[Iterable[str]], None]) -> None:
        """`hide` is given every secret, to keep it out of the log."""
        self._catalog = catalog
        self._hide = hide
        self._lock = threading.Lock()
        self._members: dict[str, tuple[object, Member]] = {}
        self._tried: dict[str, object] = {}
        self._line: tuple[object, float, Line] | None = None

    def member(self, config: Config, name: str) -> Member:
        """The account's connection. Raises NeedsPerson with the reason while it must not be used."""
        if name not in config.accounts:
            raise NeedsPerson(f"account {name} is not in the configuration", hint="add it under accounts:")
        path = config.accounts[name].cookies
        try:
            status = os.stat(path)
            key: object = (path, status.st_mtime_ns, status.st_ino)
        except OSError:
            key = None
        with self._lock:
            waits = records.account_waits(self._catalog.db, name)
            if waits and self._tried.get(name) == (key, config.publish):  # a new cookies file is tried at once
                raise NeedsPerson(f"account {name}: {waits[0]}")
            known = self._members.get(name)
            if known and known[0] == (key, config.publish):
                return known[1]
            self._tried[name] = (key, config.publish)
            with self.watching(name):
                credential = Credential.load(path)
                self._hide(credential.secrets)
                member = Member(config.publish, credential)
                logger.info("account {} is {}", name, member.whoami())
            self._members[name] = ((key, config.publish), member)
        records.account(self._catalog.db, name, "ok")
        return member

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """What the block learns about the account is written down: from now on everybody leaves it alone."""
        try:
            yield
        except NeedsPerson as error:
            seconds = max(error.retry_after_seconds, ACCOUNT_SECONDS)
            until = stamp(datetime.now(UTC) + timedelta(seconds=seconds))
            if records.account(self._catalog.db, name, "waiting", str(error), until):
                logger.error("account {} waits: {} {}", name, error, error.hint)
            raise NeedsPerson(f"account {name}: {error}", hint=error.hint) from error

    def line(self, config: Config, member: Member) -> Line:
        """The line to upload by, measured now and then."""
        with self._lock:
            key = (config.publish.line, config.publish.member_url)
            if self._line and self._line[0] == key and time.monotonic() - self._line[1] < LINE_SECONDS:
                return self._line[2]
            chosen = lines.choose(config.publish, member)
            self._line = (key, time.monotonic(), chosen)
            return chosen

    def forget_line(self) -> None:
        """It did not serve well: measure again before the next upload."""
        with self._lock:
            self._line = None

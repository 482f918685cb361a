"""Who may talk to Bilibili now: an account's credential, its connection, how it stands, and the lines all share.

Used by the pipeline's workers; one of them keeps the logins alive. The standing lies beside the cookies (see
publish.manners); the catalog mirrors it, so that `biliupd status` can say why everything waits.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loguru import logger

from biliupd.catalog import records
from biliupd.catalog.database import Catalog, now, stamp
from biliupd.config import Config
from biliupd.errors import BiliupdError, Cooling, NeedsPerson, TemporaryError
from biliupd.publish import renew
from biliupd.publish.credential import Credential
from biliupd.publish.line import Lines
from biliupd.publish.manners import StandingFile
from biliupd.publish.member import Member
from biliupd.publish.throttle import Throttle

ACCOUNT_SECONDS = 60.0  #: an account that waits for a person is looked at this often
CHECK_SECONDS = 24 * 3600.0  #: a login that works is checked this often, and renewed when it is time
LONGEST_DOUBT_SECONDS = 3600.0  #: between two checks that told nothing


class Accounts:
    """Shared by the workers; safe to use from several threads."""

    def __init__(self, config: Config, catalog: Catalog, hide: Callable[[Iterable[str]], None]) -> None:
        """`hide` is given every secret, to keep it out of the log."""
        self._config, self._catalog, self._hide = config, catalog, hide
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._members: dict[str, tuple[object, Member]] = {}
        self._tried: dict[str, object] = {}
        self._standings: dict[Path, StandingFile] = {}
        self.check_at: dict[str, float] = {}  #: on the monotonic clock
        self._checked: dict[str, object] = {}
        self.doubts: dict[str, tuple[int, float]] = {}  #: checks in a row that told nothing; not before (monotonic)
        self.throttle = Throttle(lambda: self._config.publish.bandwidth_at(datetime.now().astimezone().time()))
        self.lines = Lines(catalog.path.parent / "lines.json")

    def apply(self, config: Config) -> None:
        """New settings; logins are checked anew when they are about them."""
        before, self._config = self._config, config
        if (before.accounts, before.publish) != (config.accounts, config.publish):
            self.check_at.clear()

    def member(self, config: Config, name: str) -> Member:
        """The account's connection. Raises NeedsPerson with the reason while it must not be used."""
        path = self._path(config, name)
        standing = self._standing(path).read()
        if (seconds := standing.quiet_seconds(time.time())) > 0:
            until = stamp(datetime.now(UTC) + timedelta(seconds=seconds))
            self._told(name, "cooling", standing.reason, until, standing.hint)
            raise Cooling(f"account {name}: {standing.reason}", hint=standing.hint, retry_after_seconds=seconds)
        key = (_state_of(path), config.publish)
        with self._lock_of(name):
            row = records.account_row(self._catalog.db, name)
            waits = row and row["state"] == "waiting" and (row["retry_at"] or "") > now()
            if row and waits and self._tried.get(name) == key:  # a new cookies file is tried at once
                raise NeedsPerson(f"account {name}: {row['reason']}", hint=row["hint"])
            known = self._members.get(name)
            if known and known[0] == key:
                if row and row["state"] != "ok":  # what it waited for is over
                    records.account(self._catalog.db, name, "ok", hint="")
                return known[1]
            if (rest := self._in_doubt(name)) > 0:
                raise TemporaryError(f"account {name} could not be checked", retry_after_seconds=rest)
            self._tried[name] = key
            try:
                with self._watching(config, name):
                    credential = Credential.load(path)
                    self._hide(credential.secrets)
                    member = Member(config.publish, credential)
                    uname = member.whoami()
            except NeedsPerson:
                raise
            except TemporaryError as error:
                self._tried.pop(name, None)  # nobody knows yet whether a new file is what the account waited for
                seconds = self._doubt(config, name)
                raise TemporaryError(f"account {name}: {error}", retry_after_seconds=seconds) from error
            logger.info("account {} is {}", name, uname)
            self.doubts.pop(name, None)
            self._members[name] = (key, member)
        records.account(self._catalog.db, name, "ok", mid=credential.mid, uname=uname, checked_at=now(), hint="")
        return member

    def watching(self, name: str) -> AbstractContextManager[None]:
        """What the block learns about the account is written down: from now on everybody leaves it alone."""
        return self._watching(self._config, name)

    @contextmanager
    def _watching(self, config: Config, name: str) -> Iterator[None]:
        try:
            with self._standing(self._path(config, name)).warned():
                yield
        except Cooling as error:
            standing = self._standing(self._path(config, name)).read()
            until = stamp(datetime.fromtimestamp(standing.until, UTC))
            if self._told(name, "cooling", str(error), until, error.hint):
                logger.error("account {} keeps quiet until {}: {} {}", name, until, error, error.hint)
            raise
        except NeedsPerson as error:
            seconds = max(error.retry_after_seconds, ACCOUNT_SECONDS)
            until = stamp(datetime.now(UTC) + timedelta(seconds=seconds))
            if self._told(name, "waiting", str(error), until, error.hint):
                logger.error("account {} waits: {} {}", name, error, error.hint)
            raise NeedsPerson(f"account {name}: {error}", hint=error.hint) from error

    def pause(self, config: Config, name: str) -> tuple[float, str]:
        """Seconds until the account may submit again, and what for; 0: now."""
        standing = self._standing(self._path(config, name)).read()
        seconds = standing.pause_seconds(config.publish, time.time())
        return seconds, standing.reason or "the pause between two submissions"

    @contextmanager
    def submitting(self, config: Config, name: str) -> Iterator[None]:
        """One submission of an account at a time, and not too often; see `StandingFile.submitting`."""
        with self._standing(self._path(config, name)).submitting(config.publish):
            yield

    # keeping logins alive

    def turn(self) -> bool:
        """Check every account that is due, and renew its login when it is time; False: there was nothing to do."""
        config, busy = self._config, False
        for name, account in config.accounts.items():
            state = _state_of(account.cookies)
            if time.monotonic() >= self.check_at.get(name, 0.0) or self._checked.get(name) != state:
                busy = True
                self.check_at[name] = time.monotonic() + self._check(config, name, account.cookies)
                self._checked[name] = _state_of(account.cookies)  # the check itself writes the file, even in vain
        return busy

    def _check(self, config: Config, name: str, path: Path) -> float:
        """Seconds until the next look."""
        if (rest := max(self._standing(path).read().quiet_seconds(time.time()), self._in_doubt(name))) > 0:
            return rest
        self._tried[name] = (_state_of(path), config.publish)
        try:
            with self._watching(config, name):
                kept = renew.keep_alive(config.publish, path)
        except NeedsPerson as error:
            return max(ACCOUNT_SECONDS, min(error.retry_after_seconds, CHECK_SECONDS))
        except TemporaryError as error:
            logger.warning("account {} could not be checked: {} {}", name, error, error.hint)
            return self._doubt(config, name)
        except BiliupdError as error:
            logger.error("account {} could not be checked: {} {}", name, error, error.hint)
            return CHECK_SECONDS
        self.doubts.pop(name, None)
        self._hide(kept.credential.secrets)
        health = kept.health
        expires = stamp(kept.credential.expires_at or health.expires_at) if health.expires_at else None
        records.account(self._catalog.db, name, "ok", mid=health.mid, uname=health.name, checked_at=now(),
                        expires_at=expires, hint="")  # fmt: skip
        return CHECK_SECONDS

    def _in_doubt(self, name: str) -> float:
        """Seconds until another check is due after one that told nothing; 0: there was none."""
        return self.doubts.get(name, (0, 0.0))[1] - time.monotonic()

    def _doubt(self, config: Config, name: str) -> float:
        """A check told nothing: the seconds until the next, twice as many each time up to an hour."""
        failures = self.doubts.get(name, (0, 0.0))[0]
        seconds = min(config.publish.retry_seconds * 2.0 ** min(failures, 30), LONGEST_DOUBT_SECONDS)
        self.doubts[name] = failures + 1, time.monotonic() + seconds
        return seconds

    def _told(self, name: str, state: str, reason: str, until: str, hint: str) -> bool:
        return records.account(self._catalog.db, name, state, reason, until, hint=hint)

    def _path(self, config: Config, name: str) -> Path:
        if name not in config.accounts:
            raise NeedsPerson(f"account {name} is not in the configuration", hint="add it under accounts:")
        return config.accounts[name].cookies

    def _lock_of(self, name: str) -> threading.Lock:
        """One check of an account at a time; another account's need not wait for it."""
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())

    def _standing(self, cookies: Path) -> StandingFile:
        with self._lock:
            return self._standings.setdefault(cookies, StandingFile(cookies))


def _state_of(path: Path) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return path, status.st_mtime_ns, status.st_ino

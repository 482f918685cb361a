"""Who asks: logins, sessions and the throttle of both.

Called from the threads of the routes; owns what it remembers, and writes users and sessions. A token is random (256
bits) and kept as its SHA-256 alone.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from loguru import logger
from starlette.requests import HTTPConnection

from biliupd.catalog import users
from biliupd.catalog.database import Catalog, stamp
from biliupd.catalog.users import User
from biliupd.control.context import Asker
from biliupd.control.identities import Credentials, FirstUser, LoggedIn
from biliupd.control.models import Refusal
from biliupd.control.passwords import Passwords
from biliupd.control.problems import TooMany
from biliupd.control.throttle import Throttle, network
from biliupd.errors import PermanentError, TemporaryError

VALID = timedelta(days=7)  #: from the last use
WRITTEN_SECONDS = 3600.0  #: a use is written down this often at most
TRUSTED_SECONDS = 1.0  #: a session that was valid a moment ago is so now; what another process revokes ends by then
MOST_KNOWN = 1000


class Login(NamedTuple):
    """A session that has just begun; the token is told once."""

    asker: Asker
    token: str
    expires_at: str

    def model(self) -> LoggedIn:
        """As it is answered."""
        token = self.token if self.asker.kind == "bearer" else None
        return LoggedIn(username=self.asker.username, role=self.asker.role, session_id=self.asker.session_id,
                        expires_at=self.expires_at, token=token)  # fmt: skip


class _Given(NamedTuple):
    token: str
    kind: Literal["cookie", "bearer"]


class _Known(NamedTuple):
    asker: Asker
    expires_at: str
    at: float  # when the catalog said so, monotonic

    def valid(self, given: _Given | None) -> Asker | None:
        """A token of a cookie is none for a header, nor the other way round."""
        if given is None or given.kind != self.asker.kind or self.expires_at <= stamp(datetime.now(UTC)):
            return None
        return self.asker


class Auth:
    """Everything about who may come in. `setup_code` makes the first user; it is told in the log only."""

    def __init__(self, catalog: Catalog, passwords: Passwords | None = None, throttle: Throttle | None = None) -> None:
        self._catalog = catalog
        self._passwords = passwords or Passwords()
        self._throttle = throttle or Throttle()
        self._known: dict[str, _Known] = {}
        self._generation = 0  # another one: what was read before may be revoked by now
        self._lock = threading.Lock()
        self.setup_code = secrets.token_urlsafe(24)

    # sessions

    def who(self, connection: HTTPConnection) -> Asker | None:
        """By cookie or bearer token; None: nobody who is logged in."""
        return self.remembered(connection) or self._look_up(connection)

    def remembered(self, connection: HTTPConnection) -> Asker | None:
        """The same of a moment ago, if that is known without reading."""
        given = _token(connection)
        known = self._known.get(hashed(given.token)) if given else None
        if known is None or time.monotonic() - known.at > TRUSTED_SECONDS:
            return None
        return known.valid(given)

    def _look_up(self, connection: HTTPConnection) -> Asker | None:
        given, generation, now = _token(connection), self._generation, time.monotonic()
        if given is None:
            return None
        key = hashed(given.token)
        row = users.session(self._catalog.db, key)
        if row is None:
            return None
        asker = Asker(row["user_id"], row["username"], row["role"], row["id"], row["kind"])
        known = _Known(asker, row["expires_at"], now)
        unused = datetime.now(UTC) - datetime.fromisoformat(row["seen_at"])
        if not timedelta() <= unused < timedelta(seconds=WRITTEN_SECONDS):
            with suppress(TemporaryError):  # it is valid all the same
                users.seen(self._catalog.db, row["id"], _address(connection), VALID)
        with self._lock:
            if generation == self._generation:  # else it may be revoked by now
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[key] = known
        return known.valid(given)

    def forget(self) -> None:
        """Users or sessions were changed: ask the catalog again, at once."""
        with self._lock:
            self._generation += 1
            self._known.clear()

    def revoke(self, session_id: int, user_id: int | None = None) -> bool:
        """A session ends now, if it is that user's. False: there is none."""
        found = users.end_session(self._catalog.db, session_id, user_id)
        self.forget()
        return found

    # passwords

    def log_in(self, connection: HTTPConnection, given: Credentials) -> Login:
        """Begin a session. Refusal 401: wrong name or password, told in the same time; 429: tried too often."""
        address = _address(connection)
        user = users.named(self._catalog.db, given.username)
        keys = [f"from {network(address)}"]
        if user is None or address not in {row["address"] for row in users.sessions(self._catalog.db, [user["id"]])}:
            # from where they are logged in already, others' tries at their name keep nobody out
            keys.append(f"for {hashed(given.username)}")
        self._try(keys)
        if not self._passwords.check(user["password_hash"] if user else None, given.password) or user is None:
            logger.warning("a login as {!a} from {} failed", user["username"] if user else "somebody unknown", address)
            raise Refusal(401, "wrong name or password", kind="credentials")
        self._throttle.succeeded(keys)
        if self._passwords.is_outdated(user["password_hash"]):
            fresh = self._passwords.hash(given.password)
            if users.rehash(self._catalog.db, user["id"], user["password_hash"], fresh):
                user = {**user, "password_hash": fresh}
        return self._begin(connection, user, given.session, given.label)

    def change_password(self, asker: Asker, old: str, new: str) -> None:
        """The user's other sessions end. Refusal 403: the old one is wrong; 429: tried too often."""
        keys = [f"change {asker.user_id}"]
        user = users.get(self._catalog.db, asker.user_id)
        self._try(keys)
        if user is None or not self._passwords.check(user["password_hash"], old):
            raise Refusal(403, "the old password is wrong", field="body.old", kind="credentials")
        self._throttle.succeeded(keys)
        users.change(self._catalog.db, asker.user_id, password_hash=self._passwords.hash(new), but=asker.session_id)
        self.forget()

    def hash(self, password: str) -> str:
        """Of a new user's password."""
        return self._passwords.hash(password)

    def is_set_up(self) -> bool:
        """Whether there is a user."""
        return users.is_anybody_there(self._catalog.db)

    def set_up(self, connection: HTTPConnection, given: FirstUser) -> Login:
        """Make the first user, an admin, and log them in. Refusal 403: wrong code; 409: not needed; 429."""
        if self.is_set_up():
            raise Refusal(409, "there is a user already", hint="log in")
        keys = [f"from {network(_address(connection))}"]
        self._try(keys)
        if not secrets.compare_digest(given.code.strip().encode(), self.setup_code.encode()):
            raise Refusal(403, "this is not the code", field="body.code", kind="code",
                          hint="the log of this start tells it; biliupd passwd needs none")  # fmt: skip
        self._throttle.succeeded(keys)
        try:
            id = users.add(self._catalog.db, given.username, self.hash(given.password), users.ADMIN, first=True)
        except PermanentError as error:
            raise Refusal(409, str(error), hint=error.hint) from error
        self.setup_code = secrets.token_urlsafe(24)  # many may have read the one in the log by now
        user = users.get(self._catalog.db, id)
        assert user is not None
        return self._begin(connection, user, "cookie", "")

    def _try(self, keys: Iterable[str]) -> None:
        if pause := self._throttle.begin(keys):
            raise TooMany("tried too often", pause)

    def _begin(
        self, connection: HTTPConnection, user: User, kind: Literal["cookie", "bearer"], label: str
    ) -> Login:
        token, expires_at = secrets.token_urlsafe(32), stamp(datetime.now(UTC) + VALID)
        id = users.begin_session(
            self._catalog.db, user, hashed(token), expires_at, kind=kind, label=label,
            address=_address(connection), agent=_plain(connection.headers.get("user-agent", ""))[:200],
        )  # fmt: skip
        if id is None:
            raise Refusal(401, "wrong name or password", kind="credentials")
        logger.info("{!a} logged in from {}", user["username"], _address(connection))
        return Login(Asker(user["id"], user["username"], user["role"], id, kind), token, expires_at)


def cookie_name(connection: HTTPConnection) -> str:
    """Over https no other page of this host, and nothing on the way, can set the one that we read (RFC 6265bis)."""
    return "__Host-biliupd" if is_secure(connection) else "biliupd"


def is_secure(connection: HTTPConnection) -> bool:
    """Whether it came by TLS, as far as we or a proxy we trust can tell."""
    return connection.scope["scheme"] in ("https", "wss")


def _token(connection: HTTPConnection) -> _Given | None:
    scheme, _, rest = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return _Given(rest.strip(), "bearer")
    found = connection.cookies.get(cookie_name(connection))
    return _Given(found, "cookie") if found else None


def hashed(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _address(connection: HTTPConnection) -> str:
    return _plain(connection.client.host)[:64] if connection.client else ""  # a proxy may pass on anything


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isprintable())

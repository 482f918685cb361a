"""Rows of people and of their logins. Neither passwords nor tokens get here, only their hashes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlite_utils import Database

from biliupd.catalog.database import now, stamp, write
from biliupd.catalog.states import rows
from biliupd.errors import PermanentError

ADMIN = "admin"
MOST_SESSIONS = 100  #: of a user; a script that logs in every minute ends those it left behind

User = dict[str, Any]  #: a row of `users`, by column
Session = dict[str, Any]  #: a row of `sessions`, by column, with username and role of its user


def is_anybody_there(db: Database) -> bool:
    """Whether there is a user."""
    return db.execute("select 1 from users limit 1").fetchone() is not None


def named(db: Database, username: str) -> User | None:
    """The user of that name, or None."""
    return next(iter(db.query("select * from users where username = ?", [username])), None)


def get(db: Database, id: int) -> User | None:
    """One user, or None."""
    return next(iter(db.query("select * from users where id = ?", [id])), None)


def everybody(db: Database) -> list[User]:
    """All users, by name."""
    return list(db.query("select * from users order by username"))


def add(db: Database, username: str, password_hash: str, role: str, *, first: bool = False) -> int:
    """Make a user → its id. Raises PermanentError when the name is taken, or it was to be the first and is not."""
    with write(db):
        if first and is_anybody_there(db):
            raise PermanentError("there is a user already", hint="log in")
        if named(db, username):
            raise PermanentError(f"there is a user {username} already", hint="take another name")
        facts = {"username": username, "password_hash": password_hash, "role": role, "created_at": now()}
        rows(db, "users").insert(facts)
        return int(db.execute("select id from users where username = ?", [username]).fetchone()[0])


def change(db: Database, id: int, *, password_hash: str = "", role: str = "", but: int = 0) -> bool:
    """Another password, which ends the user's sessions but for the one of the id `but`, or another role.

    False: there is no such user. Raises PermanentError when nobody would be left to manage users.
    """
    with write(db):
        if get(db, id) is None:
            return False
        if role:
            if role != ADMIN:
                _keep_an_admin(db, id)
            db.execute("update users set role = ? where id = ?", [role, id])
        if password_hash:
            db.execute("update users set password_hash = ? where id = ?", [password_hash, id])
            db.execute("delete from sessions where user_id = ? and id != ?", [id, but])
    return True


def rehash(db: Database, id: int, old: str, new: str) -> bool:
    """Keep the same password in another form. False: it was changed meanwhile."""
    with write(db):
        return bool(db.execute("update users set password_hash = ? where id = ? and password_hash = ?",
                               [new, id, old]).rowcount)  # fmt: skip


def remove(db: Database, id: int) -> bool:
    """A user goes, with all sessions. False: there is none. Raises PermanentError for the last admin."""
    with write(db):
        if get(db, id) is None:
            return False
        _keep_an_admin(db, id)
        db.execute("delete from users where id = ?", [id])
    return True


def _keep_an_admin(db: Database, id: int) -> None:
    if db.execute("select 1 from users where role = ? and id != ?", [ADMIN, id]).fetchone() is None:
        raise PermanentError("this is the only admin", hint="make another user admin first")


def begin_session(db: Database, user: User, token_hash: str, expires_at: str, **facts: str) -> int | None:
    """A login → its id; None: the user is gone, or has another password by now. `facts`: kind, label, address, agent.

    Those that are over are removed, and of a user's many those that were used least lately.
    """
    at = now()
    with write(db):
        current = get(db, user["id"])
        if current is None or current["password_hash"] != user["password_hash"]:
            return None
        db.execute("delete from sessions where expires_at <= ?", [at])
        db.execute(
            "delete from sessions where id in"
            " (select id from sessions where user_id = ? order by seen_at desc, id desc limit -1 offset ?)",
            [user["id"], MOST_SESSIONS - 1],
        )
        rows(db, "sessions").insert({
            "user_id": user["id"], "token": token_hash, "expires_at": expires_at, "created_at": at, "seen_at": at,
            **facts,
        })  # fmt: skip
        return int(db.execute("select id from sessions where token = ?", [token_hash]).fetchone()[0])


_SESSIONS = "select s.*, u.username, u.role from sessions s join users u on u.id = s.user_id where s.expires_at > ?"


def session(db: Database, token_hash: str) -> Session | None:
    """The session that is valid now and has this token, or None."""
    return next(iter(db.query(f"{_SESSIONS} and s.token = ?", [now(), token_hash])), None)


def sessions(db: Database, user_ids: Sequence[int] | None = None) -> list[Session]:
    """Those that are valid now, of these users or of all, the one used last first."""
    marks = "" if user_ids is None else f" and s.user_id in ({','.join('?' * len(user_ids))})"
    return list(db.query(f"{_SESSIONS}{marks} order by s.seen_at desc, s.id desc", [now(), *(user_ids or ())]))


def seen(db: Database, id: int, address: str, valid: timedelta) -> None:
    """A session is used, and so valid for that long from now. Raises TemporaryError at once when the catalog is busy:
    it is looked at, too, to see why.
    """
    at = datetime.now(UTC)
    (patience,) = db.execute("pragma busy_timeout").fetchone()
    db.execute("pragma busy_timeout = 0")
    try:
        with write(db):
            db.execute("update sessions set seen_at = ?, expires_at = ?, address = ? where id = ?",
                       [stamp(at), stamp(at + valid), address, id])  # fmt: skip
    finally:
        db.execute(f"pragma busy_timeout = {patience}")


def end_session(db: Database, id: int, user_id: int | None = None) -> bool:
    """Revoke it, if it is that user's. False: there is none."""
    with write(db):
        return bool(db.execute("delete from sessions where id = ? and user_id = coalesce(?, user_id)",
                               [id, user_id]).rowcount)  # fmt: skip

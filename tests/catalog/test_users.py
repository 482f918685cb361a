"""Rows of people and their logins, as several threads and processes change them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from biliupd.catalog import users
from biliupd.catalog.database import stamp
from biliupd.errors import PermanentError

HOUR = timedelta(hours=1)


def in_an_hour(hours=1):
    return stamp(datetime.now(UTC) + hours * HOUR)


@pytest.fixture
def db(catalog):
    return catalog.db


@pytest.fixture
def ann(db):
    return users.get(db, users.add(db, "ann", "hash", "admin"))


def test_nobody_is_there_until_somebody_is_made(db):
    assert not users.is_anybody_there(db)
    assert users.named(db, "ann") is None
    id = users.add(db, "ann", "hash", "admin", first=True)
    assert users.is_anybody_there(db)
    assert users.get(db, id)["username"] == "ann"
    with pytest.raises(PermanentError, match="already"):
        users.add(db, "bob", "hash", "admin", first=True)
    with pytest.raises(PermanentError, match="a user ann already"):
        users.add(db, "ann", "hash", "viewer")
    assert [row["username"] for row in users.everybody(db)] == ["ann"]


def test_of_many_that_would_be_the_first_one_is(catalog):
    def add(name):
        try:
            return users.add(catalog.db, name, "hash", "admin", first=True)
        except PermanentError:
            return None
        finally:
            catalog.close()

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(add, "abcdefgh"))
    assert sum(id is not None for id in made) == 1


def test_of_two_admins_that_demote_each_other_at_once_one_stays(catalog):
    ids = [users.add(catalog.db, name, "hash", "admin") for name in "ab"]

    def demote(id):
        try:
            return users.change(catalog.db, id, role="viewer")
        except PermanentError:
            return False
        finally:
            catalog.close()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(demote, ids)) == [False, True]
    assert sorted(row["role"] for row in users.everybody(catalog.db)) == ["admin", "viewer"]


def test_the_last_admin_can_neither_go_nor_become_less_but_anybody_else_can(db, ann):
    bob = users.add(db, "bob", "hash", "operator")
    for refused in (lambda: users.remove(db, ann["id"]), lambda: users.change(db, ann["id"], role="viewer")):
        with pytest.raises(PermanentError, match="only admin"):
            refused()
    assert users.change(db, ann["id"], role="admin")
    assert users.remove(db, bob)
    assert not users.remove(db, bob)
    assert not users.change(db, bob, role="admin")


def test_a_session_is_valid_until_it_expires_and_then_its_row_goes_with_the_next_login(db, ann):
    users.begin_session(db, ann, "old", in_an_hour(-1))
    id = users.begin_session(db, ann, "new", in_an_hour(), kind="bearer", label="backup", address="::1", agent="curl")
    assert users.session(db, "old") is None
    found = users.session(db, "new")
    assert (found["id"], found["username"], found["role"], found["label"]) == (id, "ann", "admin", "backup")
    assert [row["id"] for row in users.sessions(db)] == [id]
    assert db.execute("select count(*) from sessions").fetchone() == (1,)


def test_of_many_sessions_those_used_last_stay(db, ann, monkeypatch):
    monkeypatch.setattr(users, "MOST_SESSIONS", 3)
    bob = users.get(db, users.add(db, "bob", "hash", "viewer"))
    his = users.begin_session(db, bob, "his", in_an_hour())
    ids = [users.begin_session(db, ann, f"{number}", in_an_hour()) for number in range(3)]
    users.seen(db, ids[0], "::1", HOUR)
    new = users.begin_session(db, ann, "new", in_an_hour())
    assert {row["id"] for row in users.sessions(db)} == {his, ids[0], ids[2], new}


def test_another_password_ends_all_sessions_but_one_and_begins_none_by_the_old_one(db, ann):
    keep, other = (users.begin_session(db, ann, token, in_an_hour()) for token in ("a", "b"))
    assert users.change(db, ann["id"], password_hash="another", but=keep)
    assert [row["id"] for row in users.sessions(db, [ann["id"]])] == [keep] != [other]
    assert users.begin_session(db, ann, "c", in_an_hour()) is None  # `ann` was read before
    assert not users.rehash(db, ann["id"], "hash", "newer")
    assert users.rehash(db, ann["id"], "another", "newer")
    assert users.change(db, ann["id"], password_hash="once more")
    assert users.sessions(db) == []


def test_a_removed_user_takes_their_sessions_along_and_begins_none(db, ann):
    bob = users.get(db, users.add(db, "bob", "hash", "viewer"))
    users.begin_session(db, bob, "a", in_an_hour())
    assert users.remove(db, bob["id"])
    assert users.session(db, "a") is None
    assert users.begin_session(db, bob, "b", in_an_hour()) is None


def test_a_session_is_ended_by_whom_it_belongs_to(db, ann):
    bob = users.get(db, users.add(db, "bob", "hash", "viewer"))
    id = users.begin_session(db, ann, "a", in_an_hour())
    assert not users.end_session(db, id, bob["id"])
    assert users.end_session(db, id, ann["id"])
    assert not users.end_session(db, id)


def test_a_use_makes_a_session_valid_anew(db, ann):
    id = users.begin_session(db, ann, "a", in_an_hour(), address="10.0.0.1")
    users.seen(db, id, "10.0.0.2", timedelta(days=7))
    (row,) = users.sessions(db, [ann["id"]])
    assert row["address"] == "10.0.0.2"
    assert in_an_hour(7 * 24 - 1) < row["expires_at"] < in_an_hour(7 * 24 + 1)

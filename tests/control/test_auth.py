"""Logging in and what a session is worth, over HTTP; the throttle by a clock of its own."""

import hashlib
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import argon2
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as some
from support import wait_until

from biliupd.catalog import users
from biliupd.catalog.database import Catalog, stamp
from biliupd.control.models import Refusal
from biliupd.control.passwords import QUEUE, Passwords
from biliupd.control.throttle import FORGET_SECONDS, FREE, LONGEST_SECONDS, MOST, Throttle, network


def log_in(stage, name="admin", password=None, **more):
    body = {"username": name, "password": password or f"{name}-password", **more}
    return requests.post(f"{stage.url}/api/login", json=body, timeout=10)


def me(stage, **how):
    return requests.get(f"{stage.url}/api/me", timeout=10, **how).status_code


# -- logging in


def test_a_page_gets_a_cookie_that_no_script_and_no_other_site_sees(shared):
    shared.user("admin")
    answer = log_in(shared)
    assert (answer.status_code, answer.json()["role"], answer.json()["token"]) == (200, "admin", None)
    name, _, rest = answer.headers["set-cookie"].partition("=")
    token, *flags = rest.split("; ")
    assert name == "biliupd"
    assert len(token) >= 43  # 256 bits
    assert {flag.lower() for flag in flags} == {"httponly", "samesite=strict", "path=/", "max-age=604800"}
    assert me(shared, cookies={"biliupd": token}) == 200
    assert me(shared, headers={"Authorization": f"Bearer {token}"}) == 401  # a cookie is none of the other kind
    kept = [row["token"] for row in shared.catalog.db.query("select token from sessions")]
    assert hashlib.sha256(token.encode()).hexdigest() in kept
    assert token not in kept


def test_a_script_gets_a_token_once_and_no_cookie(shared):
    shared.user("admin")
    answer = log_in(shared, session="bearer", label="backup of the NAS")
    token = answer.json()["token"]
    assert "set-cookie" not in answer.headers
    assert me(shared, headers={"Authorization": f"Bearer {token}"}) == 200
    assert me(shared, headers={"Authorization": f"bearer   {token}"}) == 200
    assert me(shared, cookies={"biliupd": token}) == 401
    listed = requests.get(f"{shared.url}/api/sessions", headers={"Authorization": f"Bearer {token}"}, timeout=5)
    assert token not in listed.text
    (mine,) = [row for row in listed.json() if row["current"]]
    assert (mine["label"], mine["kind"], mine["address"]) == ("backup of the NAS", "bearer", "127.0.0.1")


@pytest.mark.parametrize(
    "how",
    [
        {}, {"headers": {"Authorization": "Bearer"}}, {"headers": {"Authorization": "Bearer x"}},
        {"headers": {"Authorization": "Basic YWRtaW46YWRtaW4tcGFzc3dvcmQ="}}, {"cookies": {"biliupd": ""}},
        {"cookies": {"biliupd": "' or 1=1 --"}}, {"cookies": {"biliupd": "x" * 8000}},
        {"cookies": {"__Host-biliupd": "x"}}, {"headers": {"Authorization": b"Bearer \xff\xfe"}},
    ],
)  # fmt: skip
def test_what_is_no_session_is_none(shared, how):
    assert me(shared, **how) == 401


def test_a_wrong_name_and_a_wrong_password_are_told_in_the_same_words_and_cost_the_same(stage, monkeypatch):
    stage.user("admin")
    calls = []
    real = argon2.PasswordHasher.verify
    monkeypatch.setattr(argon2.PasswordHasher, "verify", lambda *given: calls.append(given[1]) or real(*given))
    known, unknown = log_in(stage, "admin", "wrong password"), log_in(stage, "nobody", "wrong password")
    assert known.status_code == unknown.status_code == 401
    assert known.json() == unknown.json()
    assert len(calls) == 2
    parameters = {call.rpartition("$")[0].rpartition("$")[0] for call in calls}
    assert parameters == {"$argon2id$v=19$m=19456,t=2,p=1"}


def test_a_hash_of_other_parameters_is_renewed_by_a_login_and_the_session_is_valid(stage):
    old = argon2.PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=2).hash("old password")
    users.add(stage.catalog.db, "ann", old, "viewer")
    answer = log_in(stage, "ann", "old password", session="bearer")
    assert answer.status_code == 200
    assert users.named(stage.catalog.db, "ann")["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert me(stage, headers={"Authorization": f"Bearer {answer.json()['token']}"}) == 200
    assert log_in(stage, "ann", "old password").status_code == 200


def test_a_row_that_holds_no_hash_lets_nobody_in(stage):
    passwords = Passwords()
    for kept in ("plain", "$argon2id$v=19$m=19456,t=2,p=1$x$y", "$2b$12$abc", "$argon2id$v=19$m=0,t=0,p=0$eHg$eHg"):
        assert not passwords.check(kept, "plain")
        assert not passwords.check(kept, kept)
    users.add(stage.catalog.db, "ann", "", "viewer")
    assert log_in(stage, "ann", " ").status_code == 401


# -- sessions that end


def end_by_expiry(stage, id):
    stage.catalog.db.execute("update sessions set expires_at = ? where id = ?", [stamp(datetime.now(UTC)), id])


def end_by_another_process(stage, id):
    users.end_session(Catalog(stage.catalog.path).db, id)


def end_by_a_new_password_elsewhere(stage, id):
    users.change(stage.catalog.db, stage.user("viewer"), password_hash="another")


def end_by_removal_elsewhere(stage, id):
    stage.user("admin")
    users.remove(stage.catalog.db, stage.user("viewer"))


@pytest.mark.parametrize(
    "end", [end_by_expiry, end_by_another_process, end_by_a_new_password_elsewhere, end_by_removal_elsewhere]
)
def test_a_session_that_another_process_ends_is_over_within_a_second_or_two(stage, end):
    viewer = stage.session("viewer")
    id = viewer.get(f"{stage.url}/api/me").json()["session_id"]
    end(stage, id)
    stage.catalog.db.conn.commit()
    wait_until(lambda: viewer.get(f"{stage.url}/api/me").status_code == 401, 3)


def test_a_session_that_is_used_lives_on_and_one_that_is_not_does_not(stage):
    viewer = stage.session("viewer")
    soon, before = (stamp(datetime.now(UTC) + timedelta(hours=hours)) for hours in (1, -2))
    db = stage.catalog.db
    db.execute("update sessions set expires_at = ?, seen_at = ?, address = 'elsewhere'", [soon, before])
    db.conn.commit()
    assert viewer.get(f"{stage.url}/api/me").status_code == 200
    (row,) = users.sessions(db)
    assert row["expires_at"] > stamp(datetime.now(UTC) + timedelta(days=6.9))
    assert row["address"] == "127.0.0.1"
    stage.control.auth.forget()
    assert viewer.get(f"{stage.url}/api/me").status_code == 200
    assert users.sessions(db) == [row]  # it was written an hour ago at most: not again


def test_a_thousand_requests_do_not_each_read_the_session(stage, monkeypatch):
    viewer, read = stage.bearer("viewer"), []
    real = users.session
    monkeypatch.setattr(users, "session", lambda *given: read.append(1) or real(*given))
    began = datetime.now(UTC)
    for _ in range(50):
        assert viewer.get(f"{stage.url}/api/me").status_code == 200
    assert len(read) <= 2 + (datetime.now(UTC) - began).total_seconds()


def test_what_is_remembered_does_not_grow_without_end(stage, monkeypatch):
    monkeypatch.setattr("biliupd.control.auth.MOST_KNOWN", 5)
    for _ in range(12):
        assert me(stage, headers={"Authorization": f"Bearer {stage.token('viewer')}"}) == 200
        assert me(stage, headers={"Authorization": "Bearer of nothing"}) == 401
    assert len(stage.control.auth._known) <= 5


# -- the first user


def test_the_first_user_is_made_by_the_code_of_the_log_and_only_once(tmp_path):
    from loguru import logger
    from stage import Stage

    from biliupd.log import redact

    lines = []
    sink = logger.add(lambda message: lines.append(redact(message)), level="INFO")
    stage = Stage(tmp_path).start()
    logger.remove(sink)
    try:
        (line,) = [line for line in lines if "#/setup" in line]
        assert f"{stage.url}/#/setup" in line
        code = re.search(r"code (\S+)", line)[1]
        assert code == stage.control.auth.setup_code
        url, ann = f"{stage.url}/api/setup", {"username": "ann", "password": "ann's password"}
        assert requests.get(url, timeout=5).json() == {"needed": True}
        wrong = requests.post(url, json={**ann, "code": "guessed"}, timeout=5)
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (403, "body.code")
        made = requests.post(url, json={**ann, "code": f" {code}\n"}, timeout=5)
        assert (made.status_code, made.json()["role"]) == (201, "admin")
        assert me(stage, cookies=made.cookies) == 200
        assert requests.get(url, timeout=5).json() == {"needed": False}
        again = requests.post(url, json={"username": "eve", "password": "eve's password", "code": code}, timeout=5)
        assert again.status_code == 409
        assert [row["username"] for row in users.everybody(stage.catalog.db)] == ["ann"]
    finally:
        stage.close()


def test_the_code_cannot_be_guessed_often(stage):
    body = {"username": "eve", "password": "eve's password", "code": "x"}
    answers = [requests.post(f"{stage.url}/api/setup", json=body, timeout=5) for _ in range(FREE + 2)]
    assert [answer.status_code for answer in answers] == [403] * FREE + [429] * 2
    assert answers[-1].headers["retry-after"] == "1"


# -- how often


def test_who_fails_too_often_has_to_wait_also_with_the_right_password(stage):
    stage.user("admin")
    at = [1000.0]
    stage.control.auth._throttle._clock = lambda: at[0]
    for _ in range(FREE):
        assert log_in(stage, "admin", "wrong password").status_code == 401
    at[0] += 0.5
    refused = log_in(stage)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["type"] == "/api/problems#too-many"
    at[0] += 0.5
    assert log_in(stage).status_code == 200


def test_many_at_once_are_no_way_round_the_pauses(stage, monkeypatch):
    stage.user("admin")
    tried = []
    real = Passwords.check
    monkeypatch.setattr(Passwords, "check", lambda *given: tried.append(1) or real(*given))
    with ThreadPoolExecutor(12) as pool:
        codes = list(pool.map(lambda n: log_in(stage, "admin", f"wrong password {n}").status_code, range(24)))
    assert set(codes) <= {401, 429}
    assert len(tried) <= FREE + 1


def test_the_owner_gets_in_from_where_they_are_logged_in_whatever_others_try(stage, monkeypatch):
    stage.session("admin").get(f"{stage.url}/api/me")
    stage.catalog.db.execute("update sessions set address = '127.0.0.1'")
    stage.catalog.db.conn.commit()
    throttle = stage.control.auth._throttle
    account = f"for {hashlib.sha256(b'admin').hexdigest()}"
    while not throttle.begin([account, f"from {len(throttle._failures)}.0.0.1"]):
        pass  # others, from everywhere
    assert log_in(stage).status_code == 200


def test_hashing_waits_in_a_short_queue_and_never_twice_at_once(monkeypatch):
    passwords = Passwords()
    running, most, go = [0], [0], threading.Event()

    def verify(*_):
        running[0] += 1
        most[0] = max(most[0], running[0])
        go.wait(5)
        running[0] -= 1
        return True

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    with ThreadPoolExecutor(QUEUE + 1) as pool:
        waiting = [pool.submit(passwords.check, None, "x") for _ in range(QUEUE + 1)]
        wait_until(lambda: passwords._places._value == 0)
        with pytest.raises(Refusal) as refused:
            passwords.check(None, "x")
        go.set()
        assert all(one.result() for one in waiting)
    assert (refused.value.status, most[0]) == (429, 1)
    assert passwords.check(None, "x")


def test_hashing_leaves_no_memory_behind_whichever_threads_did_it():
    passwords, kept, one_by_one = Passwords(), [], threading.Lock()

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before, meet = resident(), threading.Barrier(6)

    def hash_and_stay(_):
        with one_by_one:
            kept.append(passwords.hash("x"))
        meet.wait(20)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(hash_and_stay, range(6)))
        after = resident()
    assert len(kept) == 6
    assert after - before < 2 * 19 * 1024 * 1024


@settings(max_examples=40, deadline=None)
@given(some.lists(some.floats(0, 100), max_size=60))
def test_pauses_grow_stay_below_a_minute_and_are_forgotten(steps):
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for step in steps:
        now[0] += step
        pause = throttle.begin(["a"])
        assert 0 <= pause <= LONGEST_SECONDS
        now[0] += pause + 1e-6  # whoever waits as told may try
        assert pause == 0 or throttle.begin(["a"]) == 0
    now[0] = 1e6
    assert now[0] > FORGET_SECONDS + 160 * 60
    assert [throttle.begin(["a"]) for _ in range(FREE)] == [0] * FREE
    assert throttle.begin(["a"]) == 1
    assert throttle.begin(["b"]) == 0
    throttle.succeeded(["a"])
    assert throttle.begin(["a"]) == 0


def test_a_refused_try_makes_the_pause_no_longer():
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for _ in range(FREE + 5):
        now[0] += throttle.begin(["a"])
        throttle.begin(["a"])
    assert {throttle.begin(["a"]) for _ in range(1000)} == {throttle.begin(["a"])}


def test_the_throttle_remembers_only_so_many():
    throttle = Throttle(lambda: 0.0)
    for number in range(MOST + 500):
        throttle.begin([str(number)])
    assert len(throttle._failures) == MOST


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"), ("::1", "::/64"), ("", ""), ("fe80::1%eth0", "fe80::/64"), ("odd", "odd"),
    ],
)  # fmt: skip
def test_what_counts_as_one_address(address, counted):
    assert network(address) == counted

"""cookies.json of every kind, and that a login is written whole or not at all."""

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from loguru import logger
from support import wait_until

from biliupd.errors import NeedsPerson, TemporaryError
from biliupd.publish.credential import Credential, check_writable, is_mounted, locked


def content(**changes):
    cookies = [{"name": "bili_jct", "value": "csrf0123456789"}, {"name": "SESSDATA", "value": "sess%2C17%2A0123"},
               {"name": "DedeUserID", "value": "42"}]
    return {"cookie_info": {"cookies": cookies, "domains": []}, "sso": [], "platform": "BiliTV",
            "token_info": {"access_token": "token0123456789", "refresh_token": "refresh0123456789", "mid": 42,
                           "expires_in": 1}} | changes


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "cookies.json"
        path.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
        path.chmod(mode)
        return path

    return write


def test_a_file_of_biliup_is_read(write):
    credential = Credential.load(write(content()))
    assert credential.cookie_header == "SESSDATA=sess%2C17%2A0123; bili_jct=csrf0123456789; DedeUserID=42"
    assert (credential.csrf, credential.access_token, credential.mid) == ("csrf0123456789", "token0123456789", 42)


def test_tokens_at_the_top_level_are_read(write):
    old = content(access_token="above0123456789", refresh_token="fresh0123456789")
    del old["token_info"]
    credential = Credential.load(write(old))
    assert (credential.access_token, credential.refresh_token, credential.mid) == (
        "above0123456789", "fresh0123456789", 42)


def test_cookies_alone_are_a_login_without_token(write):
    bare = content()
    del bare["token_info"]
    assert Credential.load(write(bare)).access_token == ""


def cookies(*pairs):
    return content(cookie_info={"cookies": [{"name": name, "value": text} for name, text in pairs]})


@pytest.mark.parametrize(("text", "why"), [
    (b"", "not JSON"), (b"{", "not JSON"), (b"\xff\xfe", "not JSON"), (b"[" * 100_000, "not JSON"),
    (b"[]", "not a JSON object"), (b"null", "not a JSON object"), ({}, "cookie_info.cookies"),
    (content(cookie_info=[]), "cookie_info.cookies"), (content(cookie_info={"cookies": ["a"]}), "cookie_info.cookies"),
    (cookies(("SESSDATA", 5), ("bili_jct", "x")), "cookie_info.cookies"),
    (cookies(("SESSDATA", "x")), "bili_jct is missing"), (cookies(("bili_jct", "x")), "SESSDATA is missing"),
    (cookies(("SESSDATA", ""), ("bili_jct", "x")), "SESSDATA is missing"),
    (cookies(("SESSDATA", "secret\r\nX: y"), ("bili_jct", "x")), "characters"),
    (cookies(("SESSDATA", "秘密"), ("bili_jct", "x")), "characters"),
    (content(token_info={"access_token": ["secret"]}), "must be text"), (b" " * (2 << 20), "larger"),
])  # fmt: skip
def test_a_file_that_is_no_login_needs_a_person_who_is_told_which_file(write, text, why):
    path = write(text)
    with pytest.raises(NeedsPerson, match=why) as caught:
        Credential.load(path)
    assert str(path) in str(caught.value)
    assert "log in" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_missing_file_and_a_directory_need_a_person(tmp_path):
    with pytest.raises(NeedsPerson, match=r"nothing\.json: No such file"):
        Credential.load(tmp_path / "nothing.json")
    with pytest.raises(NeedsPerson, match="Is a directory"):
        Credential.load(tmp_path)


def test_a_file_others_can_read_is_warned_about_once(write):
    lines = []
    sink = logger.add(lines.append, format="{message}")
    path = write(content(), mode=0o644)
    Credential.load(path)
    Credential.load(path)
    logger.remove(sink)
    assert len([line for line in lines if "chmod 600" in line and os.fspath(path) in line]) == 1


def test_nothing_secret_is_in_the_repr_and_everything_secret_is_in_secrets(write):
    credential = Credential.load(write(content()))
    assert set(credential.secrets) == {
        "token0123456789", "refresh0123456789", "csrf0123456789", "sess%2C17%2A0123"}
    assert not any(secret in repr(credential) for secret in credential.secrets)


# -- written ------------------------------------------------------------------------------------------------------

SAVE = """
import os, pathlib, resource, sys
from biliupd.errors import BiliupdError
from biliupd.publish.credential import Credential
{first}
try:
    Credential.load(pathlib.Path(sys.argv[1])).save(pathlib.Path(sys.argv[2]))
except BiliupdError as error:
    print(type(error).__name__, error, error.hint)
"""


def in_another_process(first, *paths):
    return subprocess.run([sys.executable, "-c", SAVE.format(first=first), *map(str, paths)], text=True,
                          capture_output=True, timeout=30, check=False)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def parts(path):
    return list(path.parent.glob(".*.part"))


@pytest.fixture
def credential(write):
    found = Credential.load(write(content()))
    return replace(found, cookies=tuple(sorted(found.cookies, key=lambda pair: pair[0] != "SESSDATA")))


def test_what_was_saved_is_loaded_again(credential, tmp_path):
    whole = replace(
        credential, expires_in=15_552_000, expires_at=datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC),
        web_refresh_token="web0123456789", cookie_ends=(("SESSDATA", 1_900_000_000),), sso=("https://a.invalid/sso",),
        domains=(".bilibili.com", ".b23.tv"))
    whole.save(tmp_path / "new.json")
    assert Credential.load(tmp_path / "new.json") == whole


def test_the_form_is_the_one_of_biliup(credential, tmp_path):
    credential.save(tmp_path / "new.json")
    text = (tmp_path / "new.json").read_text()
    saved = json.loads(text)
    assert text.startswith('{\n  "cookie_info": {\n    "cookies": [')
    assert [one["name"] for one in saved["cookie_info"]["cookies"]] == ["SESSDATA", "bili_jct", "DedeUserID"]
    assert all(set(one) == {"name", "value", "http_only", "expires", "secure"}
               for one in saved["cookie_info"]["cookies"])
    assert saved["token_info"] == {"access_token": "token0123456789", "refresh_token": "refresh0123456789", "mid": 42,
                                   "expires_in": 1}
    assert (saved["sso"], saved["platform"]) == ([], "BiliTV")


def test_fields_of_others_stay_and_outdated_tokens_go(write, credential):
    old = content(note="祝", access_token="outdated", refresh_token="outdated", mid=7, expires_in=9)
    old["cookie_info"]["seen"] = [1, {"a": None}]
    old["token_info"]["scope"] = "all"
    path = write(old)
    replace(credential, access_token="newer0123456789").save(path)
    saved = json.loads(path.read_text())
    assert (saved["note"], saved["token_info"]["scope"]) == ("祝", "all")
    assert saved["cookie_info"]["seen"] == [1, {"a": None}]
    assert saved["token_info"]["access_token"] == "newer0123456789"
    assert "outdated" not in path.read_text()


@pytest.mark.parametrize("old", [b"", b"{", b"[1]", b"\xff\xfe", b" " * (2 << 20)],
                         ids=["empty", "cut", "list", "binary", "huge"])
def test_whatever_was_there_before_can_be_replaced(write, credential, old):
    path = write(old)
    credential.save(path)
    assert Credential.load(path) == credential


@pytest.mark.parametrize("umask", [0, 0o777])
def test_nobody_else_can_read_a_single_byte_whatever_the_umask(write, credential, monkeypatch, umask):
    path, seen = write(content(), mode=0o666), []
    fsync = os.fsync

    def watched(descriptor):
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), [mode(part) for part in parts(path)], mode(path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    before = os.umask(umask)
    try:
        credential.save(path)
    finally:
        os.umask(before)
    assert seen == [(False, [0o600], 0o666), (True, [], 0o600)], "the file first, then its directory"


def test_a_symbolic_link_stays_one(tmp_path, credential):
    (tmp_path / "secrets").mkdir()
    link, place = tmp_path / "link.json", tmp_path / "secrets" / "real.json"
    link.symlink_to("secrets/real.json")
    for _ in range(2):  # it leads nowhere at first
        credential.save(link)
        assert link.is_symlink()
        assert (mode(place), Credential.load(link)) == (0o600, credential)


def test_the_file_stays_with_its_owner(write, credential):
    path = write(content())
    owner = 12345 if os.geteuid() == 0 else os.geteuid()
    os.chown(path, owner, -1)
    credential.save(path)
    assert path.stat().st_uid == owner


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(write, tmp_path):
    path = write(content())
    before = path.read_bytes()
    done = in_another_process("resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))", path, path)
    assert done.stdout.startswith(f"TemporaryError {path}: cannot be written: File too large"), done.stderr
    assert (path.read_bytes(), parts(path)) == (before, [])
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100


def test_killed_in_between_leaves_the_old_file_and_the_rest_is_cleared_away_later(write, credential):
    path = write(content(note="old"))
    before = path.read_bytes()
    done = in_another_process("os.replace = lambda *_: os.kill(os.getpid(), 9)", path, path)
    assert done.returncode == -signal.SIGKILL
    (left,) = parts(path)
    assert (path.read_bytes(), mode(left)) == (before, 0o600)
    credential.save(path)
    assert parts(path) == [left], "somebody may be writing it at this moment"
    os.utime(left, (time.time() - 7200,) * 2)
    credential.save(path)
    assert parts(path) == []


@pytest.mark.parametrize("act", [lambda one, path: one.save(path), lambda one, path: check_writable(path),
                                 lambda one, path: locked(path).__enter__()])
def test_a_directory_that_cannot_be_written_is_named_with_the_remedy(credential, tmp_path, act):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(TemporaryError, match="cannot be written: No") as caught:
            act(credential, folder / "a.json")
        assert f"make {folder} a directory" in caught.value.hint


def test_a_file_mounted_alone_is_told_to_mount_its_directory(credential, tmp_path, monkeypatch):
    def busy(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(TemporaryError) as caught:
        credential.save(tmp_path / "new.json")
    assert f"mount the directory {tmp_path}" in caught.value.hint
    assert parts(tmp_path / "new.json") == []


@pytest.mark.parametrize(("place", "mounted"), [
    ("/app/cookies.json", True), ("/app/cookies", False), ("/app", False), ("/app/my cookies\\1.json", True),
    ("/", True)])
def test_a_file_mounted_alone_is_known_beforehand(place, mounted):
    table = ("22 1 0:20 / / rw,relatime - ext4 /dev/sda1 rw\n"
             "90 22 8:1 /srv/cookies.json /app/cookies.json rw - ext4 /dev/sda1 rw\n"
             "91 22 8:1 /app/cookies /app/my\\040cookies\\1341.json rw - ext4 /app rw\n\n")
    assert is_mounted(Path(place), table) is mounted


def test_looking_whether_it_can_be_written_leaves_all_as_it_was(write, tmp_path):
    path = write(content())
    before = path.stat()
    check_writable(path)
    check_writable(tmp_path / "new.json")
    assert path.stat() == before
    assert os.listdir(tmp_path) == ["cookies.json"]
    with pytest.raises(TemporaryError, match="Is a directory"):
        check_writable(tmp_path)


def test_only_one_at_a_time_renews_a_login(tmp_path):
    path, order = tmp_path / "cookies.json", []

    def second():
        with locked(path, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(path):
        with pytest.raises(TemporaryError, match="another program"), locked(path):
            pass
        thread.start()
        wait_until(thread.is_alive)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert os.listdir(tmp_path) == []


# -- when it ends -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("sessdata", "expires", "own", "ends"), [
    ("a", None, None, None), ("0a1b%2C1900000000%2C0a%2A1", None, None, 1_900_000_000),
    ("0a1b,1900000000,0a*1", None, None, 1_900_000_000),
    ("0a1b%2C1900000000%2C0a%2A1", 1_800_000_000, None, 1_800_000_000),
    ("0a1b%2C1900000000%2C0a%2A1", 1_800_000_000, "2026-01-02T03:04:05+00:00", 1_767_323_045),
    ("a", -5, "yesterday", None), ("a", True, "2026-01-02T03:04:05", None), ("a", "x", 17, None),
    ("a", 0, "0001-01-01T00:00:00+23:59", None),
])  # fmt: skip
def test_the_end_is_what_was_written_down_or_what_the_cookie_says(sessdata, expires, own, ends):
    first = {"name": "SESSDATA", "value": sessdata, "expires": expires}
    found = Credential.parse({"cookie_info": {"cookies": [first, {"name": "bili_jct", "value": "x"}]},
                              "biliupd": {"expires_at": own}})
    assert found.expires_at == (ends and datetime.fromtimestamp(ends, UTC))


LOGIN = {"mid": 42, "access_token": "t" * 32, "refresh_token": "r" * 32, "expires_in": 100}


@pytest.mark.parametrize(("changes", "why"), [
    ({"cookie_info": None}, "cookie_info.cookies"), ({"token_info": {}}, "tokens are missing"),
    ({"token_info": None, "cookie_info": None}, "cookie_info"),
    ({"cookie_info": {"cookies": []}}, "SESSDATA is missing"),
    ({"token_info": LOGIN | {"refresh_token": ""}}, "tokens are missing"),
    ({"token_info": LOGIN | {"access_token": 5}}, "must be text"),
])  # fmt: skip
def test_an_answer_that_is_no_whole_login_is_none(changes, why):
    answer = content(token_info=LOGIN) | LOGIN
    assert Credential.from_login(answer, "BiliTV").expires_in == 100
    with pytest.raises(TemporaryError, match=why):
        Credential.from_login(answer | changes, "BiliTV")
    with pytest.raises(TemporaryError, match="no login"):
        Credential.from_login(None, "BiliTV")


def test_an_absurd_account_number_is_none():
    found = Credential.parse(content(token_info={"mid": "9" * 9000}))
    assert found.mid == 0


def test_a_login_that_is_missing_says_which_command_makes_it(tmp_path):
    with pytest.raises(NeedsPerson) as caught:
        Credential.load(tmp_path / "cookies.json")
    assert caught.value.hint.endswith(f"biliupd login -u {tmp_path / 'cookies.json'}")

"""cookies.json of every kind."""

import json
import os

import pytest
from loguru import logger

from biliupd.errors import NeedsPerson
from biliupd.publish.credential import Credential


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

"""Encrypted segments: what opens them, and what becomes of those whose key is refused."""

import pytest
from Crypto.Cipher import AES
from hypothesis import given
from hypothesis import strategies as st

from biliupd.record.container import sound
from biliupd.record.hls.keys import Keys, NoKey, decrypt, iv_of
from biliupd.record.playlist import Key, Map, Segment

SECRET = bytes(range(16))


def locked(body: bytes, iv: bytes) -> bytes:
    padding = 16 - len(body) % 16
    return AES.new(SECRET, AES.MODE_CBC, iv).encrypt(body + bytes([padding]) * padding)


def test_y_without_an_iv_it_is_the_number_of_the_segment_and_the_padding_comes_off() -> None:
    iv = iv_of(Key("AES-128", "k"), 258)
    assert iv == bytes(14) + b"\x01\x02"
    for body in (b"\x47" * 188, b"x" * 16, b""):
        assert Keys().open(locked(body, iv), Key("AES-128", "k"), 258, lambda uri: SECRET) == body


def test_a_key_is_fetched_once_for_its_address() -> None:
    keys, fetched = Keys(), []

    def fetch(uri: str) -> bytes:
        fetched.append(uri)
        return SECRET

    for uri, number in (("a", 1), ("a", 2), ("b", 3), ("a", 4)):
        keys.open(locked(b"x", iv_of(Key("AES-128", uri), number)), Key("AES-128", uri), number, fetch)
    assert fetched == ["a", "b"]


@pytest.mark.parametrize(("iv", "expected"), [
    ("0x0A", bytes(15) + b"\x0a"), ("0XFF" + "00" * 15, b"\xff" + bytes(15)), ("", bytes(15) + b"\x07")])
def test_an_iv_is_read_as_it_is_written(iv: str, expected: bytes) -> None:
    assert iv_of(Key("AES-128", "k", iv), 7) == expected


@pytest.mark.parametrize("iv", ["0xzz", "0x" + "ff" * 17, "-1"])
def test_an_iv_that_is_none_is_said_to_be_none(iv: str) -> None:
    with pytest.raises(NoKey):
        iv_of(Key("AES-128", "k", iv), 7)


def test_a_key_of_another_length_is_none() -> None:
    with pytest.raises(NoKey, match="5 bytes"):
        Keys().open(bytes(16), Key("AES-128", "k"), 1, lambda uri: b"<html")


@given(st.binary(max_size=100), st.sampled_from([None, Map("init")]), st.booleans(), st.text(max_size=20))
def test_no_body_makes_a_segment_raise(body: bytes, init: Map | None, encrypted: bool, title: str) -> None:
    segment = Segment(1, "x", 2.0, title, map=init)
    plain = decrypt(body, SECRET, bytes(16)) if encrypted else body
    found, problem = sound(plain, segment)
    assert found or problem
    assert len(found) <= len(plain)

"""QR codes as a page shows them, against the stand-in Bilibili."""

import time
from datetime import UTC, datetime

import pytest

from biliupd.errors import PermanentError, TemporaryError
from biliupd.pipeline import logins as module
from biliupd.pipeline.logins import Logins
from biliupd.publish.credential import Credential


@pytest.fixture
def logins(monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    return Logins()


def test_a_confirmed_code_is_a_login_in_the_accounts_file(bench, logins):
    path = bench.config.accounts["main"].cookies
    path.unlink()
    code = logins.begin(bench.config, "")
    assert (code.account, code.state) == ("main", "waiting")
    assert logins.begin(bench.config, "main").id == code.id, "one code at a time"
    assert logins.poll(code.id).state == "waiting"
    bench.bilibili.confirm_login(uid=7)
    assert logins.poll(code.id).state == "confirmed"
    assert Credential.load(path).mid == 7
    assert path.stat().st_mode & 0o777 == 0o600
    assert logins.poll(code.id).state == "confirmed", "told again to whoever asks later"
    assert logins.begin(bench.config, "main").id != code.id


def test_bilibili_is_not_asked_more_than_once_a_second_for_a_code(bench, monkeypatch):
    logins = Logins()
    code = logins.begin(bench.config, "main")
    for _ in range(5):
        logins.poll(code.id)
    assert bench.asked("poll") == 1


def test_an_old_code_is_expired_and_another_one_is_made(bench, logins):
    code = logins.begin(bench.config, "main")
    code.expires_at = datetime.now(UTC)
    again = logins.begin(bench.config, "main")
    assert again.id != code.id
    assert logins.poll(code.id).state == "expired"
    assert logins.poll("unknown") is None


def test_a_login_that_cannot_be_written_now_is_written_later(bench, logins, monkeypatch):
    code = logins.begin(bench.config, "main")
    bench.bilibili.confirm_login(uid=7)

    def full(self, path):
        raise TemporaryError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Credential, "save", full)
        assert (logins.poll(code.id).state, code.detail) == ("waiting", "the disk is full")
    assert logins.poll(code.id).state == "confirmed"
    assert Credential.load(bench.config.accounts["main"].cookies).mid == 7


def test_an_account_that_is_not_there_is_named(bench, logins):
    with pytest.raises(PermanentError, match="no account 'other'"):
        logins.begin(bench.config, "other")


def test_a_question_under_way_is_not_waited_for(bench, logins):
    code = logins.begin(bench.config, "main")
    one = logins._codes[code.id]
    with one.busy:
        began = time.monotonic()
        assert logins.poll(code.id) is code
        assert time.monotonic() - began < 1

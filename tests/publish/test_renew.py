"""A login is renewed before it ends, and no renewal that goes wrong costs it."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from loguru import logger
from support import wait_until

from biliupd.config import PublishConfig
from biliupd.errors import NeedsPerson, PermanentError, TemporaryError
from biliupd.publish import renew as renewal
from biliupd.publish.credential import Credential, locked
from biliupd.publish.login import WebQr
from biliupd.publish.member import ANDROID_KEY, TV_KEY, Member
from biliupd.publish.renew import due, keep_alive, renew, renewable, state, www
from biliupd.rehearsal.bilibili import Bilibili

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class WholeSite(Bilibili):
    """The stand-in with the pages of www.bilibili.com, too."""

    def _find(self, incoming):
        return self.accounts.find(incoming) or super()._find(incoming)


@pytest.fixture
def bilibili(tmp_path, monkeypatch):
    server = WholeSite(tmp_path / "bilibili")
    server.submit_interval_seconds = 0
    server.start()
    monkeypatch.setattr(renewal, "CORRESPOND_KEY", server.accounts.correspond_key)
    yield server
    server.close()


@pytest.fixture
def path(bilibili, tmp_path):
    """A login of the app."""
    return bilibili.write_cookies(tmp_path / "cookies.json")


@pytest.fixture
def web_path(bilibili, settings, tmp_path):
    """A login of the web."""
    code = WebQr(settings())
    bilibili.confirm_login()
    code.poll().save(tmp_path / "web.json")
    return tmp_path / "web.json"


def routes(bilibili):
    return [request.route for request in bilibili.requests]


def member_of(settings, path, **changes):
    return Member(settings(**changes), Credential.load(path))


# -- how it stands --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("left", "life", "is_due"), [
    (timedelta(days=31), 0, False), (timedelta(days=29), 0, True), (timedelta(days=-1), 0, True),
    (timedelta(days=31), 15_552_000, False), (timedelta(days=29), 15_552_000, True),
    (timedelta(days=11), 30 * 86400, False), (timedelta(days=9), 30 * 86400, True), (timedelta(seconds=5), 12, False),
    (timedelta(seconds=3), 12, True), (None, 15_552_000, False), (None, 0, False)])  # fmt: skip
def test_a_login_is_due_a_month_before_its_end_or_in_its_last_third(left, life, is_due):
    assert due(left and NOW + left, life, NOW) is is_due


def test_a_good_login_says_who_it_is_and_how_long_it_lasts(settings, path):
    health = state(member_of(settings, path))
    assert (health.name, health.mid, health.cookies_valid, health.token_valid, health.refresh_wanted) == (
        "主播10001", 10001, True, True, False)
    assert health.interfaces == ("app", "web")
    assert 179.9 < health.days_left(datetime.now(UTC)) <= 180


def test_bilibili_can_ask_for_a_renewal(bilibili, settings, path, web_path):
    for file in (path, web_path):
        assert not state(member_of(settings, file)).refresh_wanted
        bilibili.ask_for_refresh()
        assert state(member_of(settings, file)).refresh_wanted
        bilibili.accounts.get(10001).wants_refresh = False


def test_the_end_is_bilibilis_word_and_not_the_files(bilibili, settings, tmp_path):
    bilibili.accounts.token_seconds = 25 * 86400
    path = bilibili.write_cookies(tmp_path / "short.json", uid=5)
    late = replace(Credential.load(path), expires_at=NOW + timedelta(days=9000), expires_in=0)
    health = state(Member(settings(), late))
    assert health.refresh_wanted
    assert 24 < health.days_left(datetime.now(UTC)) <= 25


def test_a_dead_login_is_an_answer_and_not_an_error(bilibili, settings, path, web_path):
    bilibili.expire_login()
    for file, token_valid in ((path, False), (web_path, None)):
        health = state(member_of(settings, file))
        assert (health.cookies_valid, health.token_valid, health.interfaces, health.refresh_wanted) == (
            False, token_valid, (), False)
        assert health.mid == 10001


def test_a_dead_token_leaves_the_web(bilibili, settings, path):
    bilibili.refuse("info", -400)
    assert state(member_of(settings, path)).interfaces == ("web",)


def test_not_logged_in_may_also_come_as_a_success(bilibili, settings, path):
    bilibili.fail("nav", 200, b'{"code": 0, "message": "0", "data": {"isLogin": false}}')
    assert state(member_of(settings, path)).cookies_valid is False


@pytest.mark.parametrize("route", ["nav", "info"])
@pytest.mark.parametrize(("code", "kind"), [(-352, NeedsPerson), (-500, TemporaryError), (-102, NeedsPerson)])
def test_an_answer_that_says_nothing_about_the_login_is_an_error(bilibili, settings, path, route, code, kind):
    bilibili.refuse(route, code)
    with pytest.raises(kind, match=str(code)):
        state(member_of(settings, path))


@pytest.mark.parametrize("answer", ["null", "[]", "{}", '{"expires_in": "soon", "refresh": 1}', '{"expires_in": true}'])
def test_an_odd_answer_about_the_token_is_no_bug(bilibili, settings, path, answer):
    bilibili.fail("info", 200, f'{{"code": 0, "message": "0", "data": {answer}}}'.encode())
    health = state(member_of(settings, path))
    assert (health.token_valid, health.expires_at) == (True, Credential.load(path).expires_at)


# -- the app's tokens -------------------------------------------------------------------------------------------------

def test_nothing_is_asked_for_or_written_before_it_is_due(bilibili, settings, path):
    before = path.stat()
    kept = keep_alive(settings(), path)
    assert (kept.renewed, kept.credential, path.stat()) == (False, Credential.load(path), before)
    assert routes(bilibili) == ["nav", "info"]


def test_a_token_is_renewed_before_it_ends(bilibili, settings, tmp_path):
    bilibili.accounts.token_seconds = 3
    path = bilibili.write_cookies(tmp_path / "short.json", uid=5)
    ended = datetime.now(UTC) + timedelta(seconds=5)
    seen = set()

    def turn():
        keep_alive(settings(), path)
        seen.add(Credential.load(path).access_token)
        return datetime.now(UTC) > ended

    wait_until(turn)
    assert 2 <= len(seen) <= 6
    assert state(member_of(settings, path)).interfaces == ("app", "web")


def test_a_renewed_login_is_written_and_counts_and_the_old_one_does_not(bilibili, settings, path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "kept"}))
    old = member_of(settings, path)
    bilibili.ask_for_refresh()
    kept = keep_alive(settings(), path)
    assert kept.renewed
    assert kept.credential == Credential.load(path)
    assert (kept.credential.platform, kept.credential.mid, json.loads(path.read_text())["note"]) == (
        "BiliTV", 10001, "kept")
    assert member_of(settings, path).whoami() == "主播10001"
    assert state(old).interfaces == ()


def test_cookies_of_other_names_go_along(bilibili, settings, path):
    old = Credential.load(path)
    replace(old, cookies=(*old.cookies, ("buvid3", "device"))).save(path)
    found = keep_alive(settings(), path, force=True).credential
    assert dict(found.cookies)["buvid3"] == "device"
    assert found.csrf != old.csrf


def test_a_renewal_whose_answer_is_lost_leaves_the_file_and_living_cookies_get_new_tokens(bilibili, settings, path):
    bilibili.accounts.refresh_ends_cookies = False
    before = Credential.load(path)
    bilibili.lose_answer("refresh")
    with pytest.raises(TemporaryError) as caught:
        keep_alive(settings(), path, force=True)
    assert not isinstance(caught.value, NeedsPerson)
    assert Credential.load(path) == before
    kept = keep_alive(settings(), path)
    assert kept.renewed
    assert member_of(settings, path).whoami() == "主播10001"


def test_a_renewal_that_was_lost_with_the_cookies_needs_a_person(bilibili, settings, path):
    bilibili.lose_answer("refresh")
    with pytest.raises(TemporaryError):
        keep_alive(settings(), path, force=True)
    with pytest.raises(NeedsPerson, match="does not know this login") as caught:
        keep_alive(settings(), path)
    assert "biliupd login" in caught.value.hint


def answer_of(path, **changes):
    token = json.loads(path.read_text())["token_info"] | changes.pop("token", {})
    cookies = json.loads(path.read_text())["cookie_info"]
    return json.dumps({"code": 0, "message": "0", "data": {
        **token, "token_info": token, "cookie_info": cookies, "sso": [], **changes}}).encode()


@pytest.mark.parametrize("changes", [
    {"cookie_info": None}, {"cookie_info": {"cookies": []}}, {"token": {"access_token": ""}},
    {"token": {"refresh_token": None}}, {"token": {"mid": 666}}, {"token": {"access_token": 5}}])
def test_a_bad_answer_never_replaces_a_good_file(bilibili, settings, path, changes):
    before = path.read_bytes()
    bilibili.fail("refresh", 200, answer_of(path, **changes))
    with pytest.raises(TemporaryError, match=r"no login|another account"):
        renew(member_of(settings, path), lambda new: new.save(path))
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_replaced_is_found_before_anything_is_given_up(bilibili, settings, path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(TemporaryError, match="No space left"):
            keep_alive(settings(), path, force=True)
    assert "refresh" not in routes(bilibili)
    assert member_of(settings, path).whoami() == "主播10001"


@pytest.mark.parametrize(("platform", "keys"), [
    ("BiliTV", [TV_KEY]), ("Android", [ANDROID_KEY]), (None, [ANDROID_KEY, TV_KEY]), ("iOS", [ANDROID_KEY, TV_KEY])])
def test_the_key_is_the_one_of_the_app_and_both_are_tried_when_the_file_does_not_say(
        bilibili, settings, path, platform, keys):
    replace(Credential.load(path), platform=platform).save(path)
    for route in ("info", "refresh"):
        bilibili.refuse(route, -3, times=len(keys) - 1) if len(keys) > 1 else None
    kept = keep_alive(settings(), path, force=True)
    assert (kept.renewed, Credential.load(path).platform) == (True, platform)
    asked = [request for request in bilibili.requests if request.route in ("info", "refresh")]
    used = [request.query.get("appkey") or request.body.decode().partition("appkey=")[2].partition("&")[0]
            for request in asked]
    assert [text.removeprefix("appkey&appkey=") for text in used] == [*keys, *used[len(keys):]]
    assert asked[-1].status == 200
    assert len(asked) == 2 * len(keys)


def test_tokens_that_bilibili_does_not_take_need_a_person(bilibili, settings, path):
    bilibili.refuse("refresh", -101)
    with pytest.raises(NeedsPerson, match="does not take these tokens"):
        renew(member_of(settings, path), lambda new: new.save(path))


def test_dead_cookies_under_a_living_token_are_renewed(bilibili, settings, path):
    bilibili.refuse("nav", -101)
    kept = keep_alive(settings(), path)
    assert (kept.renewed, kept.health.cookies_valid) == (True, False)
    assert member_of(settings, path).whoami() == "主播10001"


# -- the web's cookies ----------------------------------------------------------------------------------------------

def test_cookies_are_renewed_as_the_page_does_it_and_the_old_ones_end(bilibili, settings, web_path):
    old = Credential.load(web_path)
    replace(old, cookies=(*old.cookies, ("buvid3", "device"))).save(web_path)
    bilibili.ask_for_refresh()
    kept = keep_alive(settings(submit="web"), web_path)
    new = Credential.load(web_path)
    assert (kept.renewed, kept.credential) == (True, new)
    assert new.web_refresh_token not in ("", old.web_refresh_token)
    assert dict(new.cookies)["buvid3"] == "device"
    assert routes(bilibili)[-6:] == ["nav", "web_info", "web_info", "correspond", "web_refresh", "web_confirm"]
    assert state(Member(settings(submit="web"), new)).cookies_valid
    assert not state(Member(settings(submit="web"), old)).cookies_valid
    assert keep_alive(settings(submit="web"), web_path, force=True).renewed, "and again"


def test_the_new_cookies_are_on_the_disk_before_the_old_ones_end(bilibili, settings, web_path):
    old, written = Credential.load(web_path), []

    def save(new):
        assert state(Member(settings(), old)).cookies_valid
        assert "web_confirm" not in routes(bilibili)
        written.append(new)
        raise TemporaryError("disk full")

    with pytest.raises(TemporaryError, match="disk full"):
        renew(member_of(settings, web_path), save)
    assert len(written) == 1
    assert state(Member(settings(), old)).cookies_valid


@pytest.mark.parametrize("lost", ["web_info", "web_refresh"])
def test_a_lost_answer_costs_the_web_login_nothing(bilibili, settings, web_path, lost):
    before = web_path.read_bytes()
    bilibili.lose_answer(lost)
    with pytest.raises(TemporaryError):
        renew(member_of(settings, web_path), lambda new: new.save(web_path))
    assert web_path.read_bytes() == before
    assert keep_alive(settings(submit="web"), web_path, force=True).renewed


def test_a_confirmation_that_gets_lost_is_said_and_the_new_login_stays(bilibili, settings, web_path):
    lines = []
    sink = logger.add(lines.append, level="WARNING")
    bilibili.fail("web_confirm", 502)
    kept = keep_alive(settings(submit="web"), web_path, force=True)
    logger.remove(sink)
    assert (kept.renewed, len(lines)) == (True, 1)
    assert "end of the old login" in lines[0]
    assert state(member_of(settings, web_path)).cookies_valid


def test_a_refresh_token_that_is_not_taken_needs_a_person(bilibili, settings, web_path):
    replace(Credential.load(web_path), web_refresh_token="x" * 32).save(web_path)
    with pytest.raises(NeedsPerson, match="refresh token"):
        keep_alive(settings(submit="web"), web_path, force=True)


def test_another_key_than_the_sites_is_temporary_and_says_what_may_be_wrong(bilibili, settings, web_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(TemporaryError, match="HTTP 404") as caught:
        keep_alive(settings(submit="web"), web_path, force=True)
    assert "clock" in caught.value.hint


def test_the_web_site_is_beside_the_passport():
    assert www(PublishConfig()) == "https://www.bilibili.com"
    assert www(PublishConfig(passport_url="http://127.0.0.1:8")) == "http://127.0.0.1:8"


def test_cookies_get_tokens_when_the_settings_need_them(bilibili, settings, web_path):
    kept = keep_alive(settings(submit="app"), web_path)
    assert (kept.renewed, bool(Credential.load(web_path).access_token)) == (True, True)
    assert not keep_alive(settings(submit="app"), web_path).renewed


# -- the file -------------------------------------------------------------------------------------------------------

def test_a_login_that_nothing_can_renew_is_left_alone_and_says_so_when_forced(settings, path):
    old = Credential.load(path)
    bare = replace(old, access_token="", refresh_token="")
    bare.save(path)
    assert not renewable(bare)
    assert not keep_alive(settings(submit="web"), path).renewed
    with pytest.raises(NeedsPerson, match="nothing to renew it with"):
        keep_alive(settings(submit="web"), path, force=True)


def test_dead_cookies_that_nothing_can_renew_need_a_person(bilibili, settings, path):
    replace(Credential.load(path), refresh_token="").save(path)
    bilibili.refuse("nav", -101)
    with pytest.raises(NeedsPerson, match="does not know this login"):
        keep_alive(settings(), path)


def test_a_login_that_was_made_meanwhile_is_not_overwritten(bilibili, settings, path):
    with locked(path):
        with pytest.raises(TemporaryError, match="another program"):
            keep_alive(settings(), path, force=True)
        assert bilibili.requests == []
        thread = threading.Thread(target=lambda: keep_alive(settings(), path, force=True, wait=True))
        thread.start()
        bilibili.write_cookies(path, uid=7)
    thread.join(10)
    assert Credential.load(path).mid == 7
    assert member_of(settings, path).whoami() == "主播7"


def test_nothing_secret_is_said_while_it_is_renewed(bilibili, settings, path, web_path):
    lines = []
    sink = logger.add(lines.append, level="TRACE")
    secrets = set()
    for file, publish in ((path, settings()), (web_path, settings(submit="web"))):
        secrets |= {*Credential.load(file).secrets}
        for route in ("info", "refresh", "web_info", "web_refresh", "web_confirm", "nav"):
            for code in (-400, -101, -500):
                bilibili.refuse(route, code, message=" ".join(Credential.load(file).secrets))
                try:
                    keep_alive(publish, file, force=True)
                except (TemporaryError, PermanentError) as error:
                    lines += [str(error), error.hint]
                bilibili.heal()
                secrets |= {*Credential.load(file).secrets}
    logger.remove(sink)
    assert len(lines) > 10
    assert not [line for line in lines for secret in secrets if secret in line]

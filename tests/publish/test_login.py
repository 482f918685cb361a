"""Every way to become somebody at Bilibili, against the stand-in over HTTP."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from loguru import logger

from biliupd.errors import NeedsPerson, PermanentError, TemporaryError
from biliupd.publish import login
from biliupd.publish.credential import Credential
from biliupd.publish.login import (
    Captcha,
    CaptchaDemanded,
    Expired,
    Rejected,
    TvQr,
    WebQr,
    exchange_for_token,
    from_cookies,
    parse_cookies,
    password_login,
    send_code,
)
from biliupd.publish.member import Member

PHONE = "13800138000"
NAME, PASSWORD = "streamer", "correct horse 电池"


@pytest.fixture
def logins(bilibili):
    return bilibili.accounts.logins


@pytest.fixture
def log():
    lines: list[str] = []
    sink = logger.add(lines.append, level="TRACE")
    yield lines
    logger.remove(sink)


def named(settings, credential):
    """Who that login is, by the cookies and, when there are tokens, by these."""
    return Member(settings(submit="app" if credential.access_token else "web"), credential).whoami()


def routes(bilibili):
    return [request.route for request in bilibili.requests]


# -- QR codes -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [TvQr, WebQr])
def test_a_qr_code_is_a_login_once_it_is_confirmed(bilibili, settings, logins, kind):
    code = kind(settings())
    assert code.url.startswith(bilibili.url)
    assert timedelta(seconds=170) < code.expires_at - datetime.now(UTC) <= timedelta(seconds=180)
    assert code.poll() is None
    logins.scan()
    assert code.poll() is None, "scanned, not confirmed"
    bilibili.confirm_login(uid=7)
    found = code.poll()
    assert (found.mid, named(settings, found)) == (7, "主播7")
    assert found.expires_at - datetime.now(UTC) > timedelta(days=179)


def test_a_television_gets_tokens_and_a_browser_something_to_renew_its_cookies_with(bilibili, settings):
    tv, web = TvQr(settings()), WebQr(settings())
    bilibili.confirm_login()
    web = web.poll()
    bilibili.confirm_login()
    tv = tv.poll()
    assert (bool(tv.access_token), bool(tv.refresh_token), tv.web_refresh_token, tv.platform) == (
        True, True, "", "BiliTV")
    assert (web.access_token, web.refresh_token, len(web.web_refresh_token), web.platform) == ("", "", 32, None)
    assert {name for name, _ in tv.cookies} == {name for name, _ in web.cookies} == {
        "SESSDATA", "bili_jct", "DedeUserID", "DedeUserID__ckMd5", "sid"}
    assert dict(web.cookie_ends).keys() == dict(tv.cookie_ends).keys()


def test_the_cookies_of_the_web_may_come_in_the_address_alone(bilibili, settings):
    code = WebQr(settings())
    query = "DedeUserID=42&SESSDATA=0a%2C1900000000%2C0b%2A1&bili_jct=c5f7&gourl=https%3A%2F%2Fa.invalid&Expires=1"
    data = {"code": 0, "url": f"https://a.invalid/crossDomain?{query}", "refresh_token": "r", "timestamp": 1}
    bilibili.fail("web_poll", 200, json.dumps({"code": 0, "message": "0", "data": data}).encode())
    found = code.poll()
    assert found.cookies == (("SESSDATA", "0a%2C1900000000%2C0b%2A1"), ("bili_jct", "c5f7"), ("DedeUserID", "42"))
    assert found.expires_at == datetime.fromtimestamp(1_900_000_000, UTC)


@pytest.mark.parametrize("kind", [TvQr, WebQr])
def test_a_qr_code_that_is_too_old_says_so(settings, logins, kind):
    code = kind(settings())
    logins.qr_seconds = 0
    with pytest.raises(Expired, match="expired"):
        code.poll()


@pytest.mark.parametrize(("kind", "route"), [(TvQr, "poll"), (WebQr, "web_poll")])
def test_a_poll_without_an_answer_can_be_repeated(bilibili, settings, kind, route):
    code = kind(settings())
    bilibili.fail(route, 502)
    with pytest.raises(TemporaryError):
        code.poll()
    bilibili.confirm_login()
    assert named(settings, code.poll()) == "主播10001"


def test_a_television_whose_login_got_lost_on_the_way_is_told_to_start_again(bilibili, settings):
    code = TvQr(settings())
    bilibili.confirm_login()
    bilibili.lose_answer("poll")
    with pytest.raises(TemporaryError):
        code.poll()
    with pytest.raises(Expired):
        code.poll()


@pytest.mark.parametrize("content", [{}, {"auth_code": 5}, {"auth_code": "a"}, {"auth_code": "a", "url": ""}, None, []])
def test_an_answer_without_a_qr_code_is_temporary(bilibili, settings, content):
    bilibili.fail("auth_code", 200, json.dumps({"code": 0, "message": "0", "data": content}).encode())
    with pytest.raises(TemporaryError, match="lacks"):
        TvQr(settings())


def test_without_bilibili_there_is_no_qr_code_and_the_address_is_not_told(settings):
    with pytest.raises(TemporaryError, match="QR code") as caught:
        TvQr(settings(passport_url="http://127.0.0.1:9"))
    assert "sign=" not in str(caught.value)


# -- SMS ----------------------------------------------------------------------------------------------------------

def test_a_code_of_an_sms_is_a_login(bilibili, settings, logins):
    logins.phones[PHONE] = 9
    sms = send_code(settings(), PHONE)
    assert sms.captcha_needed is None
    found = sms.confirm(logins.sms_code(PHONE))
    assert (found.platform, found.mid, named(settings, found)) == ("Android", 9, "主播9")


def test_a_wrong_code_may_be_typed_again(settings, logins):
    sms = send_code(settings(), PHONE)
    with pytest.raises(Rejected, match="1006"):
        sms.confirm("nonsense")
    assert sms.confirm(logins.sms_code(PHONE)).access_token


def test_a_code_is_good_for_some_minutes(settings, logins):
    sms = send_code(settings(), PHONE)
    logins.sms_seconds = 0
    with pytest.raises(Expired, match="1007"):
        sms.confirm(logins.sms_code(PHONE))


def test_codes_are_sent_neither_too_soon_nor_too_often(settings, logins):
    send_code(settings(), PHONE)
    with pytest.raises(TemporaryError, match="1003") as caught:
        send_code(settings(), PHONE)
    assert caught.value.retry_after_seconds == 60
    logins.sms_pause_seconds = logins.sms_a_day = 0
    with pytest.raises(TemporaryError, match="86203") as caught:
        send_code(settings(), PHONE)
    assert caught.value.retry_after_seconds == 86400


@pytest.mark.parametrize(("phone", "country", "asked"), [
    ("1380013800", 86, True), ("123", 86, False), ("", 86, False), ("1380013800x", 86, False),
    ("١٣٨٠٠١٣٨٠٠٠", 86, False), ("1234", 1, True)])  # fmt: skip
def test_what_is_no_phone_number_is_rejected(bilibili, settings, phone, country, asked):
    with pytest.raises(Rejected):
        send_code(settings(), phone, country)
    assert routes(bilibili) == ["sms_send"] * asked


def test_phones_are_of_any_country(settings, logins):
    assert send_code(settings(), "612345678", country=33).confirm(logins.sms_code("612345678")).mid == 10001


def test_a_captcha_comes_before_the_sms_and_goes_with_it(settings, logins):
    logins.captcha_demanded = True
    sms = send_code(settings(), PHONE)
    puzzle = sms.captcha_needed
    assert (puzzle.challenge, puzzle.token) == logins.puzzle
    assert (puzzle.gt, urlsplit(puzzle.url).path) == ("9a5d2c1f", "/h5/project-msg-auth/verify")
    with pytest.raises(CaptchaDemanded, match="2406"):
        send_code(settings(), PHONE, captcha=Captcha(puzzle.challenge, "wrong", token=puzzle.token))
    puzzle = send_code(settings(), PHONE).captcha_needed
    sms = send_code(settings(), PHONE, captcha=Captcha(puzzle.challenge, "solved", token=puzzle.token))
    assert sms.captcha_needed is None
    assert sms.confirm(logins.sms_code(PHONE)).mid == 10001


# -- password -----------------------------------------------------------------------------------------------------

def test_a_password_is_a_login_and_never_travels_in_the_clear(bilibili, settings):
    found = password_login(settings(), NAME, PASSWORD)
    assert (found.platform, named(settings, found)) == ("Android", "主播10001")
    assert not any(b"horse" in request.body for request in bilibili.requests)


def test_a_wrong_password_is_rejected(settings):
    for user, password in ((NAME, "wrong"), ("nobody", PASSWORD), (NAME, "x" * 500), ("", PASSWORD)):
        with pytest.raises(Rejected):
            password_login(settings(), user, password)


def test_a_slow_network_costs_another_try_and_not_more(bilibili, settings, logins):
    bilibili.refuse("password", -662)
    assert password_login(settings(), NAME, PASSWORD).mid == 10001
    assert routes(bilibili) == ["key", "password"] * 2
    logins.hash_seconds = -1
    with pytest.raises(TemporaryError, match="-662"):
        password_login(settings(), NAME, PASSWORD)
    assert routes(bilibili) == ["key", "password"] * 4


def test_a_captcha_of_the_password_is_solved_by_the_person(settings, logins):
    logins.captcha_demanded = True
    with pytest.raises(CaptchaDemanded, match="-105") as caught:
        password_login(settings(), NAME, PASSWORD)
    puzzle = caught.value.puzzle
    assert puzzle.url in caught.value.hint
    assert password_login(settings(), NAME, PASSWORD, Captcha(puzzle.challenge, "solved")).mid == 10001


def test_a_verification_names_the_address_to_open(bilibili, settings, logins):
    logins.verification_demanded = True
    with pytest.raises(NeedsPerson) as caught:
        password_login(settings(), NAME, PASSWORD)
    assert f"open {bilibili.url}/verify?tmp_token=" in caught.value.hint
    bilibili.refuse("password", -2001, content={"url": "https://a.invalid/prove"})
    with pytest.raises(NeedsPerson) as caught:
        password_login(settings(), NAME, PASSWORD)
    assert "https://a.invalid/prove" in caught.value.hint


@pytest.mark.parametrize(("code", "kind"), [
    (86066, NeedsPerson), (86000, TemporaryError), (-653, Rejected), (-400, PermanentError), (-352, NeedsPerson),
    (-101, NeedsPerson), (2400, CaptchaDemanded), (-500, TemporaryError), (424242, PermanentError)])
def test_what_a_refusal_means(bilibili, settings, code, kind):
    bilibili.refuse("password", code)
    with pytest.raises(kind) as caught:
        password_login(settings(), NAME, PASSWORD)
    assert type(caught.value) is kind or code == -352
    assert str(code) in str(caught.value)


@pytest.mark.parametrize("key", ["", "no key", None, 5, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_a_key_that_is_none_is_temporary(bilibili, settings, key):
    answer = {"code": 0, "message": "0", "data": {"hash": "h" * 16, "key": key}}
    bilibili.fail("key", 200, json.dumps(answer).encode())
    with pytest.raises(TemporaryError):
        password_login(settings(), NAME, PASSWORD)


# -- cookies ------------------------------------------------------------------------------------------------------

SESSDATA, CSRF = "0a1b2c3d%2C1900000000%2C4e5f6%2A71", "c5f70123456789ab"
PLAIN = (("SESSDATA", SESSDATA), ("bili_jct", CSRF), ("DedeUserID", "42"))
LISTED = [{"name": name, "value": text, "domain": ".bilibili.com", "path": "/", "expirationDate": 1.9e9}
          for name, text in PLAIN]
FOREIGN = {"name": "SESSDATA", "value": "foreign", "domain": ".notbilibili.com"}
NETSCAPE = "# Netscape HTTP Cookie File\n\n" + "".join(
    f"{prefix}.bilibili.com\tTRUE\t/\tFALSE\t1900000000\t{name}\t{text}\n"
    for prefix, (name, text) in zip(("#HttpOnly_", "", ""), PLAIN, strict=True)
) + ".a.invalid\tTRUE\t/\tFALSE\t0\tSESSDATA\tforeign\n"


@pytest.mark.parametrize("text", [
    f"SESSDATA={SESSDATA}; bili_jct={CSRF}; DedeUserID=42",
    f"Cookie: a=b; DedeUserID=42; bili_jct={CSRF};SESSDATA={SESSDATA};",
    f"\ufeff  SESSDATA={SESSDATA}\r\nbili_jct={CSRF}\nDedeUserID=42\n\n",
    f'SESSDATA="{SESSDATA}";bili_jct={CSRF};DedeUserID=42',
    f"SESSDATA=0a1b2c3d,1900000000,4e5f6*71; bili_jct={CSRF}; DedeUserID=42; 秘密=秘密",
    json.dumps(LISTED), json.dumps([*LISTED, FOREIGN, 5, {"name": 5}]), json.dumps({"url": "x", "cookies": LISTED}),
    json.dumps(dict(PLAIN)), json.dumps({"cookies": dict(PLAIN)}), NETSCAPE, NETSCAPE.replace("\n", "\r\n"),
], ids=["header", "with a name", "lines", "quoted", "decoded", "extension", "whole browser", "extension with address",
        "mapping", "mapping inside", "netscape", "netscape of Windows"])  # fmt: skip
def test_cookies_come_in_many_forms(text):
    found = parse_cookies(text)
    assert found.cookies == PLAIN
    assert (found.mid, found.access_token) == (42, "")
    assert found.expires_at == datetime.fromtimestamp(1_900_000_000, UTC)


def test_the_files_of_biliup_old_and_new_are_taken_with_their_tokens(bilibili, tmp_path):
    new = json.loads(bilibili.write_cookies(tmp_path / "a.json").read_text())
    old = {"cookie_info": new["cookie_info"], **new["token_info"]}
    older = {"cookies": {one["name"]: one["value"] for one in new["cookie_info"]["cookies"]},
             "access_token": old["access_token"], "refresh_token": old["refresh_token"]}
    for content in (new, old, older):
        found = parse_cookies(json.dumps(content))
        assert found.mid == 10001
        assert (found.access_token, found.refresh_token) == (old["access_token"], old["refresh_token"])


def test_what_the_web_page_renews_with_is_taken_along():
    found = parse_cookies(f"SESSDATA={SESSDATA}; bili_jct={CSRF}; ac_time_value=renew0123456789; buvid3=b3")
    assert found.web_refresh_token == "renew0123456789"
    assert dict(found.cookies) == {"SESSDATA": SESSDATA, "bili_jct": CSRF, "buvid3": "b3"}


@pytest.mark.parametrize(("text", "why"), [
    ("", "SESSDATA is missing"), ("hello", "SESSDATA is missing"), (f"SESSDATA={SESSDATA}", "bili_jct is missing"),
    ("{", "not whole JSON"), ("[" * 100_000, "not whole JSON"), ("{}", "SESSDATA is missing"), ("[5]", "SESSDATA"),
    ('{"cookies": 5}', "SESSDATA is missing"), ('{"cookie_info": {}}', "not a list of names"),
    (json.dumps([FOREIGN]), "SESSDATA is missing"), ("SESSDATA=geheim秘; bili_jct=geheim", "characters"),
    ("\t\t\t\t\t\t\t", "SESSDATA is missing")])  # fmt: skip
def test_what_is_no_login_is_refused_and_not_quoted(text, why):
    with pytest.raises(PermanentError, match=why) as caught:
        parse_cookies(text)
    assert "geheim" not in str(caught.value)
    assert "SESSDATA=" in caught.value.hint


def web_login(bilibili, settings):
    code = WebQr(settings())
    bilibili.confirm_login()
    return code.poll()


def test_cookies_are_exchanged_for_tokens_and_stay_good(bilibili, settings):
    web = web_login(bilibili, settings)
    found = exchange_for_token(settings(), web)
    assert (bool(found.access_token), found.platform, found.web_refresh_token) == (True, "BiliTV", "")
    assert (named(settings, found), named(settings, web)) == ("主播10001", "主播10001")
    confirm = next(request for request in bilibili.requests if request.route == "confirm")
    assert confirm.headers["user-agent"].rpartition(" ")[2].startswith("BiliApp/")
    assert b"scanning_type=3" in confirm.body


def test_cookies_without_tokens_are_a_login_all_the_same_and_the_log_says_so(bilibili, settings, log):
    web = web_login(bilibili, settings)
    for route in ("auth_code", "confirm", "poll"):
        bilibili.refuse(route, -400)
        found = from_cookies(settings(), web.cookie_header)
        assert (found.access_token, found.csrf) == ("", web.csrf)
        assert "can submit by web only" in log[-1]
    assert from_cookies(settings(), web.cookie_header).access_token
    assert not any(secret in line for line in log for secret in web.secrets)


def test_dead_cookies_get_no_tokens(bilibili, settings):
    web = web_login(bilibili, settings)
    bilibili.expire_login()
    with pytest.raises(NeedsPerson, match="-101"):
        exchange_for_token(settings(), web)


# -- secrets, and the real biliup -----------------------------------------------------------------------------------

def test_nothing_secret_is_in_the_log_or_in_an_error(bilibili, settings, log):
    said = []
    steps = {"password": lambda: password_login(settings(), NAME, PASSWORD), "poll": TvQr(settings()).poll,
             "sms_login": lambda: send_code(settings(), PHONE).confirm("nonsense"),
             "web_poll": WebQr(settings()).poll, "confirm": lambda: from_cookies(settings(), cookies)}
    cookies = web_login(bilibili, settings).cookie_header
    for route, step in steps.items():
        for spoil in (lambda name: bilibili.fail(name, 502, b"<html>"), lambda name: bilibili.refuse(name, -400),
                      bilibili.lose_answer):
            spoil(route)
            try:
                step()
            except (TemporaryError, PermanentError) as error:
                said += [str(error), error.hint]
            bilibili.heal()
            bilibili.accounts.logins.sms_pause_seconds = 0
    keys = [text for request in bilibili.requests for text in request.query.values() if len(text) > 20]
    secrets = [PASSWORD, "nonsense", "sign=", *keys, *(text.partition("=")[2] for text in cookies.split("; "))]
    assert len(said) >= 20
    assert not [line for line in (*said, *log) if any(secret in line for secret in secrets if secret != "10001")]


@pytest.mark.parametrize("way", ["tv", "web", "sms"])
def test_the_real_biliup_takes_the_file(bilibili, settings, logins, biliup, tmp_path, way):
    if way == "sms":
        found = send_code(settings(), PHONE).confirm
        found = found(logins.sms_code(PHONE))
    else:
        code = TvQr(settings()) if way == "tv" else WebQr(settings())
        bilibili.confirm_login()
        found = code.poll()
        found = found if way == "tv" else exchange_for_token(settings(), found)
    path = tmp_path / "cookies.json"
    os.unlink(path)
    found.save(path)
    asked_at = time.time()
    listed = biliup("list")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    bilibili.ask_for_refresh()
    renewed = biliup("renew")
    assert renewed.returncode == 0, renewed.stdout + renewed.stderr
    after = Credential.load(path)
    assert after.access_token == bilibili.accounts.get(10001).access_token != found.access_token
    assert after.expires_at.timestamp() > asked_at + login.QR_SECONDS


@pytest.mark.parametrize("address", ["http://[x", "x" * 5000, "http://x/\x1b]0;mine\x07", "http://x/\ud800", "file:///x"])
def test_what_nobody_could_scan_or_open_is_no_qr_code(bilibili, settings, address):
    bilibili.fail("auth_code", 200, json.dumps({"code": 0, "data": {"url": address, "auth_code": "a"}}).encode())
    with pytest.raises(TemporaryError, match="has no address as url"):
        TvQr(settings())

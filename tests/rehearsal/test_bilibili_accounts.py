"""Logging in at the stand-in is as strict as at the real site: signatures, codes, secrets that end."""

import base64
import hashlib
import time
from urllib.parse import urlencode

import pytest
import requests
from bilibili_client import TV
from Crypto.Cipher import PKCS1_OAEP, PKCS1_v1_5
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA

from biliupd.rehearsal.bilibili import Bilibili
from biliupd.rehearsal.bilibili_accounts import APP_SECRETS
from biliupd.rehearsal.bilibili_envelope import signed

ANDROID = "783bbb7264451d82"
PHONE = "13800138000"
LOGIN, TV_LOGIN = "/x/passport-login", "/x/passport-tv-login"


class WholeSite(Bilibili):
    """The stand-in with the pages of www.bilibili.com, too."""

    def _find(self, incoming):
        return self.accounts.find(incoming) or super()._find(incoming)


@pytest.fixture
def server(tmp_path):
    server = WholeSite(tmp_path / "bilibili")
    server.start()
    yield server
    server.close()


@pytest.fixture
def logins(server):
    return server.accounts.logins


@pytest.fixture
def post(server):
    """Signed as an app signs it; without a cookie."""

    def post(path, appkey=ANDROID, **fields):
        given = dict(sorted({"actionKey": "appkey", "appkey": appkey, "ts": str(int(time.time())), **fields}.items()))
        given["sign"] = hashlib.md5((urlencode(given) + APP_SECRETS[appkey]).encode()).hexdigest()
        return requests.post(server.url + path, data=given, timeout=5).json()

    return post


def cookies_of(response):
    return {line.partition("=")[0]: line.partition("=")[2].partition(";")[0]
            for line in response.raw.headers.getlist("Set-Cookie")}


def header(cookies):
    return {"Cookie": "; ".join(f"{name}={text}" for name, text in cookies.items())}


def nav(server, cookies):
    return requests.get(f"{server.url}/x/web-interface/nav", headers=header(cookies), timeout=5).json()["code"]


@pytest.mark.parametrize("path", [
    f"{TV_LOGIN}/qrcode/auth_code", f"{TV_LOGIN}/qrcode/poll", f"{LOGIN}/sms/send", f"{LOGIN}/login/sms",
    f"{LOGIN}/oauth2/login", f"{LOGIN}/oauth2/refresh_token"])
def test_every_call_of_an_app_is_signed(server, path):
    fields = {"appkey": ANDROID, "ts": str(int(time.time())), "tel": PHONE, "cid": "86", "actionKey": "appkey"}
    for sign in ({}, {"sign": "0" * 32}):
        assert requests.post(server.url + path, data={**fields, **sign}, timeout=5).json()["code"] == -3


@pytest.mark.parametrize("path", [f"{LOGIN}/sms/send", f"{LOGIN}/login/sms", f"{LOGIN}/oauth2/login"])
def test_sms_and_password_are_for_the_android_app(post, path):
    assert post(path, appkey=TV, tel=PHONE, cid="86")["code"] == -3


def test_the_published_example_of_a_signature_is_believed():
    text = urlencode({"appkey": "1d8b6e7d45233436", "id": "1", "str": "いいよ，こいよ", "ts": str(int(time.time()))})
    sign = hashlib.md5((text + "560c52ccd288fed045859ed18bffd973").encode()).hexdigest()
    assert signed(f"{text}&sign={sign}")["str"] == "いいよ，こいよ"


def test_a_qr_code_of_the_television_goes_through_its_states(server, post, logins):
    made = post(f"{TV_LOGIN}/qrcode/auth_code", appkey=TV, local_id="0")["data"]

    def poll(code=made["auth_code"]):
        return post(f"{TV_LOGIN}/qrcode/poll", appkey=TV, auth_code=code, local_id="0")["code"]

    assert poll() == 86039
    logins.scan()
    assert poll() == 86090
    server.confirm_login()
    assert (poll(), poll(), poll("unknown")) == (0, -404, -404)
    logins.qr_seconds = 0
    made = post(f"{TV_LOGIN}/qrcode/auth_code", appkey=TV, local_id="0")["data"]
    assert poll(made["auth_code"]) == 86038


def test_a_qr_code_of_the_web_goes_through_its_states_and_sets_cookies(server, logins):
    made = requests.get(f"{server.url}{LOGIN}/web/qrcode/generate", timeout=5).json()["data"]
    assert len(made["qrcode_key"]) == 32

    def poll():
        query = {"qrcode_key": made["qrcode_key"]}
        return requests.get(f"{server.url}{LOGIN}/web/qrcode/poll", params=query, timeout=5)

    assert poll().json()["data"]["code"] == 86101
    logins.scan()
    assert poll().json()["data"]["code"] == 86090
    server.confirm_login(uid=7)
    done = poll()
    cookies, data = cookies_of(done), done.json()["data"]
    assert set(cookies) == {"SESSDATA", "bili_jct", "DedeUserID", "DedeUserID__ckMd5", "sid"}
    assert (data["code"], len(data["refresh_token"]), cookies["DedeUserID"]) == (0, 32, "7")
    assert f"SESSDATA={cookies['SESSDATA']}&" in data["url"], "as they are, not encoded twice"
    assert nav(server, cookies) == 0
    assert poll().json()["code"] == -404
    logins.qr_seconds = 0
    made = requests.get(f"{server.url}{LOGIN}/web/qrcode/generate", timeout=5).json()["data"]
    assert poll().json()["data"]["code"] == 86038


def test_a_login_more_leaves_the_others_alone(server, client, post):
    made = post(f"{TV_LOGIN}/qrcode/auth_code", appkey=TV, local_id="0")["data"]
    server.confirm_login()
    new = post(f"{TV_LOGIN}/qrcode/poll", appkey=TV, auth_code=made["auth_code"])["data"]
    cookies = {one["name"]: one["value"] for one in new["cookie_info"]["cookies"]}
    assert cookies["SESSDATA"] != client.cookies["SESSDATA"]
    assert (nav(server, cookies), nav(server, client.cookies)) == (0, 0)
    mixed = requests.get(f"{server.url}{LOGIN}/web/cookie/info", params={"csrf": client.csrf}, headers=header(cookies),
                         timeout=5)
    assert mixed.json()["code"] == -111, "each login has its own csrf"
    server.expire_login()
    assert (nav(server, cookies), nav(server, client.cookies)) == (-101, -101)


def test_cookies_confirm_a_television_with_their_csrf_only(server, client, post):
    made = post(f"{TV_LOGIN}/qrcode/auth_code", appkey=TV, local_id="0")["data"]
    confirm = f"{TV_LOGIN}/h5/qrcode/confirm"
    form = {"auth_code": made["auth_code"], "csrf": client.csrf, "scanning_type": "3"}
    assert client.post(confirm, data=form | {"csrf": "x"}).json()["code"] == -111
    assert client.post(confirm, data=form, headers={}).json()["code"] == -101
    assert client.post(confirm, data=form | {"auth_code": "unknown"}).json()["code"] == -404
    assert client.post(confirm, data=form).json()["code"] == 0
    assert post(f"{TV_LOGIN}/qrcode/poll", appkey=TV, auth_code=made["auth_code"])["data"]["mid"] == 10001


def test_logins_end_when_their_time_is_over(server, tmp_path):
    server.accounts.token_seconds = 0
    server.write_cookies(tmp_path / "c.json", uid=5)
    account = server.accounts.get(5)
    assert nav(server, {"SESSDATA": account.sessdata}) == -101
    server.accounts.token_seconds = 60
    server.write_cookies(tmp_path / "c.json", uid=5)
    assert nav(server, {"SESSDATA": account.sessdata}) == 0
    assert 58 <= account.login_info()["expires_in"] <= 60


# -- SMS and password -------------------------------------------------------------------------------------------------

def test_an_sms_is_sent_once_a_minute_and_its_code_counts_once(post, logins):
    send = f"{LOGIN}/sms/send"
    assert [post(send, tel=tel, cid="86")["code"] for tel in ("1380013800", "1380013800x", "")] == [1002] * 3
    key = post(send, tel=PHONE, cid="86")["data"]["captcha_key"]
    assert post(send, tel=PHONE, cid="86")["code"] == 1003

    def enter(code, tel=PHONE, captcha_key=key):
        return post(f"{LOGIN}/login/sms", tel=tel, cid="86", captcha_key=captcha_key, code=code)["code"]

    code = logins.sms_code(PHONE)
    assert (enter(f"{(int(code) + 1) % 10**6:06}"), enter(code, tel="13900139000"), enter(code, captcha_key="x")) == (
        1006, -400, -400)
    assert (enter(code), enter(code)) == (0, 1007)
    logins.sms_pause_seconds, logins.sms_a_day = 0, 1
    assert post(send, tel=PHONE, cid="86")["code"] == 86203


def test_a_puzzle_is_good_once_and_only_when_solved(post, logins):
    logins.captcha_demanded = True
    logins.sms_pause_seconds = 0

    def send(**changes):
        challenge, token = logins.puzzle
        solved = {"gee_challenge": challenge, "gee_validate": "solved", "gee_seccode": "solved|jordan",
                  "recaptcha_token": token}
        return post(f"{LOGIN}/sms/send", tel=PHONE, cid="86", **{**solved, **changes})

    for spoiled in ({"gee_validate": "x"}, {"gee_seccode": "solved"}, {"recaptcha_token": "x"}, {"gee_challenge": "x"}):
        asked = post(f"{LOGIN}/sms/send", tel=PHONE, cid="86")["data"]
        assert (asked["captcha_key"], "gee_challenge=" in asked["recaptcha_url"]) == ("", True)
        assert send(**spoiled)["code"] == 2406
    post(f"{LOGIN}/sms/send", tel=PHONE, cid="86")
    solved = logins.puzzle
    assert send()["data"]["captcha_key"]
    assert send(gee_challenge=solved[0], recaptcha_token=solved[1])["code"] == 2406


@pytest.fixture
def enter(server, post):
    """Log in by password, with something spoiled."""

    def enter(password="correct horse 电池", username="streamer", made=None, **fields):
        given = requests.get(f"{server.url}{LOGIN}/web/key", timeout=5).json()["data"]
        text = ((made or given["hash"]) + password).encode()
        sealed = base64.b64encode(PKCS1_v1_5.new(RSA.import_key(given["key"])).encrypt(text)).decode()
        return post(f"{LOGIN}/oauth2/login", username=username, **{"password": sealed, **fields})

    return enter


def test_a_password_is_decrypted_and_compared(enter):
    assert enter()["data"]["token_info"]["mid"] == 10001
    assert [enter("wrong")["code"], enter(username="nobody")["code"], enter(username="")["code"]] == [-629, -629, -653]
    assert enter(password="x" * 16)["code"] == -629
    assert enter("")["code"] == -629


def test_a_password_without_padding_is_taken_and_what_cannot_be_decrypted_is_not(server, enter, post):
    given = requests.get(f"{server.url}{LOGIN}/web/key", timeout=5).json()["data"]
    text = (given["hash"] + "correct horse 电池").encode()
    sealed = base64.b64encode(PKCS1_v1_5.new(RSA.import_key(given["key"])).encrypt(text)).decode().rstrip("=")
    assert post(f"{LOGIN}/oauth2/login", username="streamer", password=sealed)["code"] == 0
    for nonsense in ("AAAA", base64.b64encode(bytes(128)).decode(), "!"):
        assert post(f"{LOGIN}/oauth2/login", username="streamer", password=nonsense)["code"] == 86000


def test_a_hash_counts_once_and_for_twenty_seconds(enter, logins, server):
    made = requests.get(f"{server.url}{LOGIN}/web/key", timeout=5).json()["data"]["hash"]
    assert [enter(made=made)["code"], enter(made=made)["code"], enter(made="0" * 16)["code"]] == [0, -662, -662]
    assert logins.hash_seconds == 20
    logins.hash_seconds = -1
    assert enter()["code"] == -662


def test_a_password_may_not_be_enough(enter, logins):
    logins.captcha_demanded = True
    assert "gee_challenge=" in enter()["data"]["url"]
    assert enter()["code"] == -105
    solved = {"challenge": logins.puzzle[0], "validate": "solved", "seccode": "solved|jordan"}
    assert enter(**solved)["code"] == 0
    logins.captcha_demanded, logins.verification_demanded = False, True
    found = enter()
    assert (found["code"], found["data"]["cookie_info"], "/verify?" in found["data"]["url"]) == (0, None, True)


# -- renewing cookies -------------------------------------------------------------------------------------------------

@pytest.fixture
def page(server, client):
    """The page with the word to renew with, as a browser of that login gets it, for a moment in milliseconds."""

    def page(moment=None):
        moment = int(time.time() * 1000) if moment is None else moment
        key = RSA.import_key(server.accounts.correspond_key)
        sealed = PKCS1_OAEP.new(key, SHA256).encrypt(f"refresh_{moment}".encode()).hex()
        return requests.get(f"{server.url}/correspond/1/{sealed}", headers=client.header, timeout=5)

    return page


def word(page):
    return page.text.partition('<div id="1-name">')[2].partition("</div>")[0]


def test_the_page_has_a_word_for_whoever_knows_the_key_and_the_time(server, client, page):
    assert len(word(page())) == 32
    assert page(moment=int((time.time() - 3600) * 1000)).status_code == 404
    for nonsense in ("zz", "", "00" * 128):
        assert client.get(f"/correspond/1/{nonsense}").status_code == 404
    server.expire_login()
    assert page().json()["code"] == -101


def test_cookies_are_renewed_with_the_word_and_the_token_and_end_when_the_new_ones_say_so(server, client, page):
    account = server.accounts.get(10001)
    old = account.sessions[-1]
    server.ask_for_refresh()
    info = client.get(f"{LOGIN}/web/cookie/info", params={"csrf": client.csrf}).json()["data"]
    assert (info["refresh"], abs(info["timestamp"] / 1000 - time.time()) < 60) == (True, True)
    form = {"csrf": client.csrf, "refresh_csrf": word(page()), "source": "main_web",
            "refresh_token": old.web_refresh_token}
    for spoiled in ({"refresh_csrf": "x"}, {"refresh_token": "x"}, {"source": "x"}):
        given = form | {"refresh_csrf": word(page())} | spoiled
        assert client.post(f"{LOGIN}/web/cookie/refresh", data=given).json()["code"] == 86095
    assert client.post(f"{LOGIN}/web/cookie/refresh", data=form | {"csrf": "x"}).json()["code"] == -111

    done = client.post(f"{LOGIN}/web/cookie/refresh", data=form)
    cookies = cookies_of(done)
    assert done.json()["data"]["refresh_token"] not in ("", old.web_refresh_token)
    assert (nav(server, cookies), nav(server, client.cookies)) == (0, 0)

    confirm = {"csrf": cookies["bili_jct"], "refresh_token": "x"}
    end = f"{server.url}{LOGIN}/web/confirm/refresh"
    assert requests.post(end, data=confirm, headers=header(cookies), timeout=5).json()["code"] == 86095
    confirm["refresh_token"] = old.web_refresh_token
    assert requests.post(end, data=confirm, headers=header(cookies), timeout=5).json()["code"] == 0
    assert (nav(server, cookies), nav(server, client.cookies)) == (0, -101)


def test_tokens_may_be_renewed_without_ending_the_cookies(server, client):
    server.accounts.refresh_ends_cookies = False
    answer = client.post(f"{LOGIN}/oauth2/refresh_token", data=client.signed(refresh_token=client.refresh_token)).json()
    assert answer["code"] == 0
    assert nav(server, client.cookies) == 0
    assert client.get(f"{LOGIN}/oauth2/info", params=client.signed(), headers={}).json()["code"] == -101

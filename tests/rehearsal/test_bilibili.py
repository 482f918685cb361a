"""The stand-in Bilibili is as strict as the real one: logins, lines, uploads, covers, connections."""

import base64
import hashlib
import http.client
import json
import os
import stat
from urllib.parse import urlsplit

import pytest
import requests
from bilibili_client import Client, auth, name_of, object_url

PICTURE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


def test_cookies_are_private_and_belong_to_one_account_each(server, tmp_path):
    first, second = (server.write_cookies(tmp_path / f"{uid}.json", uid=uid) for uid in (1, 2))
    assert stat.S_IMODE(os.stat(first).st_mode) == 0o600
    names = [Client(server, path).get("/x/web-interface/nav").json()["data"]["uname"] for path in (first, second)]
    assert names == ["主播1", "主播2"]


def test_whoever_is_not_logged_in_is_told_so(server, client):
    nobody = {"headers": {"Cookie": "SESSDATA=forged"}}
    for path in ("/x/web-interface/nav", "/x/space/myinfo", "/x/web/archives", "/x/vupre/web/archive/view?bvid=x"):
        assert client.get(path, **nobody).json()["code"] == -101
    assert client.get("/preupload?r=upos&name=a&profile=b", **nobody).json()["OK"] == 0
    assert client.post("/x/vu/web/add/v3?csrf=x", json={}, **nobody).json()["code"] == -101
    assert client.get("/x/client/archive/view?access_key=forged&bvid=x").json()["code"] == -101


def test_the_csrf_must_be_the_one_of_the_session(server, client):
    right = {"csrf": client.csrf}
    for query, inside in (({}, {}), ({"csrf": "x"}, {}), (right, {"csrf": "x"})):
        answer = client.post("/x/vu/web/add/v3", params=query, json=client.body("n", **inside)).json()
        assert answer["code"] == -111
    assert client.post("/x/vu/web/add/v3", params=right, json=client.body("n", **right)).json()["code"] == 21015
    assert client.post("/x/vu/web/cover/up", data={"cover": "x", "csrf": "y"}).json()["code"] == -111


@pytest.mark.parametrize(("changes", "code"), [
    ({}, 0), ({"appkey": "unknown"}, -3), ({"ts": "5"}, -3), ({"ts": "x"}, -3), ({"access_key": "forged"}, -101)])
def test_signed_calls_are_checked(server, client, changes, code):
    answer = client.get("/x/passport-login/oauth2/info", params=client.signed(**changes), headers={}).json()
    assert answer["code"] == code
    spoiled = client.signed() | {"access_key": client.token, "sign": "0" * 32}
    assert client.get("/x/passport-login/oauth2/info", params=spoiled).json()["code"] == -3


def test_a_refresh_gives_new_secrets_and_ends_the_old_ones(server, client):
    answer = client.post("/x/passport-login/oauth2/refresh_token",
                         data=client.signed(refresh_token=client.refresh_token)).json()
    assert answer["code"] == 0
    assert answer["data"]["token_info"]["access_token"] not in ("", client.token)
    assert client.get("/x/web-interface/nav").json()["code"] == -101


def test_login_by_qr_code(server, client):
    poll = "/x/passport-tv-login/qrcode/poll"
    made = client.post("/x/passport-tv-login/qrcode/auth_code", data=client.signed(local_id="0")).json()["data"]
    asked = client.signed(auth_code=made["auth_code"], local_id="0")
    assert client.post(poll, data=asked).json()["code"] == 86039
    server.confirm_login(made["auth_code"], uid=7)
    login = client.post(poll, data=asked).json()["data"]
    assert (login["mid"], login["token_info"]["mid"]) == (7, 7)
    assert {one["name"] for one in login["cookie_info"]["cookies"]} >= {"SESSDATA", "bili_jct", "DedeUserID"}
    assert client.post(poll, data=asked).json()["code"] == -404
    second = client.post("/x/passport-tv-login/qrcode/auth_code", data=client.signed(local_id="0")).json()["data"]
    assert requests.get(second["url"]).status_code == 200
    assert client.post(poll, data=client.signed(auth_code=second["auth_code"])).json()["code"] == 0


def test_the_list_of_lines_is_for_everybody_and_each_has_its_delay(server):
    server.lines = {"tx": 0, "bda2": 0.2}
    answer = requests.get(f"{server.url}/preupload?r=probe").json()
    assert [line["os"] for line in answer["lines"]] == ["upos", "upos"]
    seconds = []
    for line in answer["lines"]:
        seconds.append(requests.post("http:" + line["probe_url"], data=bytes(104857)).elapsed.total_seconds())
    assert seconds[0] < 0.2 <= seconds[1]


def test_bytes_arrive_as_they_were_in_any_order_and_twice(server, client):
    data = os.urandom(3500)
    ticket = client.preupload(len(data))
    upload_id = client.begin(ticket)
    for number in (4, 1, 3, 1, 2):
        assert client.put(ticket, upload_id, data, number).status_code == 200
    assert client.complete(ticket, upload_id, [2, 1, 4, 3]).json()["OK"] == 1
    assert client.complete(ticket, upload_id, [1, 2, 3, 4]).json()["OK"] == 1
    name = name_of(ticket)
    assert server.stored(name).read_bytes() == data
    assert server.sha256(name) == hashlib.sha256(data).hexdigest()
    assert server.part_sha256(name)[4] == hashlib.sha256(data[3000:]).hexdigest()
    assert server.chunks_seen == [4, 1, 3, 1, 2]
    assert client.put(ticket, upload_id, data, 1).status_code == 404


@pytest.mark.parametrize("changes", [
    {"partNumber": 2}, {"chunk": 1}, {"chunks": 5}, {"size": 999}, {"start": 1}, {"end": 999}, {"total": 3501},
    {"total": "x"}, {"start": ""}])
def test_a_part_with_one_wrong_figure_is_refused(server, client, changes):
    ticket = client.preupload(3500)
    assert client.put(ticket, client.begin(ticket), bytes(3500), 1, **changes).status_code == 400
    assert server.part_sha256(name_of(ticket)) == {}


def test_a_total_that_was_not_announced_must_stay_the_same(server, client):
    ticket = client.preupload(None)
    upload_id = client.begin(ticket)
    assert client.put(ticket, upload_id, bytes(2500), 1).status_code == 200
    assert client.put(ticket, upload_id, bytes(2501), 2).status_code == 400


def test_missing_parts_are_counted_at_the_end(server, client):
    ticket = client.preupload(2500)
    upload_id = client.begin(ticket)
    client.put(ticket, upload_id, bytes(2500), 1)
    for parts in (None, [1, 2, 3]):
        answer = client.complete(ticket, upload_id, parts)
        assert (answer.status_code, "PART_COUNT_ERR_GOT_1_EXPECT_3" in answer.text) == (500, True)
    client.put(ticket, upload_id, bytes(2500), 2)
    client.put(ticket, upload_id, bytes(2500), 3)
    assert client.complete(ticket, upload_id, [1, 2]).status_code == 500
    assert client.complete(ticket, upload_id).status_code == 200


def test_tickets_are_for_one_object_and_cannot_be_forged_or_old(server, client):
    ticket, other = client.preupload(2500), client.preupload(2500)
    assert ticket["auth"] != other["auth"]
    assert ticket["biz_id"] != other["biz_id"]
    for wrong in (other["auth"], "", ticket["auth"] + "0"):
        answer = requests.post(object_url(ticket), params={"uploads": ""}, headers={"X-Upos-Auth": wrong})
        assert answer.status_code == 403
    server.expire_tickets()
    answer = requests.post(object_url(ticket), params={"uploads": ""}, headers=auth(ticket))
    assert answer.status_code == 403
    assert "AUTH_TS_GT_5DAY" in answer.headers["X-Upos-Auth"]
    client.begin(client.preupload(2500))


@pytest.mark.parametrize("missing", ["r", "name", "profile"])
def test_preupload_wants_its_parameters(server, client, missing):
    assert client.preupload(5, **{missing: None})["OK"] == 0


def test_what_init_says_must_be_what_preupload_heard(server, client):
    ticket = client.preupload(2500)
    for name in ("filesize", "partsize", "biz_id"):
        answer = requests.post(object_url(ticket), params={"uploads": "", name: 7}, headers=auth(ticket))
        assert answer.status_code == 400
    assert requests.post(object_url(ticket), headers=auth(ticket)).status_code == 404


def test_a_cover_is_a_picture_and_can_be_fetched_again(server, client):
    def post(data):
        encoded = base64.b64encode(data).decode()
        form = {"cover": f"data:image/jpeg;base64,{encoded}", "csrf": client.csrf}
        return client.post("/x/vu/web/cover/up", data=form).json()

    url = post(PICTURE)["data"]["url"]
    assert requests.get(url).content == PICTURE == server.picture(url)
    assert post(b"text")["code"] == -400


def test_connections_are_kept_and_a_refused_body_does_not_spoil_the_next_request(server, client):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    connection.request("PUT", "/ugcfx2lf/nnothing.mp4?partNumber=1", bytes(300_000))
    refused = connection.getresponse()
    refused.read()
    socket = connection.sock
    connection.request("POST", "/unknown", iter([b"abc", b"de"]), {"Transfer-Encoding": "chunked"},
                       encode_chunked=True)
    unknown = connection.getresponse()
    assert (refused.status, unknown.status, json.loads(unknown.read())["code"]) == (404, 404, -404)
    connection.request("GET", "/x/frontend/finger/spi")
    assert json.loads(connection.getresponse().read())["data"]["b_3"]
    assert connection.sock is socket
    connection.close()


def test_every_request_is_in_the_log(server, client):
    client.get("/x/web-interface/nav", params={"a": "b"})
    (request,) = server.requests
    assert (request.route, request.method, request.path, request.query, request.status) == (
        "nav", "GET", "/x/web-interface/nav", {"a": "b"}, 200)
    assert request.headers["cookie"] == client.header["Cookie"]


def test_a_cover_may_come_as_multipart(server, client):
    fields = {"cover": f"data:image/jpeg;base64,{base64.b64encode(PICTURE).decode()}", "csrf": client.csrf}
    answer = client.post("/x/vu/web/cover/up", files={name: (None, text) for name, text in fields.items()},
                         params={"csrf": client.csrf}).json()
    assert server.picture(answer["data"]["url"]) == PICTURE
    wrong = client.post("/x/vu/web/cover/up", files={name: (None, text) for name, text in fields.items()},
                        params={"csrf": "x"}).json()
    assert wrong["code"] == -111


def test_a_file_without_bytes_is_complete_without_parts(server, client):
    ticket = client.preupload(0)
    assert client.complete(ticket, client.begin(ticket), []).json()["OK"] == 1
    assert server.stored(name_of(ticket)).read_bytes() == b""


def test_init_needs_neither_a_body_nor_its_length(server, client):
    ticket = client.preupload(5)
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    connection.putrequest("POST", urlsplit(object_url(ticket)).path + "?uploads&output=json")
    connection.putheader("X-Upos-Auth", ticket["auth"])
    connection.endheaders()
    assert json.loads(connection.getresponse().read())["upload_id"]
    connection.close()


def test_a_forged_ticket_writes_and_completes_nothing(server, client):
    ticket = client.preupload(5)
    upload_id = client.begin(ticket)
    forged = {**ticket, "auth": ticket["auth"].replace("uid=10001", "uid=10002")}
    assert forged["auth"] != ticket["auth"]
    assert client.put(forged, upload_id, b"12345", 1).status_code == 403
    assert client.put(ticket, "0" * 32, b"12345", 1).status_code == 404
    assert client.put(ticket, upload_id, b"12345", 1).status_code == 200
    assert client.complete(forged, upload_id).status_code == 403
    assert client.complete(ticket, "0" * 32).status_code == 404
    assert server.filenames == []


def test_a_part_without_a_length_is_refused(server, client):
    ticket = client.preupload(5)
    query = {"partNumber": 1, "uploadId": client.begin(ticket), "chunk": 0, "chunks": 1, "size": 5, "start": 0,
             "end": 5, "total": 5}
    answer = requests.put(object_url(ticket), params=query, data=iter([b"12345"]), headers=auth(ticket))
    assert answer.status_code == 411


def test_a_new_init_starts_the_object_again(server, client):
    ticket = client.preupload(5)
    old = client.begin(ticket)
    client.put(ticket, old, b"12345", 1)
    new = client.begin(ticket)
    assert client.put(ticket, old, b"12345", 1).status_code == 404
    assert client.complete(ticket, new).status_code == 500


@pytest.mark.parametrize(("changes", "length"), [({"end": 500}, 500), ({"size": 500, "end": 500}, 500), (
    {"partNumber": 5, "chunk": 4, "start": 4000, "end": 4000, "size": 0}, 0)])
def test_a_part_shorter_than_it_should_be_or_beyond_the_end_is_refused(server, client, changes, length):
    ticket = client.preupload(3500)
    query = {"partNumber": 1, "uploadId": client.begin(ticket), "chunk": 0, "chunks": 4, "size": 1000, "start": 0,
             "end": 1000, "total": 3500, **changes}
    answer = requests.put(object_url(ticket), params=query, data=bytes(length), headers=auth(ticket) | (
        {} if length else {"Content-Length": "0"}))
    assert answer.status_code == 400
    assert server.part_sha256(name_of(ticket)) == {}

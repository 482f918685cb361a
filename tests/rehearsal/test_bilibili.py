"""The stand-in Bilibili is as strict as the real one, and misbehaves only when told to."""

import base64
import hashlib
import http.client
import json
import os
import stat
import time
from urllib.parse import urlencode, urlsplit

import pytest
import requests

from biliupd.rehearsal.bilibili import Bilibili
from biliupd.rehearsal.bilibili_accounts import APP_SECRETS

TV = "4409e2ce8ffd12b8"
PICTURE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
CHUNK = 1000


class Client:
    """What a careful client sends; every test spoils one thing of it."""

    def __init__(self, server, cookies):
        content = json.loads(cookies.read_text())
        self.url = server.url
        self.cookies = {one["name"]: one["value"] for one in content["cookie_info"]["cookies"]}
        self.token = content["token_info"]["access_token"]
        self.refresh_token = content["token_info"]["refresh_token"]
        self.csrf = self.cookies["bili_jct"]
        self.header = {"Cookie": "; ".join(f"{name}={text}" for name, text in self.cookies.items())}

    def get(self, path, **options):
        return requests.get(self.url + path, **{"headers": self.header, "timeout": 5, **options})

    def post(self, path, **options):
        return requests.post(self.url + path, **{"headers": self.header, "timeout": 5, **options})

    def signed(self, **changes):
        fields = {"access_key": self.token, "appkey": TV, "ts": str(int(time.time())), **changes}
        fields = dict(sorted(fields.items()))
        return {**fields, "sign": hashlib.md5((urlencode(fields) + APP_SECRETS[TV]).encode()).hexdigest()}

    def preupload(self, size=None, **changes):
        query = {"r": "upos", "name": "a b.mp4", "profile": "ugcupos/bup", "size": size, **changes}
        return self.get("/preupload", params={name: text for name, text in query.items() if text is not None}).json()

    def begin(self, ticket):
        answer = requests.post(object_url(ticket), params={"uploads": "", "output": "json"}, headers=auth(ticket))
        assert answer.status_code == 200, answer.text
        return answer.json()["upload_id"]

    def put(self, ticket, upload_id, data, number, **changes):
        chunks, start = -(-len(data) // CHUNK), (number - 1) * CHUNK
        body = data[start:start + CHUNK]
        query = {"partNumber": number, "uploadId": upload_id, "chunk": number - 1, "chunks": chunks, "size": len(body),
                 "start": start, "end": start + len(body), "total": len(data), **changes}
        return requests.put(object_url(ticket), params=query, data=body, headers=auth(ticket))

    def complete(self, ticket, upload_id, parts=None):
        body = {} if parts is None else {"parts": [{"partNumber": number, "eTag": "etag"} for number in parts]}
        return requests.post(object_url(ticket), params={"uploadId": upload_id, "output": "json"}, json=body,
                             headers=auth(ticket))

    def upload(self, data=b"x" * 2500):
        ticket = self.preupload(len(data))
        upload_id = self.begin(ticket)
        for number in range(1, -(-len(data) // CHUNK) + 1):
            assert self.put(ticket, upload_id, data, number).text == "MULTIPART_PUT_SUCCESS"
        assert self.complete(ticket, upload_id).json()["OK"] == 1
        return name_of(ticket)

    def body(self, *filenames, **changes):
        return {"copyright": 1, "source": "", "tid": 171, "title": "标题", "tag": "直播", "desc": "", "dtime": None,
                "videos": [{"filename": name, "title": "P1", "desc": ""} for name in filenames], **changes}

    def submit(self, *filenames, **changes):
        return self.post("/x/vu/app/add", params=self.signed(), json=self.body(*filenames, **changes)).json()


def object_url(ticket):
    return f"http:{ticket['endpoint']}/{ticket['upos_uri'].removeprefix('upos://')}"


def auth(ticket):
    return {"X-Upos-Auth": ticket["auth"]}


def name_of(ticket):
    return ticket["upos_uri"].rsplit("/", 1)[1].removesuffix(".mp4")


@pytest.fixture
def server(tmp_path):
    server = Bilibili(tmp_path / "bilibili")
    server.chunk_size_bytes = CHUNK
    server.submit_interval_seconds = 0
    server.start()
    yield server
    server.close()


@pytest.fixture
def client(server, tmp_path):
    return Client(server, server.write_cookies(tmp_path / "cookies.json"))


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


@pytest.mark.parametrize(("changes", "code"), [
    ({}, 0), ({"title": ""}, 21103), ({"title": "长" * 81}, 21103), ({"title": None}, 21103), ({"tag": ""}, 21005),
    ({"tag": "a" * 21}, 21005), ({"tag": ",".join(map(str, range(13)))}, 21005), ({"copyright": 2}, -400),
    ({"copyright": 4}, -400), ({"tid": 1000}, -400), ({"tid": 1000, "human_type2": 1008}, 0), ({"dtime": 5}, -400),
    ({"desc": "d" * 2001}, -400), ({"videos": []}, -400), ({"videos": [{"filename": 5}]}, -400),
    ({"cover": "http://x/bfs/archive/none.jpg"}, -400), ({"copyright": 2, "source": "x"}, 0),
])  # fmt: skip
def test_a_submission_is_checked(server, client, changes, code):
    name = client.upload()
    assert client.submit(name, **changes)["code"] == code
    assert len(server.archives) == (code == 0)


def test_files_must_be_whole_ones_own_and_unused(server, client, tmp_path):
    other = Client(server, server.write_cookies(tmp_path / "other.json", uid=2))
    name, foreign, unfinished = client.upload(), other.upload(), name_of(client.preupload(2500))
    for filename in ("nnothing", foreign, unfinished):
        assert client.submit(filename)["code"] == 21015
    assert client.submit(name, name)["code"] == 10009
    assert client.submit(name)["code"] == 0
    assert client.submit(name, title="another")["code"] == 10009
    assert client.submit(*[f"n{number}" for number in range(101)])["code"] == 21058


def test_the_same_title_and_a_quick_second_submission_are_refused(server, client):
    server.submit_interval_seconds = 30
    assert client.submit(client.upload())["code"] == 0
    name = client.upload()
    assert client.submit(name)["code"] == 21012
    assert client.submit(name, title="another")["code"] == 21070
    server.submit_interval_seconds = 0
    assert client.submit(name, title="another")["code"] == 0


def test_a_submission_is_listed_reviewed_and_viewed(server, client, tmp_path):
    server.review_seconds = 3600
    name = client.upload()
    made = client.submit(name)["data"]

    def listed(status):
        found = client.get("/x/web/archives", params={"status": status, "pn": 1}).json()["data"]
        return [row["Archive"]["bvid"] for row in found["arc_audits"] or []], found["page"]["count"]

    assert listed("is_pubing") == ([made["bvid"]], 1)
    assert listed("pubed,not_pubed") == ([], 0)
    server.review_seconds = 0
    assert listed("pubed") == ([made["bvid"]], 1)
    server.set_state(made["bvid"], -2, "原因")
    assert listed("not_pubed") == ([made["bvid"]], 1)
    for view in (client.get("/x/vupre/web/archive/view", params={"bvid": made["bvid"]}),
                 client.get("/x/client/archive/view", params={"aid": made["aid"], "access_key": client.token})):
        found = view.json()["data"]
        assert [video["filename"] for video in found["videos"]] == [name]
        assert (found["archive"]["state"], found["archive"]["reject_reason"]) == (-2, "原因")
    other = Client(server, server.write_cookies(tmp_path / "other.json", uid=2))
    assert other.get("/x/vupre/web/archive/view", params={"bvid": made["bvid"]}).json()["code"] == 10003
    server.delay_listing(60)
    assert listed("not_pubed") == ([], 0)


def test_an_edit_replaces_everything_and_goes_to_review_again(server, client):
    first, second = client.upload(), client.upload(b"y" * 10)
    aid = client.submit(first)["data"]["aid"]
    server.review_seconds = 3600
    answer = client.post("/x/vu/web/edit", params={"csrf": client.csrf},
                         json=client.body(first, second, aid=aid, title="neu"))
    assert answer.json()["code"] == 0
    (archive,) = server.archives
    assert ([part.filename for part in archive.parts], archive.title, archive.edits) == ([first, second], "neu", 1)
    assert archive.state(3600) == -6
    gone = client.post("/x/vu/app/edit/full", params=client.signed(), json=client.body(second, aid=aid, title="ohne"))
    assert gone.json()["code"] == 0
    assert [part.filename for part in server.archives[0].parts] == [second]
    assert client.post("/x/vu/app/edit/full", params=client.signed(),
                       json=client.body(first, aid=5)).json()["code"] == -404


def test_a_cover_is_a_picture_and_can_be_fetched_again(server, client):
    def post(data):
        encoded = base64.b64encode(data).decode()
        form = {"cover": f"data:image/jpeg;base64,{encoded}", "csrf": client.csrf}
        return client.post("/x/vu/web/cover/up", data=form).json()

    url = post(PICTURE)["data"]["url"]
    assert requests.get(url).content == PICTURE == server.picture(url)
    assert post(b"text")["code"] == -400


def test_faults_happen_as_often_as_told_and_nothing_else_does(server, client):
    server.fail("nav", 503, b"busy", times=2)
    assert [client.get("/x/web-interface/nav").status_code for _ in range(3)] == [503, 503, 200]
    server.refuse("nav", -352, "风控校验失败")
    assert [client.get("/x/web-interface/nav").json()["code"] for _ in range(2)] == [-352, 0]
    server.drop("nav")
    with pytest.raises(requests.ConnectionError):
        client.get("/x/web-interface/nav")
    name = client.upload()
    server.lose_submit_answer()
    with pytest.raises(requests.ConnectionError):
        client.submit(name)
    assert len(server.archives) == 1
    with pytest.raises(ValueError, match="no route"):
        server.fail("navv", 500)


def test_a_part_is_cut_off_in_the_middle(server, client):
    ticket = client.preupload(2500)
    upload_id = client.begin(ticket)
    server.drop_connection(on_chunk=2)
    with pytest.raises(requests.ConnectionError):
        client.put(ticket, upload_id, bytes(2500), 2)
    assert server.part_sha256(name_of(ticket)) == {}
    assert client.put(ticket, upload_id, bytes(2500), 2).status_code == 200


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


def test_close_ends_what_is_under_way(server, client):
    server.stall("nav", 60)
    waiting = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    waiting.request("GET", "/x/web-interface/nav")
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 2
    waiting.close()

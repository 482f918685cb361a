"""The stand-in Bilibili misbehaves when told to, where it is told to, and nowhere else."""

import http.client
import json
import os
import socket
import ssl
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests
import trustme
from bilibili_client import CHUNK, Client, auth, name_of, object_url
from support import wait_until

from biliupd.rehearsal.bilibili import Bilibili
from biliupd.rehearsal.bilibili_faults import FOR_EVER

NAV = "/x/web-interface/nav"
DATA = os.urandom(2500)


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


def test_close_ends_what_is_under_way(server, client):
    server.stall("nav", 60)
    waiting = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    waiting.request("GET", "/x/web-interface/nav")
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 2
    waiting.close()


@pytest.mark.parametrize("status", [500, 503, 504, 429])
def test_a_part_is_refused_and_then_taken(server, client, status):
    server.fail("put", status, part=2)
    ticket = client.preupload(len(DATA))
    upload_id = client.begin(ticket)
    answers = [client.put(ticket, upload_id, DATA, number).status_code for number in (1, 2, 3, 2)]
    assert answers == [200, status, 200, 200]
    assert client.complete(ticket, upload_id).json()["OK"] == 1
    assert server.stored(name_of(ticket)).read_bytes() == DATA


def test_what_is_wrong_with_one_line_is_not_wrong_with_another(server, client):
    server.fail("put", 503, times=FOR_EVER, line="bda2")
    bad, good = (client.preupload(len(DATA), upcdn=line) for line in ("bda2", "tx"))
    sick, well = client.begin(bad), client.begin(good)
    assert [client.put(bad, sick, DATA, 1).status_code for _ in range(3)] == [503, 503, 503]
    assert client.put(good, well, DATA, 1).status_code == 200
    assert [server.objects.get(name_of(ticket)).line for ticket in (bad, good)] == ["bda2", "tx"]
    server.drop_connection(line="tx")
    with pytest.raises(requests.ConnectionError):
        client.put(good, well, DATA, 2)
    server.heal()
    assert client.put(bad, sick, DATA, 1).status_code == 200


def test_a_probe_of_one_line_can_fail(server):
    server.fail("probe", 502, times=FOR_EVER, line="tx")
    urls = {line["query"]: "http:" + line["probe_url"] for line in requests.get(
        f"{server.url}/preupload?r=probe").json()["lines"]}
    found = {query.split("upcdn=")[1].split("&")[0]: requests.post(url, data=b"0").status_code
             for query, url in urls.items()}
    assert found == {"bda2": 200, "bldsa": 200, "tx": 502, "txa": 200}


def test_endpoints_lead_to_the_same_objects_and_fail_one_by_one(server, client):
    second, third = server.add_endpoint(), server.add_endpoint()
    ticket = client.preupload(len(DATA))
    assert ticket["endpoint"] == f"//{server.address}"
    assert ticket["endpoints"] == [f"//{address}" for address in (server.address, second, third)]
    upload_id = client.begin(ticket)
    server.fail("put", 503, times=FOR_EVER, endpoint=second)
    at = {address: {**ticket, "endpoint": f"//{address}"} for address in server.endpoints}
    assert client.put(ticket, upload_id, DATA, 1).status_code == 200
    assert client.put(at[second], upload_id, DATA, 2).status_code == 503
    assert client.put(at[third], upload_id, DATA, 2).status_code == 200
    server.close_endpoint(third)
    with pytest.raises(requests.ConnectionError):
        client.put(at[third], upload_id, DATA, 3)
    server.heal("put")
    assert client.put(at[second], upload_id, DATA, 3).status_code == 200
    assert client.complete(at[second], upload_id).json()["OK"] == 1
    assert server.stored(name_of(ticket)).read_bytes() == DATA
    assert [request.host for request in server.requests if request.route == "put"] == [
        server.address, second, third, second]


def test_the_order_of_the_endpoints_and_what_preupload_advises_can_be_set(server, client):
    second = server.add_endpoint()
    server.endpoints = [second, "dead.invalid:1"]
    server.threads, server.chunk_size_bytes, server.chunk_retry_delay = 8, 1234, 0.5
    ticket = client.preupload(len(DATA))
    assert (ticket["endpoint"], ticket["endpoints"][1]) == (f"//{second}", "//dead.invalid:1")
    assert (ticket["threads"], ticket["chunk_size"], ticket["chunk_retry_delay"]) == (8, 1234, 0.5)
    assert requests.post(object_url(ticket), params={"uploads": ""}, headers=auth(ticket)).json()["OK"] == 1


def test_a_connection_to_an_endpoint_is_slow_and_others_are_not(server, client):
    second = server.add_endpoint()
    server.slow(4000, endpoint=second)
    ticket = client.preupload(len(DATA))
    upload_id = client.begin(ticket)
    quick = client.put(ticket, upload_id, DATA, 1).elapsed.total_seconds()
    slow = client.put({**ticket, "endpoint": f"//{second}"}, upload_id, DATA, 2).elapsed.total_seconds()
    assert quick < 0.2 <= CHUNK / 4000 <= slow
    server.slow(0, endpoint=second)
    assert client.put({**ticket, "endpoint": f"//{second}"}, upload_id, DATA, 2).elapsed.total_seconds() < 0.2


def test_of_two_speeds_the_one_told_last_counts(server, client):
    server.slow(500)
    server.slow(10**9, part=1)
    ticket = client.preupload(len(DATA))
    upload_id = client.begin(ticket)
    assert client.put(ticket, upload_id, DATA, 1).elapsed.total_seconds() < 1 < CHUNK / 500


def test_a_part_that_arrives_after_a_new_init_is_not_kept(server, client):
    server.slow(2000)
    ticket = client.preupload(len(DATA))
    upload_id = client.begin(ticket)
    statuses = []
    sender = threading.Thread(
        target=lambda: statuses.append(client.put(ticket, upload_id, DATA, 1).status_code))
    sender.start()
    wait_until(lambda: server.under_way == ["put"])
    client.begin(ticket)
    sender.join(10)
    assert (statuses, server.part_sha256(name_of(ticket))) == ([404], {})


def test_tickets_last_as_long_as_told(server, client):
    server.ticket_seconds = 0.2
    ticket = client.preupload(len(DATA))
    upload_id = client.begin(ticket)
    wait_until(lambda: client.put(ticket, upload_id, DATA, 1).status_code == 403, seconds=5)
    assert "AUTH_TS_GT_5DAY AUTH=" in client.put(ticket, upload_id, DATA, 1).headers["X-Upos-Auth"]
    assert client.complete(ticket, upload_id).status_code == 403


def test_complete_fails_once_or_says_that_it_is_not_ok(server, client):
    ticket = client.preupload(5)
    upload_id = client.begin(ticket)
    client.put(ticket, upload_id, b"12345", 1)
    server.fail("complete", 500, {"error": "InternalError", "http_code": 500})
    server.fail("complete", 200, {"OK": 0})
    answers = [client.complete(ticket, upload_id) for _ in range(3)]
    assert [(answer.status_code, answer.json().get("OK")) for answer in answers] == [(500, None), (200, 0), (200, 1)]


@pytest.mark.parametrize("status", [200, 403])
def test_preupload_refuses_in_its_own_envelope(server, client, status):
    server.refuse("preupload", 601, "上传过快", status=status, voucher="voucher_1")
    answer = client.get("/preupload", params={"r": "upos", "name": "a.mp4", "profile": "ugcupos/bup"})
    assert (answer.status_code, answer.json()) == (status, {
        "OK": 0, "code": 601, "message": "上传过快", "info": "上传过快", "detail": {"v_voucher": "voucher_1"}})
    assert client.preupload(5)["OK"] == 1


def test_a_demand_for_a_captcha_is_in_the_body_or_in_a_header(server, client):
    server.refuse("submit", 601, voucher="voucher_1")
    server.refuse("submit", -352, voucher_header="voucher_2")
    first, second = (client.post("/x/vu/app/add", params=client.signed(), json={}) for _ in range(2))
    assert first.json()["data"] == {"v_voucher": "voucher_1"}
    assert "x-bili-gaia-vvoucher" not in first.headers
    assert (second.json()["code"], second.headers["x-bili-gaia-vvoucher"]) == (-352, "voucher_2")


@pytest.mark.parametrize("code", [21566, 601, 137022, 21564, -101])
def test_a_submission_is_refused_without_a_trace(server, client, code):
    name = client.upload()
    server.refuse("submit", code)
    assert client.submit(name)["code"] == code
    assert server.archives == []
    assert client.submit(name)["code"] == 0


def test_risk_control_and_gateways_answer_with_pages(server, client):
    server.intercept("nav")
    server.fail("nav", 503, b"<html>busy</html>", headers={"Retry-After": "120"})
    intercepted, busy = client.get(NAV), client.get(NAV)
    assert (intercepted.status_code, intercepted.headers["Content-Type"]) == (412, "text/html")
    assert b"<html" in intercepted.content
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "120")
    name = client.upload()
    server.spoil_answer("submit", 502)
    spoiled = client.post("/x/vu/app/add", params=client.signed(), json=client.body(name))
    assert (spoiled.status_code, b"Bad Gateway" in spoiled.content, len(server.archives)) == (502, True, 1)


def test_only_one_account_is_refused(server, client, tmp_path):
    other = Client(server, server.write_cookies(tmp_path / "other.json", uid=2))
    server.refuse("nav", -352, times=FOR_EVER, uid=2)
    assert [one.get(NAV).json()["code"] for one in (client, other, client)] == [0, -352, 0]
    server.refuse("submit", 21566, times=FOR_EVER, uid=2)
    assert [one.submit(one.upload())["code"] for one in (other, client)] == [21566, 0]


def test_the_first_requests_may_go_well(server, client):
    server.fail("nav", 503, skip=2)
    assert [client.get(NAV).status_code for _ in range(4)] == [200, 200, 503, 200]


def test_a_body_that_never_ends_goes_on_until_the_client_leaves(server, client):
    server.never_end("nav", b"0123456789", pause_seconds=0)
    with client.get(NAV, stream=True) as answer:
        assert answer.status_code == 200
        blocks = answer.iter_content(1000)
        assert b"".join(next(blocks) for _ in range(300))[:15] == b"012345678901234"
    assert client.get(NAV).json()["code"] == 0


def test_a_body_that_never_ends_does_not_keep_the_server_from_closing(server, client):
    server.never_end("nav", pause_seconds=60)
    with client.get(NAV, stream=True) as answer:
        assert answer.status_code == 200
        server.close()
        with pytest.raises(requests.RequestException):
            answer.content  # noqa: B018


def test_connections_are_cut_before_anything_is_answered(server, client):
    server.cut_handshake()
    with pytest.raises(requests.ConnectionError):
        client.get(NAV)
    assert client.get(NAV).status_code == 200
    assert len(server.requests) == 1


def test_a_tls_handshake_is_cut_in_the_middle(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = Bilibili(tmp_path / "bilibili", ssl_context=context)
    server.start()
    try:
        second = server.add_endpoint()
        server.cut_handshake(times=2, endpoint=second)
        errors = []
        for _ in range(2):
            with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)) as caught:
                requests.get(f"https://{second}/x/frontend/finger/spi", verify=str(tmp_path / "ca.pem"), timeout=5)
            errors.append(caught.value)
        assert not any("CERTIFICATE_VERIFY_FAILED" in str(error) for error in errors)
        for address in (second, server.address):
            url = f"https://{address}/x/frontend/finger/spi"
            assert requests.get(url, verify=str(tmp_path / "ca.pem"), timeout=5).json()["code"] == 0
    finally:
        server.close()


def test_connections_end_when_they_are_hung_up_whether_idle_or_not(server, client):
    idle, busy = (http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5) for _ in range(2))
    idle.request("GET", "/x/frontend/finger/spi")
    idle.getresponse().read()
    server.stall("nav", 0.2)
    busy.request("GET", NAV)
    wait_until(lambda: server.under_way == ["nav"])
    server.hang_up()
    for ended in (lambda: idle.sock.recv(1), lambda: busy.sock.recv(1)):
        assert ended() == b""
    idle.close()
    busy.close()
    assert client.get(NAV).status_code == 200


def test_healing_ends_every_fault(server, client):
    second = server.add_endpoint()
    server.fail("nav", 503, times=FOR_EVER)
    server.slow(1)
    for address in (server.address, second):
        server.cut_handshake(times=FOR_EVER, endpoint=address)
    server.heal()
    assert client.get(NAV).status_code == 200
    assert requests.get(f"http://{second}/x/frontend/finger/spi").status_code == 200
    assert client.upload()


def test_lists_lag_and_logins_end(server, client, tmp_path):
    server.delay_listing(60)
    assert client.submit(client.upload())["code"] == 0
    assert client.get("/x/web/archives").json()["data"]["page"]["count"] == 0
    server.delay_listing(0)
    assert client.get("/x/web/archives").json()["data"]["page"]["count"] == 1
    other = Client(server, server.write_cookies(tmp_path / "other.json", uid=2))
    server.expire_login(10001)
    assert [one.get(NAV).json()["code"] for one in (client, other)] == [-101, 0]
    assert client.preupload(5) == {"OK": 0, "code": -101, "message": "账号未登录", "info": "not login"}
    again = Client(server, server.write_cookies(tmp_path / "again.json"))
    assert again.get(NAV).json()["code"] == 0


def test_a_token_is_to_be_refreshed_when_told_so(server, client):
    asked = client.get("/x/passport-login/oauth2/info", params=client.signed()).json()["data"]["refresh"]
    server.ask_for_refresh()
    again = client.get("/x/passport-login/oauth2/info", params=client.signed()).json()["data"]["refresh"]
    assert (asked, again) == (False, True)


def test_a_length_that_is_no_number_does_not_end_the_server(server, client):
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"POST /x/vu/app/add HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == -400
    assert client.get(NAV).status_code == 200

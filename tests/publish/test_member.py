"""What Bilibili's answers mean, and that no error tells a secret."""

import socket
import threading
import traceback

import pytest

from biliupd.errors import Cooling, NeedsPerson, PermanentError, TemporaryError
from biliupd.publish.line import Line, probe
from biliupd.publish.member import Unsent, sign
from biliupd.publish.preupload import preupload
from biliupd.publish.source import Source


def test_the_signature_of_the_published_example():
    fields = {"id": "114514", "str": "1919810", "test": "いいよ，こいよ", "appkey": "1d8b6e7d45233436"}
    assert sign(fields, "560c52ccd288fed045859ed18bffd973")["sign"] == "01479cf20504d865519ac50f33ba3a7d"


def test_whoami_is_the_name_and_checks_cookies_and_token(bilibili, member):
    assert member.whoami() == "主播10001"
    assert [request.route for request in bilibili.requests] == ["nav", "info"]


def test_for_web_submits_the_token_is_not_looked_at(bilibili, member_with):
    assert member_with(submit="web").whoami() == "主播10001"
    assert [request.route for request in bilibili.requests] == ["nav"]


def test_an_expired_login_needs_a_person(bilibili, member):
    bilibili.expire_login()
    with pytest.raises(NeedsPerson, match="-101"):
        member.whoami()


def test_a_refused_token_needs_a_person(bilibili, member):
    bilibili.refuse("info", -400)
    with pytest.raises(NeedsPerson, match="access token"):
        member.whoami()


@pytest.mark.parametrize(("code", "kind", "seconds"), [
    (-101, NeedsPerson, 900), (-111, NeedsPerson, 900), (601, Cooling, 3600), (21566, Cooling, 21600),
    (137022, Cooling, 43200), (21564, Cooling, 86400), (-352, Cooling, 3600), (-412, Cooling, 3600),
    (21070, TemporaryError, 35), (406, Cooling, 3600), (-509, Cooling, 600), (-503, TemporaryError, 0),
    (-400, PermanentError, None), (21103, PermanentError, None), (21005, PermanentError, None),
    (-3, PermanentError, None), (99999, PermanentError, None),
])  # fmt: skip
def test_a_code_is_temporary_permanent_or_for_a_person(bilibili, member, code, kind, seconds):
    bilibili.refuse("nav", code, "原因")
    with pytest.raises(kind, match=f"{code} 原因") as caught:
        member.whoami()
    assert type(caught.value) is kind
    assert getattr(caught.value, "retry_after_seconds", None) == seconds
    assert len(bilibili.requests) == 1, "no request is repeated blindly"


def test_an_answer_that_trickles_is_given_up(bilibili, member_with):
    bilibili.never_end("nav", b" ", pause_seconds=0.01)
    with pytest.raises(TemporaryError, match="login check"):
        member_with(timeout_seconds=0.2).whoami()


@pytest.mark.parametrize("date", ["Mon, 01 Jan 99999999 00:00:00 GMT", "Mon, 01 Jan 2026 00:00:00 +9999999999999999"])
def test_a_date_that_is_none_is_passed_over(bilibili, member, date):
    bilibili.fail("nav", 200, {"code": 0, "data": {"uname": "ann"}}, headers={"Date": date})
    assert member.whoami() == "ann"


def test_a_message_cannot_command_the_terminal(bilibili, member):
    bilibili.refuse("nav", -400, "no\n\x1b]0;mine\x07 way\u202e")
    with pytest.raises(PermanentError, match=r"-400 no \]0;mine way$"):
        member.whoami()


@pytest.mark.parametrize(("status", "headers", "kind", "seconds"), [
    (412, {}, Cooling, 3600), (502, {}, TemporaryError, 0), (404, {}, TemporaryError, 0),
    (429, {}, Cooling, 600), (429, {"Retry-After": "7200"}, Cooling, 7200),
    (503, {"Retry-After": "77"}, TemporaryError, 77), (200, {}, TemporaryError, 0),
    (302, {"Location": "https://example.invalid/"}, TemporaryError, 0),
])
def test_what_is_no_envelope_is_judged_by_its_status(bilibili, member, status, headers, kind, seconds):
    bilibili.fail("nav", status, b"<html>", headers=headers)
    with pytest.raises(kind, match=f"HTTP {status}") as caught:
        member.whoami()
    assert type(caught.value) is kind
    assert caught.value.retry_after_seconds == seconds


def test_a_demand_for_a_captcha_needs_a_person_for_hours(bilibili, member):
    bilibili.refuse("nav", 77, content={"v_voucher": "voucher_1"})
    with pytest.raises(Cooling, match="captcha") as caught:
        member.whoami()
    assert caught.value.retry_after_seconds == 3 * 3600


@pytest.mark.parametrize("body", [b"null", b"[1]", b'"x"', b'{"code": true}', b'{"code": "0"}', b"\xff", b"{}"])
def test_an_answer_of_another_form_is_temporary(bilibili, member, body):
    bilibili.fail("nav", 200, body)
    with pytest.raises(TemporaryError, match="envelope"):
        member.whoami()


def test_a_reset_connection_is_temporary_and_nobody_listening_is_unsent(bilibili, member, member_with):
    bilibili.drop("nav")
    with pytest.raises(TemporaryError, match="login check") as caught:
        member.whoami()
    assert not isinstance(caught.value, Unsent)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Unsent, match="Connection refused"):
        member_with(api_url=f"http://127.0.0.1:{port}").whoami()
    with pytest.raises(Unsent):
        member_with(api_url="http://nobody.invalid").whoami()


def test_a_server_that_does_not_answer_in_time_is_temporary(bilibili, member_with):
    bilibili.stall("nav", 3)
    with pytest.raises(TemporaryError, match="no answer in time") as caught:
        member_with(timeout_seconds=0.2).whoami()
    assert not isinstance(caught.value, Unsent)


@pytest.mark.parametrize("harm", ["drop", "refuse", "status", "closed", "echo"])
def test_no_error_tells_a_secret_not_even_in_its_traceback(bilibili, member, harm):
    secrets = member.credential.secrets
    if harm == "drop":
        bilibili.drop("info")
    elif harm == "refuse":
        bilibili.refuse("info", -400)
    elif harm == "status":
        bilibili.fail("info", 500)
    elif harm == "closed":
        bilibili.close()
    else:
        bilibili.refuse("info", 12345, f"bad key {secrets[0]} {secrets[1]} {secrets[2]} {secrets[3]}")
    with pytest.raises(TemporaryError) as caught:
        member.whoami()
    told = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert not [secret for secret in secrets if secret in told]
    assert "sign=" not in told
    assert "access_key" not in told


def test_a_password_in_netrc_is_not_sent(bilibili, member, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    member.whoami()
    assert not any("authorization" in request.headers for request in bilibili.requests)


def test_an_answer_without_an_end_is_hung_up_on_even_when_it_is_a_redirect(member_with):
    """requests reads the body of a redirect to its end, in memory, though it is told not to follow."""
    sent = 0

    def serve() -> None:
        nonlocal sent
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
            try:
                while sent < 200 << 20:
                    sent += connection.send(bytes(1 << 20))
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(TemporaryError, match="login check"):
            member_with(api_url=f"http://127.0.0.1:{listener.getsockname()[1]}").whoami()
        thread.join()
    assert sent < 100 << 20


@pytest.mark.parametrize("odd", [
    {"endpoint": "//[::1"}, {"endpoint": "//h:99999"}, {"endpoint": "//h:x"}, {"endpoint": "//" + "a" * 300},
    {"endpoint": "http://h"}, {"chunk_size": True}, {"chunk_size": 0}, {"chunk_size": 1}, {"biz_id": True},
    {"upos_uri": "upos://b/../f.mp4"}, {"auth": "a\r\nX: y"},
])  # fmt: skip
def test_a_ticket_that_leads_nowhere_is_a_temporary_error(bilibili, member, clip, odd):
    ticket = {"OK": 1, "endpoint": "//127.0.0.1:1", "upos_uri": "upos://b/f.mp4", "auth": "a", "chunk_size": 9999,
              "biz_id": 1, **odd}  # fmt: skip
    bilibili.fail("preupload", 200, ticket)
    with Source(clip) as source, pytest.raises(TemporaryError, match="cannot be used"):
        preupload(member, Line("x", "upcdn=x"), source)


@pytest.mark.parametrize("url", ["//[::1", "//h:99999/", "//h:x", "//" + "a" * 300])
def test_a_line_that_is_no_address_is_left_out(bilibili, member, url):
    answer = {"OK": 1, "lines": [{"os": "upos", "query": "upcdn=x", "probe_url": url}], "probe": {"post": 1e308}}
    bilibili.fail("probe_list", 200, answer)
    with pytest.raises(TemporaryError):
        probe(member, 1.0)

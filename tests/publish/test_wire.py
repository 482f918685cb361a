"""TLS, certificates and proxies, for the bytes as for the calls."""

import base64
import contextlib
import hashlib
import http.client
import socket
import threading

import pytest
from connect_proxy import ConnectProxy
from support import wait_until

from biliupd.config import PublishConfig, Template
from biliupd.errors import PermanentError, TemporaryError
from biliupd.publish.credential import Credential
from biliupd.publish.line import named, probe
from biliupd.publish.member import Member, Unsent
from biliupd.publish.once import upload_video
from biliupd.publish.studio import Part, studio
from biliupd.publish.submission import submit
from biliupd.publish.upos import upload
from biliupd.publish.wire import Wire
from biliupd.rehearsal.bilibili import Bilibili


@pytest.fixture
def secure(tmp_path, tls):
    server = Bilibili(tmp_path / "secure", ssl_context=tls())
    server.chunk_size_bytes = 64 * 1024
    server.chunk_retry_delay = 0.01
    server.lines = {"tx": 0}
    server.start()
    yield server
    server.close()


def config(server, **changes):
    urls = {name: server.url for name in ("member_url", "passport_url", "api_url")}
    return PublishConfig(**{**urls, "part_attempts": 2, **changes})


def same(server, path):
    (archive,) = server.archives
    return server.sha256(archive.parts[0].filename) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_everything_goes_over_tls_with_a_ca_of_ones_own(secure, clip, ca_file, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(ca_file))
    upload_video(secure.write_cookies(tmp_path / "c.json"), clip, "t", publish=config(secure))
    assert same(secure, clip)


def test_a_certificate_nobody_vouches_for_is_refused_for_calls_and_for_bytes(
        secure, clip, ca_file, tmp_path, monkeypatch):
    member = Member(config(secure), Credential.load(secure.write_cookies(tmp_path / "c.json")))
    with pytest.raises(TemporaryError):
        member.whoami()
    with pytest.raises(Unsent):
        submit(member, studio(Template(title="t"), [Part("n1", "P1", 0)]))
    monkeypatch.setattr("biliupd.publish.member.trusted_certificates", lambda: str(ca_file))
    believing = Member(config(secure), member.credential)
    assert believing.whoami()
    assert probe(believing) == []
    with pytest.raises(TemporaryError, match="SSLCertVerificationError"):
        upload(clip, believing, [named("tx")], stop=threading.Event())
    assert {request.route for request in secure.requests} <= {"nav", "info", "probe_list", "preupload"}


def test_real_addresses_are_reached_through_the_proxy_of_the_environment(
        bilibili, clip, tls, ca_file, tmp_path, monkeypatch):
    host, _, port = bilibili.address.rpartition(":")
    proxy = ConnectProxy(tls(), (host, int(port)))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    try:
        upload_video(bilibili.write_cookies(tmp_path / "c.json"), clip, "t", publish=PublishConfig())
    finally:
        proxy.close()
    assert same(bilibili, clip)
    assert {"member.bilibili.com:443", "passport.bilibili.com:443", bilibili.address} <= set(proxy.targets)


def test_no_proxy_is_heeded_and_a_dead_proxy_is_temporary(bilibili, member, clip, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(TemporaryError):
        member.whoami()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert member.whoami()
    assert upload(clip, member, [named("tx")], stop=threading.Event()).filename in bilibili.filenames


def test_a_plain_proxy_gets_whole_addresses_and_its_password(bilibili, member, clip, monkeypatch):
    """The stand-in answers whatever host a request names, so it can play the proxy."""
    monkeypatch.setenv("HTTP_PROXY", bilibili.url.replace("//", "//me:p%40ss@"))
    upload(clip, member, [named("tx")], stop=threading.Event())
    puts = [request for request in bilibili.requests if request.route == "put"]
    assert {request.headers["proxy-authorization"] for request in puts} == {
        "Basic " + base64.b64encode(b"me:p@ss").decode()}


def test_a_proxy_of_another_kind_is_for_a_person(bilibili, member, clip, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "socks5://me:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(PermanentError, match="socks5") as caught:
        Wire(bilibili.url, 1).request("GET", "/OK", {})
    assert "secret" not in str(caught.value)


def test_a_refusal_that_comes_before_the_body_was_read_is_heard():
    """The server answers after the head and hangs up, while we are still sending."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.05)
                while not heard.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection.recv(65536)

        heard = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        wire = Wire(f"http://127.0.0.1:{listening.getsockname()[1]}", 5)

        def body():
            yield bytes(500_000)
            heard.set()
            thread.join(5)
            for _ in range(40):
                yield bytes(500_000)

        reply = wire.request("PUT", "/x", {"Content-Length": str(41 * 500_000)}, body())
        assert (reply.status, reply.body) == (403, b"no")
        wire.close()


def test_a_late_request_is_hung_up_though_bytes_trickle_and_the_next_connects_again(bilibili):
    """The server sends its answer one byte at a time, often enough for every timeout of the socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve():
            while not done.is_set():
                with contextlib.suppress(OSError), listening.accept()[0] as connection:
                    served.append(connection.recv(1000))
                    while len(served) == 1:
                        connection.sendall(b"H")
                        done.wait(0.05)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        done, served, failures = threading.Event(), [], []
        server = threading.Thread(target=serve, daemon=True)
        server.start()
        wire = Wire(f"http://127.0.0.1:{listening.getsockname()[1]}", 60)

        def ask():
            try:
                wire.request("GET", "/", {}, patience_seconds=0.3)
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)

        client = threading.Thread(target=ask)
        client.start()
        wait_until(lambda: wire.hang_up_if_late() or failures, seconds=5)
        client.join()
        served.append(b"")
        assert wire.request("GET", "/", {}).status == 200
        done.set()
        wire.close()
        socket.create_connection(listening.getsockname()).close()
        server.join(5)


def test_a_cut_that_nobody_tells_is_noticed_by_the_kernel(bilibili):
    wire = Wire(bilibili.url, 30)
    wire.request("GET", "/OK", {})
    connection = wire._http.sock
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    wire.close()

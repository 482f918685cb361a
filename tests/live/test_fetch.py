"""TLS to a site: believed when its certificate is, refused when not, and cheap."""

import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certifi
import pytest
import requests
import trustme

from biliupd.config import LiveConfig
from biliupd.errors import TemporaryError
from biliupd.live.fetch import NoAnswer, _behind_a_proxy, fetch, for_address, session
from biliupd.live.media import find_media_playlist


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a TLS server whose CA is in `ca.pem`, together with all those of the world."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = Path(certifi.where()).read_bytes() + authority.cert_pem.bytes()
    (tmp_path / "ca.pem").write_bytes(bundle)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_site_is_believed_whose_authority_the_environment_names(secure, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    assert fetch(secure, timeout_seconds=5, largest_bytes=10).body == b"hello"


def test_a_site_nobody_vouches_for_gives_no_answer(secure):
    with pytest.raises(NoAnswer, match="no trustworthy TLS connection"):
        fetch(secure, timeout_seconds=5, largest_bytes=10)
    with session() as site, pytest.raises(requests.exceptions.SSLError):
        site.get(secure, timeout=5, verify=False)  # cannot be switched off


def test_the_certificates_are_not_parsed_again_for_every_look(secure, tmp_path, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    loads = []
    load = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *a, **k: loads.append(1) or load(*a, **k))
    began = time.thread_time()
    for _ in range(5):
        fetch(secure, timeout_seconds=5, largest_bytes=10)
    assert len(loads) <= 1, f"{len(loads)} loads, {time.thread_time() - began:.3f} s"


def test_the_body_of_a_redirect_is_not_waited_for(script):
    """requests reads it to its end, in memory: one site that never ends could take all of it."""
    script.says("/a", status=302, location="/b", body=b"x" * 1000, then_silent=True)
    script.says("/b", body=b"here")
    answer = fetch(f"{script.url}/a", timeout_seconds=2, largest_bytes=100)
    assert (answer.status, answer.body, answer.url) == (200, b"here", f"{script.url}/b")


def test_a_redirect_in_chinese_is_followed(script):
    script.says("/a", status=302, location="/直播".encode().decode("latin-1"))
    script.says("/%E7%9B%B4%E6%92%AD", body=b"here")
    assert fetch(f"{script.url}/a", timeout_seconds=2, largest_bytes=100).body == b"here"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://[", "//", "ftp://127.0.0.1/", "http://a b/", "/a"])
def test_a_redirect_to_what_is_no_site_is_no_answer(script, target):
    script.says("/a", status=302, location=target)
    with pytest.raises(NoAnswer):
        fetch(f"{script.url}/a", timeout_seconds=2, largest_bytes=100)


def test_what_identifies_us_does_not_follow_to_another_host(script):
    headers = {"Cookie": "a=secret", "Authorization": "secret", "Referer": "r"}
    port = script.url.rpartition(":")[2]
    script.says("/a", status=302, location=f"http://localhost:{port}/b")
    script.says("/b", status=302, location="/c")
    script.says("/c", body=b"here")
    assert fetch(f"{script.url}/a", timeout_seconds=2, largest_bytes=100, headers=headers).body == b"here"
    assert script.headers[0] | headers == script.headers[0]
    assert ["secret" in str(sent) for sent in script.headers] == [True, False, False]
    assert [sent["Referer"] for sent in script.headers] == ["r"] * 3
    assert for_address(headers, "https://h/a", "http://h/a") == {"Referer": "r"}
    assert for_address(headers, "http://h/a", "https://h/b") == headers


@pytest.fixture
def environment(monkeypatch, tmp_path) -> Iterator[pytest.MonkeyPatch]:
    """Without proxies, and with a password that somebody keeps for this very host."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("HOME", str(tmp_path))
    _behind_a_proxy.cache_clear()
    yield monkeypatch
    _behind_a_proxy.cache_clear()


def test_a_password_that_is_kept_for_other_programs_is_not_sent(script, environment):
    script.says("/a", body=b"here")
    fetch(f"{script.url}/a", timeout_seconds=2, largest_bytes=100)
    assert "Authorization" not in script.headers[0]


def test_the_proxy_of_the_environment_is_used(script, environment):
    environment.setenv("http_proxy", script.url)
    script.says("http://live.example/a", body=b"here")
    assert fetch("http://live.example/a", timeout_seconds=2, largest_bytes=100).body == b"here"


def test_addresses_in_a_playlist_are_relative_to_where_it_was_found(script):
    master = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow.m3u8\n"
    script.says("/a.m3u8", status=302, location="/cdn/b.m3u8")
    script.says("/cdn/b.m3u8", body=master)
    script.says("/cdn/low.m3u8", body=b"#EXTM3U\n#EXTINF:1,\na.ts\n")
    url, _, found = find_media_playlist(f"{script.url}/a.m3u8", {}, LiveConfig())
    assert (url, found.segments) == (f"{script.url}/cdn/low.m3u8", 1)
    script.says("/cdn/b.m3u8", body=master.replace(b"low", b"http://["))
    with pytest.raises(TemporaryError, match="names an address that is none"):
        find_media_playlist(f"{script.url}/a.m3u8", {}, LiveConfig())

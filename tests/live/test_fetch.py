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

from biliupd.live.fetch import NoAnswer, fetch, session


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

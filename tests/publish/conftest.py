"""A stand-in Bilibili, an account on it, files to upload."""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from connect_proxy import HOSTS

from biliupd.config import PublishConfig
from biliupd.publish.credential import Credential
from biliupd.publish.member import Member
from biliupd.rehearsal.bilibili import Bilibili

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
                   "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def bilibili(tmp_path: Path) -> Iterator[Bilibili]:
    """Small chunks and quick retries, so that a small file has many parts."""
    server = Bilibili(tmp_path / "bilibili")
    server.chunk_size_bytes = 64 * 1024
    server.chunk_retry_delay = 0.02
    server.submit_interval_seconds = 0
    server.lines = {"bda2": 0.1, "tx": 0.0}
    server.start()
    yield server
    server.close()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Five parts, the last one short."""
    path = tmp_path / "clip 直播.mp4"
    path.write_bytes(os.urandom(4 * 64 * 1024 + 777))
    return path


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> Callable[[], ssl.SSLContext]:
    """Makes the server side of TLS for every host Bilibili has, and for loopback."""
    leaf = authority.issue_cert(*HOSTS)

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        leaf.configure_cert(context)
        return context

    return make


@pytest.fixture
def settings(bilibili: Bilibili) -> Callable[..., PublishConfig]:
    """A publish section that leads to the stand-in, with what a test wants otherwise."""

    def make(**changes) -> PublishConfig:
        return PublishConfig(**{
            "member_url": bilibili.url, "passport_url": bilibili.url, "api_url": bilibili.url, "line": "tx",
            "timeout_seconds": 10, **changes})

    return make


@pytest.fixture
def member(bilibili: Bilibili, settings: Callable[..., PublishConfig], tmp_path: Path) -> Member:
    return Member(settings(), Credential.load(bilibili.write_cookies(tmp_path / "cookies.json")))


@pytest.fixture
def member_with(bilibili: Bilibili, settings: Callable[..., PublishConfig], tmp_path: Path) -> Callable[..., Member]:
    def make(**changes) -> Member:
        return Member(settings(**changes), Credential.load(bilibili.write_cookies(tmp_path / "cookies.json")))

    return make

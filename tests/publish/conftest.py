"""A stand-in Bilibili, an account on it, files to upload."""

import fcntl
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from connect_proxy import HOSTS, ConnectProxy

from biliupd.config import PublishConfig
from biliupd.publish.credential import Credential
from biliupd.publish.member import Member
from biliupd.rehearsal.bilibili import Bilibili

BILIUP_VERSION = "1.2.9"
ROOT = Path(__file__).parents[2]
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


@pytest.fixture(scope="session")
def biliup_program() -> Path:
    """biliup in a virtualenv of its own, made once per checkout."""
    home = ROOT / ".venv-biliup"
    program, done = home / "bin" / "biliup", home / f"has-biliup-{BILIUP_VERSION}"
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            subprocess.run([str(home / "bin" / "pip"), "install", "-q", f"biliup=={BILIUP_VERSION}"], check=True)
            done.touch()
    finally:
        os.close(lock)
    return program


@pytest.fixture
def proxy(bilibili: Bilibili, tls: Callable) -> Iterator[ConnectProxy]:
    host, _, port = bilibili.address.rpartition(":")
    proxy = ConnectProxy(tls(), (host, int(port)))
    yield proxy
    proxy.close()


@pytest.fixture
def biliup(biliup_program: Path, bilibili: Bilibili, proxy: ConnectProxy, ca_file: Path, tmp_path: Path) -> Callable:
    cookies = bilibili.write_cookies(tmp_path / "cookies.json")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share"),
                       "HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(ca_file), "LANG": "C.UTF-8"}
        return subprocess.run(
            [str(biliup_program), "-u", str(cookies), *map(str, arguments)], env=environment, cwd=tmp_path, text=True,
            capture_output=True, timeout=60, check=False)

    return run

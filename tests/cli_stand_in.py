"""The commands that publish, the stand-in Bilibili they are led to, and a file: for the tests of the command line.

PYTEST_DONT_REWRITE: the tests import it before pytest does.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from biliupd import cli
from biliupd.rehearsal.bilibili import Bilibili

CHUNK = 64 * 1024
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
             "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def bilibili(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    server = Bilibili(tmp_path / "bilibili")
    server.chunk_size_bytes = CHUNK
    server.chunk_retry_delay = 0.02
    server.submit_interval_seconds = server.same_title_seconds = 0
    server.lines = {"tx": 0.0}
    server.start()
    server.write_cookies(tmp_path / "cookies.json")
    yield server
    server.close()


@pytest.fixture
def film(tmp_path):
    """Five parts, the last one short."""
    path = tmp_path / "clip 直播.mp4"
    path.write_bytes(os.urandom(4 * CHUNK + 777))
    return path


@pytest.fixture
def config(bilibili, tmp_path):
    """A configuration that leads to the stand-in, without pauses."""
    path = tmp_path / "config.yaml"
    path.write_text(f"publish: {{passport_url: {bilibili.url}, api_url: {bilibili.url}, member_url: {bilibili.url}, "
                    "timeout_seconds: 5, attempts: 1, submit_interval_seconds: 0}\n"
                    "accounts: {one: {cookies: cookies.json}}\n")
    return path


def urls(bilibili):
    return [word for name in ("member", "passport", "api") for word in (f"--{name}-url", bilibili.url)]


@pytest.fixture
def biliupd(bilibili):
    """Runs the command in this process against the stand-in."""

    def run(*words):
        command, *rest = map(str, words)
        return CliRunner().invoke(cli.main, [command, *urls(bilibili), *rest], catch_exceptions=False)

    return run


@pytest.fixture
def begin(bilibili, tmp_path):
    """Starts it as a process of its own."""
    running = []

    def run(*words):
        command, *rest = map(str, words)
        running.append(subprocess.Popen([sys.executable, "-m", "biliupd", command, *urls(bilibili), *rest],
                                        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


def bvid_of(result):
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def routes(bilibili, *names):
    return [request.route for request in bilibili.requests if request.route in names]

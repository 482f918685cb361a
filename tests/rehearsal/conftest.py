"""A stand-in Bilibili with small chunks, and a client of it that does everything right."""

import pytest
from bilibili_client import CHUNK, Client

from biliupd.rehearsal.bilibili import Bilibili


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

import socket

import requests
from stage import Stage
from support import wait_until


def test_health_is_200_while_all_is_well_and_503_when_not_and_says_why_to_who_is_logged_in(stage):
    answer = requests.get(f"{stage.url}/api/health", timeout=5)
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "version": "1.2.3", "trouble": []})
    stage.house.troubles.append("ffmpeg is missing")
    answer = requests.get(f"{stage.url}/api/health", timeout=5)
    assert (answer.status_code, answer.json()["trouble"]) == (503, [])
    answer = stage.bearer("viewer").get(f"{stage.url}/api/health", timeout=5)
    assert (answer.status_code, answer.json()["trouble"]) == (503, ["ffmpeg is missing"])


def test_an_address_that_is_taken_is_said_and_taken_as_soon_as_it_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr("biliupd.control.server.AGAIN_SECONDS", 0.05)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        stage = Stage(tmp_path, port=port).start()
        assert stage.control.is_alive()
        assert stage.control.port is None
        assert f"127.0.0.1:{port} cannot be used" in stage.said[-1]
    wait_until(lambda: stage.control.port == port)
    assert requests.get(f"{stage.url}/api/health", timeout=5).ok
    assert stage.said[-1] == ""
    stage.close()
    assert not stage.control.is_alive()  # else the daemon says that it did not end in time


def test_it_closes_in_time_and_frees_its_address(stage):
    assert requests.get(f"{stage.url}/api/health", timeout=5).ok
    stage.control.close(5)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", stage.control.port))


def test_it_does_not_listen_when_it_is_switched_off(tmp_path):
    stage = Stage(tmp_path, enabled=False).start()
    assert stage.control.port is None
    assert stage.control.is_alive()
    stage.close()
    assert not stage.control.is_alive()

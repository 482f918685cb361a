import socket

import pytest
import requests
from support import wait_until

from biliupd.config import ControlConfig
from biliupd.control.server import Control


@pytest.fixture
def control():
    trouble: list[str] = []
    said: list[str] = []
    part = Control(ControlConfig(port=0), "1", trouble=lambda: trouble, on_address=said.append)
    part.start()
    part.trouble, part.said = trouble, said  # type: ignore[attr-defined]
    yield part
    part.close(5)


def test_health_is_200_while_all_is_well_and_503_with_the_reason_when_not(control):
    address = f"http://127.0.0.1:{control.port}/api/health"
    wait_until(lambda: control._server.started)
    answer = requests.get(address, timeout=5)
    assert (answer.status_code, answer.json()["ok"], answer.json()["trouble"]) == (200, True, [])
    control.trouble.append("ffmpeg is missing")
    answer = requests.get(address, timeout=5)
    assert (answer.status_code, answer.json()["trouble"]) == (503, ["ffmpeg is missing"])


def test_an_address_that_is_taken_is_said_and_nothing_else_stops():
    said: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        part = Control(ControlConfig(port=port), "1", trouble=list, on_address=said.append)
        part.start()
        assert part.is_alive()
        assert part.port is None
        part.close(1)
        assert not part.is_alive()  # else the daemon says that it did not end in time
    assert f"127.0.0.1:{port} cannot be used" in said[-1]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("127.0.0.1:{}", 200), ("127.0.0.1", 200), ("localhost:{}", 200), ("[::1]:{}", 200), ("192.168.1.2:{}", 200),
        ("evil.example:{}", 421), ("evil.example", 421), ("localhost.evil.example:{}", 421),
        ("127.0.0.1.evil.example:{}", 421), ("[::1].evil.example", 421), ("a:b:c", 421), ("[", 421),
    ],
)  # fmt: skip
def test_it_answers_to_its_address_and_to_no_other_name(control, name, status):
    wait_until(lambda: control._server.started)
    address = f"http://127.0.0.1:{control.port}/api/health"
    answer = requests.get(address, headers={"Host": name.format(control.port)}, timeout=5)
    assert answer.status_code == status


def test_it_closes_in_time_and_frees_its_address(control):
    wait_until(lambda: control._server.started)
    control.close(5)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", control.port))


def test_it_does_not_listen_when_it_is_switched_off():
    part = Control(ControlConfig(enabled=False, port=0), "1", trouble=list, on_address=lambda text: None)
    part.start()
    assert part.port is None
    part.close(1)

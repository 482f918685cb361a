"""A real daemon, asked over HTTP: streamers made, started, stopped and paused, and what is on the disk then."""

import json
import signal

import pytest
import requests
from websockets.sync.client import connect
from world import World


@pytest.fixture
def api(world: World):
    """A daemon with one room of the YAML, and who is logged in."""
    world.room("flv1")
    world.settings["streamers"][0]["auto_upload"] = False
    world.settings["control"] = {"port": 0}
    world.start()
    return world.log_in()


def ask(world: World, session: requests.Session, method: str, path: str, status: int = 200, **body):
    answer = session.request(method, f"{world.page()}/api/{path}", json=body or None, timeout=60)
    assert answer.status_code == status, (answer.status_code, answer.text)
    return answer.json() if answer.content else None


def only(world: World, session: requests.Session, name: str) -> dict:
    (found,) = [one for one in ask(world, session, "GET", "streamers")["items"] if one["name"] == name]
    return found


def test_a_streamer_made_over_http_is_recorded_stopped_skipped_and_started_again(world, api):
    page = world.site.add_room("hls1", protocol="hls", streamer="hls1", title="the show", size="320x180")
    made = ask(world, api, "POST", "streamers", 201, url=f"rehearsal+{page}", name="bob", check_interval=1)
    assert (made["source"], made["platform"], made["mode"]) == ("api", "rehearsal", "on")
    assert ask(world, api, "POST", "streamers", 409, url=f"rehearsal+{page}", name="BOB")["status"] == 409
    world.site.go_live("hls1")
    world.wait(lambda: only(world, api, "bob")["task"], 30, "it is recorded")
    task = only(world, api, "bob")["task"]
    world.wait(lambda: ask(world, api, "GET", f"tasks/{task['id']}/status")["task"]["figures"]["bytes"], 20, "media")

    stopped = ask(world, api, "POST", f"streamers/{made['id']}/stop")
    assert (stopped["task"]["id"], stopped["task"]["status"]) == (task["id"], "ended")
    assert world.recorders() == []
    world.end(signal.SIGTERM)
    world.start()  # what a person ended is not begun by a restart
    world.wait(lambda: only(world, api, "bob")["status"] == "live", 20, "it was looked at")
    assert (only(world, api, "bob")["mode"], only(world, api, "bob")["task"]) == ("skipped", None)

    assert "not recorded until the next show" in world.command("status").stdout
    started = ask(world, api, "POST", f"streamers/{made['id']}/start")
    assert started["task"]["status"] == "recording"
    assert started["task"]["id"] != task["id"]
    paused = ask(world, api, "POST", f"streamers/{made['id']}/pause")
    assert (paused["task"]["status"], paused["streamer"]["mode"]) == ("ended", "paused")
    assert "paused" in world.command("status").stdout
    ask(world, api, "DELETE", f"streamers/{made['id']}", 204)
    assert [one["name"] for one in ask(world, api, "GET", "streamers")["items"]] == ["flv1"]


def test_one_of_the_yaml_is_read_only_and_can_be_started_and_stopped(world, api):
    ann = only(world, api, "flv1")
    world.settings["streamers"][0]["record"] = False
    world.save()
    world.wait(lambda: "new settings" in world.log(), 10)
    assert "record is false" in ask(world, api, "POST", f"streamers/{ann['id']}/start", 409)["detail"]
    world.settings["streamers"][0]["record"] = True
    world.save()
    world.wait(lambda: world.log().count("new settings") == 2, 10)
    for method, body in (("PATCH", {"priority": 5}), ("DELETE", {})):
        problem = ask(world, api, method, f"streamers/{ann['id']}", 409, **body)
        line = world.path.read_text().splitlines().index("streamers:") + 2
        assert f"{world.path}, line {line}" in problem["detail"]
    answer = ask(world, api, "POST", f"streamers/{ann['id']}/start")
    assert (answer["task"], "offline" in answer["detail"]) == (None, True)
    world.site.go_live("flv1")
    world.wait(lambda: ((only(world, api, "flv1")["task"] or {}).get("figures") or {}).get("media_seconds", 0) > 1, 30,
               "it is recorded")
    with connect(world.page().replace("http", "ws") + "/api/ws", additional_headers={
            "Cookie": "; ".join(f"{c.name}={c.value}" for c in api.cookies), "Origin": world.page()}) as socket:
        socket.send(json.dumps({"topics": ["tasks", "log", "videos"], "seq": None, "log": None, "epoch": None}))
        stopped = ask(world, api, "POST", f"streamers/{ann['id']}/stop")
        assert stopped["task"]["reason"] == "stopped"
        told = [json.loads(socket.recv(timeout=20))]
        while not any(one["state"] == "ready" for m in told if m.get("topic") == "videos" for one in m.get("put", [])):
            told.append(json.loads(socket.recv(timeout=20)))
    lines = [line["text"] for m in told for line in m.get("lines", [])]
    assert any("recorder ended: stopped" in line for line in lines)
    assert any(line.startswith("ended: ") for line in lines), "what the recorder itself says"

    (video,) = ask(world, api, "GET", "videos")["items"]
    played = api.get(f"{world.page()}/api/videos/{video['id']}/play", timeout=30)
    assert played.content[4:8] == b"ftyp"
    world.wait(lambda: "auto_upload is off" in (ask(world, api, "GET", "videos")["items"][0]["waits_for"] or ""), 10)
    ask(world, api, "POST", f"videos/{video['id']}/upload", 202)
    world.wait(lambda: world.states() == ["published"], 60, "it is published because it was asked for")
    world.check_published(1, 1)


def test_the_settings_say_where_they_came_from_and_the_watcher_can_be_stopped(world, api):
    found = {one["key"]: one for one in ask(world, api, "GET", "settings")["settings"]}
    assert (found["record.stall_seconds"]["value"], found["record.stall_seconds"]["source"]) == (3, "file")
    assert (found["record.split_size"]["line"], found["record.split_size"]["source"]) == (None, "default")
    ask(world, api, "POST", "watcher/stop")
    world.wait(lambda: not ask(world, api, "GET", "watcher/status")["watching"], 10)
    (world.drop / "unseen.txt").write_text("x")
    ask(world, api, "POST", "watcher/start")
    world.wait(lambda: ask(world, api, "GET", "watcher/status")["watching"], 10)
    before = sum(ask(world, api, "GET", "watcher/status")["rescans"].values())
    ask(world, api, "POST", "sync", 202, mode="full")
    world.wait(lambda: sum(ask(world, api, "GET", "watcher/status")["rescans"].values()) > before, 20)


def test_a_qr_code_logs_an_account_in_through_the_api(world, api):
    world.cookies.unlink()
    code = ask(world, api, "GET", "qrcode?account=main")
    assert code["image"].startswith("data:image/svg+xml")
    world.bilibili.confirm_login(uid=7)
    world.wait(lambda: ask(world, api, "GET", f"qrcode/{code['id']}")["state"] == "confirmed", 10)
    assert world.cookies.exists()
    world.wait(lambda: ask(world, api, "GET", "accounts")[0]["mid"] == 7, 20, "the account is known")


def test_libraries_that_do_not_fit_cost_the_page_and_nothing_else(world):
    (world.directory / "odd" / "uvicorn").mkdir(parents=True)
    (world.directory / "odd" / "uvicorn" / "__init__.py").write_text("")
    world.settings["control"] = {"port": 0}
    world.start(PYTHONPATH=str(world.directory / "odd"))
    assert "the page does not go with what is installed" in world.log()
    assert "the page does not go with what is installed" in world.command("status").stdout

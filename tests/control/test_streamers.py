"""The routes of streamers and of tasks: who is recorded, and starting and stopping it."""

import threading
import time

import pytest
import requests
from support import wait_until

from biliupd.catalog import records
from biliupd.catalog.database import Catalog, now
from biliupd.control import streamers
from biliupd.control.house import Look
from biliupd.control.models import Refusal, Waiting


@pytest.fixture
def api(stage, monkeypatch):
    """Asks as an operator; with the sample's streamers."""
    monkeypatch.setattr(streamers, "START_SECONDS", 0.3)
    monkeypatch.setattr(streamers, "STOP_SECONDS", 0.3)
    wait_until(lambda: stage.control.port and requests.get(f"{stage.url}/api/health", timeout=5).ok)
    stage.sample(8)
    session = stage.bearer("operator")

    def ask(method, path, **more):
        if method not in ("GET", "HEAD"):
            more.setdefault("json", {})
        return session.request(method, f"{stage.url}/api{path}", timeout=20, **more)

    return ask


def id_of(stage, name):
    return stage.catalog.db.execute("select id from streamers where name = ?", [name]).fetchone()[0]


def test_a_list_is_searched_sorted_and_paged_and_says_who_is_recorded(api, stage):
    page = api("GET", "/streamers").json()
    assert page["total"] == len(page["items"]) == 7
    by_name = {one["name"]: one for one in page["items"]}
    assert by_name["nightowl"]["task"]["figures"]["bitrate"] > 0
    assert by_name["nightowl"]["origin"] == ""
    assert by_name["Aoi Ch. 葵"]["origin"] == "config.yaml, line 31"
    assert by_name["skipped tonight"]["waiting"]
    assert by_name["paused for now"]["mode"] == "paused"
    assert [one["name"] for one in api("GET", "/streamers?sort=priority&order=desc&limit=1").json()["items"]] == [
        "Aoi Ch. 葵"]  # fmt: skip
    for query, total in (("q=TWITCH", 2), ("status=live", 3), ("source=api", 4), ("mode=paused", 1), ("q=%25", 0)):
        assert api("GET", f"/streamers?{query}").json()["total"] == total, query
    first = api("GET", "/streamers")
    again = api("GET", "/streamers", headers={"If-None-Match": f'W/{first.headers["ETag"]}, "x"'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    stage.house.runs.clear()
    assert api("GET", "/streamers", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_one_is_made_changed_and_removed(api, stage):
    made = api("POST", "/streamers", json={"url": "https://www.twitch.tv/new", "priority": 5})
    assert made.status_code == 201
    assert made.headers["Location"] == f"/api/streamers/{made.json()['id']}"
    assert (made.json()["name"], made.json()["priority"], made.json()["source"]) == ("new", 5, "api")
    path = f"/streamers/{made.json()['id']}"
    changed = api("PATCH", path, json={"auto_upload": False, "template": "short"}).json()
    assert (changed["auto_upload"], changed["template"], changed["priority"]) == (False, "short", 5)
    assert api("GET", path).json() == changed
    assert api("DELETE", path).status_code == 204
    assert api("GET", path).status_code == api("DELETE", path).status_code == 404
    again = api("POST", "/streamers", json={"url": "https://www.twitch.tv/nightowl"})
    assert (again.status_code, again.json()["errors"][0]["field"]) == (409, "body.name")
    refused = api("POST", "/streamers", json={"url": "nonsense"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "body.url")


@pytest.mark.parametrize("body", [{"hooks": ["rm"]}, {"url": ""}, {"directory": "/etc"}, {"settings": {}}])
def test_hooks_and_paths_cannot_be_set(api, stage, body):
    for method, path in (("POST", "/streamers"), ("PATCH", f"/streamers/{id_of(stage, 'nightowl')}")):
        assert api(method, path, json={"url": "https://www.twitch.tv/x", **body}).status_code == 422
    assert not [what for what, _ in stage.house.asked if what in ("make_streamer", "change_streamer")]


def test_one_of_the_yaml_is_read_only_but_can_be_started_and_stopped(api, stage):
    path = f"/streamers/{id_of(stage, 'Aoi Ch. 葵')}"
    for method in ("PATCH", "DELETE"):
        refused = api(method, path)
        assert refused.status_code == 409
        assert "config.yaml, line 31" in refused.json()["detail"]
    assert api("POST", f"{path}/pause").json()["streamer"]["mode"] == "paused"
    assert api("POST", f"{path}/start").json()["task"]["status"] == "recording"


def test_a_start_answers_with_the_task_or_with_what_the_site_says(api, stage):
    nightowl, offline = (f"/streamers/{id_of(stage, name)}" for name in ("nightowl", "老番茄直播间"))
    ended = api("POST", f"{nightowl}/stop")
    assert (ended.status_code, ended.json()["task"]["status"]) == (200, "ended")
    assert ended.json()["streamer"]["mode"] == "skipped"
    assert ended.json()["streamer"]["task"] is None
    assert api("POST", f"{nightowl}/stop").json()["task"] is None, "there was nothing to stop"
    begun = api("POST", f"{nightowl}/start")
    assert (begun.status_code, begun.json()["task"]["status"]) == (200, "recording")
    said = api("POST", f"{offline}/start")
    assert (said.status_code, said.json()["task"]) == (200, None)
    assert said.json()["detail"].startswith("offline")
    stage.house.on_mode = lambda id, mode: None
    stage.house.waits = [Waiting(streamer="老番茄直播间", priority=0, since=now())]
    assert "waits for a place" in api("POST", f"{offline}/start").json()["detail"]
    assert api("POST", "/streamers/99/start").status_code == 404


def test_what_is_on_its_way_is_answered_so_and_a_change_is_not_waited_for_to_the_end(api, stage, monkeypatch):
    name = "老番茄直播间"
    path = f"/streamers/{id_of(stage, name)}"
    stage.house.on_mode = lambda id, mode: None
    late = api("POST", f"{path}/start")
    assert (late.status_code, late.json()["task"]) == (202, None)
    stage.house.looks[name] = Look(1, "live", "")
    monkeypatch.setattr(streamers, "START_SECONDS", 20)
    monkeypatch.setattr(streamers, "STOP_SECONDS", 20)
    monkeypatch.setattr(streamers, "LOOK_SECONDS", 20)
    id = id_of(stage, name)

    def once_it_waits(act):
        def then():
            wait_until(lambda: stage.house.asked and stage.house.asked[-1][0] == "set_mode")
            mine = Catalog(stage.catalog.path)
            act(mine.db)
            mine.close()

        del stage.house.asked[:]
        threading.Thread(target=then).start()

    began = time.monotonic()
    once_it_waits(lambda db: records.task_started(db, "t1", id, "b1", 7, now()))
    assert api("POST", f"{path}/start").json()["task"]["id"] == "t1"
    once_it_waits(lambda db: records.task_stopped(db, "t1", "stopped", now()))
    told = api("POST", f"{path}/pause").json()
    assert (told["task"]["reason"], told["streamer"]["mode"]) == ("stopped", "paused")
    assert time.monotonic() - began < 10
    monkeypatch.setattr(streamers, "STOP_SECONDS", 0.1)
    busy = api("POST", f"/streamers/{id_of(stage, 'nightowl')}/stop")
    assert (busy.status_code, busy.json()["task"]["status"]) == (202, "recording")


def test_a_refusal_of_the_house_is_a_problem(api, stage):
    stage.house.refuses["set_mode"] = Refusal(409, "it is being removed", hint="wait")
    refused = api("POST", f"/streamers/{id_of(stage, 'nightowl')}/start")
    assert (refused.status_code, refused.json()["hint"]) == (409, "wait")
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_tasks_are_listed_newest_first_and_each_tells_its_bitrates(api, stage):
    page = api("GET", "/tasks").json()
    assert [one["status"] for one in page["items"]] == ["recording", "recording"]
    assert page["items"][0]["title"]
    one = page["items"][0]
    assert api("GET", f"/tasks?streamer_id={one['streamer_id']}").json()["total"] == 1
    assert api("GET", "/tasks?status=ended").json() == {"items": [], "total": 0, "limit": 50, "offset": 0}
    told = api("GET", f"/tasks/{one['id']}/status").json()
    assert told["task"]["figures"] == one["figures"]
    assert told["sample_seconds"] == 5.0
    assert api("GET", "/tasks/none").status_code == api("GET", "/tasks/none/status").status_code == 404

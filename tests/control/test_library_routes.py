"""The routes of the library, of publishing and of the daemon itself, on one sample."""

from datetime import datetime, timedelta, timezone

import pytest
import requests
from support import wait_until

from biliupd.catalog import ledgers, sync, videos
from biliupd.catalog.states import Stage, State
from biliupd.catalog.sync import Changes, Found
from biliupd.control.models import Preview, QrCode, Refusal
from biliupd.errors import TemporaryError


@pytest.fixture(scope="module")
def here(shared):
    wait_until(lambda: shared.control.port and requests.get(f"{shared.url}/api/health", timeout=5).ok)
    shared.sample(36)
    return shared


@pytest.fixture(scope="module")
def api(here):
    session = here.bearer("admin")

    def ask(method, path, **more):
        if method not in ("GET", "HEAD"):
            more.setdefault("json", {})
        return session.request(method, f"{here.url}/api{path}", timeout=20, **more)

    return ask


def one_in(here, state):
    return here.catalog.db.execute("select max(id) from videos where state = ?", [state]).fetchone()[0]


@pytest.mark.parametrize(("query", "total"), [
    ("", 36), ("state=held", 3), ("state=held&state=ignored&state=held", 6), ("q=ELDEN", 4), ("q=nightowl", 9),
    ("streamer=nightowl", 9), ("streamer=night", 0), ("broadcast=0000000000000003", 1), ("root=/nothing", 0),
    ("state=missing", 0), ("limit=5&offset=30", 36), ("offset=999999999", 36),
])  # fmt: skip
def test_videos_are_found(here, api, query, total):
    page = api("GET", f"/videos?{query}").json()
    assert page["total"] == total
    assert len(page["items"]) == (0 if "offset=999" in query else 5 if "limit=5" in query else min(total, 50))


@pytest.mark.parametrize("sort", ["recorded_at", "created_at", "title", "duration", "file_size", "uploaded_at"])
def test_videos_are_sorted_both_ways(api, sort):
    up, down = ([one["id"] for one in api("GET", f"/videos?sort={sort}&order={way}").json()["items"]]
                for way in ("asc", "desc"))  # fmt: skip
    assert len(up) == 36
    assert up == down[::-1]


def test_the_library_begins_with_what_was_recorded_last(api):
    page = api("GET", "/videos?limit=500").json()["items"]
    moments = [one["recorded_at"] for one in page]
    assert moments == sorted(moments, reverse=True)
    assert len(set(moments)) == 36
    assert [one["id"] for one in page] == list(range(36, 0, -1))
    assert api("GET", "/videos/7").json()["recorded_at"] == moments[29]


def test_days_are_asked_for_with_whatever_else(api):
    whole = api("GET", "/videos?limit=500").json()["items"]
    newest, last = whole[3]["recorded_at"], whole[12]["recorded_at"]
    days = {"recorded_after": last, "recorded_before": newest}
    found = api("GET", "/videos", params={**days, "limit": 4, "offset": 2}).json()
    assert (found["items"], found["total"]) == (whole[6:10], 9)
    later = (datetime.fromisoformat(last) + timedelta(milliseconds=1)).astimezone(timezone(timedelta(hours=8)))
    assert api("GET", "/videos", params={**days, "recorded_after": later.isoformat()}).json()["total"] == 8
    for more in ({"state": "published"}, {"streamer": "nightowl"}, {"q": "elden"}, {"root": whole[5]["root"]}):
        (name, value), = more.items()
        both = api("GET", "/videos", params={**days, **more}).json()
        others = api("GET", "/videos", params={**more, "limit": 500}).json()["items"]
        assert both["items"] == [one for one in others if last <= one["recorded_at"] < newest], (name, value)
        assert both["total"] == len(both["items"])
    for after, before in ((newest, newest), (newest, last)):
        nothing = api("GET", "/videos", params={"recorded_after": after, "recorded_before": before})
        assert (nothing.status_code, nothing.json()["items"], nothing.json()["total"]) == (200, [], 0)


@pytest.mark.parametrize("name", ["recorded_after", "recorded_before"])
@pytest.mark.parametrize(("given", "says"), [
    ("2026-11-01T00:00:00", "timezone"), ("2026-11-01", "2026-01-31T18:00:00Z"), ("1790000000", "a moment is written"),
    ("yesterday", "a moment is written"), ("", "a moment is written"), ("2026-13-01T00:00:00Z", "valid datetime"),
    ("2026-11-01T00:00:00 08:00", "valid datetime"), ("1677-12-31T23:59:59Z", "1678"), ("9999-12-31T00:00:00Z", "2261"),
    ("0001-01-01T00:00:00+23:59", "1678"),
])  # fmt: skip
def test_a_moment_that_is_none_is_refused_by_its_name(api, name, given, says):
    refused = api("GET", "/videos", params={name: given})
    (error,) = refused.json()["errors"]
    assert (refused.status_code, error["field"]) == (422, f"query.{name}")
    assert says in error["message"]


@pytest.mark.parametrize("given", ["1678-01-01T00:00:00+23:59", "2261-12-31T23:59:59.999999-23:59",
                                   "2026-11-01t00:00:00z", "2026-11-01T00:00Z"])  # fmt: skip
def test_the_first_and_the_last_moment_there_is_are_taken(api, given):
    after, before = (api("GET", "/videos", params={name: given}).json()["total"]
                     for name in ("recorded_after", "recorded_before"))  # fmt: skip
    assert after + before == 36


def test_a_video_is_shown_whole(here, api):
    one = api("GET", f"/videos/{one_in(here, State.UPLOADING)}").json()
    assert one["upload"]["bytes_per_second"] == 4.2e6
    assert one["upload"]["finished_at"] is None
    assert one["playable"]
    assert one["streamer"] in ("老番茄直播间", "nightowl")
    newest = api("GET", "/videos/36").json()
    assert newest["thumbnail"] == "/api/videos/36/thumbnail"
    assert newest["upload"]["finished_at"]
    assert api("GET", "/videos/1").json()["thumbnail"] is None
    assert {one["pinned"] for one in api("GET", "/videos").json()["items"]} == {True, False}


def test_an_unchanged_library_is_not_read_again(here, api):
    first = api("GET", "/videos?limit=3")
    etag = first.headers["ETag"]
    assert first.json()["total"] == 36
    again = api("GET", "/videos?limit=3", headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    one = api("GET", "/videos/3")
    assert api("GET", "/videos/3", headers={"If-None-Match": one.headers["ETag"]}).status_code == 304
    videos.pin(here.catalog.db, 3, not one.json()["pinned"])
    changed = api("GET", "/videos?limit=3", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag
    assert api("GET", "/videos/3", headers={"If-None-Match": one.headers["ETag"]}).status_code == 200


def test_names_that_are_no_text_are_told_and_found_all_the_same(here, api):
    db = here.catalog.db
    raw = "\udcd6\udcd0文"  # two bytes of GB 18030, and text
    folder = f"{raw}/in"
    root = str(here.drop)
    sync.apply(db, Changes(added=[Found(f"{root}/{folder}/a\udcff.mp4", root, "file", 5, 1, 77, 1)]))
    db.execute("update videos set last_error = ? where inode = 77", ["\x00 odd"])
    db.conn.commit()
    top = api("GET", "/videos/tree").json()
    mine = next(one for one in top["folders"] if one["path"] == root)
    level = api("GET", "/videos/tree", params={"root": mine["path"]}).json()
    names = [one["path"] for one in level["folders"]]
    assert len(names) == 1
    deeper = api("GET", "/videos/tree", params={"root": root, "folder": names[0]}).json()
    assert [one["name"] for one in deeper["folders"]] == ["in"]
    inside = api("GET", "/videos/tree", params={"root": root, "folder": deeper["folders"][0]["path"]}).json()
    (video,) = inside["videos"]
    assert video["file_size"] == 5
    assert api("GET", f"/videos/{video['id']}").json() == video
    assert api("GET", "/videos/tree", params={"root": root, "folder": "no/such"}).json()["videos"] == []
    db.execute("delete from videos where inode = 77")
    db.conn.commit()


def test_the_tree_begins_with_the_watched_directories(here, api):
    top = api("GET", "/videos/tree").json()
    assert {one["path"]: one["videos"] for one in top["folders"]} == {str(here.recordings): 30, str(here.drop): 6}
    level = api("GET", "/videos/tree", params={"root": str(here.recordings)}).json()
    assert sum(one["videos"] for one in level["folders"]) == 30
    dropped = api("GET", "/videos/tree", params={"root": str(here.drop), "folder": "/"}).json()
    assert len(dropped["videos"]) == 6


def test_a_folder_of_the_tree_is_told_in_pages(api, here):
    def level(**more):
        return api("GET", "/videos/tree", params={"root": str(here.drop), **more}).json()

    whole = level()
    assert (whole["total"], whole["limit"], whole["offset"], len(whole["videos"])) == (6, 50, 0, 6)
    assert [one["path"] for one in whole["videos"]] == sorted(one["path"] for one in whole["videos"])
    pages = [level(limit=4, offset=offset) for offset in (0, 4, 8)]
    assert [page["total"] for page in pages] == [6, 6, 6]
    assert [one for page in pages for one in page["videos"]] == whole["videos"]
    assert api("GET", "/videos/tree?limit=4").json()["total"] == 0
    refused = api("GET", "/videos/tree?limit=0")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "query.limit")


def test_a_person_asks_for_what_the_settings_do_not_want(here, api):
    db, id = here.catalog.db, one_in(here, State.READY)
    db.execute("update videos set waits_for = 'x', retry_at = '9999' where id = ?", [id])
    db.conn.commit()
    asked = api("POST", f"/videos/{id}/upload")
    assert (asked.status_code, asked.json()["waits_for"], asked.json()["retry_at"]) == (202, None, None)
    assert db.execute("select asked from videos where id = ?", [id]).fetchone() == (1,)
    for state, why in (("published", "published already"), ("uploading", "being uploaded"), ("held", "held"),
                       ("ignored", "ignored")):  # fmt: skip
        refused = api("POST", f"/videos/{one_in(here, state)}/upload")
        assert (refused.status_code, why in refused.json()["detail"]) == (409, True)
    assert api("POST", "/videos/999/upload").status_code == 404


def test_held_and_ignored_ones_are_tried_again_others_not(here, api):
    for state in (State.HELD, State.IGNORED):
        id = one_in(here, state)
        again = api("POST", f"/videos/{id}/retry")
        assert (again.status_code, again.json()["state"], again.json()["attempts"]) == (200, "recorded", 0)
        assert api("POST", f"/videos/{id}/retry").status_code == 409
    assert api("POST", "/videos/999/retry").status_code == 404


def test_a_file_is_kept_for_good_or_no_longer(api):
    for pinned in (True, False):
        assert api("PUT", "/videos/2/pin", json={"pinned": pinned}).json()["pinned"] is pinned
    assert api("PUT", "/videos/999/pin", json={"pinned": True}).status_code == 404


def test_previews_are_those_of_the_house(here, api):
    (broadcast,) = here.catalog.db.execute("select broadcast_id from videos where id = 36").fetchone()
    found = [Preview(account="a", waits_for="", bvid="", files=[], cover="", body={"title": "x"})]
    here.house.previews[broadcast] = found
    assert api("GET", "/videos/36/preview").json() == [one.model_dump() for one in found]
    submission = api("GET", "/videos/36").json()["submission_id"]
    assert api("GET", f"/submissions/{submission}/preview").json() == [one.model_dump() for one in found]
    dropped = here.catalog.db.execute(
        "select id, file_path, submission_id from videos where broadcast_id is null and submission_id is not null"
    ).fetchone()  # fmt: skip
    here.house.previews[dropped[1]] = found
    assert api("GET", f"/videos/{dropped[0]}/preview").status_code == 200
    assert api("GET", f"/submissions/{dropped[2]}/preview").status_code == 200
    assert api("GET", "/videos/2/preview").status_code == 409
    assert api("GET", "/videos/999/preview").status_code == api("GET", "/submissions/999/preview").status_code == 404


def test_broadcasts_tell_how_much_of_them_there_is_and_what_is_missing(here, api):
    page = api("GET", "/broadcasts?limit=3").json()
    assert (page["total"], len(page["items"])) == (32, 3)
    starts = [one["started_at"] for one in page["items"]]
    assert starts == sorted(starts, reverse=True)
    assert api("GET", "/broadcasts", params={"streamer": "nightowl"}).json()["total"] == 10
    assert api("GET", "/broadcasts", params={"streamer": "nobody"}).json()["total"] == 0
    one = api("GET", f"/broadcasts/{4:016x}").json()
    assert one["gaps"] == 3
    assert 0.97 < one["share"] < 1
    ledger = api("GET", f"/broadcasts/{4:016x}/ledger").json()
    assert ledger["broadcast"] == one
    assert [(row["cause"], row["loss"]) for row in ledger["rows"]][:2] == [("cut", True), ("stall", True)]
    assert api("GET", "/broadcasts/none").status_code == api("GET", "/broadcasts/none/ledger").status_code == 404


def test_sums_are_by_streamer(api):
    found = api("GET", "/stats").json()
    assert sum(one["videos"] for one in found) >= 30
    assert "" in {one["streamer"] for one in found}


# -- publishing


def test_submissions_are_found_with_their_parts(here, api):
    page = api("GET", "/submissions?limit=2").json()
    assert len(page["items"]) == 2
    assert page["items"][0]["id"] > page["items"][1]["id"]
    total = page["total"]
    stages = [api("GET", f"/submissions?state={stage}").json()["total"] for stage in Stage]
    assert sum(stages) == total
    one = page["items"][0]
    whole = api("GET", f"/submissions/{one['id']}").json()
    assert {name: whole[name] for name in one} == one
    assert [video["submission_id"] for video in whole["videos"]] == [one["id"]] * one["parts"]
    assert api("GET", "/submissions", params={"q": one["bvid"] or one["title"]}).json()["total"] >= 1


def test_a_held_submission_is_tried_again_another_not(here, api):
    held = api("GET", "/submissions?state=held").json()["items"][0]["id"]
    again = api("POST", f"/submissions/{held}/retry")
    assert (again.status_code, again.json()["state"]) == (200, "collecting")
    assert api("POST", f"/submissions/{held}/retry").status_code == 409
    assert api("POST", "/submissions/999/retry").status_code == 404


def test_accounts_are_those_of_the_settings_and_those_that_were_used(here, api, monkeypatch):
    monkeypatch.setattr(here.house, "named_accounts", ["my.own"])
    found = {one["name"]: one for one in api("GET", "/accounts").json()}
    assert list(found) == ["my.own", "main", "old", "second"]
    assert (found["my.own"]["state"], found["second"]["state"]) == ("unknown", "cooling")
    assert api("POST", "/accounts/second/retry").json()["state"] == "ok"
    assert api("POST", "/accounts/nobody/retry").status_code == 404
    here.house.refuses["retry_account"] = TemporaryError("Bilibili is away", retry_after_seconds=7)
    away = api("POST", "/accounts/main/retry")
    assert (away.status_code, away.headers["Retry-After"]) == (503, "7")
    del here.house.refuses["retry_account"]


def test_a_login_at_bilibili_is_shown_and_polled(here, api):
    code = api("GET", "/qrcode?account=main").json()
    assert QrCode.model_validate(code).image.startswith("data:image/svg+xml")
    assert api("GET", f"/qrcode/{code['id']}").json()["state"] == "waiting"
    here.house.confirm(code["id"])
    assert api("GET", f"/qrcode/{code['id']}").json()["state"] == "confirmed"
    assert api("GET", "/qrcode/none").status_code == 404


# -- the daemon itself


def test_health_tells_strangers_only_whether_all_is_well(here, api):
    stranger = f"{here.url}/api/health"
    assert requests.get(stranger, timeout=5).json() == {"ok": True, "version": "1.2.3", "trouble": []}
    here.house.troubles = ["/secret/path is gone"]
    try:
        answer = requests.get(stranger, timeout=5)
        assert (answer.status_code, answer.json()["trouble"]) == (503, [])
        known = api("GET", "/health")
        assert (known.status_code, known.json()["trouble"]) == (503, ["/secret/path is gone"])
    finally:
        here.house.troubles = []


def test_the_status_is_all_on_one_page(here, api):
    told = api("GET", "/status").json()
    assert sum(told["videos"].values()) == 36
    assert sum(told["streamers"].values()) == 7
    assert told["recording"] == 2
    assert told["held"] == told["videos"].get("held", 0) + told["submissions"].get("held", 0)
    assert {one["key"]: one["info"] for one in told["notices"]} == {"account:old": False, "waits": True}
    assert told["disk"]["free"] > 0


def test_the_watcher_is_stopped_and_started_and_a_sync_is_asked_for(here, api):
    assert api("GET", "/watcher/status").json()["watching"]
    assert api("POST", "/watcher/stop").json()["suspended"]
    assert not api("POST", "/watcher/start").json()["suspended"]
    for mode in ("full", "incremental"):
        assert api("POST", "/sync", json={"mode": mode}).status_code == 202
        assert here.house.asked[-1] == ("sync", mode)
    assert api("POST", "/sync", json={"mode": "all"}).status_code == 422
    here.house.refuses["suspend_watcher"] = Refusal(409, "it is starting")
    assert api("POST", "/watcher/stop").status_code == 409
    del here.house.refuses["suspend_watcher"]


@pytest.mark.parametrize(("query", "expected"), [
    ("", ["d", "i", "w", "e"]), ("after=2", ["w", "e"]), ("level=WARNING", ["w", "e"]), ("streamer=bob", ["i"]),
    ("limit=1", ["e"]), ("level=ERROR&after=4", []),
])  # fmt: skip
def test_the_log_is_filtered(here, api, monkeypatch, query, expected):
    monkeypatch.setattr(here.house, "lines", [])
    for text, level, bound in (("d", "DEBUG", {}), ("i", "INFO", {"streamer": "bob"}), ("w", "WARNING", {}),
                               ("e", "ERROR", {})):  # fmt: skip
        here.house.say(text, level, **bound)
    assert [line["text"] for line in api("GET", f"/log?{query}").json()] == expected


def test_metrics_say_what_a_monitor_wants_to_know(here, api, monkeypatch):
    answer = api("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    for line in (
        'biliupd_build_info{version="1.2.3"} 1.0', "biliupd_ok 1.0", 'biliupd_streamers{status="live"} 3.0',
        "biliupd_recordings 2.0", 'biliupd_recording_gaps{streamer="nightowl"} 1.0', "biliupd_notices 1.0",
        'biliupd_videos{state="uploading"} 3.0', "biliupd_disk_left_seconds 93600.0", "biliupd_watcher_settling 1.0",
        "biliupd_uploads 3.0", "biliupd_upload_bytes_per_second 1.26e+07", "biliupd_waiting 1.0",
    ):  # fmt: skip
        assert f"\n{line}\n" in f"\n{text}", line
    assert "biliupd_process_resident_memory_bytes" in text
    assert "secret" not in text
    monkeypatch.setattr(here.house, "free", here.house.free.model_copy(update={"seconds_left": None}))
    assert "disk_left" not in api("GET", "/metrics").text


def test_every_kind_of_problem_is_explained(here, api):
    told = requests.get(f"{here.url}/api/problems", timeout=5).text
    kind = requests.get(f"{here.url}/api/status", timeout=5).json()["type"].partition("#")[2]
    assert f"\n{kind}\n" in f"\n{told}"


def test_a_ledger_of_another_version_is_shown_all_the_same(here, api):
    db = here.catalog.db
    ledgers.keep(db, f"{7:016x}", [{"at": "x", "cause": "new kind", "file": "\x01", "media_seconds_at": 1.0,
                                    "seconds": 2.0, "detail": ""}])  # fmt: skip
    assert api("GET", f"/broadcasts/{7:016x}/ledger").json()["rows"][0]["loss"] is True

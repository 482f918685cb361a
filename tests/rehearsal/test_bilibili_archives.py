"""Submissions at the stand-in Bilibili: what is refused, what is shown, what an edit keeps and loses, the review."""

import json
import time

import pytest
from bilibili_client import Client, name_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(("changes", "code"), [
    ({}, 0), ({"title": ""}, 21103), ({"title": "长" * 81}, 21103), ({"title": None}, 21103), ({"tag": ""}, 21005),
    ({"tag": "a" * 21}, 21005), ({"tag": ",".join(map(str, range(13)))}, 21005), ({"copyright": 2}, -400),
    ({"copyright": 4}, -400), ({"tid": 1000}, -400), ({"tid": 1000, "human_type2": 1008}, 0), ({"dtime": 5}, -400),
    ({"desc": "d" * 2001}, -400), ({"videos": []}, -400), ({"videos": [{"filename": 5}]}, -400),
    ({"cover": "http://x/bfs/archive/none.jpg"}, -400), ({"copyright": 2, "source": "x"}, 0),
])  # fmt: skip
def test_a_submission_is_checked(server, client, changes, code):
    name = client.upload()
    assert client.submit(name, **changes)["code"] == code
    assert len(server.archives) == (code == 0)


def test_files_must_be_whole_ones_own_and_unused(server, client, tmp_path):
    other = Client(server, server.write_cookies(tmp_path / "other.json", uid=2))
    name, foreign, unfinished = client.upload(), other.upload(), name_of(client.preupload(2500))
    for filename in ("nnothing", foreign, unfinished):
        assert client.submit(filename)["code"] == 21015
    assert client.submit(name, name)["code"] == 10009
    assert client.submit(name)["code"] == 0
    assert client.submit(name, title="another")["code"] == 10009
    assert client.submit(*[f"n{number}" for number in range(101)])["code"] == 21058


def test_the_same_title_and_a_quick_second_submission_are_refused(server, client):
    server.submit_interval_seconds = 30
    assert client.submit(client.upload())["code"] == 0
    name = client.upload()
    assert client.submit(name)["code"] == 21012
    assert client.submit(name, title="another")["code"] == 21070
    server.submit_interval_seconds = 0
    assert client.submit(name, title="another")["code"] == 0


def test_a_submission_is_listed_reviewed_and_viewed(server, client, tmp_path):
    server.review_seconds = 3600
    name = client.upload()
    made = client.submit(name)["data"]

    def listed(status):
        found = client.get("/x/web/archives", params={"status": status, "pn": 1}).json()["data"]
        return [row["Archive"]["bvid"] for row in found["arc_audits"] or []], found["page"]["count"]

    assert listed("is_pubing") == ([made["bvid"]], 1)
    assert listed("pubed,not_pubed") == ([], 0)
    server.review_seconds = 0
    assert listed("pubed") == ([made["bvid"]], 1)
    server.set_state(made["bvid"], -2, "原因")
    assert listed("not_pubed") == ([made["bvid"]], 1)
    for view in (client.get("/x/vupre/web/archive/view", params={"bvid": made["bvid"]}),
                 client.get("/x/client/archive/view", params={"aid": made["aid"], "access_key": client.token})):
        found = view.json()["data"]
        assert [video["filename"] for video in found["videos"]] == [name]
        assert (found["archive"]["state"], found["archive"]["reject_reason"]) == (-2, "原因")
    other = Client(server, server.write_cookies(tmp_path / "other.json", uid=2))
    assert other.get("/x/vupre/web/archive/view", params={"bvid": made["bvid"]}).json()["code"] == 10003
    server.delay_listing(60)
    assert listed("not_pubed") == ([], 0)


def test_an_edit_replaces_everything_and_goes_to_review_again(server, client):
    first, second = client.upload(), client.upload(b"y" * 10)
    aid = client.submit(first)["data"]["aid"]
    server.review_seconds = 3600
    answer = client.post("/x/vu/web/edit", params={"csrf": client.csrf},
                         json=client.body(first, second, aid=aid, title="neu"))
    assert answer.json()["code"] == 0
    (archive,) = server.archives
    assert ([part.filename for part in archive.parts], archive.title, archive.edits) == ([first, second], "neu", 1)
    assert archive.state(3600) == -6
    gone = client.post("/x/vu/app/edit/full", params=client.signed(), json=client.body(second, aid=aid, title="ohne"))
    assert gone.json()["code"] == 0
    assert [part.filename for part in server.archives[0].parts] == [second]
    assert client.post("/x/vu/app/edit/full", params=client.signed(),
                       json=client.body(first, aid=5)).json()["code"] == -404


def part(filename, **changes):
    return {"filename": filename, "title": "P1", "desc": "", **changes}


@pytest.mark.parametrize("changes", [
    {name: None for name in ("desc_v2", "dtime", "mission_id", "is_only_self", "aid")},
    {"desc": "看 @小明 吧", "desc_v2": [
        {"raw_text": "看 ", "type": 1, "biz_id": ""}, {"raw_text": "小明", "type": 2, "biz_id": "7"},
        {"raw_text": "吧", "type": 1, "biz_id": ""}]},
    {"recreate": -1, "human_type2": 1008, "web_os": 3, "creation_statement": {"id": -1}, "watermark": {"state": 0},
     "topic_id": 5, "topic_detail": {"from_topic_id": 5, "from_source": "arc.web.recommend"}, "new": {"a": 1}},
    {"tag": ",".join(f"标签{number}" for number in range(12))}, {"title": "长" * 80}, {"desc": "d" * 2000},
    {"copyright": 3},
])  # fmt: skip
def test_what_real_clients_send_is_accepted(server, client, changes):
    video = part(client.upload(), title=None, desc=None, cid=None)
    assert client.submit("", videos=[video], **changes)["code"] == 0


@pytest.mark.parametrize(("changes", "code"), [
    *[({name: None}, -400) for name in ("cover", "desc", "tid", "copyright", "recreate", "no_reprint", "topic_id")],
    ({"tid": "171"}, -400), ({"tid": {}}, -400), ({"dtime": "soon"}, -400), ({"no_reprint": 2}, -400),
    ({"recreate": 5}, -400), ({"dolby": True}, -400), ({"up_close_reply": 1}, -400), ({"human_type2": 171}, -400),
    ({"subtitle": []}, -400), ({"watermark": {"state": 2}}, -400), ({"creation_statement": {}}, -400),
    ({"desc": "a", "desc_v2": [{"raw_text": "b", "type": 1, "biz_id": ""}]}, -400), ({"desc_v2": ["a"]}, -400),
    ({"source": "s" * 201, "copyright": 2}, -400), ({"dynamic": "d" * 234}, -400), ({"title": " "}, 21103),
    ({"copyright": 2, "source": "x", "mission_id": 5}, -400), ({"tag": "好,坏词"}, 20042), ({"tag": ["a"]}, 21005),
    ({"cover43": "http://x/bfs/archive/none.jpg"}, -400), ({"copyright": True}, -400),
])  # fmt: skip
def test_a_field_of_the_wrong_kind_or_size_is_refused(server, client, changes, code):
    server.banned_tags = {"坏词"}
    assert client.submit(client.upload(), **changes)["code"] == code
    assert server.archives == []


@pytest.mark.parametrize(("changes", "code"), [
    ({"title": "t" * 81}, 21103), ({"title": 5}, -400), ({"desc": 5}, -400), ({"cid": 5}, -400), ({"cid": "x"}, -400),
    ({"filename": ""}, -400), ({"filename": None}, -400), ({"desc": "d" * 2001}, -400)])
def test_a_part_is_checked(server, client, changes, code):
    assert client.submit("", videos=[{**part(client.upload()), **changes}])["code"] == code


@pytest.mark.parametrize(("seconds", "code"), [
    (3600, -400), (2 * 3600 + 60, 0), (15 * 86400 - 60, 0), (16 * 86400, -400), (-86400, -400)])
def test_the_hour_of_publication_is_two_hours_to_fifteen_days_ahead(server, client, seconds, code):
    answer = client.submit(client.upload(), dtime=int(time.time()) + seconds)
    assert answer["code"] == code
    if not code:
        assert client.view(answer["data"]["bvid"])["data"]["archive"]["state"] == -40


FULL = {
    "copyright": 1, "tid": 17, "title": "全", "tag": "直播,游戏", "desc": "一@乙 ", "dynamic": "动态", "source": "",
    "desc_format_id": 9999, "interactive": 0, "no_reprint": 1, "recreate": -1, "human_type2": 1008, "tid_v2": 2064,
    "topic_id": 77, "mission_id": 88, "dolby": 1, "lossless_music": 1, "no_disturbance": 1, "charging_pay": 1,
    "neutral_mark": "个人观点", "creation_statement": {"id": 2}, "watermark": {"state": 1}, "is_only_self": 1,
    "up_selection_reply": True, "up_close_reply": True, "up_close_danmu": True, "act_reserve_create": 0, "is_360": 1,
    "subtitle": {"open": 1, "lan": "zh-CN"}, "open_subtitle": True, "open_elec": 1,
    "desc_v2": [{"raw_text": "一", "type": 1, "biz_id": ""}, {"raw_text": "乙", "type": 2, "biz_id": "9"}],
}


def shown(view):
    """The same, read from a view."""
    archive = view["archive"]
    same = ("copyright", "tid", "title", "tag", "desc", "dynamic", "source", "desc_format_id", "interactive",
            "no_reprint", "recreate", "human_type2", "topic_id", "mission_id", "lossless_music", "charging_pay",
            "neutral_mark", "creation_statement", "up_close_reply", "up_close_danmu", "is_360", "desc_v2")
    return {name: archive[name] for name in same} | {
        "tid_v2": archive.get("tid_v2"), "dolby": archive["is_dolby"], "is_only_self": archive["attrs"]["is_only_self"],
        "no_disturbance": view["no_disturbance"], "watermark": view["watermark"],
        "up_selection_reply": view["reply"]["up_selection"], "act_reserve_create": view["act_reserve_create"],
        "subtitle": {"open": view["subtitle"]["open"], "lan": view["subtitle"]["lan"]},
        "open_subtitle": view["subtitle"]["allow"], "open_elec": view["arc_elec"]["state"]}


def test_a_view_shows_every_field_that_was_sent(server, client):
    made = client.submit(client.upload(), **FULL)["data"]
    view = client.view(made["bvid"])["data"]
    assert shown(view) == FULL
    assert (view["archive"]["state"], view["archive"]["limited_free"]) == (-50, {"state": 0})


def test_an_edit_keeps_what_it_sends_and_loses_what_it_leaves_out(server, client):
    name = client.upload()
    made = client.submit(name, **FULL)["data"]
    assert client.edit(made["aid"], name, **{**FULL, "title": "新"})["code"] == 0
    assert shown(client.view(made["bvid"])["data"]) == {**FULL, "title": "新"}
    assert client.edit(made["aid"], name, title="短")["code"] == 0
    view = client.view(made["bvid"])["data"]
    left = shown(view)
    lost = [field for field in FULL if left[field] != FULL[field]]
    assert set(FULL) - set(lost) == {"copyright", "source", "interactive", "act_reserve_create"}
    assert (left["recreate"], left["human_type2"], left["watermark"]) == (0, 0, {"state": 0})
    assert view["archive"]["state"] == 0


def test_the_view_of_the_app_has_the_archive_and_the_parts_only(server, client):
    made = client.submit(client.upload())["data"]
    found = client.get("/x/client/archive/view", params={"bvid": made["bvid"], "access_key": client.token}).json()
    assert set(found["data"]) == {"archive", "videos"}
    assert found["data"]["archive"] == client.view(made["bvid"])["data"]["archive"]


@pytest.mark.parametrize(("changes", "code"), [
    ({"limited_free": {"state": 0}}, 21001), ({"limited_free": None}, 0), ({"limited_free": 1}, 21001),
    ({"state_machine": {"a": 1}}, 21001),
    ({"unheard_of": [1]}, 21001), ({"unheard_of": 1}, 0), ({"tp_info": {"id": 1}, "attrs": {}, "activity": None}, 0),
    ({"title": ""}, 21103), ({"tag": ""}, 21005), ({"dtime": 5}, -400), ({"subtitle": None}, -400)])
def test_an_edit_is_checked_and_what_only_the_server_knows_is_not_taken_back(server, client, changes, code):
    name = client.upload()
    made = client.submit(name)["data"]
    assert client.edit(made["aid"], name, **changes)["code"] == code
    assert server.archives[0].edits == (code == 0)


def test_an_edit_may_repeat_an_hour_that_is_near_or_past(server, client):
    name = client.upload()
    made = client.submit(name, dtime=int(time.time()) + 3 * 3600)["data"]
    server.archives[0].body["dtime"] = int(time.time()) - 60
    assert client.edit(made["aid"], name, dtime=server.archives[0].body["dtime"])["code"] == 0
    assert client.edit(made["aid"], name, dtime=server.archives[0].body["dtime"] + 1)["code"] == -400


def test_an_edit_is_for_the_owner(server, client, tmp_path):
    other = Client(server, server.write_cookies(tmp_path / "other.json", uid=2))
    name = client.upload()
    made = client.submit(name)["data"]
    assert other.edit(made["aid"], name)["code"] == -403
    assert client.edit(5, name)["code"] == -404
    assert client.edit(None, name)["code"] == -404
    body = client.body(name, aid=made["aid"])
    assert client.post("/x/vu/web/edit", params={"csrf": "x"}, json=body).json()["code"] == -111
    body = client.body(name, aid=made["aid"], csrf="x")
    assert client.post("/x/vu/web/edit", params={"csrf": client.csrf}, json=body).json()["code"] == -111


def test_the_parts_an_archive_has_are_known_by_cid_or_by_file(server, client):
    first, second, third = (client.upload(bytes(number)) for number in (10, 20, 30))
    made = client.submit(first, second)["data"]
    cids = [video["cid"] for video in client.view(made["bvid"])["data"]["videos"]]
    answer = client.edit(made["aid"], {"cid": cids[1], "title": "neu"}, part(first, cid=cids[0]), third)
    assert answer["code"] == 0
    videos = client.view(made["bvid"])["data"]["videos"]
    assert [video["filename"] for video in videos] == [second, first, third]
    assert [video["cid"] for video in videos[:2]] == cids[::-1]
    for wrong in (part(first, cid=cids[1]), {"cid": 5}, {"title": "x"}, part("nnothing")):
        assert client.edit(made["aid"], wrong)["code"] in (-400, 21015)
    assert client.edit(made["aid"], part(first), {"cid": cids[0]})["code"] == 10009
    assert [part.filename for part in server.archives[0].parts] == [second, first, third]


def test_an_edit_brings_at_most_a_hundred_parts_that_do_not_say_their_cid(server, client):
    names = [client.upload(bytes([number])) for number in range(102)]
    made = client.submit(*names[:51])["data"]
    videos = client.view(made["bvid"])["data"]["videos"]
    assert client.edit(made["aid"], *names)["code"] == 21058
    known = [{"filename": video["filename"], "cid": video["cid"]} for video in videos]
    assert client.edit(made["aid"], *known, *names[51:])["code"] == 0
    assert len(server.archives[0].parts) == 102


def test_the_ways_to_submit_and_those_that_are_closed(server, client):
    def web(path):
        title = path
        body = client.body(client.upload(path.encode()), title=title)
        return client.post(path, params={"csrf": client.csrf}, json=body).json()["code"]

    assert [web(path) for path in ("/x/vu/web/add/v3", "/x/vu/web/add", "/x/vu/mvp/pc/add")] == [0, 0, 0]
    assert [web(path) for path in ("/x/vu/client/add", "/x/vu/client/edit")] == [21590, 21590]
    assert client.post("/x/vu/mvp/add", params=client.signed(), json=client.body(client.upload())).json()["code"] == 0
    spoiled = client.signed() | {"ts": str(int(time.time()) - 5)}
    assert client.post("/x/vu/app/add", params=spoiled, json=client.body(client.upload())).json()["code"] == -3
    late = client.signed(ts=str(int(time.time()) - 700))
    assert client.post("/x/vu/app/add", params=late, json=client.body(client.upload())).json()["code"] == -3
    forged = client.signed(access_key="forged")
    assert client.post("/x/vu/app/add", params=forged, json=client.body(client.upload())).json()["code"] == -101
    assert client.post("/x/vu/app/add", params=client.signed(), data=b"{").json()["code"] == -400
    assert len(server.archives) == 4


def test_review_goes_in_steps_and_again_after_an_edit(server, client):
    name = client.upload()
    server.review_seconds = 3600
    made = client.submit(name)["data"]
    states = []

    def look():
        found = client.view(made["bvid"])["data"]
        states.append((found["archive"]["state"], found["videos"][0]["status"]))

    look()
    server.review_seconds = 0
    look()
    server.review_seconds = 3600
    client.edit(made["aid"], name)
    look()
    server.set_state(made["bvid"], -16, "转码失败")
    look()
    client.edit(made["aid"], name)
    look()
    assert states == [(-30, -30), (0, 0), (-6, -6), (-16, -16), (-30, -30)]
    assert client.view(made["bvid"])["data"]["archive"]["reject_reason"] == ""


def test_one_part_can_fail_and_the_others_not(server, client):
    first, second = client.upload(), client.upload(b"2")
    made = client.submit(first, second)["data"]
    server.set_part(second, status=-16, fail_code=9, fail_desc="转码失败", xcode_state=3)
    good, bad = client.view(made["bvid"])["data"]["videos"]
    assert (good["status"], good["fail_code"], good["xcode_state"]) == (0, 0, 6)
    assert (bad["status"], bad["fail_code"], bad["fail_desc"], bad["xcode_state"]) == (-16, 9, "转码失败", 3)
    server.set_part(second)
    assert client.view(made["bvid"])["data"]["videos"][1]["status"] == 0


def test_views_can_lag(server, client):
    first, second = client.upload(), client.upload(b"2")
    made = client.submit(first)["data"]
    server.delay_view(60)
    assert client.view(made["bvid"])["code"] == 10003
    server.archives[0].created_at -= 120
    client.edit(made["aid"], first, second, title="neu")
    found = client.view(made["bvid"])["data"]
    assert ([video["filename"] for video in found["videos"]], found["archive"]["title"]) == ([first], "标题")
    server.delay_view(0)
    found = client.view(made["bvid"])["data"]
    assert ([video["filename"] for video in found["videos"]], found["archive"]["title"]) == ([first, second], "neu")


def test_the_list_has_pages_and_can_be_narrowed(server, client):
    for number in range(5):
        client.submit(client.upload(bytes([number])), title=f"第{number}期", tid=17 if number % 2 else 171)

    def listed(**query):
        found = client.get("/x/web/archives", params={"status": "pubed", **query}).json()["data"]
        return [row["Archive"]["title"] for row in found["arc_audits"] or []], found["page"]

    assert listed(pn=1, ps=2) == (["第4期", "第3期"], {"pn": 1, "ps": 2, "count": 5})
    assert listed(pn=3, ps=2)[0] == ["第0期"]
    assert listed(pn=4, ps=2) == ([], {"pn": 4, "ps": 2, "count": 5})
    assert listed(keyword="第2")[0] == ["第2期"]
    assert listed(tid=17)[0] == ["第3期", "第1期"]
    assert client.get("/x/web/archives", params={"pn": "x"}).json()["code"] == -400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)
FIELDS = sorted({*FULL, "videos", "aid", "dtime", "cover", "cover43", "limited_free", "attrs", "csrf", "unheard_of"})
PART_FIELDS = ("filename", "cid", "title", "desc")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3),
       spoiled=st.dictionaries(st.sampled_from(PART_FIELDS), JSON, max_size=2), editing=st.booleans())
def test_no_body_makes_the_server_stumble(server, client, changes, spoiled, editing):
    """Every answer is an envelope with a code; a bug would end the connection without one."""
    server.same_title_seconds = 0
    if not server.archives:
        client.submit(client.upload())
    old = server.archives[0]
    body = {**client.body(aid=old.aid), "videos": [{**part(old.parts[0].filename), **spoiled}], **changes}
    path, query = ("/x/vu/app/edit/full" if editing else "/x/vu/app/add"), client.signed()
    answer = client.post(path, params=query, json=None, data=json.dumps(body).encode()).json()
    assert isinstance(answer["code"], int)
    assert client.view(old.bvid)["code"] == 0
    assert client.get("/x/web/archives").json()["code"] == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"null", b"\xff", b"[" * 100_000, b'{"videos": {}}'])
def test_what_is_no_submission_is_a_bad_request(server, client, body):
    for path in ("/x/vu/app/add", "/x/vu/app/edit/full"):
        assert client.post(path, params=client.signed(), data=body).json()["code"] in (-400, -404)

"""The body of a submission: every field, every limit, and what an edit keeps."""

from datetime import UTC, datetime, timedelta

import pytest

from biliupd.config import Template
from biliupd.errors import PermanentError
from biliupd.publish.studio import Part, cut, edited, studio

ONE = [Part("n1", "P1", 0)]
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def said(**fields):
    return Template().model_copy(update={"title": "t", **fields})


def test_too_long_is_cut_and_doubles_are_left_out():
    body = studio(said(
        title="长" * 100, desc="d" * 3000, dynamic="e" * 300, source="s" * 300, copyright=2,
        tags=["a", " a ", "b,c，d", "x" * 30, "", *"efghijkl"]), [Part("n1", "p" * 90, 7)])
    assert body["title"] == "长" * 79 + "…"
    assert [len(body[name]) for name in ("desc", "dynamic", "source")] == [2000, 233, 200]
    assert body["tag"] == f"a,b,c,d,{'x' * 20},e,f,g,h,i"
    assert body["videos"] == [{"filename": "n1", "title": "p" * 79 + "…", "desc": "", "cid": 7}]


@pytest.mark.parametrize(("text", "limit", "short"), [
    ("abc", 3, "abc"), ("abcd", 3, "ab…"), ("ab  cd", 4, "ab…"), ("e\u0301e\u0301e\u0301", 4, "e\u0301…"),
    ("ab👩\u200d👩\u200d👧cd", 5, "ab…"), ("the quick brown fox runs home", 28, "the quick brown fox runs…"),
    ("直播直播直播直播", 5, "直播直播…"), ("x" * 40, 20, "x" * 19 + "…"), ("part 2026-11-22", 13, "part 2026-11…"),
])
def test_a_cut_tears_neither_a_character_nor_a_word(text, limit, short):
    assert cut(text, limit) == short


def test_line_breaks_in_a_title_become_blanks():
    assert studio(said(title=" a\n b\t"), ONE)["title"] == "a b"


def test_extra_fields_are_sent_as_they_are_but_cannot_take_the_parts_away():
    body = studio(said(extra_fields={"human_type2": 1008, "dolby": 1, "videos": [], "aid": 5}), ONE)
    assert (body["human_type2"], body["dolby"], len(body["videos"])) == (1008, 1, 1)
    assert "aid" not in body


@pytest.mark.parametrize(("template", "parts", "why"), [
    (said(title=" "), ONE, "title is empty"), (said(tags=[" ,"]), ONE, "no tag"),
    (said(copyright=2), ONE, "source"), (said(copyright=2, source="x", mission_id=5), ONE, "activity"),
    (said(), [], "0 parts"), (said(), ONE + ONE, "twice"), (said(dtime="2027-01-01 00:00"), ONE, "15 days"),
    (said(), [Part(f"n{number}", "p", 0) for number in range(101)], "101 parts"),
])  # fmt: skip
def test_what_cannot_be_cut_is_for_a_person(template, parts, why):
    with pytest.raises(PermanentError, match=why):
        studio(template, parts, now=NOW)


@pytest.mark.parametrize(("said_so", "sent"), [
    ({"dolby": True}, {"dolby": 1}),
    ({"hires": True}, {"lossless_music": 1}),
    ({"no_reprint": False}, {"no_reprint": 0}), ({"recreate": 1}, {"recreate": 1}),
    ({"no_disturbance": True}, {"no_disturbance": 1}),
    ({"charging_pay": True}, {"charging_pay": 1}), ({"is_only_self": True}, {"is_only_self": 1}),
    ({"up_selection_reply": True}, {"up_selection_reply": True}),
    ({"up_close_reply": True}, {"up_close_reply": True}),
    ({"up_close_danmu": True}, {"up_close_danmu": True}), ({"human_type2": 1008}, {"human_type2": 1008}),
    ({"tid_v2": 2064}, {"tid_v2": 2064}), ({"open_elec": False}, {"open_elec": 0}), ({"is_360": True}, {"is_360": 1}),
    ({"watermark": True}, {"watermark": {"state": 1}}), ({"mission_id": 7}, {"mission_id": 7}),
    ({"topic_id": 9}, {"topic_id": 9, "topic_detail": {"from_topic_id": 9, "from_source": "arc.web.recommend"}}),
    ({"neutral_mark": "含AI"}, {"neutral_mark": "含AI"}),
    ({"creation_statement": 3}, {"creation_statement": {"id": 3}}),
    ({"copyright": 3}, {"copyright": 3, "creation_statement": {"id": -1}}),
    ({"tid": 17}, {"tid": 17}),
    ({"dtime": "2026-11-23 20:00:00+00:00"}, {"dtime": int(datetime(2026, 11, 23, 20, tzinfo=UTC).timestamp())}),
])  # fmt: skip
def test_each_field_is_sent_under_bilibilis_name(said_so, sent):
    body = studio(said(**said_so), ONE, now=NOW)
    assert {name: body[name] for name in sent} == sent


def test_what_nobody_asked_for_is_not_sent():
    body = studio(said(), ONE)
    for name in ("human_type2", "tid_v2", "open_elec", "is_360", "watermark", "topic_id", "neutral_mark",
                 "creation_statement", "topic_detail"):
        assert name not in body
    assert (body["dtime"], body["mission_id"], body["desc_v2"]) == (None, None, None)


def test_a_mention_is_a_piece_of_the_description_and_the_pieces_make_up_the_whole():
    body = studio(said(desc="谢谢 @某人 和 @other 们", mentions={"某人": 12, "other": 34}), ONE)
    assert body["desc_v2"] == [
        {"raw_text": "谢谢 ", "type": 1, "biz_id": ""}, {"raw_text": "某人", "type": 2, "biz_id": "12"},
        {"raw_text": "和 ", "type": 1, "biz_id": ""}, {"raw_text": "other", "type": 2, "biz_id": "34"},
        {"raw_text": "们", "type": 1, "biz_id": ""}]
    joined = "".join(f"@{p['raw_text']} " if p["type"] == 2 else p["raw_text"] for p in body["desc_v2"])
    assert joined == body["desc"]


@pytest.mark.parametrize("dtime", ["2026-11-22 13:00:00+00:00", "2020-01-01 00:00", "+4h"])
def test_a_schedule_that_has_become_too_early_moves_to_the_earliest_moment_never_to_now(dtime):
    at = studio(said(dtime=dtime), ONE, now=NOW)["dtime"]
    assert timedelta(hours=4) <= datetime.fromtimestamp(at, UTC) - NOW <= timedelta(hours=4, minutes=10)


def test_a_time_of_the_day_is_the_next_one_that_bilibili_takes():
    local = NOW.astimezone()
    soon = studio(said(dtime=(local + timedelta(hours=2)).strftime("%H:%M")), ONE, now=NOW)["dtime"]
    later = studio(said(dtime=(local + timedelta(hours=6)).strftime("%H:%M")), ONE, now=NOW)["dtime"]
    assert (datetime.fromtimestamp(soon, UTC) - NOW, datetime.fromtimestamp(later, UTC) - NOW) == (
        timedelta(hours=26), timedelta(hours=6))


def test_an_edit_says_everything_again_that_the_view_shows_and_what_it_never_shows():
    submitted = studio(said(desc="old", up_close_danmu=True, dolby=True, tid=17, watermark=True), ONE, cover_url="u1")
    view = {
        "archive": {"aid": 5, "bvid": "BV1", "mid": 7, "title": "changed at Bilibili", "tag": "a,b", "desc": "new",
                    "tid": 21, "cover": "u2", "copyright": 1, "state": -50, "limited_free": {"x": 1}, "attrs": {},
                    "is_dolby": 1, "human_type2": 0, "topic_id": 0, "dtime": 1, "recreate": -1, "neutral_mark": "m"},
        "videos": [{"filename": "n1", "title": "P1", "desc": None, "cid": 11, "index": 1}],
        "reply": {"up_selection": True}, "watermark": {"state": 0}, "no_disturbance": 1, "staffs": None}
    body = edited(view, [Part("n2", "P2", 12)], submitted, now=NOW)
    assert body["videos"] == [
        {"filename": "n1", "title": "P1", "desc": "", "cid": 11},
        {"filename": "n2", "title": "P2", "desc": "", "cid": 12}]
    kept = {"aid": 5, "title": "changed at Bilibili", "tag": "a,b", "desc": "new", "tid": 21, "cover": "u2", "dolby": 1,
            "up_close_danmu": True, "up_selection_reply": True, "watermark": {"state": 0}, "no_disturbance": 1,
            "is_only_self": 1, "neutral_mark": "m", "recreate": -1, "dtime": None}
    assert {name: body[name] for name in kept} == kept
    for name in ("limited_free", "attrs", "state", "mid", "bvid", "human_type2", "topic_id"):
        assert name not in body


def test_an_edit_keeps_a_schedule_that_is_still_to_come():
    at = int((NOW + timedelta(hours=1)).timestamp())
    view = {"archive": {"aid": 5, "title": "t", "dtime": at}, "videos": []}
    assert edited(view, ONE, {}, now=NOW)["dtime"] == at

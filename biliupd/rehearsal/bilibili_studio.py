"""The description of a submission at the stand-in Bilibili: what is wrong with one, and how it is shown again.

Pure: nothing is read but what is given. Speaks §4.2, §4.6 and §5.6 of the upload protocol. What a client sends is the
only source of what it is shown later, so that a client that forgets a field in an edit has really lost it.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

from biliupd.rehearsal.bilibili_envelope import refuse

ZONES = {
    160, 138, 254, 250, 251, 239, 161, 162, 21, 4, 17, 65, 172, 171, 173, 136, 121, 19, 5, 71, 241, 242, 137, 36,
    201, 124, 228, 207, 208, 209, 229, 122, 181, 182, 183, 85, 256, 184, 3, 31, 59, 130, 29, 193, 244, 28, 30,
    243, 1, 24, 25, 47, 257, 210, 86, 253, 27, 155, 157, 252, 158, 159, 211, 76, 212, 213, 214, 215, 223, 245,
    246, 247, 248, 240, 227, 176, 234, 235, 249, 164, 236, 237, 238, 188, 95, 230, 231, 232, 233, 217, 218, 219,
    222, 221, 220, 75, 129, 20, 154, 255, 198, 199, 200, 156, 167, 153, 168, 169, 170, 195, 119, 22, 26, 126, 216,
    127, 177, 37, 178, 179, 180, 13, 51, 152, 32, 33, 11, 185, 23, 147,
}
HUMAN_TYPES = set(range(1001, 1032)) - {1028}
MOST_PARTS = 100
TITLE_CHARACTERS = 80
TEXTS = {"cover": 1000, "cover43": 1000, "source": 200, "desc": 2000, "dynamic": 233, "neutral_mark": 1000, "csrf": 100}
NUMBERS = ("tid", "human_type2", "tid_v2", "desc_format_id", "dtime", "interactive", "mission_id", "topic_id",
           "act_reserve_create", "web_os", "aid")
FLAGS = ("dolby", "lossless_music", "no_reprint", "no_disturbance", "is_only_self", "charging_pay", "open_elec", "elec")
CHOICES: dict[str, Collection[int]] = {
    "copyright": (1, 2, 3), "recreate": (-1, 0, 1), "is_360": (-1, 0, 1), **dict.fromkeys(FLAGS, (0, 1))}
SWITCHES = ("up_selection_reply", "up_close_reply", "up_close_danmu", "open_subtitle")
NULLABLE = {"desc_v2", "dtime", "mission_id", "is_only_self", "aid", "tid_v2", "limited_free"}
OBJECTS = {"subtitle": dict, "watermark": dict, "creation_statement": dict, "topic_detail": dict, "desc_v2": list,
           "videos": list}
ECHOED = {"attrs", "activity", "tp_info", "dynamic_v2", "staffs", "porder"}  #: of the view, and ignored in an edit
SOONEST_SECONDS, LATEST_SECONDS, SLACK_SECONDS = 2 * 3600, 15 * 86400, 60
STATE_WORDS = {0: "开放浏览", -1: "待审", -30: "审核中", -6: "修复待审", -40: "审核通过", -50: "仅自己可见", -2: "打回",
               -4: "锁定", -16: "转码失败"}


def check(body: Any, *, banned_tags: Collection[str] = (), before: dict[str, Any] | None = None) -> None:
    """Refuse a body as Bilibili does (§4.6); `before` is the one that an edit replaces. Its files are not looked at."""
    if not isinstance(body, dict) or not isinstance(body.get("videos"), list) or not body["videos"]:
        refuse(-400)
    _check_types(body, editing=before is not None)
    title = body.get("title")
    if not isinstance(title, str) or not title.strip() or len(title) > TITLE_CHARACTERS:
        refuse(21103)
    _check_tags(body.get("tag"), banned_tags)
    if "copyright" not in body or (body["copyright"] == 2 and not str(body.get("source") or "").strip()):
        refuse(-400, "copyright 或 source 有误")
    if body["copyright"] == 2 and body.get("mission_id"):
        refuse(-400, "转载稿件不能参加活动")
    _check_zone(body)
    _check_desc(body)
    dtime = body.get("dtime") or 0
    if dtime and dtime != ((before or {}).get("dtime") or 0):
        ahead = dtime - time.time()
        if not SOONEST_SECONDS - SLACK_SECONDS <= ahead <= LATEST_SECONDS + SLACK_SECONDS:
            refuse(-400, "定时发布时间有误")
    _check_videos(body["videos"], editing=before is not None)


def _check_types(body: dict[str, Any], *, editing: bool) -> None:
    """Null where Bilibili takes null, the right kind of value elsewhere; what only its server knows is not for us."""
    if editing and body.get("limited_free") is not None:
        refuse(21001, "参数错误: limited_free")
    for name, entry in body.items():
        if editing and isinstance(entry, dict | list) and name not in {*OBJECTS, *ECHOED}:
            refuse(21001, f"参数错误: {name}")
        if entry is None:
            if name in NULLABLE | ECHOED or name not in _KINDS:
                continue
            refuse(-400, f"{name} 不能为空")
        if name in _KINDS and not _KINDS[name](entry):
            refuse(-400, f"{name} 有误")


def _is_number(entry: Any) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool)


def _text_within(most: int) -> Callable[[Any], bool]:
    return lambda entry: isinstance(entry, str) and len(entry) <= most


def _one_of(choices: Collection[int]) -> Callable[[Any], bool]:
    return lambda entry: _is_number(entry) and entry in choices


def _of_kind(kind: type) -> Callable[[Any], bool]:
    return lambda entry: isinstance(entry, kind)


_KINDS: dict[str, Callable[[Any], bool]] = {
    **{name: _text_within(most) for name, most in TEXTS.items()}, **dict.fromkeys(NUMBERS, _is_number),
    **{name: _one_of(choices) for name, choices in CHOICES.items()}, **dict.fromkeys(SWITCHES, _of_kind(bool)),
    **{name: _of_kind(kind) for name, kind in OBJECTS.items()},
    "watermark": lambda entry: isinstance(entry, dict) and entry.get("state") in (0, 1),
    "creation_statement": lambda entry: isinstance(entry, dict) and _is_number(entry.get("id")),
}


def _check_tags(tags: Any, banned: Collection[str]) -> None:
    words = [word for word in tags.split(",") if word.strip()] if isinstance(tags, str) else []
    if not 1 <= len(words) <= 12 or any(len(word) > 20 for word in words):
        refuse(21005)
    if any(word.strip() in banned for word in words):
        refuse(20042)


def _check_zone(body: dict[str, Any]) -> None:
    human = body.get("human_type2") or 0
    if (human and human not in HUMAN_TYPES) or (body.get("tid") not in ZONES and not human):
        refuse(-400, "分区不存在")


def _check_desc(body: dict[str, Any]) -> None:
    """`desc_v2` has to say the same as `desc`: texts as they are, people with an @ before and a blank behind."""
    pieces = body.get("desc_v2")
    if not pieces:
        return
    if not all(isinstance(piece, dict) and isinstance(piece.get("raw_text"), str) and piece.get("type") in (1, 2)
               for piece in pieces):
        refuse(-400, "desc_v2 有误")
    joined = "".join(piece["raw_text"] if piece["type"] == 1 else f"@{piece['raw_text']} " for piece in pieces)
    if joined != body.get("desc", ""):
        refuse(-400, "desc_v2 与 desc 不符")


def _check_videos(videos: list[Any], *, editing: bool) -> None:
    if len(videos) > MOST_PARTS and not editing:
        refuse(21058)
    for video in videos:
        if not isinstance(video, dict):
            refuse(-400)
        name, cid = video.get("filename"), video.get("cid")
        if not (isinstance(name, str) and name) and not (editing and name is None and _is_number(cid) and cid):
            refuse(-400, "filename 有误")
        if cid is not None and not _is_number(cid):
            refuse(-400, "cid 有误")
        for entry in (video.get("title"), video.get("desc")):
            if entry is not None and not isinstance(entry, str):
                refuse(-400)
        if len(video.get("title") or "") > TITLE_CHARACTERS:
            refuse(21103, "分P标题须在80字以内")
        if len(video.get("desc") or "") > TEXTS["desc"]:
            refuse(-400, "分P简介过长")


def shown_archive(body: dict[str, Any], numbers: dict[str, Any], state: int, reject_reason: str) -> dict[str, Any]:
    """`archive` of a view and `Archive` of a list; `numbers` are aid, bvid, mid, ctime and ptime."""
    tid = body.get("tid", 0)
    archive = {
        **numbers, "tid": tid, "tp_info": {"id": tid, "name": "", "parent": 0}, "author": f"主播{numbers['mid']}",
        "title": body["title"], "cover": body.get("cover", ""), "tag": body["tag"], "desc": body.get("desc", ""),
        "desc_format_id": body.get("desc_format_id", 0), "desc_v2": body.get("desc_v2"),
        "dynamic": body.get("dynamic", ""), "dynamic_v2": None, "source": body.get("source", ""),
        "copyright": body["copyright"], "no_reprint": body.get("no_reprint", 0), "duration": 0, "attribute": 0,
        "attrs": {"is_only_self": body.get("is_only_self") or 0, "is_coop": 0, "is_owner": 1},
        "mission_id": body.get("mission_id") or 0, "mission_name": "", "reject_reason": reject_reason,
        "reject_reason_url": "", "state": state, "state_desc": STATE_WORDS.get(state, str(state)), "state_panel": 0,
        "dtime": body.get("dtime") or 0, "interactive": body.get("interactive", 0), "is_360": body.get("is_360", -1),
        "is_dolby": body.get("dolby", 0), "lossless_music": body.get("lossless_music", 0),
        "topic_id": body.get("topic_id", 0), "topic_name": "", "recreate": body.get("recreate", 0),
        "charging_pay": body.get("charging_pay", 0), "neutral_mark": body.get("neutral_mark", ""),
        "human_type2": body.get("human_type2", 0), "creation_statement": body.get("creation_statement", {"id": -1}),
        "up_close_reply": body.get("up_close_reply", False), "up_close_danmu": body.get("up_close_danmu", False),
        "limited_free": {"state": 0}, "activity": None,
    }
    return archive | {name: body[name] for name in ("cover43", "tid_v2") if body.get(name)}


def shown_beside(body: dict[str, Any]) -> dict[str, Any]:
    """What the web's view has beside `archive` and `videos`."""
    subtitle = body.get("subtitle", {})
    return {
        "subtitle": {"allow": body.get("open_subtitle", False), "open": subtitle.get("open", 0),
                     "lan": subtitle.get("lan", "")},
        "staffs": None, "tip": {"id": 0, "content": "", "link": ""},
        "watermark": {"state": body.get("watermark", {}).get("state", 0)},
        "arc_elec": {"state": body.get("open_elec", body.get("elec", 0))},
        "reply": {"up_selection": body.get("up_selection_reply", False)}, "in_season": False,
        "no_disturbance": body.get("no_disturbance", 0), "origin_state": 0,
        "act_reserve_create": body.get("act_reserve_create", 0),
    }

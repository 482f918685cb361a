"""Metadata and parts → the JSON body of a submission (稿件), within Bilibili's limits (bilibili-upload.md, 4.2).

Pure: what is too long is cut, what cannot be cut is named. Where sources disagree about a field, it holds what the big
clients send.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from biliupd.config import LEAST_DTIME, MOST_DTIME, Template, scheduled
from biliupd.errors import PermanentError

MOST_PARTS = 100
MOST_TAGS = 10
MOST_TAG_CHARACTERS = 20
MOST_TITLE_CHARACTERS = 80
MOST_DESC_CHARACTERS = 2000
DTIME_SLACK = timedelta(minutes=5)  #: the submit itself takes a while
KEPT_FIELDS = ("videos", "aid", "csrf")  #: extra_fields may not touch these
#: fields of a view that only the server makes; echoed back, an edit is refused with 21001 or they mean nothing
SERVER_ONLY = frozenset((
    "limited_free", "activity", "attrs", "attribute", "tp_info", "author", "mid", "duration", "state", "state_desc",
    "state_panel", "reject_reason", "reject_reason_url", "ptime", "ctime", "dynamic_v2", "mission_name", "topic_name",
    "bvid", "is_dolby", "videos",
))  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One uploaded file as a part (分P): UPOS's name, the title under which it is shown, and its cid (0: unknown)."""

    filename: str
    title: str
    cid: int
    desc: str = ""


def studio(
    template: Template, parts: Sequence[Part], *, cover_url: str = "", now: datetime | None = None
) -> dict[str, Any]:
    """The body of a new submission; the template's placeholders are filled in already.

    Raises PermanentError naming everything that cannot be cut.
    """
    title, tags = title_of(template.title), _tags(template.tags)
    dtime = _dtime(template.dtime, now or datetime.now(UTC))
    names = [part.filename for part in parts]
    problems = {
        "the title is empty": not title,
        "there is no tag": not tags,
        "a repost needs its source": template.copyright == 2 and not template.source.strip(),
        "a repost cannot join an activity": template.copyright == 2 and bool(template.mission_id),
        "dtime is more than 15 days ahead": dtime < 0,
        f"{len(parts)} parts; Bilibili takes 1 to {MOST_PARTS}": not 1 <= len(parts) <= MOST_PARTS,
        "the same file is there twice": len(set(names)) != len(names),
    }
    if wrong := [text for text, holds in problems.items() if holds]:
        raise PermanentError(f"not submitted: {'; '.join(wrong)}", hint="mend the template, then retry")
    body = _fixed(template) | _chosen(template)
    body |= {"title": title, "tag": ",".join(tags), "cover": cover_url, "dtime": dtime or None}
    body |= {name: entry for name, entry in template.extra_fields.items() if name not in KEPT_FIELDS}
    body["videos"] = [video(part) for part in parts]
    return body


def _fixed(template: Template) -> dict[str, Any]:
    """What every submission says."""
    desc = cut(template.desc, MOST_DESC_CHARACTERS)
    return {
        "copyright": template.copyright, "source": cut(template.source.strip(), 200) if template.copyright != 1 else "",
        "tid": template.tid, "desc_format_id": 0, "desc": desc, "desc_v2": _desc_v2(desc, template.mentions),
        "dynamic": cut(template.dynamic, 233), "subtitle": {"open": 0, "lan": ""}, "open_subtitle": False,
        "interactive": 0, "act_reserve_create": 0, "mission_id": template.mission_id, "dolby": int(template.dolby),
        "lossless_music": int(template.hires), "no_reprint": int(template.no_reprint), "recreate": template.recreate,
        "no_disturbance": int(template.no_disturbance), "charging_pay": int(template.charging_pay),
        "is_only_self": int(template.is_only_self), "up_selection_reply": template.up_selection_reply,
        "up_close_reply": template.up_close_reply, "up_close_danmu": template.up_close_danmu, "web_os": 1,
    }  # fmt: skip


def _chosen(template: Template) -> dict[str, Any]:
    """What is sent only when somebody asked for it."""
    body: dict[str, Any] = {}
    for name in ("human_type2", "tid_v2"):
        if (number := getattr(template, name)) is not None:
            body[name] = number
    if template.open_elec is not None:
        body["open_elec"] = int(template.open_elec)
    if template.is_360:
        body["is_360"] = 1
    if template.watermark is not None:
        body["watermark"] = {"state": int(template.watermark)}
    if template.topic_id is not None:
        body["topic_id"] = template.topic_id
        body["topic_detail"] = {"from_topic_id": template.topic_id, "from_source": "arc.web.recommend"}
    if template.neutral_mark:
        body["neutral_mark"] = template.neutral_mark
    statement = -1 if template.copyright == 3 and template.creation_statement is None else template.creation_statement
    if statement is not None:
        body["creation_statement"] = {"id": statement}
    return body


def _desc_v2(desc: str, mentions: Mapping[str, int]) -> list[dict[str, Any]] | None:
    """The description in pieces, so that each `@name ` in it leads to that account; None without any."""
    pieces: list[dict[str, Any]] = []
    text = ""
    rest = desc
    while rest:
        name = next((name for name in mentions if rest.startswith(f"@{name} ")), None)
        if name is None:
            text, rest = text + rest[0], rest[1:]
            continue
        if text:
            pieces.append({"raw_text": text, "type": 1, "biz_id": ""})
        pieces.append({"raw_text": name, "type": 2, "biz_id": str(mentions[name])})
        text, rest = "", rest[len(name) + 2:]
    if not pieces:
        return None
    return [*pieces, {"raw_text": text, "type": 1, "biz_id": ""}] if text else pieces


def _dtime(text: str, now: datetime) -> int:
    """Unix seconds; 0: at once, -1: too far ahead. What became too early meanwhile moves to the earliest moment."""
    at = scheduled(text, now)
    if at is None:
        return 0
    if at > now + MOST_DTIME:
        return -1
    return int(max(at, now + LEAST_DTIME + DTIME_SLACK).timestamp())


def video(part: Part) -> dict[str, Any]:
    """One entry of `videos`."""
    entry = {"filename": part.filename, "title": title_of(part.title), "desc": part.desc}
    return entry | ({"cid": part.cid} if part.cid else {})


def edited(
    view: Mapping[str, Any], parts: Sequence[Part], submitted: Mapping[str, Any], order: Sequence[str] = (),
    now: datetime | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The body of an edit that appends `parts` to the archive of a view, everything else as it is (§5.7).

    `order` names files in the order they shall have; others stay before them.

    An edit replaces the whole description, so that what is not said again is lost. What the view shows holds, because
    somebody may have changed it at Bilibili; what it never shows is taken from `submitted`, our own submission's body.
    """
    archive = view["archive"]
    body = {name: entry for name, entry in submitted.items() if name not in ("csrf", "cover43")}
    if archive.get("desc") != submitted.get("desc"):
        body["desc_v2"] = None  # ours are pieces of another text
    body |= {name: entry for name, entry in archive.items() if name not in SERVER_ONLY and entry is not None}
    if "is_dolby" in archive:
        body["dolby"] = int(bool(archive["is_dolby"]))
    reply, watermark = view.get("reply"), view.get("watermark")
    if isinstance(reply, dict) and "up_selection" in reply:
        body["up_selection_reply"] = bool(reply["up_selection"])
    if isinstance(watermark, dict) and "state" in watermark:
        body["watermark"] = {"state": int(watermark["state"])}
    for name in ("no_disturbance", "act_reserve_create"):
        if isinstance(view.get(name), int):
            body[name] = view[name]
    if archive.get("state") == -50:
        body["is_only_self"] = 1
    for name in ("human_type2", "topic_id", "mission_id", "dtime"):  # 0 in a view: there is none
        if not body.get(name):
            body.pop(name, None)
    if body.get("dtime", 0) <= (now or datetime.now(UTC)).timestamp():  # it is out: no second schedule
        body["dtime"] = None
    old = [
        {"filename": entry["filename"], "title": entry.get("title") or "", "desc": entry.get("desc") or "",
         "cid": entry.get("cid") or 0} for entry in view.get("videos") or []
    ]  # fmt: skip
    place = {name: number for number, name in enumerate(order)}
    videos = [*old, *(video(part) for part in parts)]
    return {**body, "aid": archive["aid"], "videos": sorted(videos, key=lambda one: place.get(one["filename"], -1))}


def title_of(text: str) -> str:
    """A title as it is sent: one line, cut to 80 characters."""
    return cut(" ".join(text.split()), MOST_TITLE_CHARACTERS)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters; what is cut ends in …, not within a character made of several, nor within a word."""
    if len(text) <= limit:
        return text
    end = limit - 1
    while end and (unicodedata.combining(text[end]) or text[end] in "\u200d\ufe0e\ufe0f" or text[end - 1] == "\u200d"):
        end -= 1
    if _in_word(text, end):
        start = end
        while start and _in_word(text, start):
            start -= 1
        if end - start <= limit // 4:
            end = start
    return text[:end].rstrip() + "…"


def _in_word(text: str, at: int) -> bool:
    """Whether a cut before `at` would tear a word of letters and digits that are not Chinese, which has no blanks."""
    return all(c.isalnum() and c < "\u2e80" for c in text[at - 1 : at + 1])


def _tags(tags: Iterable[str]) -> list[str]:
    """Tags without commas, blanks around them and repetitions, as many and as long as Bilibili takes."""
    words = [" ".join(word.split()) for tag in tags for word in tag.replace("，", ",").split(",")]
    return list(dict.fromkeys(word[:MOST_TAG_CHARACTERS].strip() for word in words if word))[:MOST_TAGS]

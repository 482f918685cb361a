"""What a submission says of itself: the metadata of a template, its placeholders, and the sidecar of a dropped file.

A part of the configuration, which shows all of it as its own.
"""

import json
import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, ValidationInfo

from biliupd.yaml_file import KeyPath, Section, absolute, near

PLACEHOLDERS = ("streamer", "title", "started_at", "part", "file", "url")


def fill(
    text: str, *, streamer: str, title: str, started_at: datetime, part: int = 1, file: str = "", url: str = ""
) -> str:
    """`text` with its placeholders replaced; `started_at` is shown in the machine's own time zone."""
    return text.format(
        streamer=streamer, title=title, started_at=started_at.astimezone(), part=part, file=file, url=url
    )  # fmt: skip


def _check_placeholders(text: str) -> str:
    try:
        found = [(name, form or "") for _, name, form, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{error}; a literal brace is written twice, {{{{ or }}}}") from None
    for name, form in found:
        if name not in PLACEHOLDERS:
            known = [f"{{{known}}}" for known in PLACEHOLDERS]
            raise ValueError(f"there is no placeholder {{{name}}}" + near(f"{{{name}}}", known))
        if "{" in form:
            raise ValueError(f"cannot be filled in: there is a placeholder within {{{name}}}")
        if name != "started_at" and re.search(r"\d{4}", form):  # whoever drops a file could fill the memory
            raise ValueError(f"cannot be filled in: {{{name}:{form}}} is wider than any text of Bilibili's")
    try:
        fill(text, streamer="s", title="t", started_at=datetime(2026, 1, 1, tzinfo=UTC), file="f")
    except (ValueError, LookupError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError(f"cannot be filled in: {error}") from None
    return text


def scheduled(text: str, now: datetime) -> datetime | None:
    """The moment a `dtime` means, None for an empty one. Raises ValueError for what is none of the forms.

    `+6h`, `+2d`, `+1d12h30m` count from `now`; `20:00` is the next such time that is at least four hours away;
    `2026-12-24 20:00` and Unix seconds are what they are. The machine's own time zone.
    """
    if not text:
        return None
    if matched := re.fullmatch(r"\+(?:(\d{1,2})d)?(?:(\d{1,3})h)?(?:(\d{1,4})m)?", text):
        days, hours, minutes = (int(number or 0) for number in matched.groups())
        return now + timedelta(days=days, hours=hours, minutes=minutes)
    if re.fullmatch(r"\d{1,2}:\d{2}", text):
        wanted = time.fromisoformat(text.zfill(5))
        earliest = (now + LEAST_DTIME).astimezone()
        at = earliest.replace(hour=wanted.hour, minute=wanted.minute, second=0, microsecond=0)
        return at if at >= earliest else at + timedelta(days=1)
    if re.fullmatch(r"\d{9,11}", text):
        return datetime.fromtimestamp(int(text), UTC)
    return datetime.fromisoformat(text).astimezone()


def _check_moment(given: Any) -> Any:
    forms = 'a moment is written "+6h", "20:00", "2026-12-24 20:00" or in Unix seconds'
    text = str(given)
    try:
        at = scheduled(text, datetime.now(UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{forms}, not {text!r}") from None
    if text.startswith("+") and at and not LEAST_DTIME <= at - datetime.now(UTC) + timedelta(minutes=1) <= MOST_DTIME:
        raise ValueError("a moment must lie 4 hours to 15 days ahead")
    return text


def _check_json(fields: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be sent as JSON: {error}") from None
    return fields


def _check_cover(text: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base", Path.cwd())
    return text if text in ("frame", "live") else str(absolute(base, Path(text)))


LEAST_DTIME, MOST_DTIME = timedelta(hours=4), timedelta(days=15)  # bilibili-upload.md, 4.2: dtime
Pattern = Annotated[str, AfterValidator(_check_placeholders)]
Moment = Annotated[str, BeforeValidator(_check_moment)]
Tag = Annotated[str, Field(min_length=1, max_length=20)]


class Template(Section):
    """Metadata of a submission. Placeholders: {streamer} {title} {started_at:%Y-%m-%d} {part} {file} {url}."""

    title: Pattern = "{streamer} {started_at:%Y-%m-%d} {title}"
    """Title, cut to the 80 characters Bilibili takes."""
    part_title: Pattern = "P{part} {started_at:%H:%M}"
    """Title of each part, cut to 80 characters."""
    part_desc: Pattern = ""
    """Description of each part."""
    desc: Pattern = ""
    """Description, cut to 2000 characters."""
    mentions: dict[str, PositiveInt] = {}
    """Names and uids: @name in desc becomes a link to that account."""
    tags: Annotated[list[Tag], Field(min_length=1, max_length=10)] = ["直播录像"]
    """1 to 10 tags of at most 20 characters."""
    tid: PositiveInt = 171
    """Zone (分区) id."""
    human_type2: Annotated[int, Field(ge=1001, le=1999)] | None = None
    """Id of the newer zones, 1001 to 1031."""
    tid_v2: Annotated[int, Field(ge=2001, le=2999)] | None = None
    """Id of the newer sub-zone, 2001 and up."""
    copyright: Literal[1, 2, 3] = 1
    """1 own work (自制), 2 repost (转载), which needs source, 3 no claim."""
    source: Annotated[Pattern, Field(max_length=200)] = ""
    """Where a repost comes from."""
    dynamic: Annotated[Pattern, Field(max_length=233)] = ""
    """Text for followers' feeds."""
    cover: Annotated[str, AfterValidator(_check_cover)] = "frame"
    """frame: one of the video; live: the picture the room showed; or the path of a picture."""
    dtime: Moment = ""
    """Publish later, 4 hours to 15 days ahead: "+6h", "20:00" (the next one), "2026-12-24 20:00", Unix seconds."""
    no_reprint: bool = True
    """Forbid others to repost."""
    recreate: Literal[-1, 1] = -1
    """Derivative works (二创), as Bilibili numbers them; every big client sends -1."""
    is_only_self: bool = False
    """Only you can see it."""
    no_disturbance: bool = False
    """Do not tell followers."""
    charging_pay: bool = False
    """For paying followers (充电专属)."""
    open_elec: bool | None = None
    """Show the charging panel; empty: as the account is set."""
    dolby: bool = False
    """Dolby audio."""
    hires: bool = False
    """Hi-Res audio."""
    is_360: bool = False
    """Panorama."""
    up_selection_reply: bool = False
    """Show hand-picked comments only."""
    up_close_reply: bool = False
    """Close the comments."""
    up_close_danmu: bool = False
    """Close the danmaku."""
    watermark: bool | None = None
    """Bilibili's watermark; empty: as the account is set."""
    mission_id: PositiveInt | None = None
    """Activity to join; not for reposts."""
    topic_id: PositiveInt | None = None
    """Topic to join."""
    neutral_mark: str = ""
    """Declaration of the creator, in the words Bilibili offers."""
    creation_statement: int | None = None
    """Number of that declaration; -1: none."""
    extra_fields: Annotated[dict[str, Any], AfterValidator(_check_json)] = {}
    """Further fields of the submission, sent as they are."""


class Sidecar(Template):
    """NAME.yaml beside a dropped file or folder NAME: whatever of a template it says holds for that one."""

    account: str | None = None
    """Account that submits."""
    upload: bool = True
    """false: do not publish this one."""


def template_contradictions(entry: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """The same for a template, or for a sidecar."""
    if entry.get("copyright") == 2 and not entry.get("source"):
        yield ("copyright",), "2 (repost) needs source"
    if entry.get("copyright") == 2 and entry.get("mission_id"):
        yield ("mission_id",), "a repost cannot join an activity"

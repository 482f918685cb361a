"""Rows and files like those of a daemon that has been at work for some weeks. For stage.Stage."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from biliupd.catalog import ledgers, records, videos
from biliupd.catalog.database import stamp, write
from biliupd.catalog.states import Stage as Step
from biliupd.catalog.states import State, rows
from biliupd.control.models import Disk, Figures, Preview, Waiting

STREAMERS = (  # name, platform, address, source, status, reason, mode, priority
    ("Aoi Ch. 葵", "bilibili", "https://live.bilibili.com/21452505", "yaml", "live", "", "on", 10),
    ("nightowl", "twitch", "https://www.twitch.tv/nightowl", "api", "live", "", "on", 0),
    ("老番茄直播间", "douyu", "https://www.douyu.com/9999", "yaml", "offline", "", "on", 0),
    ("members only", "youtube", "https://www.youtube.com/@membersonly", "api", "restricted",
     "for members of the channel", "on", 0),
    ("夜雨声烦", "huya", "https://www.huya.com/660000", "yaml", "unknown", "the site answered with HTTP 502", "on", -5),
    ("paused for now", "twitch", "https://www.twitch.tv/pausedfornow", "api", "offline", "", "paused", 0),
    ("skipped tonight", "bilibili", "https://live.bilibili.com/7734200", "api", "live", "", "skipped", 0),
)
TITLES = ("【歌回】周末的夜晚，点歌进来", "Any% practice, then whatever chat wants", "深夜读书会 第 12 回",
          "工作日常 · 写代码", "Elden Ring, no hits (attempt 41)",
          "新衣装お披露目", "随便聊聊",
          "Drawing commissions <live> & \"quotes\"")
CAUSES = (("cut", 1, 12.4, "the connection was cut"), ("stall", 1, 3.2, "no data for 10 s"),
          ("no-space", 1, 95.0, "the disk was full"), ("split", 0, 0.0, "a new file at 4 GiB"))
STATES = (
    State.PUBLISHED, State.PUBLISHED, State.UPLOADING, State.READY, State.PUBLISHED, State.HELD, State.UPLOADED,
    State.PUBLISHED, State.IGNORED, State.EDITING, State.RECORDED, State.PUBLISHED,
)
SUBMISSIONS = {
    State.PUBLISHED: Step.PUBLISHED, State.UPLOADED: Step.SUBMITTED, State.UPLOADING: Step.COLLECTING,
    State.READY: Step.COLLECTING, State.HELD: Step.HELD,
}
MIB = 1024**2


def fill(stage, media: Path, n: int) -> None:
    """The 30 newest videos have files."""
    db, began = stage.catalog.db, datetime.now(UTC)
    _people(stage, db)
    ids = dict(db.execute("select name, id from streamers").fetchall())
    names = list(ids)
    with write(db):
        _accounts(db, began)
        for number in reversed(range(n)):  # the later, the larger its id
            at = began - timedelta(hours=7 * number + 3)
            dropped = number % 6 == 5
            name = "" if dropped else names[number % 4]
            _video(stage, db, media, number, name, ids.get(name), at)
    for number, name in enumerate(sorted(stage.house.live)[:2]):
        _recording(stage, db, name, ids[name], number, began)
    for text in ("biliupd 1.2.3 starts", "nightowl is live: Any% practice", "line tx: 31 ms", "uploading 2 of 7"):
        stage.house.say(text, streamer="nightowl" if "nightowl" in text else None)
    stage.house.say("the connection was cut; trying again", "WARNING", streamer="Aoi Ch. 葵")
    stage.house.say("submission 6 is held: the cover was refused", "ERROR", submission=6)


def _people(stage, db) -> None:
    for number, (name, platform, url, source, status, reason, mode, priority) in enumerate(STREAMERS):
        at = stamp(datetime.now(UTC) - timedelta(days=90 - number))
        rows(db, "streamers").insert({
            "name": name, "platform": platform, "url": url, "check_interval": 60, "auto_upload": int(number != 4),
            "source": source, "status": status, "status_reason": reason, "mode": mode, "created_at": at,
            "updated_at": at, "settings": json.dumps({"url": url, "name": name, "priority": priority}),
        })  # fmt: skip
        if source == "yaml":
            stage.house.origins[name] = f"config.yaml, line {31 + 4 * number}"
    stage.house.live |= {"Aoi Ch. 葵", "nightowl"}
    stage.house.waits = [Waiting(streamer="skipped tonight", priority=0, since=stamp(datetime.now(UTC)))]


def _accounts(db, at: datetime) -> None:
    week = stamp(at + timedelta(days=7))
    records.account(db, "main", "ok", mid=1234567, uname="录播姬", checked_at=stamp(at), expires_at=week)
    records.account(db, "second", "cooling", "Bilibili says: too many submissions (21566)",
                    stamp(at + timedelta(hours=2)), mid=7654321, uname="second", checked_at=stamp(at), expires_at=week)
    records.account(db, "old", "waiting", "the login has ended", hint="log in again: biliupd login --account old")
    records.notice(db, "account:old", "the account old is logged out: nothing of it is published until you log in")
    records.notice(db, "waits", "1 files are not taken yet: 'half a film.mp4': it has no end yet")


def _video(stage, db, media: Path, number: int, name: str, streamer: int | None, at: datetime) -> None:
    state, broadcast, title = STATES[number % len(STATES)], None, TITLES[number % len(TITLES)]
    folder = stage.drop
    if streamer:
        broadcast = f"{number:016x}"
        folder = stage.recordings / name / f"{at:%Y-%m-%d_%H-%M}"
        _broadcast(db, broadcast, streamer, title, folder, at, number)
    suffix = "flv" if number % 4 == 3 else "mp4"
    path = folder / (f"{at:%H-%M-%S} {number}.{suffix}" if streamer else f"dropped film {number}.{suffix}")
    size, mtime, thumbnail = 1500 * MIB, int(at.timestamp() * 1e9), None
    if number < 30:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(media / f"clip.{suffix}", path)
        os.utime(path, ns=(mtime, mtime))
        status = os.stat(path)
        size, mtime = status.st_size, status.st_mtime_ns
        if state is not State.RECORDED:
            covers = stage.base / "data" / "covers"
            covers.mkdir(parents=True, exist_ok=True)
            thumbnail = str(shutil.copy(media / "cover.jpg", covers / f"{number}.jpg"))
    bvid = f"BV1xx411c{number:03d}" if state is State.PUBLISHED else None
    root = stage.recordings if streamer else stage.drop
    short = path.relative_to(root)
    submission = None
    if step := SUBMISSIONS.get(state):
        submission = _submission(db, number, title, step, broadcast, bvid, at)
    rows(db, "videos").insert({
        "streamer_id": streamer, "broadcast_id": broadcast, "submission_id": submission, "title": title,
        "file_path": str(path), "root": str(root), "path": str(short), "kind": "file",
        "parent_path": "" if short.parent == Path(".") else str(short.parent), "file_size": size, "mtime_ns": mtime,
        "inode": 1000 + number, "device": 1, "duration": 6.0 if number < 30 else 5400.0 + number, "width": 1920,
        "height": 1080, "video_codec": "h264", "audio_codec": "aac", "bitrate": 6_000_000, "state": state,
        "since": stamp(at), "bvid": bvid, "created_at": stamp(at), "thumbnail_path": thumbnail, "cover_path": thumbnail,
        "last_error": {State.HELD: "Bilibili refused the title (21070)", State.IGNORED: "a fragment of 3 s"}.get(state),
        "waits_for": "the account second keeps quiet for now" if state is State.READY else None,
        "attempts": 3 if state is State.HELD else 0, "pinned": int(number % 9 == 0),
        "uploaded_at": stamp(at + timedelta(hours=1)) if state in (State.PUBLISHED, State.UPLOADED) else None,
        "gaps": json.dumps(["1 segment could not be read"]) if number % 10 == 4 else "[]",
    })  # fmt: skip
    id = db.execute("select max(id) from videos").fetchone()[0]
    if state in (State.UPLOADING, State.UPLOADED, State.PUBLISHED):
        done = state is not State.UPLOADING
        rows(db, "uploads").insert({
            "video_id": id, "filename": f"n{number}" if done else None, "cid": 1000 + number if done else None,
            "line": "tx", "bytes_total": size, "bytes_sent": size if done else size * 2 // 5,
            "bytes_per_second": 0 if done else 4.2e6, "eta_seconds": None if done else 214.0, "started_at": stamp(at),
            "finished_at": stamp(at + timedelta(minutes=9)) if done else None,
        })  # fmt: skip


def _broadcast(db, id: str, streamer: int, title: str, folder: Path, at: datetime, number: int, over=True) -> None:
    losses = CAUSES[: number % 5]
    lost = sum(cause[2] for cause in losses if cause[1])
    records.broadcast(db, {
        "id": id, "streamer_id": streamer, "title": title, "cover_url": "", "live_id": "", "directory": str(folder),
        "started_at": stamp(at), "ended_at": stamp(at + timedelta(seconds=5400)) if over else None, "parts": 1,
        "first_media_at": stamp(at + timedelta(seconds=2)), "last_media_at": stamp(at + timedelta(seconds=5399)),
        "live_seconds": 5400.0, "media_seconds": 5400.0 - lost, "lost_seconds": lost,
        "gaps": sum(cause[1] for cause in losses),
    })  # fmt: skip
    ledgers.keep(db, id, [
        {"at": stamp(at + timedelta(seconds=900 * (place + 1))), "cause": cause, "file": f"{number}.flv",
         "media_seconds_at": 900.0 * (place + 1), "seconds": seconds, "detail": detail}
        for place, (cause, _, seconds, detail) in enumerate(losses)
    ])  # fmt: skip


def _submission(db, number: int, title: str, step: Step, broadcast: str | None, bvid: str | None, at: datetime) -> int:
    submitted = step in (Step.SUBMITTED, Step.PUBLISHED)
    rows(db, "submissions").insert({
        "key": f"broadcast:{broadcast}" if broadcast else f"file:{number}", "broadcast_id": broadcast,
        "account": "main" if number % 3 else "second", "state": step, "since": stamp(at), "title": title,
        "aid": 170001 + number if submitted else None,
        "bvid": bvid or (f"BV1yy411d{number:03d}" if submitted else None),
        "review": {Step.PUBLISHED: "开放浏览", Step.SUBMITTED: "审核中"}.get(step, ""),
        "review_state": {Step.PUBLISHED: 0, Step.SUBMITTED: -30}.get(step),
        "last_error": "the cover was refused" if step is Step.HELD else None,
        "attempts": 3 if step is Step.HELD else 0, "created_at": stamp(at),
    })  # fmt: skip
    return int(db.execute("select max(id) from submissions").fetchone()[0])


def _recording(stage, db, name: str, streamer: int, number: int, began: datetime) -> None:
    id, at = f"{0xbeef + number:016x}", began - timedelta(minutes=50 + 70 * number)
    folder = stage.recordings / name / "now"
    with write(db):
        _broadcast(db, id, streamer, TITLES[number], folder, at, 2 * number, over=False)
    stage.house.record(name, id, (began - at).total_seconds())
    seconds = (began - at).total_seconds()
    stage.house.runs[-1] = stage.house.runs[-1]._replace(figures=Figures(
        bytes=int(seconds * 6e6 / 8), media_seconds=seconds - 12 * number, live_seconds=seconds,
        lost_seconds=12.0 * number,
        gaps=number, files=1 + number, reconnects=number, bitrate=6e6 - 2e6 * number, speed=1.0))  # fmt: skip
    stage.house.previews[f"broadcast:{id}"] = stage.house.previews[id] = [Preview(
        account="main", waits_for="the broadcast goes on", bvid="", files=[str(folder / "1.flv")], cover="",
        body={"title": f"【{name}】{TITLES[number]}", "tid": 171, "tag": "录播,直播", "copyright": 1})]  # fmt: skip


def move_on(stage, second: int) -> None:
    """What a second changes: bitrates, an upload, the disk, now and then a line of the log."""
    house, db = stage.house, stage.catalog.db
    for place, run in enumerate(house.runs):
        rate = (6e6 - 2e6 * place) * (0.85 + ((second * 7919 + place * 31) % 30) / 100)
        old = run.figures
        house.runs[place] = run._replace(figures=old.model_copy(update={
            "bytes": old.bytes + int(rate / 8), "media_seconds": old.media_seconds + 1, "bitrate": rate,
            "live_seconds": old.live_seconds + 1, "speed": 0.98 + (second % 5) / 100}))  # fmt: skip
    for id, sent, total in db.execute(
        "select video_id, bytes_sent, bytes_total from uploads where finished_at is null"
    ).fetchall():
        sent = 0 if sent >= total else min(total, sent + max(1, total // 60))
        videos.progress(db, id, sent, total, total / 60, (total - sent) * 60 / total)
    if isinstance(house.free, Disk):
        left = {"free": house.free.free - int(1.2e6), "seconds_left": 93_600.0 - second}
        house.free = house.free.model_copy(update=left)
    if second % 3 == 0:
        house.say(f"{second} s: all is well", "DEBUG" if second % 2 else "INFO", streamer="nightowl")
    if second % 20 == 0:
        house.say("no data for 10 s; trying again", "WARNING", streamer="Aoi Ch. 葵")

"""What `biliupd status` shows, read from the catalog alone; the daemon need not run."""

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from sqlite_utils import Database

from biliupd.catalog import library, records, submissions, videos
from biliupd.catalog.database import connect, is_current
from biliupd.catalog.states import Stage, State
from biliupd.cli.tables import ago, shown, size, span, table
from biliupd.errors import BiliupdError, PermanentError
from biliupd.record import broadcast as broadcasts
from biliupd.record.broadcast import Broadcast, Figures
from biliupd.record.places import read_queue

LONGEST = 50  #: lines of what is held


def show(catalog: Path, console: Console, *, running: bool) -> None:
    """Print streamers, running recordings, videos by state, submissions, what is held and why, and notices.

    `running`: whether a daemon does; else nobody waits to be recorded.
    """
    recorders = catalog.parent / "recorders"
    try:
        db = connect(catalog, read_only=True)
        if not is_current(db):
            hint = "start the daemon once: it brings the catalog up to date"
            raise PermanentError(f"{catalog} was written by another version of biliupd", hint=hint)
        _show(db, console, recorders, read_queue(recorders) if running else [])
    except sqlite3.DatabaseError as error:
        raise _broken(catalog, error) from error


def _broken(catalog: Path, error: Exception) -> PermanentError:
    hint = "start the daemon anew: it takes the newest good copy in backups/; or biliupd rebuild"
    return PermanentError(f"{catalog}: {error}", hint=hint)


def _show(db: Database, console: Console, recorders: Path, queue: list[dict[str, Any]]) -> None:
    for notice in records.notices(db):
        console.print(f"[yellow]![/] {shown(notice['text'])} [dim](since {ago(notice['since'])})[/]")
    table(
        console, "Streamers", ("name", "platform", "live", "every", "publish"),
        (
            (s["name"], s["platform"], _live(s), f"{s['check_interval']:g} s", "yes" if s["auto_upload"] else "no")
            for s in db.query("select * from streamers where active = 1 order by name")
        ),
    )  # fmt: skip
    table(
        console, "Recording now", ("streamer", "title", "since", "media", "size", "bitrate", "speed", "gaps", "lost"),
        _recordings(db, recorders),
    )  # fmt: skip
    table(
        console, "Waiting to be recorded", ("place", "streamer", "priority", "since"),
        ((str(n), one["streamer"], str(one["priority"]), ago(one["since"])) for n, one in enumerate(queue, 1)),
    )  # fmt: skip
    counts = library.counts(db)
    console.print("Videos: " + (", ".join(f"{count} {state}" for state, count in counts.items()) or "none"))
    sizes = {row["video_id"]: row for row in db.query("select * from uploads where finished_at is null")}
    busy = videos.in_states(db, [State.EDITING, State.UPLOADING])
    table(
        console, "At work", ("id", "video", "state", "done", "line"),
        (
            (f"video:{v['id']}", v["title"], v["state"], *_share(sizes.get(v["id"]), v["state"]))
            for v in busy
        ),
    )  # fmt: skip
    waiting = videos.in_states(db, [State.RECORDED, State.READY], with_a_reason=True, most=20)
    table(
        console, "Waiting", ("id", "video", "state", "for"),
        ((f"video:{v['id']}", v["title"], v["state"], v["waits_for"] or v["last_error"]) for v in waiting),
    )  # fmt: skip
    table(
        console, "Submissions", ("id", "title", "state", "bvid", "review", "waits for"),
        (
            (f"submission:{s['id']}", s["title"] or s["key"], s["state"], s["bvid"] or "", s["review"],
             s["waits_for"] or s["last_error"] or "")
            for s in submissions.everything(db)[-20:]
        ),
    )  # fmt: skip
    held = [("video", v["id"], v["title"], v["last_error"]) for v in videos.in_states(db, [State.HELD], most=LONGEST)]
    held += [
        ("submission", s["id"], s["title"], s["last_error"])
        for s in submissions.everything(db)
        if s["state"] == Stage.HELD
    ]
    table(
        console, "Held for you (biliupd retry ID)", ("id", "what", "why"),
        ((f"{kind}:{id}", title, why or "") for kind, id, title, why in held),
    )  # fmt: skip
    more = counts.get(State.HELD, 0) - LONGEST
    if more > 0:
        console.print(f"and {more} more: biliupd videos --state held")
    table(
        console, "Accounts", ("account", "Bilibili", "state", "login until", "checked"),
        (
            (a["name"], f"{a['uname']} ({a['mid']})" if a["mid"] else "", _standing(a), (a["expires_at"] or "")[:10],
             ago(a["checked_at"]) if a["checked_at"] else "never")
            for a in db.query("select * from accounts order by name")
        ),
    )  # fmt: skip
    for account in db.query("select * from accounts where state != 'ok'"):
        text = f"account {account['name']}: {account['reason']}. {account['hint']}"
        console.print(f"[yellow]![/] {shown(text)}")


def _live(streamer: dict[str, Any]) -> str:
    """What the site says, and what a person said at the page."""
    if streamer["mode"] == "paused":
        return "paused"
    reason = f": {streamer['status_reason']}" if streamer["status_reason"] else ""
    skipped = ", not recorded until the next show" if streamer["mode"] == "skipped" else ""
    return f"{streamer['status']}{reason}{skipped}"


def _standing(account: dict[str, Any]) -> str:
    if account["state"] == "ok" or not account["retry_at"]:
        return str(account["state"])
    left = (datetime.fromisoformat(account["retry_at"]) - datetime.now(UTC)).total_seconds()
    return f"{account['state']}, {span(left)} more" if account["state"] == "cooling" else str(account["state"])


def _recordings(db: Database, recorders: Path) -> Iterable[tuple[str, ...]]:
    running = db.query(
        "select t.started_at, t.broadcast_id, s.name, b.directory, b.title from tasks t"
        " join streamers s on s.id = t.streamer_id left join broadcasts b on b.id = t.broadcast_id"
        " where t.status = 'recording' order by t.started_at"
    )
    for row in running:
        facts = live(Path(row["directory"]), recorders) if row["directory"] else None
        yield (row["name"], row["title"] or "", ago(row["started_at"]), *(_figures(facts.figures) if facts else ()))


def live(directory: Path, recorders: Path) -> Broadcast | None:
    """A broadcast by its folder, with the figures of now when it is being recorded; None when nothing readable is
    there."""
    try:
        facts = broadcasts.read(directory)
    except BiliupdError:
        return None
    if facts and broadcasts.alive(facts):
        broadcasts.read_figures(recorders / f"{facts.id}.figures", facts)
    return facts


def _figures(figures: Figures) -> tuple[str, ...]:
    return (
        f"{figures.media_seconds:.0f} s", size(figures.bytes), f"{figures.bitrate / 1e6:.1f} Mbit/s",
        f"{figures.speed:.2f}", str(figures.gaps), f"{figures.lost_seconds:.0f} s" if figures.gaps else "",
    )  # fmt: skip


def _share(upload: dict[str, Any] | None, state: str) -> tuple[str, str]:
    """How far an upload is, and by which line."""
    if state != State.UPLOADING or not upload or not upload["bytes_total"]:
        return "", ""
    text = f"{upload['bytes_sent'] / upload['bytes_total']:.0%} of {size(upload['bytes_total'])}"
    if upload["bytes_per_second"]:
        text += f", {size(upload['bytes_per_second'])}/s"
    if upload["eta_seconds"]:
        text += f", {span(upload['eta_seconds'])} to go"
    return text, upload["line"] or ""

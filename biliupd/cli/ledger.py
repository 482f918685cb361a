"""The command `biliupd ledger`: how much of a broadcast is recorded, and what is missing, where and why."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from sqlite_utils import Database

from biliupd.catalog import ledgers, videos
from biliupd.catalog.videos import Video
from biliupd.cli.library import open_catalog
from biliupd.cli.shared import config_option, data_directory
from biliupd.cli.status import live
from biliupd.cli.tables import clock, shown, size, table
from biliupd.cli.upload import errors_as_json
from biliupd.errors import PermanentError
from biliupd.record import broadcast as broadcasts
from biliupd.record.broadcast import Broadcast, Figures
from biliupd.record.ledger import summary

LATEST = 20  #: broadcasts
_WORDS = {
    "cut": "the connection broke off", "server-drop": "the server ended the connection", "stall": "nothing came",
    "overflow": "the disk was too slow", "new-address": "the address had expired", "restart": "the recorder restarted",
    "no-space": "the disk was full", "waited": "others had a higher priority",
    "skipped-segment": "a segment was not to be had", "gap-tag": "the site itself left it out",
    "ad": "an advertisement", "garbage": "damaged data", "dropped-tags": "could not be decoded",
    "hole": "the stream itself had none",
    "offline": "the streamer was off air", "jump": "the stream's clock jumped: mended",
    "dup": "came twice: written once", "seamless-join": "a new connection, without a gap",
    "cdn-switch": "another server, without a gap", "reset": "the numbering of segments began anew",
    "discontinuity": "a new section of the stream", "slow": "the server sent too slowly",
    "codec-change": "new file: the format changed", "end-tag": "new file: the stream said that it ended",
    "limit-split": "new file: the size or length set", "title-split": "new file: another title",
    "gap-split": "new file after a gap", "variant-change": "new file: another quality",
    "fragment": "short: a fragment", "salvaged": "made whole after its recorder was killed",
}  # fmt: skip


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Nothing but JSON.")
@click.argument("what", metavar="[BROADCAST|STREAMER]", required=False)
def ledger(path: Path, as_json: bool, what: str | None) -> None:
    """How much of a broadcast is recorded, and what is missing, where and why.

    BROADCAST is its id, or the beginning of it, or its folder; of a STREAMER it is the latest one. Without either, the
    latest 20 are listed.
    """
    with errors_as_json(as_json):
        data, _ = data_directory(path)
        db = open_catalog(path)
        found = ledgers.latest(db, LATEST) if what is None else [_the_one(db, what)]
        told = [(row, _facts(db, row, data / "recorders")) for row in found]
    if as_json:
        content = [_as_json(row, facts) for row, facts in told]
        click.echo(json.dumps(content if what is None else content[0], ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    if what is None:
        table(
            console, "", ("id", "streamer", "title", "began", "recorded", "ledger"),
            (
                (facts.id[:8], facts.streamer, facts.title, _when(facts.started_at),
                 clock(facts.figures.media_seconds), str(summary(facts)))
                for _, facts in told
            ),
        )  # fmt: skip
        return
    row, facts = told[0]
    _show(console, facts, str(row["directory"]), videos.of_broadcast(db, facts.id))


def _the_one(db: Database, what: str) -> dict[str, Any]:
    found = ledgers.find(db, os.path.abspath(what) if os.sep in what else what)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{row['id'][:12]} ({row['streamer']})" for row in found[:5])
        raise PermanentError(f"{what!r} is the beginning of {len(found)} ids", hint=f"there are {names}")
    raise PermanentError(f"{what!r} is no broadcast and no recorded streamer", hint="biliupd ledger lists them")


def _facts(db: Database, row: dict[str, Any], recorders: Path) -> Broadcast:
    """What its folder says; when that is gone, what the catalog knows."""
    facts = live(Path(row["directory"]), recorders)
    if facts is not None and facts.id == row["id"]:
        return facts
    figures = Figures(live_seconds=row["live_seconds"], media_seconds=row["media_seconds"],
                      lost_seconds=row["lost_seconds"], gaps=row["gaps"], files=row["parts"])  # fmt: skip
    return Broadcast(
        id=row["id"], streamer=row["streamer"], title=row["title"], started_at=row["started_at"],
        ended_at=row["ended_at"], first_media_at=row["first_media_at"], last_media_at=row["last_media_at"],
        figures=figures, ledger=ledgers.of(db, row["id"]),
    )  # fmt: skip


def _show(console: Console, facts: Broadcast, directory: str, found: list[Video]) -> None:
    told = summary(facts)
    # a merge stands for the segments it was made of
    states = {video["merged_from"] or video["file_path"]: f"video:{video['id']} {video['state']}" for video in found}
    running = broadcasts.alive(facts)
    console.print(f"{shown(facts.streamer)}: {shown(facts.title)}")
    console.print(f"broadcast {shown(facts.id)}, {shown(directory)}")
    console.print(f"began {_when(facts.started_at)}, "
                  + ("being recorded now" if running else f"ended {_when(facts.ended_at)}"
                     if facts.ended_at else "not over yet"))  # fmt: skip
    console.print(f"live {clock(told.live_seconds)}, recorded {clock(told.media_seconds)}: [bold]{told}[/]")
    if told.unexplained_seconds:
        console.print(f"[yellow]![/] {told.unexplained_seconds:.0f} s are neither recorded nor in the ledger")
    table(
        console, "Files", ("file", "length", "size", "video"),
        (
            (str(file.get("name")), clock(_number(file, "seconds")), size(_number(file, "bytes")),
             states.get(os.path.join(directory, str(file.get("name"))), ""))
            for file in facts.files
        ),
    )  # fmt: skip
    table(console, "Ledger", ("when", "file", "at", "how long", "what"), _rows(facts.ledger))


def _rows(ledger: list[dict[str, Any]]) -> Iterable[tuple[str, ...]]:
    for row in ledger:
        cause, seconds, count = str(row.get("cause")), _number(row, "seconds"), row.get("count", 1)
        text = _WORDS.get(cause, cause) + (f" ({row['detail']})" if row.get("detail") else "")
        yield (
            _when(str(row.get("at"))), str(row.get("file") or "between files"), clock(_number(row, "media_seconds_at")),
            f"{seconds:.1f} s" if seconds else "", text + (f", {count} times" if count != 1 else ""),
        )  # fmt: skip


def _as_json(row: dict[str, Any], facts: Broadcast) -> dict[str, Any]:
    told = summary(facts)
    names = ("id", "streamer", "title", "started_at", "ended_at", "first_media_at", "last_media_at")
    return {
        **{name: getattr(facts, name) for name in names}, "directory": str(row["directory"]), "summary": str(told),
        "share": round(told.share, 6), "unexplained_seconds": told.unexplained_seconds,
        "figures": asdict(facts.figures), "files": facts.files, "ledger": facts.ledger,
    }  # fmt: skip


def _when(moment: str | None) -> str:
    """A moment of the ledger, by the clock of whoever reads it."""
    try:
        return f"{datetime.fromisoformat(moment or '').astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return ""


def _number(row: dict[str, Any], name: str) -> float:
    found = row.get(name)
    return float(found) if isinstance(found, int | float) and 0 <= found < 1e15 else 0.0


COMMANDS = (ledger,)

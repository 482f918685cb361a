"""The commands that look at the library and change it: videos, stats, retry, preview, pin, unpin."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from sqlite_utils import Database

from biliupd.catalog import library, records, submissions, videos
from biliupd.catalog.database import Catalog, connect, is_current
from biliupd.catalog.states import State
from biliupd.cli import tables
from biliupd.cli.shared import config_option, data_directory, load_config, plain
from biliupd.cli.upload import errors_as_json
from biliupd.config import Config
from biliupd.errors import BiliupdError, PermanentError
from biliupd.lock import holder
from biliupd.pipeline.preview import preview as previews
from biliupd.publish.manners import StandingFile
from biliupd.yaml_file import near

PAGE = 50  #: videos


@click.command()
@config_option
@click.argument("what", metavar="video:ID|submission:ID|account:NAME", nargs=-1, required=True)
def retry(path: Path, what: tuple[str, ...]) -> None:
    """Try a held or ignored video, a submission, or an account that keeps quiet again."""
    data, _ = data_directory(path)
    holder(data)  # says when it is not ours
    if not os.path.exists(data / "catalog.db"):
        raise BiliupdError(f"no catalog in {data} yet", hint="biliupd run makes it; or name another file with -c")
    catalog = Catalog(data / "catalog.db")
    for name in what:
        kind, _, number = name.partition(":")
        if kind == "account":
            _calm(path, number)
            click.echo(f"{name}: again")
            continue
        again = {"video": videos.retry, "submission": submissions.retry}.get(kind)
        if again is None or not re.fullmatch(r"[0-9]{1,18}", number):
            raise BiliupdError(
                f"{name!r} names neither video:ID nor submission:ID nor account:NAME", hint="biliupd status lists them"
            )
        if not again(catalog.db, int(number)):
            raise BiliupdError(f"{name} is neither held nor ignored")
        click.echo(f"{name}: again")


def _calm(path: Path, account: str) -> None:
    """Somebody did what Bilibili asked for: the account need not keep quiet any longer."""
    accounts = load_config(path).accounts
    if account not in accounts:
        raise BiliupdError(f"there is no account {account!r}" + near(account, accounts))
    StandingFile(accounts[account].cookies).calm()


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Nothing but JSON.")
@click.argument("what", metavar="FILE|FOLDER|BROADCAST")
def preview(path: Path, as_json: bool, what: str) -> None:
    """Show exactly what would be sent to Bilibili. Sends nothing."""
    with errors_as_json(as_json):
        config = load_config(path)
        place = config.recordings.data_directory / "catalog.db"
        db = Catalog(place).db if os.path.exists(place) else None
        if db is not None:  # streamers that were added at the page count as well
            from biliupd.wanted import together

            config = config.model_copy(update={"streamers": together(config, records.active_streamers(db))})
        found = previews(config, db, what)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2))
        return
    for number, one in enumerate(found, 1):
        click.echo(f"Submission {number} of {len(found)}, account {one.account or '-'}")
        if one.bvid:
            click.echo(f"  is published already: {plain(one.bvid)}")
        elif one.waits_for:
            click.echo(f"  would not be sent now: {plain(one.waits_for)}")
        click.echo(f"  cover: {plain(one.cover)}")
        for part, file in enumerate(one.files, 1):
            click.echo(f"  P{part}: {plain(file)} → {plain(one.body['videos'][part - 1]['title'])}")
        click.echo(json.dumps(one.body, ensure_ascii=False, indent=2))


def _pin(path: Path, what: tuple[str, ...], pinned: bool) -> None:
    data, _ = data_directory(path)
    if not os.path.exists(data / "catalog.db"):
        raise PermanentError(f"no catalog in {data} yet", hint="biliupd run makes it; or name another file with -c")
    catalog = Catalog(data / "catalog.db")
    for name in what:
        matched = re.fullmatch(r"video:([0-9]{1,18})", name)
        if matched:
            ids = [int(matched[1])]
        else:
            ids = [int(video["id"]) for video in videos.at_or_below(catalog.db, os.path.abspath(name))]
        if not ids or not all([videos.pin(catalog.db, id, pinned) for id in ids]):
            raise PermanentError(f"{name!r} is no video of the catalog", hint="name video:ID, a file or a folder")
        click.echo(f"{plain(name)}: {len(ids)} {'pinned' if pinned else 'no longer pinned'}")


@click.command()
@config_option
@click.argument("what", metavar="video:ID|PATH", nargs=-1, required=True)
def pin(path: Path, what: tuple[str, ...]) -> None:
    """Keep these files for good, whatever retention: says."""
    _pin(path, what, True)


@click.command()
@config_option
@click.argument("what", metavar="video:ID|PATH", nargs=-1, required=True)
def unpin(path: Path, what: tuple[str, ...]) -> None:
    """Let retention: decide about these files again."""
    _pin(path, what, False)


def open_catalog(path: Path) -> Database:
    """The catalog of a configuration, to read. Raises PermanentError when there is none of this version."""
    data, _ = data_directory(path)
    if not os.path.exists(data / "catalog.db"):
        raise PermanentError(f"no catalog in {data} yet", hint="biliupd run makes it; or name another file with -c")
    db = connect(data / "catalog.db", read_only=True)
    if not is_current(db):
        hint = "start the daemon once: it brings the catalog up to date"
        raise PermanentError(f"{data / 'catalog.db'} was written by another version of biliupd", hint=hint)
    return db


@click.command("videos")
@config_option
@click.option("--streamer", default="", metavar="NAME", help="Only of this streamer.")
@click.option("--state", "states", multiple=True, type=click.Choice([state.value for state in State]),
              help="Only in this state, or these.")  # fmt: skip
@click.option("--in", "folder", metavar="FOLDER", help="What lies directly in this folder, as a tree.")
@click.option("--sort", type=click.Choice(library.SORTS), default="created_at", show_default=True)
@click.option("--reverse", is_flag=True, help="The first or smallest first.")
@click.option("--page", type=click.IntRange(1, 10**6), default=1, show_default=True, help="50 videos each.")
@click.option("--json", "as_json", is_flag=True, help="Nothing but JSON.")
@click.argument("text", default="")
def list_videos(
    path: Path, streamer: str, states: tuple[str, ...], folder: str | None, sort: library.Sort, reverse: bool,
    page: int, as_json: bool, text: str,
) -> None:  # fmt: skip
    """List the library: all, or what has a text in its title or its streamer's name."""
    with errors_as_json(as_json):
        db = open_catalog(path)
        folders: list[tuple[str, int]] = []
        if folder is not None:
            root, below = _root_of(load_config(path), os.path.abspath(folder))
            folders, found = library.children(db, root, below)
            total = len(found)
        else:
            found, total = library.search(
                db, text, streamer=streamer, states=[State(state) for state in states], sort=sort,
                descending=not reverse, limit=PAGE, offset=(page - 1) * PAGE,
            )  # fmt: skip
    if as_json:
        names = ("id", "title", "state", "path", "duration", "width", "height", "video_codec", "audio_codec", "bitrate",
                 "file_size", "bvid", "created_at", "last_error")  # fmt: skip
        rows = [{name: video[name] for name in names} for video in found]
        click.echo(json.dumps({"total": total, "folders": folders, "videos": rows}, indent=2))
        return
    console = Console(highlight=False)
    tables.table(console, "", ("folder", "videos"), ((name, str(count)) for name, count in folders))
    tables.table(
        console, "", ("id", "title", "state", "length", "picture", "size", "bvid"),
        (
            (f"video:{v['id']}", v["title"], v["state"], tables.span(v["duration"] or 0) if v["duration"] else "",
             f"{v['width']}x{v['height']} {v['video_codec']}" if v["width"] else v["audio_codec"],
             tables.size(v["file_size"]), v["bvid"] or "")
            for v in found
        ),
    )  # fmt: skip
    shown = f", page {page} of {-(-total // PAGE)}" if total > PAGE and folder is None else ""
    console.print(f"{total} videos{shown}")


def _root_of(config: Config, folder: str) -> tuple[str, str]:
    roots = [config.recordings.directory, *(drop.directory for drop in config.drop_folders)]
    for root in map(os.path.abspath, roots):
        if folder == root or folder.startswith(root + os.sep):
            return root, folder[len(root) + 1 :]
    raise PermanentError(f"{folder} lies in no watched folder", hint=f"watched are {', '.join(map(str, roots))}")


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Nothing but JSON.")
def stats(path: Path, as_json: bool) -> None:
    """Sums of the library for each streamer."""
    with errors_as_json(as_json):
        found = library.sums(open_catalog(path))
    if as_json:
        click.echo(json.dumps([one._asdict() for one in found], indent=2))
        return
    tables.table(
        Console(highlight=False), "", ("streamer", "broadcasts", "videos", "published", "length", "size", "latest"),
        (
            (one.streamer or "(dropped)", str(one.broadcasts), str(one.videos), str(one.published),
             tables.span(one.seconds), tables.size(one.bytes), tables.ago(one.latest_at))
            for one in found
        ),
    )  # fmt: skip


COMMANDS = (list_videos, stats, retry, preview, pin, unpin)

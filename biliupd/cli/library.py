"""The commands that look at the library and change it: retry, preview, pin, unpin."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import click

from biliupd.catalog import submissions, videos
from biliupd.catalog.database import Catalog
from biliupd.cli.shared import config_option, data_directory, load_config, plain
from biliupd.cli.upload import errors_as_json
from biliupd.errors import BiliupdError, PermanentError
from biliupd.lock import holder
from biliupd.pipeline.preview import preview as previews
from biliupd.publish.manners import StandingFile
from biliupd.yaml_file import near


@click.command()
@config_option
@click.argument("what", metavar="video:ID|submission:ID|account:NAME", nargs=-1, required=True)
def retry(path: Path, what: tuple[str, ...]) -> None:
    """Try a held video or submission again, or an account that keeps quiet."""
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
            raise BiliupdError(f"{name} is not held")
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
        found = previews(config, Catalog(place).db if os.path.exists(place) else None, what)
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
        click.echo(f"{name}: {len(ids)} {'pinned' if pinned else 'no longer pinned'}")


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


COMMANDS = (retry, preview, pin, unpin)

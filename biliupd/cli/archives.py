"""The commands list and show: what the account has at Bilibili. They ask and print, and change nothing."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from biliupd.cli.shared import plain
from biliupd.cli.upload import EPILOG, errors_as_json, login_options, settings, vid_of
from biliupd.publish.archives import EVER, PAGE_SIZE, STATUSES, Entry, listed, view
from biliupd.publish.credential import Credential
from biliupd.publish.manners import StandingFile
from biliupd.publish.member import Member

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


@click.command("list", epilog=EPILOG)
@login_options
@click.option("--is-pubing", is_flag=True, help="Those in progress only.")
@click.option("--pubed", is_flag=True, help="Those that passed only.")
@click.option("--not-pubed", is_flag=True, help="Those that did not pass only.")
@click.option("-f", "--from-page", type=click.IntRange(min=1), default=1, show_default=True,
              help=f"The first page to show; a page has {PAGE_SIZE}.")  # fmt: skip
@click.option("-m", "--max-pages", type=click.IntRange(min=1), help="So many pages at most.  [default: all]")
@_json
def list_(from_page: int, max_pages: int | None, as_json: bool, **given: Any) -> None:
    """The account's submissions, newest first."""
    statuses = [name for name in STATUSES if given[name]] or STATUSES
    first = (from_page - 1) * PAGE_SIZE
    with errors_as_json(as_json), _asking(given) as member:
        entries = list(islice(
            listed(member, EVER, statuses), first, first + max_pages * PAGE_SIZE if max_pages else None))
    if as_json:
        click.echo(json.dumps({"archives": [_row(entry) for entry in entries]}, ensure_ascii=False))
        return
    for entry in entries:
        words = (entry.bvid, _day(entry.created), f"{entry.state_desc or entry.state}", entry.title,
                 entry.reject_reason)  # fmt: skip
        click.echo("\t".join(plain(word) for word in words).rstrip("\t"))
    if not entries:
        click.echo("nothing there", err=True)


@click.command(epilog=EPILOG)
@click.argument("vid", metavar="BVID")
@login_options
@_json
def show(vid: str, as_json: bool, **given: Any) -> None:
    """A submission: its metadata, its review, its parts.

    BVID is BV…, av… or its address.
    """
    vid = vid_of(vid)
    with errors_as_json(as_json), _asking(given) as member:
        content = view(member, vid)
    if as_json:
        click.echo(json.dumps({"archive": content["archive"], "videos": content["videos"] or []}, ensure_ascii=False))
        return
    for name, text in (*_facts(content["archive"]), *_parts(content["videos"] or [])):
        click.echo(f"{name + ':':12}{plain(text)}")


COMMANDS = (list_, show)


@contextmanager
def _asking(given: dict[str, Any]) -> Iterator[Member]:
    """The account, unless it has to keep quiet; a warning that comes is written down."""
    publish, cookies = settings(given)
    standing = StandingFile(cookies)
    standing.refuse_while_quiet()
    with standing.warned():
        yield Member(publish, Credential.load(cookies))


def _row(entry: Entry) -> dict[str, Any]:
    return {"bvid": entry.bvid, "aid": entry.aid, "title": entry.title, "created": entry.created,
            "state": entry.state, "state_desc": entry.state_desc, "reject_reason": entry.reject_reason}


def _facts(archive: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What a person wants to know of a submission; what is empty is left out."""
    state = f"{archive.get('state_desc') or ''} ({archive.get('state')})".strip()
    reposted = {"1": "own work", "2": "repost"}.get(str(archive.get("copyright")), "")
    dtime = archive.get("dtime")
    facts = (
        ("bvid", archive.get("bvid")), ("aid", archive["aid"]), ("title", archive.get("title")), ("state", state),
        ("refused", archive.get("reject_reason")), ("zone", archive.get("tid")), ("copyright", reposted),
        ("source", archive.get("source")), ("tags", archive.get("tag")), ("cover", archive.get("cover")),
        ("created", _day(archive.get("ctime") or 0)), ("appears", _day(dtime) if dtime else ""),
        ("description", archive.get("desc")),
    )  # fmt: skip
    return [(name, str(text)) for name, text in facts if text]


def _parts(videos: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for number, one in enumerate(videos, 1):
        wrong = one.get("fail_desc") or one.get("reject_reason") or ""
        words = [one.get("title"), one.get("filename"), f"cid {one.get('cid')}", one.get("status_desc"), wrong]
        yield f"P{number}", "  ".join(str(word) for word in words if word)


def _day(seconds: Any) -> str:
    try:
        return datetime.fromtimestamp(float(seconds), UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    except (TypeError, ValueError, OverflowError, OSError):
        return ""

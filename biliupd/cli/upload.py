"""The commands upload and append: files → a submission, by hand, without daemon and configuration file.

They read the options, show how far it is and print the bvid; `publish.once` does the rest. Options are named as in
biliup. Standard output is for scripts: the bvid, or one JSON object; all else goes to standard error.
"""

import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from biliupd.cli.exit_codes import exit_code
from biliupd.cli.progress import Display
from biliupd.cli.shared import login_account, login_config, login_file, one_login
from biliupd.config import LEAST_DTIME, MOST_DTIME, PublishConfig, Template, scheduled, template_contradictions
from biliupd.errors import BiliupdError, TemporaryError
from biliupd.publish.credential import Credential
from biliupd.publish.journal import state_directory
from biliupd.publish.once import Job, Order, Published
from biliupd.publish.studio import KEPT_FIELDS, MOST_TITLE_CHARACTERS, title_of

F = TypeVar("F", bound=Callable[..., Any])
FLAGS = ("--dolby", "--hires", "--no-reprint", "--is-only-self", "--charging-pay", "--interactive")
EPILOG = """\b
Exit codes: 0 done; 1 refused or failed for good; 2 wrong usage; 3 the same job
runs already; 75 try again later (network, pace, the account keeps quiet);
76 nobody knows whether it was published: the next run looks first;
77 a person is needed (login, captcha); 78 the configuration is wrong;
130 and 143 stopped by Ctrl-C and SIGTERM."""


class _Command(click.Command):
    """Takes `--dolby`, `--dolby 1` and `--dolby 0` alike, and what follows is a file if it is neither 0 nor 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: list[str] = []
        for number, word in enumerate(args):
            if "--" in args[:number]:
                given.append(word)
            elif number and args[number - 1] in FLAGS and word in ("0", "1"):
                given[-1] = f"{args[number - 1]}={word}"
            else:
                given.append(f"{word}=1" if word in FLAGS else word)
        return super().parse_args(ctx, given)


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _switch(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, type=click.Choice(["0", "1"]), default="0", metavar="[0|1]", help=text)


addresses = _all(*(click.option(f"--{name}-url", f"{name}_url", hidden=True) for name in ("member", "passport", "api")))
login_options = _all(login_file, login_config, login_account, addresses)
_sending = _all(
    click.option("--submit", type=click.Choice(["app", "web", "b-cut-android"]),
                 help="The interface that submits.  [default: app; web for a login by cookies alone]"),
    click.option("-l", "--line", help="Upload line: bda2, bldsa, tx, txa, alia, …  [default: auto, the fastest]"),
    click.option("--limit", type=click.IntRange(min=1),
                 help="Parts of a file sent at the same time, at most 16.  [default: 3]"),
    click.option("--bandwidth", metavar="RATE", help="Bytes a second, such as 2MiB.  [default: no limit]"),
    click.option("--again", is_flag=True, help="Forget what an earlier run of the same command did; publish anew."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output at the end."),
)  # fmt: skip
_metadata = _all(
    click.option("--title", default="", help="[default: the name of the first file]"),
    click.option("--desc", default="", help="Description."),
    click.option("--tag", default="", help="1 to 10 tags, with commas between them.  [default: 直播录像]"),
    click.option("--tid", default="171", show_default=True, help="Zone (分区)."),
    click.option("--tid-v2", help="The newer sub-zone, 2001 and up."),
    click.option("--copyright", default="1", show_default=True, help="1 own work, 2 repost (needs --source), 3 none."),
    click.option("--source", default="", help="Where a repost comes from."),
    click.option("--cover", default="", metavar="FILE|URL", help="A JPEG, PNG or WebP picture.  [default: a frame]"),
    click.option("--dynamic", default="", help="Text for followers' feeds."),
    click.option("--dtime", default="",
                 help='Publish 4 hours to 15 days later: Unix seconds, "+6h", "20:00", "2026-12-24 20:00".'),
    click.option("--mission-id", help="Activity to join."),
    _switch("--interactive", "Interactive video."),
    _switch("--dolby", "Dolby audio."),
    _switch("--hires", "Hi-Res audio."),
    _switch("--no-reprint", "Forbid others to repost."),
    _switch("--is-only-self", "Only you can see it."),
    _switch("--charging-pay", "For paying followers (充电专属)."),
    click.option("--up-selection-reply", is_flag=True, help="Show hand-picked comments only."),
    click.option("--up-close-reply", is_flag=True, help="Close the comments."),
    click.option("--up-close-danmu", is_flag=True, help="Close the danmaku."),
    click.option("--extra-fields", default="", metavar="JSON", help="An object of further fields, sent as they are."),
)  # fmt: skip


@click.command(cls=_Command, epilog=EPILOG)
@click.argument("files", metavar="FILES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@login_options
@_sending
@_metadata
def upload(files: tuple[Path, ...], cover: str, again: bool, as_json: bool, **given: Any) -> None:
    """Publish files, as the parts of one submission, and print its bvid.

    A run that was interrupted is gone on with by the same command; what is published already is not sent again.
    """
    template = _template(given, files[0])
    with errors_as_json(as_json):
        publish, cookies = _settings(given)
    _carry_out(publish, Order(cookies, files, template, cover, again=again), as_json)


@click.command(cls=_Command, epilog=EPILOG)
@click.argument("words", metavar="[BVID] FILES...", nargs=-1, required=True)
@click.option("-v", "--vid", help="The submission: BV…, av… or its address; instead of the first argument.")
@login_options
@_sending
def append(words: tuple[str, ...], vid: str | None, again: bool, as_json: bool, **given: Any) -> None:
    """Append files to a submission, as further parts, and print its bvid.

    All else of it stays as it is. A run that was interrupted is gone on with by the same command.
    """
    files = words if vid else words[1:]
    vid = vid_of(vid or words[0])
    if not files:
        raise click.UsageError("name the files, too")
    with errors_as_json(as_json):
        publish, cookies = _settings(given)
    order = Order(cookies, tuple(Path(name) for name in files), vid=vid, again=again)
    _carry_out(publish, order, as_json)


COMMANDS = (upload, append)


def vid_of(text: str) -> str:
    """BV… or av… out of what a person copies. Raises a usage error for anything else."""
    found = re.fullmatch(r"(?:https?://[\w.]*bilibili\.com/(?:\w+/)*)?(?:(BV\w{10})|(av\d{1,18}))(?:[/?#].*)?",
                         text.strip(), re.IGNORECASE | re.ASCII)  # fmt: skip
    if not found:
        raise click.UsageError(f"{text!r} is no submission: give BV…, av… or its address")
    bvid, aid = found.groups()
    return f"BV{bvid[2:]}" if bvid else aid.lower()


# -- options → settings and metadata --------------------------------------------------------------------------------


def settings(given: Mapping[str, Any], **changes: Any) -> tuple[PublishConfig, Path]:
    """The publish section and the login's file that `login_options` name; `changes` that are not None lie over it."""
    publish, cookies = one_login(given["config_path"], given["account"], given["file"])
    changes |= {name: given[name] for name in ("member_url", "passport_url", "api_url")}
    wanted = {name: value for name, value in changes.items() if value is not None}
    try:
        return PublishConfig.model_validate({**publish.model_dump(), **wanted}), cookies
    except ValidationError as error:
        raise _usage(error) from None


def _settings(given: Mapping[str, Any]) -> tuple[PublishConfig, Path]:
    submit, line, limit = given["submit"], given["line"], given["limit"]
    if submit == "b-cut-android":
        raise click.UsageError("--submit b-cut-android is not supported: take app or web")
    if line is not None and not re.fullmatch(r"[0-9A-Za-z-]+", line):
        raise click.UsageError(f"--line: {line!r} is no name of a line")
    bandwidth = given["bandwidth"]
    publish, cookies = settings(
        given, submit=submit, line=line, parallel_parts=limit and min(limit, 16), bandwidth=bandwidth,
        bandwidth_by_time=None if bandwidth is None else [])  # fmt: skip
    if not submit and not given["config_path"] and not Credential.load(cookies).access_token:
        publish = publish.model_copy(update={"submit": "web"})
    return publish, cookies


def _template(given: Mapping[str, Any], first: Path) -> Template:
    """The metadata of the options; title and the other texts are literal."""
    fields: dict[str, Any] = {
        "tid": given["tid"], "copyright": _number(given["copyright"]), "dtime": given["dtime"],
        "extra_fields": _extra_fields(given["extra_fields"])}  # fmt: skip
    fields |= {name: given[name] for name in ("tid_v2", "mission_id") if given[name] is not None}
    if tags := [tag.strip() for tag in given["tag"].replace("，", ",").split(",") if tag.strip()]:
        fields["tags"] = tags
    if given["interactive"] == "1":
        fields["extra_fields"] = {"interactive": 1, **fields["extra_fields"]}
    for name in ("dolby", "hires", "no_reprint", "is_only_self", "charging_pay"):
        fields[name] = given[name] == "1"
    fields |= {name: given[name] for name in ("up_selection_reply", "up_close_reply", "up_close_danmu")}
    try:
        template = Template.model_validate(fields)
    except ValidationError as error:
        raise _usage(error) from None
    for path, text in template_contradictions({**fields, "source": given["source"].strip()}):
        raise click.UsageError(f"{_option(path)}: {text}")
    _check_dtime(given["dtime"])
    title = given["title"].strip() or first.stem.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    texts = {name: given[name] for name in ("desc", "source", "dynamic")}
    return template.model_copy(update={"title": title, **texts})


def _check_dtime(text: str) -> None:
    """A moment that is past or too far; one that came too near, while files were uploaded, moves."""
    now = datetime.now(UTC)
    at = scheduled(text, now)
    if at and not now < at <= now + MOST_DTIME:
        raise click.UsageError(f"--dtime: {text} is not within {MOST_DTIME.days} days from now")
    if at and at < now + LEAST_DTIME:
        click.echo(f"--dtime: Bilibili takes {LEAST_DTIME.seconds // 3600} hours ahead at least: as early as possible",
                   err=True)  # fmt: skip


def _extra_fields(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--extra-fields: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise click.UsageError('--extra-fields: not an object, such as {"topic_id": 1}')
    if fixed := sorted(set(fields) & set(KEPT_FIELDS)):
        raise click.UsageError(f"--extra-fields: {', '.join(fixed)} cannot be set")
    return fields


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def _usage(error: ValidationError) -> click.UsageError:
    """What pydantic does not like, by the names of the options."""
    said = (f"{_option(item['loc'])}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors())
    return click.UsageError("\n".join(said))


def _option(place: Sequence[int | str]) -> str:
    name = str(place[0])
    return "--" + {"tags": "tag", "parallel_parts": "limit"}.get(name, name).replace("_", "-")


# -- doing it -------------------------------------------------------------------------------------------------------


class _Ended(BaseException):
    """A signal wants the program to end. Raised wherever it is: the journal holds at every moment."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise _Ended(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _carry_out(publish: PublishConfig, order: Order, as_json: bool) -> None:
    """Do it and print what came of it; our errors go on to the main command."""
    stopped = "stopped; the same command goes on from here"
    try:
        with errors_as_json(as_json), _ended_by_signals(), Display([path.name for path in order.files]) as display:
            if not order.vid and title_of(order.template.title) != " ".join(order.template.title.split()):
                display.note(f"the title is longer than {MOST_TITLE_CHARACTERS} characters: it is cut")
            job = Job(publish, order, state_directory=state_directory(), on_progress=display.progress,
                      on_note=display.note)
            published = job.run()
    except _Ended as ended:
        if as_json:
            _print({"error": stopped, "hint": "", "exit_code": 128 + ended.number})
        click.echo(f"biliupd: {stopped}", err=True)
        sys.exit(128 + ended.number)
    _report(published, order, as_json)


@contextmanager
def errors_as_json(wanted: bool) -> Iterator[None]:
    """An error that leaves the block is printed as an object, too."""
    try:
        yield
    except BiliupdError as error:
        if wanted:
            wait = error.retry_after_seconds if isinstance(error, TemporaryError) else 0
            _print({"error": str(error), "hint": error.hint, "exit_code": exit_code(error),
                    "retry_after_seconds": round(wait)})
        raise


def _report(published: Published, order: Order, as_json: bool) -> None:
    url = f"https://www.bilibili.com/video/{published.bvid}"
    done = "appended to" if order.vid else "published as"
    if published.before:
        click.echo(f"{done} {published.bvid} by an earlier run: nothing was sent now (--again does it anew)", err=True)
    else:
        click.echo(f"{done} {published.bvid}: {url}; Bilibili reviews it now", err=True)
    if not as_json:
        click.echo(published.bvid)
        return
    parts = [{"file": str(path), "title": part.title, "filename": part.filename, "cid": part.cid}
             for path, part in zip(order.files, published.parts, strict=True)]
    _print({"bvid": published.bvid, "aid": published.aid, "url": url, "already": published.before, "parts": parts,
            "exit_code": 0})


def _print(content: dict[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False)
    click.echo(text.encode("utf-8", "replace").decode())

"""The commands login, accounts and renew: they ask and print, publish does the rest.

They need no daemon and no configuration file; with one (-c) the files and addresses in it are used. Added to the main
command by cli, which prints our errors and makes exit codes of them. A login is shown to nobody: no cookie, token,
password or code is printed or taken as an argument, except cookies that the person typed there.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from biliupd.cli.shared import login_account, login_config, login_file, one_login, plain, several_logins
from biliupd.config import PublishConfig
from biliupd.errors import BiliupdError, NeedsPerson, PermanentError, TemporaryError
from biliupd.publish.credential import LARGEST_FILE_BYTES, Credential, check_writable, locked

if TYPE_CHECKING:  # the rest of publish is loaded by the commands: other commands, and --help, do without
    from biliupd.publish.login import Captcha, Geetest, SmsLogin, TvQr, WebQr
    from biliupd.publish.renew import Health

POLL_SECONDS = 1.0
QR_CODES = 4  #: so many are shown, one after the other, before nobody is thought to be there
TRIES = 3  #: so often a person may mistype something
QUIET_ZONE = 2  #: light modules around the code; its own background makes less than four enough
_INK = "\x1b[38;5;231;48;5;16m"  #: white on black, whatever the terminal's own colours are
T = TypeVar("T")


@click.command()
@login_file
@login_config
@login_account
@click.option("--tv", "method", flag_value="tv", help="By QR code, like a television: submits by all ways (default).")
@click.option("--web", "method", flag_value="web", help="By QR code, like a browser: can submit by web only.")
@click.option("--sms", "method", flag_value="sms", help="By a code sent to your phone.")
@click.option("--password", "method", flag_value="password", help="By name and password; Bilibili likes this least.")
@click.option("--cookies", metavar="FILE|TEXT|-",
              help="With cookies of your browser or of another program; - reads them from standard input.")  # fmt: skip
@click.option("--country", type=click.IntRange(1, 9999), default=86, show_default=True, help="The phone's country.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Write the QR code to this file, too.")
def login(
    file: Path | None, config_path: Path | None, account: str | None, method: str | None, cookies: str | None,
    country: int, png: Path | None,
) -> None:  # fmt: skip
    """Log in to Bilibili and keep the login in a file that only you can read."""
    from biliupd.publish.login import TvQr, WebQr, from_cookies
    from biliupd.publish.member import Member
    from biliupd.publish.renew import state

    if method and cookies:
        raise click.UsageError("choose one way to log in")
    publish, path = one_login(config_path, account, file)
    check_writable(path)
    needed = publish.submit if config_path else None
    if cookies:
        _keep_imported(publish, path, from_cookies(publish, _given(cookies)), needed)
        return
    if method == "sms":
        credential = _by_sms(publish, country)
    elif method == "password":
        credential = _by_password(publish)
    else:
        credential = _by_qr(publish, WebQr if method == "web" else TvQr, png)
    _keep(path, credential)
    try:
        health = state(Member(publish, credential))
    except TemporaryError as error:
        click.echo(f"logged in as {credential.mid}; written to {path}; it could not be looked at yet: "
                   f"{plain(str(error))}")
        return
    _welcome(health, path, needed)


@click.command()
@click.option("-u", "--user-cookie", "files", type=click.Path(path_type=Path), multiple=True,
              help="A login's file; any number of them.  [default: cookies.json]")  # fmt: skip
@login_config
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def accounts(files: tuple[Path, ...], config_path: Path | None, as_json: bool) -> None:
    """Show the logins and how they stand; exit code 0 when all can be used."""
    from biliupd.cli.upload import errors_as_json

    with errors_as_json(as_json):
        publish, paths = several_logins(config_path, files)
    needed = publish.submit if config_path else None
    rows = [_looked_at(publish, path, needed) for path in paths]
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], ensure_ascii=False, indent=2))
    else:
        _table(rows)
    sys.exit(0 if all(row.usable for row in rows) else 1)


@click.command()
@click.option("-u", "--user-cookie", "files", type=click.Path(path_type=Path), multiple=True,
              help="A login's file; any number of them.  [default: cookies.json]")  # fmt: skip
@login_config
@click.option("--force", is_flag=True, help="Renew now, though it is not due.")
def renew(files: tuple[Path, ...], config_path: Path | None, force: bool) -> None:
    """Renew logins that end soon, as the daemon does by itself."""
    from biliupd.publish.renew import keep_alive, renewable

    publish, paths = several_logins(config_path, files)
    failed = False
    for path in paths:
        try:
            kept = keep_alive(publish, path, force=force, wait=True)
        except BiliupdError as error:
            if len(paths) == 1:
                raise
            failed = True
            why = str(error).removeprefix(f"{path}: ")
            click.echo(f"{path}: {plain(why)}" + (f"\n  → {plain(error.hint)}" if error.hint else ""), err=True)
            continue
        who = plain(kept.health.name) or str(kept.credential.mid)
        if kept.renewed:
            click.echo(f"{path}: the login of {who} was renewed; valid until {_day(kept.credential.expires_at)}")
        else:
            because = "" if renewable(kept.credential) else " (it cannot be renewed: log in again before that)"
            click.echo(f"{path}: the login of {who} needs nothing; valid until {_day(kept.health.expires_at)}{because}")
    sys.exit(1 if failed else 0)


COMMANDS = (login, accounts, renew)


def _given(cookies: str) -> str:
    """What was meant by --cookies: standard input, a file, or the text itself."""
    try:
        if cookies == "-":
            raw = sys.stdin.buffer.read(LARGEST_FILE_BYTES + 1)
        elif os.path.isfile(cookies):
            with open(cookies, "rb") as file:
                raw = file.read(LARGEST_FILE_BYTES + 1)
        elif "=" in cookies or cookies.lstrip()[:1] in ("{", "["):
            return cookies
        else:
            raise PermanentError(f"{cookies}: there is no such file", hint="or did you mean NAME=VALUE; NAME=VALUE?")
    except OSError as error:
        raise PermanentError(f"{cookies}: {error.strerror}") from error
    if len(raw) > LARGEST_FILE_BYTES:
        raise PermanentError("these cookies are much larger than a login is")
    return raw.decode("utf-8", "replace")


# -- logging in -----------------------------------------------------------------------------------------------------


def _by_qr(publish: PublishConfig, kind: "type[TvQr] | type[WebQr]", png: Path | None) -> Credential:
    from biliupd.publish.login import Expired

    for _ in range(QR_CODES):
        code = kind(publish)
        _show(code.url, png)
        click.echo("Scan it with Bilibili's app (我的 → top right) and confirm there. Ctrl-C gives up.")
        try:
            return _confirmed(code)
        except Expired:
            click.echo("This QR code has expired.")
    raise PermanentError(f"nobody scanned {QR_CODES} QR codes", hint="run biliupd login again when you are there")


def _confirmed(code: "TvQr | WebQr") -> Credential:
    """Wait for the person. A network that fails now and then is waited for, too."""
    from biliupd.publish.login import Expired

    pause, told = threading.Event(), False
    while True:
        try:
            if found := code.poll():
                return found
        except NeedsPerson:
            raise
        except TemporaryError as error:
            if not told:
                click.echo(f"{plain(str(error))}; asking again", err=True)
            told = True
        if datetime.now(UTC) > code.expires_at:
            raise Expired("the QR code has expired")
        pause.wait(POLL_SECONDS)


def _show(url: str, png: Path | None) -> None:
    import segno

    code = segno.make(url, error="l", micro=False, boost_error=False)
    lines = qr_lines([[bool(dark) for dark in row] for row in code.matrix_iter(border=QUIET_ZONE)])
    if not sys.stdout.isatty() or shutil.get_terminal_size().columns >= len(lines[0]):
        for line in lines:
            click.echo(f"{_INK}{line}\x1b[0m")
    else:
        click.echo(f"The QR code needs {len(lines[0])} columns: make the terminal wider, or use --png FILE.")
    click.echo(f"The QR code says: {plain(url)}")
    if png:
        try:
            with open(os.open(png, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                os.fchmod(file.fileno(), 0o600)  # whoever reads it can fetch the login when it is confirmed
                code.save(file, kind="png", scale=8, border=4)
        except OSError as error:
            raise TemporaryError(f"{png}: cannot be written: {error.strerror}", hint="name another file") from error
        click.echo(f"It is in {png}, too.")


def qr_lines(dark: list[list[bool]]) -> list[str]:
    """The modules, two rows to a line of text; the light ones are what is drawn."""
    rows = [*dark, [True] * len(dark[0])] if len(dark) % 2 else dark
    return ["".join(" ▄▀█"[2 * (not upper) + (not lower)] for upper, lower in zip(*pair, strict=True))
            for pair in zip(rows[::2], rows[1::2], strict=True)]


def _by_sms(publish: PublishConfig, country: int) -> Credential:
    from biliupd.publish.login import send_code

    def send() -> "SmsLogin":
        phone = click.prompt(f"Phone number (+{country})").strip().replace(" ", "")
        return _with_captcha(lambda captcha: _sent(send_code(publish, phone, country, captcha)))

    sms = _again(send)
    return _again(lambda: sms.confirm(click.prompt("Code of the SMS", hide_input=True).strip()))


def _sent(sms: "SmsLogin") -> "SmsLogin":
    from biliupd.publish.login import CaptchaDemanded

    if sms.captcha_needed:
        raise CaptchaDemanded("SMS: Bilibili wants a captcha", sms.captcha_needed)
    return sms


def _by_password(publish: PublishConfig) -> Credential:
    from biliupd.publish.login import password_login

    def ask() -> Credential:
        user = click.prompt("Name, phone number or e-mail address").strip()
        password = click.prompt("Password", hide_input=True)
        return _with_captcha(lambda captcha: password_login(publish, user, password, captcha))

    return _again(ask)


def _again(step: Callable[[], T]) -> T:
    """Let the person mistype a few times."""
    from biliupd.publish.login import Rejected

    for _ in range(TRIES - 1):
        try:
            return step()
        except Rejected as error:
            click.echo(plain(f"{error}" + (f": {error.hint}" if error.hint else "")), err=True)
    return step()


def _with_captcha(step: "Callable[[Captcha | None], T]") -> T:
    from biliupd.publish.login import CaptchaDemanded

    captcha: Captcha | None = None
    for _ in range(2 * TRIES):
        try:
            return step(captcha)
        except CaptchaDemanded as demand:
            if demand.puzzle.challenge:
                captcha = _solve(demand.puzzle)
            elif captcha:
                click.echo("That was not its solution; here is another one.", err=True)
                captcha = None
            else:
                raise
    return step(captcha)


def _solve(puzzle: "Geetest") -> "Captcha":
    from biliupd.publish.login import Captcha

    click.echo("Bilibili wants a puzzle solved first. Open this in a browser; what it gives back is asked for below.")
    click.echo(f"  {plain(puzzle.url)}\n  gt: {plain(puzzle.gt)}\n  challenge: {plain(puzzle.challenge)}")
    challenge = click.prompt("challenge", default=puzzle.challenge, show_default=False).strip()
    validate = click.prompt("validate").strip()
    return Captcha(challenge, validate, click.prompt("seccode", default=f"{validate}|jordan").strip(), puzzle.token)


def _keep(path: Path, credential: Credential) -> None:
    with locked(path, wait=True):
        credential.save(path)


def _keep_imported(publish: PublishConfig, path: Path, credential: Credential, needed: str | None) -> None:
    """Cookies from elsewhere may be long dead: a good file is replaced only by a login that counts."""
    from biliupd.publish.member import Member
    from biliupd.publish.renew import state

    health = state(Member(publish, credential))
    if not health.cookies_valid:
        raise NeedsPerson("Bilibili does not know these cookies (any more)",
                          hint="log in at bilibili.com and copy them anew, or run biliupd login")
    _keep(path, credential)
    _welcome(health, path, needed)


def _welcome(health: "Health", path: Path, needed: str | None) -> None:
    click.echo(f"logged in as {plain(health.name)} ({health.mid}); written to {path}; can submit by "
               f"{' and '.join(health.interfaces) or 'nothing'}; valid until {_day(health.expires_at)}")
    if needed and needed not in health.interfaces:
        click.echo(f"The configuration says publish.submit: {needed}, which this login cannot: log in with --tv, or "
                   "set publish.submit: web", err=True)


# -- how they stand -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """One login of the table."""

    path: Path
    health: "Health | None"
    problem: str
    usable: bool

    def as_json(self) -> dict[str, object]:
        health = self.health
        return {
            "file": str(self.path), "name": health.name if health else None, "uid": health.mid if health else None,
            "interfaces": list(health.interfaces) if health else [],
            "expires_at": health.expires_at.isoformat() if health and health.expires_at else None,
            "usable": self.usable, "state": self.problem or "good"}

    def cells(self) -> Iterator[str]:
        health = self.health
        yield str(self.path)
        yield health.name if health else ""
        yield str(health.mid or "") if health else ""
        yield ", ".join(health.interfaces) if health else ""
        yield _day(health.expires_at) if health else ""
        yield self.problem or "good"


def _looked_at(publish: PublishConfig, path: Path, needed: str | None) -> _Row:
    from biliupd.publish.member import Member
    from biliupd.publish.renew import state

    try:
        credential = Credential.load(path)
        health = state(Member(publish, credential))
    except BiliupdError as error:
        why = str(error).removeprefix(f"{path}: ")
        return _Row(path, None, f"{why} → {error.hint}" if error.hint else why, False)
    usable = needed in health.interfaces if needed else bool(health.interfaces)
    return _Row(path, health, _problem(health, credential, needed), usable)


def _problem(health: "Health", credential: Credential, needed: str | None) -> str:
    from biliupd.publish.renew import renewable

    if not health.cookies_valid:
        return "logged out → biliupd login"
    if health.token_valid is False:
        return "the access token does not count any more → biliupd renew"
    if needed and needed not in health.interfaces:
        return f"no access token, which publish.submit: {needed} needs → biliupd renew, or biliupd login"
    if health.refresh_wanted:
        return "to be renewed → biliupd renew, or let the daemon do it"
    left = health.days_left(datetime.now(UTC))
    if left is not None and left < 14 and not renewable(credential):
        return f"ends in {max(left, 0):.0f} days and cannot be renewed → biliupd login"
    return ""


def _table(rows: list[_Row]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("file", "name", "uid", "submits by", "valid until", "state"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(escape(plain(cell)) for cell in row.cells()), style="" if row.usable else "red")
    Console(highlight=False).print(table)


def _day(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "unknown"

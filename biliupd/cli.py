"""The command `biliupd`: argv in, exit code out. The only place that prints.

Our own errors become a line, a hint and the exit code that biliupd.exit_codes says. Anything else is a bug and keeps
its traceback.
"""

import importlib
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from biliupd import __version__
from biliupd.config import Config, load
from biliupd.errors import BiliupdError, ConfigError

#: commands of other modules, imported only when they are called: name → module and what the help says
ELSEWHERE = {
    "login": ("biliupd.cli_accounts", "Log in to Bilibili and keep the login in a file that only you can read."),
    "accounts": ("biliupd.cli_accounts", "Show the logins and how they stand; exit code 0 when all can be used."),
    "renew": ("biliupd.cli_accounts", "Renew logins that end soon, as the daemon does by itself."),
    "upload": ("biliupd.cli_upload", "Publish files, as the parts of one submission, and print its bvid."),
    "append": ("biliupd.cli_upload", "Append files to a submission, as further parts, and print its bvid."),
    "list": ("biliupd.cli_archives", "The account's submissions, newest first."),
    "show": ("biliupd.cli_archives", "A submission: its metadata, its review, its parts."),
}
STOP_SECONDS = 60.0

_config_option = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), default="config.yaml", show_default=True,
    help="The configuration file.",
)  # fmt: skip


class _Commands(click.Group):
    """Turns our errors into lines and exit codes, whichever command raised them."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BiliupdError as error:
            _fail(error)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        commands = importlib.import_module(ELSEWHERE[cmd_name][0]).COMMANDS
        return next((command for command in commands if command.name == cmd_name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does it, but without importing what only the command itself needs."""
        limit = formatter.width - 6 - max(len(name) for name in self.list_commands(ctx))
        known = {**self.commands} | {name: click.Command(name, help=text) for name, (_, text) in ELSEWHERE.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, known[name].get_short_help_str(limit)) for name in self.list_commands(ctx)])


def _fail(error: BiliupdError) -> NoReturn:
    from biliupd.exit_codes import exit_code

    for line in str(error).splitlines():
        click.echo(f"biliupd: {line}", err=True)
    if error.hint:
        click.echo(f"  → {error.hint}", err=True)
    sys.exit(exit_code(error))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="biliupd")
@click.option("-u", "--user-cookie", "cookies", type=click.Path(path_type=Path),
              help="A login's file, for the commands that take one.")  # fmt: skip
@click.pass_context
def main(ctx: click.Context, cookies: Path | None) -> None:
    """Records live streams unattended and publishes them on Bilibili, once."""
    from loguru import logger

    if cookies:  # before the command, as biliup wants it, or behind it
        one, several = {"file": cookies}, {"files": [cookies]}
        ctx.default_map = {**dict.fromkeys(ELSEWHERE, one), "accounts": several, "renew": several}
    logger.remove()  # until the daemon sets up its own
    logger.add(lambda line: click.echo(line, err=True, nl=False), format="{level}: {message}", level="WARNING",
               diagnose=False)  # fmt: skip


def _load(path: Path) -> Config:
    from biliupd.live.platform import answers

    return load(path, answers)


@main.command()
@_config_option
@click.option("--detach", is_flag=True, help="Go into the background (not under systemd, which does that itself).")
def run(path: Path, detach: bool) -> None:
    """Run the daemon, in the foreground unless told otherwise."""
    from biliupd.lock import AlreadyRunning, DataLock, holder, unusable

    path = path.absolute()
    config = _load(path)
    data = config.recordings.data_directory
    lock = DataLock(data)
    if detach:
        import daemon

        if (pid := holder(data)) is not None:
            raise AlreadyRunning(lock.path, pid)
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
            errors = (data / "stderr.log").open("a")
        except OSError as error:
            raise unusable(data, error) from error
        click.echo(f"biliupd goes on in the background: biliupd status -c {path}; its last words: {errors.name}")
        with errors, daemon.DaemonContext(
            pidfile=lock, umask=0o077, working_directory="/", detach_process=True, stdout=errors, stderr=errors
        ):
            sys.exit(_daemon(path, config, stderr=False))
    with lock:
        sys.exit(_daemon(path, config, stderr=True))


def _daemon(path: Path, config: Config, *, stderr: bool) -> int:
    from biliupd.daemon import Daemon  # after detaching: it starts threads and opens files

    return Daemon(path, config, stderr=stderr).run()


@main.command()
@_config_option
def check(path: Path) -> None:
    """Check the configuration; every problem is named with its place."""
    config = _load(path)
    for warning in _warnings(config):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{path}: good; {len(config.streamers)} streamers, {len(config.drop_folders)} drop folders")


def _warnings(config: Config) -> Iterator[str]:
    """What the file says right and the machine does not have."""
    from biliupd.edit import ffmpeg
    from biliupd.publish.credential import Credential

    try:
        ffmpeg.find(config.edit)
    except BiliupdError as error:
        yield f"{error}; {error.hint}"
    for name in ("directory", "data_directory"):
        directory = getattr(config.recordings, name)
        there = next(parent for parent in (directory, *directory.parents) if os.path.lexists(parent))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield f"recordings.{name}: you may not write to {there}; the user that biliupd runs as must"
    for n, folder in enumerate(config.drop_folders):
        if not os.path.isdir(folder.directory):
            yield f"drop_folders[{n}].directory: {folder.directory} is not there yet"
        elif not os.access(folder.directory, os.R_OK | os.X_OK):
            yield f"drop_folders[{n}].directory: you may not read {folder.directory}"
    for name, account in config.accounts.items():
        try:
            Credential.load(account.cookies)
        except BiliupdError as error:
            yield f"accounts.{name}.cookies: {error}; videos wait"


@main.command()
@_config_option
def status(path: Path) -> None:
    """What is going on: streamers, recordings, videos, submissions, and what needs a person."""
    from rich.console import Console

    from biliupd import status as report
    from biliupd.lock import holder

    data, refused = _data_directory(path)

    console = Console(highlight=False)
    if refused:
        console.print("[red]The configuration file is broken; a running daemon keeps the old settings:[/]")
        for problem in refused.problems:
            console.print(f"  {problem}", markup=False)
    pid = holder(data)
    console.print(f"biliupd {__version__}: " + (f"running (pid {pid})" if pid else "not running"))
    if not os.path.exists(data / "catalog.db"):
        console.print(f"No catalog in {data} yet.", markup=False)
        return
    report.show(data / "catalog.db", console)


def _data_directory(path: Path) -> tuple[Path, ConfigError | None]:
    """Where the state lies, and what is wrong with the file.

    For a broken file its own word for the directory, if that can be read, else the default.
    """
    import yaml

    try:
        return _load(path).recordings.data_directory, None
    except ConfigError as error:
        if not os.path.isfile(path):
            raise
        refused = error
    try:
        content = yaml.safe_load(path.read_bytes())
        return path.absolute().parent / Path(content["recordings"]["data_directory"]).expanduser(), refused
    except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return path.absolute().parent / "data", refused


@main.command()
@_config_option
def stop(path: Path) -> None:
    """End the daemon and every recorder at once; files are ended properly."""
    from biliupd.lock import holder
    from biliupd.record.process import end_recorders

    data, _ = _data_directory(path)  # a file broken in the meantime does not keep anybody from stopping
    pid = holder(data)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        if not _wait(lambda: holder(data) is None, STOP_SECONDS):
            raise BiliupdError(f"process {pid} does not end", hint=f"kill -9 {pid}; what is on the disk stays")
    ended = end_recorders(data, STOP_SECONDS)
    click.echo(f"daemon {'ended' if pid else 'was not running'}; {ended} recordings ended")


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@main.command()
@_config_option
@click.argument("what", metavar="video:ID|submission:ID", nargs=-1, required=True)
def retry(path: Path, what: tuple[str, ...]) -> None:
    """Try a held video or submission again."""
    from biliupd.catalog import submissions, videos
    from biliupd.catalog.database import Catalog
    from biliupd.lock import holder

    data, _ = _data_directory(path)
    holder(data)  # says when it is not ours
    if not os.path.exists(data / "catalog.db"):
        raise BiliupdError(f"no catalog in {data} yet", hint="biliupd run makes it; or name another file with -c")
    catalog = Catalog(data / "catalog.db")
    for name in what:
        kind, _, number = name.partition(":")
        again = {"video": videos.retry, "submission": submissions.retry}.get(kind)
        if again is None or not re.fullmatch(r"[0-9]{1,18}", number):
            raise BiliupdError(f"{name!r} names neither video:ID nor submission:ID", hint="biliupd status lists them")
        if not again(catalog.db, int(number)):
            raise BiliupdError(f"{name} is not held")
        click.echo(f"{name}: again")


@main.command()
@click.option("--once", is_flag=True, help="Exit when all of it has happened: 0, or 1 with the reason.")
def demo(once: bool) -> None:
    """The whole job here and now, against a live site and a Bilibili of its own on loopback."""
    from rich.console import Console

    from biliupd.rehearsal.demo import Demo

    sys.exit(Demo(Console(highlight=False)).run(once=once))


if __name__ == "__main__":
    main()

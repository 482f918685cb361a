"""The commands that run, check, show and stop the daemon, and the demo."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click

from biliupd import __version__
from biliupd.cli.shared import config_option, data_directory, load_config, plain
from biliupd.config import Config
from biliupd.errors import BiliupdError

STOP_SECONDS = 60.0


@click.command()
@config_option
@click.option("--detach", is_flag=True, help="Go into the background (not under systemd, which does that itself).")
def run(path: Path, detach: bool) -> None:
    """Run the daemon, in the foreground unless told otherwise."""
    from biliupd.lock import AlreadyRunning, DataLock, holder, unusable

    path = path.absolute()
    config = load_config(path)
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
            sys.exit(_daemon(path, config, stderr=False, unclean=lock.unclean))
    with lock:
        sys.exit(_daemon(path, config, stderr=True, unclean=lock.unclean))


def _daemon(path: Path, config: Config, *, stderr: bool, unclean: bool) -> int:
    from biliupd.daemon import Daemon  # after detaching: it starts threads and opens files

    return Daemon(path, config, stderr=stderr, unclean=unclean).run()


@click.command()
@config_option
def check(path: Path) -> None:
    """Check the configuration; every problem is named with its place."""
    config = load_config(path)
    for warning in _warnings(config):
        click.echo(f"warning: {plain(warning)}", err=True)
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
    for name, template in config.templates.items():
        if template.cover not in ("frame", "live") and not os.access(template.cover, os.R_OK):
            yield f"templates.{name}.cover: {template.cover} cannot be read; a frame of the video is taken instead"
    for name, account in config.accounts.items():
        try:
            Credential.load(account.cookies)
        except BiliupdError as error:
            yield f"accounts.{name}.cookies: {error}; videos wait"
    yield from _open_doors(config)


def _open_doors(config: Config) -> Iterator[str]:
    """What the page lacks."""
    from biliupd.catalog.database import connect
    from biliupd.catalog.users import is_anybody_there

    control = config.control
    if not control.enabled or control.is_loopback:
        return
    if not control.certificate and not control.trusted_proxies:
        yield f"control.host: passwords cross the network readable on {control.host}; set control.certificate and key"
    for name in ("certificate", "key"):
        path = getattr(control, name)
        if path and not os.access(path, os.R_OK):
            yield f"control.{name}: {path} cannot be read"
    catalog = config.recordings.data_directory / "catalog.db"
    with suppress(BiliupdError):
        if not os.path.exists(catalog) or not is_anybody_there(connect(catalog, read_only=True)):
            yield f"control.host: nobody listens on {control.host} before there is a user: biliupd passwd NAME"


@click.command()
@config_option
def status(path: Path) -> None:
    """What is going on: streamers, recordings, videos, submissions, and what needs a person."""
    from rich.console import Console

    from biliupd.cli import status as report
    from biliupd.lock import holder

    data, refused = data_directory(path)

    console = Console(highlight=False)
    if refused:
        console.print("[red]The configuration file is broken; a running daemon keeps the old settings:[/]")
        for problem in refused.problems:
            console.print(f"  {plain(problem)}", markup=False)
    pid = holder(data)
    console.print(f"biliupd {__version__}: " + (f"running (pid {pid})" if pid else "not running"))
    if not os.path.exists(data / "catalog.db"):
        console.print(f"No catalog in {data} yet.", markup=False)
        return
    report.show(data / "catalog.db", console, running=pid is not None)


@click.command()
@config_option
def stop(path: Path) -> None:
    """End the daemon and every recorder at once; files are ended properly."""
    from biliupd.lock import holder
    from biliupd.record.process import end_recorders

    data, _ = data_directory(path)  # a file broken in the meantime does not keep anybody from stopping
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


@click.command()
@click.option("--once", is_flag=True, help="Exit when all of it has happened: 0, or 1 with the reason.")
def demo(once: bool) -> None:
    """The whole job here and now, against a live site and a Bilibili of its own on loopback."""
    from rich.console import Console

    from biliupd.rehearsal.demo import Demo

    sys.exit(Demo(Console(highlight=False)).run(once=once))


COMMANDS = (run, check, status, stop, demo)

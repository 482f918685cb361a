"""The command `biliupd`: argv in, exit code out. The only place that prints.

Each command is in a module of its own kind, imported only when it is called. Our own errors become a line, a hint and
the exit code that `exit_codes` says. Anything else is a bug and keeps its traceback.
"""

import importlib
import io
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from biliupd import __version__
from biliupd.errors import BiliupdError

#: command → its module and what the help says
COMMANDS = {
    "run": ("daemon", "Run the daemon, in the foreground unless told otherwise."),
    "check": ("daemon", "Check the configuration; every problem is named with its place."),
    "status": ("daemon", "What is going on: streamers, recordings, videos, submissions, and what needs a person."),
    "stop": ("daemon", "End the daemon and every recorder at once; files are ended properly."),
    "demo": ("daemon", "The whole job here and now, against a live site and a Bilibili of its own on loopback."),
    "selftest": ("selftest", "Try out on this very machine whether recording survives everything that goes wrong."),
    "videos": ("library", "List the library: all, or what has a text in its title or its streamer's name."),
    "stats": ("library", "Sums of the library for each streamer."),
    "ledger": ("ledger", "How much of a broadcast is recorded, and what is missing, where and why."),
    "retry": ("library", "Try a held or ignored video, a submission, or an account that keeps quiet again."),
    "preview": ("library", "Show exactly what would be sent to Bilibili. Sends nothing."),
    "passwd": ("passwd", "Make a user of the page, or give one another password, which ends their sessions."),
    "backup": ("catalog", "Copy the catalog, whole and checked, while the daemon runs or not."),
    "rebuild": ("catalog", "Make the catalog anew, while no daemon runs; the old file is kept aside."),
    "pin": ("library", "Keep these files for good, whatever retention: says."),
    "unpin": ("library", "Let retention: decide about these files again."),
    "login": ("accounts", "Log in to Bilibili and keep the login in a file that only you can read."),
    "accounts": ("accounts", "Show the logins and how they stand; exit code 0 when all can be used."),
    "renew": ("accounts", "Renew logins that end soon, as the daemon does by itself."),
    "upload": ("upload", "Publish files, as the parts of one submission, and print its bvid."),
    "append": ("upload", "Append files to a submission, as further parts, and print its bvid."),
    "list": ("archives", "The account's submissions, newest first."),
    "show": ("archives", "A submission: its metadata, its review, its parts."),
}


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
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        commands = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name][0]}").COMMANDS
        return next((command for command in commands if command.name == cmd_name), None)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does it, but without importing what only the command itself needs."""
        limit = formatter.width - 6 - max(len(name) for name in COMMANDS)
        with formatter.section("Commands"):
            formatter.write_dl([
                (name, click.Command(name, help=text).get_short_help_str(limit)) for name, (_, text) in COMMANDS.items()
            ])  # fmt: skip


def _fail(error: BiliupdError) -> NoReturn:
    from biliupd.cli.exit_codes import exit_code
    from biliupd.cli.shared import plain

    for line in str(error).splitlines():
        click.echo(f"biliupd: {plain(line)}", err=True)
    if error.hint:
        click.echo(f"  → {plain(error.hint)}", err=True)
    sys.exit(exit_code(error))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="biliupd")
@click.option("-u", "--user-cookie", "cookies", type=click.Path(path_type=Path),
              help="A login's file, for the commands that take one.")  # fmt: skip
@click.pass_context
def main(ctx: click.Context, cookies: Path | None) -> None:
    """Records live streams unattended and publishes them on Bilibili, once."""
    from loguru import logger

    from biliupd.cli.shared import plain

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or a pipe that cannot show a character stops nothing
            stream.reconfigure(errors="backslashreplace")
    if cookies:  # before the command, as biliup wants it, or behind it
        one, several = {"file": cookies}, {"files": [cookies]}
        ctx.default_map = {**dict.fromkeys(COMMANDS, one), "accounts": several, "renew": several}
    logger.remove()  # until the daemon sets up its own
    logger.add(lambda text: click.echo("\n".join(map(plain, text.splitlines())), err=True),
               format="{level}: {message}", level="WARNING", diagnose=False)  # fmt: skip

"""The command that plays every fault of a live site against this machine."""

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

from biliupd.cli.shared import plain
from biliupd.errors import BiliupdError
from biliupd.rehearsal.scenarios import SCENARIOS


@click.command(epilog="Scenarios: " + ", ".join(scenario.name for scenario in SCENARIOS) + ".")
@click.option("--only", "names", multiple=True, metavar="NAME", type=click.Choice([s.name for s in SCENARIOS]),
              help="Play this scenario only; may be given several times.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, 3600), default=0.0, metavar="N",
              help="Let each broadcast last at least so long.  [default: what its fault takes, 8 to 52]")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the recordings, to look at them.")
def selftest(names: tuple[str, ...], seconds: float, keep: bool) -> None:
    """Try out on this very machine whether recording survives everything that goes wrong.

    A live site on loopback broadcasts real media and misbehaves on purpose: it cuts connections, falls silent, sends
    garbage, lets addresses expire, loses segments, changes the picture, fills up a small disk. Real recorders record it
    into a temporary folder. Then each recording is compared with what the site really sent, and you see the ledger and
    a verdict. Nothing leaves this machine, no configuration is read, and no running daemon is touched.

    All of it takes about three minutes and keeps two processors busy. The exit code is 0 only when everything was as it
    has to be.
    """
    from loguru import logger
    from rich.console import Console
    from rich.markup import escape

    from biliupd.config import EditConfig
    from biliupd.edit.ffmpeg import find
    from biliupd.rehearsal.machine import facts
    from biliupd.rehearsal.selftest import Selftest
    from biliupd.rehearsal.verdict import Verdict

    console, printing = Console(highlight=False), threading.Lock()
    ffmpeg = str(find(EditConfig()))
    directory = Path(tempfile.mkdtemp(prefix="biliupd-selftest-"))
    logger.remove()
    logger.add(directory / "selftest.log", format="{time:HH:mm:ss.SSS} {level} {extra} {message}", diagnose=False)
    began = time.monotonic()

    def say(name: str, what: str) -> None:
        with printing:
            console.print(f"[dim]{time.monotonic() - began:6.1f} s[/] {name}: {escape(plain(what))}", soft_wrap=True)

    def tell(verdict: Verdict) -> None:
        with printing:
            if verdict.not_run:
                console.print(f"{verdict.name}: [yellow]not run[/]: {escape(verdict.not_run)}", soft_wrap=True)
                return
            result = "[green]ok[/]" if verdict.ok else "[red bold]FAILED[/]"
            console.print(f"{verdict.name}: {result}: {verdict.ledger or 'no ledger'}", soft_wrap=True)
            for mark, lines in (("!", verdict.trouble), ("withheld", verdict.withheld), ("ledger", verdict.rows)):
                for line in lines:
                    console.print(f"    {mark:<8} {escape(plain(line))}", soft_wrap=True)

    scenarios = [scenario for scenario in SCENARIOS if not names or scenario.name in names]
    finished = False
    try:
        for line in facts(directory, ffmpeg):
            console.print(escape(line), soft_wrap=True)
        verdicts = Selftest(directory, ffmpeg, say).run(scenarios, seconds, tell)
        finished = True
    except OSError as error:
        raise BiliupdError(f"{directory}: {error.strerror}") from error
    finally:
        logger.remove()
        if keep or not finished:
            console.print(f"kept: {directory}", markup=False)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    failed = [verdict.name for verdict in verdicts if verdict.trouble]
    left = sum(bool(verdict.not_run) for verdict in verdicts)
    names_of_failed = f": {', '.join(failed)}" if failed else ""
    counts = f"{len(verdicts) - len(failed) - left} ok, {len(failed)} failed, {left} not run"
    console.print(f"{counts}, {time.monotonic() - began:.0f} s{names_of_failed}", soft_wrap=True)
    sys.exit(1 if failed else 0)


COMMANDS = (selftest,)

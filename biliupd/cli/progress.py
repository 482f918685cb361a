"""How far an upload is, on standard error: bars on a terminal, elsewhere a line now and then.

Used by the commands that upload, on their thread; on a terminal rich draws on a thread of its own until the end.
"""

import sys
import time
from collections.abc import Sequence
from types import TracebackType

import click
from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from biliupd.cli.shared import plain
from biliupd.publish.upos import Progress as Sent

LINE_SECONDS = 10.0


class Display:
    """A context manager; `names` are those of the files. Warnings of the log are shown among the notes."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [plain(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")) for name in names]
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._spoke_at: dict[int, float] = {}
        self._done: set[int] = set()
        self._sink: int | None = None

    def __enter__(self) -> "Display":
        if sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(None),
                TextColumn("{task.fields[facts]}", markup=False), console=Console(stderr=True, highlight=False),
                expand=True)  # fmt: skip
            self._bars.start()
        logger.remove()
        self._sink = logger.add(lambda line: self.note(line.rstrip()), format="{message}", level="WARNING",
                                diagnose=False)  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            logger.remove(self._sink)
        if self._bars:
            self._bars.stop()

    def note(self, text: str) -> None:
        """A line of its own."""
        if self._bars:
            self._bars.console.print(Text(plain(text)), soft_wrap=True)
        else:
            click.echo(plain(text), err=True)

    def progress(self, number: int, sent: Sent) -> None:
        """How far file `number`, counted from 0, is."""
        if self._bars:
            self._draw(self._bars, number, sent)
            return
        now, done = time.monotonic(), sent.sent_bytes >= sent.total_bytes
        last = self._spoke_at.setdefault(number, now)
        if number not in self._done and (done or now - last >= LINE_SECONDS):
            self._spoke_at[number] = now
            self._done |= {number} if done else set()
            click.echo(f"{self._names[number]}: {facts(sent)}", err=True)

    def _draw(self, bars: Progress, number: int, sent: Sent) -> None:
        if number not in self._tasks:
            self._tasks[number] = bars.add_task(self._names[number], total=sent.total_bytes, facts="")
        bars.update(self._tasks[number], completed=sent.sent_bytes, facts=facts(sent))


def facts(sent: Sent) -> str:
    """Share, size, rate, line and what is left, in a few words."""
    words = [f"{100 * sent.sent_bytes // max(sent.total_bytes, 1)} % of {size(sent.total_bytes)}"]
    if sent.sent_bytes < sent.total_bytes:
        words.append(f"{size(sent.bytes_per_second)}/s")
        if sent.eta_seconds is not None:
            minutes, seconds = divmod(round(sent.eta_seconds), 60)
            words.append(f"{minutes}:{seconds:02} left")
    return ", ".join((*words, f"line {sent.line}"))


def size(count: float) -> str:
    """Bytes in a unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"

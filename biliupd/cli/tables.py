"""Tables, sizes and times as the commands print them."""

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from biliupd.cli.shared import plain


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def ago(at: str) -> str:
    """How long ago a moment of the catalog was."""
    return f"{span((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())} ago"


def span(seconds: float) -> str:
    """Seconds for people."""
    seconds = max(0, int(seconds))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 48 * 3600 else f"{seconds // 86400} days"


def clock(seconds: float) -> str:
    """A length or a place in a recording: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def shown(text: str) -> str:
    """Text of others, such as a file's name or a site's title, without commands to the terminal and to rich."""
    return escape(plain(text))


def table(console: Console, title: str, columns: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> None:
    """Print lines under their columns; nothing when there is none."""
    made = Table(*columns, title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for line in lines:
        made.add_row(*(shown(cell) for cell in line))
    if made.row_count:
        console.print(made)

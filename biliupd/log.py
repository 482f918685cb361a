"""Where log lines go: stderr (the journal under systemd), a rotating file, and memory; no secret gets into any.

Set up by `daemon` once; everybody else only says `logger.bind(video=...)`.
"""

import logging
import os
import re
import sys
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, NamedTuple

from loguru import logger

from biliupd.config import LogConfig
from biliupd.errors import PermanentError

if TYPE_CHECKING:
    from loguru import Message, Record

_NAMED = re.compile(
    r"((?:SESSDATA|bili_jct|access_key|access_token|refresh_token|sign|csrf|upload_id|uploadId|auth|token)"
    r"[\"']?\s*[=:]\s*[\"']?)[^\s&;,\"'}]+",
    re.IGNORECASE,
)
_PRIORITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "SUCCESS": 5, "INFO": 6, "DEBUG": 7, "TRACE": 7}
_hidden: set[str] = set()
REMEMBERED = 2000  #: lines


class Line(NamedTuple):
    """A line of the log. `seq` counts them from 1, `bound` holds what it is about: streamer, video, submission."""

    seq: int
    at: datetime
    level: str
    text: str
    bound: dict[str, Any]


_remembered: deque[Line] = deque(maxlen=REMEMBERED)


def hide(secrets: Iterable[str]) -> None:
    """Keep these values out of every line from now on."""
    _hidden.update(secret for secret in secrets if len(secret) >= 6)


def redact(text: str) -> str:
    """`text` without known secrets and without the values of parameters that carry such."""
    for secret in tuple(_hidden):
        text = text.replace(secret, "***")
    return _NAMED.sub(r"\1***", text)


def lines(after: int = 0) -> list[Line]:
    """The last lines behind number `after`, oldest first. Any thread."""
    found = _remembered.copy()
    if found and found[-1].seq <= after:
        return []
    return [line for line in found if line.seq > after]


def set_up(config: LogConfig, *, stderr: bool = True) -> None:
    """Send log lines to stderr and to the file of the settings; called again, it replaces what was there.

    Raises PermanentError when the file cannot be written; what was there stays then.
    """
    to = None if config.file is None else _file(config)
    logger.remove()
    logger.configure(patcher=_one_line)
    if not any(isinstance(handler, _FromLibraries) for handler in logging.root.handlers):
        logging.root.addHandler(_FromLibraries(logging.WARNING))
    if stderr:
        journal = bool(os.environ.get("JOURNAL_STREAM"))

        def to_stderr(message: "Message") -> None:
            # systemd reads the priority from <N>, and knows the time itself
            prefix = f"<{_PRIORITY.get(message.record['level'].name, 6)}>" if journal else ""
            sys.stderr.write(prefix + redact(message))

        when = "" if journal else "{time:HH:mm:ss} {level: <7} "
        logger.add(to_stderr, level=config.level, format=_with(when), colorize=False, diagnose=False)
    logger.add(_remember, level=config.level, format="{message}", diagnose=False)
    if to is not None:

        def to_file(message: "Message") -> None:
            if not os.path.exists(to.baseFilename):  # moved or deleted under us: what is written there nobody reads
                to.close()
                os.makedirs(os.path.dirname(to.baseFilename), exist_ok=True)
            to.handle(logging.makeLogRecord({"msg": redact(message).rstrip("\n")}))

        logger.add(to_file, level=config.level, format=_with("{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level: <7} "),
                   colorize=False, diagnose=False)  # fmt: skip


def _remember(message: "Message") -> None:
    record = message.record
    seq = _remembered[-1].seq + 1 if _remembered else 1
    text = record["message"]
    if record["exception"] is not None and record["exception"].type is not None:
        text += f" ({record['exception'].type.__name__}: {record['exception'].value})"
    at = record["time"].astimezone(UTC)
    _remembered.append(Line(seq, at, record["level"].name, redact(text), dict(record["extra"])))


class _FromLibraries(logging.Handler):
    """What libraries say through the standard logging, from warnings up, goes the same way: redacted, in one format."""

    def emit(self, record: logging.LogRecord) -> None:
        known = record.levelname if record.levelname in _PRIORITY else "WARNING"
        logger.opt(exception=record.exc_info).log(known, "{}: {}", record.name, record.getMessage())


class _LogFile(RotatingFileHandler):
    """A file that cannot be written is said once on stderr, and tried on: a full disk must not fill the journal."""

    _refused = ""
    _failed = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        if not self._failed:
            self._refused = ""

    def handleError(self, record: logging.LogRecord) -> None:
        self._failed = True
        why = getattr(sys.exception(), "strerror", None) or str(sys.exception())
        if why != self._refused and sys.stderr is not None:
            sys.stderr.write(f"{self.baseFilename} cannot be written: {why}\n")
        self._refused = why


def _file(config: LogConfig) -> RotatingFileHandler:
    assert config.file is not None
    try:
        config.file.parent.mkdir(parents=True, exist_ok=True)
        return _LogFile(
            config.file, maxBytes=int(config.rotate_size), backupCount=config.keep_files, encoding="utf-8"
        )
    except OSError as error:
        raise PermanentError(
            f"log.file: {config.file} cannot be written: {error.strerror}",
            hint="name a file in a directory that the user biliupd runs as may write to, or write log.file: null",
        ) from error


def _one_line(record: "Record") -> None:
    """A file's name may hold a line break; it must not forge a line."""
    if not record["message"].isprintable():
        record["message"] = "".join(
            c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in record["message"]
        )


def _with(when: str) -> "Format":
    def form(record: "Record") -> str:
        bound = " ".join(f"{name}={{extra[{name}]}}" for name in record["extra"])
        return when + (f"[{bound}] " if bound else "") + "{message}\n{exception}"

    return form


if TYPE_CHECKING:
    from collections.abc import Callable

    Format = Callable[[Record], str]

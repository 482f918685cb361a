"""Choose the upload line: ask for the list, send a little to each at the same time, take the fastest.

Runs on a worker before an upload; its threads end at the deadline.
"""

import http.client
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loguru import logger

from biliupd.config import PublishConfig
from biliupd.errors import BiliupdError, NeedsPerson, TemporaryError
from biliupd.publish.member import Member, parsed
from biliupd.publish.wire import Wire, is_host

DEADLINE_SECONDS = 8.0
FALLBACK = "bldsa"
PROBE_VERSION = "20250923"
MOST_PROBE_BYTES = 8 << 20


@dataclass(frozen=True)
class Line:
    """A route for the bytes: its name and what preupload must be asked with."""

    name: str
    query: str


@dataclass(frozen=True)
class Measured:
    """A line that answered, and how long the probe took."""

    line: Line
    seconds: float
    bytes_per_second: float


def named(name: str) -> Line:
    """The line of that name, unmeasured."""
    return Line(name, f"probe_version={PROBE_VERSION}&upcdn={name}&zone=cs")


def choose(publish: PublishConfig, member: Member) -> Line:
    """The line of the setting, or the fastest; bldsa when none answered. Raises NeedsPerson alone."""
    if publish.line.lower() != "auto":
        return named(publish.line)
    try:
        ranked = probe(member)
    except NeedsPerson:
        raise
    except TemporaryError as error:
        logger.warning("the upload lines could not be measured: {}; taking {}", error, FALLBACK)
        return named(FALLBACK)
    if not ranked:
        logger.warning("no upload line answered; taking {}", FALLBACK)
        return named(FALLBACK)
    logger.info("upload line {}: {:.1f} MiB/s in the probe", ranked[0].line.name, ranked[0].bytes_per_second / 2**20)
    return ranked[0].line


def probe(member: Member, deadline_seconds: float = DEADLINE_SECONDS) -> list[Measured]:
    """Every line that answered within the deadline, the fastest first.

    Raises TemporaryError (NeedsPerson too) when the list itself cannot be had.
    """
    what = "list of upload lines"
    address = f"{member.publish.member_url}/preupload"
    response = member.send("GET", address, what=what, params={"r": "probe"}, cookies=False)
    answer = parsed(response)
    entries, size, get = _read_list(answer)
    if not entries:
        error: BiliupdError = member.refusal(response, answer, what)
        raise error if isinstance(error, TemporaryError) else TemporaryError(str(error))
    results: queue.SimpleQueue[Measured | None] = queue.SimpleQueue()
    until = time.monotonic() + deadline_seconds
    wires = [Wire(f"{member.scheme}:{url}", deadline_seconds) for _, url in entries]
    threads = [
        threading.Thread(target=_measure, args=(line, url, wire, size, get, results), name="probe", daemon=True)
        for (line, url), wire in zip(entries, wires, strict=True)]
    for thread in threads:
        thread.start()
    found: list[Measured] = []
    for _ in threads:
        try:
            one = results.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        if one:
            found.append(one)
    for wire in wires:
        wire.cut()
    return sorted(found, key=lambda one: -one.bytes_per_second)


def _measure(
    line: Line, url: str, wire: Wire, size: int, get: bool, results: "queue.SimpleQueue[Measured | None]"
) -> None:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    began, measured = time.monotonic(), None
    try:
        reply = wire.request("GET" if get else "POST", target, {"User-Agent": "Mozilla/5.0"},
                             None if get else bytes(size))
        seconds = max(time.monotonic() - began, 1e-6)
        if 200 <= reply.status < 300:
            measured = Measured(line, seconds, max(size, 1) / seconds)
    except (OSError, http.client.HTTPException, BiliupdError) as error:
        logger.debug("line {} does not answer: {}", line.name, type(error).__name__)
    finally:
        wire.close()
        results.put(measured)


def _read_list(answer: Any) -> tuple[list[tuple[Line, str]], int, bool]:
    """Lines with their probe addresses, bytes to send, and whether to GET instead; nothing usable gives no lines."""
    listed = answer.get("lines") if isinstance(answer, dict) else None
    entries = []
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or entry.get("os", "upos") != "upos":
            continue
        query, url = entry.get("query"), entry.get("probe_url")
        if isinstance(query, str) and isinstance(url, str) and is_host(url):
            name = parse_qs(query).get("upcdn", [urlsplit(url).hostname or ""])[0]
            entries.append((Line(name, query), url))
    inner = answer.get("probe") if isinstance(answer, dict) else None
    how: dict[str, Any] = inner if isinstance(inner, dict) else {}
    megabytes = how.get("post")
    size = int(megabytes * 2**20) if isinstance(megabytes, int | float) and 0 < megabytes < 2**20 else 104857
    return entries, min(size, MOST_PROBE_BYTES), how.get("get") is not None

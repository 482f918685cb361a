"""Choose the upload line: ask for the list, send a little to each at the same time, rank them, remember.

Called by the workers before an upload; its own threads end at the deadline. Writes one small file, the ranking.
"""

import http.client
import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from loguru import logger

from biliupd.errors import BiliupdError, NeedsPerson, Stopped, TemporaryError
from biliupd.publish import private_file
from biliupd.publish.member import Member, parsed
from biliupd.publish.wire import Wire, is_host

DEADLINE_SECONDS = 8.0  #: nobody waits longer for a measurement
LIST_SECONDS = 1.0  #: of these, for the list
LIFE_SECONDS = 3600.0  #: a ranking holds this long, and so does a failure
AGAIN_SECONDS = 300.0  #: not measured again any sooner, though nothing answered or the best one failed
TICK_SECONDS = 0.1
ZONES = ("cs", "sz")
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
    """The line of that name, unmeasured; biliup's spelling with the zone in front (cs-bda2) is understood."""
    zone, _, rest = name.lower().partition("-")
    known = zone in ZONES and rest
    name, zone = (rest, zone) if known else (name.lower(), ZONES[0])
    return Line(name, urlencode({"probe_version": PROBE_VERSION, "upcdn": name, "zone": zone}))


class Lines:
    """The lines in the order in which they are worth trying, measured at most once an hour.

    Safe to use from several threads: one measures for all, and nobody waits for it longer than the deadline. With a
    `path` the ranking outlives the process.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._memory = _read(path) if path else _Memory()
        self._probe: _Probe | None = None

    def ranked(self, member: Member, stop: threading.Event | None = None) -> list[Line]:
        """The line of the setting alone; for auto every line that answered, the fastest first, and those that failed
        within the last hour behind the others. bldsa when nothing answered.

        Raises NeedsPerson when the account has to wait for somebody, Stopped when `stop` is set.
        """
        setting = member.publish.line
        if setting.lower() != "auto":
            return [named(setting)]
        with self._lock:
            if not self._memory.is_due(time.time()):
                return self._memory.order(time.time())
            if self._probe is None:
                self._probe = _Probe(member, self._remember)
            probe = self._probe
        probe.wait(stop or threading.Event())
        if isinstance(probe.error, NeedsPerson):
            raise probe.error
        with self._lock:
            order = self._memory.order(time.time())
        if not order:
            logger.warning("no upload line answered ({}); taking {}", probe.error or "in time", FALLBACK)
        return order or [named(FALLBACK)]

    def failed(self, line: Line) -> None:
        """A line did not serve: for an hour it stands behind the others, and they are measured anew if it was first."""
        with self._lock:
            now, memory = time.time(), self._memory
            order = memory.order(now)
            first = bool(order) and order[0].name == line.name
            due_at = min(memory.due_at, memory.tried_at + AGAIN_SECONDS) if first else memory.due_at
            lately = {name: at for name, at in memory.failed.items() if now - at < LIFE_SECONDS}
            self._memory = replace(memory, failed={**lately, line.name: now}, due_at=due_at)
            self._write()

    def _remember(self, probe: "_Probe") -> None:
        """In the probe's thread: take over what it found."""
        with self._lock:
            now = time.time()
            if probe.found:
                best = probe.found[0]
                logger.info("upload line {}: {:.1f} MiB/s in the probe", best.line.name, best.bytes_per_second / 2**20)
                lines = tuple(one.line for one in probe.found)
                self._memory = replace(self._memory, lines=lines, tried_at=now, due_at=now + LIFE_SECONDS)
            elif not isinstance(probe.error, NeedsPerson):
                logger.warning("the upload lines could not be measured: {}", probe.error or "none answered")
                self._memory = replace(self._memory, tried_at=now, due_at=now + AGAIN_SECONDS)
            if self._probe is probe:
                self._probe = None
            self._write()

    def _write(self) -> None:
        """With the lock held. What cannot be written down is measured again after a restart."""
        if not self._path:
            return
        try:
            private_file.replace(self._path, json.dumps({"version": 1, **asdict(self._memory)}, indent=1).encode())
        except OSError as error:
            logger.warning("the ranking of the upload lines cannot be kept in {}: {}", self._path, error.strerror)


@dataclass(frozen=True)
class _Memory:
    """What is known of the lines; moments in Unix seconds."""

    lines: tuple[Line, ...] = ()
    tried_at: float = 0.0
    due_at: float = 0.0
    failed: dict[str, float] = field(default_factory=dict)

    def is_due(self, now: float) -> bool:
        """Whether it is time to measure; so it is when the clock was set back."""
        return not self.tried_at <= now < self.due_at

    def order(self, now: float) -> list[Line]:
        """The lines, those that failed lately last and among them the latest very last; bldsa while none is known."""
        lately = {name: at for name, at in self.failed.items() if 0 <= now - at < LIFE_SECONDS}
        known = self.lines or ((named(FALLBACK),) if not self.is_due(now) else ())
        return sorted(known, key=lambda line: lately.get(line.name, 0.0))


def _read(path: Path) -> _Memory:
    """What an earlier process wrote down; nothing when it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
        lines = tuple(Line(str(one["name"]), str(one["query"])) for one in content["lines"])
        failed = {str(name): float(at) for name, at in content["failed"].items()}
        tried_at, due_at = float(content["tried_at"]), float(content["due_at"])
    except FileNotFoundError:
        return _Memory()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        logger.warning("{} cannot be used ({}); the upload lines are measured anew", path, type(error).__name__)
        return _Memory()
    sound = due_at - tried_at <= LIFE_SECONDS and all(line.query.isascii() and line.query.isprintable()
                                                      for line in lines)
    return _Memory(lines, tried_at, due_at, failed) if sound else _Memory()


class _Probe:
    """One measurement, on a thread of its own, so that whoever waits for it can stop waiting."""

    def __init__(self, member: Member, then: Callable[["_Probe"], None]) -> None:
        self.found: list[Measured] = []
        self.error: BiliupdError | None = None
        self._member, self._then = member, then
        self._over = threading.Event()
        self._until = time.monotonic() + DEADLINE_SECONDS
        threading.Thread(target=self._run, name="probe lines", daemon=True).start()

    def wait(self, stop: threading.Event) -> None:
        """Until it is over or the deadline has passed. Raises Stopped."""
        while not self._over.wait(TICK_SECONDS) and time.monotonic() < self._until:
            if stop.is_set():
                raise Stopped("stopped while the upload lines were measured")

    def _run(self) -> None:
        try:
            self.found = probe(self._member, DEADLINE_SECONDS - LIST_SECONDS)
        except BiliupdError as error:
            self.error = error
        finally:
            try:
                self._then(self)
            finally:
                self._over.set()


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

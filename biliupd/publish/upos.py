"""A file → an object at UPOS: preupload, init, parts in parallel, complete.

The caller's thread waits, listens to `stop` and reports progress; the work is done by threads of this module, which
end with the upload. Reads the file in blocks of 256 KiB and writes nothing. A part that fails is sent again, the same
bytes; a ticket that is refused costs a new one and the file from its start.
"""

import http.client
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from loguru import logger

from biliupd.errors import NeedsPerson, PermanentError, Stopped, TemporaryError
from biliupd.publish.line import Line
from biliupd.publish.member import Member
from biliupd.publish.preupload import Ticket, preupload
from biliupd.publish.source import Source
from biliupd.publish.wire import Reply, Wire

RESTARTS = 2
PART_PATIENCE = 4  #: a part may take this many times publish.timeout_seconds as a whole, and as much more each try
EXTRA_COMPLETE_ATTEMPTS = 3  #: everything is there already: a little more patience pays
LONGEST_PAUSE_SECONDS = 60.0
TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Uploaded:
    """What a submission needs of an uploaded file; `filename` is UPOS's name for it, without extension."""

    filename: str
    cid: int
    size_bytes: int
    line: str
    seconds: float


def upload(
    path: Path, member: Member, line: Line, *, stop: threading.Event,
    on_progress: Callable[[int, int], None] | None = None,
) -> Uploaded:
    """Upload one file; `on_progress(sent, total)` in bytes, never going back, is called in the caller's thread.

    Raises Stopped within about a second after `stop` is set, TemporaryError (NeedsPerson when the account waits for
    somebody), or PermanentError for a file or a refusal that another try cannot help.
    """
    job = _Job(path, member, line)
    thread = threading.Thread(target=job.run, name="upload", daemon=True)
    shown = -1
    if stop.is_set():
        raise Stopped(f"{path.name}: not begun")
    thread.start()
    try:
        while not job.over.wait(TICK_SECONDS):
            if stop.is_set():
                raise Stopped(f"{path.name}: stopped in mid-upload")
            job.hang_up_late_requests()
            sent, total = job.meter.sent()
            if on_progress and total and sent > shown:
                shown = sent
                on_progress(sent, total)
    finally:
        job.end()
        thread.join(0.5)
    if job.error:
        raise job.error
    assert job.uploaded
    if on_progress and shown < job.uploaded.size_bytes:
        on_progress(job.uploaded.size_bytes, job.uploaded.size_bytes)
    return job.uploaded


class _Refused(Exception):
    """The object cannot be finished with this ticket; another may do."""


class _Ended(Exception):
    """Somebody called `end`: put everything down."""


class _Meter:
    """Bytes sent so far, those under way included; what is shown never goes back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._landed = self._highest = self._total = 0
        self._flying: dict[int, int] = {}

    def begin(self, total: int) -> None:
        with self._lock:
            self._landed, self._total = 0, total
            self._flying.clear()

    def fly(self, part: int, count: int) -> None:
        self._flying[part] = count

    def land(self, part: int, size: int) -> None:
        with self._lock:
            self._flying.pop(part, None)
            self._landed += size

    def drop(self, part: int) -> None:
        with self._lock:
            self._flying.pop(part, None)

    def sent(self) -> tuple[int, int]:
        with self._lock:
            self._highest = max(self._highest, min(self._landed + sum(list(self._flying.values())), self._total))
            return self._highest, self._total


class _Job:
    """One upload, with as many tickets as it takes."""

    def __init__(self, path: Path, member: Member, line: Line) -> None:
        self.over = threading.Event()
        self.meter = _Meter()
        self.uploaded: Uploaded | None = None
        self.error: BaseException | None = None
        self._path, self._member, self._line = path, member, line
        self._lock = threading.Lock()
        self._ended = False
        self._transfer: _Transfer | None = None

    def run(self) -> None:
        try:
            self.uploaded = self._run()
        except _Ended:
            self.error = Stopped(f"{self._path.name}: stopped in mid-upload")
        except Exception as error:  # noqa: BLE001  the top of this thread's turn: the caller's thread raises it
            self.error = error
        finally:
            self.over.set()

    def _run(self) -> Uploaded:
        began, why = time.monotonic(), ""
        with Source(self._path) as source:
            for _ in range(1 + RESTARTS):
                self.meter.begin(source.size_bytes)
                ticket = preupload(self._member, self._line, source)
                try:
                    with self._begin(ticket, source) as transfer:
                        transfer.run()
                except _Refused as refused:
                    why = str(refused)
                    logger.warning("{}: {}; once more from the start with a new ticket", self._path.name, why)
                    continue
                seconds = time.monotonic() - began
                return Uploaded(ticket.filename, ticket.cid, source.size_bytes, self._line.name, seconds)
        raise TemporaryError(f"{self._path.name}: {1 + RESTARTS} tickets in vain, the last: {why}")

    def _begin(self, ticket: Ticket, source: Source) -> "_Transfer":
        with self._lock:
            if self._ended:
                raise _Ended
            self._transfer = _Transfer(self._member, ticket, source, self.meter)
            return self._transfer

    def end(self) -> None:
        """Wake and end whatever is under way."""
        with self._lock:
            self._ended = True
            if self._transfer:
                self._transfer.end()

    def hang_up_late_requests(self) -> None:
        with self._lock:
            if self._transfer:
                self._transfer.hang_up_late_requests()


class _Transfer:
    """One object with one ticket: init, parts, complete."""

    def __init__(self, member: Member, ticket: Ticket, source: Source, meter: _Meter) -> None:
        self._publish, self._scheme = member.publish, member.scheme
        self._ticket, self._source, self._meter = ticket, source, meter
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._wires: list[Wire] = []
        self._failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def __enter__(self) -> "_Transfer":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for wire in self._wires:
            wire.close()

    def end(self) -> None:
        self._over.set()
        with self._lock:
            for wire in self._wires:
                wire.cut()

    def hang_up_late_requests(self) -> None:
        with self._lock:
            for wire in self._wires:
                wire.hang_up_if_late()

    def run(self) -> None:
        wire = self._wire()
        upload_id = self._init(wire)
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        count = -(-self._source.size_bytes // self._ticket.chunk_size)
        for number in range(1, count + 1):
            numbers.put(number)
        wires = [wire, *(self._wire() for _ in range(1, min(self._publish.parallel_parts, count)))]
        workers = [
            threading.Thread(target=self._work, args=(one, numbers, upload_id, count), name="upload part", daemon=True)
            for one in wires]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if not self._failures.empty():
            raise self._failures.get()  # the first one: those after it come from being ended
        if self._over.is_set():
            raise _Ended
        self._complete(wire, upload_id, count)

    def _work(self, wire: Wire, numbers: "queue.SimpleQueue[int]", upload_id: str, count: int) -> None:
        try:
            while not self._over.is_set():
                self._send(wire, numbers.get_nowait(), upload_id, count)
        except queue.Empty:
            return
        except Exception as error:  # noqa: BLE001  the top of this thread's turn: `run` raises it
            self._failures.put(error)
            self.end()

    def _wire(self) -> Wire:
        wire = Wire(f"{self._scheme}:{self._ticket.endpoint}", self._publish.timeout_seconds)
        with self._lock:
            self._wires.append(wire)
            if self._over.is_set():
                wire.cut()
        return wire

    def _init(self, wire: Wire) -> str:
        fields = {"output": "json", "profile": self._ticket.profile, "filesize": self._source.size_bytes,
                  "partsize": self._ticket.chunk_size, "biz_id": self._ticket.cid}
        reply = self._ask(wire, "beginning the upload", f"uploads&{urlencode(fields)}", self._publish.part_attempts)
        upload_id = _content(reply).get("upload_id")
        if not isinstance(upload_id, str) or not upload_id:
            raise TemporaryError(f"{self._source.name}: UPOS gave no upload id")
        return upload_id

    def _send(self, wire: Wire, number: int, upload_id: str, count: int) -> None:
        start = (number - 1) * self._ticket.chunk_size
        size = min(self._ticket.chunk_size, self._source.size_bytes - start)
        query = urlencode({
            "partNumber": number, "uploadId": upload_id, "chunk": number - 1, "chunks": count, "size": size,
            "start": start, "end": start + size, "total": self._source.size_bytes})

        def body() -> Iterator[memoryview]:
            sent = 0
            for block in self._source.blocks(start, size):
                if self._over.is_set():
                    raise _Ended
                yield block
                sent += len(block)
                self._meter.fly(number, sent)

        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._ask(wire, f"part {number}", query, self._publish.part_attempts, "PUT", headers, body,
                  on_failure=lambda: self._meter.drop(number))
        self._meter.land(number, size)

    def _complete(self, wire: Wire, upload_id: str, count: int) -> None:
        self._source.check()
        query = urlencode({"output": "json", "name": self._source.name, "profile": self._ticket.profile,
                           "uploadId": upload_id, "biz_id": self._ticket.cid})
        parts = [{"partNumber": number, "eTag": "etag"} for number in range(1, count + 1)]
        body = json.dumps({"parts": parts}).encode()
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        attempts = self._publish.part_attempts + EXTRA_COMPLETE_ATTEMPTS
        reply = self._ask(wire, "completing", query, attempts, "POST", headers, lambda: iter([body]),
                          is_good=lambda reply: _content(reply).get("OK") == 1)
        if _content(reply).get("OK") != 1:
            raise _Refused("UPOS does not complete the object")

    def _ask(
        self, wire: Wire, what: str, query: str, attempts: int, method: str = "POST",
        headers: dict[str, str] | None = None, body: Callable[[], Iterator[Any]] | None = None,
        on_failure: Callable[[], None] = lambda: None, is_good: Callable[[Reply], bool] = lambda reply: True,
    ) -> Reply:
        """A request until it succeeds or `attempts` are used up; between them a pause that doubles.

        After the last attempt, an answer of status 2xx that is not good is returned; everything else is raised.
        """
        headers = {"X-Upos-Auth": self._ticket.auth, "User-Agent": "Mozilla/5.0", "Content-Length": "0",
                   **(headers or {})}
        for attempt in range(1, attempts + 1):
            self._source.check()
            why, cause, reply = "", None, None
            patience = self._publish.timeout_seconds * attempt * (PART_PATIENCE if method == "PUT" else 1)
            try:
                reply = wire.request(method, f"{self._ticket.path}?{query}", headers, body() if body else None,
                                     patience_seconds=patience)
                why = self._judged(reply, what)
                if not why and is_good(reply):
                    return reply
            except (OSError, http.client.HTTPException) as error:
                why, cause = type(error).__name__, error
            on_failure()
            if self._over.is_set():
                raise _Ended
            logger.info("{}: {}: {} (try {} of {})", self._source.name, what, why or "refused", attempt, attempts)
            if attempt < attempts and self._over.wait(_pause(self._ticket.retry_seconds, attempt)):
                raise _Ended
        if reply is not None and not why:
            return reply
        raise TemporaryError(f"{self._source.name}: {what} failed {attempts} times, the last: {why}") from cause

    def _judged(self, reply: Reply, what: str) -> str:
        """Why another try is due; empty for success. What no further try with this ticket can mend is raised."""
        status = reply.status
        if 200 <= status < 300:
            return ""
        if status in (403, 404):
            raise _Refused(f"{what}: the ticket is no longer accepted (HTTP {status})")
        if b"PART_COUNT_ERR" in reply.body:
            raise _Refused(f"{what}: UPOS has not all parts")
        if status == 412:
            raise NeedsPerson(f"{what}: HTTP 412, risk control", retry_after_seconds=3600)
        if status < 500 and status not in (408, 429):
            raise PermanentError(f"{self._source.name}: {what}: UPOS answers HTTP {status}")
        return f"HTTP {status}"


def _pause(base_seconds: float, attempt: int) -> float:
    return min(base_seconds * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)


def _content(reply: Reply) -> dict[str, Any]:
    try:
        content = json.loads(reply.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}

"""One object with one ticket at one endpoint: init, the parts that are missing, complete.

Runs in an upload's thread and has a thread for each part under way; all of them end with it. Reads the file in blocks
of 256 KiB and writes nothing.
"""

import http.client
import json
import queue
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from loguru import logger

from biliupd.errors import Cooling, PermanentError
from biliupd.publish.member import Member
from biliupd.publish.meter import Meter
from biliupd.publish.source import Source
from biliupd.publish.throttle import Throttle
from biliupd.publish.wire import Reply, Wire

PART_PATIENCE = 4  #: a part may take this many times publish.timeout_seconds as a whole, and as much more each try
LEAST_BYTES_PER_SECOND = 16 << 10  #: nor is one late that comes along at this rate
EXTRA_COMPLETE_ATTEMPTS = 3  #: everything is there already: a little more patience pays
LONGEST_PAUSE_SECONDS = 60.0


class Refused(Exception):
    """The object cannot be finished with this ticket; another may do."""


class RefusedForGood(PermanentError):
    """UPOS does not want what it was sent, and there is no telling why."""


class Unserved(Exception):
    """The endpoint did not serve, however often it was asked; another may. The cause is that of the last try."""


class Ended(Exception):
    """Somebody called `end`: put everything down."""


class Transfer:
    """What is left to do for the session in `meter`, at the first of its endpoints."""

    def __init__(self, member: Member, source: Source, meter: Meter, throttle: Throttle | None) -> None:
        self._publish, self._scheme = member.publish, member.scheme
        self._source, self._meter, self._throttle = source, meter, throttle
        self._session = meter.session
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._wires: list[Wire] = []
        self._failures: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def __enter__(self) -> "Transfer":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for wire in self._wires:
            wire.close()

    def end(self) -> None:
        """Wake and end whatever is under way; from any thread."""
        self._over.set()
        with self._lock:
            for wire in self._wires:
                wire.cut()

    def hang_up_late_requests(self) -> None:
        with self._lock:
            for wire in self._wires:
                wire.hang_up_if_late()

    def run(self) -> None:
        """Raises Refused, Unserved, Ended, or an error of the family."""
        wire = self._wire()
        if not self._session.upload_id:
            self._meter.change(upload_id=self._init(wire))
            self._session = self._meter.session
        self._send_all(wire)
        self._complete(wire)

    def _send_all(self, wire: Wire) -> None:
        missing: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(1, self._session.count + 1):
            if number not in self._session.done:
                missing.put(number)
        parallel = max(1, min(self._session.threads, self._publish.parallel_parts, missing.qsize()))
        wires = [wire, *(self._wire() for _ in range(1, parallel))]
        workers = [threading.Thread(target=self._work, args=(one, missing), name="upload part", daemon=True)
                   for one in wires]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if not self._failures.empty():
            raise self._failures.get()  # the first one: those after it come from being ended
        if self._over.is_set():
            raise Ended

    def _work(self, wire: Wire, missing: "queue.SimpleQueue[int]") -> None:
        try:
            while not self._over.is_set():
                self._send(wire, missing.get_nowait())
        except queue.Empty:
            return
        except Exception as error:  # noqa: BLE001  the top of this thread's turn: `run` raises it
            self._failures.put(error)
            self.end()

    def _wire(self) -> Wire:
        wire = Wire(f"{self._scheme}:{self._session.endpoints[0]}", self._publish.timeout_seconds)
        with self._lock:
            self._wires.append(wire)
            if self._over.is_set():
                wire.cut()
        return wire

    def _init(self, wire: Wire) -> str:
        session = self._session
        fields = {"output": "json", "profile": session.profile, "filesize": session.size_bytes,
                  "partsize": session.chunk_size, "biz_id": session.cid}
        reply = self._ask(wire, "beginning the upload", f"uploads&{urlencode(fields)}", self._publish.part_attempts,
                          is_good=lambda reply: bool(_upload_id(reply)))
        if not _upload_id(reply):
            raise Unserved("beginning the upload gives no upload id")
        return _upload_id(reply)

    def _send(self, wire: Wire, number: int) -> None:
        start, size = (number - 1) * self._session.chunk_size, self._session.size_of(number)
        query = urlencode({
            "partNumber": number, "uploadId": self._session.upload_id, "chunk": number - 1,
            "chunks": self._session.count, "size": size, "start": start, "end": start + size,
            "total": self._session.size_bytes})
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._ask(wire, f"part {number}", query, self._publish.part_attempts, "PUT", headers,
                  lambda: self._body(wire, number, start, size), least_seconds=size / LEAST_BYTES_PER_SECOND,
                  on_failure=lambda: self._meter.drop(number))
        self._meter.land(number)

    def _body(self, wire: Wire, number: int, start: int, size: int) -> Iterator[memoryview]:
        sent = 0
        for block in self._source.blocks(start, size):
            while block:
                piece = self._allowed(wire, block)
                if self._over.is_set():
                    raise Ended
                sent += len(piece)
                self._meter.fly(number, sent)  # before it goes: a send that fails may have got anywhere
                yield piece
                block = block[len(piece):]

    def _allowed(self, wire: Wire, block: memoryview) -> memoryview:
        """As much of a block as may go now."""
        throttle = self._throttle
        if not throttle or not throttle.limits():
            return block
        piece = block[:throttle.piece(len(block))]
        with wire.unhurried():
            throttle.take(len(piece), self._over)
        return piece

    def _complete(self, wire: Wire) -> None:
        self._source.check()
        query = urlencode({"output": "json", "name": self._source.name, "profile": self._session.profile,
                           "uploadId": self._session.upload_id, "biz_id": self._session.cid})
        parts = [{"partNumber": number, "eTag": "etag"} for number in range(1, self._session.count + 1)]
        body = json.dumps({"parts": parts}).encode()
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        attempts = self._publish.part_attempts + EXTRA_COMPLETE_ATTEMPTS
        reply = self._ask(wire, "completing", query, attempts, "POST", headers, lambda: iter([body]),
                          is_good=lambda reply: _content(reply).get("OK") == 1)
        if _content(reply).get("OK") != 1:
            raise Refused("UPOS does not complete the object")

    def _ask(
        self, wire: Wire, what: str, query: str, attempts: int, method: str = "POST",
        headers: dict[str, str] | None = None, body: Callable[[], Iterator[Any]] | None = None,
        on_failure: Callable[[], None] = lambda: None, is_good: Callable[[Reply], bool] = lambda reply: True,
        least_seconds: float = 0,
    ) -> Reply:
        """A request until it succeeds or `attempts` are used up; between them a pause that doubles.

        After the last attempt, an answer of status 2xx that is not good is returned; everything else is raised.
        """
        headers = {"X-Upos-Auth": self._session.auth, "User-Agent": "Mozilla/5.0", "Content-Length": "0",
                   **(headers or {})}
        for attempt in range(1, attempts + 1):
            self._source.check()
            why, cause, reply = "", None, None
            patience = self._publish.timeout_seconds * attempt * (PART_PATIENCE if method == "PUT" else 1)
            try:
                reply = wire.request(method, f"{self._session.path}?{query}", headers, body() if body else None,
                                     patience_seconds=max(patience, least_seconds))
                why = self._judged(reply, what)
                if not why and is_good(reply):
                    return reply
            except (OSError, http.client.HTTPException) as error:
                why, cause = type(error).__name__, error
            except BaseException:
                on_failure()
                raise
            on_failure()
            if self._over.is_set():
                raise Ended
            logger.info("{}: {}: {} (try {} of {})", self._source.name, what, why or "refused", attempt, attempts)
            if attempt < attempts and self._over.wait(_pause(self._session.retry_seconds, attempt)):
                raise Ended
        if reply is not None and not why:
            return reply
        raise Unserved(f"{what} failed {attempts} times, the last: {why}") from cause

    def _judged(self, reply: Reply, what: str) -> str:
        """Why another try is due; empty for success. What no further try with this ticket can mend is raised."""
        status = reply.status
        if 200 <= status < 300:
            return ""
        if status in (403, 404):
            raise Refused(f"{what}: the ticket is no longer accepted (HTTP {status})")
        if b"PART_COUNT_ERR" in reply.body:
            raise Refused(f"{what}: UPOS has not all parts")
        if status == 412:
            raise Cooling(f"{what}: HTTP 412, risk control", retry_after_seconds=3600)
        if status < 500 and status not in (408, 429):
            raise RefusedForGood(f"{self._source.name}: {what}: UPOS answers HTTP {status}")
        return f"HTTP {status}"


def _pause(base_seconds: float, attempt: int) -> float:
    return min(base_seconds * 2.0 ** (attempt - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1)


def _upload_id(reply: Reply) -> str:
    found = _content(reply).get("upload_id")
    return found if isinstance(found, str) and found.isprintable() else ""


def _content(reply: Reply) -> dict[str, Any]:
    try:
        content = json.loads(reply.body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}

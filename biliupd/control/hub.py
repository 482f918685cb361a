"""Sees the catalog change, and tells whoever looks on.

Lives on the server's event loop. What has to be read is read on one thread of its own, with one connection: four times
a second while somebody looks on, else only the bitrates of what is recorded, every five seconds. Each message is made
once, whoever it goes to, and nobody is waited for: who does not take what is sent is dropped, and may come back.

Numbers: `seq` of a message says that its reader now knows all changes up to there, of all its topics. So of several
messages made at once only the last one for a reader bears the new number, and no row is older than the number says;
newer it may be, because rows are told as they are when they are read.
"""

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, TypeVar

from loguru import logger
from pydantic_core import to_json
from sqlite_utils import Database

from biliupd.catalog import library, queries, records, streamers, submissions, tasks
from biliupd.catalog.changes import Change, latest, reading, since
from biliupd.catalog.database import Catalog
from biliupd.control import rows
from biliupd.control.house import House, Running
from biliupd.control.models import TOPICS, LogLine, Status, Topic
from biliupd.errors import BiliupdError

LOOK_SECONDS = 0.25
STATUS_SECONDS = 1.0
SAMPLE_SECONDS = 5.0
CHECK_SECONDS = 2.0  #: how often it is looked whether clients are still logged in
SAMPLES = 120  #: of each task
ENDED = 20  #: tasks that no longer run, whose samples are kept
MOST_ROWS = 500  #: of a topic at once; more are told as a snapshot
MOST_MESSAGES, MOST_BYTES = 256, 1024**2  #: that may wait for one client
_WHOLE: tuple[Topic, ...] = ("status", "streamers", "tasks")  # show what no row tells: told whole to who comes back

T = TypeVar("T")


class Message(NamedTuple):
    """JSON but for its number."""

    topic: str
    head: str  #: up to the number
    tail: str

    def text(self, seq: int | None) -> str:
        """All of it. None: its reader knows nothing more than before."""
        return f"{self.head}{'null' if seq is None else seq}{self.tail}"


TOO_SLOW, NOT_LOGGED_IN = 1013, 4401  #: codes to close with


@dataclass(eq=False)
class Client:
    """Who looks on, as long as it `may`. `ended` is the code to close with once it does no longer."""

    may: Callable[[], bool]
    topics: frozenset[str] = frozenset()
    ended: int = 0
    _waiting: deque[tuple[str, int]] = field(default_factory=deque)  # text, and what it counts
    _bytes: int = 0
    _messages: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _empty: asyncio.Event = field(default_factory=asyncio.Event)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, text: str, *, counts: bool = True) -> None:
        """Send it when the client takes it. What the client asked for itself counts nothing."""
        if self.ended:
            return
        full = self._messages >= MOST_MESSAGES or self._bytes + len(text) > MOST_BYTES
        if counts and full and self._messages:  # one alone may be as long as it is
            self.end(TOO_SLOW)
            return
        self._waiting.append((text, len(text) if counts else 0))
        self._bytes += len(text) if counts else 0
        self._messages += counts
        self._empty.clear()
        self._news.set()

    def end(self, code: int) -> None:
        """Send nothing more."""
        self.ended = code
        self._waiting.clear()
        self._over.set()

    async def over(self) -> int:
        """Wait until it is to be closed → with which code."""
        await self._over.wait()
        return self.ended

    async def next(self) -> str:
        """The next text to send."""
        while not self._waiting:
            self._empty.set()
            self._news.clear()
            await self._news.wait()
        text, counted = self._waiting.popleft()
        self._bytes -= counted
        self._messages -= bool(counted)
        return text

    async def emptied(self) -> None:
        """Wait until everything was taken."""
        await self._empty.wait()


class Seen(NamedTuple):
    """What a client says it has seen; None: nothing."""

    seq: int | None = None
    log: int | None = None
    epoch: str | None = None


class Hub:
    """`async with hub:` while the server runs."""

    sample_seconds = SAMPLE_SECONDS

    def __init__(self, catalog: Catalog, house: House) -> None:
        self._catalog, self._house = catalog, house
        self._clients: set[Client] = set()
        self._waiters: set[asyncio.Future[bool]] = set()
        self._wanted = asyncio.Event()
        self._lock = asyncio.Lock()  # whoever reads changes or a snapshot, so that what is told stays in order
        self._seq: int | None = None  # all up to here was told; None: nobody looks on
        self._status: Status | None = None  # as it was told, and when
        self._status_at = self._disk_at = 0.0
        self._line = 0  # of the log: all up to here was told
        self._whole: dict[str, tuple[int, float, Message]] = {}  # snapshots, the change they show, and when
        self._samples: dict[str, deque[float]] = {}
        self._made_at = hashlib.sha256(catalog.made_at.isoformat().encode()).hexdigest()[:8]
        self._thread = ThreadPoolExecutor(1, "control-hub")
        self._tasks: list[asyncio.Task[None]] = []
        self.epoch = f"{secrets.token_hex(4)}-{self._made_at}"

    async def __aenter__(self) -> Self:
        turns = (self._look(), self._sample(), self._check())
        self._tasks = [asyncio.create_task(turn) for turn in turns]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiter in self._waiters:
            waiter.cancel()
        await self._read(self._catalog.close)
        self._thread.shutdown()

    def bitrates(self, task_id: str) -> list[float]:
        """Bits a second of a task, one for each `sample_seconds` of the last minutes, oldest first."""
        return list(self._samples.get(task_id, ()))

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait for the next change of any row; False: there was none in this time."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        self._wanted.set()
        try:
            return await asyncio.wait_for(waiter, timeout_seconds)
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)

    async def join(self, client: Client, topics: Iterable[Topic], seen: Seen) -> None:
        """Tell a client of these topics from now on, and first what it does not know of them.

        Of topics it had before it knows everything. Raises TemporaryError: the catalog cannot be read now.
        """
        wanted = frozenset(topics)
        new = wanted - client.topics
        again = seen.seq is not None and not client.topics and str(seen.epoch).endswith(f"-{self._made_at}")
        async with self._lock:
            await self._tell_changes()
            self._tell_lines()
            asked = [topic for topic in TOPICS if topic in new and topic != "log"]
            told = await self._read(self._since if again else self._snapshots, asked, seen.seq or 0)
            before = seen.seq if again else None
            for text in self._texts(told, before):
                client.put(text, counts=False)
            if "log" in new:
                client.put(self._log_for(seen), counts=False)
            client.topics = wanted
            self._clients.add(client)
        self._wanted.set()

    def leave(self, client: Client) -> None:
        """It is gone."""
        self._clients.discard(client)

    # what is looked at

    async def _look(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._clients and not self._waiters:
                async with self._lock:
                    if not self._clients and not self._waiters:
                        self._wanted.clear()
                        self._seq = None
                await self._wanted.wait()
            began = loop.time()
            try:
                async with self._lock:
                    await self._tell_changes()
                    await self._tell_status(began)
                    self._tell_lines()
            except BiliupdError:
                pass  # the catalog is busy, or its disk is: the next look tells the same and more
            except Exception:  # noqa: BLE001  # the top of this task's turn
                logger.exception("what changed could not be told")
            await asyncio.sleep(max(LOOK_SECONDS - (loop.time() - began), LOOK_SECONDS / 5))

    async def _sample(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self._keep(await self._read(self._house.running))
            except Exception:  # noqa: BLE001  # the top of this task's turn
                logger.exception("what is recorded could not be told")
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _check(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            clients = list(self._clients)
            try:
                valid = await self._read(lambda clients=clients: [client.may() for client in clients])
            except BiliupdError:
                continue  # the catalog is busy
            except Exception:  # noqa: BLE001  # the top of this task's turn
                logger.exception("it could not be told who is still logged in")
                continue
            for client, may in zip(clients, valid, strict=True):
                if not may:
                    client.end(NOT_LOGGED_IN)

    def _keep(self, running: Sequence[Running]) -> None:
        for one in running:
            self._samples.setdefault(one.task_id, deque(maxlen=SAMPLES)).append(one.figures.bitrate)
        ids = {one.task_id for one in running}
        for id in [id for id in self._samples if id not in ids][:-ENDED]:
            del self._samples[id]
        watching = [client for client in self._clients if client.topics & {"tasks", "streamers"}]
        if running and watching:
            text = to_json({"type": "figures", "tasks": {one.task_id: one.figures for one in running}}).decode()
            for client in watching:
                client.put(text)

    async def _read(self, ask: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, ask, *given)

    # what is told; each with the lock held

    async def _tell_changes(self) -> None:
        if self._seq is None:
            self._seq = await self._read(lambda: latest(self._catalog.db))
            return
        topics = frozenset[str]().union(*(client.topics for client in self._clients))
        before = self._seq
        self._seq, told = await self._read(self._news, before, [topic for topic in TOPICS if topic in topics])
        if self._seq != before:
            self._tell(told, before)
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(True)

    async def _tell_status(self, at: float) -> None:
        """At most once a second. What only the disk's figures changed is told less often: they always do."""
        topics = frozenset[str]().union(*(client.topics for client in self._clients))
        if at - self._status_at < STATUS_SECONDS or not topics & {"status", "streamers"}:
            return
        self._status_at, before = at, self._status
        now, waiting = await self._read(self._standing, before)
        self._status = now
        told = []
        if waiting is not None and "streamers" in topics:
            told.append(waiting)
        if before is None or now != before.model_copy(update={"disk": now.disk}) or (
            now != before and at - self._disk_at >= SAMPLE_SECONDS
        ):  # fmt: skip
            self._disk_at = at
            told.append(_change("status", [now], []))
        elif before is not None:
            self._status = before
        self._tell(told, self._seq)

    def _tell_lines(self) -> None:
        lines = self._house.log_lines(self._line)
        if lines:
            self._line = lines[-1].seq
            text = _log("log", self._line, lines)
            for client in self._clients:
                if "log" in client.topics:
                    client.put(text)

    def _log_for(self, seen: Seen) -> str:
        """What a client does not know of the log, which was told up to `_line`."""
        known = seen.log if seen.log is not None and seen.epoch == self.epoch else 0
        lines = [line for line in self._house.log_lines(known) if line.seq <= self._line]
        whole = not known or (bool(lines) and lines[0].seq > known + 1)
        return _log("snapshot" if whole else "log", self._line, lines)

    def _tell(self, told: Sequence[Message], before: int | None) -> None:
        made: dict[frozenset[str], list[str]] = {}  # clients with the same topics share the same texts
        for client in self._clients:
            texts = made.get(client.topics)
            if texts is None:
                texts = self._texts([one for one in told if one.topic in client.topics], before)
                made[client.topics] = texts
            for text in texts:
                client.put(text)

    def _texts(self, told: Sequence[Message], before: int | None) -> list[str]:
        return [one.text(before) for one in told[:-1]] + [one.text(self._seq) for one in told[-1:]]

    # what is read, on the hub's own thread

    def _news(self, seq: int, topics: Sequence[Topic]) -> tuple[int, list[Message]]:
        with reading(self._catalog.db) as last:
            return last, self._changes(topics, seq, ()) if last != seq and topics else []

    def _since(self, topics: Sequence[Topic], seq: int) -> list[Message]:
        with reading(self._catalog.db):
            return self._changes(topics, seq, _WHOLE)

    def _snapshots(self, topics: Sequence[Topic], _: int = 0) -> list[Message]:
        with reading(self._catalog.db):
            return [self._snapshot(topic) for topic in topics]

    def _changes(self, topics: Sequence[Topic], seq: int, whole: Sequence[Topic]) -> list[Message]:
        db = self._catalog.db
        found = since(db, seq)
        if found is None:
            return [self._snapshot(topic) for topic in topics]
        changed = _by_topic(db, found, topics)
        made = []
        for topic in topics:
            ids = changed.get(topic, [])
            if topic in whole or len(ids) > MOST_ROWS:
                made.append(self._snapshot(topic))
            elif ids:
                shown = self._rows(topic, ids)
                there = {one.name if topic == "accounts" else one.id for one in shown}
                made.append(_change(topic, shown, [id for id in ids if id not in there]))
        return made

    def _rows(self, topic: Topic, ids: Sequence[Any]) -> list[Any]:
        db, house = self._catalog.db, self._house
        if topic == "videos":
            return [rows.video(row) for row in library.some(db, ids)]
        if topic == "submissions":
            return [rows.submission(row) for row in submissions.some(db, ids)]
        if topic == "tasks":
            return rows.tasks_of(tasks.some(db, ids), house)
        if topic == "streamers":
            return rows.streamers(streamers.some(db, ids), db, house)
        return [rows.account(row) for row in queries.accounts(db, ids)]

    def _snapshot(self, topic: Topic) -> Message:
        """Made once for all who ask within a second, while nothing changes."""
        db, now = self._catalog.db, time.monotonic()
        seq, at, known = self._whole.get(topic, (0, 0.0, None))
        if known is None or seq != latest(db) or now - at > STATUS_SECONDS:
            known = self._fresh_snapshot(topic)
            self._whole[topic] = latest(db), now, known
        return known

    def _fresh_snapshot(self, topic: Topic) -> Message:
        db, house = self._catalog.db, self._house
        shown: dict[str, Any]
        if topic == "status":
            shown = {"status": rows.status(db, house)}
        elif topic == "streamers":
            shown = {"streamers": rows.streamers(records.active_streamers(db), db, house)}
        elif topic == "tasks":
            found = rows.tasks_of(tasks.current(db), house)
            shown = {"tasks": found, "bitrates": {one.id: self.bitrates(one.id) for one in found},
                     "sample_seconds": SAMPLE_SECONDS}  # fmt: skip
        elif topic == "videos":
            shown = {"videos": [rows.video(row) for row in library.current(db)], "counts": library.counts(db)}
        elif topic == "submissions":
            shown = {"submissions": [rows.submission(row) for row in submissions.current(db)]}
        else:
            shown = {"accounts": rows.accounts(db, house)}
        return _message("snapshot", topic, shown)

    def _standing(self, before: Status | None) -> tuple[Status, Message | None]:
        """How everything stands; and the streamers who wait for a place, or no longer do."""
        db = self._catalog.db
        with reading(db):
            now = rows.status(db, self._house)
            then = {one.streamer for one in before.waiting} if before else set()
            other = then ^ {one.streamer for one in now.waiting}
            ids = streamers.named(db, sorted(other)) if other else []
            return now, _change("streamers", self._rows("streamers", ids), []) if ids else None


def _by_topic(db: Database, found: Sequence[Change], topics: Sequence[Topic]) -> dict[str, list[Any]]:
    """Which rows of each topic show something that changed; more than MOST_ROWS: too many to tell one by one."""
    kinds: dict[str, list[Any]] = {}
    for change in found:
        kinds.setdefault(change.kind, []).append(change.row)

    def of(*names: str) -> list[Any]:
        return [row for name in names for row in kinds.get(name, ())]

    def showing(topic: Topic, own: str, others: Sequence[str], ask: Callable[[], Sequence[Any]]) -> list[Any]:
        if topic not in topics:
            return []
        if len(of(*others)) > MOST_ROWS:  # then so are those that show them
            return of(*others)
        return list(dict.fromkeys([*of(own), *ask()]))

    return {
        "videos": of("video"), "accounts": of("account"),
        "tasks": showing("tasks", "task", ["broadcast"], lambda: tasks.of_broadcasts(db, of("broadcast"))),
        "streamers": showing(
            "streamers", "streamer", ["task", "broadcast"],
            lambda: tasks.streamers_of(db, of("task") + tasks.of_broadcasts(db, of("broadcast")))),
        "submissions": showing(
            "submissions", "submission", ["video", "broadcast"],
            lambda: submissions.showing(db, of("video"), of("broadcast"))),
    }  # fmt: skip


def _change(topic: Topic, put: Sequence[Any], gone: Sequence[Any]) -> Message:
    return _message("change", topic, {"put": put, "gone": gone})


def _message(kind: str, topic: Topic, shown: dict[str, Any]) -> Message:
    return Message(topic, f'{{"type":"{kind}","topic":"{topic}","seq":', "," + to_json(shown).decode()[1:])


def _log(kind: str, seq: int, lines: Sequence[LogLine]) -> str:
    topic = {"topic": "log"} if kind == "snapshot" else {}
    return to_json({"type": kind, **topic, "seq": seq, "lines": lines}).decode()

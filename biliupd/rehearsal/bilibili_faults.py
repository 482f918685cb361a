"""What can go wrong at the stand-in Bilibili, when told so: for tests, one request or thousands, here or there.

A fault is told from any thread; the server's connection threads ask for it. Touches nothing but its own list.
"""

import math
import threading
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from biliupd.rehearsal.bilibili_wire import Answer

FOR_EVER = math.inf  #: as `times`: until `heal`
UPOS_ROUTES = ("probe_list", "probe", "preupload", "init", "put", "complete")
OTHER_ROUTES = ("picture", "correspond", "unknown")
GATEWAY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
CONTROL_PAGE = "<!DOCTYPE html><html><head><title>出错啦! - bilibili.com</title></head><body>412</body></html>".encode()


class Where(TypedDict, total=False):
    """Which requests of a route a fault is for; without any of these, all of them.

    `line` is the upcdn the object's ticket was asked for with, `endpoint` the host:port that was asked, `part` a part
    number, `uid` the account; the first `skip` requests that fit go well.
    """

    line: str
    endpoint: str
    part: int
    uid: int
    skip: int


@dataclass(eq=False)
class Fault:
    """One thing to go wrong with the next `times` requests of a route that fit `where`."""

    route: str
    times: float
    where: dict[str, Any]
    answer: Answer | None = None
    drop: bool = False  #: reset instead of an answer
    after: bool = False  #: handle the request in full first
    half: bool = False  #: reset when half of the body has arrived
    seconds: float = 0
    skip: int = 0

    def fits(self, route: str, facts: dict[str, Any]) -> bool:
        return self.route == route and all(facts.get(name) == wanted for name, wanted in self.where.items())


class Faults:
    """The list of faults. `times` may be FOR_EVER; all methods take the words of `Where`."""

    def __init__(self, routes: list[str]) -> None:
        self._names = sorted({*routes, *UPOS_ROUTES, *OTHER_ROUTES})
        self._faults_lock = threading.Lock()
        self._faults: list[Fault] = []
        self._speeds: list[tuple[dict[str, Any], float]] = []

    def fail(self, route: str, status: int, body: Any = b"", times: float = 1, headers: dict[str, str] | None = None,
             **where: Unpack[Where]) -> None:
        """Answer the next `times` requests of a route so, without doing anything; a body that is not bytes is JSON."""
        answer = Answer(status, body, "text/html", headers or {}) if isinstance(body, bytes) else Answer.json(
            body, status, headers)
        self._add(Fault(route, times, {}, answer=answer), where)

    def refuse(
        self, route: str, code: int, message: str = "", times: float = 1, content: Any = None, *, status: int = 200,
        voucher: str = "", voucher_header: str = "", **where: Unpack[Where],
    ) -> None:
        """Refuse with a code in the envelope of that route: Bilibili's, or the one of preupload and UPOS.

        The `voucher` of a captcha demand comes inside (data.v_voucher, detail.v_voucher), the other in a header.
        """
        inside = content if not voucher else {**(content or {}), "v_voucher": voucher}
        text = message or str(code)
        if route in UPOS_ROUTES:
            body = {"OK": 0, "code": code, "message": text, "info": text} | ({"detail": inside} if inside else {})
        else:
            body = {"code": code, "message": text, "ttl": 1, "data": inside}
        headers = {"x-bili-gaia-vvoucher": voucher_header} if voucher_header else None
        self.fail(route, status, body, times, headers, **where)

    def intercept(self, route: str, times: float = 1, **where: Unpack[Where]) -> None:
        """Risk control in front of everything: HTTP 412 with a page of HTML."""
        self.fail(route, 412, CONTROL_PAGE, times, **where)

    def drop(self, route: str, times: float = 1, **where: Unpack[Where]) -> None:
        """Reset the connection before the request is handled."""
        self._add(Fault(route, times, {}, drop=True), where)

    def drop_connection(self, *, on_chunk: int | None = None, times: float = 1, **where: Unpack[Where]) -> None:
        """Reset the connection when half of part number `on_chunk`, or of any part, has arrived."""
        if on_chunk is not None:
            where["part"] = on_chunk
        self._add(Fault("put", times, {}, half=True), where)

    def lose_answer(self, route: str, times: float = 1, **where: Unpack[Where]) -> None:
        """Handle the request in full, then reset the connection instead of answering."""
        self._add(Fault(route, times, {}, drop=True, after=True), where)

    def lose_submit_answer(self, times: float = 1) -> None:
        """Accept the submission, then reset the connection instead of answering."""
        self.lose_answer("submit", times)

    def spoil_answer(self, route: str, status: int, body: bytes = GATEWAY_PAGE, times: float = 1,
                     **where: Unpack[Where]) -> None:
        """Handle the request in full, then answer like a gateway that lost its backend."""
        self._add(Fault(route, times, {}, answer=Answer(status, body, "text/html"), after=True), where)

    def never_end(self, route: str, block: bytes = b" " * 65536, pause_seconds: float = 0.01, times: float = 1,
                  **where: Unpack[Where]) -> None:
        """Handle the request in full, then answer 200 with a body that goes on and on: a flood, or a trickle."""
        answer = Answer(200, block, repeat_seconds=pause_seconds)
        self._add(Fault(route, times, {}, answer=answer, after=True), where)

    def stall(self, route: str, seconds: float, times: float = 1, **where: Unpack[Where]) -> None:
        """Wait this long before the request is handled."""
        self._add(Fault(route, times, {}, seconds=seconds), where)

    def slow(self, bytes_per_second: float, **where: Unpack[Where]) -> None:
        """Read parts no faster than this on each connection; 0: as fast as they come."""
        wanted = _without_skip(where)
        with self._faults_lock:
            kept = [entry for entry in self._speeds if entry[0] != wanted]
            self._speeds = [*kept, (wanted, bytes_per_second)] if bytes_per_second else kept

    def heal(self, route: str | None = None) -> None:
        """Forget what was to go wrong with a route, or with all; whatever is under way still goes wrong."""
        with self._faults_lock:
            self._faults = [fault for fault in self._faults if route not in (None, fault.route)]
            if route in (None, "put"):
                self._speeds = []

    def _add(self, fault: Fault, where: Where) -> None:
        if fault.route not in self._names:
            raise ValueError(f"there is no route {fault.route!r}; there are {', '.join(self._names)}")
        fault.skip, fault.where = where.get("skip", 0), _without_skip(where)
        with self._faults_lock:
            self._faults.append(fault)

    def next_fault(self, route: str, facts: dict[str, Any]) -> Fault | None:
        """The first fault for such a request, one time less of it left."""
        with self._faults_lock:
            for fault in self._faults:
                if not fault.fits(route, facts):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    def speed(self, facts: dict[str, Any]) -> float:
        """Bytes per second at which such a part is read, 0 for no limit; what was told last counts."""
        with self._faults_lock:
            return next((speed for where, speed in reversed(self._speeds)
                         if all(facts.get(name) == wanted for name, wanted in where.items())), 0)


def _without_skip(where: Where) -> dict[str, Any]:
    return {name: wanted for name, wanted in where.items() if name != "skip"}

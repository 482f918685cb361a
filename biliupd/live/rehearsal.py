"""The stand-in live site: rehearsal+http://127.0.0.1:PORT/rooms/ID, for `biliupd demo` and the tests.

Runs on the thread of whoever looks at a room. Speaks the JSON API the stand-in has (`GET /api/rooms/ID`) and gives
real answers of all four states, as an adapter for a real site does.
"""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from biliupd.config import LiveConfig
from biliupd.errors import TemporaryError
from biliupd.live.fetch import NoAnswer, fetch
from biliupd.live.status import LiveStatus, LiveStream, State, one_line

LARGEST_ANSWER_BYTES = 64 * 1024
_ADDRESS = re.compile(r"rehearsal\+(https?://[^/@?#\s]+)/rooms/([\w-]+)/?")


class Rehearsal:
    name = "rehearsal"

    def matches(self, url: str) -> bool:
        return _ADDRESS.fullmatch(url) is not None

    def check(self, url: str, live: LiveConfig) -> LiveStatus:
        try:
            room = _ask(url, live)
        except NoAnswer as error:
            return LiveStatus(State.UNKNOWN, str(error), answered=False)
        except TemporaryError as error:
            return LiveStatus(State.UNKNOWN, str(error))
        try:
            state = State(room.get("live_status", ""))
        except ValueError:
            return LiveStatus(State.UNKNOWN, "the site answers with a state that is not known")
        return LiveStatus(
            state,
            reason="the site says it is not for everybody" if state is State.RESTRICTED else "",
            title=one_line(room.get("title")),
            cover_url=one_line(room.get("cover")),
            live_id=one_line(room.get("live_id")),
            started_at=_moment(room.get("started_at")),
        )

    def stream(self, url: str, live: LiveConfig) -> LiveStream:
        room = _ask(url, live)
        streams = room.get("streams")
        ways = []
        for stream in streams if isinstance(streams, list) else []:
            match stream:
                case {"protocol": "flv" | "hls" | "ffmpeg" as protocol, "url": str(address)} if address:
                    ways.append(LiveStream(address, protocol, expires_at=_moment(stream.get("expires_at"))))
        if not ways:
            raise TemporaryError("the site names no stream")
        return replace(ways[0], alternates=tuple(ways[1:]))


def _ask(url: str, live: LiveConfig) -> dict[str, Any]:
    """What the API says about the room. Raises `TemporaryError` for anything that is not its description."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise TemporaryError("not an address of the stand-in")
    site, room_id = found.groups()
    address = f"{site}/api/rooms/{room_id}"
    answer = fetch(address, timeout_seconds=live.request_timeout_seconds, largest_bytes=LARGEST_ANSWER_BYTES)
    if answer.status == 404:
        raise TemporaryError("there is no such room")
    if answer.status != 200:
        raise TemporaryError(f"the site answers {answer.status}")
    try:
        room = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise TemporaryError("the answer is not JSON") from error
    if not isinstance(room, dict) or str(room.get("room_id")) != room_id:
        raise TemporaryError("the answer is not about this room")
    return room


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment and moment.tzinfo else None

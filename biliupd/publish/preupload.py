"""Ask for an upload ticket: where the object goes, how large its parts are, and the right to write it (§ preupload).

Runs in an upload's thread.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from biliupd.errors import TemporaryError
from biliupd.publish.line import Line
from biliupd.publish.member import Member, code_of, parsed
from biliupd.publish.source import Source
from biliupd.publish.wire import is_host

PROFILE = "ugcupos/bup"
LARGEST_CHUNK_BYTES = 1 << 30
MOST_PARTS = 100_000  # far more than UPOS takes


@dataclass(frozen=True)
class Ticket:
    """What preupload answered; `endpoint` is //host[:port], `path` begins with a slash, good for five days."""

    endpoint: str
    path: str
    filename: str
    cid: int
    chunk_size: int
    retry_seconds: float
    auth: str = field(repr=False)
    profile: str = PROFILE


def preupload(member: Member, line: Line, source: Source) -> Ticket:
    """A new ticket. Raises NeedsPerson, TemporaryError or PermanentError as the answer says."""
    what = f"asking for an upload ticket for {source.name}"
    fields = {"name": source.name, "size": source.size_bytes, "r": "upos", "profile": PROFILE, "ssl": 0,
              "version": "2.14.0", "build": 2140000}
    address = f"{member.publish.member_url}/preupload?{line.query}&{urlencode(fields)}"
    response = member.send("GET", address, what=what)
    answer = parsed(response)
    if response.status_code < 400 and isinstance(answer, dict) and answer.get("OK") == 1:
        return _ticket(answer, what, source.size_bytes)
    if response.status_code < 400 and code_of(answer) in (None, 0):
        member.whoami()  # dead cookies are answered without a code, too; this one says so
    raise member.refusal(response, answer, what)


def _ticket(answer: dict[str, Any], what: str, size_bytes: int) -> Ticket:
    endpoint, uri, auth = (str(answer.get(name) or "") for name in ("endpoint", "upos_uri", "auth"))
    matched = re.fullmatch(r"upos://(?P<path>[\w-]+/(?P<filename>[\w-]+)(?:\.\w+)*)", uri)
    size, cid, delay = answer.get("chunk_size"), answer.get("biz_id"), answer.get("chunk_retry_delay", 3)
    usable = (
        matched and is_host(endpoint) and auth.isascii() and auth.isprintable() and type(size) is int
        and 0 < size <= LARGEST_CHUNK_BYTES and size_bytes <= size * MOST_PARTS and type(cid) is int
    )
    if not usable or not matched or not isinstance(size, int) or not isinstance(cid, int):
        raise TemporaryError(f"{what}: an answer that cannot be used")
    retry = float(delay) if isinstance(delay, int | float) and 0 <= delay <= 30 else 3.0
    return Ticket(endpoint, f"/{matched['path']}", matched["filename"], cid, size, retry, auth)

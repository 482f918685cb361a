"""Ask for an upload ticket: where the object goes, how large its parts are, and the right to write it (§ preupload).

Runs in an upload's thread.
"""

import re
import time
from typing import Any
from urllib.parse import urlencode

from biliupd.errors import TemporaryError
from biliupd.publish.line import Line
from biliupd.publish.member import Member, code_of, parsed
from biliupd.publish.session import LARGEST_CHUNK_BYTES, MOST_PARTS, Session
from biliupd.publish.source import Source
from biliupd.publish.wire import is_host

PROFILE = "ugcupos/bup"
MOST_ENDPOINTS = 8
DEFAULT_THREADS = 3


def preupload(member: Member, line: Line, source: Source) -> Session:
    """A new ticket, as a session without upload id. Raises NeedsPerson, TemporaryError or PermanentError."""
    what = f"asking for an upload ticket for {source.name}"
    fields = {"name": source.name, "size": source.size_bytes, "r": "upos", "profile": PROFILE, "ssl": 0,
              "version": "2.14.0", "build": 2140000}
    address = f"{member.publish.member_url}/preupload?{line.query}&{urlencode(fields)}"
    response = member.send("GET", address, what=what)
    answer = parsed(response)
    if response.status_code < 400 and isinstance(answer, dict) and answer.get("OK") == 1:
        return _session(answer, what, line, source, member.credential.mid)
    if response.status_code < 400 and code_of(answer) in (None, 0):
        member.whoami()  # dead cookies are answered without a code, too; this one says so
    raise member.refusal(response, answer, what)


def _session(answer: dict[str, Any], what: str, line: Line, source: Source, mid: int) -> Session:
    endpoint, uri, auth = (str(answer.get(name) or "") for name in ("endpoint", "upos_uri", "auth"))
    matched = re.fullmatch(r"upos://(?P<path>[\w-]+/(?P<filename>[\w-]+)(?:\.\w+)*)", uri)
    size, cid, delay = answer.get("chunk_size"), answer.get("biz_id"), answer.get("chunk_retry_delay", 3)
    usable = (
        matched and is_host(endpoint) and auth.isascii() and auth.isprintable() and type(size) is int
        and 0 < size <= LARGEST_CHUNK_BYTES and source.size_bytes <= size * MOST_PARTS and type(cid) is int
    )
    if not usable or not matched or not isinstance(size, int) or not isinstance(cid, int):
        raise TemporaryError(f"{what}: an answer that cannot be used")
    threads = answer.get("threads")
    return Session(
        line=line.name, line_query=line.query, endpoints=_endpoints(endpoint, answer.get("endpoints")),
        path=f"/{matched['path']}", filename=matched["filename"], cid=cid, chunk_size=size,
        threads=threads if type(threads) is int and threads > 0 else DEFAULT_THREADS,
        retry_seconds=float(delay) if isinstance(delay, int | float) and 0 <= delay <= 30 else 3.0, auth=auth,
        profile=PROFILE, upload_id="", began_at=time.time(), size_bytes=source.size_bytes, mtime_ns=source.mtime_ns,
        inode=source.inode, mid=mid)


def _endpoints(first: str, others: Any) -> tuple[str, ...]:
    """The endpoint that was given, and behind it those that may stand in for it."""
    listed = [one for one in others if isinstance(one, str) and is_host(one)] if isinstance(others, list) else []
    return tuple(dict.fromkeys([first, *listed]))[:MOST_ENDPOINTS]

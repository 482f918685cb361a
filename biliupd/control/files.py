"""Routes: pictures and media of the library, whole or in pieces, any recording as MP4 that a browser plays, and the
newest picture of what is being recorded.

A row says where its file lies, and rows are not believed: what is opened has to be a regular file inside the watched
directories, whatever links lead there. Files are read on a few threads that are kept for that; nothing is written.
"""

import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from email.utils import formatdate
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request, Response
from loguru import logger
from starlette.types import Receive, Scope, Send

from biliupd.catalog import tasks, videos
from biliupd.catalog.paths import readable
from biliupd.catalog.videos import Video
from biliupd.control import rows
from biliupd.control.context import Context, Here, may
from biliupd.control.models import Id, Refusal
from biliupd.control.pictures import Pictures
from biliupd.control.problems import problems
from biliupd.control.tasks import TaskId
from biliupd.errors import BiliupdError, PermanentError, TemporaryError

READERS = 16  #: threads that read for clients
MOST = 64  #: that are sent at the same time: each keeps one open, and a piece of it in memory
CHUNK_BYTES = 256 * 1024
TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".mkv": "video/x-matroska",
    ".webm": "video/webm", ".flv": "video/x-flv", ".ts": "video/mp2t", ".m4s": "video/iso.segment",
    ".avi": "video/x-msvideo", ".wmv": "video/x-ms-wmv", ".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".aac": "audio/aac",
    ".m3u8": "application/vnd.apple.mpegurl", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png",
    ".webp": "image/webp",
}  # fmt: skip
OTHER = "application/octet-stream"  #: nothing that a browser would run
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": _BYTES, "image/png": _BYTES, "image/webp": _BYTES}},
    304: {"description": "As it was"}, **problems(404, 412),
}  # fmt: skip
_LIVE_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": _BYTES}}, 304: {"description": "As it was"}, **problems(404, 409),
}  # fmt: skip
_MEDIA: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys((*TYPES.values(), OTHER), _BYTES)},
    206: {"description": "A part", "content": dict.fromkeys((*TYPES.values(), OTHER), _BYTES)},
    304: {"description": "As it was"}, **problems(404, 410, 412, 416),
}  # fmt: skip

router = APIRouter(tags=["files"], dependencies=[may("viewer")])


def limiter() -> CapacityLimiter:
    """Of the threads that read for clients; one for each application, in `app.state.readers`."""
    return CapacityLimiter(READERS)


@router.head("/videos/{id}/thumbnail", include_in_schema=False)
@router.get("/videos/{id}/thumbnail", response_class=Response, responses=_PICTURE, summary="A small picture of a video")
async def thumbnail(request: Request, here: Here, id: Id) -> Response:
    return await _by_a_reader(request, lambda: _picture(request, here, id, "thumbnail_path"))


@router.head("/videos/{id}/cover", include_in_schema=False)
@router.get("/videos/{id}/cover", response_class=Response, responses=_PICTURE, summary="The cover of a video")
async def cover(request: Request, here: Here, id: Id) -> Response:
    return await _by_a_reader(request, lambda: _picture(request, here, id, "cover_path"))


async def _by_a_reader(request: Request, ask: Callable[[], Response]) -> Response:
    """A directory that hangs, as that of a network does, holds up nothing but files."""
    readers: CapacityLimiter = request.app.state.readers
    return await to_thread.run_sync(ask, limiter=readers)


def _picture(request: Request, here: Context, id: int, column: Literal["thumbnail_path", "cover_path"]) -> Response:
    path = _row(here, id)[column]
    if not path or not TYPES.get(os.path.splitext(path)[1].lower(), OTHER).startswith("image/"):
        raise Refusal(404, "there is no picture of it")
    return _send(request, open_within(path, [*here.house.roots(), here.catalog.path.parent]), path)


@router.head("/videos/{id}/file", include_in_schema=False)
@router.get("/videos/{id}/file", response_class=Response, responses=_MEDIA, summary="The file of a video")
async def file(request: Request, here: Here, id: Id, download: bool = False) -> Response:
    """Ranges are answered one at a time (RFC 9110, 14); `download` has a browser save it."""
    kind = "attachment" if download else "inline"

    def begin() -> Response:
        path = _present(here, id)["file_path"]
        return _send(request, open_within(path, here.house.roots()), path, {"Content-Disposition": named(kind, path)})

    return await _by_a_reader(request, begin)


@router.get("/videos/{id}/play", response_class=Response, summary="Any video as MP4, made while it is played",
            responses={200: {"content": {"video/mp4": _BYTES}}, **problems(404, 409, 410)})  # fmt: skip
async def play(
    request: Request, here: Here, id: Id,
    from_seconds: Annotated[float, Query(alias="from", ge=0, le=1e7, allow_inf_nan=False)] = 0.0,
) -> Response:  # fmt: skip
    """Fragmented MP4 from the keyframe before this moment on. It has no length and no ranges."""
    readers: CapacityLimiter = request.app.state.readers

    def begin() -> tuple[Iterator[bytes], bytes]:
        pieces = here.house.mp4(_path_within(here, _present(here, id)["file_path"]), from_seconds)
        return pieces, next(pieces, b"")

    pieces, first = await to_thread.run_sync(begin, limiter=readers)
    pending = [first]

    def pull() -> bytes:
        return pending.pop() if pending else next(pieces, b"")

    return Pulled(pull, getattr(pieces, "close", lambda: None), readers, media_type="video/mp4")


@router.get("/tasks/{id}/picture", response_class=Response, responses=_LIVE_PICTURE, summary="What is recorded now")
async def live_picture(request: Request, here: Here, id: TaskId) -> Response:
    """The newest keyframe of what a recorder writes, at most 480x270 pixels. Made when it is asked for, at most every
    30 seconds for each recording; `max-age` says when to ask again."""
    readers: CapacityLimiter = request.app.state.readers

    def check() -> None:
        for row in tasks.some(here.catalog.db, [id]):
            if row["status"] != "recording":
                raise Refusal(404, "it has ended: nothing is being recorded")
            return
        raise Refusal(404, f"there is no task {id}", field="path.id")

    def make() -> bytes:
        path = here.house.recording_file(id)
        if path is None:
            raise Refusal(404, "nothing is being written yet")
        try:
            return here.house.glimpse(_path_within(here, str(path)))
        except PermanentError as error:
            raise Refusal(404, str(error)) from error

    await to_thread.run_sync(check, limiter=readers)
    pictures: Pictures = request.app.state.pictures
    found = await pictures.get(
        id, lambda: to_thread.run_sync(make, limiter=readers, abandon_on_cancel=True))  # fmt: skip
    headers = {"ETag": found.etag, "Cache-Control": f"private, max-age={math.ceil(found.fresh_seconds)}"}
    if rows.is_known(request, found.etag):
        return Response(status_code=304, headers=headers)
    return Response(found.content, 200, headers, "image/jpeg")


def _path_within(here: Context, path: str) -> Path:
    """The file that `open_within` would open, by its own name."""
    with open_within(path, here.house.roots()) as opened:
        return Path(os.readlink(f"/proc/self/fd/{opened.fileno()}"))


def _row(here: Context, id: int) -> Video:
    row = videos.get(here.catalog.db, id)
    if row is None:
        raise Refusal(404, f"there is no video {id}", field="path.id")
    return row


def _present(here: Context, id: int) -> Video:
    row = _row(here, id)
    if row["removed_at"]:
        raise Refusal(410, f"its file was removed at {row['removed_at']}, because it is published")
    return row


def open_within(path: str, roots: Iterable[Path]) -> FileIO:
    """Open a regular file that lies in one of these directories, whatever its name says. Refusal 404 else.

    It is found first and opened then, by its descriptor: nothing that is put in its place meanwhile gets opened, no
    device and no FIFO is touched (open(2), O_PATH).
    """
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            status, real = os.fstat(found), os.readlink(f"/proc/self/fd/{found}")
            inside = any(real.startswith(os.path.realpath(root).rstrip("/") + "/") for root in roots)
            if not inside or not stat.S_ISREG(status.st_mode) or not status.st_nlink:
                raise Refusal(404, "its file is not in the library")
            return FileIO(f"/proc/self/fd/{found}", "rb")
        finally:
            os.close(found)
    except (OSError, ValueError) as error:
        raise Refusal(404, f"its file cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _send(request: Request, opened: FileIO, path: str, more: dict[str, str] | None = None) -> Response:
    if Pulled.under_way >= MOST:
        opened.close()
        raise TemporaryError(f"{MOST} files are being sent already", retry_after_seconds=10)
    status = os.fstat(opened.fileno())
    size, etag = status.st_size, f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    changed = formatdate(status.st_mtime, usegmt=True)
    headers = {"ETag": etag, "Last-Modified": changed, "Accept-Ranges": "bytes", **(more or {})}
    given = request.headers
    if "if-match" in given and not _names(given["if-match"], etag):
        opened.close()
        raise Refusal(412, "the file is another one by now")
    known = given.get("if-none-match")
    if _names(known, etag) if known is not None else given.get("if-modified-since") == changed:
        opened.close()
        return Response(status_code=304, headers=headers)
    code, start, end = 200, 0, size
    if request.method == "GET" and given.get("if-range", etag) in (etag, changed):
        found = ranged(given.get("range", ""), size)
        if found is not None:
            code, (start, end) = 206, found
            if start == end:
                opened.close()
                raise OutOfRange(size)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    media_type = TYPES.get(os.path.splitext(path)[1].lower(), OTHER)
    if end - start <= CHUNK_BYTES and request.method == "GET":
        with opened:
            return Response(os.pread(opened.fileno(), end - start, start), code, headers, media_type)
    headers["Content-Length"] = str(end - start)
    at = start

    def pull() -> bytes:
        nonlocal at
        if at == end or request.method == "HEAD":
            return b""
        piece = os.pread(opened.fileno(), min(CHUNK_BYTES, end - at), at)
        if not piece:
            raise OSError(f"{path!a} became shorter while it was sent")
        at += len(piece)
        return piece

    return Pulled(pull, opened.close, request.app.state.readers, code, headers, media_type)


class OutOfRange(Refusal):
    """416: nothing of the file lies there."""

    def __init__(self, size: int) -> None:
        super().__init__(416, f"the file has {size} bytes", kind="range")
        self.headers = {"Content-Range": f"bytes */{size}"}


def ranged(text: str, size: int) -> tuple[int, int] | None:
    """What a Range header asks for, as [start, end): an empty one when the file has nothing there. None: all of it.

    Several ranges at once, and what nobody understands, are answered with all (RFC 9110, 14.2).
    """
    matched = re.fullmatch(r"bytes=\s*(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))\s*", text, re.IGNORECASE | re.ASCII)
    if matched is None:
        return None
    first, last, suffix = matched.groups()
    if suffix is not None:
        return max(0, size - int(suffix)), size
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return None
    return (start, end) if start < size else (size, size)


def named(kind: str, path: str) -> str:
    """Content-Disposition with the name of a file (RFC 6266), which may hold anything."""
    name = readable(os.path.basename(path))
    plain = re.sub(r'[^ !#-\[\]-~]|%', "_", name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~', errors='replace')}"


def _names(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in (word.strip().removeprefix("W/") for word in header.split(","))


class Pulled(Response):
    """Sends what a blocking function gives, until that is empty; `close` is called in any case, also when the client
    goes away."""

    under_way = 0  #: of all

    def __init__(
        self, pull: Callable[[], bytes], close: Callable[[], Any], readers: CapacityLimiter, status_code: int = 200,
        headers: dict[str, str] | None = None, media_type: str | None = None,
    ) -> None:  # fmt: skip
        self.status_code, self.media_type, self.background = status_code, media_type, None
        self._pull, self._close, self._readers = pull, close, readers
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """When `pull` fails, the connection is cut, so that nobody takes a part for the whole."""
        Pulled.under_way += 1
        try:
            async with anyio.create_task_group() as group:

                async def leave_with_the_client() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(leave_with_the_client)
                await self._send(send)
                group.cancel_scope.cancel()
        finally:
            Pulled.under_way -= 1
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._close, limiter=self._readers)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            while piece := await to_thread.run_sync(self._pull, limiter=self._readers):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (OSError, BiliupdError) as error:
            logger.warning("a file could not be sent to its end: {}", error)
            return  # the server cuts a response that does not end
        await send({"type": "http.response.body", "body": b"", "more_body": False})

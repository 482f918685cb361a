"""Serves the dashboard: the files below web/, and nothing else.

Its routes run on the server's event loop. All files are read once, when the first is asked for, and found by their
whole name afterwards: no name from a request ever reaches the filesystem. The page names its files by an address with
the fingerprint of all of them in it, so that a browser keeps them for good and an update still comes at once.
"""

import gzip
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from biliupd.control.models import Refusal

WEB = Path(__file__).parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml", ".webmanifest": "application/manifest+json", ".json": "application/json",
}  # fmt: skip
FOR_GOOD = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"

router = APIRouter(include_in_schema=False)


class Asset(NamedTuple):
    """One file as it is sent."""

    type: str
    etag: str
    plain: bytes
    packed: bytes  #: the same, gzip


class Site(NamedTuple):
    """All files by their names below web/. `mark` is another one as soon as any of them is."""

    mark: str
    assets: dict[str, Asset]


@lru_cache(maxsize=1)
def site() -> Site:
    """The files of the dashboard; in pages, `/static/` has become an address that changes with them."""
    found = {
        path.relative_to(WEB).as_posix(): path.read_bytes()
        for path in sorted(WEB.rglob("*"))
        if path.suffix in TYPES and path.is_file()
    }
    mark = "~" + _fingerprint(b"\0".join(part for name in found for part in (name.encode(), found[name])))
    for name, content in found.items():
        if name.endswith(".html"):
            found[name] = content.replace(b'"/static/', f'"/static/{mark}/'.encode())
    return Site(mark, {name: _asset(name, content) for name, content in found.items()})


def _asset(name: str, content: bytes) -> Asset:
    return Asset(TYPES[Path(name).suffix], f'"{_fingerprint(content)}"', content, gzip.compress(content, mtime=0))


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The dashboard. It asks for no login: the page itself holds nothing, and shows the login where one is needed."""
    return _answer(request, _named("index.html"), ASK_FIRST)


@router.api_route("/api/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    """What the API offers, made by the browser from /api/openapi.json."""
    return _answer(request, _named("docs.html"), ASK_FIRST)


@router.api_route("/api/openapi.json", methods=["GET", "HEAD"])
def openapi(request: Request) -> Response:
    """What the API offers, for programs. Made once: it takes a second, and anybody may ask."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = _asset("openapi.json", json.dumps(request.app.openapi(), ensure_ascii=False).encode())
    return _answer(request, state.openapi, ASK_FIRST)


@router.api_route("/static/{name:path}", methods=["GET", "HEAD"])
async def static(request: Request, name: str) -> Response:
    """A file of the dashboard. Refusal 404 for any name that is none."""
    mark = f"{site().mark}/"
    if name.startswith(mark):
        return _answer(request, _named(name.removeprefix(mark)), FOR_GOOD)
    return _answer(request, _named(name), ASK_FIRST)


def _named(name: str) -> Asset:
    asset = site().assets.get(name)
    if asset is None:
        raise Refusal(404, "there is no such file")
    return asset


def _answer(request: Request, asset: Asset, keep: str) -> Response:
    packed = "gzip" in request.headers.get("accept-encoding", "")
    etag = asset.etag[:-1] + '-gz"' if packed else asset.etag  # RFC 9110, 8.8.3: each encoding has its own
    headers = {"ETag": etag, "Cache-Control": keep, "Vary": "Accept-Encoding"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    body = asset.packed if packed else asset.plain
    headers["Content-Length"] = str(len(body))
    return Response(b"" if request.method == "HEAD" else body, headers=headers, media_type=asset.type)

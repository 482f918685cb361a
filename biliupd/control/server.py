"""Answers HTTP on the address of the settings: `GET /api/health`, for a supervisor or a monitor.

Runs on a thread of its own (uvicorn's event loop), which owns the listening socket. When the address is taken, the
daemon goes on without it and says so: recording matters more.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Awaitable, Callable

import uvicorn
from fastapi import FastAPI, Request, Response
from loguru import logger
from pydantic import BaseModel

from biliupd.config import ControlConfig

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*))(?::\d*)?")  # RFC 9112, 3.2: host and port


class Health(BaseModel):
    """Answer of `GET /api/health`; HTTP 503 when `ok` is false."""

    ok: bool
    version: str
    trouble: list[str]


def app(version: str, trouble: Callable[[], list[str]], host: str = "127.0.0.1") -> FastAPI:
    """The application; `trouble` names what does not work right now, `host` is the name it is known by."""
    api = FastAPI(title="biliupd", version=version, docs_url=None, openapi_url="/api/openapi.json",
                  redoc_url=None)  # fmt: skip

    @api.middleware("http")
    async def under_its_own_name(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:  # fmt: skip
        """A page elsewhere must not reach us by a name of its own that it points here (DNS rebinding)."""
        if not _is_ours(request.headers.get("host", ""), host):
            return Response("this is not a name of biliupd's control address; use its number\n", status_code=421)
        return await answer(request)

    @api.get("/api/health", responses={503: {"model": Health}})
    def health(response: Response) -> Health:
        """Whether biliupd does its work."""
        found = trouble()
        if found:
            response.status_code = 503
        return Health(ok=not found, version=version, trouble=found)

    return api


def _is_ours(named: str, host: str) -> bool:
    """Whether a Host header holds an address, localhost, or the name of the settings."""
    matched = _HOST.fullmatch(named)
    if matched is None:
        return False
    name = matched[1] or matched[2]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in ("", "localhost", host.lower())
    return True


class Control:
    """Owns the server thread. `port` is the real one once it is started; None when it does not listen."""

    def __init__(
        self, control: ControlConfig, version: str, *, trouble: Callable[[], list[str]],
        on_address: Callable[[str], None],
    ) -> None:  # fmt: skip
        """`on_address` is told why the address cannot be used, or an empty text."""
        self._control, self._on_address = control, on_address
        self._app = app(version, trouble, control.host)
        self._closed = False
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port: int | None = None

    def start(self) -> None:
        """Bind and answer."""
        self._on_address("")
        if not self._control.enabled:
            return
        family = socket.AF_INET6 if ":" in self._control.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._control.host, self._control.port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            text = f"control: {self._control.host}:{self._control.port} cannot be used ({error.strerror})"
            self._on_address(f"{text}; biliupd runs without its page")
            logger.error("{}", text)
            return
        self.port = listener.getsockname()[1]
        settings = uvicorn.Config(self._app, log_config=None, access_log=False, lifespan="off",
                                  timeout_graceful_shutdown=2)  # fmt: skip
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="control", daemon=True
        )
        self._thread.start()
        logger.info("answering on http://{}:{}/api/health", self._control.host, self.port)

    def is_alive(self) -> bool:
        """Whether it answers, or is not meant to and was not closed."""
        return not self._closed if self._thread is None else self._thread.is_alive()

    def close(self, deadline_seconds: float) -> None:
        """Stop answering."""
        self._closed = True
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(deadline_seconds)

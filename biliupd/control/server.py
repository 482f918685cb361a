"""Answers HTTP and websockets on the address of the settings.

Runs on a thread of its own (uvicorn's event loop), which owns the listening socket; routes that wait get threads of a
small pool. When it cannot listen, or must not yet because nobody could log in, the daemon goes on without it and says
so, and it tries again: recording matters more.
"""

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
import uvicorn
from loguru import logger

from biliupd.catalog.database import Catalog
from biliupd.config import ControlConfig
from biliupd.control import connections
from biliupd.control.app import make
from biliupd.control.auth import Auth
from biliupd.control.context import Context
from biliupd.control.guard import Guard
from biliupd.control.house import House
from biliupd.control.hub import Hub
from biliupd.errors import TemporaryError

THREADS = 8  #: for routes; each has a connection to the catalog
HEAD_BYTES = 32 * 1024
KEEP_ALIVE_SECONDS = 30
WEBSOCKET_BYTES = 64 * 1024  #: of one message to us
AGAIN_SECONDS = 2.0  #: until it tries again to listen
CLOSE_SECONDS = 1  #: for what is being answered when it ends
RENEW_SECONDS = 60  #: how often the certificate is looked at


class Control:
    """Owns the server thread. `port` is the real one once it listens; None when it does not."""

    def __init__(
        self, config: ControlConfig, catalog: Catalog, house: House, *, on_address: Callable[[str], None]
    ) -> None:
        """`on_address` is told why it does not listen, or an empty text."""
        self._config, self._catalog, self._house, self._on_address = config, catalog, house, on_address
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._said: str | None = None
        self.auth = Auth(catalog)
        self.port: int | None = None

    def start(self) -> None:
        """Listen and answer, or try again until it can."""
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # strangers must not fill the log; we say what matters
        if not self._config.enabled:
            self._say("")
            return
        listener = self._open()
        self._thread = threading.Thread(target=self._run, args=[listener], name="control", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether it answers or tries to, or is not meant to and was not closed."""
        return not self._stop.is_set() if self._thread is None else self._thread.is_alive()

    def close(self, deadline_seconds: float) -> None:
        """Stop answering."""
        self._stop.set()
        with self._lock:
            if self._server is not None:
                self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(deadline_seconds)

    def _run(self, listener: "_Listener | None") -> None:
        try:
            while listener is None:
                if self._stop.wait(AGAIN_SECONDS):
                    return
                listener = self._open()
            self._serve(listener)
        finally:
            if listener is not None:
                listener.socket.close()
            self._catalog.close()

    def _open(self) -> "_Listener | None":
        try:
            somebody = self.auth.is_set_up()
            if not somebody and not self._config.is_loopback:
                raise _Obstacle("waits for a user, so that somebody can log in: biliupd passwd NAME --role admin")
            listener = _listen(self._config)
        except (_Obstacle, TemporaryError) as error:
            self._say(f"control: {_authority(self._config.host, self._config.port)} {error}")
            return None
        self.port = listener.socket.getsockname()[1]
        self._say("")
        secure = listener.tls is not None
        at = f"{'https' if secure else 'http'}://{_authority(self._config.host, self.port)}/"
        logger.info("the page: {}", at)
        if not secure and not self._config.is_loopback and not self._config.trusted_proxies:
            logger.warning("control: passwords cross the network readable; set control.certificate and control.key")
        if not somebody:
            logger.warning("nobody can log in yet: make the first user at {}#/setup with the code {}", at,
                           self.auth.setup_code)  # fmt: skip
        return listener

    def _say(self, trouble: str) -> None:
        """Said when it changes."""
        if trouble != self._said:
            self._said = trouble
            self._on_address(f"{trouble}; biliupd runs without its page" if trouble else "")
            if trouble:
                logger.error("{}", trouble)

    def _serve(self, listener: "_Listener") -> None:
        proxies = self._config.trusted_proxies
        hub = Hub(self._catalog, self._house)
        context = Context(self._catalog, self._house, self._config, self.auth, hub)
        settings = uvicorn.Config(
            Guard(make(context), self._config), http=connections.Http, ws=connections.Websocket, lifespan="off",
            loop="asyncio", log_config=None, access_log=False, server_header=False,
            proxy_headers=bool(proxies), forwarded_allow_ips=",".join(proxies),
            h11_max_incomplete_event_size=HEAD_BYTES, timeout_keep_alive=KEEP_ALIVE_SECONDS,
            limit_concurrency=connections.CONNECTIONS, backlog=128, timeout_graceful_shutdown=CLOSE_SECONDS,
            ws_max_size=WEBSOCKET_BYTES, ws_ping_interval=20.0, ws_ping_timeout=20.0, ws_per_message_deflate=False,
            timeout_notify=RENEW_SECONDS, callback_notify=listener.renew,
        )  # fmt: skip
        settings.load()
        settings.ssl = listener.tls
        with self._lock:
            if self._stop.is_set():
                return
            self._server = uvicorn.Server(settings)
        asyncio.run(self._main(self._server, hub, listener))

    async def _main(self, server: uvicorn.Server, hub: Hub, listener: "_Listener") -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        async with hub:
            await server.serve(sockets=[listener.socket])


class _Obstacle(Exception):
    """Why the address cannot be listened on."""


class _Listener:
    """An open socket, and what it takes to speak TLS on it."""

    def __init__(self, socket: socket.socket, config: ControlConfig) -> None:
        self.socket = socket
        self._files = [path for path in (config.certificate, config.key) if path]
        self._seen = self._state()
        self.tls = _tls(self._files) if self._files else None

    def _state(self) -> list[tuple[int, int]]:
        return [(status.st_mtime_ns, status.st_ino) for status in map(os.stat, self._files)]

    async def renew(self) -> None:
        """Take another certificate when there is one: it ends before the daemon does."""
        try:
            if self.tls is None or (state := self._state()) == self._seen:
                return
            _tls(self._files)  # both files may not be there yet: a half pair must not get into the one in use
            self.tls.load_cert_chain(self._files[0], self._files[1])
        except (_Obstacle, OSError) as error:
            logger.error("control: the new certificate is not taken: {}", error)
            return
        self._seen = state
        logger.info("control: the new certificate is taken")


def _tls(files: list[Path]) -> ssl.SSLContext:
    if len(files) != 2:
        raise _Obstacle("is not listened on: certificate and key go together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files[0], files[1])
    except OSError as error:  # ssl.SSLError is one
        raise _Obstacle(f"is not listened on: {files[0]} with {files[1]}: {error.strerror or error}") from error
    return context


def _listen(config: ControlConfig) -> _Listener:
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, kind, number)
    except OSError as error:
        raise _Obstacle(f"cannot be used ({error.strerror})") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
        return _Listener(opened, config)
    except OSError as error:
        opened.close()
        raise _Obstacle(f"cannot be used ({error.strerror})") from error
    except _Obstacle:
        opened.close()
        raise


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

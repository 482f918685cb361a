"""Connections: uvicorn's two protocols, which have no patience with a client that only holds its place.

Run on the server's event loop; touch their socket. Whatever is not sent yet counts as waiting for the client, down to
the last byte: who takes nothing for long is cut, also while it is being said goodbye to.
"""

import asyncio
from typing import Any, ClassVar
from weakref import WeakSet

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request

from biliupd.control.throttle import network

CONNECTIONS = 500  #: beyond, HTTP 503
SPARE = 50  #: so many more connections are told that there are too many; the next are just cut
MOST_OF_ONE = 300  #: of one address, so that one alone keeps nobody out; those behind a proxy are one
HEAD_SECONDS = 20.0  #: in which a request's head has to be there
STALLED_SECONDS = 300.0  #: a client that takes nothing for so long is gone; a paused player asks anew for the rest


class _Full(Exception):
    """There are too many connections."""


class _Patience(asyncio.Protocol):
    """Cuts a client that takes nothing for STALLED_SECONDS."""

    _stalled: asyncio.TimerHandle | None = None
    network = ""  #: from where

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.network = network((transport.get_extra_info("peername") or ("",))[0])
        self._cut = transport.abort
        transport.set_write_buffer_limits(1)  # with 0, asyncio never lets TLS go on

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = asyncio.get_running_loop().call_later(STALLED_SECONDS, self._cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait_no_longer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait_no_longer()

    def _wait_no_longer(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class Http(_Patience, H11Protocol):
    """A head that never ends is not waited for, and there is a last place: files are opened elsewhere, too.

    One is made for each connection that is accepted, before its TLS handshake; asyncio drops those that are refused.
    """

    _greeting: ClassVar[WeakSet["Http"]] = WeakSet()  # in their handshake
    _late: asyncio.TimerHandle | None = None

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config, server_state, app_state, _loop)
        if len(self._greeting) + len(self.connections) >= CONNECTIONS + SPARE:
            raise _Full
        self._greeting.add(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._greeting.discard(self)
        super().connection_made(transport)
        if sum(getattr(one, "network", "") == self.network for one in self.connections) > MOST_OF_ONE:
            transport.abort()
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect_head()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._wait_no_longer()  # another one has the connection now
        super().handle_websocket_upgrade(event)

    def _expect_head(self) -> None:
        """A head has HEAD_SECONDS from when its connection was made, or its first byte came."""
        waits = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if not waits and self._late is not None:
            self._late.cancel()
            self._late = None
        elif waits and self._late is None and self.timeout_keep_alive_task is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


class Websocket(_Patience, WebSocketsSansIOProtocol):  # type: ignore[misc]  # a transport is a transport
    """Nothing is read before it is accepted, and pings are not answered while their answers wait."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self.read_paused = True  # until the first message is received, which is that of the connection

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # RFC 6455, 5.5.3: an answer to a later one will do

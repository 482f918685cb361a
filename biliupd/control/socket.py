"""The websocket `/api/ws`: what changes, as it changes. One handler for each client, on the server's event loop.

A client says {"topics": [...], "seq": N, "log": M, "epoch": E}, and again whenever it wants other topics. It is told
hello, then of each topic a snapshot or what changed since N, then changes. `seq` speaks for all topics of the client:
one that lost its connection sends the last number it was told that was not null, if it had a snapshot of each topic it
asks for, and null else.
"""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from biliupd.control.context import Asker, Context
from biliupd.control.guard import same_site
from biliupd.control.hub import NOT_LOGGED_IN, TOO_SLOW, Client, Hub, Seen
from biliupd.control.models import Topic
from biliupd.errors import BiliupdError

BAD_MESSAGE, ELSEWHERE = 4400, 4403
FIRST_SECONDS = 10.0  #: until a client says what it wants
PAUSE_SECONDS = 0.1  #: until the next wish of a client is read: each has everything looked up
CLOSE_SECONDS = 1.0  #: to tell a client why it is dropped

router = APIRouter()


class Wish(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid")
    topics: Annotated[list[Topic], Field(max_length=20)]
    seq: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    log: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    epoch: Annotated[str, Field(max_length=100)] | None = None


class _End(Exception):
    """The connection is to be closed with this code."""

    def __init__(self, code: int) -> None:
        self.code = code


@router.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    """A client, until it goes or is sent away."""
    here: Context = websocket.app.state.context
    hub = here.hub
    assert isinstance(hub, Hub)
    try:
        asker, why = await run_in_threadpool(here.auth.who, websocket), NOT_LOGGED_IN
    except BiliupdError:
        asker, why = None, TOO_SLOW  # come back: the catalog cannot be read now
    with suppress(WebSocketDisconnect, OSError):  # it is gone already
        await websocket.accept()
        if asker is None:
            await websocket.close(why)
        elif asker.kind == "cookie" and not same_site(websocket.headers, websocket.url.scheme):
            await websocket.close(ELSEWHERE)
        else:
            await _converse(websocket, here, hub, asker)


async def _converse(websocket: WebSocket, here: Context, hub: Hub, asker: Asker) -> None:
    def may() -> bool:
        now = here.auth.who(websocket)
        return now is not None and now.role == asker.role

    client = Client(may)
    jobs = [asyncio.create_task(job) for job in (
        _listen(websocket, hub, client, asker, here.house.version), _send(websocket, client), _end(client),
    )]  # fmt: skip
    try:
        done, _ = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hub.leave(client)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    error = next((job.exception() for job in done), None)
    if isinstance(error, _End):
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # it may be gone, or take nothing
            async with asyncio.timeout(CLOSE_SECONDS):
                await websocket.close(error.code)
    elif error is not None and not isinstance(error, WebSocketDisconnect):
        raise error


async def _listen(websocket: WebSocket, hub: Hub, client: Client, asker: Asker, version: str) -> None:
    hello = {"type": "hello", "epoch": hub.epoch, "username": asker.username, "role": asker.role, "version": version}
    client.put(to_json(hello).decode(), counts=False)
    patience: float | None = FIRST_SECONDS
    while True:
        try:
            async with asyncio.timeout(patience):
                wish = Wish.model_validate_json(await websocket.receive_text())
        except (ValidationError, KeyError, TimeoutError) as error:  # KeyError: bytes
            raise _End(BAD_MESSAGE) from error
        patience = None
        await client.emptied()  # nobody makes us keep more for them than they have read
        try:
            await hub.join(client, wish.topics, Seen(wish.seq, wish.log, wish.epoch))
        except BiliupdError as error:
            raise _End(TOO_SLOW) from error  # come back: the catalog is busy
        await asyncio.sleep(PAUSE_SECONDS)


async def _send(websocket: WebSocket, client: Client) -> None:
    while True:
        await websocket.send_text(await client.next())


async def _end(client: Client) -> None:
    raise _End(await client.over())

"""What every route is given: the catalog, the house, who asks, and whether they may."""

import secrets
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from biliupd.catalog.database import Catalog
from biliupd.config import ControlConfig
from biliupd.control.house import House
from biliupd.control.identities import ROLES, Role
from biliupd.control.models import Refusal


class Asker(NamedTuple):
    """Who asks, by which session."""

    user_id: int
    username: str
    role: Role
    session_id: int
    kind: Literal["cookie", "bearer"]


class Authority(Protocol):
    """Knows sessions; auth.Auth."""

    def who(self, connection: HTTPConnection) -> Asker | None:
        """By cookie or bearer token; None: nobody who is logged in. May read the catalog."""

    def remembered(self, connection: HTTPConnection) -> Asker | None:
        """The same of a moment ago, if that is known without reading."""


class Onlooker(Protocol):
    """Sees the catalog change; hub.Hub."""

    sample_seconds: float

    def bitrates(self, task_id: str) -> list[float]:
        """Bits a second of a running task, one for each `sample_seconds` of the last minutes, oldest first."""

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait for the next change of any row; False: there was none in this time."""


@dataclass
class Context:
    """Lives as long as the server, in `app.state.context`."""

    catalog: Catalog
    house: House
    config: ControlConfig
    auth: Authority
    hub: Onlooker
    epoch: str = field(default_factory=lambda: secrets.token_hex(4))  #: another one after each start
    answers: dict[Hashable, tuple[int, Any]] = field(default_factory=dict)  #: question → its answer, and as of when


async def context(connection: HTTPConnection) -> Context:
    """That of the application. (Not `def`: that would cost each request a change of threads.)"""
    found: Context = connection.app.state.context
    return found


Here = Annotated[Context, Depends(context)]


def may(role: Role) -> Any:
    """A dependency: who asks, if they have at least this role. Refusal 401 or 403 else.

    `asker: Annotated[Asker, may("operator")]`, or `dependencies=[may("viewer")]` of a router.
    """

    async def check(connection: HTTPConnection, here: Here) -> Asker:
        asker = here.auth.remembered(connection) or await run_in_threadpool(here.auth.who, connection)
        if asker is None:
            raise Refusal(401, "nobody is logged in", hint="log in: POST /api/login", kind="login")
        if ROLES.index(asker.role) < ROLES.index(role):
            raise Refusal(403, f"this takes the role {role}, {asker.username} is {asker.role}", kind="role")
        return asker

    return Depends(check)

"""What the API takes and answers about who comes in: users, their logins, and what each may do."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from biliupd.control.models import Given, Plain

Role = Literal["viewer", "operator", "admin"]
"""viewer looks; operator also starts, stops, retries and adds streamers; admin also manages users and logins."""
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")  #: each may do what those before it may
Username = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x20\x7f/:]+$", examples=["ann"])]
Password = Annotated[str, Field(min_length=8, max_length=256, examples=["correct horse battery"])]


class Setup(BaseModel):
    """Whether the first user is still to be made."""

    needed: bool


class FirstUser(Given):
    """`code` is the one of the log, valid until the first user is there."""

    code: str = Field(max_length=200)
    username: Username
    password: Password


class Credentials(Given):
    """`session`: a cookie for a page, or a bearer token for a script, which is answered once and never again."""

    username: str = Field(max_length=64)
    password: str = Field(max_length=256)
    session: Literal["cookie", "bearer"] = "cookie"
    label: Annotated[str, Plain, Field(max_length=80)] = Field("", description="What the session is for, for its list")


class LoggedIn(BaseModel):
    """Who one is now; `token` only for a bearer session."""

    username: str
    role: Role
    session_id: int
    expires_at: str
    token: str | None = None


class Session(BaseModel):
    """A login that is valid: seven days from its last use."""

    id: int
    username: str
    kind: Literal["cookie", "bearer"]
    label: str
    address: str = Field(description="From where it was used last")
    agent: str = Field(description="The program that began it, as it named itself")
    created_at: str
    seen_at: str
    expires_at: str
    current: bool = Field(description="The one that asks")


class User(BaseModel):
    id: int
    username: str
    role: Role
    created_at: str


class NewUser(Given):
    username: Username
    password: Password
    role: Role = "viewer"


class UserChange(Given):
    """Either, or both. Another password ends every session of the user."""

    password: Password | None = None
    role: Role | None = None


class PasswordChange(Given):
    old: str = Field(max_length=256)
    new: Password

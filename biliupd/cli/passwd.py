"""The command passwd: who may log in to the page, also while the daemon runs. A password is never an argument."""

import errno
import os
import sys
from pathlib import Path
from typing import get_args

import click
from pydantic import ValidationError
from rich.console import Console

from biliupd.catalog import users
from biliupd.catalog.database import Catalog
from biliupd.catalog.paths import is_text
from biliupd.cli import tables
from biliupd.cli.shared import config_option, data_directory
from biliupd.control.identities import NewUser, Role
from biliupd.control.passwords import Passwords
from biliupd.errors import BiliupdError
from biliupd.lock import holder, unusable

MOST_CHARACTERS = 1000  #: of what is read from standard input; longer than any password may be


@click.command()
@config_option
@click.option("--role", type=click.Choice(get_args(Role)),
              help="Of a new user (the first is admin, others viewer); of an old one, change only this.")  # fmt: skip
@click.option("--remove", is_flag=True, help="Remove the user; their sessions end.")
@click.option("--stdin", is_flag=True, help="Read the password from the first line of standard input, for scripts.")
@click.option("--list", "show", is_flag=True, help="List all users.")
@click.argument("name", required=False)
def passwd(path: Path, role: Role | None, remove: bool, stdin: bool, show: bool, name: str | None) -> None:
    """Make a user of the page, or give one another password, which ends their sessions."""
    if show == (name is not None) or (show and (role or remove or stdin)) or (remove and (role or stdin)):
        raise click.UsageError("one thing at a time: NAME with --role or --stdin, NAME with --remove, or --list")
    if name is not None and not is_text(name):
        raise BiliupdError("the name is not UTF-8")
    catalog = _catalog(path)
    try:
        if name is None:
            _list(catalog)
        elif remove:
            _remove(catalog, name)
        else:
            _set(catalog, name, role, stdin)
    finally:
        catalog.close()


COMMANDS = (passwd,)


def _catalog(path: Path) -> Catalog:
    """That of the configuration, made if it is not there. Raises PermanentError when the daemon could not use it then:
    what root makes belongs to root."""
    data, _ = data_directory(path)
    holder(data)  # says when it is not ours
    try:
        if not os.path.exists(data / "catalog.db") and data.is_dir() and data.stat().st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return Catalog(data / "catalog.db")
    except OSError as error:
        raise unusable(data, error) from error


def _list(catalog: Catalog) -> None:
    lines = [(row["username"], row["role"], tables.ago(row["created_at"])) for row in users.everybody(catalog.db)]
    if not lines:
        click.echo("there is no user yet: biliupd passwd NAME makes one")
    tables.table(Console(), "Users", ("name", "role", "made"), lines)


def _remove(catalog: Catalog, name: str) -> None:
    user = users.named(catalog.db, name)
    if user is None or not users.remove(catalog.db, user["id"]):
        raise BiliupdError(f"there is no user {name}", hint="biliupd passwd --list shows all")
    click.echo(f"{name}: removed")


def _set(catalog: Catalog, name: str, role: Role | None, stdin: bool) -> None:
    user = users.named(catalog.db, name)
    if user and role and not stdin:
        users.change(catalog.db, user["id"], role=role)
        click.echo(f"{name} is {role} now")
        return
    wanted = role or ("viewer" if users.is_anybody_there(catalog.db) else "admin")
    _checked(name, "not asked for yet", wanted)  # before anybody types a password
    given = _checked(name, _typed(stdin), wanted)
    hashed = Passwords().hash(given.password)
    if user:
        users.change(catalog.db, user["id"], password_hash=hashed, role=role or "")
        click.echo(f"{name} has another password; who was logged in by the old one is not any more")
    else:
        users.add(catalog.db, name, hashed, wanted)
        click.echo(f"{name} is made, and {wanted}")


def _checked(name: str, password: str, role: Role) -> NewUser:
    try:
        return NewUser(username=name, password=password, role=role)
    except ValidationError as error:
        first = error.errors()[0]
        what = str(first["loc"][0])
        hint = "8 to 256 characters" if what == "password" else "1 to 64 characters, no spaces, no / and no :"
        raise BiliupdError(f"this cannot be a {what}: {first['msg']}", hint=hint) from None


def _typed(stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline(MOST_CHARACTERS).rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt="The same again"))

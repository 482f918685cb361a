"""The command that makes users, as a person and as a script use it."""

import os
import pty
import subprocess
import sys

import pytest
from click.testing import CliRunner
from support import wait_until

from biliupd.catalog import users
from biliupd.catalog.database import Catalog, connect
from biliupd.cli import main
from biliupd.control.passwords import Passwords


@pytest.fixture
def passwd(tmp_path):
    (tmp_path / "config.yaml").write_text("recordings: {directory: recordings}\n")

    def run(*words, typed=""):
        words = ["passwd", "-c", str(tmp_path / "config.yaml"), *words]
        return CliRunner().invoke(main, words, input=typed, catch_exceptions=False)

    return run


def rows(tmp_path):
    with_catalog = connect(tmp_path / "data" / "catalog.db", read_only=True)
    return {row["username"]: row for row in users.everybody(with_catalog)}


def test_the_first_user_is_admin_and_the_password_is_kept_as_a_hash_alone(passwd, tmp_path):
    done = passwd("ann", typed="correct horse\ncorrect horse\n")
    assert (done.exit_code, "ann is made, and admin" in done.output) == (0, True), done.output
    assert "correct horse" not in done.output
    row = rows(tmp_path)["ann"]
    assert row["role"] == "admin"
    assert row["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert Passwords().check(row["password_hash"], "correct horse")
    assert b"correct horse" not in (tmp_path / "data" / "catalog.db").read_bytes()
    assert oct((tmp_path / "data" / "catalog.db").stat().st_mode)[-3:] == "600"


def test_a_script_makes_users_changes_them_lists_them_and_removes_them(passwd, tmp_path):
    assert passwd("ann", "--stdin", typed="password one\n").exit_code == 0
    assert passwd("bob", "--stdin", "--role", "operator", typed="password two").exit_code == 0
    assert passwd("eve", "--stdin", typed="password three\r\n").exit_code == 0
    assert {name: row["role"] for name, row in rows(tmp_path).items()} == {
        "ann": "admin", "bob": "operator", "eve": "viewer"}
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    bob = users.named(catalog.db, "bob")
    users.begin_session(catalog.db, bob, "a hash", "9999")
    assert passwd("bob", "--role", "viewer").exit_code == 0  # asks for no password
    assert users.session(catalog.db, "a hash")["role"] == "viewer"
    assert passwd("bob", "--stdin", typed="another one\n").exit_code == 0
    assert users.session(catalog.db, "a hash") is None
    assert Passwords().check(rows(tmp_path)["bob"]["password_hash"], "another one")
    assert Passwords().check(rows(tmp_path)["eve"]["password_hash"], "password three")
    listed = passwd("--list").output
    assert all(word in listed for word in ("ann", "admin", "bob", "viewer", "eve"))
    assert passwd("bob", "--remove").exit_code == 0
    assert set(rows(tmp_path)) == {"ann", "eve"}
    catalog.close()


@pytest.mark.parametrize(
    ("words", "typed", "code", "said"),
    [
        (["ann"], "short\nshort\n", 1, "8 to 256 characters"), (["ann", "--stdin"], "", 1, "8 to 256 characters"),
        (["ann", "--stdin"], "x" * 900 + "\n", 1, "8 to 256 characters"),
        (["\udcff"], "", 1, "not UTF-8"), (["a b"], "", 1, "no spaces"),
        (["x" * 65], "", 1, "1 to 64"), ([""], "", 1, "1 to 64"),
        (["a:b", "--stdin"], "long enough\n", 1, "no /"),
        (["ann", "--role", "king"], "", 2, "is not one of"), ([], "", 2, "NAME"), (["ann", "--list"], "", 2, "NAME"),
        (["ann", "--remove", "--stdin"], "", 2, "NAME"), (["--list", "--role", "admin"], "", 2, "NAME"),
        (["nobody", "--remove"], "", 1, "there is no user nobody"),
        (["ann"], "correct horse\nwrong horse\n", 1, "do not match"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_changes_nothing(passwd, tmp_path, words, typed, code, said):
    done = passwd(*words, typed=typed)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert not (tmp_path / "data" / "catalog.db").exists() or rows(tmp_path) == {}


def test_the_only_admin_stays(passwd, tmp_path):
    passwd("ann", "--stdin", typed="password one\n")
    for words in (["ann", "--remove"], ["ann", "--role", "viewer"]):
        done = passwd(*words)
        assert (done.exit_code, "only admin" in done.output) == (1, True)
    assert rows(tmp_path)["ann"]["role"] == "admin"


def test_at_a_terminal_the_password_is_not_shown(tmp_path):
    (tmp_path / "config.yaml").write_text("recordings: {directory: recordings}\n")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "biliupd", "passwd", "ann", "-c", str(tmp_path / "config.yaml")],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()

    def shown(word: bytes) -> bool:
        if word not in seen:
            seen.extend(os.read(ours, 1000))
        return word in seen

    for prompt in (b"Password: ", b"The same again: "):
        wait_until(lambda prompt=prompt: shown(prompt))
        os.write(ours, b"correct horse\n")
    wait_until(lambda: shown(b"ann is made"))
    assert child.wait(20) == 0
    os.close(ours)
    assert b"correct" not in seen

"""Who is to be recorded: the streamers of the YAML and those of the API, unless a person stopped or paused them.

Joins the configuration and the catalog's `streamers`. Any thread; what changes is told by `on_change`, and put in force
by the main thread through `in_force`.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from loguru import logger
from pydantic import ValidationError
from sqlite_utils import Database

from biliupd.catalog import records
from biliupd.catalog.database import Catalog
from biliupd.config import Config, Streamer, not_looked_at, without_password
from biliupd.errors import PermanentError
from biliupd.live.platform import LiveStatus, State, platform_for
from biliupd.live.status import shown

Mode = Literal["on", "skipped", "paused"]
_OWN = ("check_interval", "submit_at", "priority", "template", "account")  #: kept as JSON in the row


class Unfit(PermanentError):
    """A streamer cannot be as it is wanted; `field` names why."""

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


@dataclass(frozen=True)
class Seen:
    """What the last look at a room told; `number` counts them."""

    number: int = 0
    status: str = State.UNKNOWN.value
    reason: str = "not looked at yet"


class Wanted:
    """The streamers in force. One that is skipped is not recorded before it goes live anew, a paused one not at all."""

    def __init__(
        self, catalog: Catalog, on_change: Callable[[], None], write: Callable[[Callable[[], object]], None]
    ) -> None:  # fmt: skip
        """`write` writes to the catalog, later if need be."""
        self._catalog, self._on_change, self._write = catalog, on_change, write
        self._modes: dict[str, Mode] = {}
        self._skipped: dict[str, str] = {}  # by name: which broadcast, as far as its site says so
        self._seen: dict[str, Seen] = {}
        self._lock = threading.Lock()
        self.config = Config()  #: in force

    # the main thread

    def in_force(self, config: Config, db: Database | None = None) -> Config:
        """The configuration with the streamers of the API, and without those that are paused; the rows agree with it.

        Raises TemporaryError when the catalog cannot be written.
        """
        db = db or self._catalog.db
        records.keep_streamers(db, [_facts(one, config) for one in config.streamers])
        rows = records.active_streamers(db)
        found = together(config, rows)
        ours = {one.name: one for one in found[len(config.streamers) :]}
        for row in rows:
            if row["name"] in ours and (facts := _facts(ours[row["name"]], config)).items() - row.items():
                records.change_streamer(db, row["id"], facts)
        with self._lock:
            self._modes = {row["name"]: row["mode"] for row in rows if row["mode"] != "on"}
            self._skipped = {name: self._skipped.get(name, "") for name, mode in self._modes.items()
                             if mode == "skipped"}  # fmt: skip
            paused = {name for name, mode in self._modes.items() if mode == "paused"}
            self.config = config.model_copy(update={"streamers": [
                one.model_copy(update={"record": False}) if one.name in paused else one for one in found]})  # fmt: skip
            return self.config

    # whoever looks at a room

    def seen(self, name: str, status: LiveStatus) -> bool:
        """A look told this; whether a live one may be recorded."""
        with self._lock:
            before = self._seen.get(name, Seen())
            self._seen[name] = Seen(before.number + 1, status.state.value, status.reason)
            if name not in self._skipped:
                return True
            if status.state is State.LIVE:
                known = self._skipped[name]
                self._skipped[name] = known or status.live_id
                anew = bool(known and status.live_id and known != status.live_id)
            else:
                anew = status.state is State.OFFLINE
            if not anew:
                return False
            del self._skipped[name]
            self._modes.pop(name, None)
        self._write(lambda: self._set(name, "on"))
        return True

    def skips(self, name: str) -> bool:
        """Whether it is left alone until it goes live anew."""
        return name in self._skipped

    def skipped(self) -> list[str]:
        """Who is left alone so."""
        with self._lock:
            return list(self._skipped)

    def look(self, name: str) -> Seen:
        """What the last look told."""
        return self._seen.get(name, Seen())

    # what people ask

    def set_mode(self, name: str, mode: Mode) -> None:
        """Record it when live, leave out this broadcast, or leave it alone. In force at once."""
        with self._lock:
            self._skipped.pop(name, None)
            if mode == "skipped":
                self._skipped[name] = ""
        self._set(name, mode)
        self._on_change()

    def _set(self, name: str, mode: Mode) -> None:
        row = self._row(name)
        if row is not None and row["mode"] != mode:
            records.change_streamer(self._catalog.db, row["id"], {"mode": mode})
            logger.bind(streamer=name).info("now: {}", mode)

    def _row(self, name: str) -> dict[str, Any] | None:
        return next((row for row in records.active_streamers(self._catalog.db) if row["name"] == name), None)

    def make(self, wanted: dict[str, Any]) -> int:
        """Add one of the API; `wanted` holds fields of config.Streamer, without a name the address gives it → its id.

        Raises Unfit, with an empty field when the name is taken.
        """
        named = wanted.get("name") is not None
        name = wanted["name"] if named else _name_of(wanted["url"])
        for number in range(1, 100):
            one = self._fit({**wanted, "name": name if number == 1 else f"{name} ({number})"})
            id = records.make_streamer(self._catalog.db, _facts(one, self.config))
            if id is not None:
                logger.bind(streamer=one.name).info("added: {}", shown(one.url))
                self._on_change()
                return id
            if named:
                break
        raise Unfit("", f"there is a streamer {name!r} already", hint="choose another name")

    def change(self, row: dict[str, Any], change: dict[str, Any]) -> None:
        """Other settings of one of the API, given its row. Raises Unfit."""
        before = _of_row(row)
        if change.get("url") == without_password(before.url):
            del change["url"]  # as it is shown
        one = self._fit({**before.model_dump(), **change})
        records.change_streamer(self._catalog.db, row["id"], _facts(one, self.config))
        logger.bind(streamer=one.name).info("changed: {}", ", ".join(change) or "nothing")
        self._on_change()

    def remove(self, row: dict[str, Any]) -> None:
        """No longer wanted; its videos stay, and its row with them."""
        records.change_streamer(self._catalog.db, row["id"], {"active": 0, "mode": "on"})
        logger.bind(streamer=row["name"]).info("removed")
        self._on_change()

    def _fit(self, wanted: dict[str, Any]) -> Streamer:
        config = self.config
        try:
            one = Streamer.model_validate(wanted)
        except ValidationError as error:
            first = error.errors()[0]
            raise Unfit(str(first["loc"][0]), first["msg"].removeprefix("Value error, ")) from None
        if why := not_looked_at(one.name, config.watch.ignore):
            raise Unfit("name", why)
        if platform_for(one.url) is None:
            raise Unfit("url", "no platform answers for this address", hint="an address is that of a room on a site "
                        "that streamlink knows, or that of a stream, with https:// in front and .flv or .m3u8 at its "
                        "end")  # fmt: skip
        if one.template != "default" and one.template not in config.templates:
            raise Unfit("template", f"there is no template {one.template!r} in the configuration")
        if one.account is not None and one.account not in config.accounts:
            raise Unfit("account", f"there is no account {one.account!r} in the configuration")
        return one


def together(config: Config, rows: Iterable[Mapping[str, Any]]) -> list[Streamer]:
    """The streamers of the configuration, and behind them those of the API, given their rows.

    Of two of one name that of the configuration counts; a row that is none is left out. Both are logged.
    """
    names = {one.name.casefold() for one in config.streamers}
    found = list(config.streamers)
    for row in rows:
        if row["source"] != "api":
            continue
        if row["name"].casefold() in names:
            logger.warning("{}: the YAML names this streamer, too, and counts", row["name"])
            continue
        try:
            found.append(_of_row(row))
        except ValueError as error:  # pydantic's and json's are such
            logger.error("{}: the catalog's settings of this streamer cannot be used: {}", row["name"], error)
    return found


def _facts(one: Streamer, config: Config) -> dict[str, Any]:
    """As the columns of its row say it."""
    platform = platform_for(one.url)
    return {
        "name": one.name, "url": one.url, "platform": platform.name if platform else "",
        "check_interval": one.check_interval or config.live.check_interval, "auto_upload": int(one.auto_upload),
        "settings": json.dumps({name: getattr(one, name) for name in _OWN}, ensure_ascii=False),
    }  # fmt: skip


def _of_row(row: Mapping[str, Any]) -> Streamer:
    kept = json.loads(row["settings"])
    return Streamer.model_validate({
        **{name: kept[name] for name in _OWN if name in kept}, "name": row["name"], "url": row["url"],
        "auto_upload": bool(row["auto_upload"])})  # fmt: skip


def _name_of(url: str) -> str:
    """What an address calls its room: the last part of its path, or its host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "streamer"
    last = [part for part in unquote(parts.path).split("/") if part]
    text = re.sub(r"\.(flv|m3u8|html?)$", "", last[-1]) if last else parts.hostname or ""
    text = "".join(c for c in text if c.isprintable() and c not in '/\\:*?"<>|').strip(". ")
    return text.encode()[:80].decode(errors="ignore").strip() or "streamer"

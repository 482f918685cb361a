"""Who is to be recorded: the YAML and the API together, and what people stop or pause."""

import json

import pytest

from biliupd.catalog import records
from biliupd.catalog.database import Catalog
from biliupd.config import Config, Streamer
from biliupd.live.platform import LiveStatus, State
from biliupd.wanted import Seen, Unfit, Wanted

URL = "https://www.twitch.tv/"
LIVE = LiveStatus(State.LIVE, live_id="1")


@pytest.fixture
def catalog(tmp_path):
    return Catalog(tmp_path / "catalog.db")


@pytest.fixture
def wanted(catalog):
    made = Wanted(catalog, lambda: changes.append(1), lambda write: write())
    changes: list[int] = []
    made.changes = changes  # type: ignore[attr-defined]
    return made


def config(*names, **more):
    return Config.model_validate({"streamers": [{"name": n, "url": URL + n.lower()} for n in names], **more})


def names(wanted, settings):
    return [one.name for one in wanted.in_force(settings).streamers if one.record]


def row(catalog, name):
    return next(one for one in records.active_streamers(catalog.db) if one["name"] == name)


def test_streamers_of_the_api_live_beside_those_of_the_yaml_and_survive_a_restart(catalog, wanted):
    settings = config("ann", templates={"t": {}}, accounts={"a": {"cookies": "c"}})
    wanted.in_force(settings)
    id = wanted.make({"url": URL + "bob", "priority": 3, "template": "t", "account": "a", "auto_upload": False})
    assert wanted.changes
    assert names(Wanted(catalog, lambda: None, lambda write: write()), settings) == ["ann", "bob"]
    (bob,) = [one for one in wanted.in_force(settings).streamers if one.name == "bob"]
    assert bob == Streamer(name="bob", url=URL + "bob", priority=3, template="t", account="a", auto_upload=False)
    found = row(catalog, "bob")
    assert (found["id"], found["source"], found["platform"]) == (id, "api", "streamlink")
    assert json.loads(row(catalog, "ann")["settings"])["priority"] == 0, "of the YAML as well, for the page"


@pytest.mark.parametrize(("given", "field", "says"), [
    ({"url": "ftp://x/y"}, "url", "no platform answers"),
    ({"url": "https://www.twitch.tv/x", "name": "../etc"}, "name", "no slash"),
    ({"url": "https://www.twitch.tv/x", "name": ".hidden"}, "name", "no leading dot"),
    ({"url": "https://www.twitch.tv/x", "name": "a\nb"}, "name", "no line break"),
    ({"url": "https://www.twitch.tv/x", "name": "x.part"}, "name", "not looked at"),
    ({"url": "https://www.twitch.tv/x.tmp"}, "name", "not looked at"),
    ({"url": "https://www.twitch.tv/x", "template": "none"}, "template", "no template 'none'"),
    ({"url": "https://www.twitch.tv/x", "account": "none"}, "account", "no account 'none'"),
    ({"url": "https://www.twitch.tv/x", "check_interval": 0}, "check_interval", "greater than or equal to 1"),
    ({"url": "https://www.twitch.tv/x", "name": "ANN"}, "", "already"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_the_field_named(wanted, given, field, says):
    wanted.in_force(config("ann"))
    with pytest.raises(Unfit, match=says) as told:
        wanted.make(given)
    assert told.value.field == field
    assert not wanted.changes


def test_the_api_refuses_what_watch_ignore_names_in_the_words_of_the_configuration(wanted):
    wanted.in_force(config(watch={"ignore": ["old*"]}))
    with pytest.raises(Unfit, match=r"watch\.ignore names it: take another name, or another pattern") as told:
        wanted.make({"url": URL + "Older"})
    assert told.value.field == "name"


def test_an_address_gives_a_name_that_is_free(wanted):
    wanted.in_force(config("ann"))
    for url in (URL + "ann", "http://host.example/live/%E9%98%BF%E8%8A%B1.flv", "http://host.example:80/.m3u8"):
        wanted.make({"url": url})
    assert names(wanted, config("ann")) == ["ann", "ann (2)", "阿花", "streamer"]


def test_a_removed_one_gets_its_row_back_with_its_name(catalog, wanted):
    wanted.in_force(config())
    id = wanted.make({"url": URL + "bob"})
    wanted.remove(row(catalog, "bob"))
    assert names(wanted, config()) == []
    assert wanted.make({"url": URL + "bob2", "name": "bob"}) == id
    wanted.change(row(catalog, "bob"), {"url": URL + "bob3", "priority": 2})
    (bob,) = wanted.in_force(config()).streamers
    assert (bob.url, bob.priority) == (URL + "bob3", 2)


def test_the_yaml_counts_when_it_names_one_of_the_api(catalog, wanted):
    wanted.in_force(config())
    wanted.make({"url": URL + "other", "name": "ann"})
    assert [one.url for one in wanted.in_force(config("ann")).streamers] == [URL + "ann"]
    assert row(catalog, "ann")["source"] == "yaml"
    wanted.make({"url": URL + "other", "name": "Bob"})
    assert [one.name for one in wanted.in_force(config("ann", "bob")).streamers] == ["ann", "bob"]


def test_a_paused_one_is_neither_looked_at_nor_recorded_until_it_is_started(catalog, wanted):
    wanted.in_force(config("ann", "bob"))
    wanted.set_mode("ann", "paused")
    assert names(wanted, config("ann", "bob")) == ["bob"]
    assert names(Wanted(catalog, lambda: None, lambda write: write()), config("ann", "bob")) == ["bob"]
    wanted.set_mode("ann", "on")
    assert names(wanted, config("ann", "bob")) == ["ann", "bob"]


@pytest.mark.parametrize(("looks", "recorded"), [
    ([LIVE, LIVE], [False, False]),
    ([LIVE, LiveStatus(State.UNKNOWN), LiveStatus(State.RESTRICTED), LIVE], [False, False, False, False]),
    ([LIVE, LiveStatus(State.OFFLINE), LIVE], [False, True, True]),
    ([LIVE, LiveStatus(State.LIVE, live_id="2")], [False, True]),
    ([LiveStatus(State.LIVE), LiveStatus(State.LIVE, live_id="2"), LIVE], [False, False, True]),
])  # fmt: skip
def test_a_skipped_one_is_recorded_again_when_it_goes_live_anew(catalog, wanted, looks, recorded):
    wanted.in_force(config("ann"))
    assert wanted.seen("ann", LIVE)
    wanted.set_mode("ann", "skipped")
    assert names(wanted, config("ann")) == ["ann"], "it is still looked at"
    assert [wanted.seen("ann", look) for look in looks] == recorded
    assert row(catalog, "ann")["mode"] == ("on" if recorded[-1] else "skipped")
    assert wanted.skips("ann") is not recorded[-1]


def test_a_restart_does_not_forget_what_was_skipped(catalog, wanted):
    wanted.in_force(config("ann"))
    wanted.set_mode("ann", "skipped")
    later = Wanted(catalog, lambda: None, lambda write: write())
    later.in_force(config("ann"))
    assert not later.seen("ann", LIVE)
    assert later.seen("ann", LiveStatus(State.OFFLINE))
    assert later.seen("ann", LIVE)


def test_the_last_look_is_told_with_its_number(wanted):
    assert wanted.look("ann") == Seen()
    wanted.seen("ann", LiveStatus(State.UNKNOWN, "no answer"))
    assert wanted.look("ann") == Seen(1, "unknown", "no answer")


def test_what_the_settings_say_is_written_only_when_it_is_news(catalog, wanted):
    wanted.in_force(config("ann"))
    before = catalog.db.execute("select max(id) from changes").fetchone()
    wanted.in_force(config("ann"))
    assert catalog.db.execute("select max(id) from changes").fetchone() == before


def test_an_address_that_comes_back_as_it_was_shown_keeps_its_password(catalog, wanted):
    wanted.in_force(config())
    wanted.make({"url": "https://ann:secret@host.example/live.flv", "name": "bob"})
    wanted.change(row(catalog, "bob"), {"url": "https://host.example/live.flv", "priority": 1})
    (bob,) = wanted.in_force(config()).streamers
    assert (bob.url, bob.priority) == ("https://ann:secret@host.example/live.flv", 1)

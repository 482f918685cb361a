"""The hub's parts by themselves: what waits for a client, and who waits for a change."""

import asyncio

import pytest
from support import wait_until

from biliupd.catalog import records
from biliupd.catalog.database import Catalog
from biliupd.control import hub
from biliupd.control.hub import MOST_BYTES, MOST_MESSAGES, TOO_SLOW, Client, Hub, Message


def test_a_client_that_takes_nothing_is_dropped_by_number_or_by_size():
    many, large, asked = (Client(lambda: True) for _ in range(3))
    for _ in range(MOST_MESSAGES):
        many.put("x")
    assert not many.ended
    many.put("x")
    assert many.ended == TOO_SLOW
    large.put("x" * (MOST_BYTES + 1))
    assert not large.ended, "one alone may be as long as it is"
    large.put("x")
    assert large.ended == TOO_SLOW
    for _ in range(2 * MOST_MESSAGES):
        asked.put("x" * 10_000, counts=False)
    asked.put("y")
    assert not asked.ended, "what it asked for itself does not count"


def test_what_was_taken_no_longer_counts():
    async def all_of_it():
        client = Client(lambda: True)
        for number in range(5 * MOST_MESSAGES):
            client.put(str(number))
            assert await client.next() == str(number)
        taken = asyncio.create_task(client.next())
        await client.emptied()
        client.end(4401)
        assert await client.over() == 4401
        client.put("too late")
        taken.cancel()
        return client

    assert asyncio.run(all_of_it()).ended == 4401


@pytest.mark.parametrize(("seq", "text"), [(7, '{"seq":7,"put":[]}'), (None, '{"seq":null,"put":[]}')])
def test_a_message_gets_its_number_last(seq, text):
    assert Message("videos", '{"seq":', ',"put":[]}').text(seq) == text


def test_who_waits_for_a_change_is_told_of_the_next_one_and_of_none_after_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "LOOK_SECONDS", 0.02)
    catalog = Catalog(tmp_path / "catalog.db")
    running: list[hub.Running] = []
    house = type("Quiet", (), {"running": lambda self: running, "log_lines": lambda self, after: []})()

    async def wait():
        async with Hub(catalog, house) as one:
            assert not await one.changed(0.1)
            waiting = [asyncio.create_task(one.changed(10)) for _ in range(3)]
            while one._seq is None:
                await asyncio.sleep(0.01)
            records.notice(catalog.db, "a", "text")
            assert await asyncio.gather(*waiting) == [True] * 3
            left = asyncio.create_task(one.changed(60))
            await asyncio.sleep(0)
        (end,) = await asyncio.gather(left, return_exceptions=True)
        assert isinstance(end, asyncio.CancelledError), "nobody waits for a server that has ended"

    asyncio.run(wait())
    catalog.close()


def test_a_turn_that_fails_is_not_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(hub, "SAMPLE_SECONDS", 0.02)
    catalog, failures = Catalog(tmp_path / "catalog.db"), []

    class Broken:
        def running(self):
            failures.append("running")
            raise ZeroDivisionError

        def log_lines(self, after):
            failures.append("log")
            raise ZeroDivisionError

    async def look():
        async with Hub(catalog, Broken()) as one:
            looking = asyncio.create_task(one.changed(60))
            await asyncio.to_thread(wait_until, lambda: failures.count("running") > 2 and failures.count("log") > 2)
        assert looking.done()

    asyncio.run(look())
    catalog.close()

"""Going on with an upload after a stop, a crash or a cut, and leaving what does not serve."""

import dataclasses
import hashlib
import json
import os
import random
import threading

import pytest
from support import wait_until

from biliupd.errors import Cooling, PermanentError, Stopped, TemporaryError
from biliupd.publish.line import named
from biliupd.publish.session import Session
from biliupd.publish.upos import upload

LINES = [named("tx"), named("bda2")]
PART = 64 * 1024


@pytest.fixture
def long_clip(tmp_path):
    """Twenty parts, the last one short."""
    path = tmp_path / "long.mp4"
    path.write_bytes(os.urandom(19 * PART + 5))
    return path


class Sender:
    """Uploads, and remembers the session as its text, as the catalog does."""

    def __init__(self, member):
        self.member, self.text, self.sessions = member, None, []

    @property
    def session(self):
        return Session.loads(self.text) if self.text else None

    def send(self, path, lines=LINES, member=None, stop=None, **options):
        return upload(path, member or self.member, lines, stop=stop or threading.Event(), session=self.session,
                      on_session=self._keep, **options)

    def _keep(self, session):
        self.text = session.dumps()
        self.sessions.append(session)

    def send_until(self, path, parts, **options):
        """Stop once this many parts are known to be there."""
        stop = threading.Event()

        def look(progress):
            if self.session and len(self.session.done) >= parts:
                stop.set()

        with pytest.raises(Stopped):
            self.send(path, stop=stop, on_progress=look, **options)


@pytest.fixture
def sender(member_with):
    return Sender(member_with(parallel_parts=2, part_attempts=2))


def same(bilibili, done, path):
    return bilibili.sha256(done.filename) == hashlib.sha256(path.read_bytes()).hexdigest()


def count(bilibili, route):
    return len([request for request in bilibili.requests if request.route == route])


def test_an_upload_goes_on_behind_the_last_acknowledged_part(bilibili, sender, long_clip):
    bilibili.slow(400_000)
    sender.send_until(long_clip, 5)
    had = sender.session.done
    bilibili.slow(0)
    wait_until(lambda: "put" not in bilibili.under_way)
    before = len(bilibili.chunks_seen)
    done = sender.send(long_clip)
    assert same(bilibili, done, long_clip)
    assert sorted(bilibili.chunks_seen[before:]) == sorted(set(range(1, 21)) - had)
    assert (count(bilibili, "preupload"), count(bilibili, "init")) == (1, 1)
    assert done.line == "tx"


def test_what_was_there_already_is_no_speed(bilibili, sender, long_clip):
    bilibili.slow(200_000)
    sender.send_until(long_clip, 8)
    seen = []
    sender.send(long_clip, on_progress=seen.append)
    assert seen[0].sent_bytes >= 8 * PART
    assert max(progress.bytes_per_second for progress in seen) < 1_500_000


def test_every_part_that_was_acknowledged_is_told_before_the_error(bilibili, sender, long_clip):
    bilibili.fail("put", 412, part=15)
    with pytest.raises(Cooling):
        sender.send(long_clip)
    acknowledged = {int(request.query["partNumber"]) for request in bilibili.requests
                    if request.route == "put" and request.status == 200}
    assert sender.session.done <= acknowledged
    assert len(acknowledged - sender.session.done) <= 1, "at most the one whose answer was cut off on the other wire"


def test_what_was_refused_for_good_is_not_gone_on_with(bilibili, sender, long_clip):
    """Else the ticket that was refused would be refused again, however often a person has it tried."""
    bilibili.fail("put", 400, part=15)
    with pytest.raises(PermanentError, match="HTTP 400"):
        sender.send(long_clip)
    assert same(bilibili, sender.send(long_clip), long_clip)
    assert count(bilibili, "preupload") == 2


@pytest.mark.parametrize("change", ["grown", "touched", "replaced"])
def test_a_file_that_changed_meanwhile_starts_anew(bilibili, sender, long_clip, change):
    bilibili.slow(400_000)
    sender.send_until(long_clip, 3)
    sender.text = dataclasses.replace(sender.session, resent_bytes=5).dumps()
    if change == "grown":
        with long_clip.open("ab") as file:
            file.write(b"more")
    elif change == "touched":
        os.utime(long_clip, ns=(1, 1))
    else:
        other = long_clip.with_name("other")
        other.write_bytes(os.urandom(long_clip.stat().st_size))
        os.utime(other, ns=(long_clip.stat().st_atime_ns, long_clip.stat().st_mtime_ns))
        other.replace(long_clip)
    bilibili.slow(0)
    assert same(bilibili, sender.send(long_clip), long_clip)
    assert count(bilibili, "preupload") == 2
    assert sender.session.resent_bytes == 0


def test_a_ticket_that_is_nearly_five_days_old_is_not_used(bilibili, sender, long_clip):
    bilibili.slow(400_000)
    sender.send_until(long_clip, 3)
    old = sender.session
    sender.text = dataclasses.replace(old, began_at=old.began_at - 5 * 86400 + 3600).dumps()
    bilibili.slow(0)
    assert same(bilibili, sender.send(long_clip), long_clip)
    assert count(bilibili, "preupload") == 2
    assert sender.session.resent_bytes == old.resent_bytes + len(old.done) * PART
    assert not [one for one in bilibili.requests if one.status == 403]


def test_a_ticket_of_another_account_is_not_used(bilibili, sender, long_clip):
    bilibili.slow(400_000)
    sender.send_until(long_clip, 3)
    sender.text = dataclasses.replace(sender.session, mid=4711).dumps()
    bilibili.slow(0)
    assert same(bilibili, sender.send(long_clip), long_clip)
    assert count(bilibili, "preupload") == 2


@pytest.mark.parametrize("status", [403, 404])
def test_an_old_ticket_that_is_refused_costs_a_new_one(bilibili, sender, long_clip, status):
    bilibili.slow(400_000)
    sender.send_until(long_clip, 3)
    lost = len(sender.session.done)
    bilibili.slow(0)
    bilibili.fail("put", status)
    assert same(bilibili, sender.send(long_clip), long_clip)
    assert count(bilibili, "preupload") == 2
    assert sender.session.resent_bytes >= lost * PART


def test_a_complete_whose_answer_is_lost_is_asked_for_again_by_the_next_upload(bilibili, sender, long_clip):
    bilibili.lose_answer("complete", times=5)
    with pytest.raises(TemporaryError, match="completing failed 5 times"):
        sender.send(long_clip)
    assert len(sender.session.done) == 20
    done = sender.send(long_clip)
    assert bilibili.filenames == [done.filename]
    assert len(bilibili.chunks_seen) == 20


def test_an_end_that_never_comes_costs_the_ticket_after_three_uploads(bilibili, sender, long_clip):
    bilibili.fail("complete", 502, times=15)
    for _ in range(2):
        with pytest.raises(TemporaryError, match="completing failed"):
            sender.send(long_clip, lines=LINES[:1])
    assert len(bilibili.chunks_seen) == 20
    assert same(bilibili, sender.send(long_clip, lines=LINES[:1]), long_clip)
    assert (len(bilibili.chunks_seen), count(bilibili, "preupload")) == (40, 2)


def test_the_next_endpoint_goes_on_with_the_same_ticket(bilibili, sender, long_clip):
    second = bilibili.add_endpoint()
    bilibili.fail("put", 504, times=99, endpoint=bilibili.address, skip=6)
    done = sender.send(long_clip)
    assert same(bilibili, done, long_clip)
    good = [int(one.query["partNumber"]) for one in bilibili.requests if one.route == "put" and one.status == 200]
    assert sorted(good) == list(range(1, 21)), "no part twice"
    assert (count(bilibili, "preupload"), done.line) == (1, "tx")
    assert sender.session.endpoints[0] == f"//{second}"


def test_a_dead_endpoint_is_left_from_the_first_request_on(bilibili, sender, long_clip):
    dead = bilibili.add_endpoint()
    bilibili.endpoints.reverse()
    bilibili.close_endpoint(dead)
    assert same(bilibili, sender.send(long_clip), long_clip)
    assert count(bilibili, "preupload") == 1


@pytest.mark.parametrize("answer", [b"<html>", {"OK": 1}, {"upload_id": 5}, {"upload_id": "a\r\nb"}])
def test_an_endpoint_that_gives_no_upload_id_is_left(bilibili, sender, clip, answer):
    bilibili.add_endpoint()
    bilibili.fail("init", 200, answer, times=99, endpoint=bilibili.address)
    assert same(bilibili, sender.send(clip), clip)
    assert count(bilibili, "preupload") == 1


def test_a_line_that_does_not_serve_is_left_for_the_next(bilibili, sender, long_clip):
    bilibili.fail("put", 500, times=999, line="tx", skip=4)
    failed = []
    done = sender.send(long_clip, on_line_failed=failed.append)
    assert same(bilibili, done, long_clip)
    assert (done.line, failed) == ("bda2", [LINES[0]])
    assert count(bilibili, "preupload") == 2
    assert sender.session.line == "bda2"
    assert sender.session.resent_bytes >= 4 * PART


def test_when_no_line_serves_it_is_temporary_and_the_last_ticket_is_kept(bilibili, sender, long_clip):
    bilibili.fail("put", 500, times=999, skip=4, line="bda2")
    bilibili.fail("init", 500, times=999, line="tx")
    with pytest.raises(TemporaryError, match="line bda2"):
        sender.send(long_clip)
    assert (sender.session.line, len(sender.session.done)) == ("bda2", 4)
    bilibili.heal()
    done = sender.send(long_clip)
    assert (done.line, count(bilibili, "preupload")) == ("bda2", 2), "it goes on where parts are"
    assert same(bilibili, done, long_clip)


def test_a_network_that_is_cut_off_costs_no_part(bilibili, sender, long_clip):
    """Every line fails then, and no new ticket can be had."""
    bilibili.drop("put", times=999, skip=10)
    bilibili.drop("preupload", times=999, skip=1)
    failed = []
    with pytest.raises(TemporaryError):
        sender.send(long_clip, on_line_failed=failed.append)
    assert failed == [LINES[0]]
    had = sender.session.done
    assert (sender.session.line, len(had)) == ("tx", 10)
    bilibili.heal()
    before = len(bilibili.chunks_seen)
    assert same(bilibili, sender.send(long_clip), long_clip)
    assert set(bilibili.chunks_seen[before:]) == set(range(1, 21)) - had


def test_a_ticket_is_kept_until_another_line_has_taken_a_part(bilibili, sender, long_clip):
    bilibili.fail("put", 500, times=999, skip=10, line="tx")
    bilibili.fail("put", 500, times=999, line="bda2")
    with pytest.raises(TemporaryError, match="line bda2"):
        sender.send(long_clip)
    assert (sender.session.line, len(sender.session.done)) == ("tx", 10)
    bilibili.heal()
    assert sender.send(long_clip).line == "tx"
    assert count(bilibili, "preupload") == 2


def test_a_ticket_without_parts_does_not_hold_on_to_its_line(bilibili, sender, long_clip):
    bilibili.fail("put", 500, times=999)
    with pytest.raises(TemporaryError):
        sender.send(long_clip)
    assert sender.session.line == "bda2"
    bilibili.heal()
    assert sender.send(long_clip).line == "tx"


def bytes_of_puts(bilibili):
    return sum(int(one.query["size"]) for one in bilibili.requests if one.route == "put")


def test_a_hopeless_server_gets_a_bounded_number_of_bytes(bilibili, sender, long_clip, monkeypatch):
    """It takes every part and answers none; each upload is a new process, which knows only the text of the session."""
    monkeypatch.setattr("biliupd.publish.meter.LEAST_RESENT_BYTES", 0)
    bilibili.lose_answer("put", times=10_000)
    kinds = []
    while PermanentError not in kinds and len(kinds) < 100:
        with pytest.raises((TemporaryError, PermanentError)) as caught:
            sender.send(long_clip)
        kinds.append(caught.type)
    size = long_clip.stat().st_size
    assert len(kinds) > 1
    assert "MiB were sent in vain" in str(caught.value)
    assert "biliupd retry" in caught.value.hint
    assert size - PART < bytes_of_puts(bilibili) <= size + 3 * PART
    assert sender.session.resent_bytes == 0, "a person who has it tried again begins a new count"


def test_tickets_that_are_lost_again_and_again_are_counted_too(bilibili, sender, long_clip, monkeypatch):
    monkeypatch.setattr("biliupd.publish.meter.LEAST_RESENT_BYTES", 0)
    bilibili.fail("complete", 404, times=99)
    with pytest.raises(PermanentError, match="sent in vain"):
        sender.send(long_clip)
    assert bytes_of_puts(bilibili) == 2 * long_clip.stat().st_size


def test_a_small_file_may_be_sent_in_vain_often(bilibili, sender, clip):
    bilibili.lose_answer("put", times=20)
    for _ in range(20):
        try:
            assert same(bilibili, sender.send(clip), clip)
            break
        except TemporaryError:
            continue
    assert bytes_of_puts(bilibili) > 2 * clip.stat().st_size


def test_a_stop_is_nothing_sent_in_vain(bilibili, sender, long_clip):
    bilibili.slow(400_000)
    sender.send_until(long_clip, 2)
    assert sender.session.resent_bytes == 0


def test_a_session_survives_its_text(bilibili, sender, long_clip):
    sender.send(long_clip)
    session = sender.sessions[-1]
    assert Session.loads(session.dumps()) == session
    assert len(session.dumps()) < 1000
    assert '"done":"1-20"' in session.dumps()
    assert session.auth not in repr(session)
    many = dataclasses.replace(session, done=frozenset({1, 2, 5, 7, 8, 9}))
    assert Session.loads(many.dumps()) == many


@pytest.mark.parametrize("change", [
    {"version": 2}, {"done": "0-3"}, {"done": "1-21"}, {"done": "1-999999999"}, {"done": "x"}, {"done": None},
    {"chunk_size": 0}, {"size_bytes": -1}, {"endpoints": []}, {"endpoints": ["http://x"]}, {"auth": "a\nb"},
    {"path": 5}, {"surprise": 1}, {"threads": 0}, {"resent_bytes": -1}, {"began_at": "x"}, {"cid": 1.5},
])  # fmt: skip
def test_a_session_that_cannot_be_right_is_none(bilibili, sender, long_clip, change):
    sender.send(long_clip)
    assert Session.loads(json.dumps({**json.loads(sender.text), **change})) is None


@pytest.mark.parametrize("text", ["", "x", "null", "[]", "5", "{}", '{"version":1}'])
def test_what_is_no_session_is_none(text):
    assert Session.loads(text) is None


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_the_file_arrives_and_no_acknowledged_part_twice(bilibili, sender, long_clip, seed):
    """Faults, stops and lost answers by chance; the text of the session is all that goes from one try to the next."""
    chance = random.Random(seed)
    bilibili.slow(900_000)
    bilibili.add_endpoint()
    for route in ("init", "put", "put", "put", "complete"):
        happen = chance.choice([
            lambda name: bilibili.drop(name, times=2, skip=chance.randrange(12)),
            lambda name: bilibili.fail(name, chance.choice([500, 504, 429]), times=3, skip=chance.randrange(12)),
            lambda name: bilibili.lose_answer(name, times=2, skip=chance.randrange(12)),
            lambda name: bilibili.stall(name, 0.2, times=3, skip=chance.randrange(12))])
        happen(route)
    done = None
    for _ in range(30):
        known = sender.session.done if sender.session else frozenset()
        tickets, before = count(bilibili, "preupload"), len(bilibili.requests)
        stop = threading.Event()
        timer = threading.Timer(chance.uniform(0.05, 0.6), stop.set)
        timer.start()
        try:
            done = sender.send(long_clip, stop=stop)
        except (Stopped, TemporaryError):
            wait_until(lambda: "put" not in bilibili.under_way)
        finally:
            timer.cancel()
        if count(bilibili, "preupload") == tickets:
            sent = {int(one.query["partNumber"]) for one in bilibili.requests[before:] if one.route == "put"}
            assert not sent & known
        if done:
            break
    assert done
    assert same(bilibili, done, long_clip)

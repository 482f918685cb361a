"""Which way is tried next."""

from biliupd.record.addresses import Addresses
from biliupd.record.spec import Stream

A, A2, B = (Stream(f"http://{name}", "flv") for name in ("a/1", "a/2", "b/1"))


def test_a_host_is_left_after_two_failures_and_a_refused_address_at_once() -> None:
    ways = Addresses([A, B])
    assert not ways.failed()
    assert ways.current is A
    assert ways.failed()
    assert ways.current is B
    ways = Addresses([A, A2])
    assert ways.failed(gone=True)  # says nothing about the host
    assert ways.current is A2
    assert ways.failed(gone=True)
    assert ways.current is None
    assert not ways.failed()


def test_a_silent_one_is_left_at_once() -> None:
    ways = Addresses([A, B])
    assert ways.failed(silent=True)
    assert ways.current is B


def test_when_all_fail_nobody_says_that_another_is_worth_trying_at_once() -> None:
    ways = Addresses([A, B])
    at_once = [ways.failed() for _ in range(20)]
    assert at_once.count(True) == 1
    ways.delivered()
    assert [ways.failed() for _ in range(2)].count(True) == 1


def test_what_the_site_names_again_is_tried_again() -> None:
    ways = Addresses([A])
    ways.failed(gone=True)
    ways.renew([A])
    assert ways.current is A


def test_one_that_is_slow_is_left_for_another_only_when_there_is_one() -> None:
    assert not Addresses([A]).left()
    ways = Addresses([A, B])
    assert ways.left()
    assert ways.current is B

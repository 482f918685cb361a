"""What tests of the dashboard share besides their fixtures."""

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect
from support import wait_until

WIDE, PHONE = (1440, 900), (390, 844)
PAGES = ("now", "streamers", "library", "publishing", "accounts", "log", "settings")
ANSWERS = re.compile(r"Failed to load resource.*status of (401|403|409|422)|net::ERR_INTERNET_DISCONNECTED")  #: fine
PATIENCE_MS = 20_000
Visit = Callable[..., Page]

expect.set_options(timeout=PATIENCE_MS)


def go(page: Page, place: str) -> None:
    page.evaluate("place => { location.hash = `#/${place}`; }", place)


def until(page: Page, holds: str) -> None:
    """Wait for it without wait_for_function, which the page's own policy forbids."""
    wait_until(lambda: page.evaluate(holds) or page.wait_for_timeout(50), PATIENCE_MS / 1000, holds)

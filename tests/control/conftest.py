"""A server, and a browser, that are there for all tests of a file, because most of them only look.

Every test in the browser fails on an error of the page and on any request to another host.
"""

import threading
from collections.abc import Callable, Iterator

import pytest
from browser import ANSWERS, PATIENCE_MS, WIDE, Visit
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from stage import Stage
from support import wait_until

POOLS = ("AnyIO worker thread", "control-hub")  #: names of threads that a server makes when it needs them


@pytest.fixture(autouse=True)
def no_thread_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """But for those of a server that other tests use, too."""
    before = set(threading.enumerate())
    yield
    allowed = POOLS if "shared" in request.fixturenames else ()

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate()
                if thread not in before and thread.is_alive() and not thread.name.startswith(allowed)]

    try:
        wait_until(lambda: not left(), seconds=5)
    except AssertionError:
        pytest.fail(f"threads left behind: {left()}")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One for all tests of the file."""
    stage = Stage(tmp_path_factory.mktemp("stage")).start()
    yield stage
    stage.close()


@pytest.fixture
def stage(tmp_path, request) -> Iterator[Stage]:
    """One of its own, with the settings of a `parametrize`d test, if it has any."""
    stage = Stage(tmp_path, **getattr(request, "param", {})).start()
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sampled(shared: Stage) -> Stage:
    for role in ("admin", "operator", "viewer"):
        shared.user(role)
    shared.sample(12)
    return shared


@pytest.fixture(scope="module")
def contexts(chromium: Browser) -> Callable[..., BrowserContext]:
    """Browsers of people, kept from test to test: what they have loaded once they need not load again."""
    known: dict[tuple[str, ...], BrowserContext] = {}

    def context(stage: Stage, role: str, theme: str, language: str) -> BrowserContext:
        key = (stage.url, role, theme, language)
        if key not in known or not role:
            known[key] = chromium.new_context(
                viewport={"width": WIDE[0], "height": WIDE[1]}, color_scheme=theme, locale=language,
                reduced_motion="reduce",
            )  # fmt: skip
            known[key].set_default_timeout(PATIENCE_MS)
            if role:
                session = {"name": "biliupd", "value": stage.token(role, "cookie"), "url": stage.url}
                known[key].add_cookies([session])
        return known[key]

    return context


@pytest.fixture
def visit_at(contexts: Callable[..., BrowserContext]) -> Iterator[Visit]:
    """Open the page of a stage: logged in as `role`, or not at all. Its troubles are those of the test."""
    pages: list[Page] = []
    troubles: list[str] = []

    def visit(stage: Stage, place: str = "now", role: str = "admin", theme="light", language="en-GB") -> Page:
        page = contexts(stage, role, theme, language).new_page()
        pages.append(page)
        page.on("request", lambda request: request.url.startswith((stage.url, "data:", "blob:"))
                or troubles.append(f"asked {request.url}"))  # fmt: skip
        page.on("console", lambda said: said.type in ("error", "warning") and not ANSWERS.search(said.text)
                and troubles.append(said.text))  # fmt: skip
        page.on("pageerror", lambda error: troubles.append(f"{error}\n{error.stack}"))
        page.goto(f"{stage.url}/#/{place}")
        page.wait_for_selector(".frame" if role else "form")
        return page

    yield visit
    for page in pages:
        page.close()
    assert troubles == []


@pytest.fixture
def visit(visit_at: Visit, sampled: Stage) -> Visit:
    return lambda *words, **more: visit_at(sampled, *words, **more)

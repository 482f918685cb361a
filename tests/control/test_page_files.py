"""The files of the dashboard as they are served, without a browser."""

import gzip
import re

import pytest
import requests
from stage import Stage

from biliupd.control.web import WEB, site

MOST_BYTES = 200 * 1024
LATER = ("i18n/zh.js", "i18n/settings.zh.js", "i18n/daemon.zh.js", "i18n/daemon/")  #: for who reads Chinese


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("/", "text/html"), ("/api/docs", "text/html"), ("/static/js/main.js", "text/javascript"),
        ("/static/css/base.css", "text/css"), ("/static/icon.svg", "image/svg+xml"),
        ("/static/app.webmanifest", "application/manifest+json"),
    ],
)  # fmt: skip
def test_a_file_has_its_type_and_an_etag_by_which_it_is_not_sent_twice(shared: Stage, name, type):
    answer = requests.get(shared.url + name, timeout=5, headers={"Accept-Encoding": "identity"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == type
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    etag = answer.headers["etag"]
    again = requests.get(shared.url + name, timeout=5, headers={"If-None-Match": etag, "Accept-Encoding": "identity"})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    packed = requests.get(shared.url + name, timeout=5, headers={"If-None-Match": etag, "Accept-Encoding": "gzip"})
    assert (packed.headers["content-encoding"], packed.content) == ("gzip", answer.content)
    assert packed.headers["etag"] != etag
    head = requests.head(shared.url + name, timeout=5, headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(answer.content)))


def test_the_page_names_files_that_a_browser_may_keep_for_good(shared: Stage):
    page = requests.get(shared.url, timeout=5)
    assert page.headers["cache-control"] == "no-cache"
    names = re.findall(r'"(/static/[^"]+)"', page.text)
    assert len(names) >= 6
    for name in names:
        answer = requests.get(shared.url + name, timeout=5)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True), name
    other = names[0].replace(site().mark, "~0123456789abcdef")
    assert requests.get(shared.url + other, timeout=5).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/static/", "/static/js", "/static/../web.py", "/static/%2e%2e/web.py", "/static/..%2fweb.py",
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/js/../../../app.py", "/static/js/main.js/",
        "/static/js\\main.js", "/static/js/main.js%00", "/static/JS/main.js", "/static/nothing",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(shared: Stage, path):
    request = requests.Request("GET", shared.url).prepare()
    request.url = shared.url + path  # as it is: requests would tidy it up
    with requests.Session() as session:
        answer = session.send(request, timeout=5)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_whole_page_is_small_and_names_no_other_host_and_nothing_inline():
    assets = site().assets
    first = [asset for name, asset in assets.items() if "docs" not in name and not name.startswith(LATER)]
    assert sum(len(asset.plain) for asset in first) < MOST_BYTES  # the others come when they are wanted
    for name, asset in assets.items():
        text = asset.plain.decode()
        assert gzip.decompress(asset.packed) == asset.plain
        hosts = set(re.findall(r"""(?:src|href|import|from|url\()\s*[=(]?\s*["']?https?://([^/"'`)]+)""", text))
        assert hosts == set(), name
        assert not re.search(r"""\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b""", text), name
        assert not re.search(r"""<[^>]+\s(?:style|on[a-z]+)=""", text) or not name.endswith(".html"), name
        if name.endswith((".js", ".css")):
            assert text.count("\n") <= 1000, name
    modules = [name for name in assets if name.endswith(".js")]
    imported = {
        (WEB / name).parent.joinpath(found).resolve().relative_to(WEB).as_posix()
        for name in modules for found in re.findall(r'(?:from |import\()"(\.[^"]+)"', assets[name].plain.decode())
    }  # fmt: skip
    assert imported <= set(modules)
    assert set(modules) - imported == {"js/theme.js", "js/main.js", "pages/docs.js"}  # no module that nobody wants

"""Pictures from elsewhere."""

import pytest

from biliupd.errors import PermanentError
from biliupd.publish import covers


@pytest.mark.parametrize("address", ["http://[x/a.jpg", "http:///a.jpg", "file:///etc/passwd", "ftp://host/a.jpg"])
def test_what_is_no_address_of_http_is_refused(tmp_path, address):
    with pytest.raises(PermanentError, match="none of http"):
        covers.fetch_picture(address, tmp_path / "cover")


@pytest.mark.parametrize("flood", [True, False])
def test_a_picture_that_never_ends_is_given_up(bilibili, tmp_path, monkeypatch, flood):
    monkeypatch.setattr(covers, "FETCH_SECONDS", 30 if flood else 0.2)
    bilibili.never_end("picture", b"x" * 65536 if flood else b"x", pause_seconds=0 if flood else 0.01)
    with pytest.raises(PermanentError, match="does not end"):
        covers.fetch_picture(f"{bilibili.url}/bfs/archive/a.jpg", tmp_path / "cover")
    assert not (tmp_path / "cover").exists()

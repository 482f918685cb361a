"""broadcast.json and specs as anybody may have left them: refused with a reason, never waited for, never a bug."""

import json
import os

import pytest

from biliupd.errors import PermanentError
from biliupd.record import broadcast, spec

GOOD = {"id": "b", "streamer": "ann", "started_at": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize("change", [
    {"pid": 1 << 70}, {"pid": -1}, {"title": "\ud800"}, {"streamer": "a\udfff"}, {"started_at": "yesterday"},
    {"started_at": "2026-01-01T00:00:00"}, {"ended_at": "never"}, {"last_media_at": "7"}, {"files": [1]},
    {"ledger": {}}, {"figures": {"bytes": "7"}}, {"streamer": None}, {"id": 7},
])  # fmt: skip
def test_a_broadcast_with_what_cannot_be_is_refused(tmp_path, change):
    (tmp_path / broadcast.NAME).write_text(json.dumps(GOOD))
    assert broadcast.read(tmp_path).streamer == "ann"
    (tmp_path / broadcast.NAME).write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(PermanentError, match=r"broadcast\.json"):
        broadcast.read(tmp_path)


@pytest.mark.timeout(10)
def test_a_pipe_or_a_directory_of_that_name_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / broadcast.NAME)
    with pytest.raises(PermanentError):
        broadcast.read(tmp_path)
    os.unlink(tmp_path / broadcast.NAME)
    (tmp_path / broadcast.NAME).mkdir()
    with pytest.raises(PermanentError):
        broadcast.read(tmp_path)


@pytest.mark.parametrize("text", [
    "[" * 100_000, "{}", "[]", "x", '{"directory": 5, "stream": {"url": "u", "protocol": "flv"}}',
    '{"directory": "a\\u0000b", "stream": {"url": "u", "protocol": "flv"}}',
    '{"directory": "\\ud800", "stream": {"url": "u", "protocol": "flv"}}', '{"directory": "a", "stream": 5}',
])  # fmt: skip
def test_a_spec_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(PermanentError, match="not a readable spec"):
        spec.read(tmp_path / "spec.json")

import re
from pathlib import Path

from biliupd.config import parse
from biliupd.settings import table
from biliupd.yaml_file import places

RAW = b"""
streamers:
  - name: ann
    url: https://user:secret@example.com/ann
record:
  split_size: 1GiB
templates:
  default:
    title: "{title}"
"""


def test_each_value_says_what_it_means_and_where_it_came_from(tmp_path: Path):
    found = {entry.key: entry for entry in table(parse(RAW, base=tmp_path), places(RAW))}
    assert (found["record.split_size"].value, found["record.split_size"].line) == (1 << 30, 6)
    assert found["record.split_size"].description.startswith("A new file from the next keyframe on")
    assert (found["record.most"].value, found["record.most"].line) == (0, None)
    assert (found["streamers[0].name"].value, found["streamers[0].name"].line) == ("ann", 3)
    assert found["templates.default.title"].line == 9
    assert found["recordings.directory"].value == str(tmp_path / "recordings")
    assert [key for key, entry in found.items() if not entry.description] == ["drop_folders", "accounts"]


def test_a_password_in_an_address_is_not_shown(tmp_path: Path):
    (url,) = (e.value for e in table(parse(RAW, base=tmp_path), places(RAW)) if e.key == "streamers[0].url")
    assert url == "https://example.com/ann"


def test_the_page_describes_each_setting_in_chinese_too():
    root = Path(__file__).parent.parent
    raw = (root / "config.example.yaml").read_bytes()
    keys = {re.sub(r"\[\d+\]", "[]", entry.key) for entry in table(parse(raw, base=root), places(raw))}
    named = {re.sub(r"^(templates|accounts)\.[^.]+", r"\1.*", key) for key in keys}
    page = (root / "biliupd/control/web/i18n/settings.zh.js").read_text(encoding="utf-8")
    assert set(re.findall(r'^  "([^"]+)": "', page, re.MULTILINE)) == named

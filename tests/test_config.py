import ast
import inspect
import itertools
from datetime import UTC, datetime, time
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from biliupd import config, template
from biliupd.config import Account, Config, DropFolder, Section, Streamer, Template, fill, load, parse
from biliupd.errors import ConfigError
from biliupd.live.platform import answers

EXAMPLE = Path(__file__).parents[1] / "config.example.yaml"


def problems(text: str | bytes, **more) -> list[str]:
    raw = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ConfigError) as caught:
        parse(raw, base=Path("/base"), **more)
    return caught.value.problems


def test_an_empty_file_is_all_defaults():
    assert parse(b"", base=Path.cwd()) == parse(b"{}", base=Path.cwd()) == Config()


def test_the_example_loads_and_says_the_defaults():
    example = load(EXAMPLE, answers)
    bare = parse(b"", base=EXAMPLE.parent)
    for name in Config.model_fields:
        if name not in ("streamers", "drop_folders", "templates", "accounts"):
            assert getattr(example, name) == getattr(bare, name), name
    assert example.template("default") == bare.template("default")
    optional = {"check_interval": None, "account": None}
    assert example.streamers[0].model_copy(update=optional) == Streamer(name="某主播", url=example.streamers[0].url)
    assert example.drop_folders[0].model_copy(update=optional) == DropFolder(directory=EXAMPLE.parent / "drop")


def test_the_example_names_every_setting():
    written = yaml.safe_load(EXAMPLE.read_text())

    def missing(model: type[BaseModel], values: dict, path: str) -> list[str]:
        lost = []
        for name, info in model.model_fields.items():
            if name not in values:
                lost.append(f"{path}{name}")
            elif isinstance(info.annotation, type) and issubclass(info.annotation, Section):
                lost += missing(info.annotation, values[name], f"{path}{name}.")
        return lost

    assert missing(Config, written, "") == []
    for model, values in (
        (Streamer, written["streamers"][0]), (DropFolder, written["drop_folders"][0]),
        (Template, written["templates"]["default"]), (Account, written["accounts"]["main"]),
    ):  # fmt: skip
        assert missing(model, values, "") == []


def test_the_example_says_of_every_setting_what_it_is():
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    bare = [line for line in lines if "  # " not in line and not line.rstrip().endswith(":")]
    assert bare == []


def test_every_problem_is_named_at_once_with_its_place():
    text = """
recordings: {directory: rec}
wacth:
  quiet_seconds: 1
streamers:
  - name: a/b
    url: x
    auto_uplaod: true
    check_interval: -1
  - url: http://x
    template: defualt
    account: mian
accounts: {main: {cookies: c.json}}
templates:
  default: {title: "{streamr}", copyright: 2}
"""
    found = problems(text, answers=lambda url: url.startswith("http"))
    for part in (
        "streamers[0].name (line 6): a folder gets this name",
        "streamers[0].url (line 7): no platform answers for 'x'",
        "streamers[0].auto_uplaod (line 8): there is no such setting: did you mean auto_upload?",
        "streamers[0].check_interval (line 9): should be greater than or equal to 1, not -1",
        "streamers[1].name (line 10): must be given",
        "streamers[1].template (line 11): there is no template 'defualt': did you mean default?",
        "streamers[1].account (line 12): there is no account 'mian': did you mean main?",
        "wacth (line 3): there is no such setting: did you mean watch?",
        "templates.default.title (line 15): there is no placeholder {streamr}: did you mean {streamer}?",
        "templates.default.copyright (line 15): 2 (repost) needs source",
    ):
        assert any(line.startswith(part) for line in found), (part, found)
    assert len(found) == 10


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [", "(line 1): not YAML"),
        ("log: {level: LOUD}", "log.level (line 1): should be 'DEBUG'"),
        ("log: 7", "log (line 1)"),
        ("streamers:\n  - 5", "streamers[0] (line 2)"),
        ("- 1", "the file (line 1)"),
        ("log: {level: INFO}\nlog: {level: DEBUG}", "log (line 2): written twice"),
        ("publish: {member_url: bilibili.com}", "publish.member_url (line 1): an address starts with"),
        ("record: {split_size: 4 apples}", "record.split_size (line 1)"),
        ("watch: !!python/object:os.system {}", "watch (line 1): the tag tag:yaml.org,2002:python/object:os.system"),
        ("drop_folders: [{directory: recordings/x}]", "drop_folders[0].directory (line 1): overlaps recordings."),
        ("drop_folders: [{directory: a}, {directory: a/b}]", "drop_folders[1].directory (line 1): overlaps"),
        ('templates: {a: {title: "{started_at:%"}}', "templates.a.title (line 1)"),
        ('templates: {a: {title: "{title.x}"}}', "templates.a.title (line 1)"),
        ("streamers: [{name: A, url: u}, {name: a, url: u}]", "streamers[1].name (line 1): streamers[0] has this name"),
        ("drop_folders: [{directory: a/../recordings}]", "drop_folders[0].directory (line 1): overlaps recordings."),
        ("live:\n\tcheck_interval: 1", "(line 2): not YAML: found character '\\t'"),
        ("live:\n\tcheck_interval: 1", "; indent with spaces"),
        ("streamers：\n  - name: A\n", "(line 2): not YAML: mapping values are not allowed here; a full-width colon"),
        ("streamers:\n  - name: A\n    url：http://x/a.flv", "; a full-width colon"),
        ("live:\n  check_interval：30", "live (line 1): is not of the right form: 'check_interval：30'; a full-width"),
        ("a:\n- 'b\nc: d\n", "while scanning a quoted scalar that begins in line 2"),
        ("log: {}\nstreamers: 主播".encode("gbk"), "(line 2): not text: "),
        ("streamers:\n", "streamers (line 1): is empty: give it a value, or leave it out"),
        ("streamers:\n- {name: a, url: u}\n- url: v\n  name: x.PART", "[1].name (line 4): a folder 'x.PART' is not"),
        ("streamers: [{name: '~$x', url: u}]", "as half-written and foreign files are called so: take another name"),
        ("streamers: [{name: x.tmp, url: u, record: false}]", "streamers[0].name (line 1): a folder 'x.tmp' is not"),
        ("watch: {ignore: [7, old*]}\nstreamers: [{name: Older, url: u}]", "[0].name (line 2): a folder 'Older' is"),
        ("watch: {ignore: [old*]}\nstreamers: [{name: Older, url: u}]", "as watch.ignore names it: take another name"),
        ("streamers: [{name: 123, url: u}]", "name (line 1): is read as something else than text (123): put it into"),
        ("streamers: [{name: yes, url: u}]", "streamers[0].name (line 1): is read as something else than text (True)"),
        ("recordings: {directory: ~nobody-of-this-name/x}", "recordings.directory (line 1): ~nobody-of-this-name: "),
        ('recordings: {directory: "a\\0b"}', "recordings.directory (line 1): a path holds no NUL"),
        ('recordings: {directory: "a\\uD800b"}', "recordings.directory (line 1): a path holds no halves"),
        ("live: {check_interval: .inf}", "live.check_interval (line 1): should be"),
        ("record: {stall_seconds: 1e300}", "record.stall_seconds (line 1): should be"),
        ('templates: {a: {title: "{title:99999999999}"}}', "templates.a.title (line 1): cannot be filled in"),
        ('templates: {a: {title: "{title:>900000000}"}}', "{title:>900000000} is wider than any text"),
        ('templates: {a: {title: "{title:{part}00000000}"}}', "there is a placeholder within {title}"),
        ("templates: {a: {extra_fields: {a: 2026-01-01}}}", "extra_fields (line 1): cannot be sent as JSON: "),
        ("templates: {a: {extra_fields: {a: .nan}}}", "extra_fields (line 1): cannot be sent as JSON: "),
        ('templates: {a: {title: "\\uD800"}}', "templates.a.title (line 1): halves of characters"),
        ("live: {check_interval: " + "1:" * 3000 + "1.5}", "(line 1): int too large to convert to float"),
        ("? [a, b]\n: 1", "(line 1): the name of a setting must be text"),
        ("live: {<<: 5}", "(line 1): << takes settings, or a list of such"),
        ("live: &a {<<: *a}", "(line 1): too many values, or nested too deeply"),
    ],
)
def test_bad_input_is_refused_with_its_place(text, place):
    assert any(place in line for line in problems(text)), problems(text)


def test_a_name_is_complained_of_once_and_that_of_a_watched_directory_not_at_all():
    assert len(problems("streamers: [{name: .hidden, url: u}]")) == 1
    assert len(problems("watch: {ignore: nothing}\nstreamers: [{name: nothing, url: u}]")) == 1
    loaded = parse(b"recordings: {directory: .x.tmp}\ndrop_folders: [{directory: x.part}]\nwatch: {ignore: [x.*]}\n"
                   b"streamers: [{name: part.x, url: u}]", base=Path("/base"))
    assert [drop.directory.name for drop in loaded.drop_folders] == ["x.part"]


def test_a_password_in_an_address_is_not_repeated():
    (line,) = problems("streamers: [{name: a, url: 'https://ann:sesame@host/x'}]", answers=lambda url: False)
    assert "//host/x" in line
    assert "sesame" not in line


def test_a_bomb_of_aliases_is_refused_quickly():
    levels = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    )
    assert "too many values" in problems(levels)[0]


@pytest.mark.parametrize(
    "level", ["a%d: &a%d {<<: [%s]}\n", "? [&a%d %d, %s]\n: 1\n"], ids=["merges", "keys"]
)
def test_a_bomb_of_another_kind_is_refused_quickly(level):
    bomb = "".join(level % (n, n, ",".join([f"*a{n - 1}"] * 10)) for n in range(1, 10))
    assert any("too many values" in line or "must be text" in line for line in problems("a0: &a0 {x: 1}\n" + bomb))


def test_what_is_merged_in_is_overridden_by_the_mapping_itself():
    common = "templates: {a: &a {tid: 21, desc: common}, b: &b {tid: 22}, c: {<<: [*a, *b], desc: own}}"
    template = parse(common.encode(), base=Path("/base")).templates["c"]
    assert (template.tid, template.desc) == (21, "own")


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"\x00", b"x" * (1 << 21), b"[" * 5000])
def test_garbage_is_refused_without_a_traceback(raw):
    assert problems(raw)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file") as caught:
        load(tmp_path / "nowhere.yaml")
    assert "config.example.yaml" in caught.value.hint


def test_paths_are_relative_to_the_file(tmp_path):
    text = "recordings: {directory: rec, data_directory: /abs}\naccounts: {a: {cookies: ~/c}}"
    (tmp_path / "c.yaml").write_text(text)
    loaded = load(tmp_path / "c.yaml")
    assert loaded.recordings.directory == tmp_path / "rec"
    assert loaded.recordings.data_directory == Path("/abs")
    assert loaded.accounts["a"].cookies == Path.home() / "c"


def test_paths_of_sections_left_out_are_relative_to_the_file_too(tmp_path):
    (tmp_path / "c.yaml").write_text("streamers: []")
    loaded = load(tmp_path / "c.yaml")
    assert loaded.recordings.directory == tmp_path / "recordings"
    assert loaded.recordings.data_directory == tmp_path / "data"
    assert loaded.log.file == tmp_path / "data" / "biliupd.log"


def test_sections_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().watch.quiet_seconds = 1  # type: ignore[misc]


def test_placeholders_are_filled_in_local_time():
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    text = fill("{streamer}/{title}/{started_at:%Y}/{part}/{file}", streamer="s", title="t", started_at=at, file="f")
    assert text == f"s/t/{at.astimezone():%Y}/1/f"


def test_every_setting_is_documented():
    for module in (config, template):
        for model in ast.parse(inspect.getsource(module)).body:
            if isinstance(model, ast.ClassDef) and model.name != "Config":
                assert ast.get_docstring(model), model.name
                for line, after in itertools.pairwise(model.body):
                    if isinstance(line, ast.AnnAssign):
                        assert isinstance(after, ast.Expr), f"{model.name}.{ast.unparse(line)}"
                assert not isinstance(model.body[-1], ast.AnnAssign), model.name


@pytest.mark.parametrize(("at", "wanted"), [
    ("17:59", 0), ("18:00", 100), ("20:00", 100), ("22:59", 100), ("23:00", 7), ("02:00", 7), ("05:59", 7),
    ("06:00", 0),
])
def test_the_bandwidth_of_the_time_of_the_day_which_may_go_past_midnight(at, wanted):
    found = parse(b"""
publish:
  bandwidth_by_time:
    - {start: "18:00", end: "23:00", bandwidth: 100}
    - {start: "22:00", end: "6:00", bandwidth: 7}
""", base=EXAMPLE.parent)
    assert found.publish.bandwidth_at(time.fromisoformat(at)) == wanted


@pytest.mark.parametrize(("text", "why"), [
    ("publish: {bandwidth_by_time: [{start: '25:00', end: '6:00', bandwidth: 1}]}", 'is written "18:00"'),
    ("templates: {a: {dtime: tomorrow}}", 'a moment is written "+6h"'), ("templates: {a: {dtime: +1h}}", "4 hours"),
    ("templates: {a: {dtime: 20:00}}", "a moment is written"),
    ("templates: {a: {copyright: 2, source: x, mission_id: 1}}", "a repost cannot join an activity"),
    ("retention: {after_publishing: move}", "must be given when"),
    ("recordings: {directory: r}\nretention: {after_publishing: move, move_to: r/x}", "published again"),
    ("templates: {a: {cover: []}}", "templates.a.cover"),
])
def test_what_a_template_or_retention_cannot_mean_is_named(text, why):
    assert any(why in problem for problem in problems(text))

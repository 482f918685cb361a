"""config.yaml → frozen models: every key, every default and every check is on this page.

`load` returns a `Config` or raises one `ConfigError` that names everything wrong with its path and line. A room gets
its own section; nobody reads the file later, nor the environment. Relative paths are relative to the file.
"""

import difflib
import os
import re
import string
import typing
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import certifi
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
)

from biliupd.errors import ConfigError

LARGEST_FILE_BYTES = 1 << 20
LARGEST_NODE_COUNT = 100_000  # aliases count each time they are used, so that a bomb of them is refused


def _resolve(path: Path, info: ValidationInfo) -> Path:
    return _absolute((info.context or {}).get("base", Path.cwd()), path)


def _absolute(base: Path, path: Path) -> Path:
    """A path of the file as one of the system. Raises ValueError for what can be none."""
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError("a path holds no NUL")
        return base / path.expanduser()
    except UnicodeEncodeError:
        raise ValueError("a path holds no halves of characters") from None
    except RuntimeError:
        raise ValueError(f"{path.parts[0]}: there is no such user, or no home directory") from None


def _web_address(text: str) -> str:
    if not text.startswith(("http://", "https://")) or len(text.split("//", 1)[1]) == 0:
        raise ValueError("an address starts with http:// or https://")
    return text.rstrip("/")


def _folder_name(name: str) -> str:
    if "/" in name or name[0] == "." or not name.isprintable() or name != name.strip() or len(name.encode()) > 200:
        raise ValueError("a folder gets this name: no slash, no leading dot, no line break, at most 200 bytes")
    return name


_FULL_WIDTH = "a full-width colon ： does not count, write an ordinary one and a space (全角冒号请改成半角加空格)"
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_Path = tuple[str | int, ...]
LONGEST_SECONDS = 366 * 86400.0  # beyond lie numbers that clocks, timers and sockets do not take
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
SecondsOrZero = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
FilePath = Annotated[Path, AfterValidator(_resolve)]
BaseUrl = Annotated[str, AfterValidator(_web_address)]


class Section(BaseModel):
    """A part of the file: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


class RecordingsConfig(Section):
    """Where media and biliupd's own state live."""

    directory: FilePath = Path("recordings")
    """Recorded broadcasts: one folder per streamer, in it one per broadcast."""
    data_directory: FilePath = Path("data")
    """The catalog (SQLite), covers, the lock of the running daemon. One daemon per data directory."""


class DropFolder(Section):
    """A folder whose finished files are published, each as a submission of its own."""

    directory: FilePath
    """The folder. While it is missing (a share that is not mounted), biliupd says so and waits for it."""
    template: str = "default"
    """Name of the template that makes the submission's metadata."""
    account: str | None = None
    """Name of the account that submits; empty: the first one."""
    upload: bool = True
    """false: catalogue and merge, but do not publish."""


class Streamer(Section):
    """One room to watch."""

    name: Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_folder_name)]
    """Your name for the streamer; the folder is called so, too. Unique."""
    url: str
    """Address of the room, or of a stream (.flv, .m3u8)."""
    check_interval: Annotated[Seconds, Field(ge=1)] | None = None
    """Seconds between two looks; empty: live.check_interval."""
    record: bool = True
    """false: keep the entry, but neither look nor record."""
    auto_upload: bool = True
    """false: record and merge, but do not publish."""
    template: str = "default"
    """Name of the template that makes the submission's metadata."""
    account: str | None = None
    """Name of the account that submits; empty: the first one."""


def fill(text: str, *, streamer: str, title: str, started_at: datetime, part: int = 1, file: str = "") -> str:
    """`text` with its placeholders replaced; `started_at` is shown in the machine's own time zone."""
    values = {"streamer": streamer, "title": title, "started_at": started_at.astimezone(), "part": part, "file": file}
    return text.format(**values)


def _check_placeholders(text: str) -> str:
    known = ("streamer", "title", "started_at", "part", "file")
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{error}; a literal brace is written twice, {{{{ or }}}}") from None
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(f"there is no placeholder {{{name}}}; " + (
                f"did you mean {{{near[0]}}}?" if near else f"there are {', '.join(known)}"))
    try:
        fill(text, streamer="s", title="t", started_at=datetime(2026, 1, 1, tzinfo=UTC), file="f")
    except (ValueError, LookupError, AttributeError, OverflowError, MemoryError) as error:
        raise ValueError(f"cannot be filled in: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_check_placeholders)]


class Template(Section):
    """Metadata of a submission. Placeholders: {streamer} {title} {started_at:%Y-%m-%d} {part} {file}."""

    title: Pattern = "{streamer} {started_at:%Y-%m-%d} {title}"
    """Title, cut to the 80 characters Bilibili takes."""
    part_title: Pattern = "P{part} {started_at:%H:%M}"
    """Title of each part, cut to 80 characters."""
    desc: Pattern = ""
    """Description, at most 2000 characters."""
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=20)]], Field(min_length=1, max_length=10)] = [
        "直播录像"
    ]
    """1 to 10 tags of at most 20 characters."""
    tid: PositiveInt = 171
    """Zone (分区) id."""
    copyright: Literal[1, 2] = 1
    """1 own work (自制), 2 repost (转载), which needs source."""
    source: Annotated[Pattern, Field(max_length=200)] = ""
    """Where a repost comes from."""
    dynamic: Annotated[Pattern, Field(max_length=233)] = ""
    """Text for followers' feeds."""
    cover: FilePath | None = None
    """A picture to use for every submission; empty: a frame of the video."""
    no_reprint: bool = True
    """Forbid others to repost."""
    is_only_self: bool = False
    """Only you can see it."""
    extra_fields: dict[str, Any] = {}
    """Further fields of the submission, sent as they are."""


class Account(Section):
    """A Bilibili account that may submit."""

    cookies: FilePath
    """cookies.json as biliup writes it. Keep it at mode 0600. It may be made later: videos wait for it."""


class LiveConfig(Section):
    """How rooms are asked whether they are live."""

    check_interval: Annotated[Seconds, Field(ge=1)] = 60.0
    """Seconds between two looks at a room; each look is shifted by up to a fifth at random."""
    request_timeout_seconds: Seconds = 10.0
    """A site that does not answer in this time counts as unknown, never as offline."""
    offline_delay_seconds: SecondsOrZero = 120.0
    """Live again within this time: the same broadcast goes on."""
    quality: str = "best"
    """Quality asked of sites that streamlink reads: best, worst, 1080p60, …"""


class RecordConfig(Section):
    """How a stream becomes files."""

    split_size: Annotated[ByteSize, Field(ge=0)] = ByteSize(8 * 1024**3)
    """A new file from the next keyframe on at this size (for HLS: the next segment); 0: never."""
    split_seconds: SecondsOrZero = 0
    """The same by media time; 0: never."""
    connect_timeout_seconds: Seconds = 10.0
    """For each connection to the media server."""
    stall_seconds: Seconds = 15.0
    """No byte for this long: the connection is dead, connect again."""
    reconnect_seconds: Seconds = 20.0
    """Trying the same stream address again for this long in vain: ask the site for a new one."""
    sync_seconds: Seconds = 10.0
    """Media reaches the disk itself (fdatasync) at least this often."""
    orphan_seconds: Seconds = 300.0
    """A recorder goes on without a daemon for this long, then ends its file properly."""


class WatchConfig(Section):
    """How directories are watched, and when a path counts as settled."""

    quiet_seconds: Seconds = 5.0
    """Unchanged this long: settled."""
    limit_seconds: Seconds = 60.0
    """Changing all the while: report it this often anyway, as still growing."""
    queue_size: PositiveInt = 100
    """Events that may wait; more turn into a full scan."""
    observer: Literal["native", "polling"] = "native"
    """polling for network mounts (NFS, SMB), where the kernel reports nothing."""
    polling_seconds: Seconds = 15.0
    """How often the polling observer looks."""
    rescan_seconds: Seconds = 900.0
    """A full scan this often, whatever the events said."""
    ignore: list[str] = []
    """Further file or folder names (patterns such as *.bak) to ignore, beside the temporary names every tool uses."""


class EditConfig(Section):
    """Merging, checking and covers: everything ffmpeg does."""

    ffmpeg: FilePath | None = None
    """Path of the program; empty: the system's, else the one of imageio-ffmpeg."""
    deadline_seconds: Seconds = 7200.0
    """The longest one run of ffmpeg may take."""
    stall_seconds: Seconds = 60.0
    """An ffmpeg that makes no progress for this long is ended."""
    keep_segments: bool = False
    """true: keep the segments after their mp4 was checked."""
    workers: PositiveInt = 1
    """Merges at the same time."""


class PublishConfig(Section):
    """How Bilibili is talked to."""

    member_url: BaseUrl = "https://member.bilibili.com"
    """Creator centre: preupload, cover, submit, archives."""
    passport_url: BaseUrl = "https://passport.bilibili.com"
    """Login and tokens."""
    api_url: BaseUrl = "https://api.bilibili.com"
    """Account check."""
    submit: Literal["app", "web"] = "app"
    """Interface used to submit. app needs the access token in cookies.json, web only the cookies."""
    line: str = "auto"
    """Upload line: auto measures them, or a name such as bda2, tx, txa, bldsa."""
    parallel_parts: Annotated[PositiveInt, Field(le=16)] = 3
    """Parts of a file sent at the same time."""
    part_attempts: PositiveInt = 5
    """Tries for one part before the whole file waits."""
    timeout_seconds: Seconds = 60.0
    """For each request; a part gets four times as long."""
    attempts: PositiveInt = 8
    """Tries of one step before it is held for a person."""
    retry_seconds: Seconds = 30.0
    """Wait after the first failed try; doubles up to an hour."""
    submit_interval_seconds: SecondsOrZero = 60.0
    """Between two submissions of one account."""
    lookup_seconds: Seconds = 120.0
    """A submit without an answer is looked for in the account's list at once and again after this time; only when it
    is in neither is it sent once more."""
    review_seconds: Seconds = 60.0
    """How often a submission is looked at until Bilibili shows every part."""
    workers: PositiveInt = 1
    """Files uploaded at the same time."""


class ControlConfig(Section):
    """The HTTP interface."""

    enabled: bool = True
    """Answer on host and port."""
    host: str = "127.0.0.1"
    """Address to listen on. Loopback only, unless you know what you are doing."""
    port: Annotated[int, Field(ge=0, le=65535)] = 19159
    """Port to listen on; 0: any free one."""


class LogConfig(Section):
    """The log: stderr (the journal under systemd) and a file."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least that is written."""
    file: FilePath | None = Path("data/biliupd.log")
    """Empty: none."""
    rotate_size: Annotated[ByteSize, Field(ge=4096)] = ByteSize(10 * 1024**2)
    """A new file from this size on."""
    keep_files: PositiveInt = 5
    """Old ones to keep."""


def _section() -> Any:
    """A section that may be left out. Made anew for each file, because the paths in it are relative to that file."""
    return Field(default_factory=dict)


class Config(Section):
    """The whole file."""

    recordings: RecordingsConfig = _section()
    drop_folders: list[DropFolder] = []
    streamers: list[Streamer] = []
    templates: dict[str, Template] = {}
    accounts: dict[str, Account] = {}
    live: LiveConfig = _section()
    record: RecordConfig = _section()
    watch: WatchConfig = _section()
    edit: EditConfig = _section()
    publish: PublishConfig = _section()
    control: ControlConfig = _section()
    log: LogConfig = _section()

    def template(self, name: str) -> Template:
        """The template of that name; `default` exists even when the file does not write it."""
        return self.templates[name] if name in self.templates else Template()



def trusted_certificates() -> str:
    """The file or directory of certificates believed: the variables that requests and OpenSSL know, else certifi's."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        if os.environ.get(name):
            return os.environ[name]
    return certifi.where()


def load(path: Path, answers: Callable[[str], bool] = lambda url: True) -> Config:
    """Read and check the file; `answers` says whether any platform takes a room's address.

    Raises `ConfigError` with every problem at once.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        hint = "name the file with -c; config.example.yaml is a start"
        raise ConfigError([f"{path}: {error.strerror}"], hint=hint) from error
    return parse(raw, base=path.absolute().parent, name=str(path), answers=answers)


def parse(raw: bytes, *, base: Path, name: str = "config", answers: Callable[[str], bool] = lambda url: True) -> Config:
    """The same for text at hand; relative paths are relative to `base`."""
    content, lines, problems = _compose(raw, name)
    config: Config | None = None
    try:
        config = Config.model_validate(content if content is not None else {}, context={"base": base})
    except ValidationError as error:
        for item in error.errors():
            where, text = _explain(item, content)
            problems.append(_located(lines, where, text))
    problems += [_located(lines, where, text) for where, text in _contradictions(content, base, answers)]
    if problems or config is None:
        raise ConfigError(problems, hint=f"mend {name}; nothing of it is in force")
    return config


def _compose(raw: bytes, name: str) -> tuple[Any, dict[_Path, int], list[str]]:
    """The plain content of a YAML text, the line of each path in it, and what is wrong with its form."""
    if len(raw) > LARGEST_FILE_BYTES:
        raise ConfigError([f"{name}: larger than {LARGEST_FILE_BYTES} bytes"])
    try:
        node = yaml.compose(raw, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([f"{name} {_misread(raw, error)}"], hint=f"mend {name}; nothing of it is in force") from error
    except yaml.reader.ReaderError as error:
        line = raw[: error.position].count(b"\n") + 1
        raise ConfigError(
            [f"{name} (line {line}): not text: {error.reason}"], hint="save it as UTF-8, without control characters"
        ) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise ConfigError([f"{name}: not YAML: {error}"], hint="save it as UTF-8") from error
    except RecursionError as error:
        raise ConfigError([f"{name}: nested too deeply"]) from error
    lines: dict[_Path, int] = {}
    problems: list[str] = []
    constructor = yaml.SafeLoader("")

    def build(node: yaml.Node, path: _Path) -> Any:
        lines.setdefault(path, node.start_mark.line + 1)
        if len(lines) > LARGEST_NODE_COUNT or len(path) > 20:
            raise ConfigError([f"{name} (line {node.start_mark.line + 1}): too many values, or nested too deeply"])
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            problems.append(_located(lines, path, f"the tag {node.tag} has no meaning here"))
        if isinstance(node, yaml.MappingNode):
            content: dict[str, Any] = {}
            constructor.flatten_mapping(node)  # <<: *anchor
            for key_node, value_node in node.value:
                key = str(build_scalar(key_node))
                lines[*path, key] = key_node.start_mark.line + 1
                if key in content:
                    problems.append(_located(lines, (*path, key), "written twice"))
                content[key] = build(value_node, (*path, key))
            return content
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*path, n)) for n, item in enumerate(node.value)]
        return build_scalar(node)

    def build_scalar(node: yaml.Node) -> Any:
        try:
            return constructor.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
            problems.append(f"{name} (line {node.start_mark.line + 1}): {problem}")
            return None

    return (build(node, ()) if node is not None else None), lines, problems


def _misread(raw: bytes, error: yaml.MarkedYAMLError) -> str:
    """What the YAML parser stumbled over, with the remedy for what people really write."""
    at, began = error.problem_mark, error.context_mark
    number = at.line + 1 if at else 1
    text = f"(line {number}): not YAML: {error.problem}"
    if began and began.line + 1 != number and error.context:
        text += f", {error.context} that begins in line {began.line + 1}"
    if "'\\t'" in str(error.problem):
        return text + "; indent with spaces, not with tabs"
    lines = raw.decode("utf-8", "replace").splitlines()
    for n in (number, number - 1):
        if 0 < n <= len(lines) and "：" in lines[n - 1]:
            return text + f"; {_FULL_WIDTH} (line {n})"
    return text


def _contradictions(content: Any, base: Path, answers: Callable[[str], bool]) -> Iterator[tuple[_Path, str]]:
    """What no single value shows. Looks at the plain content, so that one bad value elsewhere hides none of it."""

    def entries(section: str) -> Iterator[tuple[_Path, dict[str, Any]]]:
        found = content.get(section) if isinstance(content, dict) else None
        items = enumerate(found) if isinstance(found, list) else found.items() if isinstance(found, dict) else ()
        yield from (((section, key), item) for key, item in items if isinstance(item, dict))

    names = {section: [str(path[-1]) for path, _ in entries(section)] for section in ("templates", "accounts")}
    for path, entry in (*entries("streamers"), *entries("drop_folders")):
        template, account = entry.get("template", "default"), entry.get("account")
        if isinstance(template, str) and template not in ["default", *names["templates"]]:
            yield (*path, "template"), f"there is no template {template!r}" + _near(template, names["templates"])
        if isinstance(account, str) and account not in names["accounts"]:
            yield (*path, "account"), f"there is no account {account!r}" + _near(account, names["accounts"])
    seen: dict[str, _Path] = {}
    for path, entry in entries("streamers"):
        name, url = entry.get("name"), entry.get("url")
        if isinstance(name, str) and (first := seen.setdefault(name.casefold(), path)) != path:
            yield (*path, "name"), f"{_dotted(first)} has this name already"
        if isinstance(url, str) and not answers(url):
            shown = re.sub(r"//[^/]*@", "//***@", url)
            yield (*path, "url"), (
                f"no platform answers for {shown!r}; an address is that of a room on a site that streamlink knows, or "
                "that of a stream, with https:// in front and .flv or .m3u8 at its end")
    recordings = content.get("recordings") if isinstance(content, dict) else None
    root = recordings.get("directory", "recordings") if isinstance(recordings, dict) else "recordings"
    watched: list[tuple[_Path, Any]] = [(("recordings", "directory"), root)]
    watched += [((*path, "directory"), entry.get("directory")) for path, entry in entries("drop_folders")]
    roots: list[tuple[_Path, Path]] = []
    for path, text in watched:
        try:
            directory = Path(os.path.normpath(_absolute(base, Path(text))))
        except (TypeError, ValueError):
            continue  # the model says so
        for other_path, other in roots:
            if directory.is_relative_to(other) or other.is_relative_to(directory):
                yield path, f"overlaps {_dotted(other_path)}: watched folders stay apart"
        roots.append((path, directory))
    for path, entry in entries("templates"):
        if entry.get("copyright") == 2 and not entry.get("source"):
            yield (*path, "copyright"), "2 (repost) needs source"


def _explain(item: typing.Mapping[str, Any], content: Any) -> tuple[_Path, str]:
    where: _Path = tuple(item["loc"])
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return where, "there is no such setting" + _near(str(where[-1]), _fields_at(where[:-1]))
    if kind == "missing":
        return where, "must be given"
    if given is None and kind.endswith("_type"):
        return where, "is empty: give it a value, or leave it out"
    if kind == "model_type":
        wide = f"; {_FULL_WIDTH}" if "：" in str(given) else ""
        return where, f"is not of the right form: {given!r}" + wide
    if kind == "string_type" and isinstance(given, int | float | date):
        return where, f"is read as something else than text ({given}): put it into quotes"
    text = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    shown = "" if isinstance(given, dict | list | BaseModel) else f", not {given!r}"
    return where, text[:1].lower() + text[1:] + ("" if kind == "value_error" else shown)


def _fields_at(path: _Path) -> list[str]:
    """Names of the settings at a place, for "did you mean"."""
    model: Any = Config
    for step in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(step)].annotation if str(step) in model.model_fields else None
        elif model is not None:  # list[X] or dict[str, X]: the step is an index or a name of the user's
            model = typing.get_args(model)[-1] if typing.get_args(model) else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _near(word: str, known: typing.Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    if near:
        return f": did you mean {near[0]}?"
    return f"; there are {', '.join(known)}" if known else ""


def _dotted(path: _Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the file"


def _located(lines: dict[_Path, int], path: _Path, text: str) -> str:
    known = path
    while known and known not in lines:
        known = known[:-1]
    return f"{_dotted(path)} (line {lines.get(known, 1)}): {text}"

"""config.yaml → frozen models: every key, every default and every check is on this page.

`load` returns a `Config` or raises one `ConfigError` that names everything wrong with its path and line. A room gets
its own section; nobody reads the file later, nor the environment. Relative paths are relative to the file.
"""

import contextlib
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal

import certifi
from pydantic import (
    AfterValidator,
    ByteSize,
    Field,
    PositiveInt,
)

from biliupd.errors import ConfigError
from biliupd.foreign import ignored
from biliupd.template import LEAST_DTIME as LEAST_DTIME
from biliupd.template import MOST_DTIME as MOST_DTIME
from biliupd.template import Sidecar as Sidecar
from biliupd.template import Template as Template
from biliupd.template import fill as fill
from biliupd.template import scheduled as scheduled
from biliupd.template import template_contradictions as template_contradictions
from biliupd.yaml_file import FilePath, KeyPath, Section, absolute, dotted, near, read


def _web_address(text: str) -> str:
    if not text.startswith(("http://", "https://")) or len(text.split("//", 1)[1]) == 0:
        raise ValueError("an address starts with http:// or https://")
    return text.rstrip("/")


def _time_of_day(text: str) -> str:
    try:
        return time.fromisoformat(text.zfill(5)).strftime("%H:%M")
    except ValueError:
        raise ValueError('a time of the day is written "18:00"') from None


def _folder_name(name: str) -> str:
    if "/" in name or name[0] == "." or not name.isprintable() or name != name.strip() or len(name.encode()) > 200:
        raise ValueError("a folder gets this name: no slash, no leading dot, no line break, at most 200 bytes")
    return name


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("an address or a network is written 192.168.1.2 or 10.0.0.0/8") from None


LONGEST_SECONDS = 366 * 86400.0  # beyond lie numbers that clocks, timers and sockets do not take
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
SecondsOrZero = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]
BaseUrl = Annotated[str, AfterValidator(_web_address)]
Network = Annotated[str, AfterValidator(_network)]


class RecordingsConfig(Section):
    """Where media and biliupd's own state live."""

    directory: FilePath = Path("recordings")
    """Recorded broadcasts: one folder per streamer, in it one per broadcast."""
    data_directory: FilePath = Path("data")
    """The catalog (SQLite), covers, the lock of the running daemon. One daemon per data directory."""
    backups: Annotated[int, Field(ge=0, le=1000)] = 7
    """Daily copies of the catalog to keep in data_directory/backups; 0: none."""


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
    folders: Literal["parts", "files"] = "parts"
    """What a folder in it becomes: one submission whose parts are its files, or one for each file."""
    folder_quiet_seconds: Seconds = 60.0
    """A folder is complete when nothing was added to it for this long."""
    duplicates: Literal["ignore", "publish"] = "ignore"
    """What becomes of a file with the same content as one that is known already."""


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
    submit_at: Literal["end", "first_part"] = "end"
    """When a broadcast is submitted: when it is over, or with its first part, to which the others are appended."""
    priority: int = 0
    """Higher goes first when more are live than record.most allows, or when space is short."""
    template: str = "default"
    """Name of the template that makes the submission's metadata."""
    account: str | None = None
    """Name of the account that submits; empty: the first one."""


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
    split_on_title: bool = False
    """Another title begins a new file."""
    split_gap_seconds: SecondsOrZero = 60.0
    """A new file after more than this is missing; 0: the same file goes on whatever is missing."""
    fragment_seconds: SecondsOrZero = 5.0
    """A shorter file is kept and marked as a fragment, and not published unasked; 0: every file counts."""
    most: Annotated[int, Field(ge=0)] = 0
    """Recordings at the same time; further streamers wait by their priority. 0: no limit."""
    least_free: ByteSize = ByteSize(512 * 1024**2)
    """Recordings end cleanly before less than this is free; the lowest priority first."""
    forecast_hours: SecondsOrZero = 3.0
    """Warn when what is being recorded will fill the disk within this time; 0: never."""
    max_height: Annotated[int, Field(ge=0)] = 0
    """Of an HLS stream's variants, take none with more lines than this (1080, 720); 0: the largest there is."""
    max_bitrate: Annotated[int, Field(ge=0)] = 0
    """The same by bits a second; 0: no limit."""
    codecs: Annotated[list[Literal["avc", "hevc", "av1"]], Field(min_length=1)] = ["avc", "hevc", "av1"]
    """Video codecs to take, the most wanted first. It decides between variants of the same size."""
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
    observer: Literal["auto", "native", "polling"] = "auto"
    """Whether the kernel reports changes. auto: yes, but NFS, SMB, FUSE and the like, where it does not, are polled."""
    polling_seconds: Seconds = 15.0
    """How often a polled folder is looked through."""
    network_quiet_seconds: Seconds = 30.0
    """What quiet_seconds is for a polled folder: others write to it, and their caches lag."""
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
    missing_segments: Literal["hold", "merge"] = "hold"
    """What becomes of a playlist whose segments stay missing or damaged: hold it for a person, or merge the rest and
    note the gap."""
    segment_wait_seconds: SecondsOrZero = 3600.0
    """How long a missing segment is waited for before that."""
    workers: PositiveInt = 1
    """Merges at the same time."""


class BandwidthWindow(Section):
    """A limit for a time of the day, which may go past midnight."""

    start: Annotated[str, AfterValidator(_time_of_day)]
    """From this time on, such as "18:00"."""
    end: Annotated[str, AfterValidator(_time_of_day)]
    """Up to this time."""
    bandwidth: ByteSize
    """Bytes a second; 0: no limit."""


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
    """Parts of a file sent at the same time; fewer when Bilibili says so."""
    bandwidth: ByteSize = ByteSize(0)
    """Bytes a second for all uploads together; 0: no limit."""
    bandwidth_by_time: list[BandwidthWindow] = []
    """Other limits at certain times of the day."""
    part_attempts: PositiveInt = 5
    """Tries for one part before the whole file waits."""
    timeout_seconds: Seconds = 60.0
    """For each request; a part gets four times as long."""
    attempts: PositiveInt = 30
    """Tries of one step before it is held for a person: about a day. A network that is down does not count."""
    retry_seconds: Seconds = 30.0
    """Wait after the first failed try; doubles up to an hour."""
    submit_interval_seconds: SecondsOrZero = 60.0
    """Between two submissions of one account."""
    submits_per_hour: PositiveInt = 5
    """More than this many submissions of one account wait; Bilibili locks accounts that submit too often."""
    submits_per_day: PositiveInt = 30
    """The same for 24 hours."""
    parts_per_submission: Annotated[PositiveInt, Field(le=100)] = 100
    """More parts go into a further submission. Bilibili takes 100, in some zones 50."""
    lookup_seconds: Seconds = 120.0
    """A submit without an answer is looked for in the account's list at once and again after this time; only when it
    is in neither is it sent once more."""
    review_seconds: Seconds = 60.0
    """How often a submission is looked at until Bilibili shows every part."""
    workers: PositiveInt = 1
    """Files uploaded at the same time."""

    def bandwidth_at(self, at: time) -> int:
        """Bytes a second at a time of the day; 0: no limit. Of windows that overlap the first one counts."""
        now = at.strftime("%H:%M")
        for window in self.bandwidth_by_time:
            inside = window.start <= now < window.end
            if inside or (window.end <= window.start and (now >= window.start or now < window.end)):
                return window.bandwidth
        return self.bandwidth


class RetentionConfig(Section):
    """What becomes of a file once Bilibili shows it. Nothing else is ever deleted; `biliupd pin` keeps one for good."""

    after_publishing: Literal["keep", "delete", "move"] = "keep"
    """At once: keep it, delete it, or move it to move_to."""
    move_to: FilePath | None = None
    """Folder for what is moved, outside the watched ones."""
    days: Annotated[float, Field(ge=0, le=36500)] = 0
    """Delete published files that are older; 0: never."""
    size: ByteSize = ByteSize(0)
    """Delete the oldest published files when all published ones together are larger; 0: never."""
    count: Annotated[int, Field(ge=0)] = 0
    """The same by their number; 0: never."""


class ControlConfig(Section):
    """The HTTP interface."""

    enabled: bool = True
    """Answer on host and port."""
    host: str = "127.0.0.1"
    """Address to listen on. Others than loopback are refused until there is a user (biliupd passwd)."""
    port: Annotated[int, Field(ge=0, le=65535)] = 19159
    """Port to listen on; 0: any free one."""
    names: list[str] = []
    """Names of this machine under which the page may be asked for, beside its numbers and localhost."""
    certificate: FilePath | None = None
    """File with the TLS certificate (PEM, with its chain): then it answers https. Goes with key."""
    key: FilePath | None = None
    """File with its private key."""
    trusted_proxies: list[Network] = []
    """Addresses or networks (10.0.0.0/8) of reverse proxies whose X-Forwarded-For and -Proto are believed."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


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
    retention: RetentionConfig = _section()
    control: ControlConfig = _section()
    log: LogConfig = _section()

    def template(self, name: str) -> Template:
        """The template of that name; `default` exists even when the file does not write it."""
        return self.templates[name] if name in self.templates else Template()


def not_looked_at(name: str, ignore: Sequence[str] = ()) -> str:
    """Why nothing would be found in a streamer's folder of this name, and what to do; empty: it is looked at.

    `ignore` is that of WatchConfig. The names of watched directories themselves may be any.
    """
    if ignored(name):
        return f"a folder {name!r} is not looked at, as half-written and foreign files are called so: take another name"
    if ignored(name, ignore):
        return f"a folder {name!r} is not looked at, as watch.ignore names it: take another name, or another pattern"
    return ""


def without_password(url: str) -> str:
    """An address as people may see it: user and password left out."""
    return re.sub(r"//[^/?#@\s]*@", "//", url)


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
    return read(
        Config, raw, name=name, context={"base": base},
        contradictions=lambda content: _contradictions(content, base, answers),
    )  # fmt: skip


def _contradictions(content: Any, base: Path, answers: Callable[[str], bool]) -> Iterator[tuple[KeyPath, str]]:
    """What no single value shows. Looks at the plain content, so that one bad value elsewhere hides none of it."""

    def entries(section: str) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
        found = content.get(section) if isinstance(content, dict) else None
        items = enumerate(found) if isinstance(found, list) else found.items() if isinstance(found, dict) else ()
        yield from (((section, key), item) for key, item in items if isinstance(item, dict))

    names = {section: [str(path[-1]) for path, _ in entries(section)] for section in ("templates", "accounts")}
    for path, entry in (*entries("streamers"), *entries("drop_folders")):
        template, account = entry.get("template", "default"), entry.get("account")
        if isinstance(template, str) and template not in ["default", *names["templates"]]:
            yield (*path, "template"), f"there is no template {template!r}" + near(template, names["templates"])
        if isinstance(account, str) and account not in names["accounts"]:
            yield (*path, "account"), f"there is no account {account!r}" + near(account, names["accounts"])
    watch = content.get("watch") if isinstance(content, dict) else None
    patterns = watch.get("ignore") if isinstance(watch, dict) else None
    ignore = [one for one in patterns if isinstance(one, str)] if isinstance(patterns, list) else []
    seen: dict[str, KeyPath] = {}
    for path, entry in entries("streamers"):
        name, url = entry.get("name"), entry.get("url")
        if isinstance(name, str) and name[:1] != "." and (why := not_looked_at(name, ignore)):
            yield (*path, "name"), why  # of a leading dot its model says so
        if isinstance(name, str) and (first := seen.setdefault(name.casefold(), path)) != path:
            yield (*path, "name"), f"{dotted(first)} has this name already"
        if isinstance(url, str) and not answers(url):
            shown = without_password(url)
            yield (*path, "url"), (
                f"no platform answers for {shown!r}; an address is that of a room on a site that streamlink knows, or "
                "that of a stream, with https:// in front and .flv or .m3u8 at its end")
    recordings = content.get("recordings") if isinstance(content, dict) else None
    root = recordings.get("directory", "recordings") if isinstance(recordings, dict) else "recordings"
    watched: list[tuple[KeyPath, Any]] = [(("recordings", "directory"), root)]
    watched += [((*path, "directory"), entry.get("directory")) for path, entry in entries("drop_folders")]
    roots: list[tuple[KeyPath, Path]] = []
    for path, text in watched:
        try:
            directory = Path(os.path.normpath(absolute(base, Path(text))))
        except (TypeError, ValueError):
            continue  # the model says so
        for other_path, other in roots:
            if directory.is_relative_to(other) or other.is_relative_to(directory):
                yield path, f"overlaps {dotted(other_path)}: watched folders stay apart"
        roots.append((path, directory))
    for path, entry in entries("templates"):
        yield from ((path + below, text) for below, text in template_contradictions(entry))
    control = content.get("control") if isinstance(content, dict) else None
    if isinstance(control, dict) and bool(control.get("certificate")) != bool(control.get("key")):
        yield ("control", "key" if control.get("key") else "certificate"), "certificate and key go together"
    retention = content.get("retention") if isinstance(content, dict) else None
    if isinstance(retention, dict):
        yield from _retention_contradictions(retention, base, [root for _, root in roots])


def _retention_contradictions(entry: dict[str, Any], base: Path, roots: list[Path]) -> Iterator[tuple[KeyPath, str]]:
    path, target = ("retention", "move_to"), entry.get("move_to")
    if entry.get("after_publishing") == "move" and not target:
        yield path, "must be given when after_publishing is move"
    if isinstance(target, str):
        with contextlib.suppress(ValueError):  # the model says so
            directory = Path(os.path.normpath(absolute(base, Path(target))))
            if any(directory.is_relative_to(root) or root.is_relative_to(directory) for root in roots):
                yield path, "lies in a watched folder: what is moved there would be published again"

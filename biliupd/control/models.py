"""What the API takes and answers: every shape, once (those of people: identities.py). OpenAPI, the websocket and the
dashboard all go by it.

Moments are ISO 8601 in UTC, durations seconds, sizes bytes, ids those of the catalog. Paths are shown as people read
them (bytes that are no UTF-8 are guessed or replaced), so they identify nothing.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from biliupd.catalog.states import Stage, State
from biliupd.errors import BiliupdError

T = TypeVar("T")

Mode = Literal["on", "skipped", "paused"]
"""on: recorded when live; skipped: not before it goes live anew; paused: neither looked at nor recorded."""
Topic = Literal["status", "streamers", "tasks", "videos", "submissions", "accounts", "log"]
TOPICS: tuple[Topic, ...] = ("status", "streamers", "tasks", "videos", "submissions", "accounts", "log")

Plain = StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", strip_whitespace=True)
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Limit = Annotated[int, Field(ge=1, le=500)]
Offset = Annotated[int, Field(ge=0, le=10**9)]


class Given(BaseModel):
    """A request's body: a field it does not know is refused."""

    model_config = ConfigDict(extra="forbid")


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where: body.url, query.limit, path.id", examples=["body.url"])
    message: str


class Problem(BaseModel):
    """RFC 9457, as application/problem+json."""

    type: str = Field("about:blank", description="What kind of problem; /api/problems#NAME")
    title: str
    status: int
    detail: str = ""
    hint: str = Field("", description="What to do about it")
    errors: list[FieldProblem] = []


class Page(BaseModel, Generic[T]):
    """A piece of a longer list."""

    items: list[T]
    total: int = Field(description="Length of the whole list")
    limit: int
    offset: int


class Health(BaseModel):
    """HTTP 503 when `ok` is false. What is wrong is told only to whoever is logged in."""

    ok: bool
    version: str
    trouble: list[str] = []


# -- streamers and their recordings


class Figures(BaseModel):
    """Sums over a broadcast; of the last half minute: `bitrate` (bits a second) and `speed` (media per real time)."""

    bytes: int = 0
    media_seconds: float = 0.0
    live_seconds: float = 0.0
    paused_seconds: float = 0.0
    empty_seconds: float = 0.0
    lost_seconds: float = 0.0
    gaps: int = 0
    files: int = 0
    reconnects: int = 0
    bitrate: float = 0.0
    speed: float = 0.0


class Task(BaseModel):
    """One run of a recorder."""

    id: str
    streamer_id: int
    streamer: str
    broadcast_id: str
    title: str
    pid: int
    status: Literal["recording", "ended"]
    reason: str = Field(description="Why it ended: over, stopped, needs_url, no_space, crashed, …")
    started_at: str
    stopped_at: str | None
    figures: Figures | None = Field(None, description="Of its broadcast, while it runs")


class TaskStatus(BaseModel):
    """A task with the bitrates of the last minutes, oldest first, one for each `sample_seconds`."""

    task: Task
    bitrates: list[float]
    sample_seconds: float


class Streamer(BaseModel):
    id: int
    name: str
    url: str
    platform: str
    source: Literal["yaml", "api"]
    origin: str = Field(description="Of one from the YAML: file and line", examples=["config.yaml, line 12"])
    mode: Mode
    status: str = Field(description="live, offline, restricted or unknown")
    status_reason: str
    check_interval: float
    auto_upload: bool
    submit_at: Literal["end", "first_part"]
    priority: int
    template: str
    account: str | None
    created_at: str
    updated_at: str
    task: Task | None = Field(None, description="The recorder that runs")
    waiting: bool = Field(False, description="Live, and waits for a place or for space")


class NewStreamer(Given):
    """`name` may be left out: then the address gives it. Paths and hooks cannot be set over HTTP."""

    url: Annotated[str, Plain, Field(min_length=1, max_length=2000, examples=["https://www.twitch.tv/example"])]
    name: str | None = Field(None, min_length=1, max_length=80, examples=["example"])
    check_interval: float | None = Field(None, ge=1, le=86400, description="Empty: live.check_interval")
    auto_upload: bool = True
    submit_at: Literal["end", "first_part"] = "end"
    priority: int = Field(0, ge=-1000, le=1000)
    template: str = Field("default", max_length=200)
    account: str | None = Field(None, max_length=200)


class StreamerChange(Given):
    """What is left out stays. The name stays always: it names the folder."""

    url: Annotated[str, Plain, Field(min_length=1, max_length=2000)] | None = None
    check_interval: float | None = Field(None, ge=1, le=86400)
    auto_upload: bool | None = None
    submit_at: Literal["end", "first_part"] | None = None
    priority: int | None = Field(None, ge=-1000, le=1000)
    template: str | None = Field(None, max_length=200)
    account: str | None = Field(None, max_length=200)


class Acted(BaseModel):
    """What came of a start, a stop or a pause."""

    streamer: Streamer
    task: Task | None = Field(description="The recorder that runs now, or the one that was ended")
    detail: str = Field(description="What happens next", examples=["offline: it is recorded when it goes live"])


# -- the library


class Broadcast(BaseModel):
    """One show. `share` of it is recorded (0 to 1)."""

    id: str
    streamer: str
    title: str
    directory: str
    started_at: str
    ended_at: str | None
    first_media_at: str | None
    last_media_at: str | None
    live_seconds: float
    media_seconds: float
    lost_seconds: float
    gaps: int
    share: float
    files: int


class LedgerRow(BaseModel):
    at: str
    cause: str = Field(examples=["cut", "stall", "no-space", "fragment"])
    loss: bool = Field(description="Whether something is missing there")
    file: str
    media_seconds_at: float
    seconds: float
    detail: str


class Ledger(BaseModel):
    broadcast: Broadcast
    rows: list[LedgerRow]


class Upload(BaseModel):
    bytes_total: int
    bytes_sent: int
    bytes_per_second: float
    eta_seconds: float | None
    line: str | None
    started_at: str
    finished_at: str | None


class Video(BaseModel):
    id: int
    title: str
    streamer: str | None
    streamer_id: int | None
    broadcast_id: str | None
    submission_id: int | None
    root: str
    path: str = Field(description="Below the root")
    file_size: int
    duration: float | None
    width: int | None
    height: int | None
    video_codec: str
    audio_codec: str
    bitrate: int | None
    state: State
    since: str
    waits_for: str | None
    last_error: str | None
    attempts: int
    retry_at: str | None
    bvid: str | None
    pinned: bool
    removed_at: str | None
    thumbnail: str | None = Field(description="Address of a small picture; null: there is none (yet)")
    playable: bool = Field(description="Whether GET play can show it")
    gaps: list[Any] = Field(description="What its merge had to leave out")
    same_as: int | None
    uploaded_at: str | None
    recorded_at: str = Field(description="When its file was last written")
    created_at: str = Field(description="When it came into the library; after a rebuild, that is then")
    upload: Upload | None = Field(None, description="How far its upload is, or how it went")


class Folder(BaseModel):
    name: str
    path: str
    videos: int = Field(description="In it and below it")


class Tree(BaseModel):
    """One level of the library. Without a root: the watched directories as folders, their `path` being the root."""

    root: str
    folder: str
    folders: list[Folder]
    videos: list[Video] = Field(description="A page of those that lie in the folder itself, by name")
    total: int = Field(description="How many lie in the folder itself")
    limit: int
    offset: int


class StreamerSums(BaseModel):
    """What there is of one streamer; an empty name: of all that was dropped."""

    streamer: str
    videos: int
    published: int
    broadcasts: int
    bytes: int
    seconds: float
    latest_at: str


class Pin(Given):
    pinned: bool


# -- publishing


class Submission(BaseModel):
    id: int
    title: str
    key: str
    state: Stage
    since: str
    account: str | None
    broadcast_id: str | None
    streamer: str | None
    aid: int | None
    bvid: str | None
    review: str = Field(description="What Bilibili's review says")
    review_state: int | None
    waits_for: str | None
    last_error: str | None
    attempts: int
    retry_at: str | None
    parts: int
    parts_uploaded: int
    bytes_total: int
    bytes_sent: int
    created_at: str


class SubmissionDetail(Submission):
    videos: list[Video] = Field(description="Its parts, in their order")


class Preview(BaseModel):
    """Exactly what would be sent to Bilibili. `waits_for`: why nothing is sent now; empty: nothing is in the way."""

    account: str
    waits_for: str
    bvid: str
    files: list[str]
    cover: str
    body: dict[str, Any]


class Account(BaseModel):
    name: str
    state: Literal["ok", "waiting", "cooling", "unknown"]
    reason: str
    hint: str
    retry_at: str | None
    mid: int | None
    uname: str
    checked_at: str | None
    expires_at: str | None
    updated_at: str | None


class QrCode(BaseModel):
    """A QR code for Bilibili's app. `image` is a data: address of an SVG."""

    id: str
    account: str
    url: str
    image: str
    state: Literal["waiting", "confirmed", "expired"]
    expires_at: str
    detail: str = ""


# -- the daemon


class Notice(BaseModel):
    """Something the operator should know; `info` when nothing is wrong."""

    key: str
    text: str
    since: str
    info: bool


class Disk(BaseModel):
    directory: str
    free: int
    total: int
    least_free: int
    seconds_left: float | None = Field(description="Until recordings fill it; null: nothing is recorded")
    warning: str


class Waiting(BaseModel):
    """Live, and waits to be recorded; the first first."""

    streamer: str
    priority: int
    since: str


class Status(BaseModel):
    version: str
    started_at: str
    ok: bool
    trouble: list[str]
    notices: list[Notice]
    disk: Disk | None
    waiting: list[Waiting]
    streamers: dict[str, int] = Field(description="Number by live status")
    recording: int
    videos: dict[str, int] = Field(description="Number by state")
    submissions: dict[str, int] = Field(description="Number by state")
    held: int = Field(description="Videos and submissions that wait for a person")


class Root(BaseModel):
    path: str
    trouble: str
    observed: str


class Watcher(BaseModel):
    watching: bool
    suspended: bool
    roots: list[Root]
    queued: int
    settling: int
    waits: dict[str, str] = Field(description="Files that are not taken yet, and why; at most 100")
    last_scan_at: str | None
    last_scan_seconds: float
    last_scan_entries: int
    rescans: dict[str, int]


class Sync(Given):
    """incremental: take what is new, changed or gone. full: also read every broadcast.json and sidecar again."""

    mode: Literal["incremental", "full"] = "incremental"


class LogLine(BaseModel):
    seq: int
    at: str
    level: str
    text: str
    streamer: str | None = None
    video: int | None = None
    submission: int | None = None


class Setting(BaseModel):
    """One value in force. `line`: where the file sets it; null: it is the default."""

    key: str = Field(examples=["record.split_size"])
    value: Any
    source: Literal["file", "default", "api"]
    line: int | None
    description: str


class Settings(BaseModel):
    file: str
    refused: list[str] = Field(description="Why the file as it is now is not in force; empty: it is")
    settings: list[Setting]


class Refusal(BiliupdError):
    """A request that cannot be done, with its HTTP status. `field` names what is wrong with it, if one thing is."""

    def __init__(self, status: int, message: str, *, hint: str = "", field: str = "", kind: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.field, self.kind = status, field, kind

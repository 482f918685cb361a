"""What the configuration wants done with a video, and the words its submission gets.

Used by the pipeline's workers and by `biliupd preview`. Reads the catalog and the sidecars of dropped files; decides,
and does nothing.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from biliupd.catalog import records, videos
from biliupd.catalog.database import stamp
from biliupd.catalog.paths import readable
from biliupd.catalog.videos import Video
from biliupd.config import Config, DropFolder, Sidecar, Streamer, Template, fill, template_contradictions
from biliupd.errors import ConfigError
from biliupd.publish.studio import MOST_TITLE_CHARACTERS, Part, cut, studio, title_of
from biliupd.yaml_file import LARGEST_FILE_BYTES, read

NEVER = "9999"  #: sorts behind every moment: due again only when the settings change
SIDECAR_SECONDS = 30.0  #: a sidecar that cannot be used is looked at again this often
SIDECAR_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Order:
    """Publish it so. `streamer` and `url` are empty for a dropped file, `folder` for all but a dropped folder's files.

    `early`: its first part is enough to submit. `quiet_seconds`: the folder is complete after so long without news.
    """

    template: Template
    account: str
    streamer: str = ""
    url: str = ""
    folder: str = ""
    early: bool = False
    quiet_seconds: float = 0.0


@dataclass(frozen=True)
class Wait:
    """Nothing is done with it for now; `until` is a moment of the catalog. `off`: nobody wants it published."""

    why: str
    until: str = NEVER
    off: bool = False


@dataclass(frozen=True)
class Show:
    """What the placeholders of a template speak of."""

    title: str
    began: datetime

    def fill(self, text: str, order: Order, part: int = 1, file: str = "") -> str:
        """The text with its placeholders filled in: no double space, and no control character out of a file's name."""
        done = fill(text, streamer=order.streamer, title=self.title, started_at=self.began, part=part, file=file,
                    url=order.url)  # fmt: skip
        lines = (" ".join(line.split()) for line in done.splitlines())
        return "\n".join("".join(c for c in line if c.isprintable()) for line in lines).strip()

    def title_of(self, order: Order, file: str = "", most: int = MOST_TITLE_CHARACTERS) -> str:
        """The submission's title: of one that is too long, the show's own title is shortened and the rest stays."""
        done = self.fill(order.template.title, order, file=file)
        over = len(done) - most
        if over > 0 and len(self.title) > over + 1:
            shorter = Show(cut(self.title, len(self.title) - over), self.began)
            done = shorter.fill(order.template.title, order, file=file)
        return cut(title_of(done), most)


def order_for(config: Config, db: Database, video: Video) -> Order | Wait:
    """What to do with a ready video, or why nothing is done with it for now. That a person asked for it counts more
    than what the settings say."""
    user, asked = _user_of(config, db, video), videos.is_asked(db, video)
    if user is None:
        if asked and config.accounts:
            broadcast = records.get_broadcast(db, video["broadcast_id"])
            name = broadcast["streamer"] if broadcast else ""
            return Order(config.template("default"), next(iter(config.accounts)), name)
        return Wait("not published: it belongs to no streamer and no drop folder of the configuration", off=True)
    if isinstance(user, Streamer):
        if not user.auto_upload and not asked:
            return Wait(f"not published: auto_upload is off for {user.name}", off=True)
        if not config.accounts:
            return _NO_ACCOUNT
        return Order(
            config.template(user.template), user.account or next(iter(config.accounts)), user.name, user.url,
            early=user.submit_at == "first_part",
        )  # fmt: skip
    return order_of_dropped(config, user, Path(video["file_path"]), asked=asked)


def is_wanted(config: Config, db: Database, video: Video) -> bool:
    """Whether the settings and its sidecar want it published, now or later."""
    order = order_for(config, db, video)
    return not (isinstance(order, Wait) and order.off)


_NO_ACCOUNT = Wait("waits for an account: there is none in the configuration (accounts:)")


def order_of_dropped(config: Config, user: DropFolder, path: Path, *, asked: bool = False) -> Order | Wait:
    """The same for a file below a drop folder, whether the catalog knows it or not."""
    folder = folder_of(user, path)
    template = config.template(user.template)
    wanted = Sidecar.model_validate(template.model_dump())
    try:
        if found := sidecar_of(Path(folder) if folder else path):
            wanted = read_sidecar(found, template, Path(user.directory))
    except ConfigError as error:
        until = stamp(datetime.now(UTC) + timedelta(seconds=SIDECAR_SECONDS))
        return Wait("waits for its sidecar to be mended: " + "; ".join(error.problems), until)
    if not (user.upload and wanted.upload) and not asked:
        return Wait("not published: upload is off for " + ("it" if user.upload else "this drop folder"), off=True)
    if not config.accounts:
        return _NO_ACCOUNT
    if wanted.account and wanted.account not in config.accounts:
        return Wait(f"waits: its sidecar names the account {wanted.account!r}, which is not in the configuration")
    account = wanted.account or user.account or next(iter(config.accounts))
    return Order(wanted, account, folder=folder, quiet_seconds=user.folder_quiet_seconds)


def folder_of(user: DropFolder, path: Path) -> str:
    """The folder right below the drop folder whose parts are submitted together; empty for a file of its own."""
    root = os.path.abspath(user.directory)
    below = os.path.relpath(path, root).split(os.sep)
    return os.path.join(root, below[0]) if user.folders == "parts" and len(below) > 1 else ""


def sidecar_of(path: Path) -> Path | None:
    """NAME.yaml or NAME.mp4.yaml beside a file NAME.mp4 or a folder NAME; None when there is none."""
    names = dict.fromkeys((path.name, path.stem) if not path.is_dir() else (path.name,))
    found = (path.with_name(name + ending) for name in names for ending in SIDECAR_ENDINGS)
    return next((one for one in found if os.path.lexists(one)), None)


def title_and_sidecar(config: Config, video: Video, path: Path) -> tuple[str, str]:
    """What a video that lies at `path` is called in the library, and which sidecar says so: see `stamp_of`."""
    if video["broadcast_id"]:
        return str(video["title"]), ""
    name = readable(path.stem)
    user = _drop_folder_of(config, video)
    if user is None:
        return name, ""
    folder = folder_of(user, path)
    sidecar = sidecar_of(Path(folder) if folder else path)
    if sidecar is None or folder:
        return name, stamp_of(sidecar)
    template, mark = config.template(user.template), stamp_of(sidecar)
    try:
        wanted = read_sidecar(sidecar, template, Path(user.directory))
    except ConfigError:
        return name, mark
    if wanted.title == template.title:
        return name, mark
    order = Order(wanted, "")
    return show_of(None, {**video, "file_path": str(path)}, order).title_of(order, name) or name, mark


def stamp_of(path: Path | None) -> str:
    """By what a small file is known again without reading it; empty when there is none."""
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return ""
    return f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}" if status else ""


def wants_copies(config: Config, video: Video) -> bool:
    """Whether it lies in a drop folder whose files are published although another video has the same content."""
    user = _drop_folder_of(config, video)
    return user is not None and user.duplicates == "publish"


def read_sidecar(path: Path, template: Template, root: Path) -> Sidecar:
    """A sidecar laid over a template. Raises ConfigError with every problem in it.

    Whoever may write to a drop folder is not trusted with more: it and its cover have to lie in that folder.
    """
    if not lies_in(path, root):
        raise ConfigError([f"{path.name}: leads out of the drop folder"])
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError([f"{path.name}: is not a file"])
            raw = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path.name}: {error.strerror}"]) from error

    def contradictions(content: Any) -> Any:
        if isinstance(content, dict):
            yield from template_contradictions({**template.model_dump(), **content})

    found = read(Sidecar, raw, name=path.name, context={"base": path.parent}, under=template.model_dump(),
                 contradictions=contradictions)  # fmt: skip
    own = found.cover not in ("frame", "live", template.cover)
    if own and not lies_in(Path(found.cover), root):
        raise ConfigError([f"{path.name}: cover: must lie in the drop folder"])
    return found


def lies_in(path: Path, root: Path) -> bool:
    """Whether a path is that of something in a directory, wherever symbolic links lead."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _user_of(config: Config, db: Database, video: Video) -> Streamer | DropFolder | None:
    if video["broadcast_id"]:
        broadcast = records.get_broadcast(db, video["broadcast_id"])
        name = broadcast["streamer"] if broadcast else None
        return next((streamer for streamer in config.streamers if streamer.name == name), None)
    return _drop_folder_of(config, video)


def _drop_folder_of(config: Config, video: Video) -> DropFolder | None:
    root = video["root"]
    return next((folder for folder in config.drop_folders if os.path.abspath(folder.directory) == root), None)


def show_of(db: Database | None, video: Video, order: Order) -> Show:
    """The broadcast a video belongs to, or the dropped file or folder itself."""
    broadcast = records.get_broadcast(db, video["broadcast_id"]) if db and video["broadcast_id"] else None
    if broadcast:  # one that somebody wrote by hand may not say when it began
        began = datetime.fromisoformat(broadcast["started_at"] or broadcast["created_at"])
        return Show(broadcast["title"], began)
    title = os.path.basename(order.folder) if order.folder else Path(video["file_path"]).stem
    return Show(readable(title), datetime.fromtimestamp(video["mtime_ns"] / 1e9, UTC))


def parts_of(order: Order, show: Show, videos: Sequence[Video], *, offset: int = 0) -> list[Part]:
    """The parts named in their order; `offset` parts come before them in an earlier submission."""
    found = []
    for n, video in enumerate(videos, offset + 1):
        file = readable(Path(video["file_path"]).stem)
        title, desc = (
            show.fill(text, order, n, file) for text in (order.template.part_title, order.template.part_desc)
        )
        found.append(Part(filename=video["filename"], title=title, cid=video["cid"], desc=desc))
    return found


def body_of(
    order: Order, show: Show, videos: Sequence[Video], cover_url: str, *, number: int = 1, offset: int = 0,
    before: str = "",
) -> dict[str, Any]:  # fmt: skip
    """What is sent to Bilibili. Of several submissions of one show, each after the first has its `number` in the title
    and leads to the one `before` it. Raises PermanentError when Bilibili would refuse it."""
    file = readable(Path(videos[0]["file_path"]).stem)
    suffix = f" ({number})" if number > 1 else ""
    title = show.title_of(order, file, MOST_TITLE_CHARACTERS - len(suffix)) + suffix
    template = order.template
    names = ("desc", "source", "dynamic")
    texts = {name: show.fill(getattr(template, name), order, offset + 1, file) for name in names}
    if before:
        texts["desc"] = f"接上 https://www.bilibili.com/video/{before}\n{texts['desc']}".strip()
    filled = template.model_copy(update={"title": title, **texts})
    return studio(filled, parts_of(order, show, videos, offset=offset), cover_url=cover_url)

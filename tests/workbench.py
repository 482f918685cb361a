"""The pipeline's turns against the stand-in Bilibili, without a daemon around them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from support import wait_until

from biliupd.catalog import records, submissions, sync, videos
from biliupd.catalog.database import Catalog, stamp
from biliupd.catalog.paths import stored
from biliupd.catalog.states import State, move
from biliupd.catalog.sync import Changes, Found
from biliupd.config import Account, Config, DropFolder, EditConfig, PublishConfig, RetentionConfig, Streamer, Template
from biliupd.pipeline import Pipeline
from biliupd.publish.manners import Standing, StandingFile
from biliupd.rehearsal.bilibili import Bilibili


class Bench:
    def __init__(
        self, base: Path, *, streamer: dict = MappingProxyType({}), folder: dict = MappingProxyType({}),
        template: dict = MappingProxyType({}), retention: dict = MappingProxyType({}), **publish,
    ) -> None:  # fmt: skip
        self.drop, self.recordings = base / "drop", base / "recordings"
        self.drop.mkdir(parents=True)
        self.recordings.mkdir()
        self.bilibili = Bilibili(base / "bilibili")
        self.bilibili.start()
        self.bilibili.submit_interval_seconds = 0.0
        url = self.bilibili.url
        settings = {"submit_interval_seconds": 0, "retry_seconds": 0.01, "lookup_seconds": 0.01, "line": "tx",
                    "submits_per_hour": 1000, "submits_per_day": 1000, **publish}  # fmt: skip
        words = {"title": "{streamer} {title}", "part_title": "{part} {file}", "tags": ["a", "b"], **template}
        self.cookies = self.bilibili.write_cookies(base / "cookies.json")
        self.config = Config(
            drop_folders=[DropFolder(directory=self.drop, **folder)],
            streamers=[Streamer(name="ann", url="https://x/a.flv", **streamer)],
            templates={"default": Template(**words)},
            accounts={"main": Account(cookies=self.cookies)},
            publish=PublishConfig(member_url=url, passport_url=url, api_url=url, **settings),
            retention=RetentionConfig(**retention),
            edit=EditConfig(),
        )
        self.catalog = Catalog(base / "data" / "catalog.db")
        self.pipeline = Pipeline(self.config, self.catalog, lambda secrets: None)

    def restart(self) -> None:
        """A new pipeline on the same catalog, as after a restart of the daemon."""
        self.pipeline = Pipeline(self.config, self.catalog, lambda secrets: None)

    def change(self, section: str, **changes) -> None:
        """Other settings of one section from now on."""
        updated = getattr(self.config, section).model_copy(update=changes)
        self.config = self.config.model_copy(update={section: updated})
        self.pipeline.apply(self.config)

    def add(self, path: Path, **facts) -> int:
        status = path.stat()
        root = self.recordings if path.is_relative_to(self.recordings) else self.drop
        found = Found(str(path), str(root), "file", status.st_size, status.st_mtime_ns, status.st_ino,
                      status.st_dev, False, path.stem, **facts)  # fmt: skip
        sync.apply(self.catalog.db, Changes(added=[found]))
        (id,) = self.catalog.db.execute(
            "select id from videos where file_path = cast(? as text)", [stored(str(path))]).fetchone()
        return id

    def ready(self, path: Path, **facts) -> int:
        """The same for a file that needs no editing any more."""
        id = self.add(path, **facts)
        for old, new in ((State.RECORDED, State.EDITING), (State.EDITING, State.READY)):
            assert move(self.catalog.db, id, old, new, duration=1.0, thumbnail_path="")
        return id

    def pass_time(self, seconds: float) -> None:
        """Let every moment that something waits for come nearer, in the catalog and beside the cookies."""
        db = self.catalog.db
        for table, column in (("videos", "retry_at"), ("submissions", "retry_at"), ("accounts", "retry_at"),
                              ("submissions", "since")):  # fmt: skip
            for row in list(db.query(f"select rowid as id, {column} as at from {table} where {column} like '20%'")):
                earlier = stamp(datetime.fromisoformat(row["at"]) - timedelta(seconds=seconds))
                db.execute(f"update {table} set {column} = ? where rowid = ?", [earlier, row["id"]])
        db.conn.commit()
        file = StandingFile(self.cookies)
        standing = file.read()
        if standing != Standing():
            file.write(replace(
                standing, until=standing.until - seconds, warned=standing.warned - seconds,
                submits=tuple(at - seconds for at in standing.submits)))  # fmt: skip
        accounts = self.pipeline.accounts
        for name in list(accounts.check_at):
            accounts.check_at[name] -= seconds
        for name, (failures, at) in list(accounts.doubts.items()):
            accounts.doubts[name] = failures, at - seconds

    def broadcast(self, parts: int, *, over: bool = True, cover_url: str = "", title: str = "the show") -> dict:
        """A broadcast of ann as the recorder would leave it; what it returns is for `add`."""
        streamer = records.streamer_id(self.catalog.db, "ann")
        at = datetime.now(UTC).isoformat()
        records.broadcast(self.catalog.db, {
            "id": "b1", "streamer_id": streamer, "title": title, "cover_url": cover_url, "live_id": "",
            "directory": str(self.recordings), "started_at": at, "ended_at": at if over else None, "parts": parts,
        })  # fmt: skip
        return {"broadcast_id": "b1", "streamer_id": streamer}

    def everything(self, done) -> None:
        def turn() -> bool:
            self.pipeline.edit_turn()
            self.pipeline.upload_turn()
            self.pipeline.submit_turn()
            self.pipeline.tidy_turn()
            return bool(done())

        wait_until(turn, 30)

    def video(self, id: int) -> dict:
        row = videos.get(self.catalog.db, id)
        assert row is not None
        return dict(row)

    def submission(self) -> dict:
        return dict(submissions.everything(self.catalog.db)[-1])

    def state(self, id: int) -> str:
        return str(self.video(id)["state"])

    def asked(self, route: str) -> int:
        return sum(request.route == route for request in self.bilibili.requests)

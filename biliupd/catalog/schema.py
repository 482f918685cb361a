"""The tables, as migrations in order. One that has shipped is never edited afterwards."""

import sqlite3

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("biliupd")


@migrations()
def first(db: Database) -> None:
    """Everything the whole way from live to bvid needs."""
    _run(db, _FIRST)


@migrations()
def publishing(db: Database) -> None:
    """Uploads that resume, submissions that grow and go on in another one, files that may be removed."""
    _run(db, _PUBLISHING)


@migrations()
def library(db: Database) -> None:
    """What a file is (its content, its streams), so that copies are known and the library can be searched."""
    _run(db, _LIBRARY)


@migrations()
def recording(db: Database) -> None:
    """How much of a broadcast is recorded, and what of it is missing."""
    _run(db, _RECORDING)


@migrations()
def control(db: Database) -> None:
    """Streamers of the API, people with their sessions, and a log of which rows changed, for who looks on."""
    _run(db, _CONTROL + "".join(_noting(*watched) for watched in _WATCHED) + _PARTS)


@migrations()
def by_date(db: Database) -> None:
    """The library in the order of recording, which a catalog that is made anew has no other trace of."""
    _run(db, _BY_DATE)


def _run(db: Database, script: str) -> None:
    """Every statement of a script, in the transaction of its migration.

    Looking for their ends at each character, as sqlite-utils does, takes as long as all else that a new catalog needs.
    """
    statement = ""
    for piece in script.split(";"):
        statement += piece
        if sqlite3.complete_statement(f"{statement};"):
            db.execute(statement.strip())
            statement = ""
        else:
            statement += ";"  # one of those inside a trigger


_FIRST = """
create table streamers (
    id integer primary key,
    name text not null unique,
    platform text not null,
    url text not null,
    check_interval real not null,
    auto_upload integer not null,
    source text not null,               -- yaml or api
    active integer not null default 1,  -- 0: no longer wanted, kept for its videos
    status text not null default 'unknown',
    status_reason text not null default '',
    created_at text not null,
    updated_at text not null
);
create table broadcasts (
    id text primary key,
    streamer_id integer not null references streamers(id),
    title text not null,
    cover_url text not null,
    live_id text not null,
    directory text not null,
    started_at text not null,
    ended_at text,
    parts integer not null,             -- files its recorder made, so that none is forgotten at the submit
    created_at text not null
);
create index broadcasts_of_streamer on broadcasts(streamer_id, started_at);
create table tasks (
    id text primary key,
    streamer_id integer not null references streamers(id),
    broadcast_id text not null,
    pid integer not null,
    status text not null,               -- recording or ended
    reason text not null default '',
    started_at text not null,
    stopped_at text
);
create index tasks_by_status on tasks(status);
create table submissions (
    id integer primary key,
    key text not null unique,           -- broadcast:ID or file:ID of the video
    broadcast_id text references broadcasts(id),
    account text,
    state text not null,
    since text not null,
    title text not null default '',
    filenames text not null default '[]',   -- written before the submit: what to look for when its answer is lost
    submit_started_at text,
    lookups integer not null default 0,
    resubmits integer not null default 0,
    aid integer,
    bvid text,
    owner text,
    attempts integer not null default 0,
    retry_at text,
    last_error text,
    waits_for text,
    created_at text not null
);
create index submissions_by_state on submissions(state, retry_at);
create table videos (
    id integer primary key,
    streamer_id integer references streamers(id),
    task_id text references tasks(id),
    broadcast_id text references broadcasts(id),
    submission_id integer references submissions(id),
    title text not null,
    file_path text not null unique,     -- absolute
    root text not null,                 -- the watched directory it lies in, absolute
    path text not null,                 -- below the root
    parent_path text not null,          -- below the root, empty at the top
    kind text not null,                 -- file or playlist
    file_size integer not null,
    mtime_ns integer not null,
    inode integer not null,
    device integer not null,
    duration real,
    width integer,
    height integer,
    output_path text,                   -- where its merge will lie, written down before it is made
    merged_from text,                   -- the playlist it was made of
    source_gone integer not null default 0,  -- 1: that playlist was removed after its mp4 was checked
    cover_path text,
    state text not null,
    was text,                           -- the state before it went missing
    since text not null,
    owner text,
    attempts integer not null default 0,
    retry_at text,
    last_error text,
    waits_for text,
    again integer not null default 0,   -- 1: a person asked for another try, knowing what Bilibili has
    bvid text,
    uploaded_at text,
    created_at text not null
);
create index videos_by_state on videos(state, retry_at);
create index videos_tree on videos(root, parent_path, path);
create index videos_by_inode on videos(inode, device);
create index videos_of_broadcast on videos(broadcast_id);
create index videos_of_submission on videos(submission_id);
create index videos_with_sources on videos(id) where merged_from is not null and source_gone = 0;
create index videos_spoken_for on videos(merged_from) where merged_from is not null;
create table uploads (
    video_id integer primary key references videos(id) on delete cascade,
    filename text,                      -- what Bilibili calls the file, set when all of it arrived
    cid integer,
    line text,
    bytes_total integer not null,
    bytes_sent integer not null default 0,
    started_at text not null,
    finished_at text
);
create table accounts (
    name text primary key,
    state text not null,                -- ok or waiting
    reason text not null default '',
    retry_at text,
    updated_at text not null
);
create table moves (
    id integer primary key,
    video integer references videos(id) on delete cascade,
    submission integer references submissions(id) on delete cascade,
    old text not null,
    new text not null,
    at text not null
);
create index moves_of_video on moves(video);
create index moves_of_submission on moves(submission);
create table notices (
    key text primary key,               -- what it is about: config, root:/path, ffmpeg, …
    text text not null,
    since text not null
);
create table users (
    id integer primary key,
    username text not null unique,
    password_hash text not null,
    created_at text not null
);
create table sessions (
    id integer primary key,
    user_id integer not null references users(id) on delete cascade,
    token text not null unique,
    expires_at text not null,
    created_at text not null
)
"""

_PUBLISHING = """
alter table uploads add column session text;                -- what it needs to go on after a restart (a secret)
alter table uploads add column bytes_per_second real not null default 0;
alter table uploads add column eta_seconds real;
alter table uploads add column source_size integer;         -- the file as it was read, so that no other is removed
alter table uploads add column source_mtime_ns integer;
alter table submissions add column folder text;             -- a dropped folder, absolute
alter table submissions add column continues integer references submissions(id);
alter table submissions add column body text not null default '{}';  -- as it was sent: what an edit must say again
alter table submissions add column refused text not null default '';  -- an answer that an earlier submit may explain
alter table submissions add column reuploads integer not null default 0;  -- how often its parts were uploaded again
alter table submissions add column review_state integer;
alter table submissions add column review text not null default '';
create index submissions_of_broadcast on submissions(broadcast_id);
create index submissions_of_folder on submissions(folder) where folder is not null;
alter table videos add column pinned integer not null default 0;
alter table videos add column removed_at text;              -- its file was deleted or moved, because it is published
create index videos_published on videos(uploaded_at) where state = 'published' and removed_at is null;
alter table accounts add column mid integer;
alter table accounts add column uname text not null default '';
alter table accounts add column checked_at text;
alter table accounts add column expires_at text;
alter table accounts add column hint text not null default ''
"""

_RECORDING = """
alter table broadcasts add column first_media_at text;
alter table broadcasts add column last_media_at text;
alter table broadcasts add column live_seconds real not null default 0;     -- wall time on air, as recorded
alter table broadcasts add column media_seconds real not null default 0;
alter table broadcasts add column lost_seconds real not null default 0;
alter table broadcasts add column gaps integer not null default 0;
create table ledger (                                       -- what broadcast.json says, see record.ledger
    broadcast_id text not null references broadcasts(id) on delete cascade,
    number integer not null,            -- the row's place in the file
    at text not null,
    cause text not null,
    file text not null,
    media_seconds_at real not null,
    seconds real not null,
    detail text not null,
    primary key (broadcast_id, number)
)
"""

_LIBRARY = """
alter table videos add column fingerprint text;             -- of its content: equal when the content is, rarely else
alter table videos add column same_as integer references videos(id) on delete set null;    -- of an ignored copy
alter table videos add column version_of integer references videos(id) on delete set null; -- its file changed
alter table videos add column video_codec text not null default '';
alter table videos add column audio_codec text not null default '';
alter table videos add column bitrate integer;              -- bits a second
alter table videos add column gaps text not null default '[]';      -- JSON: what its merge had to leave out
alter table videos add column thumbnail_path text;
alter table videos add column sidecar text not null default '';     -- which one was read: its time and size
alter table broadcasts add column file text not null default '';    -- which broadcast.json was read: its time and size
create index videos_by_fingerprint on videos(fingerprint) where fingerprint is not null;
create index videos_same_as on videos(same_as) where same_as is not null;
drop index videos_spoken_for;
create index videos_spoken_for on videos(merged_from) where merged_from is not null and source_gone = 0;
create index videos_described on videos(root) where sidecar != '';
create index videos_to_describe on videos(id) where sidecar = '?';
create index videos_incomplete on videos(id)
    where thumbnail_path is null and removed_at is null and state in ('ready', 'uploaded', 'published');
create index videos_making on videos(output_path) where output_path is not null;
create index videos_titles on videos(title, streamer_id, state);
create index videos_of_streamer on videos(streamer_id, created_at) where streamer_id is not null;
drop index videos_tree;
create index videos_tree on videos(root, parent_path, state);
drop index videos_of_broadcast;
create index videos_of_broadcast on videos(broadcast_id) where broadcast_id is not null;
drop index videos_of_submission;
create index videos_of_submission on videos(submission_id) where submission_id is not null
"""

_CONTROL = """
alter table streamers add column settings text not null default '{}';  -- of one of the API: the rest of it, as JSON
alter table streamers add column mode text not null default 'on';      -- on, skipped (until it goes live anew), paused
alter table users add column role text not null default 'admin';
alter table sessions add column kind text not null default 'cookie';   -- cookie or bearer
alter table sessions add column label text not null default '';
alter table sessions add column address text not null default '';
alter table sessions add column agent text not null default '';
alter table sessions add column seen_at text not null default '';
create index sessions_of_user on sessions(user_id);
alter table videos add column asked integer not null default 0;        -- 1: publish it, whatever the settings say
create index videos_asked on videos(id) where asked = 1;
create table changes (                                                 -- the oldest are removed now and then
    id integer primary key autoincrement,
    kind text not null,
    row not null
)
"""
_WATCHED = (  # table, what its rows are called in changes, and the column that names one
    ("streamers", "streamer", "id"), ("tasks", "task", "id"), ("videos", "video", "id"),
    ("uploads", "video", "video_id"), ("submissions", "submission", "id"), ("accounts", "account", "name"),
    ("notices", "notice", "key"), ("broadcasts", "broadcast", "id"),
)  # fmt: skip


def _noting(table: str, kind: str, column: str) -> str:
    """Triggers that note each change of a table's rows, whoever makes it."""
    found = (("insert", "new"), ("update", "new"), ("delete", "old"))
    return "".join(
        f";create trigger {table}_{what} after {what} on {table} begin"
        f" insert into changes (kind, row) values ('{kind}', {row}.{column}); end"
        for what, row in (found[1:] if table == "videos" else found)  # new ones come by thousands: see sync
    )


_PARTS = """;
create trigger videos_leave after update of submission_id on videos
    when old.submission_id is not null and new.submission_id is not old.submission_id begin
    insert into changes (kind, row) values ('submission', old.submission_id);
end;
create trigger videos_go after delete on videos when old.submission_id is not null begin
    insert into changes (kind, row) values ('submission', old.submission_id);
end
"""  # a submission is shown with the sums of its parts: one that loses a part changes

_AT = (  # nanoseconds since 1970: of the file, or of the row where a file has none; see library.RECORDED_NS
    "case when mtime_ns > 0 then mtime_ns"
    " else (strftime('%s', created_at) * 1000 + substr(created_at, 21, 3)) * 1000000 end"
)
_BY_DATE = f"""
create index videos_recorded on videos(({_AT}), id, state);
drop index videos_of_streamer;
create index videos_of_streamer on videos(streamer_id, ({_AT}), id, state) where streamer_id is not null
"""

"""Whatever the daemon writes for people, the page says in Chinese: nobody adds a sentence without its Chinese.

The texts of the rooms are read out of the source, filled with samples, and said by the page itself.
"""

import ast
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Visit
from playwright.sync_api import Page

import biliupd
from biliupd import config
from biliupd.control.web import site
from biliupd.errors import ConfigError

HOUSE = Path(biliupd.__file__).parent
ELSEWHERE = (
    "cli/", "rehearsal/", "live/rehearsal.py",  # the command line, and the stand-ins
    "publish/once.py", "publish/journal.py",  # `biliupd upload`, without a daemon
    "record/container.py", "record/fetch.py", "record/ffmpeg/", "record/flv/", "record/hls/", "record/ledger.py",
    "record/playlist.py", "record/recorder.py", "record/session.py", "record/wire.py",  # a recorder: its log
    "catalog/library.py", "catalog/paths.py", "catalog/salvage.py", "catalog/schema.py", "catalog/states.py",
    "catalog/streamers.py", "catalog/tasks.py",  # SQL
    "control/app.py", "control/metrics.py", "__init__.py",  # for OpenAPI, for Prometheus, for programmers
)  #: whose words do not reach the page, but for LEDGER
LOGGING = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log"})
TECHNICAL = frozenset({
    "execute", "query", "Query", "Field", "compile", "search", "fullmatch", "Thread", "cast",
})  #: calls whose words are for programs  # fmt: skip
SQL = re.compile(
    r"\s*(select .* from|insert (or ignore )?into|update \w+ set|delete from|pragma|"
    r"((where|and) )?\(?[+\w.]+ (=|like|in \(|is (not )?null|<|>)) ?")
SENTENCE = re.compile(r"[A-Za-z]{2,}.* [a-z]")


OF_OPENAPI = frozenset({"KINDS", "_ACTED", "_PICTURE", "_LIVE_PICTURE", "_MEDIA"})  #: what is assigned to these
NOT_TOLD = re.compile(
    r"Mozilla/5\.0 |default-src|camera=|private, |public, |text/\w+; |\{\}; filename=|"  # headers of HTTP
    r"(Failed|Impossible) to open$|not wanted$|Value error, $|Input should be$|should be$|"  # looked for, or caught
    r"\(Bilibili's name for it|"  # stands in JSON
    r"look at \{\}$|system volume information$")  # a job of the scheduler, a folder's name
_HISTORY = "what was published since then is looked up at Bilibili before anything is sent"
WHOLE: dict[str, tuple[str, ...]] = {
    _HISTORY: (),
    "There was no good copy, so the library is made anew from the folders; what is older is looked up at Bilibili "
    "before anything is sent. ": (),
    "It is kept as {}. ": (),
    "{} Read it? Then remove {}": tuple(
        f"2026-11-22T14:05:59Z: /数据/biliupd.db: {why}. {aside}{what} Read it? Then remove /数据/read-me.txt"
        for why in ("it was gone", "the file was empty", "it was damaged (第 3 页)")
        for aside in ("", "It is kept as /数据/biliupd.db.corrupt. ")
        for what in (
            f"The copy /数据/backups/1.db of 2026-11-21 14:05 UTC took its place; {_HISTORY}.",
            f"There was no good copy, so it was made anew of what could be read (3 gaps); {_HISTORY}.",
            "There was no good copy, so the library is made anew from the folders; what is older is looked up at "
            "Bilibili before anything is sent.")),
    "{}Z: {} is a copy that somebody put there; {}.": (
        f"2026-11-22T14:05:59Z: /数据/biliupd.db is a copy that somebody put there; {_HISTORY}. Read it? Then remove "
        "/数据/read-me.txt",),
    "the catalog cannot be {}: {}: {} ({})": (
        "the catalog cannot be written: /数据/biliupd.db: the disk is full (第 3 页)",
        "the catalog cannot be used: /数据/biliupd.db: the disk reports an error (第 3 页)"),
    "its file changed after it was uploaded{}; biliupd retry video:{} publishes the new version, too": (
        "its file changed after it was uploaded; biliupd retry video:3 publishes the new version, too",
        "its file changed after it was uploaded as BV1xx411c7mD; biliupd retry video:3 publishes the new version, too"),
    " as {}": (),
    "{}{}: it is recorded when it goes live": tuple(
        f"{status}{why}: it is recorded when it goes live" for status in ("offline", "restricted", "unknown")
        for why in ("", " (the site answers 502)")),
    "{} of its videos: {} is {}": ("waits for 2 of its videos: 歌回 is editing", "2 of its videos: 歌回 is editing"),
    ", in vain for {} s": (),
    "{}{}; edit.missing_segments: merge leaves it out": (
        "waits for segment '3.ts' (line 7), in vain for 600 s; edit.missing_segments: merge leaves it out",
        "segment '3.ts' is cut short: 12 bytes after its last whole packet; edit.missing_segments: merge leaves it out",
    ),
    "waits for its sidecar to be mended: ": tuple(
        f"waits for its sidecar to be mended: {why}" for why in (
            "葵.yaml: leads out of the drop folder", "葵.yaml: is not a file", "tid (line 3): must be given")),
    "not published: upload is off for ": (
        "not published: upload is off for it", "not published: upload is off for this drop folder"),
    "this drop folder": (),
    "{} are free, and what is being recorded fills that by {} (all but the {} that stay free": (
        "/录像: 9.0 GiB are free, and what is being recorded fills that by 23:40 (all but the 5.0 GiB that stay free)",
        "/录像: 9.0 GiB are free, and what is being recorded fills that by 23:40 (all but the 5.0 GiB that stay free, "
        "and 1.2 GiB that merging will take)"),
    ", and {} that merging will take)": (),
    "the kernel gives no more inotify {}; raise it: sysctl {}={} (is {})": (
        "/录像: unwatched in part: the kernel gives no more inotify watches; raise it: sysctl "
        "fs.inotify.max_user_watches=16384 (is 8192)",),
    "{} is live and waits: {} of {} recordings run, its priority is {}": (
        "葵 is live and waits: 3 of 3 recordings run, its priority is -5",),
    ", {} that begins in line {}": (),
    ": did you mean {}?": (), "; there are {}": (), "; indent with spaces, not with tabs": (),
    "there is no account {}": ("there is no account 葵",),
    "there is no placeholder {{}}": ("there is no placeholder {葵}; there are {streamer}, {title}",),
}  #: what is only a piece in the source, or is put together otherwise: the sentences that are made of it
BY_HAND = (
    "/录像: offline: Permission denied", "/录像: offline: No such file or directory",
    "/录像: 30 of 90 known files are not there; nothing is changed until a second scan agrees",
    "'/\\u5f55\\u50cf': offline: is empty and not the directory it was; is its file system mounted?",
    "2 files are not taken yet: '/\\u5f55/1.mp4': somebody has it open for writing; '/2.mp4': it is empty; …",
    "recordings, control, edit.workers: these settings are taken at the next start",
    "control: 127.0.0.1:19159 cannot be used (Address already in use); biliupd runs without its page",
    "control: 0.0.0.0:19159 waits for a user, so that somebody can log in: biliupd passwd NAME --role admin; "
    "biliupd runs without its page",
    "ffmpeg was not found install ffmpeg (apt install ffmpeg), or set edit.ffmpeg to its path",
    "edit.ffmpeg is no program: /usr/bin/葵 install ffmpeg (apt install ffmpeg), or set edit.ffmpeg to its path",
    "today's copy of the catalog failed: no copy of /数据/1.db: /数据/2.db: the disk is full; make room there",
    "log.file: /var/log/1.log cannot be written: Read-only file system; the old log goes on",
    "account 葵: login check: Bilibili says -101 账号未登录",
    "waits for account 葵: submit: Bilibili says 21566 投稿过于频繁，请稍后再试 (captcha)",
    "account 葵: QR code: no answer in time (passport.bilibili.com)",
    "account 葵: login check: Connection refused (api.bilibili.com)",
    "account 葵: /葵/cookies.json: cannot be written: Read-only file system",
    "account 葵: /葵/cookies.json: the cookie SESSDATA is missing",
    "waits for account 葵: this account keeps quiet for another 12 min: submit: Bilibili says 21566 投稿过于频繁",
    "submit: Bilibili says 10003 不存在该稿件 (after 8 tries)", "waits for account 葵 could not be checked",
    "葵.mp4: upload part failed 5 times, the last: HTTP 503 (line bda2) (after 8 tries)",
    "葵.mp4: 3 tickets in vain, the last: part 7: the ticket is no longer accepted (HTTP 403)",
    "asking for an upload ticket for 葵 1.mp4: Bilibili says 601 上传过快",
    "view of BV1xx411c7mD: an answer that cannot be used",
    "submit: HTTP 502 without Bilibili's envelope; it may have been accepted",
    "accepted, but not to be seen yet: view of BV1xx411c7mD: Bilibili says -404 啥都木有",
    "Bilibili refused it: 稿件内容违规", "Bilibili cannot use a part: 葵 P1: code 9",
    "not submitted: the title is empty; there is no tag; a repost needs its source",
    "葵.m3u8: Input/output error (after 8 tries)",
    "[Errno 28] No space left on device: '/录像/葵/1.mp4' (after 8 tries)",
    "'\\u8475.m3u8', line 3: '\\u8475.ts' leads out of the playlist's directory",
    "ffmpeg failed (exit 1): it said nothing",
    "'\\u8475.ts' (line 3) does not decrypt: its last block does not decrypt",
    "segment '3.ts' is damaged: ffmpeg failed (exit 183): 数据 7",
    "the merge is damaged at 12.5 s, in segment '3.ts': no packet for 3.5 s", "sound: '3.ts' (line 7) is empty",
    "streamlink (葵): the site answers 502", "the site names a stream, but the playlist has not moved for 60 s",
    "body.url: Field required; query.limit: Input should be less than or equal to 500",
    "body.username: String should have at least 1 character", "/etc/config.yaml, line 12",
    "20 s of sound", "1.5 s came again", "after stall", "after the run before", "0.50 of real time", "12 bytes",
    "the clock was set by +1.250 s", "held no media, removed", "ended after 12.5 s, 7 torn bytes cut off",
    "ended with 7 segments (1 were not listed yet, 0 listed are not there)",
    *map(os.strerror, (
        errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
        errno.EROFS, errno.EIO, errno.ESTALE, errno.EBUSY, errno.ENOTCONN, errno.EADDRINUSE, errno.ECONNREFUSED,
        errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMFILE, errno.ENOMEM)),
)  #: what is made of several, where nobody can read it out of the source, and what the ledger and the system say
BROKEN = """\
streamers:
- {name: 葵, url: x, wacth: 1, check_interval: -3, submit_at: never}
- {name: 5, url: 'https://live.example/1', template: gone, account: nobody}
live: 3
record: {most: 1.5, least_free: abc}
wacth: {}
templates: {a: {tid: x, title: '{foo}', tags: 1, dtime: soon}}
log: {level: LOUD}
edit:
accounts: {m: {}}
control: {port: 70000, certificate: x}
watch: {quiet_seconds: 0}
drop_folders: [{directory: x}, {directory: x/y}]
"""
SETTINGS = frozenset(re.findall(r"\w+", BROKEN)) | {*config.Streamer.model_fields, "end"}
UNREADABLE = ("streamers：\n- a: [\n", "a: b: c\n", "\t- x", "\1", "a: &a [*a]", "a: 'x\n", "- [1, 2\nb: 3\n")


def sentences(room: Path) -> Iterator[tuple[int, list[str]]]:
    """Every text of a room that a person may get to read, as its line and its pieces: words, a placeholder, words …"""

    def within(node: ast.AST, *, told: bool = False) -> Iterator[tuple[int, list[str]]]:
        if isinstance(node, ast.Constant | ast.JoinedStr):
            pieces = _pieces(node)
            if pieces and (told or SENTENCE.search("".join(pieces[::2]))) and not SQL.match(pieces[0]):
                yield node.lineno, pieces
            for part in node.values if isinstance(node, ast.JoinedStr) else []:
                if isinstance(part, ast.FormattedValue):
                    yield from within(part.value)
            return
        for name, child in _children(node):
            yield from within(child, told=name == "hint")

    yield from within(ast.parse(room.read_text(encoding="utf-8")))


def _pieces(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    assert isinstance(node, ast.JoinedStr)
    pieces = [""]
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            form = f":{ast.unparse(part.format_spec)[2:-1]}" if part.format_spec else ""
            quoted = f"!{chr(part.conversion)}" if part.conversion > 0 else ""
            pieces += [ast.unparse(part.value) + quoted + form, ""]
        else:
            assert isinstance(part, ast.Constant)
            pieces[-1] += part.value
    return pieces


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What of a node may hold such a text."""
    for name, value in ast.iter_fields(node):
        if name in ("decorator_list", "annotation", "returns") or isinstance(node, ast.Compare):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue  # a docstring
            if isinstance(child, ast.Call) and _is_for_programs(child):
                continue
            if isinstance(child, ast.Assign | ast.AnnAssign) and OF_OPENAPI & _assigned(child):
                continue
            if isinstance(child, ast.keyword):
                if child.arg not in ("description", "summary", "examples"):
                    yield child.arg or "", child.value
            elif isinstance(child, ast.AST):
                yield name, child


def _assigned(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _is_for_programs(call: ast.Call) -> bool:
    called = call.func
    if isinstance(called, ast.IfExp):
        called = called.body
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name in TECHNICAL or (name in LOGGING and "log" in ast.unparse(called).lower())


PATH = "/录像/葵, 第 1 场.mp4"
SAMPLES = (
    (r"\.place$", "'\\u8475.ts' (line 7)"),
    (r"![ar]$", "'\\u8475, \\u7b2c 1 \\u573a.mp4'"),
    (r"^\S*(\bstate'\]|\.state)$", "held"),
    (r"\.role$|^role$", "admin"),
    (r"_mib\(|shown\((free|size|least|merges|again)|\bagain\b", "9.0 GiB"),
    (r"removed_at", "2026-11-22T14:05:59Z"),
    (r"^len\(|\bline$|line \+ 1$|\bsize\b|\bid\b|offset|count|seconds|bytes|number|MOST|LARGEST|status|attempts", "42"),
    (r":[-+.\d,]*[dfg]$", "42"),
    (r"path|file|source|target|directory|folder|\bpart\b", PATH),
    (r"name|title|streamer|account|what", "葵 酱"),
)  #: what a placeholder may hold, by the first that fits its expression
OTHERS = ("某事", "7")  #: what any other may hold: it is enough that one of them is understood
COMMANDS = re.compile(
    r"biliupd (login|retry|stop|status|rebuild|run|passwd)( (-u|NAME|--role admin|account:NAME|video:\d+))*|"
    r"apt install ffmpeg|sudo -u|kill -9|edit\.missing_segments: merge|POST /\S+")  #: to be typed as they are
NAMES = re.compile(r"[!-~]*[^a-z\s\u0080-\uffff][!-~]*")  #: of settings, files, formats and codes, and Bilibili's
STAYS = frozenset({
    "biliupd", "ffmpeg", "streamlink", "inotify", "sysctl",  # programs
    "cookie", "token", "access", "refresh", "http", "moov", "moof",  # Chinese users say so, too
    "app", "false", "move", "null", "platform", "source", "true", "web",  # names and values of settings
})
WORDS = re.compile(r"[a-z]{2,}")


def of_the_house() -> dict[str, tuple[str, ...]]:
    """What each place in the source may say: one of these sentences."""
    found: dict[str, tuple[str, ...]] = {}
    for room in sorted(HOUSE.rglob("*.py")):
        name = room.relative_to(HOUSE).as_posix()
        for line, pieces in () if name.startswith(ELSEWHERE) else sentences(room):
            template = "".join(piece if n % 2 == 0 else "{}" for n, piece in enumerate(pieces))
            if template in WHOLE:
                found |= {text: (text,) for text in WHOLE[template]}
            elif not NOT_TOLD.match(template):
                found[f"{name}:{line} {template}"] = tuple(dict.fromkeys(filled(pieces, other) for other in OTHERS))
    return found


def filled(pieces: list[str], other: str) -> str:
    def sample(expression: str) -> str:
        return next((text for like, text in SAMPLES if re.search(like, expression)), other)

    return "".join(sample(piece) if n % 2 else piece for n, piece in enumerate(pieces))


def english(said: str) -> list[str]:
    """Words that a Chinese reader would stumble over."""
    return [word for word in WORDS.findall(NAMES.sub(" ", COMMANDS.sub(" ", said))) if word not in STAYS | SETTINGS]


def say(page: Page, texts: list[str]) -> list[str]:
    return list(page.evaluate(
        """async ([at, texts]) => {
            const { default: say } = await import(at);
            return texts.map((text) => say(text) ?? text);
        }""", [f"/static/{site().mark}/i18n/daemon.zh.js", texts]))  # fmt: skip


def problems_of(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.parse(text.encode(), base=Path("/srv"), name="/srv/config.yaml", answers=lambda url: False)
    return caught.value


def test_every_sentence_of_the_daemon_is_said_in_chinese(visit: Visit):
    wanted = of_the_house() | {text: (text,) for text in BY_HAND}
    for error in map(problems_of, (BROKEN, *UNREADABLE)):
        refused = f"/srv/config.yaml is refused, the old settings stay: {'; '.join(error.problems)}"
        wanted |= {text: (text,) for text in (refused, *error.problems, error.hint)}
    texts = list(dict.fromkeys(text for several in wanted.values() for text in several))
    said = dict(zip(texts, say(visit("now", language="zh-CN"), texts), strict=True))
    left = {where: [said[text] for text in several] for where, several in wanted.items()
            if all(english(said[text]) for text in several)}  # fmt: skip
    assert left == {}
    changed = [(text, chinese) for text, chinese in said.items() if text.count(PATH) != chinese.count(PATH)]
    assert changed == []


def test_a_sentence_is_written_once_and_names_what_the_english_one_names(visit: Visit):
    tables = sorted(name for name in site().assets if name.startswith("i18n/daemon/"))
    entries = visit("now", language="zh-CN").evaluate(
        """async (at) => {
            const tables = await Promise.all(at.map((one) => import(one)));
            return tables.flatMap((table) => Object.entries(table.default));
        }""", [f"/static/{site().mark}/{name}" for name in tables])  # fmt: skip
    assert len(entries) > 500
    once: dict[str, str] = {}
    for sentence, chinese in entries:
        assert once.setdefault(sentence, chinese) == chinese
        places = [re.findall(r"\{(?:[-=!+*#~%@]|\w+\.)?(\w+)\}", text) for text in (sentence, chinese)]
        assert len(set(places[0])) == len(places[0]), sentence
        assert set(places[1]) <= set(places[0]), sentence


def test_text_from_outside_takes_no_time_however_long(visit: Visit):
    page = visit("now", language="zh-CN")
    pieces = ("a: ", "; ", ", ", "x: y; z, ", "\n", "'", "\\u8475", "waits for ", "account ", " (after 3 tries)",
              "); it ", "; x (line 1): ", "(line 1)", " is ", ": Bilibili says 1 ", "not YAML: x, while ", "{x}", "葵",
              "it is empty: ")
    texts = [(piece * 100_000)[:length] + end for piece in pieces for length in (9_000, 100_000)
             for end in ("", " (after 3 tries)")]  # fmt: skip
    slowest = page.evaluate(
        """async ([at, texts]) => {
            const { default: say } = await import(at);
            say(texts[0]);
            return Math.max(...texts.map((text) => {
                const began = performance.now();
                say(text);
                return performance.now() - began;
            }));
        }""", [f"/static/{site().mark}/i18n/daemon.zh.js", texts])  # fmt: skip
    assert slowest < 500

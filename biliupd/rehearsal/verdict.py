"""Whether a recording is what it has to be: its ledger beside the site's account, its files beside what was made.

Runs on the thread of a scenario. Reads one broadcast's folder and runs ffmpeg on its files; changes nothing. It reads
FLV with the site's reader, not with the recorder's.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from biliupd.errors import BiliupdError
from biliupd.record import broadcast as broadcasts
from biliupd.record.ledger import LOSSES, summary
from biliupd.rehearsal.live_account import Unit, Withheld, digest
from biliupd.rehearsal.live_media import VIDEO, Tag, read_flv
from biliupd.rehearsal.scenarios import Scenario

TOLERANCE_SECONDS = 1.5
DECODE_SECONDS = 60.0
# decoded frames are counted in units of the frame rate, so two that are nearer than that share a place
_ROUNDED = re.compile(r"non monotonically increasing dts to muxer")


@dataclass
class Verdict:
    """`trouble` is empty when all is as it has to be. `ledger`: its sentence; `rows` as they are told to people."""

    name: str
    trouble: list[str] = field(default_factory=list)
    ledger: str = ""
    rows: list[str] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    not_run: str = ""

    @property
    def ok(self) -> bool:
        return not self.trouble and not self.not_run


def judge(
    scenario: Scenario, folders: Sequence[Path], withheld: Sequence[Withheld], made: Sequence[Unit], ffmpeg: str
) -> Verdict:
    """Look at everything; each thing that is wrong is one line of trouble."""
    verdict = Verdict(scenario.name, withheld=[f"{hole.seconds:.1f} s, {hole.what}" for hole in withheld])
    if len(folders) != 1:
        verdict.trouble.append(f"{len(folders)} broadcasts instead of 1")
    if not folders:
        return verdict
    try:
        broadcast = broadcasts.read(folders[0])
    except BiliupdError as error:
        verdict.trouble.append(str(error))
        return verdict
    if broadcast is None:
        verdict.trouble.append("no broadcast.json")
        return verdict
    verdict.ledger = str(summary(broadcast))
    verdict.rows = [_told(row) for row in broadcast.ledger]
    if broadcast.ended_at is None:
        verdict.trouble.append("the broadcast was not ended")
    if len(broadcast.files) != scenario.files:
        verdict.trouble.append(f"{len(broadcast.files)} files instead of {scenario.files}")
    files = [folders[0] / str(item["name"]) for item in broadcast.files]
    verdict.trouble += [complaint for path in files for complaint in complaints(path, ffmpeg)]
    twice, unread = compare(files, made)
    if not scenario.copied:
        sent = sum(unit.length for unit in made if unit.delivered)
        twice, unread = 0, max(0.0, sent - broadcast.figures.media_seconds)
    if twice:
        verdict.trouble.append(f"{twice} pieces of media were recorded twice, or are none that the site made")
    if unread > scenario.unread_seconds:
        verdict.trouble.append(f"{unread:.1f} s of what the site sent are not in the files")
    verdict.trouble += _rows(scenario, broadcast, withheld, min(unread, scenario.unread_seconds))
    return verdict


def _told(row: dict[str, object]) -> str:
    place = f"{row['file']} at {float(str(row['media_seconds_at'])):.1f} s" if row["file"] else "between files"
    more = f" ({row['detail']})" if row["detail"] else ""
    return f"{row['cause']}: {float(str(row['seconds'])):.1f} s, {place}{more}"


def _rows(
    scenario: Scenario, broadcast: broadcasts.Broadcast, withheld: Sequence[Withheld], unread: float
) -> Iterator[str]:
    """`unread`: seconds that were sent and could not be recorded; the ledger has to count them, too."""
    found = {str(row["cause"]) for row in broadcast.ledger}
    for causes in scenario.rows:
        if not found & set(causes.split("|")):
            yield f"no row of {causes.replace('|', ' or ')}"
    told = [row for row in broadcast.ledger if row["cause"] in LOSSES and row["seconds"] > 0]
    for row in told:
        if row["cause"] not in scenario.losses and row["seconds"] > TOLERANCE_SECONDS:
            yield f"{row['seconds']:.1f} s are said to be missing because of {row['cause']}"
    if (lost := sum(hole.seconds for hole in withheld)) > scenario.most_lost_seconds:
        yield f"{lost:.1f} s were lost, though {scenario.most_lost_seconds:.1f} s would have done"
    lengths = sorted(float(row["seconds"]) for row in told)
    true = sorted(hole.seconds for hole in withheld)
    if len(lengths) != len(true):  # a hole told in pieces, or two told as one
        lengths, true = [sum(lengths)], [sum(true)]
    for said, held in zip(lengths, true, strict=True):
        if not held - TOLERANCE_SECONDS <= said <= held + unread + TOLERANCE_SECONDS:
            yield f"the ledger says {said:.1f} s are missing, the site withheld {held:.1f} s"


def compare(files: Sequence[Path], made: Sequence[Unit]) -> tuple[int, float]:
    """How many pieces of media are in the files too often (or are none of ours), and how many seconds of what somebody
    was sent are in none."""
    recorded = Counter(one for path in files for one in payloads(path))
    twice = sum((recorded - Counter(unit.digest for unit in made)).values())
    unread = 0.0
    for unit in made:
        if unit.delivered and not recorded[unit.digest]:
            unread += unit.length
        elif unit.delivered:
            recorded[unit.digest] -= 1
    return twice, unread


def payloads(path: Path) -> Iterator[bytes]:
    """The digest of every piece of media in a file; of a playlist, of its segments."""
    try:
        if path.suffix == ".m3u8":
            names = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
            for name in names:
                yield digest((path.parent / name).read_bytes())
        else:
            with path.open("rb") as file:
                for tag in read_flv(file):
                    if not tag.header:
                        yield digest(tag.body)
    except OSError:
        return  # `complaints` tells


def complaints(path: Path, ffmpeg: str) -> list[str]:
    """What ffmpeg says when it decodes a file to its end, and when it copies its packets in their order."""
    content = _hevc(path) if path.suffix == ".flv" else None  # of HEVC in FLV, many an ffmpeg knows nothing
    source = ["-f", "hevc", "-i", "pipe:0"] if content else ["-i", f"file:{path}"]
    lines: list[str] = []
    for how in ([], ["-c", "copy"]):
        argv = [ffmpeg, "-v", "error", *source, *how, "-f", "null", "-"]
        try:
            done = subprocess.run(
                argv, input=content or b"", capture_output=True, timeout=DECODE_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return [f"{path.name}: cannot be decoded: {type(error).__name__}"]
        said = done.stderr.decode(errors="replace").splitlines()
        lines += [line for line in said if line and (how or not _ROUNDED.search(line))]
        if done.returncode and not lines:
            lines = [f"ffmpeg ends with {done.returncode}"]
    if not lines:
        return []
    name = f"{path.parent.name}/{path.name}" if path.suffix == ".m3u8" else path.name
    return [f"{name}: ffmpeg: {lines[0]}" + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")]


def _hevc(path: Path) -> bytes | None:
    """The picture of an FLV file as a bare HEVC stream (ITU-T H.265, annex B); None when it is of another codec."""
    out: list[bytes] = []
    try:
        with path.open("rb") as file:
            for tag in read_flv(file):
                if tag.kind == VIDEO:
                    enhanced = tag.body[0] & 0x80
                    if not (tag.body[1:5] == b"hvc1" if enhanced else tag.body[0] & 0x0F == 12):
                        return None
                    out += _units(tag, 8 if enhanced and tag.body[0] & 0x0F == 1 else 5)
    except OSError:
        return None
    return b"".join(b"\0\0\0\1" + unit for unit in out)


def _units(tag: Tag, start: int) -> Iterator[bytes]:
    """NAL units of a sample, or those of a configuration record (ISO 14496-15, 8.3.3.1)."""
    body = tag.body
    if not tag.header:
        while start + 4 <= len(body):
            size = int.from_bytes(body[start : start + 4], "big")
            yield body[start + 4 : start + 4 + size]
            start += 4 + size
        return
    place = start + 23
    for _ in range(body[start + 22]):
        count = int.from_bytes(body[place + 1 : place + 3], "big")
        place += 3
        for _ in range(count):
            size = int.from_bytes(body[place : place + 2], "big")
            yield body[place + 2 : place + 2 + size]
            place += 2 + size

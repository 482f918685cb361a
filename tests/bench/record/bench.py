"""Record 20 streams of 4 Mbit/s on loopback: biliupd, ffmpeg -c copy, streamlink and stream_gears of biliup 1.2.9.

`python tests/bench/record/bench.py [--streams 20] [--seconds 40] [--kinds flv hls] [--peers ...]`. One peer after the
other against the same server, each stream a process of its own. Prints CPU seconds per stream-minute and private memory
per stream, steady (after a warm-up), and the ratios to the aims of the design. Recorders of biliupd repair, sync and
keep their ledger as always. Makes .venv-biliup when it is not there.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT))

from biliupd.record import broadcast as broadcasts  # noqa: E402
from biliupd.record import spec as specs  # noqa: E402
from biliupd.record.broadcast import Broadcast  # noqa: E402
from biliupd.record.nursery import Nursery  # noqa: E402
from biliupd.record.spec import Spec, Stream  # noqa: E402

WARM_UP_SECONDS = 8.0
SEGMENT_SECONDS = 2.0
VERSION = "1.2.9"
AIMS = {"flv": {"ffmpeg": 1.0, "stream_gears": 0.6}, "hls": {"ffmpeg": 0.8, "streamlink": 0.4}}
MEMORY_AIM = 6 << 20
_GEARS = ("import stream_gears, sys; stream_gears.download(sys.argv[1], {{}}, sys.argv[2], "
          "stream_gears.PySegment())")
Start = Callable[[str, Path, int], int]


def make_media(directory: Path, seconds: float) -> None:
    """A clip of 4 Mbit/s that is long enough, and its segments of two seconds."""
    run = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
    source = ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25", "-f", "lavfi", "-i", "sine=frequency=440"]
    codec = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "3870k", "-minrate", "3870k", "-maxrate", "3870k",
             "-bufsize", "3870k", "-x264-params", "nal-hrd=cbr", "-g", "50", "-bf", "0", "-pix_fmt", "yuv420p",
             "-c:a", "aac", "-b:a", "128k"]
    short = directory / "short.flv"
    subprocess.run([*run, *source, "-t", "20", *codec, "-f", "flv", str(short)], check=True)
    times = int(seconds / 20) + 1
    clip = directory / "clip.flv"
    subprocess.run([*run, "-stream_loop", str(times), "-i", str(short), "-c", "copy", "-f", "flv", str(clip)],
                   check=True)
    (directory / "ts").mkdir()
    subprocess.run([*run, "-i", str(clip), "-c", "copy", "-f", "hls", "-hls_time", "2", "-hls_list_size", "0",
                    "-hls_segment_filename", str(directory / "ts" / "%06d.ts"), str(directory / "ts" / "i.m3u8")],
                   check=True)


@contextmanager
def serving(media: Path) -> Iterator[str]:
    argv = [sys.executable, str(HERE / "source.py"), str(media / "clip.flv"), str(media / "ts")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            time.sleep(2 * SEGMENT_SECONDS + 1)  # a playlist without a segment ends some of the peers at once
            yield url
        finally:
            server.kill()


class Ours:
    """Recorders as the crew starts them."""

    def __init__(self) -> None:
        self.nursery = Nursery()

    def __call__(self, url: str, directory: Path, number: int) -> int:
        broadcast = Broadcast(id=f"{number:032}", streamer="s", started_at="2026-01-01T00:00:00+00:00")
        broadcasts.write(directory, broadcast)
        protocol = "hls" if url.endswith("m3u8") else "flv"
        heartbeat = directory.parent / "heartbeat"
        heartbeat.touch()
        spec = Spec(str(directory), (Stream(url, protocol),), heartbeat=str(heartbeat),
                    figures_path=str(directory.parent / f"{number}.figures"))
        path = directory.parent / f"{number}.json"
        specs.write(path, spec)
        held = broadcasts.lock(directory)
        assert held is not None
        log = os.open(directory.parent / f"{number}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return self.nursery.bear(path, held, log)
        finally:
            os.close(held)
            os.close(log)


def program(*argv: str) -> Start:
    """A peer: {url} and {file} in its words are filled in."""
    def start(url: str, directory: Path, number: int) -> int:
        suffix = "ts" if url.endswith("m3u8") else "flv"
        words = [word.format(url=url, file=directory / f"made.{suffix}") for word in argv]
        with (directory / "log").open("wb") as log:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    start_new_session=True).pid
    return start


def peers(kind: str) -> dict[str, Start]:
    home = ROOT / ".venv-biliup"
    if not (home / "bin" / "biliup").exists():
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "-q", f"biliup=={VERSION}"], check=True)
    scheme = "hls://" if kind == "hls" else "httpstream://"
    return {
        "biliupd": Ours(),
        "ffmpeg": program("ffmpeg", "-nostdin", "-v", "error", "-i", "{url}", "-c", "copy", "-y", "{file}"),
        "stream_gears": program(str(home / "bin" / "python"), "-c", _GEARS, "{url}", "{file}"),
        "streamlink": program(str(Path(sys.executable).with_name("streamlink")), "--loglevel", "error", "-o", "{file}",
                              scheme + "{url}", "best"),
    }


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> tuple[int, int]:
    """Private, and proportional (PSS)."""
    private = pss = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty"):
            private += int(rest.split()[0]) << 10
        elif name == "Pss":
            pss = int(rest.split()[0]) << 10
    return private, pss


def measure(start: Start, url: str, streams: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as room:
        pids = []
        for number in range(streams):
            directory = Path(room) / str(number)
            directory.mkdir()
            pids.append(start(url, directory, number))
        time.sleep(WARM_UP_SECONDS)
        began, before = time.monotonic(), [cpu_seconds(pid) for pid in pids]
        time.sleep(seconds)
        used = sum(cpu_seconds(pid) for pid in pids) - sum(before)
        minutes = (time.monotonic() - began) / 60
        memory = [memory_bytes(pid) for pid in pids]
        size = sum(path.stat().st_size for path in Path(room).rglob("*") if path.is_file())
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            wait_for_end(pid)
        return {"cpu": used / streams / minutes, "private": sum(p for p, _ in memory) / streams,
                "pss": sum(p for _, p in memory) / streams, "megabytes": size / 1e6}


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:  # the nursery's child
            if not Path(f"/proc/{pid}").exists():
                return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--kinds", nargs="+", default=["flv", "hls"], choices=["flv", "hls"])
    parser.add_argument("--peers", nargs="+", default=["biliupd", "ffmpeg", "stream_gears", "streamlink"])
    chosen = parser.parse_args()
    good = True
    media = Path(tempfile.mkdtemp(prefix="biliupd-bench-"))
    try:
        make_media(media, WARM_UP_SECONDS + chosen.seconds + 30)
        for kind in chosen.kinds:
            found: dict[str, dict[str, float]] = {}
            for name, start in peers(kind).items():
                if name in chosen.peers:
                    with serving(media) as url:
                        path = "/live/index.m3u8" if kind == "hls" else "/live.flv"
                        found[name] = measure(start, url + path, chosen.streams, chosen.seconds)
            good = report(kind, found, chosen.streams) and good
    finally:
        shutil.rmtree(media)
    return 0 if good else 1


def report(kind: str, found: dict[str, dict[str, float]], streams: int) -> bool:
    say(f"\n{kind}: {streams} streams of 4 Mbit/s, a process each")
    say(f"{'':14}{'CPU s/stream-min':>18}{'streams a core':>16}{'private MiB':>13}{'PSS MiB':>9}{'MB written':>12}")
    for name, row in found.items():
        say(f"{name:14}{row['cpu']:18.3f}{60 / row['cpu']:16.0f}{row['private'] / 2**20:13.1f}"
              f"{row['pss'] / 2**20:9.1f}{row['megabytes']:12.0f}")
    ours, good = found.get("biliupd"), True
    if ours:
        for name, aim in AIMS[kind].items():
            if name in found:
                ratio = ours["cpu"] / found[name]["cpu"]
                good = verdict(f"CPU {ratio:.2f} × {name}, wanted ≤ {aim}", ratio <= aim) and good
        good = verdict(f"private memory {ours['private'] / 2**20:.1f} MiB per stream, wanted ≤ 6",
                       ours["private"] <= MEMORY_AIM) and good
    return good


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def verdict(text: str, met: bool) -> bool:
    say(f"  {'met   ' if met else 'MISSED'} {text}")
    return met


if __name__ == "__main__":
    sys.exit(main())

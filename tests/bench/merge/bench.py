"""Merge a playlist of MPEG-TS segments into an mp4: biliupd, everything it verifies included, and plain ffmpeg in turn.

    .venv/bin/python tests/bench/merge/bench.py --size 1GiB --rounds 3

The segments are real H.264 and AAC, 1080p at 6 Mbit/s as sites send it: a clip of noisy pictures, encoded once and
repeated with timestamps that go on.
ffmpeg runs `-i index.m3u8 -c copy out.mp4`. Both outputs lie in the same directory and are removed between rounds. One
row is without, one with an fsync of ffmpeg's output, which biliupd always does. Only ratios of one run mean something.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT)]

from loguru import logger  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from biliupd.config import EditConfig  # noqa: E402
from biliupd.edit.ffmpeg import NICENESS, Ffmpeg  # noqa: E402
from biliupd.edit.merge import merge  # noqa: E402

AIM = 1.2
CLIP_SECONDS = 20
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}
NAMES = {"ours": "biliupd", "plain": "ffmpeg -c copy", "synced": "ffmpeg -c copy, fsync"}

console = Console()


def make_playlist(directory: Path, size_bytes: int) -> tuple[Path, int]:
    """About so many bytes of segments of 4 s; the playlist and the true size."""
    clip, playlist = directory / "clip.mp4", directory / "show" / "index.m3u8"
    playlist.parent.mkdir()
    _ffmpeg("-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30,noise=alls=12:allf=t", "-f", "lavfi", "-i", "sine",
            "-t", str(CLIP_SECONDS), "-c:v", "libx264", "-preset", "veryfast", "-b:v", "6M", "-maxrate", "6M",
            "-bufsize", "12M", "-g", "60", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "160k", str(clip))
    again = max(size_bytes // clip.stat().st_size - 1, 0)
    _ffmpeg("-stream_loop", str(again), "-i", str(clip), "-c", "copy", "-f", "hls", "-hls_time", "4", "-hls_list_size",
            "0", "-hls_segment_filename", str(playlist.parent / "%05d.ts"), str(playlist))
    return playlist, sum(path.stat().st_size for path in playlist.parent.glob("*.ts"))


def run_ours(playlist: Path, output: Path) -> None:
    """What the worker of the pipeline calls."""
    merge(playlist, output, Ffmpeg(EditConfig(), threading.Event()))


def run_plain(playlist: Path, output: Path) -> None:
    """What a person would type."""
    _ffmpeg("-i", str(playlist), "-c", "copy", str(output))


def run_synced(playlist: Path, output: Path) -> None:
    """The same, safe on disk."""
    run_plain(playlist, output)
    with open(output, "rb") as file:
        os.fsync(file.fileno())


def measure(name: str, playlist: Path, output: Path) -> dict[str, float]:
    """Wall and CPU seconds of one run in a process of its own, which starts after all older pages are written."""
    os.sync()
    script = f"import sys; sys.path[:0] = [{os.fspath(Path(__file__).parent)!r}]; import bench; bench.child()"
    told = subprocess.run([sys.executable, "-c", script, name, str(playlist), str(output)], check=True,
                          capture_output=True, text=True).stdout
    output.unlink()
    return dict(json.loads(told))


def child() -> None:
    """One run; prints its figures. All run with the priority that biliupd gives its ffmpeg."""
    logger.remove()
    os.nice(NICENESS)
    _, name, playlist, output = sys.argv
    before, began_at = _cpu_seconds(), time.monotonic()
    {"ours": run_ours, "plain": run_plain, "synced": run_synced}[name](Path(playlist), Path(output))
    figures = {"wall": time.monotonic() - began_at, "cpu": _cpu_seconds() - before}
    sys.stdout.write(json.dumps(figures))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _ffmpeg(*args: str) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *args], check=True)


def main() -> int:
    """Exit code 1: an aim was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="1GiB", help="of all segments, such as 256MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None, help="where the files lie; empty: the temporary one")
    options = parser.parse_args()
    number, unit = options.size[:-3], options.size[-3:]
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        directory = Path(name)
        playlist, size_bytes = make_playlist(directory, int(float(number) * UNITS[unit]))
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
        for _ in range(options.rounds):
            for name in NAMES:
                runs[name].append(measure(name, playlist, directory / "out.mp4"))
    medians = {name: {key: statistics.median(run[key] for run in done) for key in ("wall", "cpu")}
               for name, done in runs.items()}
    table = Table("", "wall s", "CPU s", "biliupd / it: wall", "CPU",
                  title=f"{size_bytes / (1 << 20):.0f} MiB of segments, {options.rounds} rounds, medians")
    for name, label in NAMES.items():
        own, other = medians["ours"], medians[name]
        table.add_row(label, f"{other['wall']:.2f}", f"{other['cpu']:.2f}", f"{own['wall'] / other['wall']:.2f}",
                      f"{own['cpu'] / other['cpu']:.2f}")
    console.print(table)
    ratio = medians["ours"]["wall"] / medians["plain"]["wall"]
    said = "met" if ratio <= AIM else "missed"
    console.print(f"aim: at most {AIM} of plain ffmpeg's wall time; {said} at {ratio:.2f}")
    return int(ratio > AIM)


if __name__ == "__main__":
    sys.exit(main())

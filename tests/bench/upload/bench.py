"""Upload a large file over TLS to a sink on loopback: biliupd, curl and biliup 1.2.9 in turn, each a process.

    .venv/bin/python tests/bench/upload/bench.py --size 1GiB --rounds 3

Parts of 10 MiB, three at a time. The member API is the stand-in behind a CONNECT proxy, where both clients look for
the real hosts; the parts go straight to the sink. curl sends only the parts, from files cut beforehand. Only ratios of
one run mean something: the sink shares the processors.
"""

import argparse
import json
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "publish")]

import trustme  # noqa: E402
from connect_proxy import HOSTS, ConnectProxy  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from biliupd.rehearsal.bilibili import Bilibili  # noqa: E402

CHUNK_BYTES = 10 << 20
PARALLEL = 3
VERSION = "1.2.9"
AIMS = {"throughput": 1.2, "cpu": 0.9, "peak": 0.5}
SMALL_BYTES = 1 << 20
KEYS = ("wall_seconds", "cpu_seconds", "peak_bytes")
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}

console = Console()
Run = dict[str, Any]


class Ground:
    """The servers, certificates and files that every client gets."""

    def __init__(self, directory: Path, size: int, stack: ExitStack) -> None:
        self.directory, self.size = directory, size
        authority = trustme.CA()
        leaf = authority.issue_cert(*HOSTS)
        self.ca_file, self._leaf_file = directory / "ca.pem", directory / "leaf.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        leaf.private_key_and_cert_chain_pem.write_to_path(str(self._leaf_file))
        self.sink_port = stack.enter_context(self._sink())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        leaf.configure_cert(context)
        self.bilibili = stack.enter_context(self._member())
        host, _, port = self.bilibili.address.rpartition(":")
        proxy = ConnectProxy(context, (host, int(port)))
        stack.callback(proxy.close)
        self.cookies = self.bilibili.write_cookies(directory / "cookies.json")
        self.file, self.small = directory / "recording.mp4", directory / "small.mp4"
        for path, count in ((self.file, size), (self.small, SMALL_BYTES)):
            _write(path, count)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(directory), "XDG_DATA_HOME": str(directory / "share"),
            "HTTPS_PROXY": proxy.url, "NO_PROXY": "127.0.0.1", "SSL_CERT_FILE": str(self.ca_file), "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT)}

    @contextmanager
    def _sink(self) -> Iterator[int]:
        with subprocess.Popen([sys.executable, str(HERE / "sink.py"), str(self._leaf_file)],
                              stdout=subprocess.PIPE, text=True) as sink:
            assert sink.stdout
            try:
                yield int(sink.stdout.readline())
            finally:
                sink.terminate()

    @contextmanager
    def _member(self) -> Iterator[Bilibili]:
        server = Bilibili(self.directory / "bilibili")
        server.submit_interval_seconds = server.same_title_seconds = 0
        server.endpoints = [f"127.0.0.1:{self.sink_port}"]
        answer = server.objects.preupload

        def preupload(*arguments: Any) -> Any:
            """The parts never come here, and yet the submission is to be taken."""
            given = answer(*arguments)
            for stored in server.objects.all():
                stored.completed = True
            return given

        server.objects.preupload = preupload  # type: ignore[method-assign]
        server.start()
        try:
            yield server
        finally:
            server.close()

    def received_bytes(self) -> int:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        handlers = (urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
        with urllib.request.build_opener(*handlers).open(f"https://127.0.0.1:{self.sink_port}/received") as answer:
            return int(json.load(answer))

    def run(self, name: str, argv: list[str], size: int) -> Run:
        """One client, once. Raises RuntimeError when it failed or not every byte came."""
        output = self.directory / "output.txt"
        self.received_bytes()
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-s", str(HERE / "measure.py"), str(output), *argv], env=self.environment,
            cwd=self.directory, capture_output=True, text=True, check=True)
        run: Run = json.loads(done.stdout)
        said = output.read_text(errors="replace")
        got = self.received_bytes()
        if run["status"] or got != size:
            raise RuntimeError(f"{name}: exit {run['status']}, {got} of {size} bytes came: {said[-2000:]}")
        return run


def _write(path: Path, count: int) -> None:
    block, left = os.urandom(16 << 20), count
    with path.open("wb") as file:
        while left:
            left -= file.write(block[:min(left, len(block))])


def biliupd(ground: Ground, file: Path) -> list[str]:
    return [sys.executable, str(HERE / "ours.py"), str(ground.cookies), str(file)]


def biliup(ground: Ground, file: Path) -> list[str]:
    home = ROOT / ".venv-biliup"
    program = home / "bin" / "biliup"
    if not program.exists():
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "-q", f"biliup=={VERSION}"], check=True)
    return [str(program), "-u", str(ground.cookies), "upload", "--line", "tx", "--limit", str(PARALLEL), "--title", "b",
            "--tag", "b", str(file)]


def curl(ground: Ground, file: Path) -> list[str]:
    parts, config = file.with_suffix(".parts"), file.with_suffix(".conf")
    lines = ["parallel", f"parallel-max = {PARALLEL}", "http1.1", f'cacert = "{ground.ca_file}"', "silent", "fail",
             "show-error", 'noproxy = "127.0.0.1"', 'header = "Expect:"']
    if not parts.exists():
        parts.mkdir()
        with file.open("rb") as whole:
            for number in range(-(-file.stat().st_size // CHUNK_BYTES)):
                (parts / f"{number:05}").write_bytes(whole.read(CHUNK_BYTES))
    for part in sorted(parts.iterdir()):
        lines += [f'upload-file = "{part}"', f'url = "https://127.0.0.1:{ground.sink_port}/x?partNumber={part.name}"',
                  'output = "/dev/null"']
    config.write_text("\n".join(lines))
    return ["curl", "--disable", "--config", str(config)]


def measured(ground: Ground, rounds: int) -> dict[str, list[Run]]:
    """For each client its runs; `extra_…` is what the large file took more than the small one."""
    clients: dict[str, Callable[[Ground, Path], list[str]]] = {"biliupd": biliupd, "biliup": biliup}
    if shutil.which("curl"):
        clients["curl"] = curl
    else:
        console.print("no curl here: left out")
    runs: dict[str, list[Run]] = {name: [] for name in clients}
    for number in range(rounds):
        for name in sorted(clients, reverse=bool(number % 2)):
            small = ground.run(name, clients[name](ground, ground.small), SMALL_BYTES)
            large = ground.run(name, clients[name](ground, ground.file), ground.size)
            runs[name].append(large | {f"extra_{key}": large[key] - small[key] for key in KEYS})
            wall, cpu, peak = (large[key] for key in KEYS)
            console.print(f"round {number + 1} {name:8} {wall:6.2f} s wall {cpu:6.2f} s CPU {peak / 2**20:6.1f} MiB")
    return runs


def show(runs: dict[str, list[Run]], size: int) -> bool:
    """Print the tables and verdicts; whether the whole process meets every aim against biliup."""
    whole = _judged("whole processes", _table("whole processes", runs, size, ""))
    _judged("less a file of 1 MiB", _table("less a file of 1 MiB", runs, size, "extra_"))
    return whole


def _judged(title: str, ratios: tuple[float, float, float]) -> bool:
    speed, cpu, peak = ratios
    verdicts = {
        f"throughput {speed:.2f}, wanted ≥ {AIMS['throughput']} × biliup": speed >= AIMS["throughput"],
        f"CPU {cpu:.2f}, wanted ≤ {AIMS['cpu']} × biliup": cpu <= AIMS["cpu"],
        f"peak RSS {peak:.2f}, wanted ≤ {AIMS['peak']} × biliup": peak <= AIMS["peak"],
    }
    for aim, met in verdicts.items():
        console.print(f"{'met   ' if met else 'MISSED'} {title}: {aim}")
    return all(verdicts.values())


def _table(title: str, runs: dict[str, list[Run]], size: int, prefix: str) -> tuple[float, float, float]:
    """Print the medians of one set of figures; throughput, CPU and memory of biliupd against biliup."""
    def middle(name: str) -> tuple[float, ...]:
        return tuple(statistics.median(run[prefix + key] for run in runs[name]) for key in KEYS)

    table = Table(title=f"{title}: {size / 2**30:g} GiB, parts of 10 MiB, {PARALLEL} at a time, TLS; medians")
    for column in ("", "wall s", "MiB/s", "speed ×", "CPU s/GiB", "CPU ×", "RSS MiB", "RSS ×"):
        table.add_column(column, justify="right" if column else "left")
    peer, ours = middle("biliup"), (0.0, 0.0, 0.0)
    for name in runs:
        wall, cpu, peak = middle(name)
        ratios = (peer[0] / wall, cpu / peer[1], peak / peer[2])
        ours = ratios if name == "biliupd" else ours
        figures = (wall, size / 2**20 / wall, ratios[0], cpu * 2**30 / size, ratios[1], peak / 2**20, ratios[2])
        table.add_row(name, *(f"{figure:.2f}" for figure in figures))
    console.print(table)
    return ours


def bytes_of(text: str) -> int:
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * factor)
    raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512MiB or 1GiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=bytes_of, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where the files go: twice the size")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory, ExitStack() as stack:
        met = show(measured(Ground(Path(directory), options.size, stack), options.rounds), options.size)
    console.print(f"{time.monotonic() - began:.0f} s in all")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

"""A media server that misbehaves when told, a recorder to run against it, and a look at what it made."""

import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.broadcast import Broadcast
from biliupd.record.flv.tags import Parser, Tag
from biliupd.record.spec import Spec, Stream


def run_ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True)


def tags_of(raw: bytes) -> list[Tag]:
    parser = Parser()
    return parser.feed(raw) + parser.flush()


def complaints(path: Path) -> str:
    """What ffmpeg says when it decodes a file to the end."""
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-i", f"file:{path}", "-f", "null", "-"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stderr


def probe_seconds(path: Path) -> float:
    argv = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", f"file:{path}"]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


Answer = Callable[[BaseHTTPRequestHandler], None]


class MediaServer:
    """Answers each path by the function in `answers`; `requests` lists the paths asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []  # of the same requests
        self.released = threading.Event()  # set: those who keep silent go on
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                outer.requests.append(path)
                outer.headers.append(dict(self.headers))
                answer = outer.answers.get(path)
                if answer is None:
                    self.send_error(404)
                    return
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._server.block_on_close = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def body(self, content: bytes, kind: str = "video/x-flv") -> Answer:
        """The whole content, with its length."""
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        return answer

    def live(self, *pieces: bytes, silent: bool = False, pause: float = 0.0) -> Answer:
        """Pieces without a length, `pause` seconds between them; then the end, or silence until `released`."""
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
                self.released.wait(pause)
            if silent:
                self.released.wait(60)
            handler.close_connection = True
        return answer

    def in_turn(self, *answers: Answer) -> Answer:
        """Another answer for each request; the last one goes on."""
        left = list(answers)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            (left.pop(0) if len(left) > 1 else left[0])(handler)
        return answer

    def status(self, code: int) -> Answer:
        return lambda handler: handler.send_error(code)


class Recording:
    """A broadcast's folder and the recorder processes run in it."""

    def __init__(self, directory: Path, room: Path) -> None:
        self.directory = directory
        self._room = room
        self.processes: list[subprocess.Popen[str]] = []
        self.headers: dict[str, str] = {}  # sent with requests for media

    def start(self, url: str, protocol: str = "flv", preexec: Callable[[], None] | None = None,
              **settings: object) -> "subprocess.Popen[str]":
        spec = Spec(str(self.directory), **{  # type: ignore[arg-type]
            "streams": (Stream(url, protocol, self.headers),),
            "reconnect_seconds": 1.5, "stall_seconds": 3.0, **settings})
        path = self._room / "spec.json"
        specs.write(path, spec)
        log = (self._room / "recorder.log").open("a")
        process = subprocess.Popen([sys.executable, "-m", "biliupd.record.recorder", str(path)], stderr=log, text=True,
                                   preexec_fn=preexec)
        log.close()
        self.processes.append(process)
        return process

    def run(self, url: str, protocol: str = "flv", **settings: object) -> int:
        """Record until the recorder ends by itself; its exit code."""
        return self.start(url, protocol, **settings).wait(30)

    @property
    def broadcast(self) -> Broadcast:
        found = broadcasts.read(self.directory)
        assert found is not None
        return found

    @property
    def log(self) -> str:
        return (self._room / "recorder.log").read_text()

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir() if path.name != "broadcast.json")

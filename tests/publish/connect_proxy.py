"""A CONNECT proxy that ends TLS itself and hands the plain bytes to one loopback server, whatever host was asked for.

With HTTPS_PROXY and a private CA in SSL_CERT_FILE, programs that know only the real hosts talk to the stand-in.
"""

import contextlib
import socket
import ssl
import threading

HOSTS = ("*.bilibili.com", "*.bilivideo.com", "*.bilivideo.cn", "localhost", "127.0.0.1")


class ConnectProxy:
    """Listens on loopback; `targets` are the host:port of every CONNECT."""

    def __init__(self, context: ssl.SSLContext, upstream: tuple[str, int]) -> None:
        self.targets: list[str] = []
        self._context = context
        self._upstream = upstream
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._start(self._accept)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            left = list(self._open)
        for connection in left:
            _shut(connection)
        for thread in list(self._threads):
            thread.join(5)

    def _start(self, target, *arguments) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._start(self._serve, self._listening.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                piece = client.recv(1)
                if not piece:
                    return
                head += piece
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            assert method == "CONNECT"
            self.targets.append(target)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with self._context.wrap_socket(client, server_side=True) as inside, \
                    socket.create_connection(self._upstream) as outside:
                with self._lock:
                    self._open += [inside, outside]
                back = threading.Thread(target=_pump, args=(outside, inside), daemon=True)
                back.start()
                _pump(inside, outside)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until either side ends, then end both, so that a reset on one side is seen on the other."""
    with contextlib.suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
    _shut(source)
    _shut(target)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)

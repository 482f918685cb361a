"""UPOS that reads and drops: as cheap as Python can make it, a process for each connection.

`python sink.py CERTIFICATE.pem` writes its port as the first line of stdout and serves until it is terminated. Answers
init, parts and complete over TLS; GET /received gives the bytes of all parts since the last such question.
"""

import json
import mmap
import os
import signal
import socket
import ssl
import struct
import sys

BUFFER_BYTES = 1 << 20
HEAD_BYTES = 64 << 10


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    received = mmap.mmap(-1, 8 * 4096)
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    number = 0
    while True:
        connection, _ = listening.accept()
        number = (number + 1) % 4096
        if os.fork():
            connection.close()
            continue
        try:
            listening.close()
            serve(context.wrap_socket(connection, server_side=True), received, number)
        except OSError:
            os._exit(1)
        os._exit(0)


def serve(connection: ssl.SSLSocket, received: mmap.mmap, number: int) -> None:
    buffer = memoryview(bytearray(BUFFER_BYTES))
    while True:
        end, count = 0, 0
        while end <= 0:
            some = connection.recv_into(buffer[count:HEAD_BYTES])
            if not some:
                return
            count += some
            end = bytes(buffer[:count]).find(b"\r\n\r\n")
        head = bytes(buffer[:end]).decode("latin-1")
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        length = int(headers.get("content-length", 0))
        left = length - (count - end - 4)
        while left > 0:
            some = connection.recv_into(buffer[:min(left, BUFFER_BYTES)])
            if not some:
                return
            left -= some
        body = b"{}"
        if method == "PUT":
            add(received, number, length)
            body = b"MULTIPART_PUT_SUCCESS"
        elif "uploadId=" in target:
            body = b'{"OK":1,"location":"x","bucket":"x","key":"/x"}'
        elif "uploads" in target:
            body = b'{"OK":1,"bucket":"x","key":"/x","upload_id":"0f1e2d3c-4b5a-4697-8899-aabbccddeeff"}'
        elif target == "/received":
            body = json.dumps(total_and_reset(received)).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                           + str(len(body)).encode() + b"\r\n\r\n" + body)


def add(received: mmap.mmap, number: int, count: int) -> None:
    """Each connection has a place of its own, so that none waits for another."""
    known, = struct.unpack_from("q", received, 8 * number)
    struct.pack_into("q", received, 8 * number, known + count)


def total_and_reset(received: mmap.mmap) -> int:
    total = sum(struct.unpack("4096q", received[:]))
    received[:] = bytes(8 * 4096)
    return total


if __name__ == "__main__":
    main()

"""The server of the benchmark: one process that sends every client the same FLV file, or HLS segments, in real time.

`python source.py CLIP.flv SEGMENTS_DIRECTORY SECONDS`: prints its port. Paced by its own clock, one tag batch every
`STEP_SECONDS`, so that all recorders get the same bytes at the same moments.
"""

import asyncio
import sys
import time
from pathlib import Path

STEP_SECONDS = 0.04
SEGMENT_SECONDS = 2.0
WINDOW = 6


def pieces(raw: bytes) -> list[bytes]:
    """The file cut at tags, as much as each step of real time holds."""
    found, at, begin, step = [], 13, 0, 0
    while at < len(raw):
        size = int.from_bytes(raw[at + 1: at + 4], "big")
        time_ms = int.from_bytes(raw[at + 7: at + 8] + raw[at + 4: at + 7], "big")
        if time_ms >= (step + 1) * STEP_SECONDS * 1000:
            found.append(raw[begin:at])
            begin, step = at, step + 1
        at += size + 15
    return [*found, raw[begin:]]


class Source:
    def __init__(self, clip: Path, segments: Path) -> None:
        self.pieces = pieces(clip.read_bytes())
        self.segments = [path.read_bytes() for path in sorted(segments.glob("*.ts"))]
        self.began = time.monotonic()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                path = request.split(b" ", 2)[1].decode()
                if path.endswith(".flv"):
                    await self.flv(writer)
                    return
                await self.hls(path, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def flv(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nConnection: close\r\n\r\n")
        began = time.monotonic()
        for number, piece in enumerate(self.pieces):
            writer.write(piece)
            await writer.drain()
            left = began + (number + 1) * STEP_SECONDS - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)

    async def hls(self, path: str, writer: asyncio.StreamWriter) -> None:
        now = int((time.monotonic() - self.began) / SEGMENT_SECONDS)
        last = min(now, len(self.segments))
        if path.endswith(".m3u8"):
            first = max(0, last - WINDOW)
            lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{SEGMENT_SECONDS:.0f}",
                     f"#EXT-X-MEDIA-SEQUENCE:{first}"]
            for number in range(first, last):
                lines += [f"#EXTINF:{SEGMENT_SECONDS:.3f},", f"{number}.ts"]
            if last == len(self.segments):
                lines.append("#EXT-X-ENDLIST")
            body, kind = ("\n".join(lines) + "\n").encode(), "application/vnd.apple.mpegurl"
        else:
            body, kind = self.segments[int(path.rsplit("/", 1)[-1].removesuffix(".ts"))], "video/mp2t"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()


async def main(clip: str, segments: str) -> None:
    source = Source(Path(clip), Path(segments))
    server = await asyncio.start_server(source.answer, "127.0.0.1", 0, limit=1 << 20)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))

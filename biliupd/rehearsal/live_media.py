"""The encoders behind the stand-in live site: one small ffmpeg in real time for each room, and its output read as tags.

A reader thread of the site runs `read_flv` or `read_mp4` on what its ffmpeg writes to a pipe. Each ffmpeg lives exactly
as long as another pipe that this process holds open, so none outlives it, whatever happens to it.
"""

import contextlib
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

AUDIO, VIDEO, SCRIPT = 8, 9, 18
HLS_SEGMENT_SECONDS = 1
HLS_KEPT = 60  # segments on the disk, many more than a playlist names
MEDIA_DEADLINE_SECONDS = 20.0
_KEEP_RUNNING = '"$@" & exec >&-; read -r _; kill $! 2>/dev/null; wait $!'  # ends ffmpeg once our pipe is closed

Protocol = Literal["flv", "hls", "dash"]
Codec = Literal["avc", "hevc", "hvc1"]


class Tag(NamedTuple):
    """An FLV tag of an encoder. `header`: metadata or a sequence header."""

    kind: int
    milliseconds: int
    body: bytes
    header: bool
    keyframe: bool


@dataclass(frozen=True)
class Media:
    """What an encoder makes. `sizes`: more than one makes as many variants of one HLS stream, the best first.

    `codec`: hevc goes into FLV tags as the Chinese extension has it (codec 12), hvc1 as Enhanced RTMP does.
    """

    protocol: Protocol
    sizes: tuple[str, ...] = ("640x360",)
    fps: int = 25
    codec: Codec = "avc"
    sample_rate: int = 44100
    container: Literal["ts", "fmp4"] = "ts"


class Encoder:
    """One running ffmpeg. `run` is its number: no two of a room show the same picture or sound the same tone."""

    def __init__(self, ffmpeg: str, media: Media, directory: Path, name: str, run: int) -> None:
        """`directory` and `name`: where HLS segments go and how they begin. Raises `OSError`."""
        self.media = media
        self.log = directory / f"{name}-ffmpeg.log"
        suffix = "mpd" if media.protocol == "dash" else "m3u8"
        self.playlists = [directory / f"{name}-{run}-{n}.{suffix}" for n in range(len(media.sizes))]
        argv = ["sh", "-c", _KEEP_RUNNING, "sh", *self._argv(ffmpeg, run)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self._process.stdout
        self.output: IO[bytes] = self._process.stdout

    def tags(self) -> Iterator[Tag]:
        """The tags it writes to its pipe, until it ends: FLV or, for HEVC, mp4. Of HLS there are none."""
        if self.media.codec == "avc":
            return read_flv(self.output)
        return read_mp4(self.output, enhanced=self.media.codec == "hvc1")

    def end(self) -> None:
        """Let go of the pipe that keeps it running and wait until it has written its last byte."""
        if self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdin = None

    def _argv(self, ffmpeg: str, run: int) -> list[str]:
        """A test picture with a running clock and a beep, in real time; a keyframe every second."""
        media, fps = self.media, str(self.media.fps)
        picture = f"testsrc2=size={media.sizes[0]}:rate={fps}" + (f",hue=h={run * 47}" if run else "")
        tone = f"sine=frequency={440 + 110 * (run % 8)}:beep_factor=4:sample_rate={media.sample_rate}"
        argv = [ffmpeg, "-hide_banner", "-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", picture]
        argv += ["-re", "-f", "lavfi", "-i", tone]
        if media.codec == "avc":
            video = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-threads", "1",
                     "-keyint_min", fps, "-sc_threshold", "0"]  # fmt: skip
        else:
            video = ["-c:v", "libx265", "-preset", "ultrafast", "-tag:v", "hvc1", "-x265-params",
                     f"log-level=error:bframes=0:keyint={fps}:min-keyint={fps}:scenecut=0:open-gop=0:rc-lookahead=0:"
                     "pools=1:frame-threads=1"]  # fmt: skip
        coding = [*video, "-pix_fmt", "yuv420p", "-b:v", "600k", "-g", fps, "-c:a", "aac", "-b:a", "64k"]
        if media.protocol == "hls":
            for n, (size, playlist) in enumerate(zip(media.sizes, self.playlists, strict=True)):
                scaled = ["-vf", f"scale={size.replace('x', ':')}"] if n else []
                argv += ["-map", "0:v", "-map", "1:a", *scaled, *coding, *_hls(media, playlist)]
            return argv
        if media.protocol == "dash":
            return [*argv, *coding, *_dash(self.playlists[0])]
        if media.codec == "avc":
            return [*argv, *coding, "-flvflags", "no_duration_filesize", "-flush_packets", "1", "-f", "flv", "pipe:1"]
        return [*argv, *coding, "-movflags", "frag_every_frame+empty_moov+default_base_moof", "-flush_packets", "1",
                "-f", "mp4", "pipe:1"]  # fmt: skip


def _hls(media: Media, playlist: Path) -> list[str]:
    suffix = "m4s" if media.container == "fmp4" else "ts"
    argv = ["-f", "hls", "-hls_time", str(HLS_SEGMENT_SECONDS), "-hls_list_size", str(HLS_KEPT)]
    argv += ["-hls_delete_threshold", "3", "-hls_flags", "delete_segments+temp_file+program_date_time"]
    if media.container == "fmp4":
        argv += ["-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", f"{playlist.stem}.mp4"]
    return [*argv, "-hls_segment_filename", str(playlist.with_name(f"{playlist.stem}-%05d.{suffix}")), str(playlist)]


def _dash(manifest: Path) -> list[str]:
    argv = ["-f", "dash", "-seg_duration", str(HLS_SEGMENT_SECONDS), "-window_size", "6"]
    argv += ["-extra_window_size", str(HLS_KEPT), "-init_seg_name", f"{manifest.stem}-i$RepresentationID$.m4s"]
    return [*argv, "-media_seg_name", f"{manifest.stem}-$RepresentationID$-$Number%05d$.m4s", str(manifest)]


def read_flv(stream: IO[bytes]) -> Iterator[Tag]:
    """The tags of an FLV stream (FLV specification, annex E), until it ends."""
    header = stream.read(13)
    while len(header) == 13 and len(head := stream.read(11)) == 11:
        size = int.from_bytes(head[1:4], "big")
        body = stream.read(size + 4)[:size]
        if len(body) < size:
            return
        kind, at = head[0] & 0x1F, int.from_bytes(head[4:7], "big") | head[7] << 24
        yield _tag(kind, at, body)


def _tag(kind: int, milliseconds: int, body: bytes) -> Tag:
    start = body[:1]
    if kind == VIDEO and start >= b"\x80":  # Enhanced RTMP: packet type in the low half
        header = start[0] & 0x0F == 0
        return Tag(kind, milliseconds, body, header, not header and start[0] >> 4 & 7 == 1)
    header = kind == SCRIPT or body[1:2] == b"\0"
    return Tag(kind, milliseconds, body, header, kind == VIDEO and not header and body[0] >> 4 == 1)


def read_mp4(stream: IO[bytes], *, enhanced: bool) -> Iterator[Tag]:
    """HEVC and AAC of a fragmented mp4 with one frame in each fragment, as FLV tags: ffmpeg 5.1 cannot write those."""
    rates: list[int] = []
    track, at = 1, 0
    while len(head := stream.read(8)) == 8:
        content = stream.read(int.from_bytes(head[:4], "big") - 8)
        if head[4:] == b"moov":
            rates = [int.from_bytes(content[n + 16 : n + 20], "big") for n in _places(content, b"mdhd")]
            picture, sound = _box(content, b"hvcC"), _box(content, b"esds")
            specific = sound.index(b"\x05\x80\x80\x80") + 4  # ISO 14496-1: DecoderSpecificInfo and its length
            yield _tag(VIDEO, 0, _hevc(picture, 0, True, enhanced))
            yield _tag(AUDIO, 0, b"\xaf\0" + sound[specific + 1 : specific + 1 + sound[specific]])
        elif head[4:] == b"moof":
            track = struct.unpack_from(">I", _box(content, b"tfhd"), 4)[0]
            at = struct.unpack_from(">Q", _box(content, b"tfdt"), 4)[0]
        elif head[4:] == b"mdat":
            milliseconds = at * 1000 // rates[track - 1]
            if track == 1:
                yield _tag(VIDEO, milliseconds, _hevc(content, 1, _random_access(content), enhanced))
            else:
                yield _tag(AUDIO, milliseconds, b"\xaf\x01" + content)


def _hevc(content: bytes, packet: int, keyframe: bool, enhanced: bool) -> bytes:
    frame = 1 if keyframe else 2
    if enhanced:
        return bytes([0x80 | frame << 4 | packet]) + b"hvc1" + (b"\0\0\0" if packet else b"") + content
    return bytes([frame << 4 | 12, packet, 0, 0, 0]) + content


def _random_access(sample: bytes) -> bool:
    """Whether one of its NAL units (length first) is an IRAP picture: types 16 to 21."""
    place = 0
    while place + 5 <= len(sample):
        if 16 <= sample[place + 4] >> 1 & 0x3F <= 21:
            return True
        place += 4 + int.from_bytes(sample[place : place + 4], "big")
    return False


def _places(content: bytes, name: bytes) -> Iterator[int]:
    place = content.find(name)
    while place >= 0:
        yield place
        place = content.find(name, place + 4)


def _box(content: bytes, name: bytes) -> bytes:
    """What is in the first box of that name, which must not occur in any payload before it."""
    place = content.index(name)
    return content[place + 4 : place - 4 + int.from_bytes(content[place - 4 : place], "big")]

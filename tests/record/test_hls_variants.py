"""Which variant of a master playlist is recorded."""

from dataclasses import replace

import pytest

from biliupd.record.hls.variants import choose, family
from biliupd.record.playlist import MasterPlaylist, parse
from biliupd.record.spec import Spec, Stream

SPEC = Spec("/nowhere", (Stream("http://host/m.m3u8", "hls"),))
MASTER = """#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="second",URI="a2.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="first",DEFAULT=YES,URI="a1.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="own",NAME="in the picture's"
#EXT-X-STREAM-INF:BANDWIDTH=8000000,RESOLUTION=2560x1440,FRAME-RATE=60,CODECS="hvc1.1.6,mp4a.40.2",AUDIO="a"
1440-hevc.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=6000000,RESOLUTION=1920x1080,FRAME-RATE=60,CODECS="avc1.64,mp4a.40.2",AUDIO="own"
1080.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=6000000,RESOLUTION=1920x1080,FRAME-RATE=60,CODECS="avc1.64,mp4a.40.2",AUDIO="own"
1080-backup.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=5000000,RESOLUTION=1920x1080,FRAME-RATE=60,CODECS="av01.0.1,mp4a.40.2"
1080-av1.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=1500000,RESOLUTION=854x480,FRAME-RATE=30,CODECS="avc1.4d,mp4a.40.2"
480.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=160000,CODECS="mp4a.40.2"
sound.m3u8
"""


@pytest.mark.parametrize(("wanted", "names", "audio", "warns"), [
    ({}, ["1440-hevc"], "a1", False),
    ({"max_height": 1080}, ["1080", "1080-backup"], "", False),
    ({"codecs": ("avc",)}, ["1080", "1080-backup"], "", False),
    ({"max_height": 1080, "codecs": ("av1", "avc")}, ["1080-av1"], "", False),
    ({"max_bitrate": 2_000_000}, ["480"], "", False),
    ({"max_height": 720}, ["480"], "", False),
])
def test_the_best_variant_within_the_limits_is_taken(
        wanted: dict[str, object], names: list[str], audio: str, warns: bool) -> None:
    master = parse(MASTER, "http://host/x/")
    assert isinstance(master, MasterPlaylist)
    choice = choose(master, replace(SPEC, **wanted))  # type: ignore[arg-type]
    assert [address.rsplit("/", 1)[-1] for address in choice.addresses] == [f"{name}.m3u8" for name in names]
    assert choice.audio == (f"http://host/x/{audio}.m3u8" if audio else "")
    assert bool(choice.warning) == warns


@pytest.mark.parametrize(("wanted", "name"), [
    ({"max_height": 240}, "480"), ({"max_bitrate": 1000}, "480"), ({"codecs": ("vvc",)}, "1440-hevc"),
    ({"codecs": ("hevc",), "max_height": 1080}, "1440-hevc")])
def test_when_nothing_is_within_the_limits_the_closest_is_taken_with_a_warning(
        wanted: dict[str, object], name: str) -> None:
    master = parse(MASTER, "http://host/x/")
    assert isinstance(master, MasterPlaylist)
    choice = choose(master, replace(SPEC, **wanted))  # type: ignore[arg-type]
    assert choice.addresses[0] == f"http://host/x/{name}.m3u8"
    assert "the closest is" in choice.warning


@pytest.mark.parametrize(("codecs", "kind"), [
    ("avc1.64001f,mp4a.40.2", "avc"), ("mp4a.40.2, avc3.4d", "avc"), ("hev1.1", "hevc"), ("hvc1.2", "hevc"),
    ("av01.0.08M.08", "av1"), ("vp09.00", "vp9"), ("mp4a.40.2", "sound"), ("", "")])
def test_codecs_have_families(codecs: str, kind: str) -> None:
    assert family(codecs) == kind

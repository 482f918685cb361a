"""A recorder process against a media server: FLV."""

from pathlib import Path

from recording_support import MediaServer, Recording, complaints, probe_seconds, tags_of

from biliupd.record.flv import AUDIO, VIDEO, Role, look_at
from biliupd.record.spec import Exit


def payloads(raw: bytes, kind: int) -> list[bytes]:
    return [tag.body for tag in tags_of(raw) if tag.type == kind and look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)]


def test_a_stream_that_ends_becomes_one_whole_file(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(server.live(clip), server.status(404))
    assert recording.run(server.url + "/live.flv?token=secret") == Exit.NEEDS_URL
    assert recording.names == ["P001.flv"]
    made = recording.directory / "P001.flv"
    assert complaints(made) == ""
    assert abs(probe_seconds(made) - 12) < 0.2
    for kind in (VIDEO, AUDIO):
        assert payloads(made.read_bytes(), kind) == payloads(clip, kind)
    broadcast = recording.broadcast
    assert broadcast.exit == "needs_url"
    assert broadcast.figures.bytes == made.stat().st_size
    assert broadcast.last_media_at
    assert "secret" not in recording.log

"""What `biliupd selftest` plays: each scenario is a broadcast, what happens to it, and what has to come of it.

Data only. Times are seconds since the recorder got its first media.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FLV: dict[str, Any] = {"protocol": "flv"}
HLS: dict[str, Any] = {"protocol": "hls"}
DASH: dict[str, Any] = {"protocol": "dash"}


@dataclass(frozen=True)
class Step:
    """At `at` seconds (negative: before it goes live) call `what` of the live site, with the room, or, with `stage.`
    before its name, of the stage."""

    at: float
    what: str
    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """`room`: arguments of LiveSite.add_room; `record`: settings that differ from the selftest's own.

    `rows`: causes of which each must be in the ledger; with a bar between them, one is enough. `losses`: what a row
    that something is missing may give as its cause. `files`: how many there must be. `unread_seconds`: of what the site
    sent so much may be missing all the same (a recorder was killed). `most_lost_seconds`: a recorder that reacts at
    once loses no more. `copied`: the files hold the very bytes that were sent; ffmpeg makes others. `small_disk`: on a
    file system of 24 MiB. `encoder`: the site's ffmpeg must have it.
    """

    name: str
    sentence: str
    room: Mapping[str, Any]
    steps: tuple[Step, ...] = ()
    seconds: float = 10.0
    rows: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    files: int = 1
    unread_seconds: float = 0.5
    most_lost_seconds: float = 60.0
    record: Mapping[str, Any] = field(default_factory=dict)
    copied: bool = True
    small_disk: bool = False
    encoder: str = "libx264"


def step(at: float, what: str, *arguments: Any, **named: Any) -> Step:
    return Step(at, what, arguments, named)


CUT = ("cut", "server-drop", "new-address")

SCENARIOS = (
    Scenario("slow", "a server sends half of real time, the other one is well", {**FLV, "edges": 2}, (
        step(4, "throttle", 25_000, edge=0),
    ), seconds=52, rows=("cdn-switch",), losses=("hole", "stall", *CUT)),
    Scenario("full-disk", "the disk fills up, and is emptied later", FLV, (
        step(3, "stage.fill_disk"), step(14, "stage.empty_disk"),
    ), seconds=26, rows=("no-space",), losses=("no-space",), files=2, unread_seconds=3.0, small_disk=True,
        record={"least_free": 3 << 20}),
    Scenario("steady", "nothing happens", FLV, seconds=8),
    Scenario("cut", "the connection is reset twice, in the middle of a tag", FLV, (
        step(4, "cut"), step(8, "cut"),
    ), seconds=12, rows=("seamless-join|cut",), losses=CUT, most_lost_seconds=2.5),
    Scenario("goodbye", "the server ends the connection in good order, the broadcast goes on", FLV, (
        step(4, "hang_up"),
    ), rows=("seamless-join|server-drop|cut",), losses=CUT, most_lost_seconds=1.5),
    Scenario("overlap", "a new connection begins with seven seconds that came already", FLV, (
        step(1, "overlap", 7), step(9, "cut"),
    ), seconds=14, rows=("seamless-join",)),
    Scenario("hole", "a new connection begins two seconds later", FLV, (
        step(1, "overlap", -2), step(5, "cut"),
    ), seconds=12, rows=("|".join(CUT),), losses=CUT),
    Scenario("stall", "the connection stays open and brings nothing for eight seconds", FLV, (
        step(4, "withhold"), step(12, "deliver"),
    ), seconds=18, rows=("stall|cut|hole|server-drop|new-address",), losses=("stall", "hole", *CUT)),
    Scenario("dead-server", "one of two servers falls silent", {**FLV, "edges": 2}, (
        step(4, "withhold", edge=0),
    ), seconds=18, rows=("stall|cdn-switch|seamless-join",), losses=("stall", *CUT), most_lost_seconds=5.0),
    Scenario("refused", "one of two servers resets and then answers 404", {**FLV, "edges": 2}, (
        step(4, "media_fails", 404, edge=0), step(4.1, "cut", edge=0),
    ), rows=("cdn-switch|seamless-join|cut|server-drop",), losses=CUT, most_lost_seconds=2.5),
    Scenario("forbidden", "addresses turn bad: 403 until the site is asked again", FLV, (
        step(4, "expire"), step(4.1, "cut"),
    ), rows=("seamless-join|new-address|cut",), losses=CUT, most_lost_seconds=4.0),
    Scenario("expiry", "addresses live for nine seconds, then the connection is cut; the site tells", FLV, (
        step(-1, "lifetime", 9.0, cuts=True),
    ), seconds=24, rows=("seamless-join|cdn-switch|new-address",), most_lost_seconds=0.5),
    Scenario("silent-expiry", "addresses live for seven seconds, and nobody tells", FLV, (
        step(-1, "lifetime", 7.0, cuts=True, told=False), step(1, "overlap", 5),
    ), seconds=18, rows=("seamless-join|new-address|cut",), losses=CUT),
    Scenario("page", "a web page with status 200 in the place of media, for five seconds", FLV, (
        step(4, "media_fails", 200), step(4.1, "cut"), step(9, "media_fails"),
    ), seconds=17, rows=("server-drop|new-address|cut",), losses=CUT),
    Scenario("error-500", "the media server answers 500 for four seconds", FLV, (
        step(4, "media_fails", 500), step(4.1, "cut"), step(8, "media_fails"),
    ), seconds=16, rows=("server-drop|new-address|cut",), losses=CUT),
    Scenario("api-412", "the site answers 412 while the connection is cut", FLV, (
        step(3, "api_fails", 412), step(4, "cut"), step(10, "api_fails"),
    ), seconds=13, rows=("seamless-join|cut",), losses=CUT),
    Scenario("jump", "timestamps jump by 30 seconds forth and back", FLV, (
        step(4, "jump", 30), step(7, "jump", -30),
    ), rows=("jump",)),
    Scenario("wrap", "timestamps overflow 24 bits, later 32", FLV, (
        step(2, "clock", (1 << 24) - 2500, bits=24), step(7, "clock", (1 << 32) - 2500),
    ), seconds=14, rows=("jump",)),
    Scenario("again", "groups of pictures come twice, also with other timestamps", FLV, (
        step(5, "resend", 3), step(9, "resend", 3, shift_seconds=9),
    ), seconds=14, rows=("dup",)),
    Scenario("headers", "sequence headers are repeated, and a second file header comes in mid-stream", FLV, (
        step(3, "repeat_headers"), step(6, "second_header"),
    )),
    Scenario("garbage", "bytes that are no media, and a script tag with a wild timestamp", FLV, (
        step(3, "garbage"), step(5, "script"), step(7, "garbage", 5000),
    ), rows=("garbage",)),
    Scenario("end-tag", "the tag that ends a sequence, and it goes on", FLV, (
        step(5, "end_of_sequence"),
    ), rows=("end-tag",), files=2),
    Scenario("size", "another picture size in mid-stream", FLV, (
        step(5, "change", size="192x108"),
    ), rows=("codec-change",), files=2),
    Scenario("codec", "AVC becomes HEVC, and AVC again", FLV, (
        step(4, "change", codec="hevc"), step(8, "change", codec="avc"),
    ), seconds=12, rows=("codec-change",), files=3, encoder="libx265"),
    Scenario("sound", "another sample rate in mid-stream", FLV, (
        step(5, "change", sample_rate=48000),
    ), rows=("codec-change",), files=2),
    Scenario("split", "a new file every four seconds", FLV, (), seconds=9, rows=("limit-split",), files=3,
             record={"split_seconds": 4}),
    Scenario("killed", "the recorder is killed", FLV, (
        step(5, "stage.kill_recorder"),
    ), seconds=13, rows=("restart|salvaged",), losses=("restart",), files=2, unread_seconds=2.5),
    Scenario("new-daemon", "three daemons, one after the other, during one broadcast", FLV, (
        step(4, "stage.new_daemon"), step(7, "stage.new_daemon"),
    )),
    Scenario("dash", "what only ffmpeg reads", DASH, seconds=12, copied=False, unread_seconds=3.0),
    Scenario("dash-cut", "what only ffmpeg reads, and the server is silent for eight seconds", DASH, (
        step(5, "withhold"), step(13, "deliver"),
    ), seconds=22, rows=("skipped-segment|stall|cut|server-drop|new-address|hole",),
        losses=("skipped-segment", "stall", "hole", *CUT), copied=False, unread_seconds=3.0),
    Scenario("hls", "low-latency tags, tokens that change with every reload, a discontinuity that is none", HLS, (
        step(0, "low_latency"), step(0, "rotate_tokens"), step(5, "discontinuity"),
    ), seconds=12, rows=("discontinuity",)),
    Scenario("hls-cut", "requests are reset", HLS, (
        step(4, "cut"), step(6, "cut"), step(6.1, "cut"),
    )),
    Scenario("hls-404", "two segments are never to be had", HLS, (
        step(4, "drop_segments", 2),
    ), seconds=14, rows=("skipped-segment",), losses=("skipped-segment",)),
    Scenario("hls-gap", "two segments are marked as a gap", HLS, (
        step(4, "drop_segments", 2, "gap"),
    ), seconds=12, rows=("gap-tag",), losses=("gap-tag",)),
    Scenario("hls-absent", "two segments are missing from the playlist", HLS, (
        step(4, "drop_segments", 2, "absent"),
    ), seconds=12, rows=("skipped-segment|hole",), losses=("skipped-segment", "hole")),
    Scenario("hls-reset", "the media sequence begins anew", HLS, (
        step(6, "reset_sequence"),
    ), seconds=14, rows=("reset",)),
    Scenario("hls-stale", "every other playlist is four segments old", HLS, (
        step(7, "stale", 4),
    ), seconds=14),
    Scenario("hls-frozen", "the playlist stands still for twelve seconds", HLS, (
        step(4, "freeze"), step(16, "freeze", False),
    ), seconds=24, rows=("skipped-segment|stall|new-address",),
        losses=("skipped-segment", "stall", "new-address")),
    Scenario("hls-silent", "the server takes requests and does not answer for ten seconds", HLS, (
        step(4, "withhold"), step(14, "deliver"),
    ), seconds=22, rows=("skipped-segment|stall|new-address",),
        losses=("skipped-segment", "stall", "new-address")),
    Scenario("hls-aes", "AES-128 with and without an initialization vector, then in clear", HLS, (
        step(3, "encrypt"), step(6, "encrypt", iv=False), step(9, "encrypt", False),
    ), seconds=14),
    Scenario("hls-ranges", "several segments in one resource, by byte ranges", HLS, (
        step(3, "byte_ranges"),
    ), seconds=12),
    Scenario("hls-fmp4", "fMP4; then another picture size, and so another init section", {**HLS, "container": "fmp4"}, (
        step(5, "change", size="192x108"),
    ), seconds=12, rows=("codec-change|variant-change|discontinuity",), files=2),
    Scenario("hls-variants", "two variants, of which settings allow the smaller one",
             {**HLS, "size": "192x108", "smaller": ("160x90",)}, record={"max_height": 100}),
    Scenario("hls-servers", "one of two servers forbids everything", {**HLS, "edges": 2}, (
        step(4, "media_fails", 403, edge=0),
    ), seconds=14, rows=("cdn-switch|new-address|seamless-join",)),
)  # fmt: skip

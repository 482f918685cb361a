"""Which variant of a master playlist is recorded.

Pure. Runs in the recorder process. Limits come from the spec; the best within them wins: the highest picture, then its
rate, the codec wanted most, the bandwidth. When nothing keeps to the limits, the closest to them does.
"""

from typing import NamedTuple

from biliupd.record.playlist import MasterPlaylist, Variant
from biliupd.record.spec import Spec

_FAMILIES = {"avc1": "avc", "avc3": "avc", "hvc1": "hevc", "hev1": "hevc", "dvh1": "hevc", "dvhe": "hevc",
             "av01": "av1", "vp09": "vp9"}
_SOUND = ("mp4a", "ac-3", "ec-3", "opus", "flac", "mp3")


class Choice(NamedTuple):
    """`addresses` of the same media, the first one to be used, the others when it fails.

    `audio`: that of its sound, when it comes in a playlist of its own, else empty. `label` says which variant it is,
    `warning` (empty: none) why it is not one of those wanted.
    """

    addresses: tuple[str, ...]
    audio: str = ""
    label: str = ""
    warning: str = ""


def choose(master: MasterPlaylist, spec: Spec) -> Choice:
    """The variant to record."""
    ranked = sorted(master.variants, key=lambda variant: _distance(variant, spec))
    best_distance = _distance(ranked[0], spec)
    close = [variant for variant in ranked if _distance(variant, spec) == best_distance]
    best = max(close, key=lambda variant: _quality(variant, spec, master))
    same = [variant for variant in close if variant[1:6] == best[1:6]]
    audio = master.audio.get(best.audio, "")
    label = " ".join(text for text in (
        f"{best.width}x{best.height}" if best.height else "", f"{best.frame_rate:g}/s" if best.frame_rate else "",
        best.codecs, f"{best.bandwidth} bit/s" if best.bandwidth else "") if text)
    wanted = best_distance[0] or not any(best_distance)  # of sound alone nothing was wanted
    return Choice(tuple(dict.fromkeys([best.uri, *(variant.uri for variant in same)])),
                  "" if audio == best.uri else audio, label,
                  "" if wanted else f"no variant is as wanted, the closest is {label}")


def family(codecs: str) -> str:
    """avc, hevc, av1 or another kind of picture; "sound" when there is none, empty when nobody said."""
    kinds = [text.strip().lower().partition(".")[0] for text in codecs.split(",") if text.strip()]
    pictures = [kind for kind in kinds if kind not in _SOUND]
    if pictures:
        return _FAMILIES.get(pictures[0], pictures[0])
    return "sound" if kinds else ""


def _distance(variant: Variant, spec: Spec) -> tuple[bool, bool, int, int]:
    """How far it is from what the spec wants: no picture at all is worst, then another codec, too high, too much."""
    kind = family(variant.codecs)
    too_high = max(0, variant.height - spec.max_height) if spec.max_height else 0
    too_much = max(0, variant.bandwidth - spec.max_bitrate) if spec.max_bitrate else 0
    return kind == "sound", bool(kind and spec.codecs and kind not in spec.codecs), too_high, too_much


def _quality(variant: Variant, spec: Spec, master: MasterPlaylist) -> tuple[int, float, int, int, bool]:
    kind = family(variant.codecs)
    order = -spec.codecs.index(kind) if kind in spec.codecs else 0
    return variant.height, variant.frame_rate, order, variant.bandwidth, variant.audio not in master.audio

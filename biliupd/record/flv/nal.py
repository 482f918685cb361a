"""Look into H.264 pictures: take filler out, and find parameter sets that were sent without a sequence header.

Pure. Runs in the recorder process, before tags are compared with one another. Some hosts pad to a constant bitrate with
filler (NAL type 12). Some encoders change the picture's size and say so only within a keyframe; a player that knows the
old sequence header shows grey from there on. Source: ISO/IEC 14496-15, 5.3 (avcC), and ITU-T H.264, table 7-1.
"""

from collections.abc import Iterable, Iterator

from biliupd.record.flv.tags import VIDEO, Role, Tag, look_at

FILLER, SPS, PPS, SLICES = 12, 7, 8, (1, 5)


class Pictures:
    """Feed it the tags of one connection, in order."""

    def __init__(self) -> None:
        self._config = b""

    def feed(self, tags: Iterable[Tag]) -> list[Tag]:
        """The same tags without filler, and with a sequence header before a keyframe that brings other parameters."""
        found = []
        for tag in tags:
            body = tag.body
            if tag.type != VIDEO or len(body) < 6 or body[0] & 0x8F != 7:  # not AVC in its legacy form
                found.append(tag)
            elif body[1] == 0:
                self._config = body[5:]
                found.append(tag)
            elif body[1] != 1 or len(self._config) < 7:
                found.append(tag)
            else:
                found += self._picture(tag)
        return found

    def _picture(self, tag: Tag) -> list[Tag]:
        body, size = tag.body, (self._config[4] & 3) + 1
        filler = False
        sets: dict[int, list[bytes]] = {SPS: [], PPS: []}
        for at, length in units(body, 5, size):
            kind = body[at] & 0x1F
            if kind == FILLER:
                filler = True
            elif kind in sets:
                sets[kind].append(body[at: at + length])
        made = [tag]
        if filler:
            kept = b"".join(body[at - size: at + length] for at, length in units(body, 5, size)
                            if body[at] & 0x1F != FILLER)
            made = [tag._replace(body=body[:5] + kept)] if kept else []
        unknown = sets[PPS] and any(one not in self._config for one in sets[SPS])
        if unknown and look_at(tag).role is Role.KEYFRAME:
            self._config = configuration(sets[SPS], sets[PPS], size)
            made.insert(0, Tag(VIDEO, tag.timestamp, b"\x17\x00\x00\x00\x00" + self._config))
        return made


def units(body: bytes, at: int, size: int) -> Iterator[tuple[int, int]]:
    """Where each NAL unit lies, behind its length of `size` bytes; ends at what makes no sense."""
    end = len(body)
    while at + size < end:
        length = int.from_bytes(body[at: at + size], "big")
        at += size
        if not 0 < length <= end - at:
            return
        yield at, length
        at += length


def configuration(sps: list[bytes], pps: list[bytes], size: int) -> bytes:
    """The avcC record of these parameter sets, for NAL units with lengths of `size` bytes."""
    pieces = [bytes([1, *sps[0][1:4], 0xFC | size - 1, 0xE0 | len(sps)])]
    pieces += (len(one).to_bytes(2, "big") + one for one in sps)
    pieces.append(bytes([len(pps)]))
    pieces += (len(one).to_bytes(2, "big") + one for one in pps)
    return b"".join(pieces)

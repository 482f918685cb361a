"""Keys of encrypted segments: fetched once, and used.

Runs on the network threads of a recorder process. RFC 8216, 4.3.2.4 and 5.2: AES-128 in CBC mode over the whole
segment with PKCS#7 padding; without an IV it is the segment's number.
"""

from collections.abc import Callable
from threading import Lock

from biliupd.errors import TemporaryError
from biliupd.record.playlist import Key

BLOCK_BYTES = 16
MOST_KEYS = 256  # some streams change theirs with every segment


class NoKey(TemporaryError):
    """A key is not to be had (now)."""


class Keys:
    """The keys of one stream, by address."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}
        self._lock = Lock()

    def open(self, body: bytes | bytearray, key: Key, sequence: int, fetch: Callable[[str], bytes]) -> bytes:
        """A segment decrypted. Empty when it is none that this key opens; raises what `fetch` raises, and `NoKey`."""
        with self._lock:
            secret = self._known.get(key.uri)
            if secret is None:
                secret = fetch(key.uri)
                if len(secret) != BLOCK_BYTES:
                    raise NoKey(f"the key has {len(secret)} bytes instead of {BLOCK_BYTES}")
                while len(self._known) >= MOST_KEYS:
                    del self._known[next(iter(self._known))]
                self._known[key.uri] = secret
        return decrypt(body, secret, iv_of(key, sequence))


def iv_of(key: Key, sequence: int) -> bytes:
    """The initialisation vector: as written down, else the number of the segment."""
    text = key.iv.lower().removeprefix("0x")
    try:
        return int(text, 16).to_bytes(BLOCK_BYTES, "big") if text else sequence.to_bytes(BLOCK_BYTES, "big")
    except (ValueError, OverflowError) as error:
        raise NoKey("the playlist names an IV that is none") from error


def decrypt(body: bytes | bytearray, secret: bytes, iv: bytes) -> bytes:
    """Without its padding; as it is when it has none, empty when it is not made of whole blocks."""
    from Crypto.Cipher import AES  # only for those streams that need it: it costs every recorder memory

    if not body or len(body) % BLOCK_BYTES:
        return b""
    plain = AES.new(secret, AES.MODE_CBC, iv).decrypt(body)
    padding = plain[-1]
    if 1 <= padding <= BLOCK_BYTES and plain.endswith(bytes([padding]) * padding):
        return plain[:-padding]
    return plain

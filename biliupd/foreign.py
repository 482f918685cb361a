"""Names of files and directories that are not ours to take: half-written, thrown away, or of another program.

Pure, and imports nothing. The watcher passes such names over; the configuration refuses a streamer who is called so.
"""

import fnmatch
import functools
import re
from collections.abc import Callable, Sequence

_EXACT = frozenset({
    "thumbs.db", "desktop.ini", "@eadir", "lost+found", "system volume information",
    "#recycle", "@recycle", "$recycle.bin", "#snapshot", "@recently-snapshot",  # what was thrown away stays away
})
# The dot covers ._x, .DS_Store, .~tmp~, .rsync-partial, .stversions, .syncthing.x.tmp and rsync's .x.AbCdEf, too.
_PREFIXES = (".", "~$", "~syncthing~")
_SUFFIXES = (".part", ".partial", ".crdownload", ".filepart", ".tmp", ".download", ".aria2", ".!qb")
# Most names are neither; two looks at single letters tell so at a fifth of the price, 100,000 times in a scan.
FIRST = frozenset(letter for text in (*_EXACT, *_PREFIXES) for letter in (text[0], text[0].upper()))
"""What the first letter of such a name may be; or its last is one of LAST."""
LAST = frozenset(letter for text in _SUFFIXES for letter in (text[-1], text[-1].upper()))


def ignored(name: str, extra: Sequence[str] = ()) -> bool:
    """Whether the last part of a path, of a file or a directory, is a temporary or foreign one.

    `extra` are further patterns such as `*.bak`. Upper and lower case are the same.
    """
    if name[:1] in FIRST or name[-1:] in LAST:
        lower = name.lower()
        if lower.startswith(_PREFIXES) or lower.endswith(_SUFFIXES) or lower in _EXACT:
            return True
    return bool(extra) and _extra(tuple(extra))(name) is not None


@functools.lru_cache(maxsize=16)
def _extra(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns), re.IGNORECASE).match

"""Paths as the catalog keeps them. A file's name is bytes; SQLite's text may be any bytes, too, and so they are kept.

In Python such a name holds surrogates (PEP 383), which sqlite3 does not bind: what may be a path is bound as
`stored(path)` where the statement says `cast(? as text)`, and comes back through `text_factory`. Pure.
"""

import operator

PATH = "cast(? as text)"
PATH_COLUMNS = {
    name: PATH
    for name in ("file_path", "root", "path", "parent_path", "output_path", "merged_from", "directory", "folder", "key")
}  #: `conversions` of sqlite-utils for rows that hold `stored` paths
text_factory = operator.methodcaller("decode", "utf-8", "surrogateescape")  #: of a connection


def stored(path: str) -> str | bytes:
    """What to bind for a path."""
    return path if is_text(path) else path.encode("utf-8", "surrogateescape")


def is_text(path: str) -> bool:
    """Whether every byte of it is UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(name: str) -> str:
    """A name as people read it. Bytes that are no UTF-8 come from old Chinese archives more often than not."""
    if is_text(name):
        return name
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("gb18030")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")


def below(root: str, path: str) -> str:
    """The part of `path` below `root`."""
    return path[len(root.rstrip("/")) + 1 :]


def parent(path: str) -> str:
    """The directory of a path below a root; empty at the top."""
    return path.rpartition("/")[0]

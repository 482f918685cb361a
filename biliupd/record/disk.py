"""Put a small file on disk so that it is either the old one or the new one, whatever happens in between.

Pure file operations, used by the recorder process and by the crew; raises `OSError` as it comes.
"""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make names that were added, renamed or removed in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `path` by way of `path.part`: fsync, rename and (unless not `durable`) fsync of the directory."""
    part = path.with_name(path.name + ".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.fchmod(handle, mode)
        write_all(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(part, path)
    if durable:
        sync_directory(path.parent)


def write_all(handle: int, content: bytes) -> None:
    """`os.write` until everything is written; what a full disk took of it stays in the file."""
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view):]

"""Which file systems lie under a directory, and whether the kernel hears of everything that happens on them.

`parse` and `remote` are pure; `read` runs on the watcher thread and reads /proc/self/mountinfo (proc_pid_mountinfo(5)).
"""

import re
from typing import NamedTuple

MOUNTS = "/proc/self/mountinfo"

# Others write to these: another host, the machine around a virtual one, a process that answers from elsewhere. inotify
# tells only what goes through this kernel. Block devices behind FUSE (fuseblk: ntfs-3g) have no other writer.
_REMOTE = re.compile(
    r"nfs[34]?|cifs|smb3|smbfs|ncpfs|afs|auristorfs|coda|ceph|lustre|beegfs|orangefs|pvfs2|gpfs|gfs2?|ocfs2|glusterfs|"
    r"9p|virtiofs|vboxsf|vmhgfs|prl_fs|drvfs|davfs2?|fuse(\..+)?|acfs|panfs|moosefs|quobyte"
)
_OVERLAYS = frozenset({"overlay", "aufs", "unionfs", "ecryptfs"})
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of the table: where it is, what it is, and for an overlay the directories it shows."""

    point: str
    kind: str
    layers: tuple[str, ...] = ()


def parse(text: str) -> tuple[Mount, ...]:
    """The table of mounts, in its order: of two at one point the later one is seen."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(" "), (*right.split(" "), "", "", "")[:3]
        if len(fields) < 5 or not kind:
            continue
        layers: list[str] = []
        if kind in _OVERLAYS:
            for option in options.split(","):
                name, _, value = option.partition("=")
                if name in ("lowerdir", "upperdir", "br"):
                    layers += [_plain(layer) for layer in value.split(":") if layer.startswith("/")]
        found.append(Mount(_plain(fields[4]), kind, tuple(layers)))
    return tuple(found)


def read() -> tuple[Mount, ...]:
    """The mounts this process sees; none when there is no /proc."""
    try:
        with open(MOUNTS, errors="surrogateescape") as table:
            return parse(table.read())
    except OSError:
        return ()


def under(path: str, mounts: tuple[Mount, ...]) -> Mount:
    """The mount that a path without symbolic links lies on."""
    best = Mount("/", "")
    for mount in mounts:
        if len(mount.point) >= len(best.point) and _holds(mount.point, path):
            best = mount
    return best


def remote(path: str, mounts: tuple[Mount, ...]) -> tuple[str, dict[str, str]]:
    """The kind of file system of a directory when others write to it, too, else "", and such mounts below it."""
    visible = {mount.point: mount for mount in mounts if _holds(path, mount.point) and mount.point != path}
    below = {point: kind for point, mount in visible.items() if (kind := _kind(mount, mounts))}
    return _kind(under(path, mounts), mounts), below


def _kind(mount: Mount, mounts: tuple[Mount, ...]) -> str:
    if _REMOTE.fullmatch(mount.kind):
        return mount.kind
    for layer in mount.layers:
        kind = under(layer, mounts).kind
        if _REMOTE.fullmatch(kind):
            return f"{mount.kind} on {kind}"
    return ""


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _plain(field: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), field)

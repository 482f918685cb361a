"""Which file systems others write to. No NFS or SMB can be mounted here; tables of machines that do stand for them."""

import pytest
from support import wait_until

from biliupd.watch import mounts as mounts_module
from biliupd.watch.mounts import Mount, parse, read, remote, under

TABLE = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda1 rw
30 22 0:40 / /srv/nas rw shared:1 - nfs4 nas:/volume1 rw,vers=4.2
31 22 0:41 / /srv/my\040share rw - cifs //nas/share rw,username=a
32 22 0:42 / /srv/nas/local rw - ext4 /dev/sdb1 rw
33 22 0:43 / /media/stick rw - fuseblk /dev/sdc1 rw
34 22 0:44 / /home/me/remote rw - fuse.sshfs me@host:/ rw
35 22 0:45 / /pool rw - fuse.mergerfs a:b rw
36 22 0:46 / /layered rw - overlay overlay rw,lowerdir=/srv/nas/base:/opt/base,upperdir=/var/up,workdir=/var/w
37 22 0:47 / /container rw - overlay overlay rw,lowerdir=/opt/base,upperdir=/var/up
38 22 0:48 / /host rw - virtiofs host rw
39 22 0:49 / /covered rw - nfs4 nas:/old rw
40 39 0:50 / /covered rw - tmpfs tmpfs rw
nonsense
"""


@pytest.mark.parametrize(("path", "kind"), [
    ("/", ""), ("/srv", ""), ("/srv/nas", "nfs4"), ("/srv/nas/a/b", "nfs4"), ("/srv/nas2", ""),
    ("/srv/nas/local/x", ""), ("/srv/my share/x", "cifs"), ("/media/stick", ""), ("/home/me/remote/d", "fuse.sshfs"),
    ("/pool", "fuse.mergerfs"), ("/layered/d", "overlay on nfs4"), ("/container", ""), ("/host", "virtiofs"),
    ("/covered/d", ""),
])
def test_the_kind_of_a_directory_is_that_of_the_mount_it_lies_on(path, kind):
    assert remote(path, parse(TABLE))[0] == kind


@pytest.mark.parametrize("kind", [
    "nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "fuse", "fuse.rclone", "fuse.glusterfs", "9p", "vboxsf", "vmhgfs",
    "afs", "ceph", "glusterfs", "lustre", "davfs", "ocfs2", "gfs2", "beegfs", "prl_fs",
])
def test_others_write_to_it(kind):
    assert remote("/x", (Mount("/", "ext4"), Mount("/x", kind)))[0] == kind


@pytest.mark.parametrize("kind", [
    "ext4", "xfs", "btrfs", "zfs", "tmpfs", "f2fs", "fuseblk", "exfat", "vfat", "ntfs3", "overlay", "autofs",
])
def test_only_this_machine_writes_to_it(kind):
    assert remote("/x", (Mount("/", "ext4"), Mount("/x", kind)))[0] == ""


def test_what_is_mounted_below_counts_too():
    assert remote("/srv", parse(TABLE)) == ("", {"/srv/nas": "nfs4", "/srv/my share": "cifs"})
    assert remote("/covered", parse(TABLE)) == ("", {})
    assert under("/srv/nas/local/x", parse(TABLE)).point == "/srv/nas/local"


def test_the_table_of_this_machine_can_be_read():
    assert any(mount.point == "/proc" and mount.kind == "proc" for mount in read())
    assert parse("") == ()


def test_a_share_is_polled_and_settles_after_its_own_quiet_time(watching, catalog, root, monkeypatch):
    monkeypatch.setattr(mounts_module, "read", lambda: (Mount("/", "ext4"), Mount(str(root), "nfs4")))
    watcher = watching(root, polling_seconds=0.2, quiet_seconds=0.01, network_quiet_seconds=0.6)
    assert watcher.status().observed == {str(root): "polled: its file system is nfs4"}
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: watcher.status().settling)
    (root / "a.mp4").write_bytes(b"xy")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert [item.entries[0].size_bytes for item in catalog.settled] == [2]


def test_a_share_below_a_local_root_is_polled_beside_the_events(watching, catalog, root, monkeypatch):
    (root / "nas").mkdir()
    table = (Mount("/", "ext4"), Mount(str(root / "nas"), "cifs"))
    monkeypatch.setattr(mounts_module, "read", lambda: table)
    watcher = watching(root, polling_seconds=0.2, network_quiet_seconds=0.8)
    assert watcher.status().observed[str(root)] == f"partly: cifs is mounted at {str(root / 'nas') + '/'!a}"
    (root / "a.mp4").write_bytes(b"x")
    (root / "nas" / "b.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "nas" / "b.mp4"))
    assert catalog.subjects() == [str(root / "a.mp4"), str(root / "nas" / "b.mp4")]
    assert watcher.status().rescans["timer"] >= 2


def test_a_share_that_appears_under_a_running_watcher_changes_how_it_is_observed(watching, root, monkeypatch):
    watcher = watching(root)
    assert watcher.status().observed[str(root)] == "native"
    monkeypatch.setattr(mounts_module, "read", lambda: (Mount("/", "ext4"), Mount(str(root), "fuse.sshfs")))
    wait_until(lambda: watcher.status().observed[str(root)] == "polled: its file system is fuse.sshfs")


def test_who_wants_the_kernel_only_gets_no_polling(watching, catalog, root, monkeypatch):
    monkeypatch.setattr(mounts_module, "read", lambda: (Mount("/", "ext4"), Mount(str(root), "fuse.mergerfs")))
    watcher = watching(root, observer="native", network_quiet_seconds=0.1)
    assert watcher.status().observed[str(root)] == "native"
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert watcher.status().rescans == {"start": 1}

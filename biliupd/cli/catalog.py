"""The commands that keep the catalog: backup, rebuild."""

import os
from pathlib import Path

import click

from biliupd.catalog import backup as copies
from biliupd.catalog.database import copy
from biliupd.cli.shared import config_option, data_directory, load_config
from biliupd.lock import DataLock, holder


@click.command()
@config_option
@click.argument("target", type=click.Path(path_type=Path), required=False)
def backup(path: Path, target: Path | None) -> None:
    """Copy the catalog, whole and checked, while the daemon runs or not. An existing file is never overwritten."""
    data, _ = data_directory(path)
    holder(data)  # says when it is not ours
    catalog = data / "catalog.db"
    own = copies.default_target(catalog)
    target = own if target is None else target / own.name if target.is_dir() else target
    copy(catalog, target)
    click.echo(f"{target}: whole, {target.stat().st_size} bytes")


@click.command()
@config_option
def rebuild(path: Path) -> None:
    """Make the catalog anew, while no daemon runs. What Bilibili has stays known; the old file is kept aside.

    The next start of the daemon finds everything that lies in the watched folders, and asks Bilibili before it uploads
    any of it.
    """
    config = load_config(path)
    data = config.recordings.data_directory
    with DataLock(data):
        made = copies.rebuild(data / "catalog.db")
    click.echo(f"made anew: {data / 'catalog.db'}" + (f"; the old one: {made.aside}" if made.aside else ""))
    for source in made.sources:
        click.echo(f"read: {source}")
    click.echo(f"carried over: {made.videos} videos, {made.submissions} submissions; gaps that cannot be read: "
               f"{made.unreadable}")  # fmt: skip
    for root in (config.recordings.directory, *(folder.directory for folder in config.drop_folders)):
        files, broadcasts, unreadable = _count(root)
        click.echo(f"{root}: {files} files, {broadcasts} broadcasts" + (
            f", {unreadable} folders that cannot be listed" if unreadable else ""))  # fmt: skip
    click.echo("biliupd run catalogues them; what is older than this catalog is looked up at Bilibili before an upload")


def _count(root: Path) -> tuple[int, int, int]:
    """Files, `broadcast.json` among them, and folders that cannot be listed."""
    files, broadcasts = 0, 0
    unreadable: list[OSError] = []
    for _, _, names in os.walk(root, onerror=unreadable.append):
        files += len(names)
        broadcasts += "broadcast.json" in names
    return files, broadcasts, len(unreadable)


COMMANDS = (backup, rebuild)

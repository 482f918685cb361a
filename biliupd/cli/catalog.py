"""The commands that keep the catalog: backup, rebuild."""

import os
from pathlib import Path

import click

from biliupd.catalog import backup as copies
from biliupd.catalog import library
from biliupd.catalog.database import Catalog, copy
from biliupd.cli.shared import config_option, data_directory, load_config, plain
from biliupd.intake import Intake, fill
from biliupd.lock import DataLock, holder


@click.command()
@config_option
@click.argument("target", type=click.Path(path_type=Path), required=False)
def backup(path: Path, target: Path | None) -> None:
    """Copy the catalog, whole and checked, while the daemon runs or not.

    An existing file is never overwritten. Without TARGET the copy goes to backups/ in the data directory.
    """
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
    """Make the catalog anew, while no daemon runs; the old file is kept aside.

    What is known of Bilibili's submissions stays known. Everything that lies in the watched folders is catalogued, and
    Bilibili is asked before any of it is uploaded.
    """
    config = load_config(path)
    data = config.recordings.data_directory
    roots = [config.recordings.directory, *(folder.directory for folder in config.drop_folders)]
    with DataLock(data):
        made = copies.rebuild(data / "catalog.db")
        click.echo(f"made anew: {data / 'catalog.db'}" + (f"; the old one: {made.aside}" if made.aside else ""))
        for source in made.sources:
            click.echo(f"read: {source}")
        click.echo(f"carried over: {made.videos} videos, {made.submissions} submissions; gaps that cannot be read: "
                   f"{made.unreadable}")  # fmt: skip
        catalog = Catalog(data / "catalog.db")
        intake = Intake(catalog, config.recordings.directory, roots)
        for root in roots:
            if not root.is_dir():
                click.echo(f"{plain(str(root))}: is not there; what lies in it is found when it comes back")
                continue
            before = library.search(catalog.db, root=os.path.abspath(root)).total
            for trouble in fill(intake, root, config.watch):
                click.echo(f"cannot be listed: {plain(trouble)}", err=True)
            found = library.search(catalog.db, root=os.path.abspath(root)).total
            click.echo(f"{plain(str(root))}: {found} videos, {found - before} of them found now")
        catalog.close()
    click.echo("what is older than this catalog is looked up at Bilibili before an upload")


COMMANDS = (backup, rebuild)

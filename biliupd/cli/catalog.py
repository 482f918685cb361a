"""The commands that keep the catalog: backup, rebuild."""

from pathlib import Path

import click

from biliupd.catalog import backup as copies
from biliupd.catalog.database import copy
from biliupd.cli.shared import config_option, data_directory
from biliupd.lock import holder


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


COMMANDS = (backup,)

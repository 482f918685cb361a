"""What several commands need: which configuration, which login, where the state lies, text safe for a terminal."""

import os
from pathlib import Path

import click

from biliupd.config import Config, PublishConfig, load
from biliupd.errors import ConfigError

config_option = click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path), default="config.yaml", show_default=True,
    help="The configuration file.",
)  # fmt: skip
login_file = click.option("-u", "--user-cookie", "file", type=click.Path(path_type=Path),
                     help="The login's file.  [default: cookies.json]")  # fmt: skip
login_config = click.option("-c", "--config", "config_path", type=click.Path(path_type=Path),
                       help="Use the files and addresses of this configuration.")  # fmt: skip
login_account = click.option("--account", help="The account of the configuration, when it has several.")


def load_config(path: Path) -> Config:
    """Read and check the file. Raises ConfigError with every problem."""
    from biliupd.live.platform import answers

    return load(path, answers)


def data_directory(path: Path) -> tuple[Path, ConfigError | None]:
    """Where the state lies, and what is wrong with the file.

    For a broken file its own word for the directory, if that can be read, else the default.
    """
    import yaml

    try:
        return load_config(path).recordings.data_directory, None
    except ConfigError as error:
        if not os.path.isfile(path):
            raise
        refused = error
    try:
        content = yaml.safe_load(path.read_bytes())
        return path.absolute().parent / Path(content["recordings"]["data_directory"]).expanduser(), refused
    except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return path.absolute().parent / "data", refused


def _settings(config_path: Path | None) -> Config | None:
    return load(config_path) if config_path else None


def one_login(config_path: Path | None, account: str | None, file: Path | None) -> tuple[PublishConfig, Path]:
    """Settings and the file of the one login that is meant. Raises ConfigError when it is not clear which."""
    config = _settings(config_path)
    if not config:
        if account:
            raise click.UsageError("--account names one of a configuration: add -c")
        return PublishConfig(), file or Path("cookies.json")
    if file:
        return config.publish, file
    names = list(config.accounts)
    if account is None and len(names) != 1:
        raise ConfigError([f"{config_path}: which account? there are {', '.join(names) or 'none under accounts:'}"],
                          hint="name it with --account, or its file with -u")
    if account is not None and account not in config.accounts:
        raise ConfigError([f"{config_path}: there is no account {account}"], hint=f"there are {', '.join(names)}")
    return config.publish, config.accounts[account or names[0]].cookies


def several_logins(config_path: Path | None, files: tuple[Path, ...]) -> tuple[PublishConfig, list[Path]]:
    """The same for all of a configuration, or those named."""
    config = _settings(config_path)
    if not config:
        return PublishConfig(), list(files or (Path("cookies.json"),))
    paths = list(files) or list(dict.fromkeys(one.cookies for one in config.accounts.values()))
    if not paths:
        raise ConfigError([f"{config_path}: no accounts"], hint="add one under accounts:, or name a file with -u")
    return config.publish, paths


def plain(text: str) -> str:
    """Fit for a terminal: one line, no commands."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "" for c in text)

"""The configuration in force as a table: each value, what it means, and where it came from.

Pure, but for reading the source of `config` once: the description of a setting is the text below it there.
"""

import ast
import functools
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import BaseModel

from biliupd import config as configuration
from biliupd import template
from biliupd.config import Config, without_password
from biliupd.yaml_file import KeyPath, dotted


class Entry(NamedTuple):
    """One value. `line`: where the file sets it, None: it is the default."""

    key: str
    value: Any  #: as JSON
    line: int | None
    description: str


def table(config: Config, lines: Mapping[KeyPath, int]) -> list[Entry]:
    """All values, in the order of the file's sections. `lines` says where each is written (`yaml_file.places`)."""
    return list(_entries(config, (), lines, ""))


def _entries(value: Any, path: KeyPath, lines: Mapping[KeyPath, int], description: str) -> Iterator[Entry]:
    if isinstance(value, BaseModel):
        texts = _descriptions().get(type(value).__name__, {})
        for name in type(value).model_fields:
            yield from _entries(getattr(value, name), (*path, name), lines, texts.get(name, ""))
    elif isinstance(value, dict) and value and all(isinstance(one, BaseModel) for one in value.values()):
        for name, one in value.items():
            yield from _entries(one, (*path, name), lines, "")
    elif isinstance(value, list) and value and all(isinstance(one, BaseModel) for one in value):
        for number, one in enumerate(value):
            yield from _entries(one, (*path, number), lines, "")
    elif path:
        yield Entry(dotted(path), _plain(value), lines.get(path), description)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value).encode(errors="backslashreplace").decode()
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else str(value)


@functools.lru_cache(maxsize=1)
def _descriptions() -> dict[str, dict[str, str]]:
    """By model and field. pydantic can read them, too, but then with every start, whoever asks."""
    return {name: texts for module in (configuration, template) for name, texts in _below_fields(module)}


def _below_fields(module: ModuleType) -> Iterator[tuple[str, dict[str, str]]]:
    for model in ast.parse(inspect.getsource(module)).body:
        if isinstance(model, ast.ClassDef):
            texts: dict[str, str] = {}
            for field, text in zip(model.body, model.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) \
                        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    texts[field.target.id] = " ".join(str(text.value.value).split())
            yield model.name, texts

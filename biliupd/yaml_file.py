"""YAML text → a frozen model, or everything that is wrong with it at once, each with its place.

Used for the configuration file and for the sidecars of dropped files. Reads nothing but what it is given.
"""

import difflib
import os
import typing
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from biliupd.errors import ConfigError

LARGEST_FILE_BYTES = 1 << 20
LARGEST_NODE_COUNT = 100_000  # aliases count each time they are used, so that a bomb of them is refused
KeyPath = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
_FULL_WIDTH = "a full-width colon ： does not count, write an ordinary one and a space (全角冒号请改成半角加空格)"
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class Section(BaseModel):
    """A part of the file: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, defer_build=True
    )  # fmt: skip


def _resolve(path: Path, info: ValidationInfo) -> Path:
    return absolute((info.context or {}).get("base", Path.cwd()), path)


def absolute(base: Path, path: Path) -> Path:
    """A path of the file as one of the system. Raises ValueError for what can be none."""
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError("a path holds no NUL")
        return base / path.expanduser()
    except UnicodeEncodeError:
        raise ValueError("a path holds no halves of characters") from None
    except RuntimeError:
        raise ValueError(f"{path.parts[0]}: there is no such user, or no home directory") from None


FilePath = Annotated[Path, AfterValidator(_resolve)]


def read(
    model: type[M], raw: bytes, *, name: str, context: dict[str, Any],
    contradictions: Callable[[Any], Iterable[tuple[KeyPath, str]]] = lambda content: (),
    under: typing.Mapping[str, Any] | None = None,
) -> M:
    """The model that the text describes; `context` goes to its validators.

    `contradictions` names further problems of the plain content; `under` holds values that the text's own lie over.
    Raises ConfigError with every problem.
    """
    content, lines, problems = _compose(raw, name)
    found: M | None = None
    given = content if content is not None else {}
    if under and isinstance(given, dict):
        given = {**under, **given}
    try:
        found = model.model_validate(given, context=context)
    except ValidationError as error:
        for item in error.errors():
            where, text = _explain(model, item)
            problems.append(_located(lines, where, text))
    problems += [_located(lines, where, text) for where, text in contradictions(content)]
    if problems or found is None:
        raise ConfigError(problems, hint=f"mend {name}; nothing of it is in force")
    return found


def places(raw: bytes) -> dict[KeyPath, int]:
    """The line (from 1) of each value of a YAML text, by its path. Raises ConfigError for what is none."""
    return _compose(raw, "")[1]


def _compose(raw: bytes, name: str) -> tuple[Any, dict[KeyPath, int], list[str]]:
    """The plain content of a YAML text, the line of each path in it, and what is wrong with its form."""
    if len(raw) > LARGEST_FILE_BYTES:
        raise ConfigError([f"{name}: larger than {LARGEST_FILE_BYTES} bytes"])
    try:
        node = yaml.compose(raw, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([f"{name} {_misread(raw, error)}"], hint=f"mend {name}; nothing of it is in force") from error
    except yaml.reader.ReaderError as error:
        line = raw[: error.position].count(b"\n") + 1
        raise ConfigError(
            [f"{name} (line {line}): not text: {error.reason}"], hint="save it as UTF-8, without control characters"
        ) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise ConfigError([f"{name}: not YAML: {error}"], hint="save it as UTF-8") from error
    except RecursionError as error:
        raise ConfigError([f"{name}: nested too deeply"]) from error
    lines: dict[KeyPath, int] = {}
    problems: list[str] = []
    constructor = yaml.SafeLoader("")
    merged = 0

    def build(node: yaml.Node, path: KeyPath) -> Any:
        lines.setdefault(path, node.start_mark.line + 1)
        if len(lines) > LARGEST_NODE_COUNT or len(path) > 20:
            raise ConfigError([f"{name} (line {node.start_mark.line + 1}): too many values, or nested too deeply"])
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN_TAGS:
            problems.append(_located(lines, path, f"the tag {node.tag} has no meaning here"))
        if isinstance(node, yaml.MappingNode):
            content: dict[str, Any] = {}
            for key, (key_node, value_node) in entries(node, path).items():
                lines[*path, key] = key_node.start_mark.line + 1
                content[key] = build(value_node, (*path, key))
            return content
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*path, n)) for n, item in enumerate(node.value)]
        found = build_scalar(node)
        if isinstance(found, str) and any("\ud800" <= c <= "\udfff" for c in found):
            problems.append(_located(lines, path, "halves of characters can be neither stored nor sent"))
        return found

    def entries(node: yaml.MappingNode, path: KeyPath, deep: int = 0) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Its own entries, and behind them those that << merges into it; a bomb of merges is refused."""
        nonlocal merged
        merged += len(node.value) if deep else 0
        if merged > LARGEST_NODE_COUNT or deep > 20:
            raise ConfigError([f"{name} (line {node.start_mark.line + 1}): too many values, or nested too deeply"])
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        others: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                for other in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if isinstance(other, yaml.MappingNode):
                        others = {**entries(other, path, deep + 1), **others}
                    else:
                        problems.append(f"{name} (line {key_node.start_mark.line + 1}): << takes settings, or a list "
                                        "of such")
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(f"{name} (line {key_node.start_mark.line + 1}): the name of a setting must be text")
                continue
            key = str(build_scalar(key_node))
            if key in own and not deep:
                lines[*path, key] = key_node.start_mark.line + 1
                problems.append(_located(lines, (*path, key), "written twice"))
            own[key] = (key_node, value_node)
        return {**others, **own}

    def build_scalar(node: yaml.Node) -> Any:
        try:
            return constructor.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, ArithmeticError) as error:
            problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
            problems.append(f"{name} (line {node.start_mark.line + 1}): {problem}")
            return None

    return (build(node, ()) if node is not None else None), lines, problems


def _misread(raw: bytes, error: yaml.MarkedYAMLError) -> str:
    """What the YAML parser stumbled over, with the remedy for what people really write."""
    at, began = error.problem_mark, error.context_mark
    number = at.line + 1 if at else 1
    text = f"(line {number}): not YAML: {error.problem}"
    if began and began.line + 1 != number and error.context:
        text += f", {error.context} that begins in line {began.line + 1}"
    if "'\\t'" in str(error.problem):
        return text + "; indent with spaces, not with tabs"
    lines = raw.decode("utf-8", "replace").splitlines()
    for n in (number, number - 1):
        if 0 < n <= len(lines) and "：" in lines[n - 1]:
            return text + f"; {_FULL_WIDTH} (line {n})"
    return text


def _explain(root: type[BaseModel], item: typing.Mapping[str, Any]) -> tuple[KeyPath, str]:
    where: KeyPath = tuple(item["loc"])
    kind, given = item["type"], item.get("input")
    if kind == "extra_forbidden":
        return where, "there is no such setting" + near(str(where[-1]), _fields_at(root, where[:-1]))
    if kind == "missing":
        return where, "must be given"
    if given is None and kind.endswith("_type"):
        return where, "is empty: give it a value, or leave it out"
    if kind == "model_type":
        wide = f"; {_FULL_WIDTH}" if "：" in str(given) else ""
        return where, f"is not of the right form: {given!r}" + wide
    if kind == "string_type" and isinstance(given, int | float | date):
        return where, f"is read as something else than text ({given}): put it into quotes"
    text = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    shown = "" if isinstance(given, dict | list | BaseModel) else f", not {given!r}"
    return where, text[:1].lower() + text[1:] + ("" if kind == "value_error" else shown)


def _fields_at(root: type[BaseModel], path: KeyPath) -> list[str]:
    """Names of the settings at a place, for "did you mean"."""
    model: Any = root
    for step in path:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(step)].annotation if str(step) in model.model_fields else None
        elif model is not None:  # list[X] or dict[str, X]: the step is an index or a name of the user's
            model = typing.get_args(model)[-1] if typing.get_args(model) else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def near(word: str, known: Iterable[str]) -> str:
    """What to say after "there is no …": the most similar of the known names, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    if near:
        return f": did you mean {near[0]}?"
    return f"; there are {', '.join(known)}" if known else ""


def dotted(path: KeyPath) -> str:
    """A place as a user would write it."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the file"


def _located(lines: dict[KeyPath, int], path: KeyPath, text: str) -> str:
    known = path
    while known and known not in lines:
        known = known[:-1]
    return f"{dotted(path)} (line {lines.get(known, 1)}): {text}"

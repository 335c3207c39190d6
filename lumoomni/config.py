"""Frozen dataclasses to JSON and back, dotted overrides, and the hash that names a config.

Knows: nested dataclasses of ints, floats, strings, booleans, paths, tuples, dicts, None, Literals.
Does not know: what any field means; range checks live in each dataclass.
Costs: nothing; standard library only.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lumoomni.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Change:
    """A setting's path, from where one stands; its text; and the whole path, for errors."""

    path: list[str]
    text: str
    whole: str


WITHOUT_EFFECT = {"effect": False}
"""Metadata of a field that says how something is made and changes nothing of what is made, such as
a number of processes: it names nothing, so it is left out of `meaning` and of the hash."""


def to_dict(config: Any) -> Any:
    """A JSON-safe copy: dataclasses become dicts, tuples lists, paths strings."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, (list, tuple)):
        return [to_dict(item) for item in config]
    if isinstance(config, dict):
        return {str(key): to_dict(value) for key, value in config.items()}
    return str(config) if isinstance(config, Path) else config


def meaning(config: Any) -> Any:
    """As `to_dict`, without the fields that have no effect on what is made."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            f.name: meaning(getattr(config, f.name))
            for f in dataclasses.fields(config)
            if f.metadata.get("effect", True)
        }
    if isinstance(config, (list, tuple)):
        return [meaning(item) for item in config]
    if isinstance(config, dict):
        return {str(key): meaning(value) for key, value in config.items()}
    return to_dict(config)


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build `cls` from `to_dict`'s output. Raises InputError for unknown keys or wrong types."""
    place = where or cls.__name__
    if not isinstance(data, dict):
        raise InputError(f"{place} must be an object, got {type(data).__name__}")
    hints = get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            raise InputError(f"{place} has no setting {key!r}; {nearest(key, names)}")
    values = {key: _value(hints[key], item, f"{place}.{key}") for key, item in data.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: {error}") from error


def override(config: T, changes: Iterable[str]) -> T:
    """Apply `path.to.field=value` changes, all at once, so that settings that need each other can
    change together. Raises InputError for an unknown path or bad value.

    Below a setting that is None, they make what it may be; `=none` takes it away.
    """
    pairs = []
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise InputError(f"{change!r} is no setting; write path.to.setting=value")
        pairs.append(Change(path.split("."), text, path))
    return _changed(config, pairs) if pairs else config


def canonical_json(data: Any) -> str:
    """One fixed spelling: sorted keys, no spaces, UTF-8 as is; NaN is refused."""
    return json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def config_hash(config: Any) -> str:
    """SHA-256 hex of the canonical JSON of what a config means."""
    return hashlib.sha256(canonical_json(meaning(config)).encode()).hexdigest()


def nearest(wrong: str, known: Iterable[str]) -> str:
    """'did you mean a or b?' or the whole list when nothing is close."""
    known = sorted(known)
    close = difflib.get_close_matches(wrong, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"choose one of {', '.join(known)}" if known else "there is nothing to choose from"


def _changed(config: Any, changes: list[Change]) -> Any:
    """A config or a dict with changes to it and to what lies below."""
    groups: dict[str, list[Change]] = {}
    for one in changes:
        groups.setdefault(one.path[0], []).append(one)
    values = {name: _changed_field(config, name, group) for name, group in groups.items()}
    if isinstance(config, dict):
        return {**config, **values}
    return _built(lambda: dataclasses.replace(config, **values), changes)


def _changed_field(config: Any, name: str, group: list[Change]) -> Any:
    """What a field becomes by the changes to it, and then by those below it."""
    whole, is_dict = group[0].whole, isinstance(config, dict)
    names = list(config) if is_dict else [f.name for f in dataclasses.fields(config)]
    if name not in names:
        raise InputError(f"no setting {whole!r} ({name!r} is unknown); {nearest(name, names)}")
    value = config[name] if is_dict else getattr(config, name)
    kind = type(value) if is_dict else get_type_hints(type(config))[name]
    for one in (one for one in group if len(one.path) == 1):
        value = _parse(kind, one.text, one.whole)
    below = [Change(one.path[1:], one.text, one.whole) for one in group if len(one.path) > 1]
    if not below:
        return value
    if dataclasses.is_dataclass(value) or isinstance(value, dict):
        return _changed(value, below)
    made = _optional(kind)
    if value is not None or made is None:
        raise InputError(f"{below[0].whole!r} goes below {name!r}, which is a single value")
    return _begun(made, below, name)


def _begun(kind: type, changes: list[Change], name: str) -> Any:
    """A dataclass of the fields that are given, and its own defaults."""
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)
    given = {one.path[0]: one for one in changes if len(one.path) == 1}
    for field, one in given.items():
        if field not in hints:
            raise InputError(f"no setting {one.whole!r}; {nearest(field, hints)}")
    bare = dataclasses.MISSING
    needed = [f.name for f in fields if f.default is bare and f.default_factory is bare]
    left = [field for field in needed if field not in given]
    if left:
        raise InputError(f"{name} is none yet and needs {', '.join(left)} too; give all at once")
    values = {field: _parse(hints[field], o.text, o.whole) for field, o in given.items()}
    made = _built(lambda: kind(**values), changes)
    below = [one for one in changes if len(one.path) > 1]
    return _changed(made, below) if below else made


def _built(make: Callable[[], Any], changes: list[Change]) -> Any:
    try:
        return make()
    except ValueError as error:
        said = ", ".join(f"{one.whole}={one.text}" for one in changes)
        raise InputError(f"{said}: {error}") from error


def _optional(kind: Any) -> type | None:
    """X of `X | None` for a dataclass X."""
    if get_origin(kind) not in (Union, types.UnionType):
        return None
    kinds = (one for one in get_args(kind) if isinstance(one, type))
    return next((one for one in kinds if dataclasses.is_dataclass(one)), None)


def _parse(kind: Any, text: str, where: str) -> Any:
    """A value of type `kind` from command-line text."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if type(None) in args and text.lower() in ("none", "null"):
            return None
        return _parse(next(a for a in args if a is not type(None)), text, where)
    if origin is Literal:
        return _literal(args, text, where)
    if origin is tuple:
        parts = [part for part in text.split(",") if part]
        kinds = [args[0]] * len(parts) if args[-1] is Ellipsis else list(args)
        if len(parts) != len(kinds):
            raise InputError(f"{where} takes {len(kinds)} values, got {len(parts)}: {text!r}")
        return tuple(_parse(k, p, where) for k, p in zip(kinds, parts, strict=True))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{where} must be true or false, got {text!r}")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            raise InputError(f"{where} must be {kind.__name__}, got {text!r}") from None
        if not math.isfinite(value):
            raise InputError(f"{where} must be a finite number, got {text!r}")
        return value
    if kind is str or kind is Path:
        return kind(text)
    raise InputError(f"{where} cannot be set as one value; set a field below it")


def _literal(args: tuple[Any, ...], text: Any, where: str) -> Any:
    for choice in args:
        if str(choice) == str(text):
            return choice
    raise InputError(f"{where} must be one of {', '.join(map(str, args))}, got {text!r}")


def _value(kind: Any, data: Any, where: str) -> Any:
    """A value of type `kind` from JSON data."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        return _value(next(a for a in args if a is not type(None)), data, where)
    if origin is Literal:
        return _literal(args, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise InputError(f"{where} must be a list, got {data!r}")
        kinds = [args[0]] * len(data) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(data):
            raise InputError(f"{where} takes {len(kinds)} values, got {len(data)}")
        return tuple(_value(k, d, where) for k, d in zip(kinds, data, strict=True))
    if origin is dict:
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, data, where)  # type: ignore[arg-type]
    if kind is Path and isinstance(data, str):
        return Path(data)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if type(data) is not kind:
        raise InputError(f"{where} must be {kind.__name__}, got {data!r}")
    return data


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises InputError when it is missing or something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; get a whole copy of its folder") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}; get a whole copy") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold an object, not a {type(data).__name__}")
    return data

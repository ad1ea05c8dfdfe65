"""Lists a config's keys with types and defaults, and explains validation errors."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError


def keys_of(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """Yield ``(dotted key, type, default, one-line description)`` of every setting of a model."""
    for name, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from keys_of(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _type_name(annotation), field.get_default(), field.description or ""


def text_keys(schema: type[BaseModel]) -> set[str]:
    """Dotted keys of the settings that are text."""
    found = set()
    for name, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= {f"{name}.{key}" for key in text_keys(annotation)}
        elif _is_text(annotation):
            found.add(name)
    return found


def tolerated(section: type[BaseModel], given: Any) -> Any:
    """A section's values, with unambiguous values converted to the expected type.

    A number becomes text if text is expected; a single value becomes a list if a list is expected, and
    ``a,b`` a list of two.

    Raises:
        ValueError: a text is empty.
    """
    if not isinstance(given, Mapping):
        return given
    values = dict(given)
    for name, field in section.model_fields.items():
        value = values.get(name)
        if _is_text(field.annotation):
            if isinstance(value, int | Path) and not isinstance(value, bool):
                values[name] = str(value)
            elif value == "":
                raise ValueError(f"{name} is empty; give a value, or omit the key")
        elif _is_list(field.annotation) and isinstance(value, str | int | float):
            values[name] = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
    return values


def _is_text(annotation: Any) -> bool:
    return annotation is str or set(typing.get_args(annotation)) == {str, types.NoneType}


def _is_list(annotation: Any) -> bool:
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    return all(member is types.NoneType or typing.get_origin(member) is tuple for member in members)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def changed_keys(old: BaseModel, new: BaseModel) -> list[str]:
    """Dotted keys on which two configs differ."""
    first, second = dict(flatten(old.model_dump(mode="json"))), dict(flatten(new.model_dump(mode="json")))
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a tree of mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def explain_validation(error: ValidationError, schema: type[BaseModel]) -> str:
    """One line for the first problem: key, value, limit, remedy."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return _unknown_key(location, [name for name, *_ in keys_of(schema)])
    message = problem["msg"].removeprefix("Value error, ")
    key = ".".join(location)
    if not key:
        return message
    if isinstance(problem["input"], Mapping) and problem["type"] == "value_error":
        # The input is a whole section, which is too long to be shown.
        return message if message.startswith(f"{key}.") else f"{key}.{message}"
    if problem["type"] == "missing":
        return f"{'.'.join(location[:-1])}={problem['input']!r}: too few values"
    if problem["type"] == "string_type":
        return f"{key}={problem['input']!r}: must be text; to give it as text, write it in quotes"
    return f"{key}={problem['input']!r}: {message[0].lower()}{message[1:]}"


def _unknown_key(location: list[str], known: list[str]) -> str:
    section = ".".join(location[:-1])
    prefix = f"{section}." if section else ""
    siblings = sorted({name.removeprefix(prefix).split(".")[0] for name in known if name.startswith(prefix)})
    near = difflib.get_close_matches(location[-1], siblings, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(siblings)}"
    where = f"{section} has" if section else "the config has"
    return f"{where} unknown key {location[-1]!r}; {hint}"


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "|".join(str(value) for value in arguments)
    if _is_union(annotation):
        return "|".join(_type_name(part) for part in arguments if part is not type(None))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    name = getattr(annotation, "__name__", str(annotation))
    return {"str": "text", "bool": "true|false"}.get(name, name)

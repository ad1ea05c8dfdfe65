"""What can be said of a config's keys: their types and defaults, and what is wrong with a value."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
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
    if origin in (typing.Union, types.UnionType):
        return "|".join(_type_name(part) for part in arguments if part is not type(None))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    name = getattr(annotation, "__name__", str(annotation))
    return {"str": "text", "bool": "true|false"}.get(name, name)

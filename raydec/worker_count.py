"""Config type for the number of training workers: a number, or a minimum and a maximum."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def _checked(value: Any) -> Any:
    is_range = isinstance(value, list | tuple)
    counts = list(value) if is_range else [value, value]
    whole = all(isinstance(count, int) and not isinstance(count, bool) for count in counts)
    if value is None or (len(counts) == 2 and whole and int(is_range) <= counts[0] <= counts[1]):
        return value
    raise ValueError("must be 0 or more, or a minimum and a maximum as in [2,4]")


WorkerCount = Annotated[int | tuple[int, int] | None, BeforeValidator(_checked)]


def worker_range(count: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """The minimum and the maximum number of workers; None if it depends on the cluster."""
    return (count, count) if isinstance(count, int) else count

"""Names of repositories on the Hugging Face Hub: ``hf:owner/name`` or ``hf:owner/name@revision``."""

from __future__ import annotations

import re
from pathlib import Path

from raydec.errors import UserError

_NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def is_hub_name(name: str | Path) -> bool:
    """Whether the name refers to the Hub, not to a folder."""
    return str(name).startswith("hf:")


def parse_hub_name(name: str) -> tuple[str, str | None]:
    """The repository and the revision, if there is one.

    Raises:
        UserError: a malformed name.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UserError(
            f"{name!r} does not name a model on the Hub; write hf:owner/name or hf:owner/name@revision"
        )
    return found["repository"], found["revision"]


def reason(error: BaseException) -> str:
    """The first line of an error of the Hub's client; its errors have no common base class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__

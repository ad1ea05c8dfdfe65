"""The command line that configured verbs share: a YAML file, then ``dotted.key=value`` overrides."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from raydec.config import Config, iterate_keys, load_config
from raydec.errors import UserError


def parse_config_arguments(
    arguments: Sequence[str], *, verb: str, summary: str, schema: type[Config] = Config
) -> Config:
    """Read ``[CONFIG.yaml] [key=value ...]``; ``--help`` lists every key.

    Raises:
        UserError: see :func:`raydec.config.load_config`.
    """
    parser = ArgumentParser(
        prog=f"python -m raydec.{verb}",
        description=summary,
        epilog=_key_list(schema),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="CONFIG.yaml | key=value")
    settings = parser.parse_args(list(arguments)).settings
    path: str | None = None
    if settings and "=" not in settings[0]:
        path, *settings = settings
        if not Path(path).is_file():
            raise UserError(f"{path!r} is neither a config file nor an override like training.epochs=3")
    return load_config(path, settings, schema)


def _key_list(schema: type[Config]) -> str:
    rows = [
        (f"{key}={'unset' if default is None else _plain(default)}", kind, description)
        for key, kind, default, description in iterate_keys(schema)
    ]
    width = min(max(len(left) for left, _, _ in rows), 48)
    lines = [f"  {left:<{width}}  {description}  [{kind}]" for left, kind, description in rows]
    return "\n".join(["keys and their defaults:", *lines])


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)

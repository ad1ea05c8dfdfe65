"""The command line of verbs with a config: a YAML file, then ``dotted.key=value`` overrides."""

from __future__ import annotations

import os
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from raydec.config import DEMO_DEFAULTS, Config, flatten, iterate_keys, load_config
from raydec.config_files import expand_home
from raydec.console.arguments import Parser
from raydec.errors import UserError

STORAGE_VARIABLE = "RAYDEC_STORAGE"
"""Environment variable with the default of ``storage_path``, set in a cluster file for all commands."""


def parse_config_arguments(
    arguments: Sequence[str], *, verb: str, summary: str, schema: type[Config] = Config
) -> Config:
    """Parse ``[CONFIG.yaml] [key=value ...]``; ``--help`` lists every key.

    ``storage_path`` defaults to the environment variable ``RAYDEC_STORAGE``.

    Raises:
        UserError: see :func:`raydec.config.load_config`.
    """
    parser = Parser(
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
        if not Path(path).expanduser().is_file():
            raise UserError(f"{path!r} is neither a config file nor an override like training.epochs=3")
    _refuse_late_file(path, settings, verb)
    config = load_config(path, settings, schema)
    if config.storage_path is None and os.environ.get(STORAGE_VARIABLE):
        return config.model_copy(update={"storage_path": expand_home(os.environ[STORAGE_VARIABLE])})
    return config


def _refuse_late_file(path: str | None, overrides: Sequence[str], verb: str) -> None:
    """Refuse a config file among the overrides, because it is unclear which should take precedence."""
    for item in overrides:
        if "=" in item or not (Path(item).is_file() or item.endswith((".yaml", ".yml"))):
            continue
        if path is not None:
            raise UserError(f"two config files are given, {path} and {item}; give one, and override its keys")
        others = " ".join(other for other in overrides if other != item)
        raise UserError(
            f"config file {item} comes after an override, but must come first: "
            f"python -m raydec.{verb} {item} {others}"
        )


def _key_list(schema: type[Config]) -> str:
    demo = dict(flatten(DEMO_DEFAULTS))
    rows = []
    for key, kind, default, description in iterate_keys(schema):
        if key in demo and _plain(demo[key]) != _plain(default):
            description += f"; demo corpus: {_plain(demo[key])}"
        rows.append((f"{key}={'unset' if default is None else _plain(default)}", kind, description))
    width = min(max(len(left) for left, _, _ in rows), 48)
    lines = [f"  {left:<{width}}  {description}  [{kind}]" for left, kind, description in rows]
    return "\n".join(["keys and their defaults (some have others for the demo corpus):", *lines])


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)

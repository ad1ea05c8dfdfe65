"""Reads config files and overrides, before validation."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from raydec.errors import UserError

_NULL = "tag:yaml.org,2002:null"


def read_settings(
    path: str | Path | None,
    settings: Sequence[Mapping[str, Any]],
    overrides: Sequence[str],
    text_keys: Collection[str],
) -> Any:
    """Merge a YAML file, mappings and ``dotted.key=value`` overrides into one tree of plain values.

    Args:
        path: a YAML file, or None.
        settings: mappings whose keys may be dotted; later mappings override earlier ones.
        overrides: values are YAML.
        text_keys: dotted keys whose values are text, so that ``name=007`` and ``name=no`` are kept as text.

    Raises:
        UserError: unreadable file, malformed override, a key without a value, or an unset variable.
    """
    file, given = _read_yaml(path, text_keys), _read_overrides(overrides, text_keys)
    try:
        merged = OmegaConf.merge(file, _nested(settings), given)
        return OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        text = _one_line(str(error).partition("full_key:")[0])
        reason = text.rpartition("while resolving interpolation:")[2].strip(' ."')
        key = f"{error.full_key}: " if error.full_key else ""
        raise UserError(
            f"{key}{reason}; set the variable, or give a default as in ${{oc.env:NAME,default}}"
        ) from None


def _nested(settings: Sequence[Mapping[str, Any]]) -> DictConfig:
    tree = OmegaConf.create()
    for key, value in (item for mapping in settings for item in mapping.items()):
        OmegaConf.update(tree, key, dict(value) if isinstance(value, Mapping) else value, merge=True)
    return tree


def expand_home(value: Any) -> Any:
    """Expand a leading ``~`` of a path; other values are returned unchanged.

    Raises:
        ValueError: the user has no home folder here.
    """
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise ValueError(f"{value.split('/')[0]} has no home folder here; give an absolute path")
    return expanded


def _read_yaml(path: str | Path | None, text_keys: Collection[str]) -> DictConfig:
    if path is None:
        return OmegaConf.create()
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        loaded = OmegaConf.create(text) if text.strip() else OmegaConf.create()
        scalars = list(_scalars(yaml.compose(text, yaml.SafeLoader)))
    except OSError as error:
        raise UserError(f"cannot read config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {_one_line(error)}") from None
    if not OmegaConf.is_dict(loaded):
        raise UserError(f"{path} must contain a mapping of config keys, not a list or a single value")
    assert isinstance(loaded, DictConfig)
    for key, node in scalars:
        if not node.value:
            raise UserError(
                f"{path}, line {node.start_mark.line + 1}: {key} has no value; give one, or write null to "
                "leave it unset"
            )
        _keep_text(loaded, key, node, text_keys)
    return loaded


def _scalars(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Dotted key and YAML node of every scalar value; the node has the original text."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, f"{prefix}.{key.value}" if prefix else str(key.value))
    elif isinstance(node, yaml.ScalarNode) and prefix:
        yield prefix, node


def _keep_text(tree: DictConfig, key: str, node: yaml.ScalarNode, text_keys: Collection[str]) -> None:
    if key in text_keys and node.tag != _NULL:
        OmegaConf.update(tree, key, node.value)


def _read_overrides(overrides: Sequence[str], text_keys: Collection[str]) -> DictConfig:
    for item in overrides:
        if "=" not in item or item.startswith(("=", "-")):
            raise UserError(f"{item!r} is neither a config file nor an override like training.epochs=3")
        key, _, value = item.partition("=")
        if not value.strip():
            raise UserError(
                f"{key} is given without a value (is a shell variable unset?); give one, or write "
                f"{key}=null to leave it unset"
            )
    try:
        tree = OmegaConf.from_dotlist(list(overrides))
        # If a key is given twice, the last value is used.
        for key, value in {item.partition("=")[0]: item.partition("=")[2] for item in overrides}.items():
            node = yaml.compose(value, yaml.SafeLoader)
            if isinstance(node, yaml.ScalarNode) and node.style is None:
                _keep_text(tree, key, node, text_keys)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"cannot read override: {_one_line(error)}") from None
    return tree


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())

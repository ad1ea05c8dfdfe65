"""Ray's private names are used in only one package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "raydec"
DOOR = PACKAGE / "ray_runtime" / "fast_start"
# `ray.train.v2` is the present version of Ray Train until it replaces the first one.
PRIVATE = re.compile(r"^ray\.(.*\.)?(_(?!_)\w*|v2)\b")


def dotted(node: ast.AST) -> str | None:
    """``a.b.c`` of an attribute of an attribute of a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{node.attr}"
    return None


def of_ray(tree: ast.AST) -> dict[str, str]:
    """Names that are bound to objects of Ray, and the full names of these objects."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ray":
                    names[alias.asname or "ray"] = alias.name if alias.asname else "ray"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def uses(tree: ast.AST) -> Iterator[str]:
    """All names of Ray that a module uses: imports, attributes, texts, methods of Ray's classes."""
    names = of_ray(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            found = dotted(node) or ""
            head, _, rest = found.partition(".")
            if head in names:
                yield f"{names[head]}.{rest}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Call) and (dotted(node.func) or "").split(".")[0] in names:
            yield from (f"ray.{keyword.arg}" for keyword in node.keywords)


def private_uses(tree: ast.AST) -> list[str]:
    return [name for name in uses(tree) if PRIVATE.match(name)]


@pytest.mark.parametrize(
    "code",
    [
        "from ray._private.node import Node",
        "import ray.train.v2.api.config",
        "import ray\nray.train._internal.session",
        "from ray import tune as t\nt._trainable",
        "name = 'ray._private.state'",
        "import ray\nray.init(_system_config={})",
    ],
)
def test_the_check_finds_what_it_looks_for(code: str) -> None:
    assert private_uses(ast.parse(code))


def test_no_other_module_names_what_is_private_to_ray() -> None:
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if DOOR not in path.parents and (names := private_uses(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert not found
    assert any(private_uses(ast.parse(path.read_text(encoding="utf-8"))) for path in DOOR.glob("*.py"))


def test_no_other_class_overrides_a_private_method_of_ray() -> None:
    pytest.importorskip("ray")
    from raydec.ray_runtime import process_group, search, trainer

    configs = [trainer._config_type(), trainer._config_type()().backend_cls]
    classes = [
        value
        for module in (process_group, search, trainer)
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    checked = 0
    for kind in [*classes, *configs]:
        bases = [base for base in kind.__mro__[1:] if base.__module__.partition(".")[0] == "ray"]
        inherited = {name for base in bases for name in vars(base)}
        own = {name for name in vars(kind) if name.startswith("_") and not name.startswith("__")}
        assert not own & inherited - {"_abc_impl"}, kind
        checked += bool(bases)
    assert checked >= 5

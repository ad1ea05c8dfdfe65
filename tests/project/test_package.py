"""The package as a whole: cheap to import, Ray in one package, every setting explained."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from raydec.config import Config, iterate_keys
from raydec.ray_runtime import fast_start

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "raydec"

PROBE = """
import json, sys, time
start = time.perf_counter()
import raydec
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules), "version": raydec.__version__}))
"""


def import_in_new_process() -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    return json.loads(done.stdout)


def test_import_is_quick_and_brings_neither_torch_nor_ray() -> None:
    probes = [import_in_new_process() for _ in range(3)]
    assert not {"torch", "ray", "numpy", "pydantic"} & set(probes[0]["modules"])
    # The best of three: a busy machine must not fail it.
    assert min(probe["seconds"] for probe in probes) < 0.3


def imported_packages(path: Path) -> set[str]:
    """Top-level packages a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_only_ray_runtime_imports_ray() -> None:
    importers = {
        path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "ray" in imported_packages(path)
    }
    assert importers, "the check would pass on nothing"
    assert {path.parts[0] for path in importers} == {"ray_runtime"}


def test_import_contracts_hold(tmp_path: Path) -> None:
    pytest.importorskip("importlinter.cli", reason="import-linter is in the dev extra")
    # In a separate process, because it disables every existing logger.
    code = "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(cache_dir=sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_has_a_one_line_description() -> None:
    keys = list(iterate_keys(Config))
    assert len(keys) > 40
    for key, kind, _, description in keys:
        assert kind, key
        assert len(description) >= 6 and "\n" not in description, f"{key} has no one-line description"


def module_names() -> list[str]:
    """Every module but those that import private names of Ray which this release may not have."""
    is_fast = fast_start.is_usable("train")
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
        if path.name != "__main__.py" and (is_fast or path.parent.name != "fast_start")
    )


def test_every_module_imports_without_a_word(tmp_path: Path) -> None:
    """No prints, warnings, logging set-up, files or seeded generators at import."""
    names = module_names()
    # Not the state of `random`: rich and Ray draw from it when they are imported.
    code = f"""
import importlib, logging
import numpy, torch
before = (numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
handlers = list(logging.getLogger().handlers)
for name in {names!r}:
    importlib.import_module(name)
assert before == (numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
assert logging.getLogger().handlers == handlers
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_package_is_found_where_the_tests_are() -> None:
    """Tests of a stale installation prove nothing about the checkout."""
    spec = importlib.util.find_spec("raydec")
    assert spec is not None and spec.origin is not None
    installed = Path(spec.origin).parent
    for path in PACKAGE.rglob("*.py"):
        twin = installed / path.relative_to(PACKAGE)
        assert twin.is_file() and twin.read_bytes() == path.read_bytes(), (
            f"{twin} is not the checkout's {path.name}: run pip install '.[test]' again"
        )


def test_every_name_that_a_function_uses_is_defined() -> None:
    """ruff and mypy ignore undefined names, because of the axis names in jaxtyping annotations."""
    code = f"""
import builtins, dis, importlib, types
def undefined(code, known):
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL" and step.argval not in known:
            yield f"{{code.co_filename}}:{{code.co_firstlineno}} {{step.argval}}"
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from undefined(inner, known)
found = []
for name in {module_names()!r}:
    module = importlib.import_module(name)
    source = compile(open(module.__file__).read(), module.__file__, "exec")
    found += undefined(source, set(vars(module)) | set(vars(builtins)))
print("\\n".join(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


# What a package is imported as, where that is not its name.
IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml", "mlflow-skinny": "mlflow", "umap-learn": "umap",
               "cuml-cu13": "cuml"}  # fmt: skip


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(item for items in extras.values() for item in items)]
    names = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in wanted}  # type: ignore[index]
    declared = {IMPORTED_AS.get(name, name).replace("-", "_").lower() for name in names} | {"grpc", "raydec"}
    imported = set().union(*(imported_packages(path) for path in PACKAGE.rglob("*.py")))
    outside = {name for name in imported if name not in sys.stdlib_module_names}
    # cuML brings CuPy, which hands arrays over to it.
    undeclared = {name for name in outside if name.lower() not in declared} - {"cupy"}
    assert not undeclared

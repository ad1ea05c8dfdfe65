"""raydec: train, search and serve DeepEmoCluster models on Ray.

Importing the package is fast: torch and Ray are loaded only by the functions that use them.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from raydec.version import __version__

if TYPE_CHECKING:
    from raydec.api import predict as predict
    from raydec.api import prepare as prepare
    from raydec.api import report as report
    from raydec.api import search as search
    from raydec.api import train as train
    from raydec.errors import UserError as UserError
    from raydec.evaluation.scoring import evaluate as evaluate
    from raydec.inference.prediction import load as load

_HOMES = {
    "UserError": "raydec.errors",
    "evaluate": "raydec.evaluation.scoring",
    "load": "raydec.inference.prediction",
    "predict": "raydec.api",
    "prepare": "raydec.api",
    "report": "raydec.api",
    "search": "raydec.api",
    "train": "raydec.api",
}
__all__ = ["__version__", *_HOMES]


class _Package(ModuleType):
    """The package as a namespace of its public functions, each imported at its first use.

    ``raydec.train`` is a function, but also a module on disk, for ``python -m raydec.train``. Importing that
    module would replace the function, so this assignment is ignored; the module is still in ``sys.modules``.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in _HOMES:
            import importlib

            return getattr(importlib.import_module(_HOMES[name]), name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package

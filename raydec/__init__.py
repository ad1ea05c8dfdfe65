"""raydec: train, search and serve DeepEmoCluster models on Ray.

Importing the package costs nothing: torch and Ray are loaded by the modules that use them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raydec.version import __version__

if TYPE_CHECKING:
    from raydec.inference.prediction import load as load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from raydec.inference.prediction import load

        return load
    raise AttributeError(f"module 'raydec' has no attribute {name!r}")

"""Take tissue apart: cell types, programs and archetypes of single-cell, spatial and bulk data, on AnnData."""

import importlib
from typing import Any

from unmix._settings import set_verbosity, settings

__version__ = "0.1.0"
__all__ = ["cli", "datasets", "get", "load", "metrics", "pl", "pp", "report", "save", "set_verbosity", "settings", "tl"]


def __getattr__(name: str) -> Any:
    """Import a part of the package when it is first used; `save` and `load` keep fitted models in files."""
    if name in ("load", "save"):
        return getattr(importlib.import_module("unmix._adata.model_files"), name)
    if name == "report":
        return importlib.import_module("unmix._report").report
    if name in __all__:
        return importlib.import_module(f"unmix.{name}")
    msg = f"module 'unmix' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return __all__

"""The decorator that makes a function of slots a tool: copy semantics, provenance, the log line, all or nothing."""

import functools
import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

import pandas as pd

from unmix import __version__
from unmix._adata.arguments import check_arguments
from unmix._adata.write import Slots, storable, write
from unmix._settings import logger

if TYPE_CHECKING:
    from anndata import AnnData

P = ParamSpec("P")


def tool(function: Callable[P, Slots]) -> "Callable[P, AnnData | None]":
    """Turn a function that returns the slots it would write into a tool that writes them.

    The function reads its first parameter, an AnnData, and never changes it. The tool writes all slots or none, into the
    object given or, with `copy=True`, into a copy that it returns; adds every parameter, the tool's name and the package's
    version to `uns[key_added]["params"]`; and logs what was written and how long it took.

    Raises
    ------
    TypeError
        If the first argument is not an AnnData.
    """
    signature = inspect.signature(function)
    name = function.__name__

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> "AnnData | None":
        if args:
            check_anndata(args[0], name)
        bound = check_arguments(function, args, kwargs)
        parameters = dict(bound.arguments)
        adata = check_anndata(parameters.pop(next(iter(parameters))), name)
        copy = parameters.pop("copy")
        start = time.perf_counter()
        slots = function(*bound.args, **bound.kwargs)
        provenance = {"tool": name, "unmix_version": __version__, **parameters}
        for entry in slots.uns.values():
            entry["params"] = storable({**provenance, **entry.get("params", {})})
        if copy:
            adata = adata.to_memory() if adata.isbacked else adata.copy()
        write(adata, slots)
        logger.info("%s: %.1f s, wrote %s", name, time.perf_counter() - start, ", ".join(slots.names()) or "no slot")
        return adata if copy else None

    wrapper.__signature__ = signature.replace(return_annotation="AnnData | None")  # type: ignore[attr-defined]
    wrapper.__annotations__ = {**function.__annotations__, "return": "AnnData | None"}
    return wrapper


def check_anndata(value: Any, name: str) -> Any:
    """Return `value` if it is an AnnData; say what was given if not."""
    from anndata import AnnData

    if not isinstance(value, AnnData):
        msg = f"`{name}` expects an AnnData as its first argument, got {type(value).__name__}."
        if isinstance(value, pd.DataFrame):
            msg += (
                " `anndata.AnnData(table)` makes one of samples x genes; where the rows are genes, give it `table.T`."
            )
        raise TypeError(msg)
    return value

"""Arguments of public functions, checked against their annotations and against limits that go by name."""

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


class ArgumentProblem(ValueError, TypeError):
    """An argument is of another kind, or out of range; the message says which, and what was given."""


@dataclass(frozen=True)
class Limits:
    """Smallest and largest value of a number."""

    low: float
    high: float = np.inf
    above: bool = False
    """Whether the smallest value itself is excluded."""
    infinite: bool = False
    """Whether infinity is a value."""

    def refuse(self, value: Any) -> str | None:
        """Return what is wanted, if it is not what is given."""
        value = _as_float(value)
        fits = (value > self.low if self.above else value >= self.low) and value <= self.high
        if fits and (self.infinite or np.isfinite(value)):
            return None
        if not np.isfinite(self.low):
            return "a finite number"
        bottom = (
            "a positive number"
            if self.above and not self.low
            else f"a number {'>' if self.above else '>='} {self.low:g}"
        )
        return bottom + (f" and <= {self.high:g}" if np.isfinite(self.high) else "" if self.infinite else ", finite")


def _as_float(number: Any) -> float:
    """Return a number in double precision; an integer that is too large becomes infinite."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else -float("inf")


NOT_NEGATIVE, POSITIVE, SHARE, COUNT = Limits(0), Limits(0, above=True), Limits(0, 1), Limits(1)
ANY_NUMBER = Limits(-np.inf)

LIMITS = {
    "batch_size": COUNT,
    "cells_per_spot": Limits(0, above=True, infinite=True),
    "coreset": COUNT,
    "delta": NOT_NEGATIVE,
    "hidden": Limits(1, 100_000),
    "l1": NOT_NEGATIVE,
    "l2": NOT_NEGATIVE,
    "learning_rate": POSITIVE,
    "max_cells": Limits(10, 1_000_000_000),
    "max_distance": NOT_NEGATIVE,
    "max_iter": COUNT,
    "max_epochs": COUNT,
    "max_q": SHARE,
    "max_rounds": NOT_NEGATIVE,
    "min_cells": NOT_NEGATIVE,
    "min_log_fold_change": Limits(-np.inf, infinite=True),
    "min_targets": COUNT,
    "n_components": Limits(1, 100_000),
    "n_genes": COUNT,
    "n_latent": Limits(1, 100_000),
    "n_pcs": COUNT,
    "n_perms": Limits(0, 10_000_000),
    "n_restarts": Limits(1, 1_000_000),
    "n_runs": Limits(2, 1_000_000),
    "n_samples": Limits(0, 1_000_000),
    "n_top": COUNT,
    "n_top_genes": COUNT,
    "neighbourhood": Limits(0, 1, above=True),
    "ridge": NOT_NEGATIVE,
    "rng": NOT_NEGATIVE,
    "smooth": SHARE,
    "smoothing": NOT_NEGATIVE,
    "specificity": NOT_NEGATIVE,
    "tol": NOT_NEGATIVE,
    "vmax": POSITIVE,
}
"""The same name means the same in every function."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of every call before the function starts."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = check_arguments(function, args, kwargs)
        return function(*bound.args, **bound.kwargs)

    return wrapper


def check_arguments(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Return all arguments, defaults included, if each is what its annotation and its limits allow.

    Numbers of numpy become those of Python.

    Raises
    ------
    ArgumentProblem
        If one is not.
    TypeError
        If an argument is missing, given twice, or not one of the function's.
    """
    signature, hints = _described(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        named = [name for name, option in signature.parameters.items() if option.kind is option.KEYWORD_ONLY]
        hint = (
            f" {named[0]!r} and what follows are given by name, as in {named[0]}=..." if named and len(args) > 1 else ""
        )
        msg = f"`{function.__name__}`: {error}; it takes {', '.join(signature.parameters)}.{hint}"
        raise TypeError(msg) from None
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        if name in hints and value is not signature.parameters[name].default:
            _check(name, value, hints[name])
        bound.arguments[name] = value.item() if isinstance(value, np.generic) else value
    return bound


@functools.cache
def _described(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Return the signature and what its annotations stand for; those that name what is not loaded are left out."""
    signature, hints = inspect.signature(function), {}
    for name, parameter in signature.parameters.items():
        kind = parameter.annotation
        try:
            kind = eval_hint(kind, function.__globals__) if isinstance(kind, str) else kind
        except NameError:
            continue
        hints[name] = kind
    return signature, hints


def eval_hint(hint: str, names: dict[str, Any]) -> Any:
    """Return what a quoted annotation of this package stands for."""
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    return typing.get_type_hints(holder, globalns=names, localns=_Names())["hint"]


class _Names(dict[str, Any]):
    """Names that modules import for type checkers only."""

    def __missing__(self, name: str) -> Any:
        where = {"pd": "pandas", "AnnData": "anndata", "Axes": "matplotlib.axes", "Sequence": "collections.abc",
                 "Mapping": "collections.abc"}.get(name)  # fmt: skip
        if where is None:
            raise KeyError(name)
        module = importlib.import_module(where)
        return module if name == "pd" else getattr(module, name)


def _check(name: str, value: Any, kind: Any) -> None:
    choices = _options(kind)
    if Any in choices or any(_is_a(value, option) for option in choices):
        if isinstance(value, str) and not value and Path in choices:  # pathlib would take it for the present folder
            msg = f"`{name}` must name a file or folder, got ''."
            raise ArgumentProblem(msg)
        _check_value(name, value)
        return
    words = [word for option in choices for word in (get_args(option) if get_origin(option) is Literal else ())]
    if words and isinstance(value, str):
        msg = f"`{name}` must be one of {words}, got {value!r}."
    else:
        msg = f"`{name}` must be {' or '.join(_name(option) for option in choices)}, got {described(value)}."
    raise ArgumentProblem(msg)


def _check_value(name: str, value: Any) -> None:
    """Refuse numbers out of range and names of slots that no file can hold."""
    if name == "key_added" and isinstance(value, str) and (not value or "/" in value or "\0" in value):
        msg = f"`key_added` must not be empty nor hold a `/`, which files take for a folder, got {value!r}."
        raise ArgumentProblem(msg)
    if name == "key_added" and value == "spatial":
        msg = "`key_added` must not be 'spatial': coordinates and images are there, and would be lost."
        raise ArgumentProblem(msg)
    numbers = value if isinstance(value, tuple | list) and name in LIMITS else [value]
    for number in numbers:
        if isinstance(number, Real) and not isinstance(number, bool | np.bool_):
            if isinstance(number, Integral) and abs(int(number)) >= 2**63:
                msg = f"`{name}` is too large a number: {described(value)}."
                raise ArgumentProblem(msg)
            wanted = LIMITS.get(name, ANY_NUMBER).refuse(number)
            if wanted:
                msg = f"`{name}` must be {wanted}, got {value!r}."
                raise ArgumentProblem(msg)


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_a(value: Any, kind: Any) -> bool:
    """Tell whether a value is what an annotation says; numbers of numpy count as numbers, arrays of names as lists."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if kind is None or kind is type(None):
        return value is None
    if origin is Literal:
        return isinstance(value, str | bool) and any(type(value) is type(word) and value == word for word in inner)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool | np.bool_)
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if origin in (Union, types.UnionType):
        return any(_is_a(value, option) for option in inner)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_is_a(v, inner[1]) for v in value.values())
    if origin is tuple:
        length = len(inner) if inner[-1] is not Ellipsis else None
        return (
            isinstance(value, tuple | list) and length in (None, len(value)) and all(_is_a(v, inner[0]) for v in value)
        )
    if origin is not None and issubclass(origin, Sequence | Iterable):
        items = value.ravel() if isinstance(value, np.ndarray) and value.dtype == object else value
        return _is_list(items) and all(_is_a(v, inner[0]) for v in items)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _is_list(value: Any) -> bool:
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__"):
        return False
    return isinstance(value, Sequence | set | frozenset) or getattr(value, "ndim", 0) == 1


def _name(kind: Any) -> str:
    if kind is type(None):
        return "None"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    known = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}
    if get_origin(kind) is None:
        name = getattr(kind, "__name__", str(kind))
        return known.get(kind) or f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
    inner = " or ".join(_name(option) for option in get_args(kind) if option is not Ellipsis)
    return f"a {get_origin(kind).__name__.lower()} ({inner})"


def described(value: Any) -> str:
    """Return a short description of any value for a message."""
    if value is None or isinstance(value, str | bool | Real):
        return repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    shape = getattr(value, "shape", None)
    size = (
        f" of shape {shape}" if isinstance(shape, tuple) else f" of {len(value)}" if hasattr(value, "__len__") else ""
    )
    shown = f", {value!r}" if isinstance(value, list | tuple | set | dict) and len(repr(value)) <= 80 else ""
    return f"{type(value).__name__}{size}{shown}"

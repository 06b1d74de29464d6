"""Every public function with small, sound input, what of it may be spoiled, and what its answer must be."""

import functools
import inspect
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args, get_origin
from unittest import mock

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import unmix as um

from . import hostile
from .judge import Defect

LONG = {
    "max_epochs": [1, 2, 0, -1, "auto "],
    "max_iter": [0, 1, 3, 40, -2],
    "n_runs": [0, 1, 2, 3, True],
    "n_perms": [0, 1, 7, -1, 1.0],
    "n_restarts": [0, 1, 2, -1],
    "n_samples": [0, 1, 3, -1],
    "max_rounds": [0, 1, -1],
    "n_latent": [0, 1, 2, 5, -1, 2.0],
    "hidden": [(), (0,), (1,), (3, 2), [4], 4, ("a",)],
    "batch_size": [0, 1, 3, 128],
    "online": [0, 1, 2, -1, True],
    "n_spots": [0, 1, 5, -1, 2.5],
    "n_genes": [0, 1, 4, 30, -1],
    "ranks": [[1, 2], [0], [], [3], [99], 2],
    "n_types": [0, 1, 2, 5, -1],
    "n_donors": [0, 1, 2, -1],
    "shape": [(0, 0), (1, 1), (2, 3), (2,), (-1, 2), "ab"],
    "cells_per_type": [0, 1, 3, -1, {}, {"a": 2}],
    "cells_per_spot": [0, 1, 4.5, -1, np.inf, np.nan, "n_cells", "no such"],
    "n_jobs": [None, 1, 2, 0, -1, -2, 1.0, True, "2"],
    "device": ["auto", "cpu", "gpu", 1, None],
    "types_per_spot": [None, 0, 1, 2, -1],
    "show": [False],
    "n_top_genes": [0, 1, 5, 2000, -1],
    "key_added": ["other", "", "a/b", 3, None],
}
"""Arguments for which any value would ask for a long run, more memory, or a window."""


@functools.cache
def _base() -> AnnData:
    rng = np.random.default_rng(0)
    labels = np.arange(14) % 3
    X = rng.poisson(profiles().to_numpy().T[labels] * 6 + 0.3)
    X[4] = 0
    X[:, 9] = 0
    adata = AnnData(sparse.csr_matrix(X.astype(np.float32)))
    adata.obs_names = [f"cell {i}" for i in range(14)]
    adata.var_names = list(profiles().index)
    adata.obs["cell_type"] = pd.Categorical(np.array(["A", "B/b", "C"])[labels])
    adata.obs["batch"] = pd.Categorical(np.array(["one", "two"])[np.arange(14) // 7])
    adata.obs["n_cells"] = np.arange(14) % 4 + 1
    adata.obsm["spatial"] = rng.random((14, 2))
    adata.layers["counts"] = adata.X.copy()
    adata.obsp["spatial_connectivities"] = sparse.csr_matrix(sparse.diags_array([np.ones(13)] * 2, offsets=[-1, 1]))
    return adata


def profiles() -> pd.DataFrame:
    """Return a signature of three types over eighteen genes."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(rng.gamma(0.5, 2.0, (18, 3)), index=[f"gene {g}" for g in range(18)], columns=["A", "B/b", "C"])


def cells() -> AnnData:
    return _base().copy()


@functools.cache
def _results() -> AnnData:
    import warnings

    adata = cells()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        um.pp.signatures(adata, "cell_type", n_markers=(1, 5))
        um.tl.deconvolve(adata, cells(), groupby="cell_type", n_perms=3)
        um.tl.starfysh_archetypes(adata, "auto", resolution=None, signatures=sets(), n_restarts=1)
        um.tl.factorize(adata, 2)
        um.tl.metagenes(adata, [2, 3], n_runs=3, n_top_genes=15, max_distance=2.0, net=net())
        um.tl.joint_nmf(adata, 2, batch_key="batch")
        um.tl.autoencoder(adata, 2, likelihood="nb", max_epochs=1, hidden=(4,))
        um.tl.zinb_ae(adata, 2, max_epochs=1, hidden=(4,))
        um.tl.denoise(adata)
    return adata


def results() -> AnnData:
    """Return the cells with a result of every tool."""
    return _results().copy()


@functools.cache
def _interrupted() -> AnnData:
    from unmix.core.autoencoder import Trainer

    adata, epoch = cells(), Trainer._epoch

    def second(self: Any, state: Any) -> None:
        if state.epoch:
            raise KeyboardInterrupt
        epoch(self, state)

    with mock.patch.object(Trainer, "_epoch", second):
        um.tl.autoencoder(adata, 2, likelihood="nb", max_epochs=2, hidden=(4,), on_interrupt="keep")
    return adata


def interrupted() -> AnnData:
    """Return the cells with an autoencoder whose training was interrupted."""
    return _interrupted().copy()


def warm_up() -> None:
    """Call every target as it is, so that all is compiled."""
    for target in TARGETS.values():
        Case(target, {**{name: make() for name, make in target.inputs.items()}, **target.options}, "").call()


def sets() -> dict[str, list[str]]:
    return {"A": ["gene 1", "gene 2"], "B/b": ["gene 3", "gene 4"]}


def net() -> pd.DataFrame:
    return pd.DataFrame({"source": ["s"] * 6 + ["t"] * 5, "target": [f"gene {i}" for i in range(11)]})


def views() -> dict[str, AnnData]:
    return {"rna": cells()[:, :10].copy(), "adt": cells()[3:, 10:].copy()}


@dataclass(frozen=True)
class Target:
    """A public function, the input it is spoiled from, and what its answer must be."""

    function: Callable[..., Any]
    inputs: dict[str, Callable[[], Any]]
    """Arguments that are data."""
    options: dict[str, Any] = field(default_factory=dict)
    answer: Callable[[dict[str, Any], Any], None] = lambda given, result: None
    weight: int = 3


def _finite_rows(adata: AnnData, values: Any, what: str) -> np.ndarray:
    """Return which rows are finite; the others must be NaN throughout."""
    values = np.asarray(values, dtype=float).reshape(adata.n_obs, -1)
    good, none = np.isfinite(values).all(axis=1), np.isnan(values).all(axis=1)
    if not (good | none).all():
        raise Defect(f"{what} has rows that are neither finite nor NaN: {values[~(good | none)][:2]}")
    return good


def _on_simplex(adata: AnnData, table: Any, what: str) -> np.ndarray:
    values = np.asarray(table, dtype=float)
    good = _finite_rows(adata, values, what)
    if (values[good] < -1e-9).any() or (np.abs(values[good].sum(axis=1) - 1) > 1e-4).any():
        raise Defect(f"rows of {what} are not on the simplex: {values[good][:3]}")
    return good


def check_deconvolve(given: dict[str, Any], result: Any) -> None:
    adata = result if given.get("copy") else given["adata"]
    key = given.get("key_added", "deconvolve")
    status = adata.obs[f"{key}_status"].astype(str).to_numpy()
    good = (
        _finite_rows(adata, adata.obsm[key], key) if given.get("absolute") else _on_simplex(adata, adata.obsm[key], key)
    )
    if (status[~good] == "ok").any():
        raise Defect("NaN rows have the status ok")
    for name in ("correlation", "rmse", "pval", "misfit", "unexplained"):
        if (
            f"{key}_{name}" in adata.obs
            and not (np.isfinite(adata.obs[f"{key}_{name}"]) | np.isnan(adata.obs[f"{key}_{name}"])).all()
        ):
            raise Defect(f"{name} is infinite")


def check_embedding(
    simplex: bool = False, prefix: str = "X_", default: str = ""
) -> Callable[[dict[str, Any], Any], None]:
    def check(given: dict[str, Any], result: Any) -> None:
        adata = result if given.get("copy") else given.get("adata", given.get("data"))
        key = given.get("key_added") or given.get("kind") or default or given.get("method") or "nmf"
        (_on_simplex if simplex else _finite_rows)(adata, adata.obsm[prefix + key], prefix + key)
        if key in adata.varm and not np.isfinite(np.asarray(adata.varm[key], dtype=float)).all():
            raise Defect(f"varm[{key!r}] is not finite")

    return check


def check_signatures(given: dict[str, Any], result: Any) -> None:
    adata = result if given.get("copy") else given["adata"]
    key = given.get("key_added", "signatures")
    for name in (key, f"{key}_variance", f"{key}_logfc", f"{key}_qvals"):
        if not np.isfinite(adata.varm[name].to_numpy()).all():
            raise Defect(f"varm[{name!r}] is not finite")


def check_counts(given: dict[str, Any], result: Any) -> None:
    adata = result if given.get("copy") else given["adata"]
    key = given.get("key_added", "counts")
    values, unit = adata.layers[key].data, adata.obs[key + "_unit"].to_numpy()
    if not (np.isfinite(values) & (values >= 0) & (values == np.rint(values))).all():
        raise Defect(f"layers[{key!r}] does not hold counts")
    if not (np.isfinite(unit) & (unit > 0)).all():
        raise Defect(f"obs[{key + '_unit'!r}] is not above 0")


def check_views(given: dict[str, Any], result: Any) -> None:
    data = result if given.get("copy") else given["data"]
    for part in data.values():
        _finite_rows(part, part.obsm["X_" + given.get("key_added", "joint_nmf")], "X_joint_nmf")


def a_table(given: dict[str, Any], result: Any) -> None:
    if not isinstance(result, pd.DataFrame | pd.Series | tuple):
        raise Defect(f"a table was expected, not {type(result).__name__}")


def axes(given: dict[str, Any], result: Any) -> None:
    from matplotlib import pyplot as plt

    plt.close("all")
    if not isinstance(result, list) or not result:
        raise Defect(f"axes were expected, not {type(result).__name__}")


def _targets() -> dict[str, Target]:
    tl, get, pl = um.tl, um.get, um.pl
    quick = {"max_epochs": 1, "hidden": (4,)}
    found = {
        "signatures": Target(
            um.pp.signatures, {"adata": cells}, {"groupby": "cell_type", "n_markers": (1, 5)}, check_signatures, 6
        ),
        "recover_counts": Target(um.pp.recover_counts, {"adata": cells}, {"key_added": "found"}, check_counts, 2),
        "deconvolve cells": Target(
            tl.deconvolve, {"adata": cells, "reference": cells}, {"groupby": "cell_type"}, check_deconvolve, 8
        ),
        "autoencoder": Target(
            tl.autoencoder, {"adata": cells}, {"n_latent": 2, **quick}, check_embedding(default="ae"), 2
        ),
        "zinb_ae": Target(
            tl.zinb_ae, {"adata": cells}, {"n_latent": 2, **quick}, check_embedding(default="zinb_ae"), 1
        ),
        "resume": Target(
            tl.autoencoder,
            {"adata": interrupted},
            {"n_latent": 2, "likelihood": "nb", "resume": True, "hidden": (4,), "max_epochs": 2},
            check_embedding(default="ae"),
            1,
        ),
        "denoise": Target(tl.denoise, {"adata": cells, "fitted": results}, {}, weight=2),
        "metagenes": Target(
            tl.metagenes,
            {"adata": cells},
            {"n_components": 2, "n_runs": 2, "n_top_genes": 15, "max_distance": 2.0},
            check_embedding(simplex=True, default="metagenes"),
            4,
        ),
        "joint_nmf batches": Target(
            tl.joint_nmf,
            {"data": cells},
            {"n_components": 2, "batch_key": "batch", "max_iter": 20},
            check_embedding(default="joint_nmf"),
            4,
        ),
        "joint_nmf views": Target(tl.joint_nmf, {"data": views}, {"n_components": 2, "max_iter": 20}, check_views, 4),
        "archetypes": Target(
            tl.starfysh_archetypes,
            {"adata": cells},
            {"n_archetypes": 2, "n_restarts": 1, "signatures": sets()},
            check_embedding(simplex=True, prefix="", default="archetypes"),
            6,
        ),
        "archetypes auto": Target(
            tl.starfysh_archetypes,
            {"adata": cells},
            {"n_archetypes": "auto", "n_restarts": 1},
            check_embedding(simplex=True, prefix="", default="archetypes"),
            1,
        ),
    }
    for method in ("auto", "poisson", "nnls", "simplex", "nusvr", "nusvr_simplex"):
        inputs = {"adata": cells, "reference": profiles}
        found[f"deconvolve {method}"] = Target(tl.deconvolve, inputs, {"method": method}, check_deconvolve)
    for method, loss in (("nmf", "frobenius"), ("nmf", "kl"), ("als", "frobenius"), ("svd", "frobenius")):
        options = {"n_components": 2, "method": method, "loss": loss, "max_iter": 30}
        found[f"factorize {method} {loss}"] = Target(tl.factorize, {"adata": cells}, options, check_embedding(), 3)
    for key in ("nmf", "metagenes", "joint_nmf", "archetypes", "ae", "zinb_ae"):
        inputs = {"adata": cells, "fitted": results}
        found[f"transform {key}"] = Target(tl.transform, inputs, {"key": key}, weight=2)
    tables = {
        "proportions": "deconvolve",
        "archetypes": "archetypes",
        "markers": "archetypes",
        "enrichment": "metagenes",
        "joint_loadings": "joint_nmf",
        "loadings": "nmf",
        "results": None,
    }
    for name, key in tables.items():
        function = getattr(get, name)
        first = next(iter(inspect.signature(function).parameters))
        found[f"get.{name}"] = Target(function, {first: results}, {} if key is None else {"key": key}, a_table, 3)
    keys = {
        "archetype_markers": "archetypes",
        "archetype_selection": "archetypes",
        "archetype_simplex": "archetypes",
        "archetype_tree": "archetypes",
        "archetypes": "archetypes",
        "consensus": "metagenes",
        "denoised": "ae",
        "joint_loadings": "joint_nmf",
        "loadings": "nmf",
        "proportions": "deconvolve",
        "rank_selection": "metagenes",
        "signature_matching": "archetypes",
        "top_genes": "metagenes",
        "training": "ae",
    }
    for name in pl.__all__:
        function = getattr(pl, name)
        parameters = inspect.signature(function).parameters
        first = next(iter(parameters))
        more = {"genes": ["gene 1", "gene 2"]} if "genes" in parameters and name == "denoised" else {}
        key = {"key": keys[name]} if name in keys and "key" in parameters else {}
        found[f"pl.{name}"] = Target(function, {first: results}, {"show": False, **key, **more}, axes, 1)
    table = functools.partial(pd.DataFrame, np.full((3, 2), 0.5), columns=["a", "b/c"])
    for name in ("align", "evaluate", "per_type", "jensen_shannon"):
        found[f"metrics.{name}"] = Target(getattr(um.metrics, name), {"estimated": table, "truth": table}, weight=1)
    found["metrics.coverage"] = Target(um.metrics.coverage, {"estimated": table, "se": table, "truth": table}, weight=1)
    small = {"n_genes": 20, "n_spots": 6, "cells_per_type": 3}
    found["simulate_spots"] = Target(
        um.datasets.simulate_spots, {}, _known(um.datasets.simulate_spots, small), weight=2
    )
    found["split_cells"] = Target(um.datasets.split_cells, {"cells": cells}, {"groupby": "cell_type"}, weight=1)
    found["pool_cells"] = Target(
        um.datasets.pool_cells, {"cells": cells}, {"groupby": "cell_type", "shape": (2, 2)}, weight=1
    )
    return found


def _known(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in inspect.signature(function).parameters}


TARGETS = _targets()


@dataclass
class Case:
    """One call with what was done to its input."""

    target: Target
    given: dict[str, Any]
    label: str

    def call(self) -> Any:
        return self.target.function(**self.given)

    def answer(self, result: Any) -> None:
        self.target.answer(self.given, result)

    @property
    def replaces(self) -> bool:
        """Whether an answer takes the place of a result that was there."""
        return "resume" in self.target.options

    def inputs(self) -> dict[str, Any]:
        return {name: self.given[name] for name in self.target.inputs if name in self.given}


def draw(random: Random, folder: Path | None = None) -> Case:
    """Draw a function and spoil up to three things of what it is given."""
    name = random.choices(list(TARGETS), [t.weight for t in TARGETS.values()])[0]
    target = TARGETS[name]
    given: dict[str, Any] = {argument: make() for argument, make in target.inputs.items()}
    told = [name]
    for _ in range(random.choice([0, 1, 1, 2, 2, 3, 4])):
        if target.inputs and random.random() < 0.6:
            argument = random.choice(list(target.inputs))
            given[argument], what = spoil(given[argument], random)
            told.append(f"{argument}: {what}")
    given |= target.options
    parameters = [
        p for p in inspect.signature(target.function).parameters if p not in target.inputs or random.random() < 0.05
    ]
    for _ in range(random.choice([0, 0, 0, 1, 1, 2])):
        if not parameters:
            break
        argument = random.choice(parameters)
        given[argument] = value(target.function, argument, random, folder)
        told.append(f"{argument}={_short(given[argument])}")
    return Case(target, given, "; ".join(told))


def _short(what: Any) -> str:
    return " ".join(repr(what).split())[:80]


def spoil(data: Any, random: Random) -> tuple[Any, str]:
    """Return data with something wrong, and what."""
    if isinstance(data, dict) and data:
        key = random.choice(list(data))
        part, what = spoil(data[key], random)
        return {**data, key: part}, f"{key}: {what}"
    if isinstance(data, pd.DataFrame):
        return spoil_table(data, random)
    if not isinstance(data, AnnData):
        return random.choice(hostile.VALUES), "anything"
    pool = hostile.MUTATIONS
    if data.uns and random.random() < 0.6:
        pool = hostile.STORED
    what = random.choice(list(pool))
    try:
        return pool[what](data, random), what
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
    ):  # cannot be done to what is spoiled already
        return data, f"(not {what})"


def spoil_table(table: pd.DataFrame, random: Random) -> tuple[Any, str]:
    changes: dict[str, Callable[[], Any]] = {
        "NaN": lambda: table.where(np.arange(len(table))[:, None] > 0),
        "infinite": lambda: table * np.inf,
        "negative": lambda: table - 5,
        "strings": lambda: table.astype(str),
        "mixed": lambda: table.astype(object).where(np.arange(table.shape[1]) > 0, "x"),
        "no rows": lambda: table.iloc[:0],
        "no columns": lambda: table.iloc[:, :0],
        "one column": lambda: table.iloc[:, :1],
        "one row": lambda: table.iloc[:1],
        "rows twice": lambda: pd.concat([table, table]),
        "columns twice": lambda: pd.concat([table, table], axis=1),
        "numbers as names": lambda: table.reset_index(drop=True),
        "numbers as types": lambda: table.set_axis(range(table.shape[1]), axis=1),
        "zeros": lambda: table * 0,
        "equal columns": lambda: table.apply(lambda c: table.iloc[:, 0]),
        "huge": lambda: table * 1e307,
        "integers": lambda: table.round().astype(int),
        "array": lambda: table.to_numpy(),
        "NaN names": lambda: table.set_axis([np.nan] * len(table)),
        "bool": lambda: table > 1,
        "upper": lambda: table.rename(index=str.upper),
        "levels": lambda: table.set_axis(pd.MultiIndex.from_product([["a"], range(len(table))])),
        "anything": lambda: random.choice(hostile.VALUES),
    }
    what = random.choice(list(changes))
    try:
        return changes[what](), what
    except (ValueError, TypeError, KeyError, IndexError):
        return table, f"(not {what})"


def value(function: Callable[..., Any], argument: str, random: Random, folder: Path | None) -> Any:
    """Return something for an argument: one of its choices, or anything at all."""
    if argument in ("out", "save", "checkpoint", "cache"):
        place = Path(tempfile.mkdtemp(dir=folder))
        return random.choice(
            [None, place / "x.h5ad", place / "no" / "x.h5ad", place / "x", 3, "", str(place / "y.png")]
        )
    if argument in LONG:
        return random.choice(LONG[argument])
    words = _words(inspect.signature(function).parameters[argument].annotation)
    if words and random.random() < 0.6:
        return random.choice(words)
    if argument in ("adata", "data") and random.random() < 0.5:
        return cells()  # a tool may replace its own results
    if argument in ("reference", "fitted", "start") and random.random() < 0.5:
        return random.choice([results, cells])()
    return random.choice(hostile.VALUES)


def _words(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return (
        [word for option in get_args(kind) for word in _words(option)]
        if not isinstance(kind, types.GenericAlias)
        else []
    )

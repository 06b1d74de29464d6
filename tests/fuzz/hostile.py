"""What can be wrong with an AnnData, and what can be given for an argument."""

from collections.abc import Callable
from random import Random
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

Mutation = Callable[[AnnData, Random], AnnData]


def dense(adata: AnnData) -> np.ndarray:
    return adata.X.toarray() if sparse.issparse(adata.X) else np.array(adata.X)


def entry(value: Any, dtype: Any = None) -> Mutation:
    """Put a value into one entry of X."""

    def change(adata: AnnData, random: Random) -> AnnData:
        X = dense(adata).astype(dtype or adata.X.dtype)
        if X.size:
            X[random.randrange(X.shape[0]), random.randrange(X.shape[1])] = value
        adata.X = sparse.csr_matrix(X) if random.random() < 0.5 else X
        return adata

    return change


def matrix(convert: Callable[[np.ndarray], Any]) -> Mutation:
    """Replace X."""

    def change(adata: AnnData, _: Random) -> AnnData:
        adata.X = convert(dense(adata))
        return adata

    return change


def cut(rows: int | None, genes: int | None) -> Mutation:
    return lambda adata, _: adata[:rows, :genes].copy()


def a_view(adata: AnnData, random: Random) -> AnnData:
    rows = sorted(random.sample(range(adata.n_obs), min(adata.n_obs, 8)))
    return adata[rows]


def names(axis: str, make: Callable[[list[str]], list[str]]) -> Mutation:
    def change(adata: AnnData, _: Random) -> AnnData:
        setattr(adata, axis, make(list(getattr(adata, axis))))
        return adata

    return change


def column(make: Callable[[int, Random], Any]) -> Mutation:
    """Replace a column of `obs`, of the type or of the batch."""

    def change(adata: AnnData, random: Random) -> AnnData:
        adata.obs[random.choice(["cell_type", "batch", "n_cells"])] = make(adata.n_obs, random)
        return adata

    return change


def without_column(adata: AnnData, random: Random) -> AnnData:
    return AnnData(adata.X, obs=adata.obs.drop(columns=list(adata.obs)[:1]), var=adata.var, uns=adata.uns)


def graph(make: Callable[[int], Any]) -> Mutation:
    def change(adata: AnnData, _: Random) -> AnnData:
        adata.obsp["spatial_connectivities"] = make(adata.n_obs)
        return adata

    return change


def places(make: Callable[[int], Any]) -> Mutation:
    def change(adata: AnnData, _: Random) -> AnnData:
        adata.obsm["spatial"] = make(adata.n_obs)
        return adata

    return change


def unsorted(adata: AnnData, _: Random) -> AnnData:
    X = sparse.csr_matrix(dense(adata))
    for i in range(X.shape[0]):
        part = slice(X.indptr[i], X.indptr[i + 1])
        X.indices[part], X.data[part] = X.indices[part][::-1].copy(), X.data[part][::-1].copy()
    X.has_sorted_indices = False
    adata.X = X
    return adata


def duplicated_entries(adata: AnnData, _: Random) -> AnnData:
    rows, genes = adata.shape
    full = np.tile(np.arange(genes), (rows, 2)).ravel()
    adata.X = sparse.csr_matrix(
        (np.ones(2 * rows * genes, np.float32), full, np.arange(rows + 1) * 2 * genes), shape=adata.shape
    )
    return adata


def read_only(adata: AnnData, _: Random) -> AnnData:
    X = sparse.csr_matrix(dense(adata))
    for part in (X.data, X.indices, X.indptr):
        part.flags.writeable = False
    adata.X = X
    return adata


def lazy(adata: AnnData, _: Random) -> AnnData:
    import dask.array as da

    X = sparse.csr_matrix(dense(adata))
    adata.X = da.from_array(X, chunks=(5, X.shape[1]), asarray=False) if 0 not in X.shape else X
    return adata


def stored(adata: AnnData, random: Random) -> AnnData:
    """Spoil a result that is stored: an entry lost, of another kind or length, or a slot missing."""
    keys = [key for key in adata.uns if isinstance(adata.uns[key], dict)]
    if not keys:
        return adata
    key = random.choice(sorted(keys))
    part = random.choice(["uns", "uns", "uns", "obsm", "varm", "obs", "params"])
    slots = (
        adata.uns[key]
        if part == "uns"
        else adata.uns[key].get("params", {})
        if part == "params"
        else getattr(adata, part)
    )
    if part == "obs":
        related = [name for name in adata.obs if str(name).startswith(key)]
        if related:
            adata.obs = adata.obs.drop(columns=random.choice(related))
        return adata
    related = sorted(str(name) for name in slots if part in ("uns", "params") or key in str(name))
    if not related:
        return adata
    name = random.choice(related)
    if part in ("uns", "params"):
        if random.random() < 0.4:
            del slots[name]
        else:
            slots[name] = random.choice(SPOILS)
    elif random.random() < 0.5:
        del slots[name]
    else:
        slots[name] = np.asarray(slots[name])[:, :1] * random.choice([1.0, np.nan])
    return adata


SPOILS: list[Any] = [None, "", "nonsense", 0, -1, float("nan"), [], {}, {"a": {"b": 1}}, np.zeros(0), np.array(["x"]),
                     np.full(2, np.nan), np.zeros((1, 1)), pd.DataFrame({"a": [1]}), True]  # fmt: skip


def spoiled_uns(adata: AnnData, random: Random) -> AnnData:
    keys = [key for key in adata.uns if isinstance(adata.uns[key], dict)]
    if keys:
        adata.uns[random.choice(sorted(keys))] = random.choice(SPOILS)
    return adata


LARGEST = np.iinfo(np.int64).max
MUTATIONS: dict[str, Mutation] = {
    **{f"entry {value}": entry(value) for value in (np.nan, np.inf, -np.inf, -1.0, 0.5, 3e38, 1e-40)},
    "entry 1e308": entry(1e308, np.float64),
    "largest int64": entry(LARGEST, np.int64),
    "smallest int64": entry(-LARGEST, np.int64),
    "all largest int64": matrix(lambda X: np.full(X.shape, LARGEST)),
    "uint64": matrix(lambda X: np.full(X.shape, np.iinfo(np.uint64).max)),
    "uint8": matrix(lambda X: np.minimum(X, 255).astype(np.uint8)),
    "float16": matrix(lambda X: X.astype(np.float16)),
    "bool": matrix(lambda X: X > 1),
    "complex": matrix(lambda X: X.astype(complex)),
    "strings": matrix(lambda X: X.astype(str)),
    "objects": matrix(lambda X: X.astype(object)),
    "zeros": matrix(lambda X: np.zeros_like(X)),
    "empty csr": matrix(lambda X: sparse.csr_matrix(X.shape, dtype=np.float32)),
    "constant": matrix(lambda X: np.full_like(X, 3)),
    "equal rows": matrix(lambda X: np.repeat(X[:1], len(X), axis=0)),
    "tiny": matrix(lambda X: X * np.float32(1e-30)),
    "huge": matrix(lambda X: X.astype(np.float64) * 1e300),
    "one count": matrix(lambda X: np.eye(*X.shape, dtype=np.float32)),
    "logs": matrix(lambda X: np.log1p(X)),
    "centred": matrix(lambda X: X - X.mean()),
    "csc": matrix(sparse.csc_matrix),
    "csr_array": matrix(sparse.csr_array),
    "dense": matrix(np.array),
    "fortran": matrix(np.asfortranarray),
    "no X": matrix(lambda X: None),
    "no rows": cut(0, None),
    "no genes": cut(None, 0),
    "one row": cut(1, None),
    "two rows": cut(2, None),
    "one gene": cut(None, 1),
    "two genes": cut(None, 2),
    "one entry": cut(1, 1),
    "view": a_view,
    "gene names twice": names("var_names", lambda old: old[:1] * len(old)),
    "two gene names equal": names("var_names", lambda old: [*old[:-1], *old[:1]]),
    "cell names twice": names("obs_names", lambda old: old[:1] * len(old)),
    "empty gene name": names("var_names", lambda old: ["", *old[1:]]),
    "gene names with slashes": names("var_names", lambda old: [f"{i}/{name}" for i, name in enumerate(old)]),
    "other genes": names("var_names", lambda old: [f"x{i}" for i in range(len(old))]),
    "upper case": names("var_names", lambda old: [name.upper() for name in old]),
    "odd names": names("obs_names", lambda old: [f"{i}\n\t<b>\u2603" for i in range(len(old))]),
    "labels missing": column(lambda n, r: np.full(n, np.nan)),
    "labels None": column(lambda n, r: np.array([None] * n, dtype=object)),
    "labels few": column(lambda n, r: pd.Categorical([["A", None][r.random() < 0.5] for _ in range(n)])),
    "labels one": column(lambda n, r: ["A"] * n),
    "labels all differ": column(lambda n, r: [f"t{i}" for i in range(n)]),
    "labels mixed": column(lambda n, r: np.array([r.choice([1, "1", 2.5, None, True]) for _ in range(n)], dtype=object)),
    "labels empty": column(lambda n, r: [r.choice(["", "a/b", "a_b", " "]) for _ in range(n)]),
    "labels numbers": column(lambda n, r: np.arange(n) % 2),
    "labels floats": column(lambda n, r: np.array([r.choice([0.0, -1.0, np.inf, np.nan]) for _ in range(n)])),
    "labels unused": column(lambda n, r: pd.Categorical(["A", "B"] * n, categories=["A", "B", "C"])[:n]),
    "labels unknown": column(lambda n, r: ["unknown", "A"] * (n // 2) + ["A"] * (n % 2)),
    "no column": without_column,
    "graph NaN": graph(lambda n: sparse.csr_matrix(np.full((n, n), np.nan))),
    "graph negative": graph(lambda n: sparse.csr_matrix(-np.ones((n, n)))),
    "graph dense": graph(lambda n: np.ones((n, n))),
    "graph empty": graph(lambda n: sparse.csr_matrix((n, n))),
    "graph one way": graph(lambda n: sparse.csr_matrix(np.triu(np.ones((n, n)), 1))),
    "graph infinite": graph(lambda n: sparse.csr_matrix(np.full((n, n), np.inf))),
    "places NaN": places(lambda n: np.full((n, 2), np.nan)),
    "places equal": places(lambda n: np.zeros((n, 2))),
    "places one": places(lambda n: np.zeros((n, 1))),
    "places huge": places(lambda n: np.full((n, 2), 1e308)),
    "places table": places(lambda n: np.random.default_rng(0).random((n, 3))),
    "unsorted": unsorted,
    "duplicated entries": duplicated_entries,
    "read-only": read_only,
    "lazy": lazy,
}  # fmt: skip
STORED: dict[str, Mutation] = {**{f"stored {i}": stored for i in range(6)}, "uns": spoiled_uns}

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 0.5, 1.5, float("nan"), float("inf"), -float("inf"), 1e-300, "", "auto", "no such",
    "a/b", "A", "counts", "cell_type", "batch", "gene 0", b"bytes", [], [1], [0, -1], ["gene 0"], ["gene 0", "gene 0"],
    ["gene 0", None], ["no such"], (1, 2), (2, 1), (0, 0), (5, 3, 1), {}, {"A": ["gene 1", "gene 2"]}, {"A": 1.0}, {1: 2},
    np.int64(2), np.float32(0.5), np.bool_(True), np.array([1, 2]), np.array([["x"]]), np.zeros((14, 18)), object,
    pd.DataFrame(), pd.DataFrame({"A": ["gene 1"], "B": ["gene 2"]}), pd.Series([1.0], index=["gene 0"]), 10**20,
    2**31, -(2**63), complex(1, 1), np.random.default_rng(3), ad.AnnData(np.ones((2, 2), np.float32)),
]  # fmt: skip
"""What is given for any argument; large numbers are left out where they only ask for a long run."""

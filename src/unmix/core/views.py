"""Usages that several modalities share: one W, loadings and a loss of its own for every modality.

A modality under the squared loss adds a Gram matrix and a linear term to the problem of a row of W; a modality of counts
is majorised at the present fit by a linear and a logarithmic term (Lee and Seung 2001). Both together are minimised by
coordinate descent in closed form, so that a plain step lowers the loss whatever the losses are; steps are continued
along their direction, and undone where that raises it (Ang and Gillis 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._hals_kernels import hals
from unmix.core._joint_kernels import mixed_sweeps, poisson_column_terms, poisson_row_terms
from unmix.core._nmf_kernels import padded, times, transpose_times
from unmix.core.blocks import Block, as_rows, map_reduce_rows, map_rows, reduce_rows, row_slices, stream_rows
from unmix.core.factorization import SWEEPS, Walk, settled
from unmix.core.momentum import Momentum
from unmix.core.view_starts import first_factors

LOSSES = ("frobenius", "kl")
PIECE = 2**13
"""Rows that are updated at a time, so that all that belongs to them fits the cache."""
EMPTY = 1e-12
"""Depth of a row without counts, so that its usages become zero unless another modality knows better."""


@dataclass(frozen=True)
class Views:
    """X_m ~ W[rows_m] H_m for every modality m."""

    W: np.ndarray
    """Shared usages, (n_obs, k), of mean 1 over the observations; largest component first."""
    H: list[np.ndarray]
    """Loadings, (k, n_vars_m) each: what a component adds to a variable on average."""
    weights: list[float]
    """Weight of every modality's loss."""
    loss: np.ndarray
    """Weighted sum over modalities."""
    converged: bool


@dataclass(frozen=True)
class _Rows:
    """Some rows of an array, in any order, that are cut like a matrix of these rows but not gathered at once."""

    array: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), *self.array.shape[1:]

    def __getitem__(self, which: slice) -> np.ndarray:
        return self.array[self.rows[which]]


def rows_of(array: np.ndarray, rows: np.ndarray) -> Any:
    """Return rows of an array: itself, where these are all in their order."""
    return array if is_all(rows, len(array)) else _Rows(array, rows)


def is_all(rows: np.ndarray, n: int) -> bool:
    """Tell whether these are all of n rows, in their order."""
    return len(rows) == n and bool((np.diff(rows) == 1).all())


def _pieces(rows: np.ndarray, n: int) -> list[Any]:
    """Cut positions among n rows into pieces; slices, where the positions are all in their order."""
    cuts = row_slices(len(rows), PIECE)
    return list(cuts) if is_all(rows, n) else [rows[cut] for cut in cuts]


@dataclass
class _View:
    """A modality: its matrix, where its rows are, its loss and its weight."""

    X: Any
    rows: np.ndarray
    sizes: np.ndarray
    """Depth of every row relative to the mean, for counts; under the squared loss 1, or 0 where a row has zeros only."""
    poisson: bool
    squares: float
    null: float
    """Loss of the trivial fit: zero, or for counts rows and columns independent."""
    means: np.ndarray
    """Mean of every variable over the rows that have anything."""
    weight: float = 1.0

    @property
    def squared(self) -> bool:
        return not self.poisson

    @property
    def there(self) -> np.ndarray:
        """Which observations the modality tells something of; a row of counts without any does not by its depth."""
        return self.rows if self.poisson else self.rows[self.sizes > 0]


def joint_views(
    X: Sequence[Any],
    rows: Sequence[np.ndarray],
    n_obs: int,
    n_components: int,
    *,
    losses: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Views:
    r"""Return the factorisation of modalities with shared usages.

    .. math:: \min_{W,H\ge0} \sum_m \omega_m L_m(X_m, W_{rows(m)} H_m)

    Here L is half the squared error, or for counts :math:`\sum x \log(x/\hat x) - x + \hat x` with
    :math:`\hat x_{ij} = s_i w_i h_j` and s the depth of a row over the mean depth. A row that a modality lacks, or of
    which it has zeros only, is fitted to the others alone.

    Parameters
    ----------
    X
        Non-negative matrices (n_m, n_vars_m).
    rows
        For every modality, which of the `n_obs` observations its rows are.
    n_obs
        Number of observations in all.
    n_components
        Number k of components.
    losses
        `"frobenius"` or `"kl"` for every modality; the first by default.
    weights
        Weights of the modalities; by default those by which each costs 1/2 under its trivial fit (zero; for counts
        independence of rows and columns), so that none drowns the others.
    walk
        Threads, block size, tolerance and limit.
    rng
        Seed of the start.

    References
    ----------
    Zhang et al. (2012), Discovery of multi-dimensional modules by integrative analysis of cancer genomic data.
    Lee, Seung (2001), Algorithms for non-negative matrix factorization.

    Examples
    --------
    >>> X = np.kron(np.eye(2), np.ones((5, 4)))
    >>> fit = joint_views([X, X[:8, :3]], [np.arange(10), np.arange(8)], 10, 2, losses=["kl", "frobenius"])
    >>> fit.W.shape, bool(abs(fit.loss[-1]) < 1e-6)
    ((10, 2), True)
    """
    walk, k = walk or Walk(), n_components
    kinds = losses or ["frobenius"] * len(X)
    views = [_view(x, found, kind == "kl", walk) for x, found, kind in zip(X, rows, kinds, strict=True)]
    for view, weight in zip(views, _balanced(views) if weights is None else weights, strict=True):
        view.weight = float(weight)
    W, Ht = first_factors(views, n_obs, k, np.random.default_rng(rng))
    W, Ht, trace = _descend(views, Ht, presence([view.there for view in views], n_obs), W, k, walk)
    W, H = _tidied(W[:, :k], [h[:, :k].T for h in Ht])
    return Views(W, H, [view.weight for view in views], np.array(trace), settled(trace, walk.tol))


def _descend(
    views: Sequence["_View"], Ht: list[np.ndarray], patterns: Sequence[Any], W: np.ndarray, k: int, walk: Walk
) -> tuple[np.ndarray, list[np.ndarray], list[float]]:
    """Alternate between W and H, continuing each step; where the loss rises the step is undone. Return the best pair.

    W holds the point from which a step is taken, then the one that it leads to; `last` the one that was kept last.
    """
    last, terms = W.copy(), [np.empty_like(W) for _ in range(1 + any(view.poisson for view in views))]
    ahead, improved, kept, previous, best = Ht, Ht, Ht, np.inf, np.inf
    momentum = Momentum()
    trace: list[float] = []
    while len(trace) < walk.max_iter and not settled(trace, walk.tol):
        _improve_usages(views, ahead, patterns, W, terms, k, walk)
        steps = [_improve_loadings(view, W, h, k, walk) for view, h in zip(views, ahead, strict=True)]
        loss = float(sum(part for _, part in steps))
        best = min(best, loss)
        trace.append(best)
        if not loss <= previous:
            W[:], ahead, previous = last, improved, np.inf
            momentum.shrink()
            continue
        kept, previous, beta = ahead, loss, momentum.beta
        momentum.grow()
        ahead = [_beyond(new, old, beta) for (new, _), old in zip(steps, improved, strict=True)]
        improved = [new for new, _ in steps]
        for piece in row_slices(len(W), PIECE):
            beyond = _beyond(W[piece], last[piece], beta)
            last[piece], W[piece] = W[piece], beyond
    return last, kept, trace


def _beyond(new: np.ndarray, old: np.ndarray, beta: float) -> np.ndarray:
    """Continue what rose in the last step by the fraction beta; what multiplicative steps bring to zero stays there."""
    return new + beta * np.maximum(new - old, 0)


def weighted_sums(block: Block, W: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the products of a block's columns with usages, padded, and of these with themselves times the rows' sizes."""
    W = padded(W, np.float64)
    return transpose_times(block, W), W.T @ (sizes[:, None] * W)


def depths(X: Any, *, n_jobs: int = 1) -> np.ndarray:
    """Return the total of every row."""
    return map_rows(_totals, X, n_jobs=n_jobs)


def _totals(block: Block) -> np.ndarray:
    return np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()


def presence(rows: Sequence[np.ndarray], n_obs: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the observations of every combination of modalities, and which modalities it has.

    Examples
    --------
    >>> [(found.tolist(), has.tolist()) for found, has in presence([np.array([0, 1]), np.array([1])], 2)]
    [([0], [True, False]), ([1], [True, True])]
    """
    has = np.zeros((n_obs, len(rows)), bool)
    for m, found in enumerate(rows):
        has[found, m] = True
    kinds, which = np.unique(has, axis=0, return_inverse=True)
    return [(np.flatnonzero(which.ravel() == i), kind) for i, kind in enumerate(kinds)]


def _view(X: Any, rows: np.ndarray, poisson: bool, walk: Walk) -> _View:
    """Read a modality once: depth of its rows, constants of its loss, loss of its trivial fit."""
    X = as_rows(X)
    r, (squares, logs, columns) = map_reduce_rows(_moments, X, n_jobs=walk.n_jobs, block_rows=walk.block_rows)
    total, means = float(columns.sum()), columns / max(int((r > 0).sum()), 1)
    if not poisson:
        return _View(X, rows, 1.0 * (r > 0), False, squares, 0.5 * squares, means)
    null = logs + _entropy(np.array([total])) - _entropy(r) - _entropy(columns)
    sizes = r * len(r) / total if total > 0 else np.ones(len(r))
    return _View(X, rows, sizes, True, squares, max(null, 0.0), means)


def _moments(block: Block) -> tuple[np.ndarray, tuple[float, float, np.ndarray]]:
    """Return the row sums, and the sums of squares and of x log x and the column sums."""
    values = np.asarray(block.data if sparse.issparse(block) else block, dtype=np.float64).ravel()
    columns = np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
    return _totals(block), (float(values @ values), _entropy(values), columns)


def _entropy(x: np.ndarray) -> float:
    """Return sum x log x, where 0 log 0 is 0."""
    return float(x @ np.log(np.where(x > 0, x, 1.0)))


def _balanced(views: Sequence[_View]) -> list[float]:
    return [0.5 / view.null if view.null > 0 else 0.0 for view in views]


def _improve_usages(
    views: Sequence[_View],
    Ht: Sequence[np.ndarray],
    patterns: Sequence[tuple[np.ndarray, np.ndarray]],
    W: np.ndarray,
    terms: Sequence[np.ndarray],
    k: int,
    walk: Walk,
) -> None:
    """Improve the shared usages in place, each row on the modalities that it has."""
    for term in terms:
        term[:] = 0
    for view, h in zip(views, Ht, strict=True):
        _add_row_terms(view, W, h, terms, walk)
    for found, has in patterns:
        if not has.any():
            W[found] = 0
            continue
        grams = [v.weight * (h.T @ h) for v, h, there in zip(views, Ht, has, strict=True) if there and v.squared]
        counts = any(v.poisson and v.weight > 0 for v, there in zip(views, has, strict=True) if there)
        G = np.sum(grams, axis=0)[:k, :k] if grams else np.zeros((k, k))
        pieces = _pieces(found, len(W))
        largest = max(float(np.abs(terms[0][at]).max(initial=0.0)) for at in pieces)
        size = max(float(np.trace(G)), largest, 1e-300)  # the scale of the problem is taken out
        for at in pieces:
            L = terms[0][at] / size
            W[at] = (
                mixed_sweeps(L, terms[1][at] / size, W[at], G / size, SWEEPS)
                if counts
                else hals(-L, W[at], G / size, SWEEPS)
            )


def _add_row_terms(view: _View, W: np.ndarray, Ht: np.ndarray, terms: Sequence[np.ndarray], walk: Walk) -> None:
    """Add the linear term of a modality to its rows of the first of the terms, and the logarithmic one to the second."""
    options: dict[str, Any] = {"n_jobs": walk.n_jobs, "block_rows": walk.block_rows, "constants": (Ht,)}
    if view.squared:
        parts = stream_rows(_squared_terms, view.X, **options)
    else:
        parts = stream_rows(_poisson_terms, view.X, rows_of(W, view.rows), view.sizes, **options)
    start, everyone = 0, is_all(view.rows, len(W))
    for part in parts:
        stop = start + len(part[0])
        at = slice(start, stop) if everyone else view.rows[start:stop]
        for term, values in zip(terms, part, strict=False):
            term[at] += view.weight * values
        start = stop


def _squared_terms(block: Block, Ht: np.ndarray) -> tuple[np.ndarray]:
    return (-times(block, Ht),)


def _poisson_terms(block: Block, W: np.ndarray, sizes: np.ndarray, Ht: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaled = sizes[:, None] * W
    return np.maximum(sizes, EMPTY)[:, None] * Ht.sum(axis=0), poisson_row_terms(block, scaled, Ht) * scaled


def _improve_loadings(view: _View, W: np.ndarray, Ht: np.ndarray, k: int, walk: Walk) -> tuple[np.ndarray, float]:
    """Return better loadings of a modality, and the weighted loss of those given."""
    options: dict[str, Any] = {"n_jobs": walk.n_jobs, "block_rows": walk.block_rows}
    rows = rows_of(W, view.rows)
    if view.squared:
        XtW, WtW = reduce_rows(weighted_sums, view.X, rows, view.sizes, **options)
        fit = -float((XtW * Ht).sum()) + 0.5 * float((WtW * (Ht.T @ Ht)).sum())
        return hals(XtW, Ht, WtW[:k, :k], SWEEPS), view.weight * (0.5 * view.squares + fit)
    ratios, loss, total = reduce_rows(_poisson_sums, view.X, rows, view.sizes, constants=(Ht,), **options)
    loss += float(total @ Ht.sum(axis=0))
    return Ht * np.where(total > 0, ratios / np.where(total > 0, total, 1.0), 1.0), view.weight * loss


def _poisson_sums(
    block: Block, W: np.ndarray, sizes: np.ndarray, Ht: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    scaled = sizes[:, None] * W
    return *poisson_column_terms(block, scaled, Ht), scaled.sum(axis=0)


def _tidied(W: np.ndarray, H: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scale usages to mean 1, in place, and put the components in the order of what they explain over all modalities."""
    mean = W.mean(axis=0)
    scale = np.where(mean > 0, mean, 1.0)
    W /= scale
    H = [h * scale[:, None] for h in H]
    shares = [(h**2).sum(axis=1) / max(float((h**2).sum()), 1e-300) for h in H]
    order = np.argsort(-np.sum(shares, axis=0) * np.einsum("ic,ic->c", W, W), kind="stable")
    for piece in row_slices(len(W), PIECE):
        W[piece] = W[piece][:, order]
    return W, [h[order] for h in H]

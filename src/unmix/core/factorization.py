"""Non-negative factorisation X ~ W H under the squared loss, from two thin products per pass over the rows.

With B = X H' and G = H H' the loss is `||X||^2 - 2 <B, W> + <W'W, G>`: after the products with X everything happens on
k x k Gram matrices. Rows of W, then rows of H', are improved by coordinate descent (HALS), and both are extrapolated
along their last step (Ang, Gillis 2019); where that raises the loss the step is undone, a plain one taken, which cannot
raise it, and the momentum lowered.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._hals_kernels import ahead, hals, improved_rows
from unmix.core._nmf_kernels import padded, times, transpose_times
from unmix.core.blocks import Block, as_rows, map_reduce_rows, map_rows, reduce_rows
from unmix.core.momentum import Momentum
from unmix.core.simplex import nnls
from unmix.core.starts import Start, named_start, nndsvd_start, random_start, sample_start
from unmix.core.svd import check_components

SWEEPS = 5
"""Of coordinate descent per iteration: more of them cost little beside the products with X, and gain little."""
WINDOW = 5
SPARSE = 0.5
"""Share of entries up to which CSR is faster than dense."""
DOUBLE_ENTRIES = 2**22
"""Matrices of up to this many entries are factorised in double precision, larger ones in single with double sums."""


@dataclass(frozen=True)
class Factorization:
    """X ~ W H and how it was found."""

    W: np.ndarray
    """Usages, (n_obs, k)."""
    H: np.ndarray
    """Loadings, (k, n_vars)."""
    loss: np.ndarray
    """Lowest loss seen up to every iteration."""
    converged: bool

    @property
    def n_iter(self) -> int:
        """Number of iterations done."""
        return len(self.loss)


@dataclass(frozen=True)
class Penalty:
    """`l1 (sum W + sum H) + l2 / 2 (||W||^2 + ||H||^2) + smoothing / 2 sum_c ||h_c||^2 w_c' L w_c`."""

    l1: float = 0.0
    l2: float = 0.0
    smoothing: float = 0.0
    graph: Any = None
    """Symmetric neighbour weights of the rows, (n_obs, n_obs), sparse; L is its Laplacian."""


@dataclass(frozen=True)
class Walk:
    """How to walk over the rows, and when to stop."""

    n_jobs: int = 1
    block_rows: int | None = None
    tol: float = 1e-5
    max_iter: int = 500
    extrapolate: bool = True

    def over(self, f: Any, X: Any, *aligned: Any, constants: Any = ()) -> Any:
        """Update rows and add up sums in one pass."""
        kw: dict[str, Any] = {"n_jobs": self.n_jobs, "block_rows": self.block_rows, "desc": "factorize"}
        return map_reduce_rows(f, X, *aligned, constants=constants, **kw)


@dataclass(frozen=True)
class Moments:
    """Sum and sum of squares of all entries."""

    total: float
    squares: float


def nmf(
    X: Any,
    n_components: int,
    *,
    start: "str | Start" = "auto",
    penalty: Penalty | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
    dtype: Any = None,
) -> Factorization:
    r"""Return the factors of :math:`\min_{W,H\ge0} \tfrac12\|X-WH\|_F^2` plus penalties.

    Parameters
    ----------
    X
        Non-negative matrix, (n_obs, n_vars), of any kind that :mod:`unmix.core.blocks` reads.
    n_components
        Number k of components.
    start
        `"random"`; `"nndsvd"` (`"nndsvda"` without zeros); `"sample"`: the loadings of a sample of the rows; `"auto"`:
        the last for many rows, `"nndsvd"` for few, `"random"` where k > min(n_obs, n_vars); or factors.
    penalty
        Sparsity, ridge and smoothing over a graph of the rows; none by default.
    walk
        Threads, block size, tolerance (mean relative decrease of the loss over five iterations) and limit.
    rng
        Seed of the start.
    dtype
        Precision; by default double up to `DOUBLE_ENTRIES` entries, single above.

    References
    ----------
    Cichocki, Phan (2009), Fast local algorithms for large scale nonnegative matrix and tensor factorizations.
    Ang, Gillis (2019), Accelerating nonnegative matrix factorization algorithms using extrapolation.

    Examples
    --------
    >>> fit = nmf(np.outer([1.0, 2.0, 3.0], [4.0, 0.0, 1.0]), 1)
    >>> np.round(fit.W @ fit.H, 6)
    array([[ 4.,  0.,  1.],
           [ 8.,  0.,  2.],
           [12.,  0.,  3.]])
    """
    X, walk, penalty = as_rows(X), walk or Walk(), penalty or Penalty()
    moments = moments_of(X, walk)
    dtype = dtype or precision(X)
    X = X if dtype == np.float64 else sparse_if_it_is(X)
    if not isinstance(start, Start):
        start = _first(X, n_components, start, moments, penalty, walk, rng, dtype)
    W, Ht = padded(start.W, dtype), padded(start.H.T, dtype)
    if penalty.smoothing > 0:
        return _smooth_nmf(X, W, Ht, n_components, moments, penalty, walk)
    return _descend(X, W, Ht, n_components, moments, penalty, walk)


def _first(X: Any, k: int, start: str, moments: Moments, penalty: Penalty, walk: Walk, rng: Any, dtype: Any) -> Start:
    """Return the start that a name stands for."""
    check_components(k, max(X.shape))
    alone = replace(penalty, smoothing=0.0)

    def solve(rows: Any, first: Start, quick: Walk) -> Factorization:
        return nmf(rows, k, start=first, penalty=alone, walk=quick, dtype=dtype)

    return first_factors(X, k, named_start(start, X.shape, k), moments.total / np.prod(X.shape), rng, solve, walk)


def precision(X: Any) -> Any:
    """Return the dtype in which a matrix of this size is factorised."""
    return np.float64 if np.prod(X.shape, dtype=float) <= DOUBLE_ENTRIES else np.float32


def sparse_if_it_is(X: Any) -> Any:
    """Return a dense matrix in memory as CSR where at most half of it is not zero.

    Products with it take less time so, and have the digits that they have of the sparse matrix.

    Examples
    --------
    >>> sparse_if_it_is(np.eye(3)).format
    'csr'
    """
    if not isinstance(X, np.ndarray) or np.count_nonzero(X) > SPARSE * X.size:
        return X
    return sparse.csr_array(X)


def moments_of(X: Any, walk: Walk) -> Moments:
    """Return sum and sum of squares of X, in one pass."""
    return Moments(*map(float, reduce_rows(_block_moments, X, n_jobs=walk.n_jobs, block_rows=walk.block_rows)))


def _block_moments(block: Block) -> tuple[float, float]:
    values = block.data if sparse.issparse(block) else block
    values = np.asarray(values, dtype=np.float64).ravel()
    return float(values.sum()), float(values @ values)


def first_factors(
    X: Any, k: int, start: str, mean: float, rng: Any, solve: Any, walk: Walk, *, zeros: bool = True
) -> Start:
    """Return the factors that a name stands for; `solve(sample, start, walk)` factorises a sample of the rows.

    `zeros` tells whether its updates can leave zero.
    """
    n_obs, n_vars = X.shape
    if start == "sample":
        quick = replace(walk, tol=1e-3, max_iter=30)
        return sample_start(X, k, mean, lambda rows, first: solve(rows, first, quick), rng, zeros=zeros)
    if start == "random":
        return random_start(n_obs, n_vars, k, mean, np.random.default_rng(rng))
    return nndsvd_start(X, k, mean, fill=start == "nndsvda", rng=rng, n_jobs=walk.n_jobs, dtype=precision(X))


def _frobenius_pass(
    block: Block, W: np.ndarray, last: np.ndarray, Ht: np.ndarray, G: np.ndarray, l1: float, beta: float
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Improve the rows of W, extrapolate them, and return what H and the loss need of them."""
    if sparse.issparse(block):
        new, Y, XtY, square = improved_rows(block, W, last, Ht, G, l1, beta, SWEEPS)
    else:
        B = times(block, Ht)
        new = hals(B - Ht.dtype.type(l1) if l1 else B, W, G, SWEEPS)
        Y = ahead(new, last, beta)
        square = _inner(new @ padded(padded(G, new.dtype).T, new.dtype) - 2 * B, new)
        XtY = transpose_times(block, Y)
    return new, (XtY, _gram(Y), square, float(new.sum(dtype=np.float64)) if l1 else 0.0)


def _double(A: np.ndarray) -> np.ndarray:
    return A.astype(np.float64, copy=False)


def _gram(W: np.ndarray) -> np.ndarray:
    W = _double(W)
    return W.T @ W


def _inner(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.einsum("ij,ij->i", A, B, dtype=np.float64).sum())


def _ridged(G: np.ndarray, k: int, l2: float) -> np.ndarray:
    return G[:k, :k] + l2 * np.eye(k)


def _descend(
    X: Any, W: np.ndarray, Ht: np.ndarray, k: int, moments: Moments, penalty: Penalty, walk: Walk
) -> Factorization:
    """Alternate between W and H, continuing each step; what raises the loss is undone and followed by a plain step."""
    momentum, moving = Momentum(), False
    last_W, last_H, best, kept = W, Ht, np.inf, (W, Ht)
    losses: list[float] = []
    while len(losses) < walk.max_iter and not settled(losses, walk.tol):
        G, beta = _gram(Ht), momentum.beta if moving else 0.0
        constants = (Ht, _ridged(G, k, penalty.l2), penalty.l1, beta)
        new, (XtY, YtY, square, total) = walk.over(_frobenius_pass, X, W, last_W, constants=constants)
        loss = 0.5 * (moments.squares + square + penalty.l2 * np.trace(G)) + penalty.l1 * (total + float(Ht.sum()))
        losses.append(min(loss, best))
        if moving and loss > best:
            (W, Ht), (last_W, last_H), moving = kept, kept, False
            momentum.shrink()
            continue
        if loss <= best:
            best, kept = loss, (new, Ht)
        W = ahead(new, last_W, beta)
        H = hals(XtY - penalty.l1, Ht, _ridged(YtY, k, penalty.l2), SWEEPS)
        Ht = ahead(H, last_H, beta)
        last_W, last_H = new, H
        if moving:
            momentum.grow()
        moving = walk.extrapolate
    return result(*kept, k, losses, walk)


def settled(losses: list[float], tol: float) -> bool:
    """Tell whether the loss fell by less than `tol` of itself per iteration, on average over the last few."""
    if len(losses) <= WINDOW:
        return False
    return losses[-1 - WINDOW] - losses[-1] <= WINDOW * tol * abs(losses[-1])


def result(W: np.ndarray, Ht: np.ndarray, k: int, losses: list[float], walk: Walk) -> Factorization:
    """Cut the padding off and pack the result."""
    H = np.ascontiguousarray(Ht[:, :k].T)
    return Factorization(np.ascontiguousarray(W[:, :k]), H, np.array(losses), settled(losses, walk.tol))


def _smooth_pass(
    block: Block, W: np.ndarray, pull: np.ndarray, degree: np.ndarray, Ht: np.ndarray, G: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Improve the rows of W, each drawn to the mean of itself and its neighbours."""
    B = times(block, Ht)
    new = hals(B + pull, W, G, SWEEPS, own=2 * degree, scale=scale)
    return new, (transpose_times(block, new), _gram(new), _inner(B, new), float(new.sum(dtype=np.float64)))


def _smooth_nmf(
    X: Any, W: np.ndarray, Ht: np.ndarray, k: int, moments: Moments, penalty: Penalty, walk: Walk
) -> Factorization:
    r"""Descend with neighbours coupled.

    The penalty of a pair is majorised by separating it at the pair's present mean m,
    :math:`\|a-b\|^2 \le 2\|a-m\|^2 + 2\|b-m\|^2`, with equality at the present values, so that the loss cannot rise.
    """
    S, degree = neighbour_weights(penalty.graph, X.shape[0])
    losses: list[float] = []
    while len(losses) < walk.max_iter and not settled(losses, walk.tol):
        G = _gram(Ht)
        scale = np.zeros(Ht.shape[1])
        scale[:k] = penalty.smoothing * np.diag(G)[:k]
        pull = (scale * (degree[:, None] * W + S @ W) - penalty.l1).astype(W.dtype)
        constants = (Ht, _ridged(G, k, penalty.l2), scale[:k])
        W, (XtW, WtW, cross, total) = walk.over(_smooth_pass, X, W, pull, degree, constants=constants)
        rough = np.einsum("ic,ic->c", W, degree[:, None] * W - S @ W)
        loss = 0.5 * (moments.squares - 2 * cross + float((WtW * G).sum() + scale @ rough))
        losses.append(loss + penalty.l1 * (total + float(Ht.sum())) + 0.5 * penalty.l2 * np.trace(WtW + G))
        kept = Ht
        stiff = _ridged(WtW, k, penalty.l2) + penalty.smoothing * np.diag(rough[:k])
        Ht = hals(XtW - penalty.l1, Ht, stiff, SWEEPS)
    return result(W, kept, k, losses, walk)


def neighbour_weights(graph: Any, n_obs: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Return symmetric weights without self-loops, of mean degree 1 over the rows with neighbours, and the degrees.

    Raises
    ------
    ValueError
        If the graph does not connect the rows of X, or holds negative weights.
    """
    if graph is None or tuple(graph.shape) != (n_obs, n_obs):
        msg = f"`graph` must be a matrix of shape {(n_obs, n_obs)}, got {getattr(graph, 'shape', graph)}."
        raise ValueError(msg)
    S = sparse.csr_array(graph, dtype=np.float64)
    S = sparse.csr_array((S + S.T) / 2)
    S.setdiag(0)
    S.eliminate_zeros()
    if S.nnz == 0 or S.data.min() < 0:
        msg = "`graph` must hold positive weights between neighbours; it has none, or negative ones."
        raise ValueError(msg)
    degree = np.asarray(S.sum(axis=1)).ravel()
    mean = degree[degree > 0].mean()
    return S / mean, degree / mean


def usages(X: Any, H: np.ndarray, *, gram: np.ndarray | None = None, walk: Walk | None = None) -> np.ndarray:
    """Return the exact non-negative least-squares rows of W for fixed H, (n_obs, k).

    `gram` replaces H H' where columns are weighted: for weights v, give `H * v` and `(H * v) @ H.T`.

    Examples
    --------
    >>> usages(np.array([[2.0, 3.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    array([[2., 3.]])
    """
    walk, k = walk or Walk(), len(H)
    Ht = padded(H.T, np.float64)
    gram = _gram(Ht)[:k, :k] if gram is None else gram
    return map_rows(_usage_rows, X, constants=(Ht, gram), n_jobs=walk.n_jobs, block_rows=walk.block_rows)


def _usage_rows(block: Block, Ht: np.ndarray, gram: np.ndarray) -> np.ndarray:
    return nnls(gram, times(block, Ht)[:, : len(gram)])


def ordered(fit: Factorization) -> Factorization:
    """Return the components by the sum of squares that each explains alone, largest first."""
    order = np.argsort(-np.linalg.norm(fit.W, axis=0) * np.linalg.norm(fit.H, axis=1), kind="stable")
    return replace(fit, W=fit.W[:, order], H=fit.H[order])

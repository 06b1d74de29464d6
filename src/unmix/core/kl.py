"""Non-negative factorisation under the Kullback-Leibler (Poisson) loss, with work at the non-zeros only."""

from dataclasses import replace
from typing import Any

import numpy as np

from unmix.core._kl_kernels import kl_rows
from unmix.core._nmf_kernels import aligned, padded
from unmix.core.blocks import Block, as_rows
from unmix.core.factorization import Factorization, Walk, first_factors, precision, result, settled
from unmix.core.masks import mask_rows, observe
from unmix.core.starts import Start, named_start
from unmix.core.svd import check_components

INNER = 3
TINY = 1e-30


def nmf_kl(
    X: Any,
    n_components: int,
    *,
    mask: Any = None,
    start: "str | Start" = "auto",
    l1: float = 0.0,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
    dtype: Any = None,
) -> Factorization:
    r"""Return the factors of :math:`\min_{W,H\ge0} \sum_{ij} x_{ij}\log\frac{x_{ij}}{(WH)_{ij}} - x_{ij} + (WH)_{ij}`.

    The sum runs over the observed entries. Parameters are those of :func:`unmix.core.factorization.nmf`, and a mask as
    in :func:`unmix.core.masks.mask_rows`. Each pass takes `INNER` multiplicative steps on W and one on H.

    References
    ----------
    Lee, Seung (2001), Algorithms for non-negative matrix factorization.

    Examples
    --------
    >>> fit = nmf_kl(np.outer([1.0, 2.0, 3.0], [4.0, 0.0, 1.0]), 1)
    >>> np.round(fit.W @ fit.H, 4)
    array([[ 4.,  0.,  1.],
           [ 8.,  0.,  2.],
           [12.,  0.,  3.]])
    """
    X, walk, k = as_rows(X), walk or Walk(), n_components
    rows, kind = mask_rows(X, mask)
    dtype = dtype or precision(X)
    if not isinstance(start, Start):
        check_components(k, max(X.shape))
        name = "random" if kind is not None else named_start(start, X.shape, k, positive=True)

        def solve(sample: Any, first: Start, quick: Walk) -> Factorization:
            return nmf_kl(sample, k, start=first, l1=l1, walk=quick, dtype=dtype)

        mean = observed_mean(X, rows, kind, walk)
        start = first_factors(X, k, name, mean, rng, solve, walk, zeros=False)
    W, Ht = padded(start.W, dtype), padded(start.H.T, dtype)
    return _multiply(X, rows, kind, W, Ht, k, l1, walk)


def kl_usages(X: Any, H: np.ndarray, *, mask: Any = None, walk: Walk | None = None) -> np.ndarray:
    """Return the rows of W that minimise the Kullback-Leibler loss for fixed H, (n_obs, k).

    Examples
    --------
    >>> np.round(kl_usages(np.array([[2.0, 3.0]]), np.eye(2)), 6)
    array([[2., 3.]])
    """
    X, walk = as_rows(X), walk or Walk()
    rows, kind = mask_rows(X, mask)
    Ht = padded(H.T, np.float64)
    W = padded(np.ones((X.shape[0], len(H))), np.float64)
    losses: list[float] = []
    while len(losses) < walk.max_iter and not settled(losses, 1e-4 * walk.tol):
        W, sums = walk.over(_kl_pass, X, W, rows, constants=(Ht, kind, 0.0, 50))
        losses.append(float(sums[3]))
    return W[:, : len(H)]


def observed_mean(X: Any, rows: Any, kind: Any, walk: Walk) -> float:
    """Return the mean of the observed entries."""
    ids = np.zeros((X.shape[0], 1))
    _, (total, count) = walk.over(_observed_sums, X, ids, rows, constants=(kind,))
    return float(total) / max(int(count), 1)


def _observed_sums(block: Block, ids: np.ndarray, rows: Any, kind: Any) -> tuple[np.ndarray, tuple[float, int]]:
    seen = observe(block, rows, kind)
    return ids, (float(seen.block.data.sum(dtype=np.float64)), seen.count())


def _multiply(
    X: Any, rows: Any, kind: Any, W: np.ndarray, Ht: np.ndarray, k: int, l1: float, walk: Walk
) -> Factorization:
    """Alternate multiplicative steps until the loss settles."""
    losses: list[float] = []
    while len(losses) < walk.max_iter and not settled(losses, walk.tol):
        W, (ratios, listed, column_sums, loss) = walk.over(_kl_pass, X, W, rows, constants=(Ht, kind, l1, INNER))
        losses.append(float(loss) + l1 * (float(W.sum()) + float(Ht.sum())))
        kept = Ht
        weights = column_sums + listed + l1
        Ht = padded(Ht * np.where(weights > TINY, ratios / np.maximum(weights, TINY), 1.0), Ht.dtype)
    return replace(result(W, kept, k, losses, walk), loss=np.array(losses))


def _kl_pass(
    block: Block, W: np.ndarray, rows: Any, Ht: np.ndarray, kind: Any, l1: float, steps: int
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Improve the rows of W; return sums of `x / xhat * w`, of listed w, of all w, and the loss."""
    seen = observe(block, rows, kind)
    csr, W = seen.block, padded(W, Ht.dtype)
    ratios = aligned(Ht.shape, np.float64)
    listed = np.zeros(Ht.shape if len(seen.indices) else (1, Ht.shape[1]), Ht.dtype)
    base = seen.base * Ht.sum(axis=0, dtype=np.float64).astype(Ht.dtype)
    data = csr.data.astype(Ht.dtype, copy=False)
    lists = (seen.indptr, seen.indices, Ht.dtype.type(seen.sign), base)
    quotients = np.empty(len(data), Ht.dtype)
    fitted = kl_rows(csr.indptr, csr.indices, data, *lists, Ht, W, Ht.dtype.type(l1), steps, quotients, ratios, listed)
    loss = fitted + inner_log(data, quotients)
    if len(listed) == 1 and kind is not None:
        listed = np.zeros(Ht.shape)
    sums = seen.base * W.sum(axis=0, dtype=np.float64)
    return W, (ratios, listed.astype(np.float64), sums, float(loss))


def inner_log(data: np.ndarray, quotients: np.ndarray) -> float:
    """Return the sum of `x log(x / xhat) - x` at the non-zeros, where xhat is not zero.

    Counts of variables without loadings cost the same whatever the usages are, and are left out.
    """
    fitted = quotients > 0
    logs = np.log(np.where(fitted, quotients, 1))
    return float((data * np.where(fitted, logs - 1, 0)).sum(dtype=np.float64))

"""Factors of counts that batches share, beside a part of each batch's own, by the likelihood of Poisson counts.

The fitted value of a count is a sum over 2k terms, k shared and k of the batch's own. Lee and Seung's majoriser separates
them all, so that one multiplicative step improves every loading at once and cannot raise the loss.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._kl_kernels import kl_rows
from unmix.core._nmf_kernels import aligned, padded
from unmix.core.blocks import Block, as_rows
from unmix.core.factorization import Walk, settled
from unmix.core.joint import Batches, begin, packed, sorted_rows
from unmix.core.joint_loadings import Known, Loadings, Sums, by_batch
from unmix.core.kl import INNER, TINY, inner_log

SPECIFICITY = 1 / 3
"""A batch's own part of a gene begins where one of two batches alike in size has twice the other's counts."""


def joint_counts(
    X: Any,
    codes: np.ndarray,
    n_components: int,
    *,
    specificity: float = SPECIFICITY,
    measured: np.ndarray | None = None,
    known: Known | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Batches:
    r"""Return the integrative factorisation of batches of counts.

    .. math:: \min_{W,H,V\ge0} \sum_b \sum x\log(x/\hat x) - x + \hat x + \lambda \sum_b \sum W_b V_b,
        \qquad \hat X_b = W_b (H + V_b)

    A count that a batch's own part explains costs :math:`1 + \lambda`, one that the shared part explains costs 1: with two
    batches alike in size, :math:`V_b` of a gene begins where one has :math:`(1 + \lambda) / (1 - \lambda)` times the
    other's.

    Parameters
    ----------
    X
        Counts, (n_obs, n_vars).
    codes
        Batch of every row, 0 to n_batches - 1.
    n_components
        Number k of components.
    specificity
        Lambda.
    measured
        Which variables each batch measured, (n_batches, n_vars); all by default.
    known
        Loadings to start from, or to keep while new batches are added.
    walk
        Threads, block size, tolerance and limit.
    rng
        Seed of the start.

    References
    ----------
    Lee, Seung (2001), Algorithms for non-negative matrix factorization.
    Welch et al. (2019), Single-cell multi-omic integration compares and contrasts features of brain cell identity.

    Examples
    --------
    >>> X = np.kron(np.eye(2), np.ones((5, 4)))
    >>> fit = joint_counts(np.vstack([X, X]), np.repeat([0, 1], 10), 2)
    >>> bool(fit.loss[-1] < 1e-4), fit.V.shape
    (True, (2, 2, 8))
    """
    walk = walk or Walk()
    X, codes, back = sorted_rows(as_rows(X), np.asarray(codes))
    generator = np.random.default_rng(rng)
    W, loadings = begin(X, codes, back, n_components, specificity, measured, known, walk, generator)
    begin_alike(loadings, known)
    trace: list[float] = []
    while len(trace) < walk.max_iter and not settled(trace, walk.tol):
        W, (sums, loss) = walk.over(_count_pass, X, W, codes, constants=(_rates(loadings, W.dtype), INNER))
        trace.append(float(loss))
        kept = loadings.copy()
        _improve(loadings, sums)
    return packed(W[back], kept, trace, walk, tidy=known is None)


def begin_alike(loadings: Loadings, known: Known | None) -> None:
    """Let each batch's own part begin as the shared one, and genes that have none there in all components alike.

    These are genes that one batch alone measured, or that no shared loadings which are kept know.

    Multiplicative steps hardly bring together what begins apart: with parts drawn for each batch, a component could stand
    for one program in one batch and for another in the next, and stay so.
    """
    measured = loadings.D > 0
    shared = ((measured.sum(axis=0) > 1) | (len(measured) == 1)) & loadings.Ht.any(axis=1)
    for b, V in enumerate(loadings.Vt):
        if known is None or b not in known.V:
            alike = np.zeros(V.shape)
            alike[:, : loadings.k] = V[:, : loadings.k].mean(axis=1, keepdims=True)
            first = np.where(shared[:, None], loadings.Ht, alike)
            loadings.Vt[b] = padded(first * measured[b][:, None], V.dtype)


def count_usages(
    X: Any, H: np.ndarray, V: np.ndarray, *, specificity: float, measured: np.ndarray, walk: Walk | None = None
) -> np.ndarray:
    """Return the optimal usages of rows under shared loadings H and the batch's own V (zeros for a new batch).

    Examples
    --------
    >>> np.round(count_usages(np.array([[2.0, 3.0]]), np.eye(2), np.zeros((2, 2)), specificity=1.0,
    ...                       measured=np.ones(2, bool)), 6)
    array([[2., 3.]])
    """
    X, walk = as_rows(X), walk or Walk()
    Vt, zeros = padded(V.T, np.float64), np.zeros(X.shape[0], np.int64)
    loadings = Loadings(padded(H.T, np.float64), [Vt], measured[None].astype(float), zeros[:1], specificity, len(H))
    W, losses = padded(np.ones((X.shape[0], len(H))), np.float64), []  # type: ignore[var-annotated]
    while len(losses) < walk.max_iter and not settled(losses, 1e-4 * walk.tol):
        W, (_, loss) = walk.over(_count_pass, X, W, zeros, constants=(_rates(loadings, W.dtype), 50))
        losses.append(float(loss))
    return W[:, : len(H)]


def _rates(loadings: Loadings, dtype: Any) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return of every batch H + V_b, the price of a unit of each usage, and the variables measured."""
    out = []
    for b, seen in enumerate(loadings.D > 0):
        F = loadings.full(b)[0]
        price = F.sum(axis=0) + loadings.specificity * loadings.Vt[b].sum(axis=0, dtype=np.float64)
        out.append((padded(F, dtype), price.astype(dtype), seen))
    return out


def _count_pass(
    block: Block, W: np.ndarray, codes: np.ndarray, rates: Sequence[tuple[np.ndarray, ...]], steps: int
) -> tuple[np.ndarray, tuple[Sums, float]]:
    """Improve the rows of W; return of every batch the sums of `x / xhat * w` and of w, and the loss."""
    new, sums, loss = np.empty_like(W), Sums(), 0.0
    for b, rows, part in by_batch(block, codes):
        F, price, seen = rates[b]
        csr, w = sparse.csr_array(part), padded(W[rows], W.dtype)
        data = csr.data.astype(W.dtype, copy=False)
        data = data if seen.all() else np.where(seen[csr.indices], data, 0).astype(W.dtype)
        ratios, listed, quotients = (
            aligned(F.shape, np.float64),
            np.zeros((1, F.shape[1]), W.dtype),
            np.empty_like(data),
        )
        none = (np.zeros(len(w) + 1, np.int64), np.zeros(0, np.int32), W.dtype.type(-1), price)
        options = (F, w, W.dtype.type(0), steps, quotients, ratios, listed)
        fitted = kl_rows(csr.indptr, csr.indices, data, *none, *options)
        loss += float(fitted) + inner_log(data, quotients)
        sums[b] = (ratios, w.sum(axis=0, dtype=np.float64))
        new[rows] = w
    return new, (sums, loss)


def _improve(loadings: Loadings, sums: Sums) -> None:
    """Take one multiplicative step on H and on every V_b."""
    found, total = np.zeros(loadings.Ht.shape), np.zeros(loadings.Ht.shape)
    for b, (ratios, used) in sums.items():
        seen = (loadings.D[b] > 0)[:, None]
        found += seen * ratios
        total += seen * used
        if b not in loadings.fixed:
            loadings.Vt[b] = _stepped(loadings.Vt[b], ratios, (1 + loadings.specificity) * used)
    if not loadings.fixed_H:
        loadings.Ht = _stepped(loadings.Ht, found, total)


def _stepped(loadings: np.ndarray, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return padded(loadings * np.where(expected > TINY, found / np.maximum(expected, TINY), 1.0), loadings.dtype)

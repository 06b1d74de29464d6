"""Alternating least squares X ~ W H over the observed entries: matrix completion, with or without non-negativity."""

from dataclasses import replace
from typing import Any

import numba as nb
import numpy as np

from unmix.core._nmf_kernels import padded, times, transpose_times
from unmix.core.blocks import Block, as_rows
from unmix.core.factorization import Factorization, Penalty, Walk, neighbour_weights, settled
from unmix.core.kl import observed_mean
from unmix.core.masks import Observed, mask_rows, observe, values_at
from unmix.core.simplex import nnls
from unmix.core.starts import Start, random_start
from unmix.core.svd import check_components


def als(
    X: Any,
    n_components: int,
    *,
    mask: Any = None,
    nonnegative: bool = False,
    ridge: float = 1e-8,
    penalty: Penalty | None = None,
    start: Start | None = None,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> Factorization:
    r"""Return the factors of :math:`\min \tfrac12\sum_{(i,j)\in\Omega}(x_{ij}-w_i h_j)^2+\tfrac\rho2(\|W\|^2+\|H\|^2)`.

    Every row of W, and then every column of H, is solved exactly against its own Gram matrix over its observed entries.
    Rows and columns without an observed entry are zero.

    Parameters
    ----------
    X
        Matrix, (n_obs, n_vars); entries that the mask leaves out may be NaN.
    n_components
        Number k of components.
    mask
        What is observed, see :func:`unmix.core.masks.mask_rows`; everything by default.
    nonnegative
        Whether W and H must be non-negative.
    ridge
        Weight rho.
    penalty
        Sparsity, ridge and smoothing over a graph of the rows, for non-negative factors.
    start
        Factors to begin with; H is used, random by default.
    walk
        Threads, block size, tolerance and limit.
    rng
        Seed of the start.

    Raises
    ------
    ValueError
        If nothing is observed, or the mask does not fit.

    References
    ----------
    Zhou, Wilkinson, Schreiber, Pan (2008), Large-scale parallel collaborative filtering for the Netflix prize.

    Examples
    --------
    >>> X, seen = np.outer([1.0, 2.0], [3.0, 6.0]), np.array([[True, True], [True, False]])
    >>> fit = als(X, 1, mask=seen)
    >>> round(float((fit.W @ fit.H)[1, 1]), 4)
    12.0
    """
    X, walk = as_rows(X), walk or Walk(tol=1e-7)
    check_components(n_components, max(X.shape))
    rows, kind = mask_rows(X, mask)
    H = start.H if start is not None else _first(X, n_components, rows, kind, nonnegative, walk, rng)
    penalty = penalty or Penalty()
    ridge, graph = ridge + penalty.l2, neighbour_weights(penalty.graph, X.shape[0]) if penalty.smoothing > 0 else None
    W = np.zeros((X.shape[0], len(H)))
    losses: list[float] = []
    while len(losses) < walk.max_iter and not settled(losses, walk.tol):
        kept = H
        pull, own = _pulls(W, H, penalty, graph)
        W, sums = walk.over(_als_pass, X, W, rows, pull, own, constants=(H, kind, ridge, nonnegative))
        cross, grams, loss = sums
        rough = _roughness(W, graph)
        losses.append(float(loss) + penalty.l1 * float(W.sum() + H.sum()) + 0.5 * ridge * float((H**2).sum()))
        losses[-1] += 0.5 * penalty.smoothing * float((H**2).sum(axis=1) @ rough)
        grams = grams + penalty.smoothing * np.diag(rough)
        H = solve_rows(grams, cross - penalty.l1, ridge, nonnegative=nonnegative).T
    return Factorization(W, kept, np.minimum.accumulate(losses), settled(losses, walk.tol))


def principal(fit: Factorization) -> Factorization:
    r"""Return the same product W H with orthogonal components, largest first.

    Only the product is identified: any invertible matrix may stand between W and H. With the singular triplets
    :math:`W H = U S V^\top`, :math:`U S^{1/2}` and :math:`S^{1/2} V^\top` are those factors of it that the ridge prefers.
    The entry of largest modulus of each loading is positive.

    Examples
    --------
    >>> fit = Factorization(np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[-2.0, 0.0], [0.0, -2.0]]), np.zeros(1), True)
    >>> found = principal(fit)
    >>> np.round(found.W @ found.H, 6), bool((np.abs(found.H[1]) < 1e-6).all())
    (array([[-2., -2.],
           [-2., -2.]]), True)
    """
    (Q_w, R_w), (Q_h, R_h) = np.linalg.qr(fit.W), np.linalg.qr(fit.H.T)
    U, S, Vt = np.linalg.svd(R_w @ R_h.T, full_matrices=False)
    W, H = np.zeros(fit.W.shape), np.zeros(fit.H.shape)
    W[:, : len(S)], H[: len(S)] = Q_w @ (U * np.sqrt(S)), (Q_h @ (Vt.T * np.sqrt(S))).T
    sign = np.where(H[np.arange(len(H)), np.abs(H).argmax(axis=1)] < 0, -1.0, 1.0)
    return replace(fit, W=W * sign, H=H * sign[:, None])


def masked_usages(
    X: Any, H: np.ndarray, *, mask: Any = None, ridge: float = 1e-8, nonnegative: bool = False, walk: Walk | None = None
) -> np.ndarray:
    """Return the least-squares rows of W for fixed H over the observed entries, (n_obs, k).

    Examples
    --------
    >>> np.round(masked_usages(np.array([[2.0, 9.0]]), np.ones((1, 2)), mask=np.array([[True, False]])), 6)
    array([[2.]])
    """
    X, walk = as_rows(X), walk or Walk()
    rows, kind = mask_rows(X, mask)
    W = np.zeros((X.shape[0], len(H)))
    return walk.over(_als_pass, X, W, rows, W, W, constants=(H, kind, ridge, nonnegative))[0]


def _pulls(W: np.ndarray, H: np.ndarray, penalty: Penalty, graph: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the linear terms and the diagonals that penalties add to every row's problem."""
    linear = np.broadcast_to(-penalty.l1, W.shape)
    if graph is None:
        return linear, np.broadcast_to(0.0, W.shape)
    S, degree = graph
    scale = penalty.smoothing * (H**2).sum(axis=1)
    return linear + scale * (degree[:, None] * W + S @ W), 2 * degree[:, None] * scale


def _roughness(W: np.ndarray, graph: Any) -> np.ndarray:
    """Return `w_c' L w_c` of every component."""
    if graph is None:
        return np.zeros(W.shape[1])
    S, degree = graph
    return np.einsum("ic,ic->c", W, degree[:, None] * W - S @ W)


def held_out_loss(X: Any, fit: Factorization, mask: Any, *, poisson: bool = False, walk: Walk | None = None) -> float:
    """Return the mean loss of the entries that a speckled mask held out: squared, or Poisson deviance / 2."""
    X, walk = as_rows(X), walk or Walk()
    rows, kind = mask_rows(X, mask)
    _, (loss, count) = walk.over(_held_out_pass, X, fit.W, rows, constants=(fit.H, kind, poisson))
    return float(loss) / max(int(count), 1)


def _first(X: Any, k: int, rows: Any, kind: Any, nonnegative: bool, walk: Walk, rng: Any) -> np.ndarray:
    """Return a random H on the scale of the observed entries."""
    mean = observed_mean(X, rows, kind, walk)
    generator = np.random.default_rng(rng)
    H = random_start(1, X.shape[1], k, abs(mean), generator).H
    return H if nonnegative else H * generator.choice([-1.0, 1.0], H.shape)


def _als_pass(
    block: Block,
    W: np.ndarray,
    rows: Any,
    pull: np.ndarray,
    own: np.ndarray,
    H: np.ndarray,
    kind: Any,
    ridge: float,
    nonnegative: bool,
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Solve the rows of W; return X'W, each column's Gram matrix over its observed rows, and the loss."""
    seen = observe(block, rows, kind)
    k, Ht = len(H), np.ascontiguousarray(H.T)
    B = times(seen.block, padded(Ht, np.float64))[:, :k]
    grams = H @ H.T if kind is None else _row_grams(seen, Ht)
    heavier = grams if not own.any() else grams + own[:, :, None] * np.eye(k)
    W = solve_rows(heavier, B + pull, ridge, nonnegative=nonnegative)
    fitted = W @ grams if kind is None else np.einsum("ic,icd->id", W, grams)
    squares = float((seen.block.data.astype(np.float64) ** 2).sum())
    loss = 0.5 * (squares - 2 * float((B * W).sum()) + float((fitted * W).sum()) + ridge * float((W**2).sum()))
    cross = transpose_times(seen.block, padded(W, np.float64))[:, :k]
    return W, (cross, W.T @ W if kind is None else _column_grams(seen, W, len(Ht)), loss)


def solve_rows(grams: np.ndarray, cross: np.ndarray, ridge: float, *, nonnegative: bool) -> np.ndarray:
    """Return `w_i = (G_i + ridge I)^-1 b_i`, or its non-negative counterpart, for one or for many Gram matrices."""
    k = cross.shape[1]
    size = np.trace(grams, axis1=-2, axis2=-1)[..., None, None] / k
    grams = grams + (ridge + 1e-12 * size + (size <= 0)) * np.eye(k)
    if nonnegative:
        return nnls(grams, cross)
    return np.linalg.solve(grams, cross.T).T if grams.ndim == 2 else np.linalg.solve(grams, cross[:, :, None])[:, :, 0]


def _row_grams(seen: Observed, Ht: np.ndarray) -> np.ndarray:
    """Return sum over observed j of h_j h_j' for every row."""
    out = np.zeros((seen.block.shape[0], *(Ht.shape[1],) * 2)) + seen.base * (Ht.T @ Ht)
    _add_row_grams(seen.indptr, seen.indices, float(seen.sign), Ht, out)
    return out


def _column_grams(seen: Observed, W: np.ndarray, n_vars: int) -> np.ndarray:
    """Return sum over observed i of w_i w_i' for every column."""
    out = np.zeros((n_vars, *(W.shape[1],) * 2)) + seen.base * (W.T @ W)
    _add_column_grams(seen.indptr, seen.indices, float(seen.sign), np.ascontiguousarray(W), out)
    return out


@nb.njit(cache=True, nogil=True)
def _add_row_grams(indptr, indices, sign, Ht, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        for p in range(indptr[i], indptr[i + 1]):
            _add_outer(out[i], sign, Ht[indices[p]])


@nb.njit(cache=True, nogil=True)
def _add_column_grams(indptr, indices, sign, W, out):  # type: ignore[no-untyped-def]
    for i in range(W.shape[0]):
        for p in range(indptr[i], indptr[i + 1]):
            _add_outer(out[indices[p]], sign, W[i])


@nb.njit(cache=True, nogil=True)
def _add_outer(G, sign, h):  # type: ignore[no-untyped-def]
    for a in range(h.shape[0]):
        ha = sign * h[a]
        for b in range(h.shape[0]):
            G[a, b] += ha * h[b]


def _held_out_pass(
    block: Block, W: np.ndarray, rows: Any, H: np.ndarray, kind: Any, poisson: bool
) -> tuple[np.ndarray, tuple[Any, ...]]:
    seen, csr = observe(block, rows, kind), observe(block, rows, None).block
    x = values_at(csr.indptr, csr.indices, csr.data, seen.indptr, seen.indices)
    fitted = _fitted_at(seen.indptr, seen.indices, W.astype(np.float64), np.ascontiguousarray(H.T, np.float64))
    if not poisson:
        return W, (float(((x - fitted) ** 2).sum()), len(x))
    fitted = np.maximum(fitted, 1e-10)
    logs = np.where(x > 0, x * np.log(np.where(x > 0, x, 1) / fitted), 0)
    return W, (float((logs - x + fitted).sum()), len(x))


@nb.njit(cache=True, nogil=True)
def _fitted_at(indptr, indices, W, Ht):  # type: ignore[no-untyped-def]
    out = np.zeros(indices.shape[0])
    for i in range(W.shape[0]):
        for p in range(indptr[i], indptr[i + 1]):
            for c in range(W.shape[1]):
                out[p] += W[i, c] * Ht[indices[p], c]
    return out

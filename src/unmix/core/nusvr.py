"""Exact linear nu-SVR for many responses that share one design matrix: the solver under CIBERSORT.

For one response y (a spot over G genes), a design X (G x K) and r = y - X w, the primal of LIBSVM's nu-SVR,

    min  1/2 |w|^2 + C (nu G eps + sum_i (|r_i - b| - eps)_+),

becomes with u = b + eps, v = b - eps, k = nu G / 2 a sum of two quantile losses that share w,

    min  1/2 |w|^2 + C [k u + sum_i (r_i - u)_+] + C [-k v + sum_i (v - r_i)_+],

ridge composite quantile regression at the levels nu/2 and 1 - nu/2, with K + 2 unknowns. A primal-dual interior point
(Mehrotra) walks a block of responses at once: their normal equations X'(D + D')X are one matrix product with the row
outer products of X. As soon as the active genes can be told, the vertex is solved exactly, and accepted only with its
certificate.
"""

from dataclasses import dataclass

import numpy as np

from unmix.core._nusvr_interior import Block, Design, Ends, interior_point, top

BLOCK = 48
DEGENERATE_TOL = 1e-10
"""A fit is degenerate where the weights of no data at all are optimal to this relative accuracy."""


@dataclass(frozen=True)
class NuSVRResult:
    """Optimal weights of N responses, each with its certificate.

    Parameters
    ----------
    w
        Weights (N, K).
    b
        Intercepts (N,).
    epsilon
        Half widths of the tube (N,).
    objective
        Primal objective at `w`, `b`, `epsilon` (N,).
    gap
        Duality gap by a feasible dual, relative to `objective` (N,): the objective is at most this fraction above the
        optimum.
    degenerate
        Where the data do not decide the weights (N,): w = 0 (under the constraint 1 / K) is optimal. Such rows hold
        exactly those weights.
    n_iter
        Interior-point iterations (N,).
    """

    w: np.ndarray
    b: np.ndarray
    epsilon: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    degenerate: np.ndarray
    n_iter: np.ndarray


def solve_nusvr(X: np.ndarray, Y: np.ndarray, nu: float, *, C: float = 1.0) -> NuSVRResult:
    """Fit a linear nu-SVR to every row of Y, exactly.

    Parameters
    ----------
    X
        Design (G, K): signatures, genes x types.
    Y
        Responses (N, G): spots x genes.
    nu
        Fraction of genes outside the tube, in (0, 1].
    C
        Cost of a residual outside the tube.

    Returns
    -------
    Weights with a certificate of optimality each.

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, `nu` is outside (0, 1] or `C` is not positive.

    Notes
    -----
    Primal as in LIBSVM (Chang and Lin, Neural Computation 14:1959, 2002); steps as in Mehrotra (SIAM Journal on
    Optimization 2:575, 1992).

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 3.0], [4.0, 0.0]])
    >>> solve_nusvr(X, (X @ [0.2, 0.7])[None], nu=0.5, C=100.0).w.round(3)
    array([[0.2, 0.7]])
    """
    return _solve(X, Y, nu, C, simplex=False)


def solve_nusvr_simplex(X: np.ndarray, Y: np.ndarray, nu: float, *, C: float = 1.0) -> NuSVRResult:
    """Fit a linear nu-SVR whose weights are >= 0 and sum to 1 to every row of Y, exactly.

    Parameters
    ----------
    X
        Design (G, K): signatures, genes x types.
    Y
        Responses (N, G), spots x genes, in the units of X.
    nu
        Fraction of genes outside the tube, in (0, 1].
    C
        Cost of a residual outside the tube.

    Returns
    -------
    Weights with a certificate of optimality each: for a dual (alpha, gamma) the weights are the projection of
    X'(alpha - gamma) onto the simplex.

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, `nu` is outside (0, 1] or `C` is not positive.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 3.0], [4.0, 0.0]])
    >>> solve_nusvr_simplex(X, (X @ [0.3, 0.7])[None], nu=0.5, C=100.0).w.round(3)
    array([[0.3, 0.7]])
    """
    return _solve(X, Y, nu, C, simplex=True)


def _solve(X: np.ndarray, Y: np.ndarray, nu: float, C: float, *, simplex: bool) -> NuSVRResult:
    X, Y = _validated(X, Y, nu, C)
    design = _prepare(X, nu, simplex=simplex)
    parts = [_solve_block(design, Y[start : start + BLOCK], C) for start in range(0, len(Y), BLOCK)]
    parts = parts or [_solve_block(design, Y, C)]
    return NuSVRResult(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _validated(X: np.ndarray, Y: np.ndarray, nu: float, C: float) -> tuple[np.ndarray, np.ndarray]:
    X, Y = np.ascontiguousarray(X, float), np.ascontiguousarray(Y, float)
    if X.ndim != 2 or Y.ndim != 2 or X.shape[0] != Y.shape[1] or 0 in X.shape:
        msg = f"X must be genes x types and Y spots x the same genes, got shapes {X.shape} and {Y.shape}."
        raise ValueError(msg)
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        msg = "X and Y must be finite; remove or fill NaN and infinite values first."
        raise ValueError(msg)
    if not (0 < nu <= 1 and 0 < C < np.inf):
        msg = f"`nu` must be in (0, 1] and `C` positive, got nu={nu} and C={C}."
        raise ValueError(msg)
    return X, Y


def _prepare(X: np.ndarray, nu: float, *, simplex: bool) -> Design:
    """Centre X (the thresholds take it up) and scale it to root mean square 1."""
    mean = X.mean(axis=0)
    centred = X - mean
    scale = float(np.sqrt(np.mean(centred**2))) or 1.0
    centred /= scale
    i, j = np.triu_indices(X.shape[1])
    return Design(centred, centred[:, i] * centred[:, j], mean, scale, nu * len(X) / 2, simplex)


def _solve_block(design: Design, Y: np.ndarray, C: float) -> tuple[np.ndarray, ...]:
    """Solve in units where X and every y have scale 1, and go back to the caller's units."""
    centre = Y.mean(axis=1)
    spread = Y.std(axis=1)
    size = np.where(spread > 1e-12 * np.abs(centre), spread, 0.0)
    size[size == 0] = 1.0
    ridge = size / (C * design.scale**2)
    total = design.scale / size if design.simplex else np.zeros(len(Y))
    block = Block((Y - centre[:, None]) / size[:, None], ridge, total)
    end = interior_point(design, block)
    degenerate = _drop_undecided(design, block, end)
    w = end.w * (size / design.scale)[:, None]
    shift = centre - w @ design.mean
    u, v = size * end.h[:, 0] + shift, shift - size * end.h[:, 1]
    objective, gap = C * size * end.value.T
    relative = np.divide(gap, objective, out=np.zeros_like(gap), where=gap > 0)
    return w, (u + v) / 2, (u - v) / 2, objective, relative, degenerate, end.n_iter


def _drop_undecided(design: Design, block: Block, end: Ends) -> np.ndarray:
    """Find the rows where the weights of a zero dual are optimal, and put exactly those weights there."""
    w = np.repeat(block.total[:, None] / design.X.shape[1], design.X.shape[1], axis=1)
    r = block.Y - w @ design.X.T
    h = np.stack([top(r, design.k), top(-r, design.k)], axis=1)
    hinge = np.maximum(r - h[:, :1], 0).sum(axis=1) + np.maximum(-r - h[:, 1:], 0).sum(axis=1)
    objective = design.k * h.sum(axis=1) + hinge + 0.5 * block.ridge * (w**2).sum(axis=1)
    gap = np.maximum(objective - (end.value[:, 0] - end.value[:, 1]), 0.0)
    degenerate = gap <= DEGENERATE_TOL * objective
    end.w[degenerate], end.h[degenerate] = w[degenerate], h[degenerate]
    end.value[degenerate] = np.stack([objective, gap], axis=1)[degenerate]
    return degenerate

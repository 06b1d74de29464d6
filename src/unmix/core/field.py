"""Rows as a smooth field over a graph of neighbours; its stiffness is chosen by rows that are left out.

Symbols: x_i the rows, s_i the field, a_ij weights of neighbours (symmetric, divided by their mean degree), m_i the weight
of a row's own value, lambda >= 0 the strength.

    minimise  sum_i m_i |s_i - x_i|^2 + lambda / 2 sum_ij a_ij |s_i - s_j|^2

A row that has the mean degree becomes the mean of its own value, with weight 1, and of its neighbours' fields, with weight
lambda. lambda is chosen by cross-validation: a fifth of the rows is left out (m_i = 0), and the field of the others has to
predict it. That tells what a row shares with its surroundings from what it has alone, be it noise of counting or the few
cells that it happens to hold. (Halves of the counts would keep the latter: both halves hold the same cells.)
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

STRENGTHS = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
N_FOLDS = 5
MIN_Z = 2.0
"""How many standard errors the field must predict better than the mean of all rows."""
TINY, WEAK = 1e-6, 1e-3
"""Weight of rows that are left out, and strength that stands for 0 in predicting them."""
TOL = 1e-8


@dataclass(frozen=True)
class FieldChoice:
    """The strength, and what it was chosen by."""

    strength: float
    curve: np.ndarray
    """Columns: strength, share of the variance of rows left out that the field of the others predicts."""
    z: float
    """By how many standard errors the best field predicts better than the mean of all rows."""


def smooth_field(X: np.ndarray, graph: sparse.csr_array, strength: float, own: np.ndarray | None = None) -> np.ndarray:
    """Return the field of rows X, n_obs x D.

    Parameters
    ----------
    X
        Rows.
    graph
        Weights of neighbours, n_obs x n_obs; made symmetric.
    strength
        lambda.
    own
        Weights m of the rows' own values, at least 1e-6; 1 by default.

    Examples
    --------
    >>> chain = sparse.csr_array(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    >>> smooth_field(np.array([[0.0], [3.0], [0.0]]), chain, 1e9).round(2).ravel()
    array([1., 1., 1.])
    """
    return _field(X, _laplacian(graph), strength, np.ones(len(X)) if own is None else np.maximum(own, TINY))


def choose_field(X: np.ndarray, graph: sparse.csr_array, own: np.ndarray, rng: np.random.Generator) -> FieldChoice:
    """Choose the strength by rows left out; 0 where neighbours say no more about them than the mean of all rows does.

    Parameters are those of :func:`smooth_field`; rows of weight below 1 in `own` are not asked for.
    """
    L, rows = _laplacian(graph), np.flatnonzero(own >= 1)
    if L.nnz == 0 or len(rows) < 2 * N_FOLDS:
        return FieldChoice(0.0, np.column_stack([STRENGTHS, np.zeros(len(STRENGTHS))]), 0.0)
    errors, by_mean = np.zeros((len(STRENGTHS), len(X))), np.zeros(len(X))
    fold = rng.permutation(len(rows)) % N_FOLDS
    for k in range(N_FOLDS):
        out, seen = rows[fold == k], np.maximum(own, TINY)
        seen[out] = TINY
        mean = np.average(X, axis=0, weights=seen)
        hidden = X.copy()
        hidden[out] = mean
        by_mean[out] = ((X[out] - mean) ** 2).sum(axis=1)
        for j, strength in enumerate(STRENGTHS):
            errors[j, out] = ((X[out] - _field(hidden, L, max(strength, WEAK), seen)[out]) ** 2).sum(axis=1)
    predicted = 1.0 - errors.sum(axis=1) / max(by_mean.sum(), np.finfo(float).tiny)
    best = int(np.argmax(predicted))
    gain = (by_mean - errors[best])[rows]
    error = gain.std() / np.sqrt(len(gain))
    z = float(gain.mean() / error) if error > 0 else 0.0
    return FieldChoice(float(STRENGTHS[best]) if z > MIN_Z else 0.0, np.column_stack([STRENGTHS, predicted]), z)


def _laplacian(graph: sparse.csr_array) -> sparse.csr_array:
    """Return the Laplacian of the symmetric graph without loops, over the mean degree of the rows with neighbours."""
    A = sparse.csr_array(graph).astype(float)
    A = sparse.csr_array((A + A.T) / 2)
    A.setdiag(0.0)
    A.eliminate_zeros()
    degree = np.asarray(A.sum(axis=1)).ravel()
    if A.nnz == 0:
        return A
    return sparse.csr_array((sparse.diags_array(degree) - A) / degree[degree > 0].mean())


def _field(X: np.ndarray, L: sparse.csr_array, strength: float, own: np.ndarray) -> np.ndarray:
    """Solve (M + lambda L) s = M x by conjugate gradients, about the mean of the rows."""
    mean = np.average(X, axis=0, weights=own)
    if strength == 0 or L.nnz == 0:
        return X.copy()
    H = sparse.csr_array(sparse.diags_array(own) + strength * L)
    inverse = sparse.diags_array(1.0 / H.diagonal())
    right = own[:, None] * (X - mean)
    columns = [cg(H, column, rtol=TOL, M=inverse)[0] for column in right.T]
    return np.column_stack(columns) + mean

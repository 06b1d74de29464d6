"""Rows as mixtures of given archetypes, and how far mixtures and archetypes are from their best.

Symbols as in :mod:`unmix.core.archetypes`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core import _wolfe
from unmix.core.blocks import default_block_rows, map_rows, reduce_rows

RIDGE, DEPENDENT = 1e-6, 1e-10
"""What is added to a Gram matrix of dependent corners, and the share of their spread below which a direction is missing."""


def weigh_archetypes(X: Any, Z: np.ndarray, *, start: np.ndarray | None = None, n_jobs: int = 1) -> np.ndarray:
    """Return the mixtures W = argmin |X - W Z|^2 with rows on the simplex.

    More archetypes than dimensions and one leave many mixtures as good; without `start` it is the evenest one then.

    Parameters
    ----------
    X
        Rows, n_obs x D; sparse ones stay sparse.
    Z
        Archetypes, K x D.
    start
        Mixtures whose support the search starts from.
    n_jobs
        Threads.

    Examples
    --------
    >>> weigh_archetypes(np.array([[0.5, 0.5], [3.0, 0.0]]), np.eye(2))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    G = Z @ Z.T
    tol = 1e-11 * max(np.trace(G) / len(Z), np.finfo(float).tiny)
    if start is None:
        if dependent(G):
            G, tol = even_gram(G), 1e-3 * tol
        return over_rows(
            lambda x: _wolfe.simplex_weights(G, x @ Z.T, nearest_archetype(x, Z, G), tol), X, n_jobs=n_jobs
        )
    return over_rows(lambda x, w: _wolfe.simplex_weights(G, x @ Z.T, w, tol), X, start, n_jobs=n_jobs)


def dependent(G: np.ndarray) -> bool:
    """Tell whether corners with the Gram matrix G span fewer dimensions than their number less one.

    Examples
    --------
    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> dependent(square @ square.T), dependent(square[:3] @ square[:3].T)
    (True, False)
    """
    if len(G) < 2:
        return False
    mean = G.mean(axis=0)
    spread = np.linalg.eigvalsh(G - mean - mean[:, None] + mean.mean())
    return bool(spread[1] <= DEPENDENT * max(spread[-1], np.finfo(float).tiny))


def even_gram(G: np.ndarray) -> np.ndarray:
    """Return a Gram matrix by which, of mixtures that are as good, the one of the smallest norm is best; G if none are."""
    return G + RIDGE * np.trace(G) / len(G) * np.eye(len(G)) if dependent(G) else G


def weights_gap(X: np.ndarray, Z: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return the duality gap of every row of W for fixed Z: zero where w minimises |x - w Z|^2 on the simplex.

    The gap is <g, w> - min_k g_k with the gradient g = (w Z - x) Z'; it bounds by how much |x - w Z|^2 / 2 can fall.
    """
    gradient = (W @ Z - X) @ Z.T
    return (gradient * W).sum(axis=1) - gradient.min(axis=1)


def hull_gap(X: np.ndarray, Z: np.ndarray, W: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the duality gap of every archetype in the hull of X for fixed W and fixed other archetypes.

    The gap is <g_k, z_k> - min_i <g_k, x_i> with the gradient g = W' Omega (W Z - X); it bounds by how much half the
    loss can fall when archetype k alone moves within the hull.
    """
    WtO = W.T if weights is None else W.T * weights
    gradient = WtO @ (W @ Z - X)
    return (gradient * Z).sum(axis=1) - (gradient @ X.T).min(axis=1)


def squared_distances(X: Any, Z: np.ndarray, *, n_jobs: int = 1) -> np.ndarray:
    """Return the squared distance of every row from every row of Z, n_obs x K."""
    norms = (Z**2).sum(axis=1)
    return over_rows(lambda x: np.maximum(row_squares(x)[:, None] - 2.0 * (x @ Z.T) + norms, 0.0), X, n_jobs=n_jobs)


def squared_residuals(X: Any, W: np.ndarray, Z: np.ndarray, *, n_jobs: int = 1) -> np.ndarray:
    """Return |x - w Z|^2 of every row."""
    return over_rows(lambda x, w: _residuals(x, w, Z), X, W, n_jobs=n_jobs)


def _residuals(x: Any, w: np.ndarray, Z: np.ndarray) -> np.ndarray:
    if not sparse.issparse(x):
        return ((x - w @ Z) ** 2).sum(axis=1)
    fit = w * (2.0 * (x @ Z.T) - w @ (Z @ Z.T))
    return np.maximum(row_squares(x) - fit.sum(axis=1), 0.0)


def row_squares(X: Any) -> np.ndarray:
    """Return the squared norm of every row of a block."""
    if sparse.issparse(X):
        return np.asarray(X.power(2).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", X, X)


def some_rows(X: Any, rows: Any) -> np.ndarray:
    """Return a few rows, dense."""
    part = X[rows]
    return np.asarray(part.toarray() if sparse.issparse(part) else part)


def nearest_archetype(X: Any, Z: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Return one-hot mixtures: the archetype nearest to every row."""
    W = np.zeros((X.shape[0], len(Z)))
    W[np.arange(X.shape[0]), (2.0 * (X @ Z.T) - np.diag(G)).argmax(axis=1)] = 1.0
    return W


def in_memory(X: Any) -> bool:
    """Tell whether X is a matrix, rather than something that rows are read from."""
    return isinstance(X, np.ndarray) or sparse.issparse(X)


def over_rows(f: Callable[..., Any], X: Any, *aligned: np.ndarray, n_jobs: int) -> Any:
    """Map over rows; a matrix of one block is not worth the walk."""
    if in_memory(X) and X.shape[0] <= default_block_rows(X.shape[1]):
        return f(X, *aligned)
    return map_rows(f, X, *aligned, n_jobs=n_jobs)


def sum_rows(f: Callable[..., Any], X: Any, *aligned: np.ndarray, n_jobs: int) -> Any:
    """Sum over rows, likewise."""
    if in_memory(X) and X.shape[0] <= default_block_rows(X.shape[1]):
        return f(X, *aligned)
    return reduce_rows(f, X, *aligned, n_jobs=n_jobs)

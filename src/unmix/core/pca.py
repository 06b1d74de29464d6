"""Principal components of sparse data without centring it, and how many of them stand above permuted data."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

from unmix.core.blocks import map_rows
from unmix.core.svd import svd

KRYLOV_PASSES = 10
NULL_TOL = 1e-3
"""A threshold between components needs no more digits."""


@dataclass(frozen=True)
class Components:
    """Scores (n_obs x k), loadings (genes x k, orthonormal), means of the genes, singular values."""

    scores: np.ndarray
    loadings: np.ndarray
    mean: np.ndarray
    values: np.ndarray

    def first(self, k: int) -> "Components":
        """Return the first k components; all singular values are kept."""
        return replace(self, scores=self.scores[:, :k], loadings=self.loadings[:, :k])


def principal_components(Y: Any, k: int, rng: np.random.Generator, *, tol: float = 0.0, n_jobs: int = 1) -> Components:
    """Return the first k principal components of sparse rows; centring is implicit, so that Y stays sparse.

    The largest loading of every component is positive. A matrix in memory is treated by Lanczos' method, rows that are
    read from elsewhere by a block Krylov method of ten passes. `tol` is Lanczos' relative accuracy of squared singular
    values, 0 for that of the machine.
    """
    n, genes = Y.shape
    if not sparse.issparse(Y):
        found = svd(Y, k, center=True, n_passes=KRYLOV_PASSES, rng=rng, n_jobs=n_jobs)
        return Components(found.U * found.S, found.V, found.mean, found.S)
    mean = np.asarray(Y.mean(axis=0)).ravel()
    square = float(Y.multiply(Y).sum())
    if square - n * float(mean @ mean) <= 1e-12 * square:  # all rows are equal
        return Components(np.zeros((n, k)), np.eye(genes, k), mean, np.zeros(k))
    if min(n, genes) <= k + 1:
        U, s, Vt = np.linalg.svd(Y.toarray() - mean, full_matrices=False)
        U, s, Vt = U[:, :k], s[:k], Vt[:k]
    else:
        U, s, Vt = svds(_centred(Y, mean), k=k, v0=rng.normal(size=min(n, genes)), solver="arpack", tol=tol)
        U, s, Vt = U[:, ::-1], s[::-1], Vt[::-1]
    sign = np.sign(Vt[np.arange(len(s)), np.abs(Vt).argmax(axis=1)])
    sign[sign == 0] = 1.0
    return Components(U * (s * sign), (Vt * sign[:, None]).T, mean, s)


def component_scores(Y: Any, components: Components, *, n_jobs: int = 1) -> np.ndarray:
    """Return the scores of other rows."""
    constants = (components.loadings, components.mean @ components.loadings)
    scores: np.ndarray = map_rows(_scores, Y, constants=constants, n_jobs=n_jobs, desc="components")
    return scores


def _scores(block: sparse.csr_array, loadings: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return np.asarray(block @ loadings) - shift


def parallel_analysis(
    Y: sparse.csr_array, values: np.ndarray, rng: np.random.Generator, n_permutations: int = 3
) -> tuple[int, float]:
    """Return how many singular values exceed the first one of data with every column permuted, and that threshold.

    (Horn, Psychometrika 30, 1965.)
    """
    top = 0.0
    for seed in rng.spawn(n_permutations):
        permuted = permute_columns(Y, seed)
        top = max(top, float(principal_components(permuted, 1, seed, tol=NULL_TOL).values[0]))
    return int((values > top).sum()), top


def permute_columns(Y: sparse.csr_array, rng: np.random.Generator) -> sparse.csr_array:
    """Return Y with the entries of every column at random rows."""
    columns = sparse.csc_array(Y)
    indices = columns.indices.copy()
    for a, b in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
        indices[a:b] = rng.permutation(Y.shape[0])[: b - a]
    return sparse.csr_array(sparse.csc_array((columns.data, indices, columns.indptr), shape=Y.shape))


def _centred(Y: sparse.csr_array, mean: np.ndarray) -> LinearOperator:
    """Return the operator Y - 1 mean'."""
    transposed = Y.T.tocsr()
    return LinearOperator(
        Y.shape,
        matvec=lambda v: Y @ v.ravel() - mean @ v.ravel(),
        rmatvec=lambda u: transposed @ u.ravel() - mean * u.sum(),
        dtype=np.float64,
    )

"""How much more or less of every gene one batch measures than another, given the same programs."""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._nmf_kernels import padded, times
from unmix.core.blocks import Block, map_rows
from unmix.core.factorization import Factorization, Walk, nmf
from unmix.core.joint_loadings import by_batch
from unmix.core.simplex import nnls
from unmix.core.starts import Start

PRIOR_COUNTS = 10.0
"""Counts, independent of each other, that hold a factor at 1: genes of few counts say nothing about the batch."""


def gene_factors(
    X: sparse.csr_array,
    codes: np.ndarray,
    k: int,
    *,
    rounds: int = 7,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> np.ndarray:
    r"""Return the factors f of :math:`x_{ig} \approx f_{b(i)g} (WH)_{ig}`, (n_batches, n_vars).

    k programs are fitted to the data divided by the factors, ten iterations from where they were; each factor then
    becomes what a batch has of a gene over what its cells' programs expect; both are repeated, beginning with factors
    of 1. A gene that is frequent only because its program is frequent in this batch keeps its counts, as the programs
    expect it; what no mixture of programs explains in one batch goes into the factors. Few rounds hold the factors back
    where batches hardly share a program: there, other programs and other factors explain the data equally well. A gene
    whose counts scatter more about what is expected than chance has them do is believed accordingly less, as a few cells
    that are full of it would else make a factor of a small batch.

    Parameters
    ----------
    X
        Counts, (n_obs, n_vars).
    codes
        Batch of every row, 0 to n_batches - 1.
    k
        Number of programs.
    rounds
        Repetitions; more let the factors explain more.
    walk
        Threads of the fits.
    rng
        Seed of the start.

    Examples
    --------
    >>> X = np.outer([1, 2, 3, 4], [30.0, 60.0, 90.0])
    >>> X[2:, 0] *= 2
    >>> f = gene_factors(sparse.csr_array(X), np.array([0, 0, 1, 1]), 1)
    >>> np.round(f[1] / f[0] / (f[1] / f[0])[1], 1)
    array([1.9, 1. , 1. ])
    """
    walk = replace(walk or Walk(), tol=0.0, max_iter=10)
    member = sparse.csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    totals = (member @ X).toarray().astype(float)
    factors, scale = np.ones_like(totals), _column_scale(X)
    start: Any = "nndsvd" if k <= min(X.shape) else "random"
    for _ in range(rounds):
        Y = sparse.csr_array(divided(X, codes, factors) / scale)
        fit = nmf(Y, k, start=start, walk=walk, rng=rng)
        start, expected = Start(fit.W, fit.H), (member @ fit.W) @ fit.H * scale
        spread = _residual_squares(Y, member, fit) * (factors * scale) ** 2
        factors = _ratios(totals, expected, spread.sum(axis=0) / np.maximum((expected * factors).sum(axis=0), 1e-300))
    return factors


def _residual_squares(Y: sparse.csr_array, member: sparse.csr_array, fit: Factorization) -> np.ndarray:
    """Return the sum of squares of Y - W H by batch and column."""
    squares = (member @ Y.multiply(Y)).toarray()
    for b, rows in enumerate(np.split(member.indices, member.indptr[1:-1])):
        W = fit.W[rows]
        squares[b] += np.einsum("cg,cg->g", W.T @ W @ fit.H - 2 * (Y[rows].T @ W).T, fit.H)
    return np.maximum(squares, 0)


def _column_scale(X: sparse.csr_array) -> np.ndarray:
    """Return root mean squares of the columns, 1 for columns of zeros."""
    size = np.sqrt(np.asarray(X.multiply(X).mean(axis=0)).ravel())
    return np.where(size > 0, size, 1.0)


def _ratios(totals: np.ndarray, expected: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    """Return found over expected counts, each batch's typical factor being 1.

    Counts that vary by more than chance about what is expected say accordingly less.
    """
    prior = PRIOR_COUNTS * np.maximum(dispersion, 1.0)
    ratios = (totals + prior) / (expected + prior)
    weights = np.sqrt(totals.sum(axis=0))
    centre = np.exp((np.log(ratios) * weights).sum(axis=1, keepdims=True) / weights.sum())
    return ratios / centre


def divided(X: sparse.csr_array, codes: np.ndarray, factors: np.ndarray) -> sparse.csr_array:
    """Return X with every entry divided by its batch's factor of its column."""
    rows = np.repeat(codes, np.diff(X.indptr))
    return sparse.csr_array((X.data / factors[rows, X.indices].astype(X.dtype), X.indices, X.indptr), shape=X.shape)


def scaled_usages(
    X: Any,
    H: np.ndarray,
    columns: np.ndarray,
    codes: np.ndarray | None,
    scales: np.ndarray,
    *,
    n_jobs: int = 1,
) -> np.ndarray:
    """Return the exact usages of H for rows whose entries are multiplied by their batch's scales, (n_obs, k).

    Parameters
    ----------
    X
        Counts, of any kind that :mod:`unmix.core.blocks` reads.
    H
        Loadings, (k, n_columns).
    columns
        Columns of X that H is about.
    codes
        Batch of every row; `None` for one.
    scales
        Of every batch and column, (n_batches, n_columns).
    n_jobs
        Threads.

    Examples
    --------
    >>> X = np.array([[9.0, 4.0, 6.0], [9.0, 4.0, 6.0]])
    >>> scales = np.array([[1.0, 1.0], [1.0, 0.5]])
    >>> scaled_usages(X, np.eye(2), np.array([1, 2]), np.array([0, 1]), scales)
    array([[4., 6.],
           [4., 3.]])
    """
    Ht = []
    for scale in scales:
        full = np.zeros((X.shape[1], len(H)))
        full[columns] = (H * scale).T
        Ht.append(padded(full, np.float64))
    codes = np.zeros(X.shape[0], np.int64) if codes is None else codes
    constants = (Ht, H @ H.T)
    W: np.ndarray = map_rows(_scaled_usage_rows, X, codes, constants=constants, n_jobs=n_jobs, desc="usages")
    return W


def _scaled_usage_rows(block: Block, codes: np.ndarray, Ht: list[np.ndarray], gram: np.ndarray) -> np.ndarray:
    W = np.empty((block.shape[0], len(gram)))
    for b, rows, part in by_batch(block, codes):
        W[rows] = nnls(gram, times(part, Ht[b])[:, : len(gram)])
    return W

"""Neighbours: the composition of a spot is expected about the mean of its neighbours', as far as the tissue is smooth.

Symbols: f_ik is the share of type k in spot i, c_ik the mean of f over the neighbours of i, d_i the total weight of spot i,
s_k the variance of f_k about c_k in the tissue, errors of estimation taken off; lambda is the strength.

    w_ik ~ N(d_i c_ik, d_i^2 s_k / lambda)

lambda = 1 is empirical Bayes' own choice, 0 leaves every spot to itself. lambda is chosen by genes held out: fitted to one half
of the genes, a lambda is as good as the likelihood that it gives the other half. (Halves of the counts would not do: both hold
the same cells, and what overfits them in one is rewarded in the other.) To shrink towards anything helps noisy spots, so
neighbours have to beat other spots in the neighbours' place: where they do not, the tissue is not smooth and lambda is 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._countmodel_kernels import csr_parts, fit_rows
from unmix.core.blocks import take_rows
from unmix.core.countmodel_shared import MAX_ITER, CountModel, start
from unmix.core.platform import face_inverse
from unmix.core.residuals import log_likelihoods

STRENGTHS = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
MAX_SPOTS = 300
"""Spots that lambda is chosen on."""
MAX_CELLS = 10.0
"""A spot of so many cells differs from its surroundings by the drawing of its cells alone: a floor of s."""
MIN_Z = 2.0
"""How many standard errors neighbours must be better than other spots."""


@dataclass(frozen=True)
class Smoothing:
    """The strength, and what it was chosen by."""

    strength: float
    curve: np.ndarray
    """Columns: strength, held-out log-likelihood per spot over that of strength 0 with neighbours and with other spots."""
    z: float
    """By how many standard errors neighbours are better than other spots, each at their best strength."""


@dataclass(frozen=True)
class Prior:
    """Where every spot's weights are expected, and how surely."""

    target: np.ndarray
    """Shape (N, K)."""
    precision: np.ndarray
    """Shape (N, K)."""


def neighbour_means(F: np.ndarray, graph: sparse.csr_array) -> np.ndarray:
    """Return the weighted means of the neighbours' rows of F; rows without a fitted neighbour are NaN.

    Parameters
    ----------
    F
        Shares, shape (N, K); rows that were not fitted are NaN.
    graph
        Weights of the neighbours, shape (M, N).

    Examples
    --------
    >>> neighbour_means(np.eye(2), sparse.csr_array(np.array([[0.0, 1.0], [0.0, 0.0]])))
    array([[ 0.,  1.],
           [nan, nan]])
    """
    known = ~np.isnan(F).any(axis=1)
    total = graph @ known.astype(float)
    means = graph @ np.where(known[:, None], F, 0.0)
    return means / np.where(total > 0, total, np.nan)[:, None]


def spread_about(F: np.ndarray, C: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return s: the mean squared distance of F from C beyond the variances `error` of the shares, shape (K,)."""
    drawing = np.nanmean(C * (1 - C), axis=0) / MAX_CELLS
    return np.maximum(np.nanmean((F - C) ** 2 - error, axis=0), np.maximum(drawing, 1e-6))


def prior_about(C: np.ndarray, total: np.ndarray, spread: np.ndarray, strength: float) -> Prior:
    """Return the prior that `strength` gives; none for rows where C is NaN."""
    there = ~np.isnan(C).any(axis=1) & (total > 0)
    d = np.where(there, total, 1.0)[:, None]
    precision = np.where(there[:, None], strength / (d**2 * spread), 0.0)
    return Prior(np.where(there[:, None], d * np.nan_to_num(C), 0.0), precision)


def neighbour_prior(W: np.ndarray, variance: np.ndarray, graph: sparse.csr_array, strength: float) -> Prior:
    """Return the prior of every spot by its neighbours' fits.

    Parameters
    ----------
    W
        Weights without smoothing, shape (N, K).
    variance
        Their variances, shape (N, K).
    graph
        Neighbour weights, shape (N, N).
    strength
        lambda.
    """
    F, error, total = _shares(W, variance)
    C = neighbour_means(F, graph)
    return prior_about(C, total, spread_about(F, C, error), strength)


def _shares(W: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    total = np.nan_to_num(W.sum(axis=1))
    safe = np.where(total > 0, total, np.nan)[:, None]
    return W / safe, variance / safe**2, total


def choose_strength(X: Any, model: CountModel, graph: sparse.csr_array, rng: np.random.Generator) -> Smoothing:
    """Choose lambda by genes held out.

    Parameters
    ----------
    X
        Counts, spots x genes.
    model
        The count model.
    graph
        Neighbour weights, shape (N, N).
    rng
        Splits the genes.
    """
    degree = np.diff(graph.indptr)
    able = np.flatnonzero(degree > 0)
    if able.size == 0:
        return Smoothing(0.0, np.column_stack([STRENGTHS, np.zeros((len(STRENGTHS), 2))]), 0.0)
    seeds = able[np.linspace(0, able.size - 1, min(MAX_SPOTS, able.size)).round().astype(int)]
    seeds = np.unique(seeds)
    rows = np.unique(np.concatenate([seeds, graph[seeds].indices]))
    Y = sparse.csr_array(sparse.csr_array(take_rows(X, rows))[:, model.columns] * model.scale)
    own = np.searchsorted(rows, seeds)
    near = sparse.csr_array(graph[seeds][:, rows])
    gains = _held_out_gains(Y, own, near, model, rng)
    return _choose(gains)


def _held_out_gains(
    Y: sparse.csr_array, own: np.ndarray, near: sparse.csr_array, model: CountModel, rng: np.random.Generator
) -> np.ndarray:
    """Held-out log-likelihoods over those of strength 0: with neighbours and with other spots, strengths, seeds."""
    A = model.S * np.exp(model.log_p)[:, None]
    half = rng.permutation(A.shape[0]) % 2 == 0
    others = rng.permutation(len(own))
    folds = [_gains_of_fold(Y, A, fitted, own, near, others, model.dispersion) for fitted in (half, ~half)]
    return folds[0] + folds[1]


def _gains_of_fold(
    Y: sparse.csr_array,
    A: np.ndarray,
    fitted: np.ndarray,
    own: np.ndarray,
    near: sparse.csr_array,
    others: np.ndarray,
    phi: float,
) -> np.ndarray:
    """Fit to the genes of `fitted`, and score the rest of the genes."""
    first, second = sparse.csr_array(Y[:, fitted]), sparse.csr_array(Y[:, ~fitted])
    W, _, H, *_ = fit_rows(*csr_parts(first), A[fitted], phi, start(first, A[fitted]), MAX_ITER)
    F, error, total = _shares(W, np.einsum("ikk->ik", face_inverse(H, W)))
    C = neighbour_means(F, near)
    seed_counts, held_out = first[own], second[own]
    gains = np.zeros((2, len(STRENGTHS), len(own)))
    for a, centre in enumerate((C, C[others])):
        spread = spread_about(F[own], centre, error[own])
        for b, strength in enumerate(STRENGTHS):
            prior = prior_about(centre, total[own], spread, strength)
            again = fit_rows(*csr_parts(seed_counts), A[fitted], phi, W[own], MAX_ITER, prior.target, prior.precision)
            gains[a, b] = log_likelihoods(held_out, again[0] @ A[~fitted].T, phi)
    return gains - gains[:, :1]


def _choose(gains: np.ndarray) -> Smoothing:
    means = gains.mean(axis=2)
    best, rival = (int(np.argmax(row)) for row in means)
    difference = gains[0, best] - gains[1, rival]
    error = difference.std() / np.sqrt(max(difference.size, 1))
    z = float(difference.mean() / error) if error > 0 else 0.0
    strength = float(STRENGTHS[best]) if z > MIN_Z else 0.0
    return Smoothing(strength, np.column_stack([STRENGTHS, means.T]), z)

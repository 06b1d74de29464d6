"""Shares of types from counts, where all that is known of a type is a set of genes: a topic model that starts from them.

Symbols: y_ig count of gene g in row i, n_i the row's total over all genes, S_kg the share that gene g has of the RNA of
type k, theta_ik >= 0 the RNA of type k in row i with sum_k theta_ik = n_i, omega_g the inverse dispersion of a gene.

    y_ig ~ sum_k theta_ik S_kg,   variance = mean / omega_g,   theta_i / n_i ~ Dirichlet(alpha, ..., alpha)

S is not given. It starts as the Poisson regression of the sets' genes on estimates of theta that the sets yield
(:mod:`unmix.core.refinement`), and a few rounds of expectation and maximisation follow: a row's theta by variational
Bayes given S, then S by its posterior mean given theta, under a weak Gamma prior about the tissue's mean, which leaves no
entry at zero. The sets enter through the start alone, and the rounds are few, because the likelihood itself would in the
end rather tell apart other things than the types that were named. Other genes are regressed on the shares that come of
it, once. alpha is chosen by genes that are held out: shares from one half of the genes predict the other half.
"""

# mypy: disallow-untyped-defs=False, disable-error-code=call-arg
from dataclasses import dataclass, replace
from typing import Any

import numba as nb
import numpy as np
from scipy import sparse

from unmix.core.blocks import map_reduce_rows, map_rows, reduce_rows

ROUNDS = 10
STEPS = 3
REGRESSION_STEPS = 50
FINAL_STEPS = 200
FINAL_TOL = 1e-4
"""Change of a row's shares, summed over the types, at which its steps end."""
CONCENTRATIONS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Parameters alpha of the Dirichlet law of shares to choose from: 1 is uniform, smaller ones ask for few types a row."""
N_HALVINGS = 5
HELD_OUT_ROWS = 1000
"""Random halves of the genes, and rows, by which alpha is chosen."""
PRIOR_COUNTS = 0.1
"""Counts that the prior of a profile's entry is worth."""
LEAST_SHARE = 1e-3
"""Share of a type in a first estimate below which it is raised, so that no type is ruled out."""
TINY = 1e-200


@dataclass(frozen=True)
class SetModel:
    """Profiles of the types on some genes, and what a count of each of them is worth."""

    S: np.ndarray
    """T x genes, shares of a type's RNA."""
    omega: np.ndarray
    """Inverse dispersion of the genes."""
    alpha: float
    """Parameter of the Dirichlet law of shares."""

    @property
    def prior(self) -> np.ndarray:
        """Return the prior in units of effective counts, so that without counts all shares are equal."""
        rate = self.S @ self.omega
        return self.alpha * len(rate) * rate / max(rate.sum(), np.finfo(float).tiny)

    def of(self, genes: np.ndarray) -> "SetModel":
        """Return the model of some of the genes."""
        return replace(self, S=np.ascontiguousarray(self.S[:, genes]), omega=self.omega[genes])


def choose_set_model(
    Y: sparse.csr_array, totals: np.ndarray, shares: np.ndarray, rng: np.random.Generator, *, n_jobs: int = 1
) -> SetModel:
    """Fit the model with every alpha, and return the one whose shares from half of the genes predict the other half best.

    Parameters are those of :func:`fit_set_model`; Y is in memory, and its genes should not have been picked by these
    counts: those that were go together more than they should.
    """
    start = _regressed(Y, totals, shares, n_jobs)
    models = [_improved(Y, totals, *start, alpha, n_jobs) for alpha in CONCENTRATIONS]
    omega = np.mean([model.omega for model in models], axis=0)
    rows = np.sort(rng.permutation(len(totals))[:HELD_OUT_ROWS])
    Y, totals, scores = Y[rows], totals[rows], np.zeros(len(models))
    for _ in range(N_HALVINGS):
        half = rng.permutation(Y.shape[1]) < Y.shape[1] // 2
        one, other = ((sparse.csr_array(Y[:, np.flatnonzero(part)]), np.flatnonzero(part)) for part in (half, ~half))
        scores += [held_out_likelihood(one, other, totals, model, omega) for model in models]
    return models[int(np.argmax(scores))]


def held_out_likelihood(
    seen: tuple[sparse.csr_array, np.ndarray],
    hidden: tuple[sparse.csr_array, np.ndarray],
    totals: np.ndarray,
    model: SetModel,
    omega: np.ndarray,
) -> float:
    """Return the log-likelihood of the counts of some genes given shares from others, and the other way round.

    Both are pairs of counts and the positions of their genes in the model. It is Poisson's, a gene's weighted by omega,
    so that a few genes in bursts do not decide.
    """
    total = 0.0
    for (Y, given), (Y_other, asked) in ((seen, hidden), (hidden, seen)):
        theta = set_shares(Y, totals, model.of(given)) * totals[:, None]
        S = model.S[:, asked]
        rows = np.repeat(np.arange(Y_other.shape[0]), np.diff(Y_other.indptr))
        means = np.einsum("ek,ke->e", theta[rows], S[:, Y_other.indices])
        weighted = Y_other.data * omega[asked][Y_other.indices]
        total += float(weighted @ np.log(np.maximum(means, 1e-12)) - theta.sum(axis=0) @ (S @ omega[asked]))
    return total


def fit_set_model(Y: Any, totals: np.ndarray, shares: np.ndarray, alpha: float = 1.0, *, n_jobs: int = 1) -> SetModel:
    """Return the profiles that rows of counts have, given first estimates of the types' shares.

    Parameters
    ----------
    Y
        Counts of the genes to use, n_obs x genes, of any kind that :mod:`unmix.core.blocks` reads.
    totals
        Counts of every row over all genes.
    shares
        First estimates, n_obs x T; of either sign, rows that add up to about one.
    alpha
        Parameter of the Dirichlet law of shares.
    n_jobs
        Threads.
    """
    return _improved(Y, totals, *_regressed(Y, totals, shares, n_jobs), alpha, n_jobs)


def regress_profiles(
    Y: Any, totals: np.ndarray, shares: np.ndarray, alpha: float = 1.0, *, n_jobs: int = 1
) -> SetModel:
    """Return the profiles that rows of counts have, given the types' shares, which are believed.

    Parameters are those of :func:`fit_set_model`.
    """
    S, theta, _ = _regressed(Y, totals, shares, n_jobs)
    model = SetModel(S, np.ones(S.shape[1]), alpha)
    _, (_, weight, fitted, square, gram) = _pass(Y, theta, totals, model, 0, n_jobs)
    return replace(model, omega=_inverse_dispersion(S, fitted, square, gram, weight))


def set_shares(Y: Any, totals: np.ndarray, model: SetModel, *, n_jobs: int = 1) -> np.ndarray:
    """Return the posterior mean of the types' shares in every row; equal shares where a row holds none of the genes."""
    constants = (model, FINAL_STEPS)
    shares: np.ndarray = map_rows(_posterior, Y, totals, constants=constants, n_jobs=n_jobs, desc="types' shares")
    return shares


def _regressed(
    Y: Any, totals: np.ndarray, shares: np.ndarray, n_jobs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return S by Poisson regression of the counts on the estimates, theta as estimated, and the tissue's mean."""
    theta = np.maximum(shares, LEAST_SHARE)
    theta *= (totals / theta.sum(axis=1))[:, None]
    mean = np.asarray(reduce_rows(_column_sums, Y, n_jobs=n_jobs, desc="types' profiles")) / max(totals.sum(), TINY)
    model = SetModel(np.tile(mean, (theta.shape[1], 1)), np.ones(len(mean)), 1.0)
    for _ in range(REGRESSION_STEPS):
        theta, sums = _pass(Y, theta, totals, model, 0, n_jobs)
        model = replace(model, S=_profiles(*sums[:2], model.omega, mean))
    return model.S, theta, mean


def _improved(
    Y: Any, totals: np.ndarray, S: np.ndarray, theta: np.ndarray, mean: np.ndarray, alpha: float, n_jobs: int
) -> SetModel:
    """Return the model after rounds of expectation and maximisation."""
    model = SetModel(S, np.ones(S.shape[1]), alpha)
    for i in range(ROUNDS):
        theta, (counts, weight, fitted, square, gram) = _pass(Y, theta, totals, model, STEPS, n_jobs)
        omega = model.omega if i % 5 else _inverse_dispersion(model.S, fitted, square, gram, weight)
        model = SetModel(_profiles(counts, weight, model.omega, mean), omega, alpha)
    return model


def _pass(Y: Any, theta: np.ndarray, totals: np.ndarray, model: SetModel, steps: int, n_jobs: int) -> Any:
    """Return theta after some steps in every row, and what the next profiles and dispersions need."""
    return map_reduce_rows(_round, Y, theta, totals, constants=(model, steps), n_jobs=n_jobs, desc="types' profiles")


def _profiles(counts: np.ndarray, weight: np.ndarray, omega: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return posterior means of S: counts that a type accounts for, over its RNA, with a prior about the tissue's mean."""
    S = (PRIOR_COUNTS + omega * counts) / (PRIOR_COUNTS / np.maximum(mean, TINY) + omega * weight[:, None])
    return np.ascontiguousarray(S)


def _column_sums(block):
    return np.asarray(block.sum(axis=0)).ravel()


def _inverse_dispersion(
    S: np.ndarray, fitted: np.ndarray, square: np.ndarray, gram: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Return mean over variance of the genes about their fit, at most 1 (Poisson): from sums of y mu, y^2, theta theta'."""
    variance = square - 2.0 * fitted + np.einsum("kg,kl,lg->g", S, gram, S)
    mean = np.maximum(weight @ S, TINY)
    return 1.0 / np.maximum(variance / mean, 1.0)


def _round(block, theta, totals, model, steps):
    """Return theta after some steps, and the sums that the next profiles and dispersions need."""
    entries, theta, S = _entries(block), theta.copy(), np.ascontiguousarray(model.S.T)
    _steps(*entries, theta, totals, S, model.omega, model.prior, model.S @ model.omega, steps, 0.0)
    counts, fitted, square = _sums(*entries, theta, S)
    return theta, (counts.T, theta.sum(axis=0), fitted, square, theta.T @ theta)


def _posterior(block, totals, model, steps):
    """Return posterior means of shares."""
    rate, S = model.S @ model.omega, np.ascontiguousarray(model.S.T)
    theta = np.repeat(totals[:, None] / len(rate), len(rate), axis=1)
    z = _steps(*_entries(block), theta, totals, S, model.omega, model.prior, rate, steps, FINAL_TOL)
    mean = (model.prior + z) / np.maximum(rate, np.finfo(float).tiny)
    total = mean.sum(axis=1, keepdims=True)
    return np.divide(mean, total, out=np.full_like(mean, 1 / mean.shape[1]), where=total > 0)


def _entries(block):
    """Return a block as CSR arrays of one type each."""
    block = sparse.csr_array(block)
    return block.indptr.astype(np.int64), block.indices.astype(np.int64), block.data.astype(np.float64)


@nb.njit(cache=True, nogil=True)
def _exp_digamma(x):
    """Return exp(psi(x)), x > 0: recurrence up to 6, then the asymptotic series."""
    shift = 0.0
    while x < 6.0:
        shift += 1.0 / x
        x += 1.0
    y = 1.0 / (x * x)
    return np.exp(np.log(x) - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y / 240))) - shift)


@nb.njit(cache=True, nogil=True)
def _steps(indptr, indices, data, theta, totals, S, omega, prior, rate, steps, tol):
    """Update theta in place, by variational Bayes; return the effective counts of every type."""
    n, T = theta.shape
    out, z, before = np.zeros((n, T)), np.empty(T), np.empty(T)
    for i in range(n):
        for _ in range(steps):
            z[:] = 0.0
            before[:] = theta[i]
            for e in range(indptr[i], indptr[i + 1]):
                g = indices[e]
                mean = 1e-300
                for k in range(T):
                    mean += theta[i, k] * S[g, k]
                ratio = omega[g] * data[e] / mean
                for k in range(T):
                    z[k] += ratio * S[g, k]
            total = 0.0
            for k in range(T):
                z[k] *= theta[i, k]
                theta[i, k] = _exp_digamma(prior[k] + z[k] + 1e-12) / max(rate[k], 1e-300)
                total += theta[i, k]
            change = 0.0
            for k in range(T):
                theta[i, k] = theta[i, k] * (totals[i] / total) if total > 0.0 else totals[i] / T
                change += abs(theta[i, k] - before[k])
            if change < tol * totals[i]:
                break
        for k in range(T):
            out[i, k] = z[k]
    return out


@nb.njit(cache=True, nogil=True)
def _sums(indptr, indices, data, theta, S):
    """Return sum_i theta_ik S_gk y_ig / mu_ig, the counts that types account for, sum_i y_ig mu_ig and sum_i y_ig^2."""
    genes, T = S.shape
    counts, fitted, square = np.zeros((genes, T)), np.zeros(genes), np.zeros(genes)
    for i in range(theta.shape[0]):
        for e in range(indptr[i], indptr[i + 1]):
            g = indices[e]
            mean = 1e-300
            for k in range(T):
                mean += theta[i, k] * S[g, k]
            for k in range(T):
                counts[g, k] += theta[i, k] * S[g, k] * data[e] / mean
            fitted[g] += data[e] * mean
            square[g] += data[e] ** 2
    return counts, fitted, square

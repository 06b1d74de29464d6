"""A count model with everything that is known in it: platform factors, sampling of the reference, overdispersion.

Symbols: y_ig is the count of gene g in spot i, S_gk the profile of type k, w_ik >= 0 the weight of type k in spot i
(counts of RNA where a profile sums to one), p_g the platform factor of a gene.

    y_ig ~ NB(m_ig, phi),   m_ig = p_g (S w_i)_g,   var y_ig = m_ig + phi m_ig^2
    S_gk ~ posterior of empirical-Bayes shrinkage given the reference's cells     (:mod:`unmix.core.shrinkage`)
    log p_g ~ N(0, tau^2)                                                         (:mod:`unmix.core.platform`)

Genes are not chosen: a gene that no type changes is shrunk to its mean and says nothing; a highly expressed one is held
by phi; one that few cells of the reference have seen is shrunk and says little of its factor. tau and phi are
estimated from the spots, by the scatter of the factors and by likelihood; no choice looks at anything but X, S and V.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import gammaln

from unmix.core._countmodel_kernels import fit_rows
from unmix.core.blocks import Block, map_rows
from unmix.core.platform import PooledFit, estimate_tau, face_inverse, newton_step, shared_covariance
from unmix.core.shrinkage import shrink_profiles

DISPERSIONS = np.array([0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
INFORMATION = 0.99
MIN_GENES = 2000
"""To save time, genes beyond `MIN_GENES` and beyond this share of the information on the types are left out."""
MAX_SPOTS = 500
"""Platform factors and dispersion are estimated from at most so many spots, evenly spread over the rows."""
N_STEPS = 4
MAX_ITER = 50


@dataclass(frozen=True)
class CountModel:
    """Everything of the model that spots share; all arrays are on the genes kept."""

    genes: np.ndarray
    """Positions of the genes kept among those of the profiles, shape (G,)."""
    columns: np.ndarray
    """Their positions among the columns of X, shape (G,)."""
    S: np.ndarray
    """Shrunk profiles, shape (G, K)."""
    V: np.ndarray
    """Their posterior variances, shape (G, K)."""
    scale: float
    """What X is multiplied by to be counts: 1, or for TPM and the like one over the dispersion of their Poisson fit."""
    log_p: np.ndarray
    """Log platform factors, shape (G,)."""
    tau: float
    """Estimated sd of the log platform factors."""
    dispersion: float
    """phi."""
    shared: np.ndarray
    """Covariance of the column sums p'S that the factors' posterior leaves, shape (K, K)."""
    observed: np.ndarray
    """Counts of every gene over the spots used for estimation, shape (G,)."""
    expected: np.ndarray
    """Their means under the model, platform factors included, shape (G,)."""
    chosen: dict[str, Any]
    """What was chosen, and by what."""


@dataclass(frozen=True)
class CountModelResult:
    """Weights of every spot and how far they can be trusted; rows without counts are NaN."""

    weights: np.ndarray
    """W, shape (N, K): RNA of every type, in counts divided by the profiles' unit; exact zeros at the bound."""
    covariance: np.ndarray
    """Covariance of every row of W, shape (N, K, K); zeros for types at the bound."""
    log_likelihood: np.ndarray
    """Shape (N,)."""
    pearson: np.ndarray
    """Pearson statistic over its expectation, shape (N,); about 1 where the reference explains the spot."""
    unexplained: np.ndarray
    """Share of a spot's counts in genes above what the model expects, beyond counting noise, shape (N,)."""
    correlation: np.ndarray
    """Pearson correlation of counts and means over the genes kept, shape (N,)."""
    rmse: np.ndarray
    """Root mean square difference of counts and means, in the units of X, shape (N,)."""
    model: CountModel


def fit_count_model(
    X: Any,
    S: np.ndarray,
    V: np.ndarray | None = None,
    *,
    columns: np.ndarray | None = None,
    platform: bool | None = None,
    dispersion: float | None = None,
    n_jobs: int = 1,
    block_rows: int | None = None,
) -> CountModelResult:
    """Fit the count model to every row of X.

    Parameters
    ----------
    X
        Non-negative counts (or TPM: the dispersion then is estimated on their scale), shape (N, G).
    S
        Profiles of the types, shape (G, K).
    V
        Sampling variances of S, shape (G, K); `None` where they are not known, and S is taken as it is.
    columns
        Positions of the profiles' genes among the columns of X; `None` where they are the same.
    platform
        Whether factors per gene are fitted, as far as their estimated size allows. `None`: where V is given, because
        without it a platform effect cannot be told from errors of the profiles.
    dispersion
        phi; `None` to choose it by likelihood where V is given, and 0 without V, for the same reason.
    n_jobs, block_rows
        Threads, and rows of a block.

    Returns
    -------
    Weights, their covariances, diagnostics, and the model.

    Raises
    ------
    ValueError
        If shapes do not fit, or S has no gene that tells types apart.

    Examples
    --------
    >>> S = np.array([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0]])
    >>> fit = fit_count_model(np.array([[90.0, 10.0, 50.0], [50.0, 50.0, 50.0]]), S, platform=False, dispersion=0.0)
    >>> fit.weights.round(3)
    array([[10.,  0.],
           [ 5.,  5.]])
    """
    columns = np.arange(X.shape[1]) if columns is None else columns
    _check(columns, S, V)
    walk: dict[str, Any] = {"n_jobs": n_jobs, "block_rows": block_rows}
    model = estimate_model(X, S, V, columns=columns, platform=platform, dispersion=dispersion, **walk)
    parts = map_rows(_fit_block, X, constants=(model,), n_jobs=n_jobs, block_rows=block_rows, desc="count model")
    weights, covariance, value, pearson, unexplained, correlation, rmse = parts
    return CountModelResult(weights, covariance, value, pearson, unexplained, correlation, rmse, model)


def _check(columns: np.ndarray, S: np.ndarray, V: np.ndarray | None) -> None:
    if len(columns) != S.shape[0] or (V is not None and V.shape != S.shape):
        shape = None if V is None else V.shape
        msg = f"X ({len(columns)} genes), S {S.shape} and V {shape} must share their genes and types."
        raise ValueError(msg)
    if not (information_of_genes(S) > 0).any():
        msg = "no gene differs between the types of S; a signature needs genes that tell its types apart."
        raise ValueError(msg)


def information_of_genes(S: np.ndarray) -> np.ndarray:
    """Return what every gene says about differences between types: sum_k (S_gk - m_g)^2 / m_g, shape (G,).

    Examples
    --------
    >>> information_of_genes(np.array([[1.0, 1.0], [2.0, 0.0]]))
    array([0., 2.])
    """
    mean = S.mean(axis=1)
    return ((S - mean[:, None]) ** 2).sum(axis=1) / np.where(mean > 0, mean, 1.0)


def keep_informative(S: np.ndarray, share: float = INFORMATION, at_least: int = MIN_GENES) -> np.ndarray:
    """Return the positions of the genes that hold `share` of the information, ascending, and of at least so many.

    Examples
    --------
    >>> keep_informative(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 3.0]]))
    array([1, 2])
    """
    information = information_of_genes(S)
    order = np.argsort(-information, kind="stable")
    total = np.cumsum(information[order])
    n_genes = max(int(np.searchsorted(total, share * total[-1])) + 1, at_least)
    return np.sort(order[:n_genes][information[order[:n_genes]] > 0])


def estimate_model(
    X: Any,
    S: np.ndarray,
    V: np.ndarray | None = None,
    *,
    columns: np.ndarray | None = None,
    platform: bool | None = None,
    dispersion: float | None = None,
    n_jobs: int = 1,
    block_rows: int | None = None,
) -> CountModel:
    """Estimate what the spots share: shrunk profiles, platform factors, dispersion.

    Parameters are those of :func:`fit_count_model`.
    """
    platform = V is not None if platform is None else platform
    dispersion = 0.0 if V is None and dispersion is None else dispersion
    shrunk = None if V is None else shrink_profiles(S, V)
    profiles, variances = (S, np.zeros_like(S)) if shrunk is None else (shrunk.mean, shrunk.variance)
    genes = keep_informative(profiles)
    profiles, variances = profiles[genes], variances[genes]
    chosen_rows = np.zeros(X.shape[0], dtype=bool)
    chosen_rows[np.linspace(0, X.shape[0] - 1, min(MAX_SPOTS, X.shape[0])).round().astype(int)] = True
    where = genes if columns is None else columns[genes]
    sample = map_rows(
        _rows_of, X, chosen_rows, constants=(where,), n_jobs=n_jobs, block_rows=block_rows, desc="sample of spots"
    )
    sample = sparse.csr_array(sample[sample.sum(axis=1) > 0])
    scale = 1.0 if (sample.data == np.rint(sample.data)).all() else _scale_to_counts(sample, profiles)
    sample = sample * scale
    state = _estimate_shared(sample, profiles, variances, platform, dispersion)
    state["chosen"]["genes"] = f"{len(genes)} of {S.shape[0]}, holding {INFORMATION:.0%} of the information on types"
    why = "X holds counts" if scale == 1 else "one over the dispersion of the Poisson fit"
    state["chosen"]["scale"] = f"{scale:.4g}: {why}"
    return CountModel(genes=genes, columns=where, S=profiles, V=variances, scale=scale, **state)


def _scale_to_counts(Y: sparse.csr_array, S: np.ndarray) -> float:
    """Return one over the Pearson dispersion of the Poisson fit: a quasi-Poisson variance becomes a Poisson one."""
    pearson = fit_rows(*_csr_parts(Y), S, 0.0, _start(Y, S), MAX_ITER)[3]
    return 1 / max(float(pearson.sum()) / max(Y.shape[0] * (Y.shape[1] - S.shape[1]), 1), 1e-12)


def _rows_of(block: Block, chosen: np.ndarray, genes: np.ndarray) -> np.ndarray:
    part = block[chosen][:, genes]
    return np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=np.float64)


def _estimate_shared(
    Y: sparse.csr_array, S: np.ndarray, V: np.ndarray, platform: bool, dispersion: float | None
) -> dict[str, Any]:
    """Find the factors by joint Newton steps of the Poisson fit, then the dispersion by likelihood."""
    W, log_p = _start(Y, S), np.zeros(S.shape[0])
    tau, prior = 0.0, np.full(S.shape[0], 1e-8)
    for _ in range(N_STEPS if platform else 0):
        W, pooled = _pass(Y, S, log_p, 0.0, W)
        v = relative_variance(S, V, W.sum(axis=0))
        tau = estimate_tau(pooled, log_p, v)
        prior = np.full_like(v, tau**2)
        pooled = pooled.tempered(v)
        log_p = newton_step(pooled, S, log_p, prior)
    W, pooled = _pass(Y, S, log_p, 0.0, W)
    phi = choose_dispersion(Y, S * np.exp(log_p)[:, None], W) if dispersion is None else dispersion
    W, pooled = _pass(Y, S, log_p, phi, W)
    v = relative_variance(S, V, W.sum(axis=0))
    shared = shared_covariance(pooled.tempered(v), S, log_p, prior)
    observed, expected = np.asarray(Y.sum(axis=0)).ravel(), pooled.means
    how = "not estimated" if dispersion is not None else "chosen by likelihood"
    source = "from the scatter of high-count genes" if platform else "not estimated"
    chosen = {"tau": f"{tau:.4g}, {source}", "dispersion": f"{phi:.4g}, {how}"}
    return {
        "log_p": log_p,
        "tau": tau,
        "dispersion": phi,
        "shared": shared,
        "observed": observed,
        "expected": expected,
        "chosen": chosen,
    }


def relative_variance(S: np.ndarray, V: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the relative variance of every gene's pooled mean that the profiles' variances make, shape (G,).

    Examples
    --------
    >>> relative_variance(np.array([[1.0, 3.0]]), np.array([[0.5, 0.5]]), np.array([1.0, 1.0]))
    array([0.0625])
    """
    return V @ total**2 / np.maximum((S @ total) ** 2, 1e-300)


def choose_dispersion(Y: sparse.csr_array, A: np.ndarray, W: np.ndarray) -> float:
    """Choose phi from `DISPERSIONS` by the likelihood of the refitted spots, walking up until it falls.

    Parameters
    ----------
    Y
        Counts, shape (N, G).
    A
        Profiles times platform factors, shape (G, K).
    W
        Start of the weights, shape (N, K).
    """
    best, best_value = 0.0, -np.inf
    for phi in DISPERSIONS:
        W, value, *_ = fit_rows(*_csr_parts(Y), A, phi, W.copy(), 8)
        total = float(value.sum()) + _constant(Y.data, float(phi))
        if total <= best_value:
            break
        best, best_value = float(phi), total
    return best


def _constant(y: np.ndarray, phi: float) -> float:
    """Log-likelihood terms that depend on phi and the counts alone."""
    if phi == 0:
        return 0.0
    return float((gammaln(y + 1 / phi) - gammaln(1 / phi) + y * np.log(phi)).sum())


def _csr_parts(Y: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return Y.indptr.astype(np.int64), Y.indices.astype(np.int64), Y.data.astype(np.float64)


def _start(Y: sparse.csr_array, S: np.ndarray) -> np.ndarray:
    """Start every spot at equal shares of its counts."""
    totals = np.asarray(Y.sum(axis=1), dtype=np.float64).ravel()
    return totals[:, None] / S.shape[1] / np.maximum(S.sum(axis=0), 1e-300)


def _pass(
    Y: sparse.csr_array, S: np.ndarray, log_p: np.ndarray, phi: float, W: np.ndarray
) -> tuple[np.ndarray, PooledFit]:
    A = S * np.exp(log_p)[:, None]
    W, _, H, _, observed, expected, means = fit_rows(*_csr_parts(Y), A, phi, W.copy(), MAX_ITER)
    return W, PooledFit(observed, expected, means, face_inverse(H, W).sum(axis=0))


def _fit_block(block: Block, model: CountModel) -> tuple[np.ndarray, ...]:
    """Fit the rows of a block; see `CountModelResult` for what is returned."""
    Y = sparse.csr_array(block[:, model.columns], dtype=np.float64) * model.scale
    A = model.S * np.exp(model.log_p)[:, None]
    W, value, H, pearson, *_ = fit_rows(*_csr_parts(Y), A, model.dispersion, _start(Y, A), MAX_ITER)
    inverse = face_inverse(H, W)
    covariance = inverse + inverse @ (model.shared + _sampling(model, Y.shape[0], W)) @ inverse
    empty = np.asarray(Y.sum(axis=1)).ravel() <= 0
    expected = max(len(model.genes) - A.shape[1], 1)
    unexplained, correlation, rmse = _row_fit(Y, A, W, model.dispersion)
    covariance, rmse = covariance / model.scale**2, rmse / model.scale
    results = (W / model.scale, covariance, value, pearson / expected, unexplained, correlation, rmse)
    for values in results:
        values[empty] = np.nan
    return results


def _sampling(model: CountModel, n_rows: int, W: np.ndarray) -> np.ndarray:
    """Variance of the score that errors of the profiles make, shape (N, K, K): S' diag(p^2 omega^2 w'V w / m^2) S."""
    p = np.exp(model.log_p)
    out = np.empty((n_rows, W.shape[1], W.shape[1]))
    for i in range(n_rows):
        mean = model.S @ W[i]
        relative = model.V @ W[i] ** 2 / np.where(mean > 0, mean, 1.0) ** 2
        ratio = relative * (p / (1 + model.dispersion * p * mean)) ** 2
        out[i] = (model.S * ratio[:, None]).T @ model.S
    return out


def _row_fit(
    Y: sparse.csr_array, A: np.ndarray, W: np.ndarray, phi: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of counts over the mean by more than twice their sd, correlation and RMSE, all of shape (N,)."""
    out = np.zeros((3, Y.shape[0]))
    for i in range(Y.shape[0]):
        y, mean = np.zeros(A.shape[0]), A @ W[i]
        y[Y.indices[Y.indptr[i] : Y.indptr[i + 1]]] = Y.data[Y.indptr[i] : Y.indptr[i + 1]]
        beyond = np.maximum(y - mean - 2 * np.sqrt(np.maximum(mean, 1.0) + phi * mean**2), 0.0)
        out[0, i] = beyond.sum() / max(y.sum(), 1e-300)
        spread = y.std() * mean.std()
        out[1, i] = np.mean((y - y.mean()) * (mean - mean.mean())) / spread if spread > 0 else np.nan
        out[2, i] = np.sqrt(np.mean((y - mean) ** 2))
    return out[0], out[1], out[2]


def worst_genes(model: CountModel, n: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the genes that fit worst over all spots: positions among the profiles' genes, counts and means.

    The order is by `(observed - expected)^2 / (expected + phi expected^2)`, platform factors included in the means.

    Examples
    --------
    >>> S = np.array([[9.0, 1.0], [1.0, 9.0], [5.0, 6.0]])
    >>> fit = fit_count_model(np.array([[90.0, 10.0, 250.0]]), S, platform=False, dispersion=0.0)
    >>> int(worst_genes(fit.model, 1)[0][0])
    2
    """
    variance = np.maximum(model.expected + model.dispersion * model.expected**2, 1e-12)
    order = np.argsort(-((model.observed - model.expected) ** 2) / variance, kind="stable")[:n]
    return model.genes[order], model.observed[order], model.expected[order]


def share_errors(weights: np.ndarray, covariance: np.ndarray, sizes: np.ndarray | None = None) -> np.ndarray:
    """Return the standard errors of the shares of the types, by the delta method, shape (N, K).

    Parameters
    ----------
    weights
        W, shape (N, K).
    covariance
        Their covariances, shape (N, K, K).
    sizes
        What every type's weight is divided by before the shares are taken, shape (K,).

    Examples
    --------
    >>> share_errors(np.array([[8.0, 8.0]]), np.array([np.diag([8.0, 8.0])]))
    array([[0.125, 0.125]])
    """
    size = np.ones(weights.shape[1]) if sizes is None else sizes
    amounts = weights / size
    total = np.where(amounts.sum(axis=1) > 0, amounts.sum(axis=1), np.nan)[:, None]
    J = (np.eye(len(size)) - (amounts / total)[:, :, None]) / total[:, :, None] / size
    return np.sqrt(np.maximum(np.einsum("ikl,ilm,ikm->ik", J, covariance, J, optimize=True), 0.0))

"""A count model with everything that is known in it: platform factors, sampling of the reference, overdispersion.

Symbols: y_ig is the count of gene g in spot i, S_gk the profile of type k, w_ik >= 0 the weight of type k in spot i
(counts of RNA where a profile sums to one), p_g the platform factor of a gene.

    y_ig ~ NB(m_ig, phi),   m_ig = p_g (S w_i)_g,   var y_ig = m_ig + phi m_ig^2
    S_gk ~ posterior of empirical-Bayes shrinkage given the reference's cells     (:mod:`unmix.core.shrinkage`)
    log p_g ~ N(0, tau^2)                                                         (:mod:`unmix.core.platform`)

    w_ik ~ (1 - pi_k) delta_0 + pi_k TN           the tissue's own frequencies and amounts (:mod:`unmix.core.abundance`)

Genes are not chosen: a gene that no type changes is shrunk to its mean and says nothing; a highly expressed one is held
by phi; one that few cells of the reference have seen is shrunk and says little of its factor. tau and phi are
estimated from the spots, by the scatter of the factors and by likelihood; no choice looks at anything but X, S and V.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._countmodel_kernels import csr_parts, fit_rows
from unmix.core.abundance import posterior
from unmix.core.blocks import Block, map_rows
from unmix.core.countmodel_shared import MAX_ITER, CountModel, estimate_model, start
from unmix.core.informative import information_of_genes
from unmix.core.platform import face_inverse
from unmix.core.robust import refit
from unmix.core.share_errors import ShareErrors, share_errors, with_scatter
from unmix.core.smoothing import Smoothing, choose_strength, neighbour_prior

MIN_MEAN = 0.1
"""Genes of smaller means do not enter the test of the fit: their squares are far from normal."""


@dataclass(frozen=True)
class CountModelResult:
    """Weights of every spot and how far they can be trusted; rows without counts are NaN."""

    weights: np.ndarray
    """W, shape (N, K): RNA of every type, in counts divided by the profiles' unit; exact zeros for types that are absent.

    Posterior means where the tissue has enough spots for a prior, otherwise the likeliest weights."""
    covariance: np.ndarray
    """Covariance of every row of W, shape (N, K, K); zeros for absent types. No rows where errors of shares are computed on
    the way."""
    present: np.ndarray
    """Posterior probability that the type is present, shape (N, K); NaN without a prior."""
    log_likelihood: np.ndarray
    """Shape (N,); this and what follows are of the likeliest weights."""
    pearson: np.ndarray
    """Pearson statistic over its expectation, shape (N,); about 1 where the reference explains the spot."""
    unexplained: np.ndarray
    """Share of a spot's counts in genes above what the model expects, beyond counting noise, shape (N,)."""
    correlation: np.ndarray
    """Pearson correlation of counts and means over the genes kept, shape (N,)."""
    rmse: np.ndarray
    """Root mean square difference of counts and means, in the units of X, shape (N,)."""
    misfit: np.ndarray
    """By how many standard deviations the squared residuals exceed what the model expects of them, shape (N,)."""
    model: CountModel
    smoothing: Smoothing | None = None
    """How the strength of smoothing was chosen."""
    se: np.ndarray | None = None
    """Standard errors of the shares of the types, shape (N, K), where they were asked for."""


def fit_count_model(
    X: Any,
    S: np.ndarray,
    V: np.ndarray | None = None,
    *,
    columns: np.ndarray | None = None,
    between: np.ndarray | None = None,
    platform: bool | None = None,
    dispersion: float | None = None,
    unknown: bool = False,
    prior: bool = True,
    units: np.ndarray | None = None,
    graph: sparse.csr_array | None = None,
    smoothing: float | None = None,
    errors: ShareErrors | None = None,
    rng: int | np.random.Generator | None = 0,
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
        Sampling variances of S, shape (G, K); `None` where they are not known: S is taken as it is, and rows that vary by more
        than counting are fitted robustly (:mod:`unmix.core.robust`).
    columns
        Positions of the profiles' genes among the columns of X; `None` where they are the same.
    between
        Variance between donors, relative to the squared profile, of every gene, shape (G,); `None` for none.
    platform
        Whether factors per gene are fitted, as far as their estimated size allows. `None`: where V is given, because
        without it a platform effect cannot be told from errors of the profiles.
    dispersion
        phi; `None` to choose it by likelihood where V is given, and 0 without V, for the same reason.
    unknown
        Whether one more type is looked for in the spots (:mod:`unmix.core.unknown`); W then has its weights in one more,
        last column, where the likelihood supports it.
    prior
        Whether amounts are posterior means under the tissue's own prior, where V is given and there are spots enough to
        learn it from (:mod:`unmix.core.abundance`), instead of the likeliest ones.
    units
        RNA of a cell of every type in the units of W, shape (K,), for the prior, which is about cells; `None` where it is
        not known, and amounts of RNA are used.
    graph
        Weights of every spot's neighbours, shape (N, N), for smoothing (:mod:`unmix.core.smoothing`); `None` for none.
    smoothing
        Its strength; `None` to choose it by genes held out.
    errors
        What the standard errors of the shares depend on; they are then computed block by block, and the covariances,
        which take K times the memory, are not kept.
    rng
        Source of randomness, for the genes that are held out.
    n_jobs, block_rows
        Threads, and rows of a block.

    Returns
    -------
    Weights, their covariances, diagnostics, and the model.

    Raises
    ------
    ValueError
        If shapes do not fit, S has no gene that tells types apart, or an unknown type is to be found without V.

    Examples
    --------
    >>> S = np.array([[9.0, 1.0], [1.0, 9.0], [5.0, 5.0]])
    >>> fit = fit_count_model(np.array([[90.0, 10.0, 50.0], [50.0, 50.0, 50.0]]), S, platform=False, dispersion=0.0)
    >>> fit.weights.round(3)
    array([[10.,  0.],
           [ 5.,  5.]])
    """
    columns = np.arange(X.shape[1]) if columns is None else columns
    _check(columns, S, V, unknown)
    walk: dict[str, Any] = {"n_jobs": n_jobs, "block_rows": block_rows}
    options: dict[str, Any] = {"between": between, "platform": platform, "dispersion": dispersion, "unknown": unknown}
    model = estimate_model(X, S, V, columns=columns, prior=prior, units=units, **options, **walk)
    fit = _Fit(X, errors, walk)
    if graph is None or smoothing == 0:
        return fit.run(model)
    alone = map_rows(_fit_alone, X, constants=(replace(model, abundance=None),), desc="count model", **walk)
    return _smooth(fit, model, alone, graph, smoothing, rng)


@dataclass(frozen=True)
class _Fit:
    """Passes over the rows that fit them, with errors of shares or covariances of weights."""

    X: Any
    errors: ShareErrors | None
    walk: dict[str, Any]

    def run(
        self, model: CountModel, *prior: np.ndarray, smoothing: Smoothing | None = None, desc: str = "count model"
    ) -> CountModelResult:
        """Fit every row, about a prior where there is one."""
        names = [field.name for field in fields(CountModelResult)]
        if self.errors is None:
            parts = map_rows(_fit_block, self.X, *prior, constants=(model,), desc=desc, **self.walk)
            return CountModelResult(**dict(zip(names, parts, strict=False)), model=model, smoothing=smoothing)
        sizes, size_variances, scatter = self.errors.constants(model)
        if scatter is not None:
            model = replace(model, chosen=model.chosen | {"cells_per_spot": self.errors.described(model, scatter)})
        cells, constants = self.errors.cells(self.X.shape[0]), (model, sizes, size_variances, scatter)
        W, se, *parts = map_rows(_fit_errors, self.X, cells, *prior, constants=constants, desc=desc, **self.walk)
        none = np.zeros((0, W.shape[1], W.shape[1]))
        named = dict(zip(names, (W, none, *parts), strict=False))
        return CountModelResult(**named, model=model, smoothing=smoothing, se=se)


def _smooth(
    fit: _Fit, model: CountModel, alone: Any, graph: sparse.csr_array, strength: float | None, rng: Any
) -> CountModelResult:
    """Fit every row again, expected about its neighbours' likeliest fits: `alone`, weights and their variances."""
    chosen = None if strength is not None else choose_strength(fit.X, model, graph, np.random.default_rng(rng))
    used = chosen.strength if chosen is not None else float(strength or 0.0)
    how = "as asked" if chosen is None else f"by held-out genes, z = {chosen.z:.1f} against spots elsewhere"
    model = replace(model, chosen=model.chosen | {"smoothing": f"{used:g}: {how}"})
    if used == 0:
        return fit.run(model, smoothing=chosen)
    weights, variances = alone
    prior = neighbour_prior(weights * model.scale, variances * model.scale**2, graph, used)  # rows are fitted as counts
    return fit.run(model, prior.target, prior.precision, smoothing=chosen, desc="count model with neighbours")


def _check(columns: np.ndarray, S: np.ndarray, V: np.ndarray | None, unknown: bool) -> None:
    if len(columns) != S.shape[0] or (V is not None and V.shape != S.shape):
        shape = None if V is None else V.shape
        msg = f"X ({len(columns)} genes), S {S.shape} and V {shape} must share their genes and types."
        raise ValueError(msg)
    if unknown and V is None:
        msg = "an unknown type can be told from known ones only where the profiles' sampling variances are known."
        raise ValueError(msg)
    if not (information_of_genes(S) > 0).any():
        msg = "no gene differs between the types of S; a signature needs genes that tell its types apart."
        raise ValueError(msg)


def _fit_block(block: Block, *prior_and_model: Any) -> tuple[np.ndarray, ...]:
    """Fit the rows of a block; see `CountModelResult` for what is returned."""
    *prior, model = prior_and_model
    Y = sparse.csr_array(block[:, model.columns], dtype=np.float64) * model.scale
    A = model.S * np.exp(model.log_p)[:, None]
    rows = csr_parts(Y)
    W, value, H, pearson, *_ = fit_rows(*rows, A, model.dispersion, start(Y, A), MAX_ITER, *prior)
    background = np.zeros(len(W))
    expected = max(len(model.genes) - A.shape[1], 1)
    if model.specific is not None:
        W, background, _ = refit(Y, A, W, pearson / expected, model.specific, *prior)
        one_more, level = np.column_stack([A, np.ones(len(A))]), np.column_stack([W, background])
        _, value, H, pearson, *_ = fit_rows(*rows, one_more, model.dispersion, level, 0)
        H = H[:, :-1, :-1]
    errors = model.shared + _sampling(model, Y.shape[0], W)
    if model.abundance is None:
        inverse = face_inverse(H, W)
        weights, covariance, present = W, inverse + inverse @ errors @ inverse, np.full_like(W, np.nan)
    else:
        found = posterior(rows, A, model.dispersion, W, model.abundance, errors, *prior)
        weights, covariance, present = found.weights, found.covariance, found.present
    empty = np.asarray(Y.sum(axis=1)).ravel() <= 0
    unexplained, correlation, rmse, misfit = _row_fit(Y, A, W, background, model)
    covariance, rmse = covariance / model.scale**2, rmse / model.scale
    weights = weights / model.scale
    results = (weights, covariance, present, value, pearson / expected, unexplained, correlation, rmse, misfit)
    for values in results:
        values[empty] = np.nan
    return results


def _fit_alone(block: Block, model: CountModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of rows and their variances."""
    W, covariance, *_ = _fit_block(block, model)
    return W, np.einsum("ikk->ik", covariance).copy()


def _fit_errors(block: Block, cells: np.ndarray, *rest: Any) -> tuple[np.ndarray, ...]:
    """Fit the rows of a block as :func:`_fit_block`, with the errors of shares in the place of covariances."""
    *prior_and_model, sizes, size_variances, scatter = rest
    W, covariance, present, *others = _fit_block(block, *prior_and_model)
    if scatter is not None:
        covariance = with_scatter(W, covariance, scatter, cells, present)
    return (W, share_errors(W, covariance, sizes, size_variances), present, *others)


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
    Y: sparse.csr_array, A: np.ndarray, W: np.ndarray, background: np.ndarray, model: CountModel
) -> np.ndarray:
    """Return the share of counts over the mean by more than twice their sd, correlation, RMSE and misfit, shape (4, N)."""
    out = np.zeros((4, Y.shape[0]))
    errors = model.V * np.exp(2 * model.log_p)[:, None]
    for i in range(Y.shape[0]):
        y, mean = np.zeros(A.shape[0]), A @ W[i] + background[i]
        y[Y.indices[Y.indptr[i] : Y.indptr[i + 1]]] = Y.data[Y.indptr[i] : Y.indptr[i + 1]]
        beyond = np.maximum(y - mean - 2 * np.sqrt(np.maximum(mean, 1.0) + model.dispersion * mean**2), 0.0)
        out[0, i] = beyond.sum() / max(y.sum(), 1e-300)
        spread = y.std() * mean.std()
        out[1, i] = np.mean((y - y.mean()) * (mean - mean.mean())) / spread if spread > 0 else np.nan
        out[2, i] = np.sqrt(np.mean((y - mean) ** 2))
        out[3, i] = misfit(y, mean, model.dispersion, errors @ W[i] ** 2, int((W[i] > 0).sum()))
    return out


def misfit(y: np.ndarray, mean: np.ndarray, phi: float, errors: np.ndarray, n_fitted: int) -> float:
    """Return the standardised sum of squared residuals over the genes with a mean of `MIN_MEAN` or more.

    The squared standardised residual of a negative binomial count of variance v has mean 1 and variance 2 + 6 phi + 1 / v.

    Parameters
    ----------
    y, mean
        Counts and means, shape (G,).
    phi
        Dispersion.
    errors
        Variances of the means by errors of the profiles, shape (G,).
    n_fitted
        Weights fitted to y.

    Examples
    --------
    >>> mean = np.full(2000, 5.0)
    >>> y = np.random.default_rng(0).poisson(mean)
    >>> abs(misfit(y, mean, 0.0, np.zeros(2000), 0)) < 3 < misfit(2 * y, 2 * mean, 0.0, np.zeros(2000), 0)
    True
    """
    used = mean >= MIN_MEAN
    if used.sum() <= n_fitted:
        return float("nan")
    m = mean[used]
    variance = m + phi * m**2 + errors[used]
    squares = (y[used] - m) ** 2 / variance
    return float((squares.sum() - used.sum() + n_fitted) / np.sqrt((2 + 6 * phi + 1 / variance).sum()))


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

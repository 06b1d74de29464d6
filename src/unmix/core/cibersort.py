"""CIBERSORT around the nu-SVR: scaling, the choice of nu, fractions and absolute scores; and its constrained sibling.

After Newman et al., Nature Methods 12:453 (2015). What differs, always: the fit is the optimum instead of LIBSVM's at
tolerance 1e-3, counts are never exponentiated, and a fit that the data do not decide says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from unmix.core.nusvr import NuSVRResult, solve_nusvr, solve_nusvr_simplex

NUS = (0.25, 0.5, 0.75)
Absolute = Literal[False, "sig.score", "no.sumto1"]


@dataclass(frozen=True)
class CibersortResult:
    """Fits of N mixtures to K signatures.

    Parameters
    ----------
    weights
        Fractions (N, K), rows summing to 1, or absolute scores where asked for. NaN where `degenerate`.
    correlation
        Pearson correlation of the fit with the mixture (N,); NaN where `degenerate`.
    rmse
        Root mean square error of the fit in the units of the solver (N,); NaN where `degenerate`.
    nu
        The nu with the lowest RMSE (N,); NaN where `degenerate`.
    negative
        Share of negative weights that was clipped, by absolute size (N,).
    degenerate
        Where for no nu the data decide a positive weight (N,).
    gap
        Relative duality gap of the fit that was kept (N,).
    """

    weights: np.ndarray
    correlation: np.ndarray
    rmse: np.ndarray
    nu: np.ndarray
    negative: np.ndarray
    degenerate: np.ndarray
    gap: np.ndarray


def cibersort(
    signature: np.ndarray,
    mixtures: np.ndarray,
    *,
    absolute: Absolute = False,
    y_median: float | None = None,
    nus: Sequence[float] = NUS,
    C: float = 1.0,
) -> CibersortResult:
    """Estimate fractions as CIBERSORT does, at the exact optimum.

    The signature is scaled by one mean and one standard deviation, every mixture by its own; of the fits at each nu,
    negative weights set to 0 and divided by their sum, the one with the lowest RMSE is kept (the intercept is left out
    there).

    Parameters
    ----------
    signature
        Signatures (G, K) on the shared genes, not in log space.
    mixtures
        Mixtures (N, G) on the same genes, not in log space; any block of rows gives the rows of the whole.
    absolute
        `False` for fractions; `"sig.score"` for fractions times the mixture's median over the shared genes relative to
        `y_median` (0 for a mixture whose median is 0); `"no.sumto1"` for the weights before they are divided by their
        sum.
    y_median
        Median of the whole data (all genes, all mixtures), taken as at least 1; `None` takes that of `mixtures`.
    nus
        Values of nu to choose from.
    C
        Cost of the nu-SVR.

    Returns
    -------
    Weights, quality of the fits, and the nu of each.

    Raises
    ------
    ValueError
        If `absolute` is unknown, the signature is constant, or for the reasons of :func:`unmix.core.nusvr.solve_nusvr`.

    Notes
    -----
    Newman et al., Nature Methods 12:453 (2015), version 1.04 of the algorithm.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signature = rng.gamma(1.0, 100.0, (60, 3))
    >>> cibersort(signature, [[0.5, 0.3, 0.2]] @ signature.T).weights.round(1)
    array([[0.5, 0.3, 0.2]])
    """
    if absolute not in (False, "sig.score", "no.sumto1"):
        msg = f'`absolute` must be False, "sig.score" or "no.sumto1", got {absolute!r}.'
        raise ValueError(msg)
    S, M = _arrays(signature, mixtures)
    result = _best_nu(solve_nusvr, zscore(S.ravel()).reshape(S.shape), zscore(M), nus, C, raw=absolute == "no.sumto1")
    if absolute != "sig.score":
        return result
    overall = max(float(np.median(M)) if y_median is None else y_median, 1.0)
    score = np.median(M, axis=1) / overall
    return CibersortResult(**{**vars(result), "weights": result.weights * score[:, None]})


def cibersort_simplex(
    signature: np.ndarray, mixtures: np.ndarray, *, nus: Sequence[float] = NUS, C: float = 1.0
) -> CibersortResult:
    """Estimate fractions by nu-SVR with weights >= 0 and sum 1 inside the fit.

    For the sum to mean something, signatures and mixtures get the same unit: each is divided by its total over the
    shared genes, and both are scaled by the signature's mean and standard deviation. The weights found are shares of
    counts; dividing by the totals of the signatures and normalising gives fractions in the signature's own units.

    Parameters
    ----------
    signature
        Signatures (G, K) >= 0 on the shared genes, not in log space.
    mixtures
        Mixtures (N, G) >= 0 on the same genes, not in log space.
    nus
        Values of nu to choose from.
    C
        Cost of the nu-SVR.

    Returns
    -------
    Weights, quality of the fits, and the nu of each.

    Raises
    ------
    ValueError
        If a signature has no positive total, all are constant, or as :func:`unmix.core.nusvr.solve_nusvr_simplex` does.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signature = rng.gamma(1.0, 100.0, (60, 3))
    >>> cibersort_simplex(signature, [[0.5, 0.3, 0.2]] @ signature.T).weights.round(2)
    array([[0.5, 0.3, 0.2]])
    """
    S, M = _arrays(signature, mixtures)
    size, depth = S.sum(axis=0), M.sum(axis=1)
    if not (size > 0).all():
        msg = f"Signatures {np.flatnonzero(~(size > 0)).tolist()} have no positive total; leave those types out."
        raise ValueError(msg)
    profile = S / size
    centre, scale = profile.mean(), profile.std(ddof=1)
    if scale <= 1e-13 * centre:
        msg = "Every signature is the same over all genes: it cannot be scaled, nor tell types apart."
        raise ValueError(msg)
    share = M / np.where(depth > 0, depth, 1.0)[:, None]
    result = _best_nu(solve_nusvr_simplex, (profile - centre) / scale, (share - centre) / scale, nus, C, raw=False)
    weights = result.weights / size
    weights /= weights.sum(axis=1, keepdims=True)
    kept = np.where(depth > 0, 1.0, np.nan)
    return CibersortResult(
        weights * kept[:, None],
        result.correlation * kept,
        result.rmse * kept,
        result.nu * kept,
        result.negative,
        result.degenerate | ~(depth > 0),
        result.gap,
    )


def zscore(y: np.ndarray) -> np.ndarray:
    """Centre and scale along the last axis (ddof 1); 0 where it is constant.

    Examples
    --------
    >>> zscore(np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]))
    array([[-1.,  0.,  1.],
           [ 0.,  0.,  0.]])
    """
    centred = y - y.mean(axis=-1, keepdims=True)
    if y.shape[-1] < 2:
        return centred
    spread = centred.std(axis=-1, ddof=1, keepdims=True)
    flat = spread <= 1e-13 * np.abs(y).max(axis=-1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, spread))


def quantile_normalize(Y: np.ndarray) -> np.ndarray:
    """Give every mixture the same distribution: the mean of the sorted mixtures.

    Parameters
    ----------
    Y
        Mixtures (N, G), over all of their genes.

    Returns
    -------
    The normalised mixtures (N, G). Tied genes get the value at their mean rank, half way between two values where that
    rank is not whole.

    Notes
    -----
    Bolstad et al., Bioinformatics 19:185 (2003).

    Examples
    --------
    >>> quantile_normalize(np.array([[5.0, 2.0, 3.0], [4.0, 1.0, 1.0]]))
    array([[4.5 , 1.5 , 2.  ],
           [4.5 , 1.75, 1.75]])
    """
    Y = np.asarray(Y, float)
    target = np.sort(Y, axis=1).mean(axis=0)
    rank = rankdata(Y, axis=1) - 1
    return 0.5 * (target[np.floor(rank).astype(int)] + target[np.ceil(rank).astype(int)])


def _arrays(signature: np.ndarray, mixtures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    S, M = np.asarray(signature, float), np.asarray(mixtures, float)
    if S.ndim != 2 or M.ndim != 2 or S.shape[0] != M.shape[1]:
        msg = f"Signatures must be genes x types and mixtures rows x the same genes, got shapes {S.shape}, {M.shape}."
        raise ValueError(msg)
    if S.size == 0 or S.max() == S.min():
        msg = "The signature is empty or constant: it cannot be scaled, nor tell types apart."
        raise ValueError(msg)
    return S, M


def _best_nu(
    solve: Callable[..., NuSVRResult], X: np.ndarray, Y: np.ndarray, nus: Sequence[float], C: float, *, raw: bool
) -> CibersortResult:
    """Fit at every nu and keep, row by row, the one with the lowest RMSE after clipping and normalising."""
    fits = [_assess(solve(X, Y, nu, C=C), X, Y, nu, raw=raw) for nu in nus]
    rmse = np.stack([np.where(fit.degenerate, np.inf, fit.rmse) for fit in fits])
    best, rows = rmse.argmin(axis=0), np.arange(len(Y))
    return CibersortResult(**{name: np.stack([vars(fit)[name] for fit in fits])[best, rows] for name in vars(fits[0])})


def _assess(fit: NuSVRResult, X: np.ndarray, Y: np.ndarray, nu: float, *, raw: bool) -> CibersortResult:
    """Clip the weights of one nu at 0, divide them by their sum, and compare the fit with the mixture."""
    positive = np.maximum(fit.w, 0.0)
    mass = positive.sum(axis=1)
    lost = fit.degenerate | ~(mass > 0)
    fractions = positive / np.where(lost, 1.0, mass)[:, None]
    modelled = fractions @ X.T
    rmse = np.sqrt(np.mean((modelled - Y) ** 2, axis=1))
    negative = 1 - mass / np.maximum(np.abs(fit.w).sum(axis=1), np.finfo(float).tiny)
    unknown = np.where(lost, np.nan, 1.0)
    weights = (positive if raw else fractions) * unknown[:, None]
    return CibersortResult(
        weights, _correlation(modelled, Y) * unknown, rmse * unknown, nu * unknown, negative, lost, fit.gap
    )


def _correlation(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of every row of A with that of B; NaN where one is constant."""
    A = A - A.mean(axis=1, keepdims=True)
    B = B - B.mean(axis=1, keepdims=True)
    size = np.sqrt((A**2).sum(axis=1) * (B**2).sum(axis=1))
    return np.divide((A * B).sum(axis=1), size, out=np.full(len(A), np.nan), where=size > 0)

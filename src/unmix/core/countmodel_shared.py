"""What all spots share in the count model: shrunk profiles, platform factors, dispersion, and a type that may be missing.

The symbols are those of :mod:`unmix.core.countmodel`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core._countmodel_kernels import csr_parts, fit_rows
from unmix.core.abundance import Abundance, estimate_abundance
from unmix.core.blocks import Block, map_rows, stream_rows
from unmix.core.contamination import choose_contamination, purified
from unmix.core.dispersion import choose_dispersion
from unmix.core.informative import INFORMATION, keep_informative
from unmix.core.platform import PooledFit, bending, estimate_tau, face_inverse, newton_step, shared_covariance
from unmix.core.profile_prior import shrink_alike
from unmix.core.residuals import dispersion_of_counting, squared_residuals
from unmix.core.robust import described, refit, specific_genes
from unmix.core.shrinkage import STRENGTHS, ShrunkProfiles, shrink_profiles
from unmix.core.unknown import find_unknown

MAX_SPOTS = 500
"""What spots share is estimated from at most so many spots, evenly spread over the rows."""
MOST = 0.5
"""Share of whole numbers among the values above zero from which they are taken for counts."""
MOST_COUNTS = 1e6
"""Values that are no counts are taken for so many on average at most."""
MAX_STEPS, SETTLED = 30, 0.01
"""Steps on the factors, at most, and until no log factor moves by more than the second."""
FAR = 8.0
"""Where the reference's sampling leaves a gene's factor so many times less certain than most (haemoglobin, MALAT1), the gene
counts less while factors are found: else the weights of all spots answer to how its cells happen to differ."""
SCORED_SPOTS = 100
"""What all profiles hold of the pooled mean is chosen from at most so many spots."""
N_TURNS = 2
UNKNOWN_SPOTS = 300
"""The profile of an unknown type is found from at most so many spots."""
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
    """What X is multiplied by to be counts: 1, or for TPM and the like one over the dispersion that counting leaves in them."""
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
    excess: np.ndarray
    """Sum of the squared residuals over those spots, beyond the counting noise of their means, shape (G,)."""
    total: np.ndarray
    """Sum of the likeliest weights over those spots, shape (K,)."""
    n_spots: int
    """How many spots those are."""
    chosen: dict[str, Any]
    """What was chosen, and by what."""
    unknown: bool = False
    """Whether the last profile is of a type that the reference lacks."""
    sampled: bool = True
    """Whether the sampling of the profiles is known; without it the errors of the weights are too small."""
    specific: np.ndarray | None = None
    """Positions among the genes kept of those of robust fits (:mod:`unmix.core.robust`); `None` where profiles have variances."""
    abundance: Abundance | None = None
    """How common the types are in the tissue; `None` where it has too few spots, or V is not known."""


def estimate_model(
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
    n_jobs: int = 1,
    block_rows: int | None = None,
) -> CountModel:
    """Estimate what the spots share: shrunk profiles, platform factors, dispersion, and the type that may be missing.

    Parameters are those of :func:`unmix.core.countmodel.fit_count_model`.
    """
    platform = V is not None if platform is None else platform
    dispersion = 0.0 if V is None and dispersion is None else dispersion
    shrunk, genes = _shrink(S, V, between)
    S_kept, V_kept = shrunk.mean, shrunk.variance
    where = genes if columns is None else columns[genes]
    sample = _sample(X, where, n_jobs=n_jobs, block_rows=block_rows)
    scale, why = _scale_to_counts(sample, S_kept, platform)
    sample = sample * scale
    state = _estimate_shared(sample, S_kept, V_kept, platform, dispersion)
    q = 0.0
    if V is not None:
        given = (sample, S_kept, V_kept, state, shrunk.exposure, platform, dispersion)
        S_kept, V_kept, state, q = _without_contamination(*given)
    if unknown:
        S_kept, V_kept, state = _with_unknown(sample, S_kept, V_kept, state, shrunk.strengths, platform, dispersion)
    known = _abundance(sample, S_kept, state, units) if prior and V is not None else None
    state["abundance"] = known
    learned = f"posterior means, the prior by likelihood of {sample.shape[0]} observations"
    state["chosen"]["amounts"] = "the likeliest" if known is None else learned
    state["chosen"]["genes"] = f"{len(genes)} of {S.shape[0]}, holding {INFORMATION:.0%} of the information on types"
    if V is not None:
        state["chosen"]["contamination"] = f"{q:g} of every profile is the mean of all, by held-out genes"
    state["chosen"]["scale"] = f"{scale:.4g}: {why}"
    state["sampled"] = V is not None
    if V is None:
        state |= _refitted(sample, S_kept, state, np.searchsorted(genes, specific_genes(S)))
    return CountModel(genes=genes, columns=where, S=S_kept, V=V_kept, scale=scale, **state)


def _shrink(S: np.ndarray, V: np.ndarray | None, between: np.ndarray | None) -> tuple[ShrunkProfiles, np.ndarray]:
    """Choose the genes and shrink their profiles.

    The tissue is of one more donor, whose own differences the variances then hold too.
    """
    if V is None:
        genes = np.union1d(keep_informative(S), specific_genes(S))
        nothing = np.zeros_like(S[genes])
        return ShrunkProfiles(S[genes], nothing, np.full(S.shape[1], np.inf), np.zeros_like(STRENGTHS)), genes
    shrunk = shrink_profiles(S, V)
    genes = keep_informative(shrunk.mean)
    if len(genes) == 0:
        msg = "no gene differs between the types beyond chance; the reference has too few cells to tell them apart."
        raise ValueError(msg)
    alike = shrink_alike(S[genes], V[genes], replace(shrunk, mean=shrunk.mean[genes], variance=shrunk.variance[genes]))
    extra = 0.0 if between is None else between[genes, None] * alike.mean**2
    return replace(alike, variance=alike.variance + extra), genes


def _refitted(Y: sparse.csr_array, S: np.ndarray, state: dict[str, Any], specific: np.ndarray) -> dict[str, Any]:
    """Return what changes where a table's rows are fitted robustly, on the genes at `specific`."""
    A = S * np.exp(state["log_p"])[:, None]
    W, _, _, pearson, *_ = fit_rows(*csr_parts(Y), A, state["dispersion"], start(Y, A), MAX_ITER)
    W, background, again = refit(Y, A, W, pearson / max(len(A) - A.shape[1], 1), specific)
    fit = described(Y, specific, background, again)
    expected, chosen = A @ W.sum(axis=0) + background.sum(), state["chosen"] | {"fit": fit}
    return {"specific": specific, "expected": expected, "total": W.sum(axis=0), "chosen": chosen}


def _abundance(Y: sparse.csr_array, S: np.ndarray, state: dict[str, Any], units: np.ndarray | None) -> Abundance | None:
    """Estimate the prior of the types' amounts; a cell of the unknown type has as much RNA as the others on average."""
    size = np.ones(S.shape[1]) if units is None else np.append(units, np.full(S.shape[1] - len(units), units.mean()))
    A = S * np.exp(state["log_p"])[:, None]
    W = _pass(Y, S, state["log_p"], state["dispersion"], start(Y, A))[0]
    return estimate_abundance(csr_parts(Y), A, state["dispersion"], W, size)


def _sample(X: Any, genes: np.ndarray, **walk: Any) -> sparse.csr_array:
    """Gather at most `MAX_SPOTS` rows, evenly spread, those without counts left out.

    Where most of them have none, as with all bins of a slide, the rows are spread over those that have counts.
    """
    walk |= {"constants": (genes,), "desc": "sample of spots"}
    sample = _gathered(X, np.ones(X.shape[0], dtype=bool), walk)
    if X.shape[0] > MAX_SPOTS > 2 * len(sample):
        sample = _gathered(X, map_rows(_has_counts, X, **walk), walk)
    return sparse.csr_array(sample)


def _gathered(X: Any, among: np.ndarray, walk: dict[str, Any]) -> np.ndarray:
    sample = np.concatenate(list(stream_rows(rows_of, X, _evenly(among), **walk)))
    return np.asarray(sample[sample.sum(axis=1) > 0])


def _evenly(among: np.ndarray) -> np.ndarray:
    """Choose at most `MAX_SPOTS` of the rows in a mask, evenly spread over them."""
    rows, chosen = np.flatnonzero(among), np.zeros(len(among), dtype=bool)
    chosen[rows[np.linspace(0, len(rows) - 1, min(MAX_SPOTS, len(rows))).round().astype(int)]] = True
    return chosen


def _has_counts(block: Block, genes: np.ndarray) -> np.ndarray:
    return np.asarray(block[:, genes].sum(axis=1)).ravel() > 0


def _without_contamination(
    Y: sparse.csr_array,
    S: np.ndarray,
    V: np.ndarray,
    state: dict[str, Any],
    exposure: np.ndarray,
    platform: bool,
    dispersion: float | None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any], float]:
    """Take from all profiles their share of the pooled mean of the reference, where the spots show it."""
    pooled = S @ exposure / exposure.sum() if np.isfinite(exposure).all() else S.mean(axis=1)
    genes = keep_informative(S, share=0.0)
    rows = np.unique(np.linspace(0, Y.shape[0] - 1, min(SCORED_SPOTS, Y.shape[0])).round().astype(int))
    some, log_p, phi = sparse.csr_array(Y[rows][:, genes]), state["log_p"], state["dispersion"]
    W = _pass(some, S[genes], log_p[genes], phi, start(some, S[genes] * np.exp(log_p[genes])[:, None]))[0]
    q = choose_contamination(some, S[genes], pooled[genes], log_p[genes], phi, W)
    if q > 0:
        S, V = purified(S, pooled, q), V / (1 - q) ** 2
        state = _estimate_shared(Y, S, V, platform, dispersion, log_p)
    return S, V, state, q


def _with_unknown(
    Y: sparse.csr_array,
    S: np.ndarray,
    V: np.ndarray,
    state: dict[str, Any],
    strengths: np.ndarray,
    platform: bool,
    dispersion: float | None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Add the unknown type's profile where the likelihood asks for it, and estimate what depends on it again.

    Factors were fitted without the type and have taken part of its genes for a platform effect, so the two take turns.
    """
    some = Y[np.linspace(0, Y.shape[0] - 1, min(UNKNOWN_SPOTS, Y.shape[0])).round().astype(int)]
    alone, verdict, S_all, V_all = state, "", S, V
    for _ in range(N_TURNS):
        p, phi = np.exp(state["log_p"]), state["dispersion"]
        W = _pass(some, S, state["log_p"], phi, start(some, S))[0]
        found = find_unknown(some, S, W, p, phi, strengths)
        verdict = (
            f"log-likelihood +{found.gain:.0f} for {found.n_parameters:.0f} parameters"
            f" and {found.excused:.0f} that known types' deviations may gain"
        )
        if not found.supported:
            alone["chosen"]["unknown"] = f"not supported: {verdict}"
            return S, V, alone | {"unknown": False}  # without what an earlier turn took the type for
        S_all = np.column_stack([S, found.profile])
        V_all = np.column_stack([V, found.variance])
        state = _estimate_shared(Y, S_all, V_all, platform, dispersion)
        if state["tau"] == 0:
            break
    state["chosen"]["unknown"] = f"supported: {verdict}"
    return S_all, V_all, state | {"unknown": True}


def _scale_to_counts(Y: sparse.csr_array, S: np.ndarray, platform: bool) -> tuple[float, str]:
    """Return what turns values into counts, and why.

    Values most of which are whole numbers are counts (aligners that split reads leave some that are not). Others are multiplied
    by one over a Pearson dispersion: a quasi-Poisson variance becomes a Poisson one. Where factors of genes are fitted, they are
    no noise, and the dispersion is that about each gene's own.
    """
    values = Y.data[Y.data > 0]
    whole = np.mean(values == np.rint(values)) if values.size else 1.0
    if whole > MOST:
        return 1.0, "X holds counts" if whole == 1 else "most of X are counts"
    W, _, _, pearson, *_ = fit_rows(*csr_parts(Y), S, 0.0, start(Y, S), MAX_ITER)
    if platform and Y.shape[0] > 1:
        dispersion = max(dispersion_of_counting(Y, S, W), values.mean() / MOST_COUNTS)
        return 1 / dispersion, "one over the dispersion within genes of low counts"
    dispersion = float(pearson.sum()) / max(Y.shape[0] * (Y.shape[1] - S.shape[1]), 1)
    return 1 / max(dispersion, 1e-12), "one over the dispersion of the Poisson fit"


def rows_of(block: Block, chosen: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Return the chosen rows of a block on some genes, dense."""
    part = block[chosen][:, genes]
    return np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=np.float64)


def _estimate_shared(
    Y: sparse.csr_array,
    S: np.ndarray,
    V: np.ndarray,
    platform: bool,
    dispersion: float | None,
    begin: np.ndarray | None = None,
) -> dict[str, Any]:
    """Find the factors by joint Newton steps of the Poisson fit, then the dispersion by likelihood."""
    W, log_p = start(Y, S), np.zeros(S.shape[0]) if begin is None else begin
    tau, prior = 0.0, np.full(S.shape[0], 1e-8)
    if platform:
        W, pooled = _pass(Y, S, log_p, 0.0, W)
        v = relative_variance(S, V, W.sum(axis=0))
    for _ in range(MAX_STEPS if platform else 0):
        known = pooled.tempered(v)
        counted = np.minimum(1.0, FAR * known.trust / np.median(known.trust))
        less = S * counted[:, None]
        W, fit = _pass(sparse.csr_array(Y @ sparse.diags_array(counted)), less, log_p, 0.0, W)
        pooled = replace(fit, observed=fit.observed / counted, expected=fit.expected / counted)
        v = relative_variance(S, V, W.sum(axis=0))
        tau = estimate_tau(pooled, log_p, v)
        prior, known, last = np.full_like(v, tau**2), pooled.tempered(v), log_p
        log_p = newton_step(replace(fit, trust=known.trust / counted), less, log_p, prior, bending(known))
        if np.abs(log_p - last).max() <= SETTLED:
            break
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
        "excess": squared_residuals(Y, S * np.exp(log_p)[:, None], W) - expected,
        "total": W.sum(axis=0),
        "n_spots": Y.shape[0],
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


def start(Y: sparse.csr_array, S: np.ndarray) -> np.ndarray:
    """Start every spot at equal shares of its counts; at nothing of types without counts in these genes."""
    totals, sums = np.asarray(Y.sum(axis=1), dtype=np.float64).ravel(), S.sum(axis=0)
    return totals[:, None] / S.shape[1] * np.where(sums > 0, 1 / np.where(sums > 0, sums, 1), 0)


def _pass(
    Y: sparse.csr_array, S: np.ndarray, log_p: np.ndarray, phi: float, W: np.ndarray
) -> tuple[np.ndarray, PooledFit]:
    A = S * np.exp(log_p)[:, None]
    W, _, H, _, observed, expected, means = fit_rows(*csr_parts(Y), A, phi, W.copy(), MAX_ITER)
    return W, PooledFit(observed, expected, means, face_inverse(H, W).sum(axis=0))

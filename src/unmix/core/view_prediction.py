"""What fitted loadings of modalities say of rows that lack the others: their usages, and the modalities that they lack."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unmix.core.blocks import as_rows, reduce_rows
from unmix.core.factorization import Walk, usages
from unmix.core.regression import fit_poisson
from unmix.core.simplex import nnls
from unmix.core.views import depths, is_all, rows_of, weighted_sums


def view_usages(
    X: Any, H: np.ndarray, *, poisson: bool, total: np.ndarray | None = None, walk: Walk | None = None
) -> np.ndarray:
    """Return the optimal usages of rows that have one modality only, for loadings that are kept.

    For counts, `total` is what a usage of 1 of every component adds up to over all variables at mean depth, relative to
    that depth (k,); the depth of a row, as the fit has it, is then taken out of its usages.
    """
    walk = walk or Walk()
    if not poisson:
        return usages(X, H, walk=walk)
    W = np.nan_to_num(fit_poisson(X, H.T, n_jobs=walk.n_jobs, block_rows=walk.block_rows).weights)
    size = W @ total if total is not None else np.ones(len(W))
    return W / np.where(size > 0, size, 1.0)[:, None]


def predictive_loadings(
    X: Sequence[Any],
    rows: Sequence[np.ndarray],
    n_obs: int,
    H: Sequence[np.ndarray],
    losses: Sequence[str],
    *,
    walk: Walk | None = None,
) -> list[list[np.ndarray]]:
    """Return, for every modality m and every modality l, the loadings by which m predicts l, (k, n_vars_l) each.

    Usages of rows that have m only are noisier than the shared ones. Loadings that are fitted to just such usages (of
    the rows that have both, by least squares at equal depth) predict without the bias that this would cause.
    """
    walk = walk or Walk()
    totals = [depths(x, n_jobs=walk.n_jobs) for x in X]
    means = [float(t.mean()) or 1.0 for t in totals]
    sizes = [t / mean if kind == "kl" else 1.0 * (t > 0) for t, mean, kind in zip(totals, means, losses, strict=True)]
    out = []
    for x, found, h, mean, kind in zip(X, rows, H, means, losses, strict=True):
        W = view_usages(x, h, poisson=kind == "kl", total=h.sum(axis=1) / mean, walk=walk)
        if not is_all(found, n_obs):
            alone, W = W, np.zeros((n_obs, len(h)))
            W[found] = alone
        out.append([_regressed(other, W, there, size, walk) for other, there, size in zip(X, rows, sizes, strict=True)])
    return out


def _regressed(X: Any, W: np.ndarray, rows: np.ndarray, sizes: np.ndarray, walk: Walk) -> np.ndarray:
    """Return the H >= 0 that minimises `sum_i s_i ||x_i / s_i - w_i H||^2`, where row i of X is one of `rows` of W."""
    options: dict[str, Any] = {"n_jobs": walk.n_jobs, "block_rows": walk.block_rows}
    k = W.shape[1]
    cross, gram = reduce_rows(weighted_sums, as_rows(X), rows_of(W, rows), sizes, **options)
    return nnls(gram[:k, :k], cross[:, :k]).T

"""Profiles of types over several donors, and how far donors differ.

Symbols: x_kdg is the mean of gene g over the cells of type k of donor d, v_kdg its sampling variance, D_k the donors that have
the type. Donors differ by a factor per type and gene of relative variance b_g,

    x_kdg = S_kg (1 + e_kdg) + noise,   var e = b_g,   var noise = v_kdg,

as MuSiC's weights have it (Wang et al. 2019). b_g is a gene's own, by moments over all types and drawn towards that of all
genes; the tissue is of one more donor, so that b_g S_kg^2 is left however many cells and donors the reference has.
"""

from dataclasses import dataclass

import numpy as np

PRIOR_DF = 10.0
"""Weight of the variance over all genes, in degrees of freedom."""


@dataclass(frozen=True)
class DonorProfiles:
    """What several donors say together."""

    profiles: np.ndarray
    """S, shape (K, G)."""
    variances: np.ndarray
    """Variance of S by the sampling of cells and of donors, shape (K, G)."""
    between: np.ndarray
    """b, shape (G,)."""


def combine_donors(mean: np.ndarray, variance: np.ndarray, present: np.ndarray) -> DonorProfiles:
    """Combine the profiles of donors, each by how far it can be trusted.

    Parameters
    ----------
    mean, variance
        Profiles x and their sampling variances v, shape (K, D, G).
    present
        Whether the donor has cells of the type, shape (K, D); every type needs one donor.

    References
    ----------
    Wang, X. et al. (2019) Bulk tissue cell type deconvolution with multi-subject single-cell expression reference.
    Nat. Commun. 10, 380.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = 100.0 * rng.lognormal(0.0, 0.3, (5, 6, 2000))
    >>> found = combine_donors(x, np.zeros_like(x), np.ones((5, 6), dtype=bool))
    >>> round(float(np.median(found.between)), 1)
    0.1
    """
    there = present[:, :, None]
    x, v = np.where(there, mean, 0.0), np.where(there, variance, 0.0)
    n = present.sum(axis=1)
    center = x.sum(axis=1) / n[:, None]
    spread = (there * (x - center[:, None]) ** 2).sum(axis=1) - (1 - 1 / n)[:, None] * v.sum(axis=1)
    between = _relative_variance(spread, center, n)
    known = np.einsum("kg,g->k", center**2, between)
    trust = present / np.maximum(known[:, None] + v.sum(axis=2), 1e-300)
    weight = trust / trust.sum(axis=1, keepdims=True)
    profiles = np.einsum("kd,kdg->kg", weight, x)
    sampling = np.einsum("kd,kdg->kg", weight**2, v)
    return DonorProfiles(profiles, sampling + (weight**2).sum(axis=1)[:, None] * between * profiles**2, between)


def _relative_variance(spread: np.ndarray, center: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return b >= 0: sum of squares beyond sampling over that of the profiles, a gene's own and that of all genes."""
    df = max(float((n - 1).sum()), 0.0)
    if df == 0:
        return np.zeros(center.shape[1])
    scale = ((n - 1)[:, None] * center**2).sum(axis=0)
    own = spread.sum(axis=0) / np.maximum(scale, 1e-300)
    overall = float(np.median(own[scale > 0])) if (scale > 0).any() else 0.0
    return np.maximum((df * np.where(scale > 0, own, overall) + PRIOR_DF * max(overall, 0.0)) / (df + PRIOR_DF), 0.0)

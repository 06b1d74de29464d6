"""How many components: the loss of held-out entries against the rank."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from unmix.core.als import als, held_out_loss
from unmix.core.factorization import Walk
from unmix.core.kl import nmf_kl
from unmix.core.masks import Speckled

COARSE = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class RankCurve:
    """Held-out loss of every rank tried."""

    ranks: np.ndarray
    """Ranks tried, ascending, (n_ranks,)."""
    losses: np.ndarray
    """Mean loss of a held-out entry, (n_ranks, n_masks)."""
    chosen: int
    """The smallest rank whose mean loss is within one standard error of the lowest."""


def choose_rank(
    X: Any,
    *,
    ranks: "list[int] | None" = None,
    loss: str = "frobenius",
    nonnegative: bool = True,
    share: float = 0.05,
    n_masks: int = 3,
    walk: Walk | None = None,
    rng: "int | np.random.Generator | None" = 0,
) -> RankCurve:
    """Hold out random entries, fit every rank without them, and compare how well they are predicted.

    Parameters
    ----------
    X
        Matrix, (n_obs, n_vars).
    ranks
        Ranks to try; by default 1, 2, 4, ... until the loss has risen twice, then between the neighbours of the best.
    loss
        `"frobenius"` or `"kl"`.
    nonnegative
        Whether the factors are non-negative.
    share
        Share of the entries held out.
    n_masks
        Independent masks.
    walk
        Threads, block size, tolerance and limit.
    rng
        Seed of masks and starts.

    References
    ----------
    Owen, Perry (2009), Bi-cross-validation of the SVD and the nonnegative matrix factorization.

    Examples
    --------
    >>> r = np.random.default_rng(0)
    >>> X = r.random((60, 2)) @ r.random((2, 40)) + 0.01 * r.random((60, 40))
    >>> choose_rank(X, ranks=[1, 2, 3]).chosen
    2
    """
    walk = walk or Walk(tol=1e-4, max_iter=100)
    seeds = np.random.default_rng(rng).integers(2**31, size=(n_masks, 2)).tolist()

    def losses_at(k: int) -> list[float]:
        found = []
        for mask_seed, start_seed in seeds:
            mask = Speckled(share, mask_seed)
            if loss == "kl":
                fit = nmf_kl(X, k, mask=mask, walk=walk, rng=start_seed)
            else:
                fit = als(X, k, mask=mask, nonnegative=nonnegative, walk=walk, rng=start_seed)
            found.append(held_out_loss(X, fit, mask, poisson=loss == "kl", walk=walk))
        return found

    curve = {k: losses_at(k) for k in ranks} if ranks else _search(losses_at, min(X.shape) - 1)
    tried = sorted(curve)
    losses = np.array([curve[k] for k in tried])
    return RankCurve(np.array(tried), losses, tried[_smallest_good(losses)])


def _smallest_good(losses: np.ndarray) -> int:
    """Return the first rank within one standard error, of the differences to the best over masks, of the best."""
    means = losses.mean(axis=1)
    gaps = losses - losses[means.argmin()]
    error = gaps.std(axis=1, ddof=1) / np.sqrt(losses.shape[1]) if losses.shape[1] > 1 else 0.0
    return int(np.flatnonzero(gaps.mean(axis=1) <= error)[0])


def _search(losses_at: Any, limit: int) -> dict[int, list[float]]:
    """Double the rank until the loss has risen twice, then halve the gaps beside the best."""
    curve: dict[int, list[float]] = {}
    for k in (k for k in COARSE if k <= max(limit, 1)):
        curve[k] = losses_at(k)
        if k > 4 * min(curve, key=lambda c: np.mean(curve[c])):
            break
    while True:
        tried = sorted(curve)
        best = min(tried, key=lambda c: np.mean(curve[c]))
        at = tried.index(best)
        beside = tried[max(at - 1, 0) : at + 2]
        middles = [(a + b) // 2 for a, b in pairwise(beside)]
        new = [k for k in middles if k not in curve and min(abs(k - c) for c in tried) * 10 >= best]
        if not new:
            return curve
        curve.update({k: losses_at(k) for k in new})

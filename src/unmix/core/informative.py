"""Which genes say something about the differences between types.

Symbols: S_gk is the profile of type k in gene g, m_g its mean over types.
"""

import numpy as np

INFORMATION = 0.99
MIN_GENES = 2000
"""To save time, genes beyond `MIN_GENES` and beyond this share of the information on the types are left out."""


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

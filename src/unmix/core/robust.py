"""Robust fits of rows by a table of profiles, whose errors are not known: which genes to fit, and how far each is believed.

A table comes without its errors, and those of genes (another platform, other donors) outweigh the counting of a bulk sample. They
are relative to a gene's expression, so that genes are chosen by how far types differ relative to it (:func:`specific_genes`); and
a gene whose residual is large beside those of most genes of the same sample counts less (Huber's weights). With u = y / mean y
of a sample, `m = A x + b`, b >= 0 a background that all genes share, and `v = max(m, MIN_MEAN)`,

    sum_g h(r_g) A_gk (u_g - m_g) / v_g = 0 where x_k > 0, <= 0 where x_k = 0,    r = (u - m) / sqrt v,

h(r) = min(1, HUBER s / |r|), s being 1.4826 times the median |r| of the genes that were seen. With h = 1, no background and
m above `MIN_MEAN` these are the equations of Poisson's likelihood. A sample that is a mixture of the profiles is met exactly.

Where most genes were not seen (spots), or values are counts in some unit and vary about their Poisson fit hardly more than counts
do, that fit of all genes is the better one, and stays (:func:`beyond_counting`).
"""

import numba as nb
import numpy as np
from scipy import sparse

from unmix.core._active_set import FAST, solve_row

HUBER = 2.0
"""Residuals of more than so many standard deviations count less."""
MIN_MEAN = 1e-3
"""Variances are those of this share of the mean over the genes at least: a zero in a table is no proof of absence."""
GENES_PER_TYPE = 100
OFFSET = 0.5
"""What is added to a gene's mean, as a share of the mean over the genes, before differences are taken relative to it."""
COUNTING = 2.0
"""Counts whose dispersion is below this vary by counting more than by all else."""
MOST = 0.5
"""Share of genes seen that robust fits need; share of multiples of 1, or of the smallest value, that makes values counts."""
MAX_ITER, TOL = 100, 1e-7
TIE = 1e-6
"""Relative ridge on the background, which leaves to the types what they explain as well."""


def specific_genes(S: np.ndarray, per_type: int = GENES_PER_TYPE) -> np.ndarray:
    """Return the positions of the genes in which types differ most relative to their mean, ascending.

    Types are compared at the same total, so that the unit of a column does not matter.

    Examples
    --------
    >>> specific_genes(np.array([[9.0, 8.0], [1.0, 1.0], [2.0, 0.0], [0.0, 3.0]]), per_type=1)
    array([2, 3])
    """
    total = S.mean(axis=0)
    shares = S / np.where(total > 0, total, 1.0)
    mean = shares.mean(axis=1)
    relative = ((shares - mean[:, None]) ** 2).mean(axis=1) / (mean + OFFSET) ** 2
    order = np.argsort(-relative, kind="stable")[: per_type * S.shape[1]]
    return np.sort(order[relative[order] > 0])


def beyond_counting(Y: sparse.csr_array, dispersion: np.ndarray) -> np.ndarray:
    """Return which rows saw most genes and vary about their Poisson fit by more than counting, shape (N,).

    Parameters
    ----------
    Y
        Values, shape (N, G).
    dispersion
        Pearson dispersion of every row about its Poisson fit, in the unit of Y, shape (N,).

    Examples
    --------
    >>> Y = sparse.csr_array([[1.0, 4.0, 0.0], [0.1, 0.4, 0.0], [0.1, 0.4, 0.0], [0.1, 0.37, 0.25], [9.0, 0.0, 0.0]])
    >>> beyond_counting(Y, np.array([1.2, 0.12, 1.2, 0.12, 99.0]))
    array([False, False,  True,  True, False])
    """
    beyond = np.zeros(Y.shape[0], dtype=bool)
    for i in range(Y.shape[0]):
        values = Y.data[Y.indptr[i] : Y.indptr[i + 1]]
        values = values[values > 0]
        if values.size > MOST * Y.shape[1]:
            beyond[i] = not any(
                dispersion[i] <= COUNTING * unit and _are_multiples(values, unit) for unit in (1.0, values.min())
            )
    return beyond


def _are_multiples(values: np.ndarray, unit: float) -> bool:
    times = values / unit
    return bool(np.mean(np.abs(times - np.rint(times)) <= 1e-6 * times) > MOST)


def refit(
    Y: sparse.csr_array, A: np.ndarray, W: np.ndarray, dispersion: np.ndarray, specific: np.ndarray, *prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit the rows that vary beyond counting robustly, on some of the genes; the others keep their weights W.

    Returns
    -------
    Weights, shape (N, K), the background of every row, shape (N,), and which rows were fitted again, shape (N,).

    Examples
    --------
    >>> A = np.array([[8.0, 1.0], [1.0, 9.0], [5.0, 4.0], [0.0, 3.0], [7.0, 2.0], [2.0, 2.0]])
    >>> Y = sparse.csr_array(np.array([[9.0, 0.0, 0.0, 0.0, 0.0, 0.0], A @ [2.5, 1.5]]))
    >>> refit(Y, A, np.ones((2, 2)), np.full(2, 0.1), np.arange(6))[0].round(6)
    array([[1. , 1. ],
           [2.5, 1.5]])
    """
    again = np.flatnonzero(beyond_counting(Y, dispersion) & (len(specific) > 0))
    if len(again) == 0:
        return W, np.zeros(len(W)), np.zeros(len(W), dtype=bool)
    robust, level = fit_robust(Y[again][:, specific], A[specific], *(part[again] for part in prior))
    found = robust.sum(axis=1) > 0
    again = again[found]
    W, background, which = W.copy(), np.zeros(len(W)), np.zeros(len(W), dtype=bool)
    W[again], background[again], which[again] = robust[found], level[found], True
    return W, background, which


def described(Y: sparse.csr_array, specific: np.ndarray, background: np.ndarray, again: np.ndarray) -> str:
    """Say how rows were fitted, from what :func:`refit` returned.

    Examples
    --------
    >>> Y = sparse.csr_array(np.ones((2, 4)))
    >>> described(Y, np.arange(3), np.zeros(2), np.array([False, False]))
    'by likelihood on all genes: 2 observations saw few of them, or vary hardly more than counts do'
    """
    if not again.any():
        return (
            f"by likelihood on all genes: {len(again)} observations saw few of them, or vary hardly more than counts do"
        )
    share = np.median(background[again] * Y.shape[1] / np.asarray(Y.sum(axis=1)).ravel()[again])
    fit = f"robust on the {len(specific)} genes that differ most between types relative to their expression, "
    return (
        fit + f"background {share:.2%}; {int((~again).sum())} of {len(again)} observations by likelihood on all genes"
    )


def fit_robust(
    Y: sparse.csr_array, A: np.ndarray, target: np.ndarray | None = None, precision: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit every row of Y robustly by the columns of A and a background; rows are fitted on their own.

    Parameters
    ----------
    Y
        Non-negative values, shape (N, G).
    A
        Profiles, shape (G, K).
    target, precision
        A normal prior of the weights, shape (N, K), on the scale on which Y has the variance of counts; `None` for none.

    Returns
    -------
    Weights, shape (N, K), and the background of every row, in the unit of Y, shape (N,); zeros for a row of zeros.

    Examples
    --------
    >>> A = np.array([[8.0, 1.0], [1.0, 9.0], [5.0, 4.0], [0.0, 3.0], [7.0, 2.0], [2.0, 2.0]])
    >>> W, background = fit_robust(sparse.csr_array([A @ [2.0, 1.0]]), A)
    >>> W.round(6), background.round(6)
    (array([[2., 1.]]), array([0.]))
    """
    size = A.mean(axis=0)
    scaled = np.ascontiguousarray(np.column_stack([A / np.where(size > 0, size, 1.0), np.ones(len(A))]).T)
    unit = np.append(np.where(size > 0, size, np.inf), 1.0)
    X = np.zeros((Y.shape[0], len(unit)))
    pull = np.zeros_like(X) if precision is None else np.column_stack([precision, np.zeros(len(X))])
    aim = np.zeros_like(X) if target is None else np.column_stack([target, np.zeros(len(X))])
    _fit_rows(Y.indptr.astype(np.int64), Y.indices.astype(np.int64), Y.data.astype(float), scaled, unit, aim, pull, X)
    return X[:, :-1], X[:, -1]


@nb.njit(cache=True, nogil=True)
def _fit_rows(indptr, genes, values, A, unit, target, precision, X):  # type: ignore[no-untyped-def]
    """Fit every row of a CSR matrix; A holds profiles of mean one as rows, the last of them the background."""
    K, G = A.shape
    u, m, v, h, part = np.empty(G), np.empty(G), np.empty(G), np.empty(G), np.empty(G)
    H, c, d = np.empty((K, K)), np.empty(K), np.empty(K)
    L, vectors, order = np.empty((K, K)), np.empty((5, K)), np.empty(K, np.int64)
    for i in range(len(X)):
        own = genes[indptr[i] : indptr[i + 1]]
        mean = values[indptr[i] : indptr[i + 1]].sum() / G
        if not mean > 0.0:
            continue
        u[:] = 0.0
        for j in range(own.size):
            u[own[j]] = values[indptr[i] + j] / mean
        seen = u > 0.0
        x = np.full(K, 1.0 / (K - 1))
        x[K - 1] = 0.0
        h[:] = 1.0
        for turn in range(MAX_ITER):
            _means(A, x, m)
            for g in range(G):
                v[g] = max(m[g], MIN_MEAN)
            if turn > 0:
                _believe(u, m, v, seen, h, part)
            _normal_equations(A, u, h, v, part, H, c)
            H[K - 1, K - 1] *= 1.0 + TIE
            for k in range(K):
                H[k, k] += precision[i, k] * mean / unit[k] ** 2
                c[k] += precision[i, k] * target[i, k] / unit[k]
                d[k] = np.sqrt(H[k, k]) if H[k, k] > 0.0 else 1.0
            new = x * d
            H /= np.outer(d, d)
            solve_row(H, c / d, d, 0.0, new, L, vectors, order)
            new /= d
            moved = np.abs(new - x).max()
            step = 1.0 if turn < 10 else 0.5
            x += step * (new - x)
            if moved <= TOL:
                x[:] = new
                break
        X[i] = x * mean / unit


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _means(A, x, m):  # type: ignore[no-untyped-def]
    m[:] = 0.0
    for k in range(x.size):
        if x[k] != 0.0:
            for g in range(m.size):
                m[g] += A[k, g] * x[k]


@nb.njit(cache=True, nogil=True)
def _believe(u, m, v, seen, h, part):  # type: ignore[no-untyped-def]
    """Write Huber's weights of the residuals, whose scale is that of the genes seen."""
    for g in range(u.size):
        part[g] = abs(u[g] - m[g]) / np.sqrt(v[g])
    scale = max(1.4826 * np.median(part[seen]), 1e-9)
    for g in range(u.size):
        h[g] = min(1.0, HUBER * scale / max(part[g], 1e-300))


@nb.njit(cache=True, nogil=True, fastmath=FAST)
def _normal_equations(A, u, h, v, part, H, c):  # type: ignore[no-untyped-def]
    K, G = A.shape
    for k in range(K):
        total = 0.0
        for g in range(G):
            part[g] = A[k, g] * h[g] / v[g]
            total += part[g] * u[g]
        c[k] = total
        for n in range(k + 1):
            total = 0.0
            for g in range(G):
                total += part[g] * A[n, g]
            H[k, n] = H[n, k] = total

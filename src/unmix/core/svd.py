"""Truncated singular value decomposition X ~ U S V' of any matrix, centred implicitly, from passes over its rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import qr

from unmix.core._nmf_kernels import LANES, padded, times, transpose_times
from unmix.core.blocks import Block, as_rows, map_rows, reduce_rows

OVERSAMPLING = 10


@dataclass(frozen=True)
class SVD:
    """Singular triplets, largest first."""

    U: np.ndarray
    """Left singular vectors, (n_obs, k)."""
    S: np.ndarray
    """Singular values, (k,)."""
    V: np.ndarray
    """Right singular vectors, (n_vars, k); the entry of largest modulus of each is positive."""
    mean: np.ndarray
    """What was subtracted from every row, (n_vars,); zeros without centring."""
    total: float
    """Squared Frobenius norm of the (centred) matrix."""


def svd(
    X: Any,
    n_components: int,
    *,
    center: bool = False,
    n_passes: int = 6,
    oversampling: int = OVERSAMPLING,
    rng: "int | np.random.Generator | None" = 0,
    n_jobs: int = 1,
    block_rows: int | None = None,
    dtype: Any = np.float64,
) -> SVD:
    r"""Return the leading singular triplets of X, or of X minus its column means, by a randomised block Krylov method.

    The Krylov basis :math:`K = [\Omega, A'A\Omega, \dots, (A'A)^q\Omega]`, :math:`\Omega` Gaussian, is made orthonormal;
    the Rayleigh-Ritz values of :math:`A'A` on it converge far faster than those of the last block alone. Centring is
    implicit, :math:`A v = X v - 1 (\mu' v)`, so that sparse rows stay sparse.

    Parameters
    ----------
    X
        Matrix of shape (n_obs, n_vars), of any kind that :mod:`unmix.core.blocks` reads.
    n_components
        Number k of triplets, at most min(n_obs, n_vars).
    center
        Whether to subtract the column means.
    n_passes
        Number q of multiplications by A'A that widen the basis, each one pass over the rows; three more passes are made.
    oversampling
        By how much a block is wider than k.
    rng
        Seed of the start.
    n_jobs
        Threads.
    block_rows
        Rows of a block.
    dtype
        Precision of the products with X.

    Raises
    ------
    ValueError
        If `n_components` is not between 1 and min(n_obs, n_vars).

    References
    ----------
    Musco, Musco (2015), Randomized block Krylov methods for stronger and faster approximate SVD.

    Examples
    --------
    >>> svd(np.outer([3.0, 4.0], [0.0, 1.0]), 1).S
    array([5.])
    """
    X = as_rows(X)
    n_obs, n_vars = X.shape
    check_components(n_components, min(n_obs, n_vars))
    walk: dict[str, Any] = {"n_jobs": n_jobs, "block_rows": block_rows, "desc": "svd"}
    sums, total = reduce_rows(_column_sums, X, **walk)
    mean = sums / n_obs if center else np.zeros(n_vars)
    width = min(n_components + oversampling, n_obs, n_vars)
    K = _orthonormal(np.random.default_rng(rng).standard_normal((n_vars, width)))
    basis, products = K, []
    for step in range(n_passes + 1):
        AAK = reduce_rows(_normal_product, X, constants=(padded(K, dtype), mean), **walk)[:, : K.shape[1]]
        products.append(AAK)
        if step < n_passes and basis.shape[1] < n_vars:
            K = _orthonormal_to(AAK, basis)
            basis = np.hstack([basis, K])
        if step == n_passes or basis.shape[1] == sum(p.shape[1] for p in products):
            break
    gram = basis.T @ np.hstack(products)
    vectors = np.linalg.eigh(gram + gram.T)[1]
    V = _signed(basis @ vectors[:, ::-1][:, :n_components])
    US = map_rows(_centred_product, X, constants=(padded(V, dtype), mean), **walk)[:, :n_components]
    S = np.linalg.norm(US, axis=0)
    U = US / np.where(S > 0, S, 1)
    return SVD(U, S, V, mean, float(total - n_obs * (mean @ mean)))


def rough_svd(
    X: Any, n_components: int, *, n_passes: int = 4, rng: Any = 0, n_jobs: int = 1, dtype: Any = np.float64
) -> SVD:
    """Return the leading triplets about as well as a start needs them, by iterating on a subspace.

    A pass is two products and one small QR decomposition, where :func:`svd` keeps a basis that grows.

    Parameters
    ----------
    X, n_components, n_passes, rng, n_jobs, dtype
        As of :func:`svd`, without centring; two more passes are made.

    Examples
    --------
    >>> rough_svd(np.outer([3.0, 4.0], [0.0, 1.0]), 1).S
    array([5.])
    """
    X = as_rows(X)
    n_obs, n_vars = X.shape
    check_components(n_components, min(n_obs, n_vars))
    walk: dict[str, Any] = {"n_jobs": n_jobs, "desc": "svd"}
    width = min(-(-n_components // LANES) * LANES + LANES, n_obs, n_vars)
    K = np.random.default_rng(rng).standard_normal((n_vars, width))
    for _ in range(n_passes):
        K = _orthonormal(reduce_rows(_square_product, X, constants=(padded(K, dtype),), **walk)[:, :width])
    AK = map_rows(times, X, constants=(padded(K, dtype),), **walk)[:, :width].astype(np.float64, copy=False)
    vectors = np.linalg.eigh(AK.T @ AK)[1][:, ::-1][:, :n_components]
    US, V = AK @ vectors, K @ vectors
    S = np.linalg.norm(US, axis=0)
    return SVD(US / np.where(S > 0, S, 1), S, V, np.zeros(n_vars), np.nan)


def check_components(n_components: int, limit: int) -> None:
    """Refuse a number of components that is no integer between 1 and `limit`."""
    whole = isinstance(n_components, int | np.integer) and not isinstance(n_components, bool)
    if not whole or not 1 <= n_components <= limit:
        msg = f"`n_components` must be an integer from 1 to {limit}, got {n_components!r}."
        raise ValueError(msg)


def _column_sums(block: Block) -> tuple[np.ndarray, float]:
    """Return column sums and the sum of squares."""
    values = np.asarray(getattr(block, "data", block) if not isinstance(block, np.ndarray) else block, dtype=np.float64)
    return np.asarray(block.sum(axis=0, dtype=np.float64)).ravel(), float(np.vdot(values, values))


def _centred_product(block: Block, K: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return times(block, K) - mean.astype(K.dtype) @ K


def _normal_product(block: Block, K: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return this block's part of A'A K."""
    AK = _centred_product(block, K, mean)
    return transpose_times(block, AK) - np.outer(mean, AK.sum(axis=0, dtype=np.float64))


def _square_product(block: Block, K: np.ndarray) -> np.ndarray:
    return transpose_times(block, times(block, K))


def _orthonormal(K: np.ndarray) -> np.ndarray:
    return qr(K, mode="economic", check_finite=False)[0]


def _orthonormal_to(K: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of what K adds to `basis`; no column where it adds nothing."""
    Q, R = qr(K - basis @ (basis.T @ K), mode="economic", check_finite=False)
    turn, sizes, _ = np.linalg.svd(R)
    vectors = Q @ turn[:, sizes > 1e-10 * np.linalg.norm(K)]
    return _orthonormal(vectors - basis @ (basis.T @ vectors))


def _signed(V: np.ndarray) -> np.ndarray:
    """Flip columns so that the entry of largest modulus is positive."""
    largest = V[np.abs(V).argmax(axis=0), np.arange(V.shape[1])]
    return V * np.where(largest < 0, -1.0, 1.0)

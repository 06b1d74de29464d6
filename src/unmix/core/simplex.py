"""Non-negative and simplex-constrained least squares for many rows that share one design, and the projection.

Both problems are solved from the normal equations: with the design A (m, K), `gram = A'A` (K, K) and `cross = Y A`
(N, K) are all that a fit of the rows of Y needs, whatever m is. One primal active-set method on the Cholesky factor of
the free columns serves both (Lawson and Hanson 1974, chapter 23, started from a guess of the support as in Bro and de
Jong 1997): it visits no support twice, so that it ends after finitely many steps, and entries outside the support are
exactly zero. A column that depends on the free ones is left out: its multiplier is zero, so that the answer is optimal
without it; one that depends on them to working precision only takes the place of one of them where that lowers the
objective.
"""

import numpy as np

from unmix.core._active_set import solve_rows


def project_simplex(V: np.ndarray, total: float = 1.0) -> np.ndarray:
    r"""Project every row onto the simplex.

    .. math:: \underset{w}{\text{argmin}} \; \|w - v\|_2^2 \quad \text{s.t.} \quad w \ge 0, \; \sum_k w_k = total

    Parameters
    ----------
    V
        Rows to project, shape (N, K) or (K,).
    total
        Sum of every projected row, positive.

    Returns
    -------
    The projections, of the shape of V.

    Raises
    ------
    ValueError
        If `total` is not positive.

    Notes
    -----
    Exact, by sorting: the projection is `max(v - tau, 0)` with the one threshold tau that gives the sum (Held, Wolfe
    and Crowder 1974).

    Examples
    --------
    >>> import numpy as np
    >>> project_simplex(np.array([[2.0, 1.5, -1.0]]))
    array([[0.75, 0.25, 0.  ]])
    """
    if not total > 0:
        msg = f"total is {total}; the simplex needs a positive sum."
        raise ValueError(msg)
    V = np.asarray(V, dtype=float)
    K = V.shape[-1]
    excess = (np.cumsum(-np.sort(-V, axis=-1), axis=-1) - total) / np.arange(1, K + 1)
    tau = excess.max(axis=-1, keepdims=True)
    return np.maximum(V - tau, 0.0)


def nnls(gram: np.ndarray, cross: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    r"""Solve non-negative least squares for every row, from the normal equations.

    .. math:: \underset{w}{\text{argmin}} \; \tfrac12 w^\top G w - c^\top w \quad \text{s.t.} \quad w \ge 0

    Parameters
    ----------
    gram
        `A'A`, shape (K, K), shared by the rows, or (N, K, K), one a row. Positive semi-definite; it may be singular.
    cross
        `Y A`, shape (N, K).
    start
        Guess of the answer, shape (N, K); only its positive entries matter (a warm start). By default, those of the
        unconstrained answer where `gram` is shared, and all of them otherwise.

    Returns
    -------
    W, shape (N, K), exactly zero outside the support. Where the optimum is not unique, one of them.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.

    See Also
    --------
    nnls_kkt : the certificate of optimality.

    References
    ----------
    Lawson and Hanson (1974) Solving Least Squares Problems; Bro and de Jong (1997) Journal of Chemometrics 11, 393.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> Y = np.array([[1.0, 2.0, 3.0], [1.0, -2.0, 0.0]])
    >>> nnls(A.T @ A, Y @ A).round(12) + 0.0
    array([[1. , 2. ],
           [0.5, 0. ]])
    """
    gram, cross = _checked(gram, cross)
    scale = _column_scale(gram)
    scaled = gram / (scale[:, :, None] * scale[:, None, :])
    W = _start(scaled, cross / scale, start)
    solve_rows(scaled, cross / scale, np.ones_like(scale), 0.0, W)
    return W / scale


def simplex_ls(gram: np.ndarray, cross: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    r"""Solve least squares on the simplex for every row, from the normal equations.

    .. math:: \underset{w}{\text{argmin}} \; \tfrac12 w^\top G w - c^\top w \quad \text{s.t.} \quad w \ge 0, \;
              \sum_k w_k = 1

    Parameters
    ----------
    gram
        `A'A`, shape (K, K), shared by the rows, or (N, K, K), one a row. Positive semi-definite; it may be singular.
    cross
        `Y A`, shape (N, K).
    start
        Guess of the answer, shape (N, K); only its positive entries matter (a warm start).

    Returns
    -------
    W, shape (N, K), rows on the simplex, exactly zero outside the support. Where the optimum is not unique, one of
    them.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.

    See Also
    --------
    simplex_kkt : the certificate of optimality.

    Notes
    -----
    On the simplex a multiple of `11'` adds a constant to the objective. Adding it makes the free block regular as
    long as the columns are affinely independent.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> simplex_ls(A.T @ A, np.array([[0.75, 0.5], [3.0, 0.5]]) @ A)
    array([[0.625, 0.375],
           [1.   , 0.   ]])
    """
    gram, cross = _checked(gram, cross)
    mean_square = np.trace(gram, axis1=1, axis2=2)[:, None, None] / gram.shape[1]
    shifted = gram + np.where(mean_square > 0, mean_square, 1.0)
    scale = _column_scale(shifted)
    scaled = shifted / (scale[:, :, None] * scale[:, None, :])
    ones = np.ascontiguousarray(np.broadcast_to(1.0 / scale, (len(gram), gram.shape[1])))
    W = _start_simplex(scaled, cross / scale, ones, start)
    solve_rows(scaled, cross / scale, ones, 1.0, W)
    W /= scale
    return W / W.sum(axis=1, keepdims=True)


def nnls_kkt(gram: np.ndarray, cross: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return how far every row of W is from optimal for :func:`nnls`: the largest violation, relative.

    Parameters
    ----------
    gram, cross
        The problem, as in :func:`nnls`.
    W
        An answer, shape (N, K).

    Returns
    -------
    The largest of `|g_k|` where `w_k > 0`, `max(-g_k, 0)` where `w_k = 0` and `max(-w_k G_kk, 0)`, with `g = G w - c`,
    as a part of the largest term that makes up g; shape (N,). Columns count by their length.

    Examples
    --------
    >>> import numpy as np
    >>> nnls_kkt(np.eye(2), np.array([[1.0, -1.0]]), np.array([[1.0, 0.0], [0.5, 0.0]])[:1])
    array([0.])
    """
    gram, cross = _checked(gram, cross)
    return _violation(gram, cross, W, np.zeros(len(cross)))


def simplex_kkt(gram: np.ndarray, cross: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return how far every row of W is from optimal for :func:`simplex_ls`: the largest violation, relative.

    Parameters
    ----------
    gram, cross
        The problem, as in :func:`simplex_ls`.
    W
        An answer, shape (N, K).

    Returns
    -------
    As :func:`nnls_kkt` with the multiplier of the sum taken off the gradient, or `|sum w - 1|` where that is larger;
    shape (N,).

    Examples
    --------
    >>> import numpy as np
    >>> simplex_kkt(np.eye(2), np.array([[0.75, 0.25]]), np.array([[0.75, 0.25]]))
    array([0.])
    """
    gram, cross = _checked(gram, cross)
    multiplier = (W * (_times(gram, W) - cross)).sum(axis=1)  # equal to g_k on the support, as w sums to one
    return np.maximum(_violation(gram, cross, W, multiplier), np.abs(W.sum(axis=1) - 1.0))


def _times(gram: np.ndarray, W: np.ndarray) -> np.ndarray:
    return W @ gram[0] if len(gram) == 1 else np.einsum("nj,njk->nk", W, gram)


def _violation(gram: np.ndarray, cross: np.ndarray, W: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    length = _column_scale(gram)
    gradient = (_times(gram, W) - cross - multiplier[:, None]) / length
    size = np.maximum(np.abs(cross / length), _times(np.abs(gram), np.abs(W)) / length).max(axis=1)
    broken = np.where(W > 0, np.abs(gradient), np.maximum(-gradient, 0.0))
    broken = np.maximum(broken, np.maximum(-W, 0.0) * length).max(axis=1)
    return broken / np.where(size > 0, size, 1.0)


def _checked(gram: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `gram` as (1 or N, K, K) and `cross` as (N, K), both float64 and contiguous."""
    gram, cross = np.asarray(gram, dtype=float), np.ascontiguousarray(cross, dtype=float)
    stack = gram[None] if gram.ndim == 2 else gram
    if cross.ndim != 2 or stack.ndim != 3 or stack.shape[1:] != (cross.shape[1],) * 2:
        msg = f"gram has shape {gram.shape} and cross {cross.shape}; they must be (K, K) or (N, K, K), and (N, K)."
        raise ValueError(msg)
    if len(stack) not in (1, len(cross)):
        msg = f"gram has {len(stack)} matrices for {len(cross)} rows; give one for all rows or one for each."
        raise ValueError(msg)
    return stack, cross


def _column_scale(gram: np.ndarray) -> np.ndarray:
    """Return the lengths of the columns, shape (1 or N, K), one for a column of zeros."""
    squares = np.diagonal(gram, axis1=1, axis2=2)
    return np.sqrt(np.where(squares > 0, squares, 1.0))


def _start(gram: np.ndarray, cross: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """Return the guess as a new array: the given one, or the unconstrained answer where that costs one product."""
    if start is not None:
        return np.array(np.broadcast_to(start, cross.shape), dtype=float, order="C")
    return cross @ np.linalg.pinv(gram[0], hermitian=True) if len(gram) == 1 else np.ones_like(cross)


def _start_simplex(gram: np.ndarray, cross: np.ndarray, ones: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """As `_start`, with the sum imposed on the unconstrained answer."""
    W = _start(gram, cross, start)
    if start is None and len(gram) == 1:
        direction = np.linalg.pinv(gram[0], hermitian=True) @ ones[0]
        W += (1.0 - W @ ones[0])[:, None] * direction / (direction @ ones[0])
    return W

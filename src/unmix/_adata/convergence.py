"""The warning of an iteration that stopped at its limit."""

import warnings


class ConvergenceWarning(UserWarning):
    """An iteration stopped at its limit before its loss settled."""


def warn_unsettled(converged: bool, n_iter: int, what: str) -> None:
    """Say that a fit stopped early, and what to do."""
    if not converged:
        msg = f"{what} stopped after {n_iter} iterations before its loss settled; raise `max_iter` or `tol`."
        warnings.warn(msg, ConvergenceWarning, stacklevel=4)

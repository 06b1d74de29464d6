"""The weight by which alternating descent is continued along its last step (Ang and Gillis 2019)."""

from dataclasses import dataclass

GROWTH, BOUND_GROWTH, SHRINKAGE = 1.05, 1.01, 1.5
"""Factors of the weight and of its bound after a step that lowers the loss, and of the weight after one that does not."""


@dataclass
class Momentum:
    """The weight of an extrapolation: grows slowly up to a bound, shrinks at every failure.

    References
    ----------
    Ang, Gillis (2019), Accelerating nonnegative matrix factorization algorithms using extrapolation. Neural Comput. 31.

    Examples
    --------
    >>> momentum = Momentum()
    >>> momentum.grow()
    >>> momentum.beta
    0.315
    >>> momentum.shrink()
    >>> momentum.beta, momentum.bound
    (0.21, 0.315)
    """

    beta: float = 0.3
    """The paper begins with 0.5, which fails soon after a start that is far off in the first steps (`"nndsvd"`)."""
    bound: float = 1.0

    def grow(self) -> None:
        """Continue further, up to the bound, which rises more slowly."""
        self.beta = min(self.bound, GROWTH * self.beta)
        self.bound = min(1.0, BOUND_GROWTH * self.bound)

    def shrink(self) -> None:
        """Continue less far, and not beyond the weight that failed."""
        self.bound = self.beta
        self.beta /= SHRINKAGE

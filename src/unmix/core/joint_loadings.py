"""The loadings of an integrative factorisation while it is fitted, and the sums over rows that they are improved from.

What the loadings and the loss need of a batch are its k x k Gram matrix W_b'W_b and its cross product X_b'W_b; variables
that a batch did not measure drop out of both.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unmix.core._hals_kernels import hals
from unmix.core._nmf_kernels import transpose_times
from unmix.core.blocks import Block
from unmix.core.factorization import SWEEPS


@dataclass(frozen=True)
class Known:
    """Loadings of an earlier fit, to start from or to keep."""

    H: np.ndarray
    """Shared, (k, n_vars)."""
    V: dict[int, np.ndarray]
    """Own part, (k, n_vars), of every batch that the earlier fit knew."""
    keep: bool = False
    """Whether these loadings stay as they are."""


class Sums(dict[int, tuple[np.ndarray, np.ndarray]]):
    """For every batch the cross product X_b'W_b and the Gram matrix W_b'W_b; sums add batch by batch."""

    def __add__(self, other: "Sums") -> "Sums":
        """Add what two blocks know."""
        total = Sums(self)
        for b, (XtW, WtW) in other.items():
            total[b] = (total[b][0] + XtW, total[b][1] + WtW) if b in total else (XtW, WtW)
        return total

    def __neg__(self) -> "Sums":
        """Change the sign, to take a block's earlier sums away."""
        return Sums({b: (-XtW, -WtW) for b, (XtW, WtW) in self.items()})


@dataclass
class Loadings:
    """H and V_b as they are being fitted, and what is known about the batches."""

    Ht: np.ndarray
    """Shared, (n_vars, K)."""
    Vt: list[np.ndarray]
    """Own, (n_vars, K) each."""
    D: np.ndarray
    """Scales, (n_batches, n_vars); zero where the batch did not measure the variable."""
    squares: np.ndarray
    """Squared norm of X_b D_b."""
    specificity: float
    k: int
    fixed: set[int] = field(default_factory=set)
    """Batches whose own part stays as it is."""
    fixed_H: bool = False

    def copy(self) -> "Loadings":
        """Return these loadings as they are now."""
        return replace(self, Vt=list(self.Vt))

    def full(self, b: int) -> tuple[np.ndarray, np.ndarray]:
        """Return H + V_b on the variables of the batch, and the Gram matrix of its usages' problem."""
        V = self.Vt[b].astype(np.float64, copy=False)
        F = self._shared(b) + V
        return F, F.T @ F + self.specificity * (V.T @ V)

    def _shared(self, b: int) -> np.ndarray:
        """Return H on the variables that the batch measured."""
        return np.where((self.D[b] > 0)[:, None], self.Ht, 0).astype(np.float64)

    def constants(self, dtype: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what a pass over the rows needs of every batch."""
        both = [self.full(b) for b in range(len(self.D))]
        return [((d[:, None] * F).astype(dtype), G[: self.k, : self.k]) for d, (F, G) in zip(self.D, both, strict=True)]

    def loss(self, sums: Sums) -> float:
        """Return the objective at the rows that the sums are made of."""
        total = 0.0
        for b, (XtW, WtW) in sums.items():
            F, G = self.full(b)
            total += self.squares[b] - 2 * float((self.D[b][:, None] * XtW * F).sum()) + float((WtW * G).sum())
        return total

    def improve(self, sums: Sums) -> None:
        """Improve V_b of every batch seen, then H, by coordinate descent on Gram matrices."""
        cross = {b: self.D[b][:, None] * XtW for b, (XtW, _) in sums.items()}
        for b, (_, WtW) in sums.items():
            if b not in self.fixed:
                heavier = (1 + self.specificity) * WtW[: self.k, : self.k]
                self.Vt[b] = hals(cross[b] - self._shared(b) @ WtW, self.Vt[b], heavier, SWEEPS)
        if not self.fixed_H:
            self.Ht = self._improved_shared(sums, cross)

    def _improved_shared(self, sums: Sums, cross: dict[int, np.ndarray]) -> np.ndarray:
        """Improve H, each variable on the batches that measured it."""
        out = self.Ht.copy()
        measured = self.D > 0
        kinds, which = np.unique(measured, axis=1, return_inverse=True)
        for i, kind in enumerate(kinds.T):
            seen = [int(b) for b in np.flatnonzero(kind) if b in sums]
            if seen and (kind.sum() > 1 or len(self.D) == 1):
                here = np.flatnonzero(which.ravel() == i)
                gram = np.sum([sums[b][1] for b in seen], axis=0)
                rest = np.sum([cross[b][here] - self.Vt[b][here] @ sums[b][1] for b in seen], axis=0)
                out[here] = hals(rest, out[here], gram[: self.k, : self.k], SWEEPS)
        return out


def by_batch(block: Block, codes: np.ndarray) -> list[tuple[int, Any, Block]]:
    """Cut a block into the rows of every batch: batch, positions, rows; without a copy where there is one batch."""
    present = np.unique(codes)
    if len(present) == 1:
        return [(int(present[0]), slice(None), block)]
    places = [(int(b), np.flatnonzero(codes == b)) for b in present]
    return [(b, rows, block[rows]) for b, rows in places]


def sums_of(block: Block, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return X'W and W'W of rows of one batch, in double precision."""
    W = np.ascontiguousarray(W)
    double = W.astype(np.float64, copy=False)
    return transpose_times(block, W), double.T @ double

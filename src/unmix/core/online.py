"""Loadings improved after every block of rows, for data on disk: a few passes do the work of many.

The sums X_b'W_b and W_b'W_b are always those of the rows as they stand: a block that is visited again first has its
earlier sums taken away. Every step is thus one of block coordinate descent on the full objective, which cannot rise
once every row has been seen; there is no learning rate, and no forgetting.
"""

from typing import Any

import numpy as np

from unmix.core._hals_kernels import hals
from unmix.core._nmf_kernels import times
from unmix.core.blocks import Block, default_block_rows, take_rows
from unmix.core.factorization import SWEEPS, Walk
from unmix.core.joint_loadings import Loadings, Sums, by_batch, sums_of

BLOCKS = 16
SMALLEST_BLOCK = 64


class Online:
    """Passes over X in parts of rows that hold every batch, in random order; one part is in memory at a time.

    References
    ----------
    Mairal et al. (2010), Online learning for matrix factorization and sparse coding.
    Gao et al. (2021), Iterative single-cell multi-omic integration using online learning.
    """

    def __init__(
        self, X: Any, codes: np.ndarray, W: np.ndarray, loadings: Loadings, walk: Walk, rng: np.random.Generator
    ) -> None:
        self.X, self.codes, self.W, self.loadings, self.rng = X, codes, W, loadings, rng
        self.parts = mixed_parts(codes, walk.block_rows or online_block_rows(*X.shape))
        self.sums, self.seen = Sums(), np.zeros(len(self.parts), bool)

    def improve(self) -> float:
        """Visit every part once, improving its rows of W in place and the loadings; return the loss."""
        for i in self.rng.permutation(len(self.parts)):
            rows = self.parts[i]
            self.sums = self.sums + self._visit(take_rows(self.X, rows), rows, again=bool(self.seen[i]))
            self.loadings.improve(self.sums)
            self.seen[i] = True
        return self.loadings.loss(self.sums)

    def _visit(self, block: Block, rows: np.ndarray, *, again: bool) -> Sums:
        """Improve the rows of W; return by how much the sums change."""
        W, change = self.W, Sums()
        constants = self.loadings.constants(W.dtype)
        for b, where, part in by_batch(block, self.codes[rows]):
            Ft, G = constants[b]
            here = rows[where]
            before = Sums({b: sums_of(part, W[here])}) if again else Sums()
            W[here] = hals(times(part, Ft), W[here], G, SWEEPS)
            change = change + Sums({b: sums_of(part, W[here])}) + -before
        return change


def mixed_parts(codes: np.ndarray, block_rows: int) -> list[np.ndarray]:
    """Cut the rows into parts of at most about `block_rows`, each with its share of every batch, in increasing order.

    Rows of a batch stay together, so that a part is read in as few runs as there are batches.

    Examples
    --------
    >>> [part.tolist() for part in mixed_parts(np.array([0, 0, 0, 0, 1, 1]), 3)]
    [[0, 1, 4], [2, 3, 5]]
    """
    n_parts = -(-len(codes) // block_rows)
    runs = [np.array_split(np.flatnonzero(codes == b), n_parts) for b in np.unique(codes)]
    parts = [np.sort(np.concatenate(pieces)) for pieces in zip(*runs, strict=True)]
    return [part for part in parts if len(part)]


def online_block_rows(n_obs: int, n_vars: int) -> int:
    """Return the rows of a block: as by default, less where that would make few blocks.

    Examples
    --------
    >>> online_block_rows(2_000, 1_000), online_block_rows(1_000_000, 2_000)
    (125, 4096)
    """
    return min(default_block_rows(n_vars), max(SMALLEST_BLOCK, -(-n_obs // BLOCKS)))

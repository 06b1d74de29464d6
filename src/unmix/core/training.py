"""What the training loop needs: moments of the genes, a stratified split, shuffled batches from any matrix."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from unmix.core.blocks import (
    Block,
    as_block,
    as_rows,
    default_block_rows,
    is_dask,
    iter_blocks,
    reduce_rows,
    row_slices,
)
from unmix.core.cluster import computed
from unmix.core.networks import Batch
from unmix.core.team import ALONE, Team

BUFFER_BLOCKS = 8
"""Blocks of rows that are read, and shuffled, together."""
FOLDS = 5
"""Parts of the genes of which each is predicted from the others, on held-out rows."""


@dataclass(frozen=True)
class Genes:
    """Moments of the genes over the cells, and what turns counts into inputs."""

    mean: np.ndarray
    """Mean of the counts divided by the cell's size."""
    variance: np.ndarray
    inverse_size: float
    """Mean of 1 / size."""
    input_scale: np.ndarray
    """What inputs are divided by: the root mean square, over genes, of the standard deviations of log(1 + count / size), so
    that genes weigh as much as they vary; where values are no counts, the gene's own standard deviation."""
    median_total: float

    @property
    def varies(self) -> np.ndarray:
        """Whether values that are no counts differ between cells, by more than rounding."""
        return np.sqrt(self.variance) > 1e-6 * np.abs(self.mean)

    @property
    def blank(self) -> np.ndarray:
        """Return the genes' mean inputs, where values are no counts: what stands for those that are hidden."""
        return (self.mean / self.input_scale).astype(np.float32)

    def log_dispersion(self) -> np.ndarray:
        """Return log theta by moments: excess variance of size-scaled counts is mean^2 / theta."""
        excess = self.variance - self.mean * self.inverse_size
        with np.errstate(divide="ignore", invalid="ignore"):
            theta = np.where(excess > 0, self.mean**2 / excess, 100.0)
        return np.log(np.clip(np.nan_to_num(theta, nan=1.0), 0.05, 100.0)).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """A matrix and what is known of its rows: totals, codes of batches, design matrix."""

    X: Any
    totals: np.ndarray
    batch: np.ndarray
    codes: np.ndarray
    counts: bool = True

    @property
    def used(self) -> np.ndarray:
        """Whether a row has counts."""
        return self.used_at(slice(None))

    def used_at(self, at: Any) -> np.ndarray:
        """Tell of some rows whether they have counts; of a block without looking at all others."""
        totals = self.totals[at]
        return totals > 0 if self.counts else np.ones(len(totals), bool)


def gene_moments(rows: Rows, n_jobs: int = 1) -> Genes:
    """Return the moments of the genes over the cells with counts, in one pass."""
    median = float(np.median(rows.totals[rows.used])) if rows.counts else 1.0
    sizes = np.where(rows.used, rows.totals, median) / median if rows.counts else np.ones(len(rows.totals))
    sums = reduce_rows(_block_moments, rows.X, sizes, rows.used, constants=(rows.counts,), n_jobs=n_jobs)
    n = max(int(rows.used.sum()), 1)
    mean, square, y_mean, y_square = (s / n for s in sums)
    variances = np.maximum(y_square - y_mean**2, 0)
    scale = np.sqrt(np.full_like(variances, variances.mean()) if rows.counts else variances)
    least = 1e-8 if rows.counts else 1e-6 * np.abs(mean)
    return Genes(
        mean,
        np.maximum(square - mean**2, 0),
        float(np.mean(1 / sizes[rows.used])),
        np.where(scale > least, scale, 1.0).astype(np.float32),
        median,
    )


def _block_moments(block: Block, sizes: np.ndarray, used: np.ndarray, counts: bool) -> tuple[np.ndarray, ...]:
    x = sparse.csr_array(block, dtype=np.float64)
    x.data = x.data / np.repeat(sizes, np.diff(x.indptr))
    x.data *= np.repeat(used, np.diff(x.indptr))
    y = np.log1p(x.data) if counts else x.data
    return tuple(np.bincount(x.indices, v, x.shape[1]) for v in (x.data, x.data**2, y, y**2))


def make_batch(block: Any, rows: Rows, at: np.ndarray, genes: Genes) -> Batch:
    """Return rows of X, found at positions `at`, as a batch; a zero that is stored is one as any other, maybe dropped out.

    Values that are no counts are in units of the gene's standard deviation, whatever theirs is.
    """
    x = sparse.csr_array(as_block(block))
    if not x.data.all():
        x = x.copy()
        x.eliminate_zeros()
    counts = x.data.astype(np.float32)
    size = np.where(rows.used_at(at), rows.totals[at], genes.median_total) / genes.median_total
    size = size if rows.counts else np.ones(len(at))
    per_count = np.repeat(size, np.diff(x.indptr)).astype(np.float32)
    inputs = (np.log1p(counts / per_count) if rows.counts else counts) / genes.input_scale[x.indices]
    inputs = inputs.astype(np.float32)
    return Batch(
        x.indptr.astype(np.int64),
        x.indices.astype(np.int64),
        counts if rows.counts else inputs,
        inputs,
        np.log(size).astype(np.float32),
        rows.batch[at],
        rows.codes[at],
    )


def split_rows(
    rows: Rows, share: float, rng: np.random.Generator, largest: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """Return training and validation rows: neighbours in (batch, total) form strata, one of each is held out."""
    order = np.flatnonzero(rows.used)
    order = order[np.lexsort((rng.random(len(order)), rows.totals[order], rows.batch[order]))]
    n_held = min(max(int(round(share * len(order))), 1), largest)
    strata = np.array_split(order, n_held)
    held = np.array([rng.choice(stratum) for stratum in strata if len(stratum)])
    return np.setdiff1d(order, held), np.sort(held)


def masked(
    batch: Batch, share: float, rng: np.random.Generator, team: Team = ALONE, blank: np.ndarray | None = None
) -> Batch:
    """Hide a random share of the counts from the encoder; the inputs that remain stand for all."""
    if share == 0:
        return batch
    start, n = team.before(len(batch.inputs))
    keep = rng.random(n, dtype=np.float32)[start : start + len(batch.inputs)] >= share
    return replace(batch, inputs=_shown(batch, keep * np.float32(1 / (1 - share)), blank))


def _shown(batch: Batch, weight: np.ndarray, blank: np.ndarray | None) -> np.ndarray:
    """Return inputs times weights; where values are no counts, which are about any mean, their differences from it."""
    if blank is None:
        return batch.inputs * weight
    mean = blank[batch.indices]
    return mean + weight * (batch.inputs - mean)


@dataclass(frozen=True)
class Blind:
    """Rows of which some genes are to be predicted from the others."""

    batch: Batch
    genes: np.ndarray
    """Columns that the encoder does not see, in ascending order."""
    target: Batch
    """The rows in these columns."""
    blank: np.ndarray | None = None
    """What stands for a hidden input, where values are no counts."""

    @property
    def visible(self) -> Batch:
        """Return the rows as the encoder sees them."""
        scale = np.ones(int(max(self.batch.indices.max(initial=0), self.genes.max())) + 1, np.float32)
        scale[self.genes] = 0
        weight = scale[self.batch.indices] * np.float32(1 / (1 - 1 / FOLDS))
        return replace(self.batch, inputs=_shown(self.batch, weight, self.blank))


def blind_folds(batch: Batch, n_vars: int, rng: np.random.Generator, blank: np.ndarray | None = None) -> list[Blind]:
    """Cut the genes into `FOLDS` parts, each to be predicted from the others."""
    counts = sparse.csr_array((batch.counts, batch.indices, batch.indptr), shape=(batch.n, n_vars))
    folds = []
    for genes in np.array_split(rng.permutation(n_vars), min(FOLDS, n_vars)):
        genes.sort()
        part = counts[:, genes]
        part.sort_indices()
        target = replace(
            batch, indptr=part.indptr.astype(np.int64), indices=part.indices.astype(np.int64), counts=part.data,
            inputs=part.data,
        )  # fmt: skip
        folds.append(Blind(batch, genes, target, blank))
    return folds


def take_rows(X: Any, wanted: np.ndarray) -> sparse.csr_array:
    """Return some rows of X, in ascending order, in one walk over the blocks."""
    parts = []
    for rows, block in iter_blocks(X):
        at = wanted[(wanted >= rows.start) & (wanted < rows.stop)] - rows.start
        if len(at):
            parts.append(sparse.csr_array(block[at]))
    return sparse.csr_array(sparse.vstack(parts))


@dataclass(frozen=True)
class Part:
    """What this process has of a batch."""

    batch: Batch
    n: int
    """Rows of the whole batch."""
    rows: slice
    """Which of them are here."""


def batches(
    rows: Rows, train: np.ndarray, genes: Genes, batch_size: int, rng: np.random.Generator, team: Team = ALONE
) -> Iterator[Part]:
    """Walk once over the training rows in random order.

    Blocks of consecutive rows are drawn at random, `BUFFER_BLOCKS` at a time, and the rows of each such buffer are
    shuffled, so that a matrix on disk is read by blocks and a small one is shuffled as a whole. A rest of less than
    half a batch joins the batch before it.
    """
    X = as_rows(rows.X)
    in_memory = isinstance(X, np.ndarray) or sparse.issparse(X)
    slices = row_slices(X.shape[0], default_block_rows(X.shape[1]))
    order = rng.permutation(len(slices))
    for first in range(0, len(slices), BUFFER_BLOCKS):
        chosen = [slices[k] for k in order[first : first + BUFFER_BLOCKS]]
        chosen.sort(key=lambda s: s.start)
        at = np.concatenate([train[np.searchsorted(train, s.start) : np.searchsorted(train, s.stop)] for s in chosen])
        at = rng.permutation(at)
        buffer, local = (X, at) if in_memory else _read(X, chosen, at)
        for part in _cut(len(at), batch_size):
            n = part.stop - part.start
            own = team.part(n)
            here = slice(part.start + own.start, part.start + own.stop)
            yield Part(make_batch(buffer[local[here]], rows, at[here], genes), n, own)


def _read(X: Any, slices: list[slice], at: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
    """Read blocks from disk or a Dask array; return them and the positions of rows within them."""
    blocks = [computed(X[s]) if is_dask(X) else X[s] for s in slices]
    starts = np.array([s.start for s in slices])
    offsets = np.concatenate([[0], np.cumsum([s.stop - s.start for s in slices])[:-1]])
    k = np.searchsorted(starts, at, side="right") - 1
    return sparse.csr_array(sparse.vstack([sparse.csr_array(as_block(b)) for b in blocks])), at - starts[k] + offsets[k]


def _cut(n: int, size: int) -> list[slice]:
    stops = list(range(size, n, size))
    if stops and n - stops[-1] < size // 2 + 1:
        stops.pop()
    return [slice(a, b) for a, b in zip([0, *stops], [*stops, n], strict=True) if b > a]

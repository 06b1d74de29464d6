"""Metagenes: gene programs that recur over many non-negative factorisations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.networks import network_weights
from unmix._adata.outweighing import row_squares, warn_outweighed
from unmix._adata.read import check_expression, read_matrix, summarise_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.core.consensus import best_rank
from unmix.core.factorization import Walk
from unmix.core.rank import choose_rank
from unmix.tl._programs import (
    Replication,
    batch_codes,
    consensus_at,
    consensus_slot,
    enriched,
    gene_scale,
    prepare,
    refit,
    scaled,
)

UNITS = ("variance", "poisson")


@tool
def metagenes(
    adata: AnnData,
    n_components: int | Sequence[int] | Literal["auto"],
    *,
    n_runs: int = 100,
    n_top_genes: int = 2000,
    genes: Sequence[str] | None = None,
    loss: Literal["frobenius", "kl"] = "frobenius",
    unit: Literal["variance", "poisson"] = "variance",
    batch_key: str | None = None,
    max_distance: float = 0.5,
    neighbourhood: float = 0.3,
    n_top: int = 50,
    max_cells: int | None = 100_000,
    net: pd.DataFrame | Mapping[str, Sequence[str]] | None = None,
    checkpoint: str | Path | None = None,
    tol: float = 1e-5,
    max_iter: int = 1000,
    layer: str | None = None,
    key_added: str = "metagenes",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    """Gene programs by consensus NMF: many random starts, clustered spectra, medians, refits.

    Counts of overdispersed genes, each divided by its standard deviation (see `unit`), are factorised `n_runs` times.
    Spectra that recur are clustered and their medians taken; usages and the spectra of all genes, per million
    transcripts, are then refitted by exact non-negative least squares.

    Parameters
    ----------
    adata
        Cells or spots with counts.
    n_components
        Number of programs; several, of which the most stable is taken; or `"auto"`, the number that best predicts
        entries held out at random.
    n_runs
        Random starts per number of programs.
    n_top_genes
        Genes to factorise: those whose Fano factor most exceeds the trend.
    genes
        The genes to factorise, instead.
    loss
        `"frobenius"` or `"kl"`.
    unit
        By what a gene's counts are divided: `"variance"`, their standard deviation, as cNMF does; `"poisson"`, the root
        of their mean, the part of it that is counting noise. Genes that vary by more than noise then count for more.
    batch_key
        Column of `obs` with the batch. Genes are then chosen by their variance within batches, and counts are divided
        by a factor per gene and batch: what the batch has of the gene over what the programs of its cells expect.
    max_distance
        A spectrum counts where its mean distance to its nearest others is smaller (unit vectors; 2 keeps all).
    neighbourhood
        How many are nearest: this share of `n_runs`.
    n_top
        Number of top genes to list per program.
    max_cells
        Cells that the runs are made of, at most: of more, as many are drawn at random. Usages and spectra are refitted
        on all. `None` for no limit.
    net
        Gene sets to test every program for: a table with the columns `source`, `target` and, if wanted, `weight` (as
        decoupler has them), or sets of genes by name; those with 5 genes in the data.
    checkpoint
        Folder in which finished runs are kept: a call that was interrupted goes on from there when it is repeated with
        the same data, options and seed.
    tol
        Tolerance of every run.
    max_iter
        Largest number of iterations of every run.
    layer
        Layer with the counts; `None` for `X`.
    key_added
        Name of the slots.
    rng
        Seed.
    n_jobs
        Threads, shared out among the runs; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields:

    `obsm["X_" + key_added]` : float32, n_obs x k
        Usages; rows sum to 1, NaN for cells without counts in the genes used. Most used program first.
    `varm[key_added]` : n_vars x k
        Spectra in transcripts per million.
    `varm[key_added + "_score"]` : n_vars x k
        Regression of each gene's z-scored transcripts per million on the usages: what marks a program.
    `uns[key_added]` : dict
        `stability` (a table: silhouette, cophenetic correlation, dispersion, error and replicates kept of every number
        of programs tried), `selection` (held-out losses, with `"auto"`), `consensus` (of up to 500 cells: `matrix`, the
        share of runs that put two of them into the same program, and their `names`, in the order of its tree),
        `top_genes`, `enrichment` (with `net`: t statistic, p- and q-value of every set in every program), `genes`,
        `scale` (of the genes `var_names`), with `batch_key` `batches` (their `names`, and on `genes` the `scales` of their
        counts, last of a batch that is not known, and the `spectra` fitted to scaled counts), `params`.

    Raises
    ------
    KeyError
        If `layer`, `batch_key` or a gene does not exist.
    ValueError
        If the counts are negative or not finite, a batch is missing, fewer genes vary than there are programs, no
        program recurs, or no set of `net` has enough genes.

    Warns
    -----
    CountsWarning
        If the matrix holds something else than counts.
    OutweighedWarning
        If under squared error one cell in a hundred, or fewer, holds most of the sum of squares.

    References
    ----------
    Kotliar et al. (2019), Identifying gene expression programs of cell-type identity and cellular activity with
    single-cell RNA-Seq. eLife 8, e43803. Brunet et al. (2004), PNAS 101, 4164.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.metagenes(reference, 5, n_runs=5, n_top_genes=200, max_distance=2.0)
    >>> reference.obsm["X_metagenes"].shape[1]
    5
    """
    ranks = check_ranks(n_components, n_runs)
    if unit not in UNITS:
        msg = f"`unit` must be one of {list(UNITS)}, got {unit!r}."
        raise ValueError(msg)
    threads = settings.threads(n_jobs)
    matrix = read_matrix(adata, layer)
    codes, batches = batch_codes(adata, batch_key)
    sets = None if net is None else network_weights(net, matrix.var_names)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=True)
    walk = Walk(n_jobs=threads, tol=tol, max_iter=max_iter)
    data = prepare(matrix, summary, genes, n_top_genes, max(ranks, default=1), codes, max_cells, unit, rng, threads)
    if loss == "frobenius":
        squares = row_squares(scaled(data.counts, gene_scale(data.counts, unit)), n_jobs=threads)
        warn_outweighed(squares, matrix.obs_names[data.rows], 'use `loss="kl"`')
    quick = Walk(n_jobs=threads, tol=1e-3, max_iter=60)
    curve = None
    if not ranks:
        X = scaled(data.counts, gene_scale(data.counts, unit))
        curve = choose_rank(X, loss=loss, rng=rng, walk=quick)
    plan = Replication(n_runs, loss, max_distance, neighbourhood, walk, rng, checkpoint)
    found = {k: consensus_at(data, k, plan) for k in ranks or [curve.chosen]}  # type: ignore[union-attr]
    table = pd.DataFrame([f.stability for f in found.values()])
    chosen = found[best_rank(table["silhouette"].tolist(), list(found))]
    slots = refit(matrix, data, chosen, batches, threads, key_added, n_top)
    more = {"stability": table, "consensus": consensus_slot(chosen, data, adata.obs_names)}
    if curve is not None:
        more["selection"] = {"ranks": curve.ranks, "held_out": curve.losses}
    if sets is not None:
        more["enrichment"] = enriched(slots.varm[key_added + keys.SCORE].T, *sets)
    slots.uns[key_added] |= more
    return slots


def check_ranks(n_components: Any, n_runs: Any) -> list[int]:
    """Return the numbers of programs to try; none for "auto"."""
    if isinstance(n_runs, bool) or not isinstance(n_runs, int | np.integer) or n_runs < 2:
        msg = f"`n_runs` must be an integer of at least 2, got {n_runs!r}."
        raise ValueError(msg)
    if isinstance(n_components, str) and n_components == "auto":
        return []
    ranks = [n_components] if np.ndim(n_components) == 0 else list(n_components)
    if not ranks or any(isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1 for k in ranks):
        msg = f'`n_components` must be an integer >= 1, several of them, or "auto", got {n_components!r}.'
        raise ValueError(msg)
    return sorted({int(k) for k in ranks})

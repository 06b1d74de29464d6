"""Metagenes: gene programs that recur over many non-negative factorisations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata import keys
from unmix._adata.read import Matrix, RowSummary, check_expression, read_matrix, summarise_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import logger, settings
from unmix.core.blocks import iter_blocks
from unmix.core.consensus import (
    Consensus,
    best_rank,
    brunet,
    combine,
    fano_genes,
    gene_moments,
    refit_spectra,
    replicate,
    row_shares,
)
from unmix.core.factorization import Walk, usages
from unmix.core.rank import choose_rank
from unmix.tl._project import aligned_loadings

MILLION = 1e6
SAMPLED = 1000
"""Cells of the consensus matrix of hard assignments."""


@tool
def metagenes(
    adata: AnnData,
    n_components: int | Sequence[int] | Literal["auto"],
    *,
    n_runs: int = 100,
    n_top_genes: int = 2000,
    genes: Sequence[str] | None = None,
    loss: Literal["frobenius", "kl"] = "frobenius",
    max_distance: float = 0.5,
    neighbourhood: float = 0.3,
    n_top: int = 50,
    tol: float = 1e-4,
    max_iter: int = 1000,
    layer: str | None = None,
    key_added: str = "metagenes",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    """Gene programs by consensus NMF: many random starts, clustered spectra, medians, refits.

    Counts of overdispersed genes, each divided by its standard deviation, are factorised `n_runs` times. Spectra that
    recur are clustered and their medians taken; usages and the spectra of all genes, per million transcripts, are then
    refitted by exact non-negative least squares.

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
    max_distance
        A spectrum counts where its mean distance to its nearest others is smaller (unit vectors; 2 keeps all).
    neighbourhood
        How many are nearest: this share of `n_runs`.
    n_top
        Number of top genes to list per program.
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
        of programs tried), `selection` (held-out losses, with `"auto"`), `top_genes`, `genes`, `scale`, `params`.

    Raises
    ------
    KeyError
        If `layer` or a gene does not exist.
    ValueError
        If the counts are negative or not finite, fewer genes vary than there are programs, or no program recurs.

    Warns
    -----
    CountsWarning
        If the matrix holds something else than counts.

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
    threads = settings.threads(n_jobs)
    matrix = read_matrix(adata, layer)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=True)
    walk = Walk(n_jobs=threads, tol=tol, max_iter=max_iter)
    data = prepare(matrix, summary, genes, n_top_genes, max(ranks, default=1), threads)
    quick = Walk(n_jobs=threads, tol=1e-3, max_iter=60)
    curve = None if ranks else choose_rank(data.scaled, loss=loss, rng=rng, walk=quick)
    found, stability = {}, []
    for k in ranks or [curve.chosen]:  # type: ignore[union-attr]
        found[k], row = consensus_at(data, k, n_runs, loss, max_distance, neighbourhood, walk, rng)
        stability.append(row)
    table = pd.DataFrame(stability)
    chosen = best_rank(table["silhouette"].tolist(), list(found))
    slots = refit(matrix, data, found[chosen], threads, key_added, n_top)
    slots.uns[key_added]["stability"] = table
    if curve is not None:
        slots.uns[key_added]["selection"] = {"ranks": curve.ranks, "held_out": curve.losses}
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


@dataclass(frozen=True)
class Prepared:
    """The matrix of the genes that are factorised."""

    scaled: sparse.csr_array
    """Counts over the genes' standard deviations, rows with counts only, in memory."""
    filled: np.ndarray
    """Which rows these are."""
    columns: np.ndarray
    per_million: np.ndarray
    """What each row is multiplied by, (n_obs,)."""
    tpm_sd: np.ndarray
    """Standard deviations of transcripts per million, (n_vars,)."""


def prepare(
    matrix: Matrix, summary: RowSummary, genes: Sequence[str] | None, n_top_genes: int, most: int, threads: int
) -> Prepared:
    """Choose the genes, and scale their counts to unit variance.

    Raises
    ------
    KeyError
        If a gene does not exist.
    ValueError
        If fewer genes vary, or fewer cells have counts, than there are programs.
    """
    per_million = np.where(summary.totals > 0, MILLION / np.where(summary.totals > 0, summary.totals, 1), 0)
    mean, variance = gene_moments(matrix.X, per_million, n_jobs=threads)
    n_obs = matrix.X.shape[0]
    tpm_sd = np.sqrt(variance * n_obs / max(n_obs - 1, 1))
    columns = fano_genes(mean, variance, n_top_genes) if genes is None else matrix.var_names.get_indexer(list(genes))
    if (columns < 0).any():
        msg = f"`genes` lists genes that do not exist: {np.asarray(genes)[columns < 0][:5].tolist()}."
        raise KeyError(msg)
    columns = columns[variance[columns] > 0]
    held = sparse.vstack([sparse.csr_array(block)[:, columns] for _, block in iter_blocks(matrix.X)], format="csr")
    held = held.astype(np.float32)
    filled = np.asarray(held.sum(axis=1)).ravel() > 0
    held = held[filled]
    if min(len(columns), filled.sum()) < max(most, 2):
        have = f"only {len(columns)} genes vary and {int(filled.sum())} cells have counts of them"
        msg = f"`n_components` asks for {most} programs, but {have}."
        raise ValueError(msg)
    _, count_variance = gene_moments(held, np.ones(held.shape[0]))
    sd = np.sqrt(count_variance * len(filled) / max(len(filled) - 1, 1))
    scaled = sparse.csr_array(held @ sparse.diags_array(1 / np.where(sd > 0, sd, 1).astype(np.float32)))
    return Prepared(scaled, filled, columns, per_million, tpm_sd)


def consensus_at(
    data: Prepared, k: int, n_runs: int, loss: str, max_distance: float, neighbourhood: float, walk: Walk, rng: Any
) -> tuple[Consensus, dict[str, float]]:
    """Find the consensus of k programs and how stable it is."""
    seeds = np.random.default_rng(rng)
    sampled = np.sort(seeds.choice(data.scaled.shape[0], min(SAMPLED, data.scaled.shape[0]), replace=False))
    runs = replicate(data.scaled, k, n_runs=n_runs, loss=loss, sampled=sampled, walk=walk, rng=seeds)
    found = combine(runs, k, max_distance=max_distance, neighbourhood=neighbourhood, rng=seeds)
    cophenetic, dispersion = brunet(runs.labels)
    logger.info("%d metagenes: silhouette %.3f, %d spectra kept", k, found.silhouette, found.kept.sum())
    return found, {
        "n_components": k,
        "silhouette": found.silhouette,
        "cophenetic": cophenetic,
        "dispersion": dispersion,
        "error": runs.error,
        "kept": int(found.kept.sum()),
    }


def refit(matrix: Matrix, data: Prepared, found: Consensus, threads: int, key: str, n_top: int) -> Slots:
    """Refit usages and the spectra of all genes, and name what was found."""
    walk = Walk(n_jobs=threads)
    W = np.zeros((len(data.filled), len(found.spectra)))
    W[data.filled] = usages(data.scaled, found.spectra, walk=walk)
    order = np.argsort(-row_shares(W).sum(axis=0), kind="stable")
    spectra, scores = refit_spectra(matrix.X, W[:, order], data.per_million, n_jobs=threads)
    scale = np.zeros(len(data.tpm_sd))
    scale[data.columns] = 1 / np.where(data.tpm_sd[data.columns] > 0, data.tpm_sd[data.columns], np.inf)
    final = program_shares(matrix.X, spectra, scale, data.per_million, walk)
    final[~data.filled] = np.nan
    top = np.argsort(-scores, axis=1, kind="stable")[:, :n_top]
    entry = {
        "top_genes": pd.DataFrame({f"{c + 1}": matrix.var_names[best].astype(str) for c, best in enumerate(top)}),
        "genes": matrix.var_names[data.columns].astype(str).to_numpy(),
        "scale": scale,
    }
    return Slots(
        obsm={keys.EMBEDDING + key: final.astype(np.float32)},
        varm={key: np.ascontiguousarray(spectra.T), key + keys.SCORE: np.ascontiguousarray(scores.T)},
        uns={key: entry},
    )


def program_shares(X: Any, spectra: np.ndarray, scale: np.ndarray, per_million: np.ndarray, walk: Walk) -> np.ndarray:
    """Return row-normalised usages of spectra for transcripts per million whose genes are multiplied by `scale`.

    A row's factor scales its usages only, so that counts can be used as they are.
    """
    shares = row_shares(usages(X, spectra * scale**2, walk=walk, gram=(spectra * scale) @ (spectra * scale).T))
    shares[(shares.sum(axis=1) == 0) | (per_million == 0)] = np.nan
    return shares


def project_metagenes(
    adata: AnnData, fitted: AnnData, key: str, layer: str | None, threads: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the shares of the programs in new cells."""
    matrix = read_matrix(adata, layer)
    genes, scale = pd.Index(fitted.var_names), np.asarray(fitted.uns[key]["scale"])
    used = np.asarray(fitted.varm[key]) * (scale > 0)[:, None]
    spectra, shared = aligned_loadings(used, genes, matrix)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=True)
    weights = pd.Series(scale, index=genes).reindex(matrix.var_names).fillna(0.0).to_numpy()
    shares = program_shares(matrix.X, spectra, weights, summary.totals, Walk(n_jobs=threads))
    return shares.astype(np.float32), {"n_shared_genes": shared}

"""The steps of `tl.metagenes`: what is factorised, the consensus of a rank, refits, and new cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata import keys
from unmix._adata.read import Matrix, RowSummary, check_expression, read_matrix, summarise_rows
from unmix._adata.runs import RunFolder
from unmix._adata.signatures import shared_with_fit
from unmix._adata.stored import (
    VAR_NAMES,
    Entry,
    numbers_by_gene,
    stored_array,
    stored_entry,
    stored_names,
    stored_parts,
)
from unmix._adata.write import Slots
from unmix._settings import logger
from unmix.core.batches import divided, gene_factors, scaled_usages
from unmix.core.blocks import Block, stream_rows
from unmix.core.brunet import Agreement, brunet
from unmix.core.consensus import Consensus, combine, fano_genes, gene_moments, refit_spectra, row_shares
from unmix.core.enrichment import univariate
from unmix.core.factorization import Walk, usages
from unmix.core.replicates import replicate
from unmix.tl._project import aligned_loadings

MILLION = 1e6
SMALLEST = float(np.finfo(np.float32).tiny)
"""A gene that varies less does not vary."""
SAMPLED = 500
"""Cells of the consensus matrix of hard assignments."""


@dataclass(frozen=True)
class Prepared:
    """The matrix of the genes that are factorised."""

    counts: sparse.csr_array
    """Rows with counts only, in memory; a sample of them where there are many."""
    rows: np.ndarray
    """Which rows these are."""
    codes: np.ndarray | None
    """Batch of every row of the data, (n_obs,)."""
    columns: np.ndarray
    per_million: np.ndarray
    """What each row is multiplied by, (n_obs,)."""
    tpm_scale: np.ndarray
    """What transcripts per million are divided by, (n_vars,)."""
    unit: str
    """What counts are divided by: `"variance"` (its root), or `"poisson"`, the root of the mean."""


def batch_codes(adata: AnnData, batch_key: str | None) -> tuple[np.ndarray | None, list[str]]:
    """Return the batch of every observation as a number, if there are any, and the names of all.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a batch is missing.
    """
    if batch_key is None:
        return None, []
    if batch_key not in adata.obs:
        msg = f"`batch_key` {batch_key!r} is not a column of obs; there are {list(adata.obs.columns)}."
        raise KeyError(msg)
    codes, names = pd.factorize(adata.obs[batch_key], sort=True)
    if (codes < 0).any():
        msg = f"{int((codes < 0).sum())} observations have no {batch_key!r}; leave them out or name their batch."
        raise ValueError(msg)
    return codes, [str(name) for name in names]


def prepare(
    matrix: Matrix,
    summary: RowSummary,
    genes: Sequence[str] | None,
    n_top_genes: int,
    most: int,
    codes: np.ndarray | None,
    max_cells: int | None,
    unit: str,
    rng: Any,
    threads: int,
) -> Prepared:
    """Choose the genes, and gather their counts in at most `max_cells` rows.

    Raises
    ------
    KeyError
        If a gene does not exist.
    ValueError
        If fewer genes vary, or fewer cells have counts, than there are programs.
    """
    per_million = np.where(summary.totals > 0, MILLION / np.where(summary.totals > 0, summary.totals, 1), 0)
    mean, variance = gene_moments(matrix.X, per_million, codes, n_jobs=threads)
    columns = fano_genes(mean, variance, n_top_genes) if genes is None else known_genes(matrix, genes)
    columns = columns[variance[columns] > 0]
    rows, held = gathered(matrix.X, columns, sampled_rows(summary.totals > 0, max_cells, rng))
    if min(len(columns), len(rows)) < max(most, 2):
        have = f"only {len(columns)} genes vary and {len(rows)} cells have counts of them"
        msg = f"`n_components` asks for {most} programs, but {have}."
        raise ValueError(msg)
    scale = np.sqrt(mean) if unit == "poisson" else _sample_sd(variance, int((per_million > 0).sum()))
    return Prepared(held, rows, codes, columns, per_million, scale, unit)


def sampled_rows(able: np.ndarray, most: int | None, rng: Any) -> np.ndarray:
    """Return the rows that are able to be used, or so many of them at random."""
    rows = np.flatnonzero(able)
    if most is None or len(rows) <= most:
        return rows
    logger.info("programs are looked for in %d of %d cells, drawn at random", most, len(rows))
    return np.sort(np.random.default_rng(rng).spawn(1)[0].choice(rows, most, replace=False))


def gathered(X: Any, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
    """Return those of the rows that have counts in the columns, and these counts, single precision, in memory."""
    wanted = np.zeros(X.shape[0], bool)
    wanted[rows] = True
    parts = list(stream_rows(_counts_at, X, wanted, constants=(columns,), desc="counts of the genes"))
    held = sparse.csr_array(sparse.vstack(parts, format="csr"))
    some = np.diff(held.indptr) > 0
    return rows[some], held if some.all() else held[some]


def _counts_at(block: Block, wanted: np.ndarray, columns: np.ndarray) -> sparse.csr_array:
    """Return the wanted rows and columns without stored zeros."""
    part = sparse.csr_array(block[wanted][:, columns], dtype=np.float32)
    part.eliminate_zeros()
    return part


def scaled_counts(data: Prepared, k: int, walk: Walk, rng: Any) -> tuple[sparse.csr_array, np.ndarray]:
    """Return what k programs are fitted to: scaled counts, with batches freed of their gene factors.

    Also by what counts were multiplied, for every batch and, last, for one that is not known, (n_batches + 1, n_genes); this
    one, and one that is not in the sample, has no factors.
    """
    counts, factors = data.counts, np.ones((1, data.counts.shape[1]))
    if data.codes is not None:
        present, codes = np.unique(data.codes[data.rows], return_inverse=True)
        factors = np.ones((int(data.codes.max()) + 2, counts.shape[1]))
        factors[present] = gene_factors(counts, codes, k, walk=walk, rng=rng)
        counts = divided(counts, data.codes[data.rows], factors)
    size = gene_scale(counts, data.unit)
    return scaled(counts, size), 1 / (factors * size)


def gene_scale(X: sparse.csr_array, unit: str) -> np.ndarray:
    """Return what every column is divided by: its standard deviation, or for `"poisson"` that of its counting noise."""
    mean, variance = gene_moments(X, np.ones(X.shape[0]))
    size = np.sqrt(mean) if unit == "poisson" else _sample_sd(variance, X.shape[0])
    return np.where(size > SMALLEST, size, 1)


def scaled(X: sparse.csr_array, size: np.ndarray) -> sparse.csr_array:
    """Return X with its columns divided by their sizes."""
    return sparse.csr_array(X @ sparse.diags_array((1 / size).astype(np.float32)))


def known_genes(matrix: Matrix, genes: Sequence[str]) -> np.ndarray:
    """Return the positions of genes by name."""
    genes = list(dict.fromkeys(genes))  # lists of markers share some
    columns = matrix.var_names.get_indexer(genes)
    if (columns < 0).any():
        msg = f"`genes` lists genes that do not exist: {np.asarray(genes)[columns < 0][:5].tolist()}."
        raise KeyError(msg)
    return columns


def _sample_sd(variance: np.ndarray, n: int) -> np.ndarray:
    """Return standard deviations with n - 1 in the denominator."""
    return np.sqrt(variance * n / max(n - 1, 1))


@dataclass(frozen=True)
class Replication:
    """How the runs are made and combined."""

    n_runs: int
    loss: str
    max_distance: float
    neighbourhood: float
    walk: Walk
    rng: Any
    checkpoint: str | Path | None


@dataclass(frozen=True)
class Candidate:
    """What was found at one number of programs."""

    programs: Consensus
    scales: np.ndarray
    """By what the counts were multiplied that the programs were fitted to, as from :func:`scaled_counts`."""
    agreement: Agreement
    sampled: np.ndarray
    """Rows of the prepared matrix that the agreement is about."""
    stability: dict[str, float]


def consensus_at(data: Prepared, k: int, plan: Replication) -> Candidate:
    """Find the consensus of k programs and how stable it is."""
    seeds = np.random.default_rng(plan.rng)
    n_obs = data.counts.shape[0]
    scaled, scales = scaled_counts(data, k, plan.walk, np.random.default_rng(0))
    sampled = np.sort(seeds.choice(n_obs, min(SAMPLED, n_obs), replace=False))
    options: dict[str, Any] = {"n_runs": plan.n_runs, "loss": plan.loss, "sampled": sampled}
    if plan.checkpoint is not None:
        limits = (plan.walk.tol, plan.walk.max_iter)
        state = str(seeds.bit_generator.state)
        folder = RunFolder(plan.checkpoint, scaled, k, plan.loss, sampled.tobytes(), limits, state)
        options |= {"finished": folder.finished(), "keep": folder.keep}
    runs = replicate(scaled, k, walk=plan.walk, rng=seeds, **options)
    found = combine(runs, k, max_distance=plan.max_distance, neighbourhood=plan.neighbourhood, rng=seeds)
    agreement = brunet(runs.labels)
    logger.info("%d metagenes: silhouette %.3f, %d spectra kept", k, found.silhouette, found.kept.sum())
    stability = {
        "n_components": k,
        "silhouette": found.silhouette,
        "cophenetic": agreement.cophenetic,
        "dispersion": agreement.dispersion,
        "error": runs.error,
        "kept": int(found.kept.sum()),
    }
    return Candidate(found, scales, agreement, sampled, stability)


def consensus_slot(chosen: Candidate, data: Prepared, names: pd.Index) -> dict[str, Any]:
    """Return the consensus matrix and whom its rows are about."""
    rows = data.rows[chosen.sampled[chosen.agreement.order]]
    return {"matrix": chosen.agreement.matrix.astype(np.float32), "names": names[rows].astype(str).to_numpy()}


def enriched(scores: np.ndarray, names: list[str], weights: sparse.csc_array) -> pd.DataFrame:
    """Return the test of every set in every program as a tidy table, the strongest of each program first."""
    expressed = (scores != 0).any(axis=0)
    found = univariate(scores[:, expressed], weights[np.flatnonzero(expressed)])
    n_programs, n_sets = found.t.shape
    table = pd.DataFrame({
        "program": np.repeat([str(c + 1) for c in range(n_programs)], n_sets),
        "source": np.tile(names, n_programs),
        "t": found.t.ravel(),
        "pval": found.p.ravel(),
        "qval": found.q.ravel(),
    })  # fmt: skip
    order = np.lexsort([-table["t"].to_numpy(), np.repeat(np.arange(n_programs), n_sets)])
    return table.iloc[order].reset_index(drop=True)


def refit(
    matrix: Matrix, data: Prepared, found: Candidate, batches: list[str], threads: int, key: str, n_top: int
) -> Slots:
    """Refit usages and the spectra of all genes, and name what was found."""
    W = scaled_usages(matrix.X, found.programs.spectra, data.columns, data.codes, found.scales, n_jobs=threads)
    first = np.argsort(-row_shares(W).sum(axis=0), kind="stable")
    W = W[:, first]
    spectra, scores = refit_spectra(matrix.X, W, data.per_million, n_jobs=threads)
    scale = np.zeros(len(data.tpm_scale))
    scale[data.columns] = 1 / np.where(data.tpm_scale[data.columns] > 0, data.tpm_scale[data.columns], np.inf)
    if data.codes is None:
        final = program_shares(matrix.X, spectra, scale, data.per_million, Walk(n_jobs=threads))
    else:
        final = row_shares(W)
    final[W.sum(axis=1) == 0] = np.nan
    order = np.argsort(-np.nansum(final, axis=0), kind="stable")
    final, spectra, scores = final[:, order], spectra[order], scores[order]
    top = np.argsort(-scores, axis=1, kind="stable")[:, :n_top]
    entry = {
        "top_genes": pd.DataFrame({f"{c + 1}": matrix.var_names[best].astype(str) for c, best in enumerate(top)}),
        "genes": matrix.var_names[data.columns].astype(str).to_numpy(),
        "scale": scale,
        VAR_NAMES: matrix.var_names.astype(str).to_numpy(),
    }
    if data.codes is not None:
        own = found.programs.spectra[first][order]
        entry["batches"] = {"names": np.array(batches), "scales": found.scales, "spectra": own}
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
    matrix, entry = read_matrix(adata, layer), stored_entry(fitted, key, "metagenes")
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=True)
    if "batches" in entry:
        shares, shared = _shares_by_batch(adata, matrix, entry, threads)
        return shares.astype(np.float32), {"n_shared_genes": shared}
    genes, scale = pd.Index(fitted.var_names), numbers_by_gene(fitted, entry, "scale")
    used = stored_array(fitted, "varm", key) * (scale > 0)[:, None]
    spectra, shared = aligned_loadings(used, genes, matrix)
    weights = pd.Series(scale, index=genes).reindex(matrix.var_names).fillna(0.0).to_numpy()
    shares = program_shares(matrix.X, spectra, weights, summary.totals, Walk(n_jobs=threads))
    return shares.astype(np.float32), {"n_shared_genes": shared}


def _shares_by_batch(adata: AnnData, matrix: Matrix, entry: Entry, threads: int) -> tuple[np.ndarray, int]:
    """Return the shares of the programs in cells of known batches, and of others without factors, as the fit made them."""
    batches, genes = stored_parts(entry, "batches"), pd.Index(stored_names(entry, "genes"))
    shared = shared_with_fit(genes, matrix.var_names)
    at = matrix.var_names.get_indexer(genes)
    H, scales = (np.asarray(batches[part], dtype=float)[:, at >= 0] for part in ("spectra", "scales"))
    names, column = stored_names(batches, "names"), stored_parts(entry, "params")["batch_key"]
    of = adata.obs[column].astype(str) if column in adata.obs else [""] * adata.n_obs
    codes = pd.Index(names).get_indexer(of)
    W = scaled_usages(matrix.X, H, at[at >= 0], np.where(codes < 0, len(names), codes), scales, n_jobs=threads)
    shares = row_shares(W)
    shares[W.sum(axis=1) == 0] = np.nan
    return shares, shared

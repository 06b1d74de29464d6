"""What a fitted autoencoder says of rows: where they lie, how well they are rebuilt, and what was there to be counted."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from unmix.core.autoencoder import Fit, Options, build, one_torch_thread
from unmix.core.blocks import Block, map_reduce_rows, stream_rows
from unmix.core.inflation import Inflation, Table, empty_table, tabulate, zero_inflation
from unmix.core.networks import Network
from unmix.core.training import Genes, Rows, make_batch

BLOCK_ENTRIES = 2**20
MAX_SCORED = 20_000
"""Rows, evenly spaced, from which genes are scored."""


@dataclass(frozen=True)
class Projection:
    """What a fitted autoencoder says of rows, and, where asked for, of genes."""

    latent: np.ndarray
    variance: np.ndarray
    """Of the posterior; no columns for a plain autoencoder."""
    nll: np.ndarray
    """Negative log-likelihood in nats."""
    dropout: np.ndarray | None = None
    """Mean probability of dropout by gene, of a zero-inflated likelihood."""
    inflation: Inflation | None = None


def block_rows(n_vars: int) -> int:
    """Return how many rows are decoded at a time."""
    return int(np.clip(BLOCK_ENTRIES // n_vars, 64, 512))


def project(
    fit: Fit, rows: Rows, *, score_genes: bool = False, n_jobs: int = 1, device: str = "auto", desc: str = ""
) -> Projection:
    """Map rows to the latent space; rows without counts become NaN.

    Parameters
    ----------
    fit, rows
        A fitted autoencoder and the counts.
    score_genes
        Whether to ask of every gene if it needs zero inflation; for counts.
    n_jobs, device
        Threads; where to compute.
    desc
        Name on the progress bar.
    """
    G, L = fit.design.n_vars, fit.design.n_latent
    scored = _evenly(rows.used, MAX_SCORED if score_genes else 0)
    centre = np.log(np.maximum(fit.genes.mean, 0) + 1e-6)  # of real values, whose means may be negative, none is scored
    with one_torch_thread():
        net = build(fit.design, fit.weights, Options(device=device, precision="float32")).eval()
        constants = (net, replace(rows, X=None), fit.genes, centre)
        at = np.arange(len(rows.totals))
        table, (cells, above, dropout) = map_reduce_rows(
            _project_block, rows.X, at, scored, constants=constants, block_rows=block_rows(G), n_jobs=n_jobs, desc=desc
        )
    latent, nll = table[:, :-1], table[:, -1]
    where = latent[:, :L], latent[:, L:], nll
    if not score_genes:
        return Projection(*where)
    inflation = zero_inflation(Table(cells, above), centre)
    return Projection(*where, dropout / max(scored.sum(), 1) if fit.design.inflated else None, inflation)


def _evenly(used: np.ndarray, most: int) -> np.ndarray:
    """Choose at most so many of the rows with counts, evenly spaced."""
    chosen, candidates = np.zeros(len(used), bool), np.flatnonzero(used)
    if most:
        chosen[candidates[:: -(-len(candidates) // most) or 1]] = True
    return chosen


@torch.no_grad()
def _project_block(
    block: Block, at: np.ndarray, scored: np.ndarray, net: Network, rows: Rows, genes: Genes, centre: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return latent means, variances and losses side by side, and the sums from which genes are scored."""
    batch = make_batch(block, rows, at, genes)
    z, log_var = net.encode(batch)
    h = net.decode(z, batch.codes)
    nll = net.row_losses(h, batch) + (0.0 if rows.counts else np.log(genes.input_scale[genes.varies]).sum())
    result = np.column_stack([z.cpu().numpy(), log_var.exp().cpu().numpy(), nll]).astype(np.float32)
    result[~rows.used_at(at)] = np.nan
    if not scored.any():
        return result, (np.zeros(()), np.zeros(()), np.zeros(()))
    part = make_batch(block[scored], rows, at[scored], genes)
    mean, _, *dropout = net.parameters_of(h[torch.as_tensor(scored)], part)
    table = empty_table(len(centre))
    tabulate(mean.cpu().numpy(), centre, part.indptr, part.indices, part.counts, table)
    lost = torch.sigmoid(dropout[0]).sum(0, dtype=torch.float64).cpu().numpy() if dropout else np.zeros(())
    return result, (table.cells, table.above, lost)


@dataclass(frozen=True)
class Wanted:
    """Which decoded values."""

    genes: np.ndarray | None = None
    """Columns; None for all."""
    dropout: bool = False
    """Whether to multiply by the probability of no dropout, (1 - pi) mu: what would be counted, not what is there."""
    library: bool = True
    """Whether means are those of the cell's own total; False for those of a cell of median total."""
    conditions: Rows | None = None
    """Batches and covariates for which to decode, if not the rows' own."""


def denoise(
    fit: Fit, rows: Rows, wanted: Wanted = Wanted(), *, n_jobs: int = 1, device: str = "auto", desc: str = ""
) -> Iterator[np.ndarray]:
    """Yield the decoder's means, block by block in the order of the rows.

    Parameters
    ----------
    fit, rows
        A fitted autoencoder and the counts.
    wanted
        Which genes, and which mean.
    n_jobs, device
        Threads; where to compute.
    desc
        Name on the progress bar.

    Yields
    ------
    Means, shape (rows of the block, number of genes), float32; NaN in rows without counts.
    """
    with one_torch_thread():
        net = build(fit.design, fit.weights, Options(device=device, precision="float32")).eval()
        at, constants = np.arange(len(rows.totals)), (net, replace(rows, X=None), fit.genes, _without_matrix(wanted))
        how: dict[str, Any] = {"constants": constants, "block_rows": block_rows(fit.design.n_vars), "n_jobs": n_jobs}
        yield from stream_rows(_denoise_block, rows.X, at, desc=desc, **how)


def _without_matrix(wanted: Wanted) -> Wanted:
    """Leave out what no block needs and no worker should be sent."""
    return wanted if wanted.conditions is None else replace(wanted, conditions=replace(wanted.conditions, X=None))


@torch.no_grad()
def _denoise_block(block: Block, at: np.ndarray, net: Network, rows: Rows, genes: Genes, wanted: Wanted) -> np.ndarray:
    batch = make_batch(block, rows, at, genes)
    z, _ = net.encode(batch)
    if not wanted.library:
        batch = replace(batch, log_size=np.zeros_like(batch.log_size))
    if wanted.conditions is not None:
        batch = replace(batch, batch=wanted.conditions.batch[at], codes=wanted.conditions.codes[at])
    params = net.parameters_of(net.decode(z, batch.codes), batch, wanted.genes)
    real = net.design.likelihood == "gaussian"
    unit = torch.as_tensor(genes.input_scale if wanted.genes is None else genes.input_scale[wanted.genes])
    mean = params[0] * unit.to(params[0].device) if real else params[0].exp()
    if wanted.dropout and net.design.inflated:
        mean = mean * torch.sigmoid(-params[2])
    result = mean.cpu().numpy()
    result[~rows.used_at(at)] = np.nan
    return result


def samples(projection: Projection, n_samples: int, seed: int) -> np.ndarray:
    """Draw from the posterior of a variational autoencoder; shape (n_obs, n_samples, n_latent), float32."""
    rng = np.random.default_rng([seed, 3])
    mean, sd = projection.latent, np.sqrt(projection.variance)
    noise = rng.standard_normal((len(mean), n_samples, mean.shape[1]), dtype=np.float32)
    return mean[:, None] + sd[:, None] * noise

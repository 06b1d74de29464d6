"""`tl.joint_nmf` for the batches of an AnnData: which genes each measured, where to start, what is written."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.convergence import warn_unsettled
from unmix._adata.outweighing import row_squares, warn_outweighed
from unmix._adata.read import (
    Matrix,
    check_expression,
    check_some,
    check_unique,
    read_labels,
    read_matrix,
    summarise_rows,
)
from unmix._adata.stored import VAR_NAMES, numbers_by_gene, stored_array, stored_entry, stored_names
from unmix._adata.tool import check_anndata, tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.core.alignment import quantile_align
from unmix.core.factorization import Walk
from unmix.core.joint import Batches, batch_detections, batch_rms, joint_batches
from unmix.core.joint_counts import joint_counts
from unmix.core.joint_loadings import Known
from unmix.tl._joint_views import ADVICE

EXPECTED = 30
"""Cells in which a gene is expected and found in none: where batches are alike, the chance is e^-30."""
SILENT = 0.01
"""Share of the genes expected in a batch that may be silent there, as genes of a cell type or sex that it lacks are."""


class MeasuredWarning(UserWarning):
    """Genes that a batch seems not to have measured are fitted as zeros."""


@tool
def joint_nmf(
    adata: AnnData,
    n_components: int,
    *,
    batch_key: str,
    loss: str,
    specificity: float,
    scale: bool,
    measured: pd.DataFrame | str | None,
    align: bool,
    online: int,
    start: AnnData | None,
    freeze: bool,
    tol: float,
    max_iter: int,
    layer: str | None,
    key_added: str,
    rng: Any,
    n_jobs: int | None,
    copy: bool,
) -> Slots:
    """Do what :func:`unmix.tl.joint_nmf` does for batches."""
    check_numbers(specificity, online, start, freeze)
    poisson = loss == "kl"
    threads = settings.threads(n_jobs)
    matrix, labels = read_matrix(adata, layer), read_labels(adata, batch_key, name="batch_key")
    check_labels(labels, batch_key, at_least=1 if start is not None else 2)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=poisson)
    check_some(matrix, summary)
    names, codes = [str(name) for name in labels.categories], np.asarray(labels.codes, dtype=np.int64)
    known = None if start is None else known_loadings(start, key_added, n_components, names, matrix, keep=freeze)
    rms = batch_rms(matrix.X, codes, len(names), n_jobs=threads)
    scaled = scale and not poisson
    D = np.where(rms > 0, 1 / np.where(rms > 0, rms, 1), 1.0) if scaled else np.ones_like(rms)
    if scaled and start is not None and freeze:
        keep_scales(D, start, key_added, names, matrix)
    D *= measured_genes(adata, measured, names, rms)
    if measured is None and ((rms > 0).any(axis=0) & ~(rms > 0).all(axis=0)).any():
        warn_of_silence(batch_detections(matrix.X, codes, len(names), n_jobs=threads), codes, names)
    if not poisson:
        warn_outweighed(row_squares(matrix.X, D, codes, n_jobs=threads), matrix.obs_names, ADVICE)
    walk = Walk(n_jobs=threads, tol=tol, max_iter=max_iter)
    options: dict[str, Any] = {"specificity": specificity, "known": known, "walk": walk, "rng": rng}
    if poisson:
        fit = joint_counts(matrix.X, codes, n_components, measured=D > 0, **options)
    else:
        fit = joint_batches(matrix.X, codes, n_components, scales=D, online=online, **options)
    warn_unsettled(fit.converged, len(fit.loss), "joint_nmf")
    slots = batch_slots(fit, codes, names, D, key_added, align=align)
    slots.uns[key_added][VAR_NAMES] = matrix.var_names.astype(str).to_numpy()
    return slots


def check_numbers(specificity: float, online: int, start: Any, freeze: bool) -> None:
    """Refuse numbers out of range, and `freeze` without something to keep."""
    if not (specificity >= 0 and np.isfinite(specificity)):
        msg = f"`specificity` must be a finite number >= 0, got {specificity!r}."
        raise ValueError(msg)
    if isinstance(online, bool) or not isinstance(online, int | np.integer) or online < 0:
        msg = f"`online` must be a number of passes, an integer >= 0, got {online!r}."
        raise ValueError(msg)
    if freeze and start is None:
        msg = "`freeze` keeps the loadings of `start`; give `start=` too."
        raise ValueError(msg)


def check_labels(labels: pd.Categorical, batch_key: str, *, at_least: int) -> None:
    """Refuse missing labels and too few batches."""
    if (labels.codes < 0).any() or len(labels.categories) < at_least:
        given = f"found {list(labels.categories)}, and {int((labels.codes < 0).sum())} cells without a label"
        wanted = "two batches" if at_least > 1 else "one batch"
        msg = f"obs[{batch_key!r}] must give every cell one of at least {wanted}; {given}."
        raise ValueError(msg)


def warn_of_silence(found: np.ndarray, codes: np.ndarray, names: list[str]) -> None:
    """Say so where batches lack more genes that others have than cell types and sexes explain.

    A gene is expected in a batch in as many cells as it is found in, cell by cell, in the batches that have it.

    Warns
    -----
    MeasuredWarning
        If more than `SILENT` of the genes expected in at least `EXPECTED` cells of a batch are found in none.
    """
    sizes, has = np.bincount(codes, minlength=len(names))[:, None], found > 0
    rate = found.sum(axis=0) / np.maximum((has * sizes).sum(axis=0), 1)
    due = (sizes * rate >= EXPECTED) & (found.sum(axis=0) >= EXPECTED)
    silent, expected = (due & ~has).sum(axis=1), due.sum(axis=1)
    lacking = [f"{names[b]!r} {silent[b]} of {expected[b]}" for b in np.flatnonzero(silent > SILENT * expected)]
    if lacking:
        told = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        msg = (
            f"of the genes expected in at least {EXPECTED} of its cells, a batch has no count of many ({told}). They are fitted "
            'as zeros; if they were not measured there, as after an outer join, give `measured="nonzero"` or a table; if they '
            'were, `measured="all"` says so.'
        )
        warnings.warn(msg, MeasuredWarning, stacklevel=4)


def measured_genes(adata: AnnData, measured: Any, names: list[str], rms: np.ndarray) -> np.ndarray:
    """Return which genes each batch measured, (n_batches, n_vars).

    Raises
    ------
    KeyError
        If there is no such table, or it lacks a batch or a gene.
    ValueError
        If a gene was measured by no batch, or the table leaves it open.
    """
    if measured is None or (isinstance(measured, str) and measured == "all"):
        return np.ones(rms.shape, bool)
    if isinstance(measured, str) and measured == "nonzero":
        return (rms > 0) | ~(rms > 0).any(axis=0)
    table = adata.varm.get(measured) if isinstance(measured, str) else measured
    if not isinstance(table, pd.DataFrame):
        msg = f'`measured` must be a DataFrame, the name of one in varm, "nonzero" or "all", got {measured!r}.'
        raise KeyError(msg)
    table = table.rename(columns=str)
    if missing := [name for name in names if name not in table] or list(adata.var_names.difference(table.index)[:3]):
        msg = f"`measured` must have a column for every batch and a row for every gene; it lacks {missing}."
        raise KeyError(msg)
    cells = table.loc[adata.var_names, names]
    if cells.isna().any(axis=None):
        lacking = list(cells.index[cells.isna().any(axis=1)][:3])
        msg = f"`measured` must say true or false of every gene and batch; it says neither of {lacking} in some batch."
        raise ValueError(msg)
    seen = cells.to_numpy(dtype=bool).T
    if not seen.any(axis=0).all():
        msg = f"`measured` says that no batch measured {list(adata.var_names[~seen.any(axis=0)][:3])}."
        raise ValueError(msg)
    return seen


def known_loadings(start: AnnData, key: str, k: int, names: list[str], matrix: Matrix, *, keep: bool) -> Known:
    """Return the loadings of an earlier fit on the genes of the data, zero where it knows nothing.

    Raises
    ------
    ValueError
        If it has another number of components, or no gene is shared.
    """
    check_anndata(start, "start")
    entry = stored_entry(start, key, "joint_nmf")
    shared = stored_array(start, "varm", key)
    if "batches" not in entry or shared.shape[1] != k:
        what = f"{shared.shape[1]} components" if "batches" in entry else "a fit of modalities"
        msg = f"`start` must hold a fit of batches with {k} components under {key!r}; it holds {what}."
        raise ValueError(msg)
    if not matrix.var_names.isin(start.var_names).any():
        msg = f"`start` and the data share no gene: {list(start.var_names[:3])} against {list(matrix.var_names[:3])}."
        raise ValueError(msg)
    own = {
        names.index(name): on_genes(start, part, matrix)
        for name, part in own_parts(start, key).items()
        if name in names
    }
    return Known(on_genes(start, shared, matrix), own, keep=keep)


def own_parts(fitted: AnnData, key: str) -> dict[str, np.ndarray]:
    """Return the loadings of each batch's own, (n_vars, k), by its name."""
    batches = stored_names(stored_entry(fitted, key, "joint_nmf"), "batches")
    k = stored_array(fitted, "varm", key).shape[1]
    own = stored_array(fitted, "varm", key + keys.SPECIFIC, k * len(batches))
    return dict(zip(batches, np.split(own, len(batches), axis=1), strict=True))


def keep_scales(D: np.ndarray, start: AnnData, key: str, names: list[str], matrix: Matrix) -> None:
    """Give batches that an earlier fit knows the scales that its loadings were fitted under, in place."""
    entry = stored_entry(start, key, "joint_nmf")
    earlier = numbers_by_gene(start, entry, "scales")
    known = matrix.var_names.isin(start.var_names)
    for name, scales in zip(stored_names(entry, "batches"), earlier, strict=True):
        if name in names:
            D[names.index(name), known] = on_genes(start, scales, matrix).ravel()[known]


def on_genes(fitted: AnnData, values: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Return values by gene of a fit on the genes of other data, (k, n_vars), zero where the fit knows nothing."""
    check_unique(fitted.var_names, "the fit")
    table = pd.DataFrame(values, index=fitted.var_names).reindex(matrix.var_names, fill_value=0.0)
    return table.to_numpy(dtype=float).T


def batch_slots(fit: Batches, codes: np.ndarray, names: list[str], D: np.ndarray, key: str, *, align: bool) -> Slots:
    """Return what is written for a fit."""
    entry = {
        "loss": fit.loss,
        "n_iter": len(fit.loss),
        "converged": fit.converged,
        "batches": names,
        "scales": D,
        "mean_usage": np.stack([fit.W[codes == b].mean(axis=0) for b in range(len(names))]),
        "params": {"tool": "joint_nmf"},
    }
    obsm = {keys.EMBEDDING + key: fit.W.astype(np.float32)}
    if align:
        obsm[keys.EMBEDDING + key + keys.ALIGNED] = quantile_align(fit.W, codes)[0].astype(np.float32)
    varm = {key: np.ascontiguousarray(fit.H.T), key + keys.SPECIFIC: np.hstack([v.T for v in fit.V])}
    return Slots(obsm=obsm, varm=varm, uns={key: entry})

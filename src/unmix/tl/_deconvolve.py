"""Cell-type proportions of spots and bulk samples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import norm

from unmix._adata import keys
from unmix._adata.read import check_expression, read_labels, read_matrix, summarise_rows
from unmix._adata.signatures import (
    Alignment,
    Signature,
    align,
    check_collinear,
    check_n_markers,
    read_signature,
    table_of,
)
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import logger, settings
from unmix.core.cibersort import Absolute
from unmix.core.countmodel import CountModelResult, share_errors, worst_genes
from unmix.core.deconvolution import METHODS, STATUS, Deconvolution, Method, Options, fit_null, significance
from unmix.core.deconvolution import fit as fit_weights
from unmix.core.scatter import add_scatter, cell_scatter


@tool
def deconvolve(
    adata: AnnData,
    reference: AnnData | pd.DataFrame,
    *,
    groupby: str | None = None,
    method: Method = "auto",
    layer: str | None = None,
    reference_layer: str | None = None,
    genes: Literal["markers", "all"] | Sequence[str] | None = None,
    gene_weights: Literal["mean"] | pd.Series | None = None,
    n_markers: tuple[int, int] = (50, 150),
    absolute: Absolute = False,
    quantile_normalize: bool = False,
    degenerate: Literal["nan", "poisson"] = "nan",
    as_rna: bool = False,
    cells_per_spot: float = 8.0,
    n_perms: int = 0,
    key_added: str = "deconvolve",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    r"""Cell-type proportions of spots or bulk samples, from a reference of single cells or a signature.

    The expression y of every spot is explained by the signatures S of the types (genes x types): y is about S w, with
    amounts w >= 0. The amounts are shares of RNA; divided by the types' mean counts per cell and normalised they are the
    **shares of cells** that are stored, unless `as_rna` asks for shares of RNA or the reference is a table, which does not
    tell the sizes of cells.

    Parameters
    ----------
    adata
        Spots or bulk samples: counts, or for bulk any non-negative expression on a linear scale (TPM).
    reference
        Labelled cells with counts, or a genes x types DataFrame on a linear scale (a bulk signature).
    groupby
        Column of the reference's `obs` with the cell type; `None` for a DataFrame.
    method
        `"auto"`: the count model, which shrinks the signature as far as its cells demand, fits a platform factor per gene
        as far as the spots show an effect of the platform, and chooses the dispersion by likelihood; what was chosen is in
        `uns[key_added]["chosen"]`. `"poisson"`: maximum likelihood of counts; `"nnls"`: least squares; `"simplex"`: least
        squares between shares of counts, the weights' sum 1 inside the fit; `"nusvr"`: CIBERSORT, the nu of 0.25, 0.5 and
        0.75 with the smallest RMSE after clipping and normalising, at the exact optimum; `"nusvr_simplex"`: the same with
        weights >= 0 and sum 1 inside the fit.
    layer
        Layer of `adata` with the expression; `None` for `X`.
    reference_layer
        The same for the reference.
    genes
        Genes to fit: `"markers"` of the types, `"all"` that reference and data share, or names. `None` takes all for
        `"auto"`, `"poisson"` and for a DataFrame, and the markers for the other methods.
    gene_weights
        For `"nnls"` and `"simplex"`: weight of every gene's squared error. `"mean"`: one over the gene's mean signature;
        a Series indexed by gene; `None` for equal weights.
    n_markers
        Smallest and largest number of markers per type, see :func:`unmix.pp.signatures`.
    absolute
        For `"nusvr"`: scores that do not sum to 1, `"sig.score"` or `"no.sumto1"`, as in CIBERSORT's absolute mode.
    quantile_normalize
        For `"nusvr"` and bulk data: quantile-normalise the samples over all of their genes first.
    degenerate
        What to do with a spot whose nu-SVR has no weight that the data decide, as happens where most genes are zero:
        `"nan"` reports it, `"poisson"` fits it by likelihood.
    as_rna
        Whether to store shares of RNA instead of shares of cells.
    cells_per_spot
        For `"auto"`: about how many cells an observation holds. Only the standard errors depend on it: the fewer cells,
        the more their own differences from their types' means count. `inf` leaves that out (bulk).
    n_perms
        Permutations for a p-value per spot; 0 for none.
    key_added
        Name of the slots.
    rng
        Seed of the permutations.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields:

    `obsm[key_added]` : DataFrame, n_obs x types
        Proportions; rows sum to 1 (not where `absolute` asks for scores), NaN where a spot could not be fitted. `/` in a
        type's name is stored as `_`; :func:`unmix.get.proportions` gives the original names.
    `obsm[key_added + "_se"]` : DataFrame, n_obs x types
        With `"auto"`: standard errors of the proportions, from counting, the sampling of the reference, the platform
        factors and, where the reference is made of cells, the scatter of `cells_per_spot` cells about their types' means.
    `obsm[key_added + "_detection"]` : DataFrame, n_obs x types
        With `"auto"`: how probable a type's presence is, `Phi(proportion / se)`; 0 where the proportion is 0.
    `obs[key_added + "_unexplained"]` : float
        With `"auto"`: share of the counts that exceed the fit's means by more than twice their standard deviation.
    `varm[key_added + "_signature"]` : DataFrame, n_vars x types
        The signature on the genes used, NaN elsewhere.
    `obs[key_added + "_correlation"]`, `obs[key_added + "_rmse"]` : float
        Between the spot and its fit, over the genes used; the RMSE in the units of the data (counts; shares of counts for
        `"simplex"`), for the nu-SVR in those of z-scores.
    `obs[key_added + "_status"]` : category
        `"ok"`, or why there is no fit, or how it was made.
    `obs[key_added + "_pval"]`, `obs[key_added + "_qval"]` : float
        With `n_perms`: (1 + number of null correlations at least as large) / (1 + `n_perms`), and Benjamini-Hochberg.
    `uns[key_added]` : dict
        `names`, `fraction_of` (`"cells"`, `"RNA"` or `"score"`), `sizes`, `genes`, `overlap` (markers per type that the data
        has), `status` (how many spots of each), `null` (with `n_perms`), `params`; with `"auto"` also `chosen` (what
        was chosen, and by what), `tau`
        (sd of the log
        platform factors), `dispersion`, and `worst_genes` (counts and fitted means of the genes that fit worst).

    Raises
    ------
    KeyError
        If `layer` or `groupby` does not exist.
    TypeError
        If `adata` or `reference` is of another kind.
    ValueError
        If the expression is negative or not finite, no gene is shared, a type has no marker left, or an option is unknown.

    Warns
    -----
    CountsWarning
        If a method for counts is given something else.
    SignatureWarning
        If types have few cells or few shared markers, look alike, or gene names match only when case is ignored.

    References
    ----------
    Newman, A. M. et al. (2015) Robust enumeration of cell subsets from tissue expression profiles. Nat. Methods 12, 453.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> spots.obsm["deconvolve"].shape
    (300, 10)
    """
    threads = settings.threads(n_jobs)
    check_options(method, genes, gene_weights, absolute, quantile_normalize, degenerate, n_perms)
    check_n_markers(n_markers)
    if not cells_per_spot > 0:
        msg = f"`cells_per_spot` must be positive (inf for bulk), got {cells_per_spot!r}."
        raise ValueError(msg)
    matrix = read_matrix(adata, layer)
    signature = read_signature(
        reference,
        groupby,
        layer=reference_layer,
        n_markers=n_markers,
        min_cells=0 if method == "auto" else 10,  # the count model shrinks every entry on its own
        n_jobs=threads,
    )
    counts_needed = method in ("auto", "poisson") and signature.sizes is not None
    check_expression(matrix, summarise_rows(matrix, n_jobs=threads), expect_counts=counts_needed)
    aligned = choose_genes(align(signature, matrix.var_names), genes, method)
    check_collinear(aligned.signature)
    S, columns = aligned.signature.profiles, aligned.columns
    options = Options(
        gene_weights=weights_of_genes(aligned.signature, gene_weights),
        absolute=absolute,
        quantile_normalize=quantile_normalize,
        variances=aligned.signature.variances,
        refit_degenerate=degenerate == "poisson",
    )
    found = fit_weights(matrix.X, S, columns, method, options, n_jobs=threads)
    if found.counted is not None and isinstance(reference, AnnData) and np.isfinite(cells_per_spot):
        found = with_scatter(
            found, aligned.signature, reference, str(groupby), reference_layer, cells_per_spot, threads
        )
    null = fit_null(matrix.X, S, columns, method, options, n_perms, rng) if n_perms else None
    return result_slots(adata, aligned, found, null, key_added, as_rna=as_rna, scores=bool(absolute))


def with_scatter(
    found: Deconvolution,
    signature: Signature,
    reference: AnnData,
    groupby: str,
    layer: str | None,
    cells_per_spot: float,
    n_jobs: int,
) -> Deconvolution:
    """Add the scatter of the reference's cells about their types' means to the errors of the count model."""
    if found.counted is None:
        return found
    matrix, labels = read_matrix(reference, layer), read_labels(reference, groupby)
    codes = pd.Index(signature.names).get_indexer([str(name) for name in labels.categories])
    codes = np.where(labels.codes >= 0, codes[labels.codes], -1)
    columns = matrix.var_names.get_indexer(signature.genes[found.counted.model.genes])
    b, Omega = cell_scatter(matrix.X, codes, columns, found.counted.model, n_jobs=n_jobs)
    covariance = add_scatter(found.counted, b, Omega, cells_per_spot)
    return replace(found, counted=replace(found.counted, covariance=covariance))


def check_options(
    method: str, genes: Any, gene_weights: Any, absolute: Any, quantile_normalize: bool, degenerate: str, n_perms: int
) -> None:
    """Refuse options that are unknown or do not go together, before any work starts."""
    allowed: list[tuple[str, Any, Sequence[Any]]] = [
        ("method", method, METHODS),
        ("absolute", absolute, (False, "sig.score", "no.sumto1")),
        ("degenerate", degenerate, ("nan", "poisson")),
    ]
    if isinstance(genes, str):
        allowed.append(("genes", genes, ("markers", "all")))
    if isinstance(gene_weights, str):
        allowed.append(("gene_weights", gene_weights, ("mean",)))
    for name, value, choices in allowed:
        if value not in choices:
            msg = f"`{name}` must be one of {list(choices)}, got {value!r}."
            raise ValueError(msg)
    if method != "nusvr" and (absolute or quantile_normalize):
        msg = f"`absolute` and `quantile_normalize` are options of method='nusvr', not of {method!r}."
        raise ValueError(msg)
    if method not in ("nnls", "simplex") and gene_weights is not None:
        msg = f"`gene_weights` is an option of method='nnls' and 'simplex', not of {method!r}."
        raise ValueError(msg)
    if isinstance(n_perms, bool) or not isinstance(n_perms, int | np.integer) or n_perms < 0:
        msg = f"`n_perms` must be an integer >= 0, got {n_perms!r}."
        raise ValueError(msg)


def choose_genes(aligned: Alignment, genes: str | Sequence[str] | None, method: str) -> Alignment:
    """Restrict an alignment to the genes that are to be fitted.

    Raises
    ------
    ValueError
        If none of the genes named is shared by reference and data.
    """
    signature = aligned.signature
    if genes is None:
        genes = "all" if method in ("auto", "poisson") or signature.sizes is None else "markers"
    if isinstance(genes, str):
        used = signature.is_marker.any(axis=1) if genes == "markers" else np.ones(len(signature.genes), dtype=bool)
    else:
        used = np.asarray(signature.genes.isin(list(genes)))
    used = used & signature.profiles.any(axis=1)
    if not used.any():
        msg = f"none of the genes to fit ({genes!r}) is expressed in the reference and present in the data."
        raise ValueError(msg)
    logger.info("%d genes are fitted", int(used.sum()))
    return Alignment(signature.take(np.asarray(used)), aligned.columns[used], aligned.overlap, aligned.ignored_case)


def weights_of_genes(signature: Signature, gene_weights: Any) -> np.ndarray | None:
    """Return the weights of the signature's genes in least squares.

    Raises
    ------
    ValueError
        If a Series lacks a gene or holds what is no weight.
    """
    if gene_weights is None:
        return None
    if isinstance(gene_weights, str):
        return 1.0 / signature.profiles.mean(axis=1)
    weights = pd.Series(gene_weights).reindex(signature.genes)
    values = weights.to_numpy(dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        bad = signature.genes[~(np.isfinite(values) & (values >= 0))][:3].tolist()
        msg = f"`gene_weights` must give a finite number >= 0, not all 0, for every gene that is fitted; not so for {bad}."
        raise ValueError(msg)
    return values


def result_slots(
    adata: AnnData,
    aligned: Alignment,
    found: Deconvolution,
    null: np.ndarray | None,
    key: str,
    *,
    as_rna: bool,
    scores: bool,
) -> Slots:
    """Turn amounts into proportions and everything that is stored beside them."""
    signature = aligned.signature
    in_cells = signature.sizes is not None and not as_rna and not scores
    amounts = found.weights / signature.sizes if in_cells else found.weights
    proportions = amounts if scores else amounts / amounts.sum(axis=1, keepdims=True)
    profiles = np.full((adata.n_vars, len(signature.names)), np.nan)
    profiles[aligned.columns] = signature.profiles
    status = pd.Categorical.from_codes(found.status, list(STATUS)).remove_unused_categories()
    fitted = int((~np.isnan(proportions).any(axis=1)).sum())
    logger.info("%d of %d observations fitted", fitted, len(status))
    slots = Slots(
        obsm={key: table_of(proportions, adata.obs_names, signature.names)},
        varm={key + keys.SIGNATURE: table_of(profiles, adata.var_names, signature.names)},
        obs={key + keys.CORRELATION: found.correlation, key + keys.RMSE: found.rmse, key + keys.STATUS: status},
    )
    entry = {
        "names": signature.names,
        "fraction_of": "score" if scores else "cells" if in_cells else "RNA",
        "sizes": signature.sizes,
        "genes": list(signature.genes),
        "overlap": aligned.overlap,
        "ignored_case": aligned.ignored_case,
        "status": {
            name: int(n) for name, n in zip(*np.unique(np.asarray(status, str), return_counts=True), strict=True)
        },
    }
    if null is not None:
        slots.obs[key + keys.PVAL], slots.obs[key + keys.QVAL] = significance(found.correlation, null)
        entry["null"] = null
    slots.uns[key] = entry
    if found.counted is not None:
        add_count_model(slots, adata, signature, proportions, found.counted, key, in_cells=in_cells)
    return slots


def add_count_model(
    slots: Slots,
    adata: AnnData,
    signature: Signature,
    proportions: np.ndarray,
    found: CountModelResult,
    key: str,
    *,
    in_cells: bool,
) -> None:
    """Add errors, detection, diagnostics and choices of the count model to the slots."""
    se = share_errors(found.weights, found.covariance, signature.sizes if in_cells else None)
    detection = np.where(se > 0, norm.cdf(proportions / np.where(se > 0, se, 1.0)), (proportions > 0).astype(float))
    detection[np.isnan(proportions)] = np.nan
    detection[proportions == 0] = 0.0
    slots.obsm[key + keys.SE] = table_of(se, adata.obs_names, signature.names)
    slots.obsm[key + keys.DETECTION] = table_of(detection, adata.obs_names, signature.names)
    slots.obs[key + keys.UNEXPLAINED] = found.unexplained
    genes, observed, expected = worst_genes(found.model)
    table = pd.DataFrame({"counts": observed, "fitted": expected}, index=signature.genes[genes])
    model = found.model
    slots.uns[key] |= {"chosen": model.chosen, "tau": model.tau, "dispersion": model.dispersion, "worst_genes": table}

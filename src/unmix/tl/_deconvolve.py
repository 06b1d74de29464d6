"""Cell-type proportions of spots and bulk samples."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata.doubts import warn_of_logs
from unmix._adata.read import CountsWarning, check_expression, read_labels, read_matrix, summarise_rows
from unmix._adata.signatures import Signature, align, check_collinear, check_n_markers, read_signature
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.core.cibersort import Absolute
from unmix.core.countmodel_shared import CountModel
from unmix.core.deconvolution import Method, Options, fit_null
from unmix.core.deconvolution import fit as fit_weights
from unmix.core.scatter import CellScatter, cell_scatter
from unmix.core.share_errors import ShareErrors
from unmix.tl._deconvolve_options import (
    cells_of_spots,
    check_options,
    check_unknown,
    choose_genes,
    neighbour_graph,
    weights_of_genes,
)
from unmix.tl._deconvolve_slots import add_cells, add_unknown, result_slots


@tool
def deconvolve(
    adata: AnnData,
    reference: AnnData | pd.DataFrame,
    *,
    groupby: str | None = None,
    method: Method = "auto",
    batch_key: str | None = None,
    unknown: bool = False,
    smoothing: Literal["auto"] | float | None = None,
    layer: str | None = None,
    reference_layer: str | None = None,
    genes: Literal["markers", "all"] | Sequence[str] | None = None,
    gene_weights: Literal["mean"] | pd.Series | None = None,
    n_markers: tuple[int, int] = (50, 150),
    absolute: Absolute = False,
    quantile_normalize: bool = False,
    degenerate: Literal["nan", "poisson"] = "nan",
    as_rna: bool = False,
    cells_per_spot: float | str | None = None,
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
        Column of the reference's `obs` with the cell type; `None` for a DataFrame. Types keep the order of its categories.
    method
        `"auto"`: the count model, which shrinks the signature as far as its cells demand (profiles of types of fewer than ten
        cells are means of least variance instead of plain ones), fits a platform factor per gene
        as far as the spots show an effect of the platform, takes out what ambient RNA, doublets and wrong labels add to all
        profiles as far as held-out genes ask for it, and chooses the dispersion by likelihood; what was chosen is in
        `uns[key_added]["chosen"]`. Where the reference is a DataFrame, whose errors are not known, it fits observations that vary
        by more than counting (bulk) robustly, with a background that all genes share, on the genes that differ most between
        types relative to their expression; the others by likelihood. `"poisson"`: maximum likelihood of counts; `"nnls"`: least
        squares; `"simplex"`: least squares between shares of counts, the weights' sum 1 inside the fit; `"nusvr"`:
        CIBERSORT, the nu of 0.25, 0.5 and 0.75 with the smallest RMSE after clipping and normalising, at the exact optimum;
        `"nusvr_simplex"`: the same with weights >= 0 and sum 1 inside the fit.
    batch_key
        Column of the reference's `obs` with the donor or batch of every cell. The signature then is a mean over donors, and
        how far donors differ in a gene counts as an error of the signature, of which the tissue, of one more donor, has its
        own. `None` to take all cells for one donor's.
    unknown
        For `"auto"`: whether to look for one type that the reference lacks. Its profile is found from the observations, less
        what known types can make up for, and kept where the likelihood supports it (`uns[key_added]["chosen"]["unknown"]`);
        then `"unknown"` is one more type.
    smoothing
        For `"auto"`: strength of an expectation that an observation is composed like its neighbours in
        `obsp["spatial_connectivities"]` (:func:`squidpy.gr.spatial_neighbors`). 1 expects neighbours to differ as much as
        they do in this tissue, 0 expects nothing; `"auto"` chooses by genes held out, and 0 unless neighbours foretell
        them better than observations from elsewhere do. `None` for no smoothing.
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
        About how many cells an observation holds, or the column of `obs` that gives it for every one; then numbers of cells
        are stored too. The standard errors of `"auto"` depend on it: the fewer cells, the more their own differences from
        their types' means count. `inf` leaves that out (bulk); `None` estimates it, by how much more the counts of
        observations vary about their fits than counting would make them, against how cells of a type vary.
    n_perms
        Permutations for a p-value per spot, for each of up to ten strata of depth; 0 for none.
    key_added
        Name of the slots.
    rng
        Seed of the permutations and of the genes held out for smoothing.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields; those that an earlier run under the same name set and this
    one does not are removed:

    `obsm[key_added]` : DataFrame, n_obs x types
        Proportions; rows sum to 1 (not where `absolute` asks for scores), NaN where a spot could not be fitted. `/` in a
        type's name is stored as `_`; :func:`unmix.get.proportions` gives the original names.
    `obsm[key_added + "_se"]` : DataFrame, n_obs x types
        With `"auto"`: standard errors of the proportions, from counting, the sampling of the reference (profiles, and for
        fractions of cells the types' mean counts), the platform factors and the scatter of `cells_per_spot` cells about
        their types' means; NaN where the reference is a table, whose errors are not known.
    `obsm[key_added + "_detection"]` : DataFrame, n_obs x types
        With `"auto"`: how probable a type's presence is, given the counts and how common the type is in the tissue; where
        it is below 0.05, the proportion is 0. With fewer than 20 observations it is `Phi(proportion / se)`, and 0 where the
        proportion is 0; NaN where the reference is a table.
    `obsm[key_added + "_cells"]` : DataFrame, n_obs x types
        Where `cells_per_spot` names a column and the proportions are of cells: numbers of cells, the proportions times it.
    `obs[key_added + "_unknown"]` : float
        With `unknown`: the share of the unknown type, 0 everywhere where the likelihood did not support it.
    `obs[key_added + "_misfit"]` : float
        With `"auto"`: p-value of the squared residuals under the model; small where the reference does not explain the
        observation.
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
        With `n_perms`: (1 + number of correlations at least as large, in the null of the observation's stratum of depth) /
        (1 + `n_perms`), carried on by a generalised Pareto tail where fewer than ten are larger (and `n_perms` is at least
        100); and Benjamini-Hochberg.
    `uns[key_added]` : dict
        `names`, `fraction_of` (`"cells"`, `"RNA"` or `"score"`), `sizes`, `sums` (of the signature), `genes`, `overlap`
        (markers per type that the data has), `status` (how many spots of each), `null` (with `n_perms`: strata x
        permutations), `params`; with `"auto"` also `chosen` (what was chosen, and by what), `tau` (sd of the log platform
        factors), `dispersion`, `worst_genes` (counts and fitted means of the genes that fit worst), and with
        `smoothing="auto"` `smoothing_curve` (held-out log-likelihood per observation for every strength, with neighbours and
        with others in their place).

    Raises
    ------
    KeyError
        If `layer`, `groupby`, `batch_key` or the column of `cells_per_spot` does not exist.
    TypeError
        If `adata` or `reference` is of another kind.
    ValueError
        If the expression is negative or not finite, no gene is shared, a type has no marker left, an option is unknown,
        there is no graph to smooth over, or an unknown type is asked for where the reference is a table.

    Warns
    -----
    CountsWarning
        If a method for counts is given something else, values look like logarithms, or no observation could be fitted.
    SignatureWarning
        If types have few cells or few shared markers, look alike, or gene names match only when case is ignored; if the reference
        seems to hold logarithms, sums over cells, or labels that are missing.

    References
    ----------
    Newman, A. M. et al. (2015) Robust enumeration of cell subsets from tissue expression profiles. Nat. Methods 12, 453.
    Stephens, M. (2017) False discovery rates: a new deal. Biostatistics 18, 275 (shrinkage). Wang, X. et al. (2019) Bulk
    tissue cell type deconvolution with multi-subject single-cell expression reference. Nat. Commun. 10, 380 (donors).
    Phipson, B. and Smyth, G. K. (2010) Permutation P-values should never be zero. Stat. Appl. Genet. Mol. Biol. 9, 39.

    Examples
    --------
    >>> import unmix as um
    >>> spots, reference = um.datasets.pbmc_spots()
    >>> um.tl.deconvolve(spots, reference, groupby="cell_type")
    >>> spots.obsm["deconvolve"].shape
    (300, 10)
    """
    threads = settings.threads(n_jobs)
    check_options(method, genes, gene_weights, absolute, quantile_normalize, degenerate, n_perms, unknown, smoothing)
    check_n_markers(n_markers)
    matrix = read_matrix(adata, layer)
    n_cells = cells_of_spots(adata, cells_per_spot)
    graph = neighbour_graph(adata, smoothing)
    signature = read_signature(
        reference,
        groupby,
        layer=reference_layer,
        batch_key=batch_key,
        n_markers=n_markers,
        min_cells=0 if method == "auto" else 10,  # the count model shrinks every entry on its own
        least_variance=method == "auto",
        n_jobs=threads,
    )
    check_unknown(signature, unknown)
    counts_needed = method in ("auto", "poisson") and signature.sizes is not None
    check_expression(matrix, summarise_rows(matrix, n_jobs=threads), expect_counts=counts_needed)
    if not counts_needed:
        warn_of_logs(matrix.X, matrix.where, CountsWarning)
    aligned = choose_genes(align(signature, adata, reference), genes, method)
    check_collinear(aligned.signature)
    S, columns = aligned.signature.profiles, aligned.columns
    scatter = None
    if isinstance(reference, AnnData) and (n_cells is None or np.isfinite(n_cells).all()):
        scatter = scatter_of(aligned.signature, reference, groupby, reference_layer, threads)
    sized = aligned.signature
    errors = ShareErrors(None, scatter, n_cells)
    if not (as_rna or absolute):
        errors = ShareErrors(sized.sizes, scatter, n_cells, sized.size_variances)
    options = Options(
        gene_weights=weights_of_genes(aligned.signature, gene_weights),
        absolute=absolute,
        quantile_normalize=quantile_normalize,
        variances=aligned.signature.variances,
        refit_degenerate=degenerate == "poisson",
        between=aligned.signature.between,
        unknown=unknown,
        sizes=aligned.signature.sizes,
        graph=graph,
        smoothing=None if smoothing is None or smoothing == "auto" else float(smoothing),
        errors=errors,
        rng=rng,
    )
    found = fit_weights(matrix.X, S, columns, method, options, n_jobs=threads)
    null = fit_null(matrix.X, S, columns, method, options, n_perms, rng) if n_perms else None
    slots = result_slots(adata, aligned, found, null, key_added, as_rna=as_rna, scores=bool(absolute))
    if unknown:
        add_unknown(slots, key_added)
    if isinstance(n_cells, np.ndarray):
        add_cells(slots, n_cells, key_added)
    return slots


def scatter_of(
    signature: Signature, reference: AnnData, groupby: str | None, layer: str | None, n_jobs: int
) -> Callable[[CountModel], CellScatter]:
    """Return what finds, for a count model, the scatter of the reference's cells about their types' means."""

    def scatter(model: CountModel) -> CellScatter:
        matrix, labels = read_matrix(reference, layer), read_labels(reference, str(groupby))
        codes = pd.Index(signature.names).get_indexer([str(name) for name in labels.categories])
        codes = np.where(labels.codes >= 0, codes[labels.codes], -1)
        columns = matrix.var_names.get_indexer(signature.genes[model.genes])
        return cell_scatter(matrix.X, codes, columns, model, n_jobs=n_jobs)

    return scatter

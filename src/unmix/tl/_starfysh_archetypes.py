"""Archetypes of a tissue, their anchors, hierarchy, communities and markers, and what gene sets say they are."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from unmix._adata import keys
from unmix._adata.read import check_expression, read_matrix, summarise_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.core import communities as com
from unmix.core.scaled import scale_rows
from unmix.tl._archetype_genes import describe_genes
from unmix.tl._archetype_input import Reduced, choose_n, fit_deep, fitted_rows, given_space, reduce
from unmix.tl._archetype_options import check_options
from unmix.tl._archetype_sets import match, read_sets
from unmix.tl._archetype_shares import share_table, type_shares
from unmix.tl._archetype_slots import account, make_slots, marker_table, matching_entry, spread
from unmix.tl._archetype_space import smooth_rows, spatial_graph

AUTO_RESOLUTION = 0.3


@tool
def starfysh_archetypes(
    adata: AnnData,
    n_archetypes: int | Literal["auto"] = "auto",
    *,
    signatures: Mapping[str, Sequence[str]] | pd.DataFrame | None = None,
    resolution: float | Literal["auto"] | None = "auto",
    use_rep: str | None = None,
    n_pcs: int | Literal["auto"] = "auto",
    layer: str | None = None,
    smoothing: Literal["auto"] | float | None = None,
    n_restarts: int = 10,
    delta: float = 0.0,
    robust: bool = False,
    coreset: int | None = None,
    community: Literal["nearest", "heavy"] = "nearest",
    share: float = 0.1,
    smooth: float = 0.0,
    assignment: Literal["stable", "optimal"] = "stable",
    proposer: Literal["types", "archetypes"] = "types",
    max_q: float = 0.05,
    max_rounds: int = 5,
    key_added: str = "archetypes",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = None,
    copy: bool = False,
) -> Slots:
    r"""Find the archetypes of a tissue, and match them to gene sets.

    Y = W B X: the rows X of a reduced space are mixtures W of archetypes, and archetypes are mixtures B of rows, their
    anchors; rows of W and of B lie on the simplex. Where one row resembles a corner of the data, it is an archetype.

    Parameters
    ----------
    adata
        Spots or cells with counts.
    n_archetypes
        Number K, or `"auto"`: the largest number that random subsets of the rows agree on and that still adds two
        points of variance explained in rows which the fit has not seen; at most one more than the rank of the means
        of counts.
    signatures
        Gene sets: a dict of lists, a DataFrame with a column of gene names per type, or one of weights, genes x types.
    resolution
        Height in [0, 1] up to which archetypes are merged: half the distance of profiles relative to the largest, half
        what the weights of two archetypes do not share. `"auto"` is 0.3; `None` merges nothing.
    use_rep
        Key of `obsm` to fit; `None` for principal components of log-normalised counts of highly variable genes, `"X"`
        for these genes themselves, which stay sparse.
    n_pcs
        Number of components; `"auto"` keeps those above the first one of data with permuted genes (30 at most), as many
        as `n_archetypes` corners span at least, and all of `use_rep`.
    layer
        Layer with the counts; `None` for `X`.
    smoothing
        How strongly neighbours on squidpy's spatial graph (`squidpy.gr.spatial_neighbors`) draw an observation's scores
        before the fit: the weight of their mean, where its own value has weight 1. `"auto"` takes the strength at which
        observations left out are predicted best from the others, and none where neighbours predict them no better than
        the mean of all does. Archetypes are then extremes of what an observation shares with its surroundings: regions
        of the tissue. `None` fits every observation by itself. Not with `use_rep="X"`.
    n_restarts
        Starts, of which the best is kept.
    delta
        Archetypes may lie on the hull of the data scaled by 1 + `delta` about the mean.
    robust
        Whether rows of large residuals lose weight (bisquare) in refits.
    coreset
        Rows drawn for the restarts; a fit to all rows follows. By default a tenth, but 1,000 to 20,000.
    community
        `"nearest"`: the `share` of all rows that is nearest to the archetype; `"heavy"`: rows whose weight is at least
        `share`.
    share
        Share of rows, or weight.
    smooth
        Weight, in [0, 1], of the mean of a row's neighbours on squidpy's spatial graph
        (`squidpy.gr.spatial_neighbors`) in the W that communities are made of.
    assignment
        `"stable"` marriage of types and archetypes, or the `"optimal"` total score.
    proposer
        The side that a stable marriage favours.
    max_q
        Largest q-value, under a null of random sets of genes of like abundance, of a type and archetype that may be
        matched.
    max_rounds
        Largest number of rounds in which matched types' sets gain and lose genes.
    key_added
        Name of the slots.
    rng
        Seed.
    n_jobs
        Threads; `None` for the setting. The result does not depend on it.
    copy
        Whether to return a copy instead of writing to `adata`.

    Returns
    -------
    `None`, or with `copy=True` the copy. Sets the following fields; observations without counts are NaN:

    `obsm[key_added]` : DataFrame, n_obs x K
        W, rows on the simplex.
    `obsm[key_added + "_proportions"]` : DataFrame, n_obs x types and novel archetypes
        With `signatures`: shares of the types, and of archetypes that no gene set is active in (`novel_1`, ...). Types'
        shares are posterior means, given profiles of the sets' and other variable genes that the counts yield from the
        activities of the sets as given (:mod:`unmix.core.set_model`).
    `varm[key_added]` : DataFrame, n_vars x K
        Profiles of the archetypes, log-normalised.
    `obs[key_added]` : category
        The archetype of the largest weight.
    `obs[key_added + "_anchor"]` : category
        The archetype that the observation is an anchor of in B, or `"none"`.
    `obs[key_added + "_status"]` : category
        `"ok"`, `"shallow"` or `"no counts"`. Shallow observations have so few counts that chance alone would put them as
        far from the mean as observations are on average; they are left out of the fit, of communities and of profiles,
        and projected.
    `uns[key_added]` : dict
        `names`, `anchors`, `archetypes`, `linkage`, `group`, where some were merged `corners` (the archetypes before that,
        by which new rows are weighed), `selection`, `markers`, `matching`, `signatures`,
        `concentration` (of the law of shares), `reduction`, `n_shallow`, `explained_variance`, `losses`, `restarts`,
        `smoothing` (its strength), with `"auto"` `smoothing_curve` (strengths, and the share of variance predicted in
        observations left out), `params`.

    Raises
    ------
    KeyError
        If `layer` or `use_rep` does not exist, or `smooth` or `smoothing` finds no spatial graph.
    ValueError
        If counts are negative or not finite, K is out of range, or an option is unknown.

    Warns
    -----
    CountsWarning
        If the matrix does not hold counts.
    SignatureWarning
        If nothing was counted of any gene of a type; its shares are 0.

    References
    ----------
    He, S. et al. (2024) Starfysh integrates spatial transcriptomic and histologic data to reveal heterogeneous
    tumor-immune hubs. Nat. Biotechnol. doi:10.1038/s41587-024-02173-8. Cutler, A. and Breiman, L. (1994) Archetypal analysis.
    Technometrics 36, 338. Gale, D. and Shapley, L. S. (1962) College admissions and the stability of marriage. Am. Math. Mon.
    69, 9.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> spots.obsm["archetypes"].shape
    (300, 4)
    """
    check_options(
        adata,
        n_archetypes,
        resolution,
        community,
        share,
        smooth,
        smoothing,
        assignment,
        proposer,
        n_pcs,
        use_rep,
        delta,
    )
    threads = settings.threads(n_jobs)
    seeds = np.random.default_rng(rng).spawn(5)
    matrix = read_matrix(adata, layer)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=True)
    rows = summary.totals > 0
    if rows.sum() < 2:
        msg = f"archetypes need at least two observations with counts, found {int(rows.sum())}."
        raise ValueError(msg)
    Y, target = scale_rows(matrix.X, summary.totals, rows)
    read = None if signatures is None else read_sets(signatures, matrix.var_names)
    least = 2 if n_archetypes == "auto" else n_archetypes
    if use_rep in (None, "X"):
        reduced = reduce(
            Y, adata.var, summary.totals[rows], target,
            n_pcs=n_pcs, use_genes=use_rep == "X", least=least, rng=seeds[0], n_jobs=threads,
        )  # fmt: skip
    else:
        reduced = given_space(adata, str(use_rep), n_pcs, rows)
    smoothed: dict[str, Any] = {}
    if smoothing is not None:
        reduced, smoothed = smooth_rows(reduced, spatial_graph(adata, rows), smoothing, seeds[4])
    K, selection = choose_n(fitted_rows(reduced), reduced.rank, n_archetypes, seeds[1], threads)
    found = fit_deep(
        reduced, K, robust=robust, delta=delta, n_restarts=n_restarts, coreset=coreset, rng=seeds[2], n_jobs=threads
    )
    linkage = com.merge_tree(found.W, found.Z)
    height = AUTO_RESOLUTION if resolution == "auto" else resolution
    group = com.cut_tree(linkage, resolution=height)
    W, B, Z = com.merge(found.W, found.B, found.Z, group)
    member = _communities(adata, reduced, W, Z, rows, community, share, smooth)
    genes = describe_genes(Y, W, member, reduced.fitted, n_jobs=threads)
    names = [f"archetype_{k + 1}" for k in range(len(Z))]
    slots = make_slots(key_added, adata, rows, reduced.fitted, names, W, B, genes.profiles)
    entry = slots.uns[key_added]
    entry.update(account(found, Z, linkage, group, selection, reduced) | smoothed)
    entry["markers"] = marker_table(genes.markers, names, matrix.var_names)
    if read is not None:
        types, sets = read
        options = {"assignment": assignment, "proposer": proposer, "max_q": max_q, "max_rounds": max_rounds}
        matched = match(genes, sets, rng=seeds[3], **options)  # type: ignore[arg-type]
        entry.update(matching_entry(matched, types, names, matrix.var_names))
        totals, final = summary.totals[rows], matched.sets
        shares, model = type_shares(Y, totals, reduced.fitted, types, sets, final, seeds[3], threads)
        table = share_table(shares, W, matched, types, max_q)
        slots.obsm[key_added + keys.PROPORTIONS] = spread(table.to_numpy(), rows, adata, list(table.columns))
        entry["proportion_names"] = list(table.columns)
        entry["concentration"] = model.alpha
    return slots


def _communities(
    adata: AnnData,
    reduced: Reduced,
    W: np.ndarray,
    Z: np.ndarray,
    rows: np.ndarray,
    community: str,
    share: float,
    smooth: float,
) -> np.ndarray:
    """Return who belongs to which archetype's community; smoothed weights pick the heaviest share of rows."""
    X, corners = fitted_rows(reduced), Z
    if smooth > 0:
        W = com.smooth(W, spatial_graph(adata, rows), smooth)
        X, corners = W[reduced.fitted], np.eye(len(Z))
    if community == "heavy":
        return com.heavy_communities(W, share) & reduced.fitted[:, None]
    member = np.zeros(W.shape, dtype=bool)
    member[reduced.fitted] = com.nearest_communities(X, corners, share)
    return member

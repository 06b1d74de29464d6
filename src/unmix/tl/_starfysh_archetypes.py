"""Archetypes of a tissue, their anchors, hierarchy, communities and markers, and what gene sets say they are."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unmix._adata import keys
from unmix._adata.read import check_expression, read_matrix, summarise_rows
from unmix._adata.tool import tool
from unmix._adata.write import Slots
from unmix._settings import settings
from unmix.core import communities as com
from unmix.core.archetypes import Archetypes
from unmix.core.markers import Markers
from unmix.core.refinement import scale_activities, set_activities, set_proportions
from unmix.tl import _archetype_steps as steps

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
        points of variance explained in rows which the fit has not seen; at most one more than the rank of linear
        expression.
    signatures
        Gene sets: a dict of lists, a DataFrame with a column of gene names per type, or one of weights, genes x types.
    resolution
        Height in [0, 1] up to which archetypes are merged: half the distance of profiles relative to the largest, half
        what the weights of two archetypes do not share. `"auto"` is 0.3; `None` merges nothing.
    use_rep
        Key of `obsm` to fit; `None` for principal components of log-normalised counts of highly variable genes.
    n_pcs
        Number of components; `"auto"` keeps those above the first one of data with permuted genes (30 at most; all of
        `use_rep`).
    layer
        Layer with the counts; `None` for `X`.
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
        shares are the most likely ones for the counts of their refined sets' genes. The types' levels of these genes
        come from a regression on the sets' activity above that of the communities that have least of it.
    `varm[key_added]` : DataFrame, n_vars x K
        Profiles of the archetypes, log-normalised.
    `obs[key_added]` : category
        The archetype of the largest weight.
    `obs[key_added + "_anchor"]` : category
        The archetype that the observation is an anchor of in B, or `"none"`.
    `uns[key_added]` : dict
        `names`, `anchors`, `archetypes`, `linkage`, `group`, `selection`, `markers`, `matching`, `signatures`,
        `reduction`, `explained_variance`, `losses`, `restarts`, `params`.

    Raises
    ------
    KeyError
        If `layer` or `use_rep` does not exist, or `smooth` finds no spatial graph.
    ValueError
        If counts are negative or not finite, K is out of range, or an option is unknown.

    Warns
    -----
    CountsWarning
        If the matrix does not hold counts.

    References
    ----------
    He, S. et al. (2024) Starfysh integrates spatial transcriptomic and histologic data to reveal heterogeneous
    tumor-immune hubs. Nat. Biotechnol. doi:10.1038/s41587-024-02173-8.

    Examples
    --------
    >>> import unmix as um
    >>> spots, _ = um.datasets.pbmc_spots()
    >>> um.tl.starfysh_archetypes(spots, 4, resolution=None)
    >>> spots.obsm["archetypes"].shape
    (300, 4)
    """
    _check_options(adata, n_archetypes, resolution, community, share, smooth, assignment, proposer, n_pcs, use_rep)
    threads = settings.threads(n_jobs)
    seeds = np.random.default_rng(rng).spawn(4)
    matrix = read_matrix(adata, layer)
    summary = summarise_rows(matrix, n_jobs=threads)
    check_expression(matrix, summary, expect_counts=True)
    rows = summary.totals > 0
    if rows.sum() < 2:
        msg = f"archetypes need at least two observations with counts, found {int(rows.sum())}."
        raise ValueError(msg)
    Y, target = steps.normalised(matrix, rows, summary.totals)
    read = None if signatures is None else steps.read_sets(signatures, matrix.var_names)
    reduced = _representation(adata, Y, rows, use_rep, n_pcs, target, seeds[0])
    K, selection = steps.choose_n(reduced, n_archetypes, seeds[1], threads)
    fitted = steps.fit(
        reduced.X, K, robust=robust, delta=delta, n_restarts=n_restarts, coreset=coreset, rng=seeds[2], n_jobs=threads
    )
    linkage = com.merge_tree(fitted.W, fitted.Z)
    height = AUTO_RESOLUTION if resolution == "auto" else resolution
    group = com.cut_tree(linkage, resolution=height)
    W, B, Z = com.merge(fitted.W, fitted.B, fitted.Z, group)
    member = _communities(adata, reduced.X, W, Z, rows, community, share, smooth)
    Y_log = steps.logged(Y)
    markers = steps.communities_markers(Y_log, member)
    profiles = _profiles(Y_log, W)
    names = [f"archetype_{k + 1}" for k in range(len(Z))]
    slots = _slots(key_added, adata, rows, names, W, B, profiles)
    entry = slots.uns[key_added]
    entry.update(_account(fitted, Z, linkage, group, selection, reduced))
    entry["markers"] = _marker_table(markers, names, matrix.var_names)
    if read is not None:
        types, sets = read
        options = {"assignment": assignment, "proposer": proposer, "max_q": max_q, "max_rounds": max_rounds}
        matched = steps.match(Y_log, profiles, member, markers, sets, rng=seeds[3], **options)  # type: ignore[arg-type]
        entry.update(_matching(matched, types, names, matrix.var_names))
        table = _proportions(Y, W, member, matched, types, max_q)
        slots.obsm[key_added + keys.PROPORTIONS] = _spread(table.to_numpy(), rows, adata, list(table.columns))
        entry["proportion_names"] = list(table.columns)
    return slots


def _check_options(
    adata: AnnData,
    n_archetypes: Any,
    resolution: Any,
    community: str,
    share: float,
    smooth: float,
    assignment: str,
    proposer: str,
    n_pcs: Any,
    use_rep: str | None,
) -> None:
    """Refuse options before any work starts."""
    for name, value, choices in (
        ("community", community, ("nearest", "heavy")),
        ("assignment", assignment, ("stable", "optimal")),
        ("proposer", proposer, ("types", "archetypes")),
    ):
        if value not in choices:
            msg = f"`{name}` must be one of {list(choices)}, got {value!r}."
            raise ValueError(msg)
    for name, value, low in (("n_archetypes", n_archetypes, 1), ("n_pcs", n_pcs, 1)):
        if value != "auto" and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low):
            msg = f"`{name}` must be 'auto' or an integer >= {low}, got {value!r}."
            raise ValueError(msg)
    if n_archetypes != "auto" and 0 < adata.n_obs < n_archetypes:
        msg = f"`n_archetypes` is {n_archetypes}, but there are only {adata.n_obs} observations."
        raise ValueError(msg)
    for name, number in (("share", share), ("smooth", smooth)):
        if not 0 <= number <= 1 or (name == "share" and number == 0):
            msg = f"`{name}` must lie between 0 and 1, got {number!r}."
            raise ValueError(msg)
    if isinstance(resolution, str) and resolution != "auto":
        msg = f"`resolution` must be 'auto', a height in [0, 1] or None, got {resolution!r}."
        raise ValueError(msg)
    if use_rep is not None and use_rep not in adata.obsm:
        msg = f"`use_rep` {use_rep!r} is not in obsm; there are {sorted(adata.obsm)}."
        raise KeyError(msg)
    if smooth > 0 and "spatial_connectivities" not in adata.obsp:
        msg = "`smooth` needs a spatial graph; call `squidpy.gr.spatial_neighbors(adata)` first."
        raise KeyError(msg)


def _representation(
    adata: AnnData,
    Y: sparse.csr_array,
    rows: np.ndarray,
    use_rep: str | None,
    n_pcs: int | Literal["auto"],
    target: float,
    rng: np.random.Generator,
) -> steps.Reduced:
    if use_rep is None:
        return steps.reduce(Y, adata.var, n_pcs, target, rng)
    X = np.asarray(adata.obsm[use_rep], dtype=np.float64)[rows]
    X = X if n_pcs == "auto" else X[:, :n_pcs]
    return steps.Reduced(np.ascontiguousarray(X), X.shape[1], {"use_rep": use_rep, "n": X.shape[1]})


def _communities(
    adata: AnnData,
    X: np.ndarray,
    W: np.ndarray,
    Z: np.ndarray,
    rows: np.ndarray,
    community: str,
    share: float,
    smooth: float,
) -> np.ndarray:
    """Return who belongs to which archetype's community; smoothed weights pick the heaviest share of rows."""
    if smooth > 0:
        graph = sparse.csr_array(adata.obsp["spatial_connectivities"])[np.flatnonzero(rows)][:, np.flatnonzero(rows)]
        W = com.smooth(W, graph, smooth)
        if community == "nearest":
            return com.nearest_communities(W, np.eye(len(Z)), share)
    return com.nearest_communities(X, Z, share) if community == "nearest" else com.heavy_communities(W, share)


def _profiles(Y_log: sparse.csr_array, W: np.ndarray) -> np.ndarray:
    """Return the archetypes' expression of all genes, K x genes: the regression of genes on W, where it is positive."""
    gram = W.T @ W
    ridge = 1e-9 * np.trace(gram) * np.eye(len(gram))
    return np.maximum(np.linalg.solve(gram + ridge, np.asarray((Y_log.T @ W).T)), 0.0)


def _spread(values: np.ndarray, rows: np.ndarray, adata: AnnData, names: list[str]) -> pd.DataFrame:
    """Return a table over all observations, NaN where there were no counts."""
    full = np.full((len(rows), values.shape[1]), np.nan)
    full[rows] = values
    return pd.DataFrame(full, index=adata.obs_names, columns=names)


def _slots(
    key: str,
    adata: AnnData,
    rows: np.ndarray,
    names: list[str],
    W: np.ndarray,
    B: sparse.csr_array,
    profiles: np.ndarray,
) -> Slots:
    slots = Slots()
    slots.obsm[key] = _spread(W, rows, adata, names)
    slots.varm[key] = pd.DataFrame(profiles.T, index=adata.var_names, columns=names)
    code = np.full(len(rows), -1)
    code[rows] = W.argmax(axis=1)
    slots.obs[key] = pd.Categorical.from_codes(code, names)
    where = np.flatnonzero(rows)
    anchors = com.find_anchors(W, B)
    anchor = np.full(len(rows), len(names))
    for k, i, b in zip(anchors.archetype[::-1], anchors.row[::-1], anchors.weight[::-1], strict=True):
        if b > 0:
            anchor[where[i]] = k
    slots.obs[key + keys.ANCHOR] = pd.Categorical.from_codes(anchor, [*names, "none"])
    table = pd.DataFrame(
        {
            "archetype": np.array(names)[anchors.archetype],
            "obs_name": adata.obs_names[where[anchors.row]].astype(str),
            "weight": anchors.weight,
            "mixture": anchors.mixture,
        }
    )
    slots.uns[key] = {"names": names, "anchors": table}
    return slots


def _account(
    fitted: Archetypes,
    Z: np.ndarray,
    linkage: np.ndarray,
    group: np.ndarray,
    selection: Any,
    reduced: steps.Reduced,
) -> dict[str, Any]:
    """Return how the fit went."""
    entry: dict[str, Any] = {
        "archetypes": Z,
        "linkage": linkage,
        "group": group,
        "reduction": reduced.how,
        "reduced": {"mean": reduced.X.mean(axis=0), "data_sd": float(reduced.X.std())},
        "explained_variance": fitted.explained_variance,
        "losses": np.array(fitted.losses),
        "restarts": np.array(fitted.restarts),
        "converged": fitted.converged,
    }
    if selection is not None:
        entry["selection"] = pd.DataFrame(
            {
                "n_archetypes": selection.n_archetypes,
                "stability": selection.stability,
                "held_out": selection.held_out,
                "explained": selection.explained,
                "chosen": selection.n_archetypes == selection.chosen,
            }
        )
    return entry


def _marker_table(markers: Markers, names: list[str], genes: pd.Index, n: int = 100) -> pd.DataFrame:
    """Return the best `n` genes of every archetype by score."""
    parts = []
    for k, name in enumerate(names):
        best = np.argsort(-markers.score[:, k], kind="stable")[:n]
        columns = {
            field: getattr(markers, field)[best, k]
            for field in ("score", "pval", "qval", "log_fold_change", "share", "share_rest", "specificity")
        }
        parts.append(pd.DataFrame({"archetype": name, "gene": genes[best].astype(str), **columns}))
    return pd.concat(parts, ignore_index=True)


def _matching(matched: steps.Matched, types: list[str], names: list[str], genes: pd.Index) -> dict[str, Any]:
    partner = matched.partner
    pairs = [(t, k) for t, k in enumerate(partner)]
    at = [(t, k if k >= 0 else int(matched.scores.pval[t].argmin())) for t, k in pairs]
    table = pd.DataFrame(
        {
            "type": types,
            "archetype": [names[k] if k >= 0 else "none" for k in partner],
            "score": [matched.scores.score[i] for i in at],
            "pval": [matched.scores.pval[i] for i in at],
            "qval": [matched.scores.qval[i] for i in at],
        }
    )
    history = [*matched.rounds, matched.sets]
    sets = {
        f"round_{r}": {name: genes[np.flatnonzero(s[:, t])].to_numpy(dtype=str) for t, name in enumerate(types)}
        for r, s in enumerate(history)
    }
    scores = pd.DataFrame(matched.scores.score, index=types, columns=names)
    return {"matching": table, "signatures": sets, "set_scores": scores, "types": types}


def _proportions(
    Y: sparse.csr_array, W: np.ndarray, member: np.ndarray, matched: steps.Matched, types: list[str], max_q: float
) -> pd.DataFrame:
    """Return the shares of the types, and those of archetypes in which no gene set is active."""
    known = ((matched.scores.qval <= max_q) & (matched.scores.score > 0)).any(axis=0)
    novel = W[:, ~known] if known.any() else W[:, :0]
    estimates = scale_activities(set_activities(Y, matched.sets, member))
    shares = set_proportions(Y, matched.sets, estimates) * (1.0 - novel.sum(axis=1, keepdims=True))
    columns = types + [f"novel_{k + 1}" for k in range(novel.shape[1])]
    return pd.DataFrame(np.hstack([shares, novel]), columns=columns)

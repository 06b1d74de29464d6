"""From a reference (labelled cells or a table) to a genes x types signature, aligned to the genes of the data."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from unmix._adata.doubts import (
    KINDS_OF_NAMES,
    advice_on_names,
    warn_of_aggregates,
    warn_of_logs,
    warn_of_missing_names,
)
from unmix._adata.read import LARGEST, check_expression, in_order, read_labels, read_matrix, summarise_rows
from unmix._settings import logger
from unmix.core.cell_moments import moments, pool_moments
from unmix.core.shrinkage import shrink_sizes
from unmix.core.signatures import (
    Signatures,
    choose_markers,
    collinear_types,
    signatures_from_moments,
    with_donors,
    with_wilcoxon,
)

if TYPE_CHECKING:
    from anndata import AnnData

SPARE_SHARE = 0.1
"""Gene names are matched without regard to case where exact matching finds less than this share of the smaller set."""


class SignatureWarning(UserWarning):
    """A signature can be used, but not all of it can be trusted."""


@dataclass(frozen=True)
class Signature:
    """A genes x types table and what is known about it; arrays follow `genes` and `names`."""

    genes: pd.Index
    names: list[str]
    profiles: np.ndarray
    """Genes x types, non-negative, linear scale."""
    is_marker: np.ndarray
    """Genes x types, whether the gene was chosen as a marker of the type."""
    variances: np.ndarray | None = None
    """Sampling variance of every entry, where the reference is made of cells."""
    n_cells: np.ndarray | None = None
    sizes: np.ndarray | None = None
    """Mean counts per cell of every type, where the reference is made of cells; shrunk where the cells are few."""
    size_variances: np.ndarray | None = None
    """Variances of the logs of `sizes` by the sampling of the cells."""
    between: np.ndarray | None = None
    """Variance between donors of every gene, relative to the squared profile, where donors are told apart."""

    def take(self, genes: np.ndarray) -> "Signature":
        """Return the signature on some genes only, given by position or mask."""
        return replace(
            self,
            genes=self.genes[genes],
            profiles=self.profiles[genes],
            is_marker=self.is_marker[genes],
            variances=None if self.variances is None else self.variances[genes],
            between=None if self.between is None else self.between[genes],
        )


@dataclass(frozen=True)
class Alignment:
    """A signature restricted to the genes it shares with the data."""

    signature: Signature
    columns: np.ndarray
    """Position of every gene of the signature among the genes of the data."""
    overlap: pd.DataFrame
    """Per type: number of markers, how many the data has, and their share."""
    ignored_case: bool


def reference_signatures(
    reference: "AnnData",
    groupby: str,
    *,
    layer: str | None = None,
    batch_key: str | None = None,
    test: str = "welch",
    min_cells: int = 10,
    least_variance: bool = False,
    n_jobs: int = 1,
) -> tuple[list[str], pd.Index, Signatures]:
    """Compute the signatures of the labelled cells of `reference`, over the donors or batches of `batch_key` if it is given.

    Returns
    -------
    Names of the types, names of the genes, and the signatures.

    Raises
    ------
    ValueError
        If fewer than two types have cells with counts, the labels are measurements, or the matrix is not one of expression.
    """
    matrix = read_matrix(reference, layer, "the reference")
    labels = in_order(read_labels(reference, groupby, whose="the reference"), reference.obs[groupby])
    check_types(reference.obs[groupby])
    summary = summarise_rows(matrix, n_jobs=n_jobs)
    check_expression(replace(matrix, where=f"the reference's {matrix.where}"), summary, expect_counts=True)
    codes = np.where(summary.totals > 0, labels.codes, -1)
    present = np.unique(codes[codes >= 0])
    names = [str(labels.categories[k]) for k in present]
    if len(names) < 2:
        msg = f"obs[{groupby!r}] of the reference must label cells of at least two types, found {names}."
        raise ValueError(msg)
    warn_of_missing_names(names, groupby, SignatureWarning)
    recoded = np.where(codes >= 0, np.searchsorted(present, codes), -1)
    donors = np.zeros(len(recoded), dtype=np.int64)
    if batch_key is not None:
        donors = read_batches(reference, batch_key, recoded >= 0)
    n_donors = int(donors.max()) + 1
    groups = np.where(recoded >= 0, recoded * n_donors + donors, -1)
    sums = moments(matrix.X, groups, len(names) * n_donors, n_jobs=n_jobs)
    pooled = pool_moments(sums, len(names))
    found = signatures_from_moments(pooled, min_cells=min_cells, least_variance=least_variance)
    found = found if batch_key is None else with_donors(found, sums, least_variance=least_variance)
    return names, matrix.var_names, with_wilcoxon(found, matrix.X, recoded) if test == "wilcoxon" else found


def check_types(labels: pd.Series) -> None:
    """Refuse a column of measurements where types are expected: each of its values would be a type.

    Raises
    ------
    ValueError
        If values are not whole numbers, or more than 200 different numbers.
    """
    if not pd.api.types.is_float_dtype(labels) and not pd.api.types.is_integer_dtype(labels):
        return
    known = labels.dropna()
    if known.nunique() > 200 or (known % 1 != 0).any():
        msg = f"obs[{str(labels.name)!r}] holds measurements ({known.nunique()} different numbers), not cell types."
        raise ValueError(msg)


def read_batches(adata: "AnnData", batch_key: str, used: np.ndarray) -> np.ndarray:
    """Return the number of every cell's donor or batch, shape (N,); 0 for cells that are not used.

    Raises
    ------
    ValueError
        If a cell that is used has none.
    """
    codes = np.asarray(read_labels(adata, batch_key, name="batch_key", whose="the reference").codes, dtype=np.int64)
    missing = int((codes[used] < 0).sum())
    if missing:
        msg = f"obs[{batch_key!r}] of the reference must name a batch for every cell of a type, {missing} have none."
        raise ValueError(msg)
    return np.where(used, codes, 0)


def check_n_markers(n_markers: tuple[int, int]) -> None:
    """Refuse bounds that are no two integers, 1 <= smallest <= largest."""
    whole = len(n_markers) == 2 and all(isinstance(n, int | np.integer) for n in n_markers)
    if not whole or not 1 <= n_markers[0] <= n_markers[1]:
        msg = f"`n_markers` must be two integers, 1 <= smallest <= largest, got {n_markers!r}."
        raise ValueError(msg)


def warn_few_cells(names: list[str], signatures: Signatures) -> None:
    """Name the types that have too few cells to stand on their own."""
    few = [
        f"{name} ({n} cells)" for name, n, w in zip(names, signatures.n_cells, signatures.shrinkage, strict=True) if w
    ]
    if few:
        msg = f"types with few cells were shrunk towards the pooled mean: {', '.join(few)}."
        warnings.warn(msg, SignatureWarning, stacklevel=3)


def read_signature(
    reference: "AnnData | pd.DataFrame",
    groupby: str | None,
    *,
    layer: str | None = None,
    batch_key: str | None = None,
    n_markers: tuple[int, int] = (50, 150),
    max_q: float = 0.01,
    min_cells: int = 10,
    least_variance: bool = False,
    n_jobs: int = 1,
) -> Signature:
    """Turn any reference that `deconvolve` accepts into a signature.

    Raises
    ------
    TypeError
        If the reference is neither an AnnData nor a DataFrame.
    ValueError
        If `groupby` is missing for cells or given for a table, or a table cannot be a signature.
    """
    if isinstance(reference, pd.DataFrame):
        if groupby is not None:
            msg = "`groupby` names labels of cells; it must be None where the reference is a genes x types DataFrame."
            raise ValueError(msg)
        if batch_key is not None:
            msg = "`batch_key` names the donors of cells; it must be None where the reference is a DataFrame."
            raise ValueError(msg)
        return _signature_of_table(reference)
    from anndata import AnnData

    if not isinstance(reference, AnnData):
        msg = f"`reference` must be an AnnData of labelled cells or a genes x types DataFrame, got {type(reference).__name__}."
        raise TypeError(msg)
    if groupby is None:
        msg = f"`groupby` must name the column of cell types in the reference's `obs`: {list(reference.obs.columns)}."
        raise ValueError(msg)
    names, genes, found = reference_signatures(
        reference,
        groupby,
        layer=layer,
        batch_key=batch_key,
        min_cells=min_cells,
        least_variance=least_variance,
        n_jobs=n_jobs,
    )
    warn_few_cells(names, found)
    warn_of_aggregates(reference, found.n_cells, SignatureWarning)
    choice = choose_markers(found.profiles, found.log_fold_change, found.q_values, bounds=n_markers, max_q=max_q)
    is_marker = np.zeros(found.profiles.shape, dtype=bool)
    for k, markers in enumerate(choice.markers):
        is_marker[markers, k] = True
    sizes = shrink_sizes(found.sizes, found.size_variances / found.n_cells)
    known = (found.variances, found.n_cells, *sizes, found.between)
    return Signature(genes, names, found.profiles, is_marker, *known)


def _signature_of_table(table: pd.DataFrame) -> Signature:
    """Take a genes x types table as it is; every gene is a marker of the type that expresses it most."""
    for axis, what in ((table.index, "genes (rows)"), (table.columns, "types (columns)")):
        if not axis.is_unique:
            msg = f"the {what} of the signature must be unique; {axis[axis.duplicated()][:3].tolist()} occur more than once."
            raise ValueError(msg)
    if table.shape[1] < 2 or table.shape[0] < 1 or any(dtype.kind not in "biuf" for dtype in table.dtypes):
        kinds = sorted(set(map(str, table.dtypes)))
        msg = f"a signature must be a numeric genes x types table of two types or more, got {table.shape} of {kinds}."
        raise ValueError(msg)
    profiles = table.to_numpy(dtype=np.float64)
    lost = table.index[~np.isfinite(profiles).all(axis=1)]
    if len(lost):
        msg = f"{len(lost)} genes of the signature hold NaN or infinite values, such as {lost[:3].tolist()}; drop or fill them."
        raise ValueError(msg)
    if profiles.min() < 0 or profiles.max() > LARGEST:
        msg = (
            "a signature must hold non-negative values on a linear scale (counts, CPM or TPM, not logarithms), "
            f"got {profiles.min():g} to {profiles.max():g}."
        )
        raise ValueError(msg)
    warn_of_logs(profiles, "the signature", SignatureWarning)
    is_marker = profiles == profiles.max(axis=1, keepdims=True)
    return Signature(
        pd.Index([str(g) for g in table.index]), [str(n) for n in table.columns], profiles, is_marker & (profiles > 0)
    )


def align(signature: Signature, data: "AnnData", reference: Any = None) -> Alignment:
    """Restrict a signature to the genes it shares with the data; errors go by what the reference was, too.

    Raises
    ------
    ValueError
        If no gene is shared, or a type has no marker left.

    Warns
    -----
    SignatureWarning
        If names had to be matched without regard to case, or a type loses more than half of its markers.
    """
    var_names = pd.Index(data.var_names)
    columns = var_names.get_indexer(signature.genes)
    exact = int((columns >= 0).sum())
    ignored_case = False
    if exact < SPARE_SHARE * min(len(var_names), len(signature.genes)):
        folded = _match_without_case(signature.genes, var_names)
        if (folded >= 0).sum() > 2 * exact:
            columns, ignored_case = folded, True
    shared = columns >= 0
    advice = partial(advice_on_names, signature.genes, signature.names, data, reference)
    if not shared.any():
        some, others = list(signature.genes[:3]), list(var_names[:3])
        msg = f"the reference and the data share no gene: {some} against {others}. {advice()}"
        raise ValueError(msg)
    if ignored_case:
        msg = f"exact gene names match in {exact} cases only; ignoring case, {int(shared.sum())} genes are shared and used."
        warnings.warn(msg, SignatureWarning, stacklevel=3)
    overlap = _overlap(signature, shared, advice)
    logger.info("%d of %d genes of the reference are in the data", int(shared.sum()), len(shared))
    return Alignment(signature.take(shared), columns[shared], overlap, ignored_case)


def shared_with_fit(genes: pd.Index, var_names: pd.Index) -> int:
    """Return how many genes of a fit new data have.

    Raises
    ------
    ValueError
        If they have none.

    Warns
    -----
    SignatureWarning
        If they lack more than half.
    """
    shared = int(genes.isin(var_names).sum())
    if shared == 0:
        msg = (
            f"the fit and the new data share no gene: {list(genes[:3])} against {list(var_names[:3])}. "
            + KINDS_OF_NAMES
        )
        raise ValueError(msg)
    if 2 * shared < len(genes):
        msg = f"the new data have {shared} of the {len(genes)} genes of the fit; where they lie in it rests on these alone."
        warnings.warn(msg, SignatureWarning, stacklevel=4)
    return shared


def _match_without_case(genes: pd.Index, var_names: pd.Index) -> np.ndarray:
    """Positions of `genes` among `var_names`, ignoring case; names that would be ambiguous stay unmatched."""
    ours, theirs = genes.str.upper(), var_names.str.upper()
    unique = ~theirs.duplicated(keep=False)
    positions = np.flatnonzero(unique)
    found = theirs[unique].get_indexer(ours)
    columns = np.where(found >= 0, positions[found], -1)
    return np.where(ours.duplicated(keep=False), -1, columns)


def _overlap(signature: Signature, shared: np.ndarray, advice: Callable[[], str]) -> pd.DataFrame:
    """Count the markers that the data has; refuse types without any, warn of types that lose most."""
    total = signature.is_marker.sum(axis=0)
    found = signature.is_marker[shared].sum(axis=0)
    table = pd.DataFrame({"n_markers": total, "n_shared": found}, index=pd.Index(signature.names))
    table["share"] = found / np.maximum(total, 1)
    lost = table.index[(table["n_shared"] == 0) & (table["n_markers"] > 0)].tolist()
    if lost:
        msg = f"none of the markers of {lost} is among the genes of the data; "
        if 2 * len(lost) <= len(table):
            msg += "leave these types out of the reference."
        else:
            msg += f"{int(shared.sum())} of {len(shared)} genes are shared. {advice()}"
        raise ValueError(msg)
    poor = table.index[(table["share"] < 0.5) & (table["n_markers"] > 0)].tolist()
    if poor:
        msg = f"the data lacks more than half of the markers of {poor}."
        warnings.warn(msg, SignatureWarning, stacklevel=4)
    return table


def check_collinear(signature: Signature) -> list[tuple[str, str, float]]:
    """Warn of, and return, pairs of types that the shared genes cannot tell apart."""
    names = signature.names
    pairs = [(names[i], names[j], cosine) for i, j, cosine in collinear_types(signature.profiles)]
    if pairs:
        told = ", ".join(f"{a} and {b} (cosine {cosine:.4f})" for a, b, cosine in pairs)
        msg = f"on the genes used these types look alike, so that their shares cannot be told apart: {told}."
        warnings.warn(msg, SignatureWarning, stacklevel=3)
    return pairs


def table_of(values: np.ndarray, index: Any, names: list[str]) -> pd.DataFrame:
    """Return an array as a table with the given rows and columns."""
    return pd.DataFrame(values, index=index, columns=names)

"""Gene sets in decoupler's network format, as a matrix of weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse


def network_weights(
    net: "pd.DataFrame | Mapping[str, Sequence[str]]", genes: pd.Index, *, min_targets: int = 5
) -> tuple[list[str], sparse.csc_array]:
    """Return the names of the sets and their weights, (n_genes, n_sets); sets with few genes in the data are left out.

    Parameters
    ----------
    net
        Table with the columns `source` (the set), `target` (the gene) and, where genes count differently, `weight`; or
        sets of genes by name.
    genes
        Genes of the data.
    min_targets
        Fewest genes of a set that the data must have.

    Raises
    ------
    TypeError
        If `net` is neither a table nor a mapping.
    ValueError
        If columns are missing, a gene occurs twice in a set, or no set has enough genes.

    Examples
    --------
    >>> names, weights = network_weights({"a": ["x", "y"], "b": ["z"]}, pd.Index(["x", "y"]), min_targets=2)
    >>> names, weights.toarray().ravel().tolist()
    (['a'], [1.0, 1.0])
    """
    table = _table(net)
    if table.duplicated(["source", "target"]).any():
        first = table[table.duplicated(["source", "target"])].iloc[0]
        msg = f"`net` lists the gene {first['target']!r} of {first['source']!r} twice; decoupler's networks do not."
        raise ValueError(msg)
    known = table[table["target"].isin(genes)]
    size = known["source"].value_counts()
    names = [name for name in dict.fromkeys(table["source"]) if size.get(name, 0) >= min_targets]
    if not names:
        msg = (
            f"no set of `net` has {min_targets} genes of the data: its genes are {list(table['target'][:3])}, the data's "
            f"{list(genes[:3])}; the largest overlap is {int(size.max()) if len(size) else 0}."
        )
        raise ValueError(msg)
    known = known[known["source"].isin(names)]
    rows, columns = genes.get_indexer(known["target"]), pd.Index(names).get_indexer(known["source"])
    return names, sparse.csc_array((known["weight"].to_numpy(float), (rows, columns)), shape=(len(genes), len(names)))


def _table(net: Any) -> pd.DataFrame:
    """Return the columns source, target and weight."""
    if isinstance(net, Mapping):
        pairs = [(str(name), str(gene)) for name, members in net.items() for gene in dict.fromkeys(members)]
        return pd.DataFrame(pairs, columns=["source", "target"]).assign(weight=1.0)
    if not isinstance(net, pd.DataFrame):
        msg = f"`net` must be a table with the columns source, target and weight, or a dict of genes, got {type(net)}."
        raise TypeError(msg)
    if not {"source", "target"} <= set(net.columns):
        msg = f"`net` must have the columns source and target, got {list(net.columns)}."
        raise ValueError(msg)
    weight = pd.to_numeric(net["weight"], errors="coerce").to_numpy(float) if "weight" in net else np.ones(len(net))
    if not np.isfinite(weight).all():
        msg = "the weights of `net` must be finite numbers."
        raise ValueError(msg)
    return pd.DataFrame({"source": net["source"].astype(str), "target": net["target"].astype(str), "weight": weight})

"""Matrices as 10x, STARsolo and repositories give them: a folder with three files, packed or not, with a prefix or none."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import io, sparse

if TYPE_CHECKING:
    from anndata import AnnData

MATRICES = ("matrix.mtx", "matrix.mtx.gz")
GENES = "Gene Expression"


def matrices_in(folder: Path) -> list[Path]:
    """Return the matrices of a folder: `matrix.mtx`, or with a prefix that ends in `_`, as it is or packed."""
    return sorted(p for p in folder.iterdir() if any(p.name == m or p.name.endswith(f"_{m}") for m in MATRICES))


def read_mtx_folder(folder: Path) -> "AnnData":
    """Read the genes of a folder, under their symbols made unique; `var` keeps ids and kinds.

    Raises
    ------
    ValueError
        If it holds several matrices, or barcodes or genes are missing or of another number.
    """
    from anndata import AnnData
    from anndata.utils import make_index_unique

    found = matrices_in(folder)
    if len(found) > 1:
        msg = f"the folder holds several matrices: {', '.join(p.name for p in found)}."
        raise ValueError(msg)
    prefix = found[0].name.partition("matrix.mtx")[0]
    barcodes = _table(folder, f"{prefix}barcodes.tsv")
    features = _table(folder, f"{prefix}features.tsv", f"{prefix}genes.tsv")
    n_genes, n_barcodes = io.mminfo(found[0])[:2]
    if (n_barcodes, n_genes) != (len(barcodes), len(features)):
        msg = f"{found[0].name} is of {n_barcodes} barcodes x {n_genes} genes, for {len(barcodes)} and {len(features)} names."
        raise ValueError(msg)
    X = sparse.csr_matrix(io.mmread(found[0]).T, dtype=np.float32)
    names = {"gene_ids": features[0], "feature_types": features.get(2)}
    symbols = make_index_unique(pd.Index(features[1 if 1 in features else 0].to_numpy()))
    var = pd.DataFrame({name: texts.to_numpy() for name, texts in names.items() if texts is not None}, index=symbols)
    adata = AnnData(X, obs=pd.DataFrame(index=barcodes[0].to_numpy()), var=var)
    return adata[:, (var["feature_types"] == GENES).to_numpy()].copy() if "feature_types" in var else adata


def _table(folder: Path, *names: str) -> pd.DataFrame:
    """Read the first of these files that there is, packed or not, as texts."""
    for path in (folder / f"{name}{packed}" for name in names for packed in ("", ".gz")):
        if path.is_file():
            return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False, quoting=3)
    msg = f"the folder lacks {' or '.join(names)}."
    raise ValueError(msg)

"""Rectangle in an environment of its own, because rectanglepy 1.7.0 needs anndata < 0.10.9 and numpy < 2.

Run by `_peers.rectangle` as `PYTHON _rectangle.py FOLDER`: reads FOLDER/in.npz, writes FOLDER/out.csv, prints CPU seconds.
With cells, the whole tool: its own signature, two levels of types, sizes of cells corrected, told that no type is missing.
With a table, its dampened weighted least squares on it. Nothing of the project is imported.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from loguru import logger
from rectanglepy import rectangle
from rectanglepy.tl.deconvolution import _calculate_ls
from scipy import sparse

if __name__ == "__main__":
    logger.remove()
    folder = Path(sys.argv[1])
    files = np.load(folder / "in.npz", allow_pickle=False)
    mixtures = pd.DataFrame(files["mixtures"], index=files["spots"], columns=files["genes"])
    began = time.process_time()
    if "labels" in files:
        cells = AnnData(
            sparse.csr_matrix(files["reference"]),
            obs=pd.DataFrame({"cell_type": files["labels"]}, index=[f"cell {i}" for i in range(len(files["labels"]))]),
            var=pd.DataFrame(index=files["reference_genes"]),
        )
        found, _ = rectangle(cells, mixtures, n_cpus=1, correct_unknown_fraction=False)
    else:
        table = pd.DataFrame(files["reference"], index=files["reference_genes"], columns=files["types"])
        # weights sum to at most one in its fits: table and mixtures get the same total, on the genes they share
        genes = table.index.intersection(mixtures.columns)
        mean = table.loc[genes].sum().mean()
        mixtures = mixtures[genes].div(mixtures[genes].sum(axis=1), axis=0)
        found = mixtures.apply(lambda row: _calculate_ls(table.loc[genes] / mean, row), axis=1)
        found = found.div(found.sum(axis=1), axis=0)
    found.to_csv(folder / "out.csv")
    print(time.process_time() - began)

"""The same numbers however the rows are cut into blocks, dense and sparse, also in single precision and after many passes."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um
from unmix.core import factorization

da = pytest.importorskip("dask.array")
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
PROFILES = RNG.gamma(0.5, 1.0, (4, 80))
X = RNG.poisson(RNG.dirichlet(np.full(4, 0.3), 900) @ PROFILES).astype(np.float32)
X[5] = 0
GENES = [f"g{i}" for i in range(80)]
TABLE = pd.DataFrame(PROFILES.T, index=GENES, columns=list("abcd"))
CASES = {
    "nnls": (lambda a: um.tl.deconvolve(a, TABLE, method="nnls"), "deconvolve"),
    "poisson": (lambda a: um.tl.deconvolve(a, TABLE, method="poisson"), "deconvolve"),
    "archetypes": (lambda a: um.tl.starfysh_archetypes(a, 3, n_restarts=2), "archetypes"),
    "svd": (lambda a: um.tl.factorize(a, 4, method="svd"), "X_svd"),
    "als": (lambda a: um.tl.factorize(a, 4, method="als", max_iter=30, tol=0), "X_als"),
    "nmf": (lambda a: um.tl.factorize(a, 4, max_iter=60, tol=0), "X_nmf"),
    "kl": (lambda a: um.tl.factorize(a, 4, loss="kl", max_iter=60, tol=0), "X_nmf"),
    "metagenes": (lambda a: um.tl.metagenes(a, 4, n_runs=3, max_distance=2.0, max_iter=60), "X_metagenes"),
    "joint batches": (lambda a: um.tl.joint_nmf(a, 4, batch_key="batch", max_iter=60, tol=0), "X_joint_nmf"),
    "autoencoder": (lambda a: um.tl.autoencoder(a, 3, likelihood="nb", max_epochs=2), "X_ae"),
}


def cells(kind):
    matrix = X.copy() if kind == "dense" else sparse.csr_matrix(X)
    if isinstance(kind, int):
        matrix = da.from_array(matrix, chunks=(kind, 80), asarray=False)
    obs = pd.DataFrame({"batch": ["one", "two"] * 450}, index=[f"c{i}" for i in range(900)])
    return AnnData(matrix, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("name", CASES)
def test_numbers_do_not_depend_on_how_rows_are_cut_and_kept(name, precision, monkeypatch):
    if precision == "single":
        monkeypatch.setattr(factorization, "DOUBLE_ENTRIES", 0)
    run, slot = CASES[name]
    found = {}
    for kind in ("csr", "dense", 31, 250):
        adata = cells(kind)
        run(adata)
        found[kind] = np.asarray(adata.obsm[slot], dtype=float)
    largest = np.nanmax(np.abs(found["csr"]))
    for kind, values in found.items():
        np.testing.assert_allclose(values, found["csr"], rtol=1e-6, atol=1e-6 * largest, err_msg=str(kind))

"""`pp.recover_counts` on data as scanpy leaves them."""

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse

import unmix as um

pytestmark = pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def spots():
    return um.datasets.pbmc_spots()[0]


@pytest.mark.parametrize("target", [1e4, 1e6, None])
@pytest.mark.parametrize("base", [None, 2])
@pytest.mark.parametrize("exclude", [False, True])
def test_scanpys_preprocessing(spots, target, base, exclude):
    counts = spots.X.copy()
    sc.pp.normalize_total(spots, target_sum=target, exclude_highly_expressed=exclude)
    um.pp.recover_counts(spots, key_added="before")
    assert spots.uns["before"]["values"] == "normalised"
    sc.pp.log1p(spots, base=base)
    um.pp.recover_counts(spots)
    assert spots.uns["counts"]["values"] == "log-normalised"
    for layer in ("before", "counts"):
        assert (spots.layers[layer] != counts).nnz == 0
        assert spots.layers[layer].dtype == np.float32
    np.testing.assert_allclose(spots.obs["counts_unit"], spots.obs["before_unit"], rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "csc", "backed", "dask"])
def test_every_container(spots, kind, tmp_path):
    counts = spots.X.copy()
    sc.pp.normalize_total(spots)
    sc.pp.log1p(spots)
    if kind == "backed":
        spots.write_h5ad(tmp_path / "x.h5ad")
        spots = um.pp.recover_counts(ad.read_h5ad(tmp_path / "x.h5ad", backed="r"), copy=True)
    else:
        da = pytest.importorskip("dask.array")
        make = {"dense": np.asarray, "csc": sparse.csc_matrix, "dask": lambda X: da.from_array(X, chunks=(50, -1))}
        spots.X = make[kind](spots.X.toarray())
        um.pp.recover_counts(spots)
    assert (sparse.csr_matrix(spots.layers["counts"]) != counts).nnz == 0


def test_genes_left_out_since(spots):
    sc.pp.normalize_total(spots)
    some = spots[:, ::3].copy()
    um.pp.recover_counts(some)
    assert (some.layers["counts"] != um.datasets.pbmc_spots()[0].X[:, ::3]).nnz == 0


def test_counts_stay_counts(spots):
    spots.X = 2 * spots.X
    um.pp.recover_counts(spots)
    assert spots.uns["counts"]["values"] == "counts"
    assert (spots.layers["counts"] != spots.X).nnz == 0
    assert (spots.obs["counts_unit"] == 1).all()


def test_counts_of_others_are_not_replaced(spots):
    um.pp.recover_counts(spots)
    um.pp.recover_counts(spots)  # its own
    del spots.uns["counts"]
    with pytest.raises(ValueError, match=r"layers\['counts'\] is there already"):
        um.pp.recover_counts(spots)
    um.pp.recover_counts(spots, layer="counts", key_added="again")


def test_refused_in_words(spots):
    X = spots.X.toarray()
    lengths = np.random.default_rng(0).lognormal(0, 0.5, spots.n_vars)
    for values in (X * lengths, np.where(np.arange(len(X))[:, None] == 70, X * lengths, X * 0.3)):
        spots.X = values
        with pytest.raises(ValueError, match="no counts can be recovered from X"):
            um.pp.recover_counts(spots)
        assert not len(spots.layers)
    with pytest.raises(ValueError, match=f"first in '{spots.obs_names[70]}'"):
        um.pp.recover_counts(spots)
    spots.X = X - 1
    with pytest.raises(ValueError, match="negative"):
        um.pp.recover_counts(spots)
    spots.X = 0 * X
    with pytest.raises(ValueError, match="nothing but zeros"):
        um.pp.recover_counts(spots)


def test_deconvolution_says_where_counts_come_from(spots):
    _, cells = um.datasets.pbmc_spots()
    expected = um.tl.deconvolve(spots, cells, groupby="cell_type", copy=True)
    sc.pp.normalize_total(spots, target_sum=1e4)
    sc.pp.log1p(spots)
    with pytest.warns(UserWarning, match=r"unmix\.pp\.recover_counts"):
        um.tl.deconvolve(spots, cells, groupby="cell_type", method="poisson", copy=True)
    um.pp.recover_counts(spots)
    um.tl.deconvolve(spots, cells, groupby="cell_type", layer="counts")
    assert um.get.proportions(spots).equals(um.get.proportions(expected))


@pytest.mark.parametrize(
    "name", ["pbmc3k/counts", "st_mob_rep11/spatial", "baron_pancreas_h1/counts", "seqfish_ob/cells"]
)
def test_real_counts_come_back(name):
    path = DATA / f"{name}.h5ad"
    if not path.exists():
        pytest.skip("the shared data are not here")
    cells = ad.read_h5ad(path)
    counts = sparse.csr_matrix(cells.X, dtype=np.float32)
    cells = ad.AnnData(counts.copy())[np.asarray(counts.sum(axis=1)).ravel() > 0].copy()
    counts = cells.X.copy()
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    um.pp.recover_counts(cells)
    wrong = np.unique((cells.layers["counts"] != counts).nonzero()[0])
    assert (np.diff(counts.indptr)[wrong] < 6).all()
    assert len(wrong) <= len(counts.indptr) / 1000

"""The same proportions from memory, a lazily read zarr, and a cluster of two workers."""

import anndata as ad
import numpy as np
import pytest

import unmix as um


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["auto", "poisson", "nusvr"])
def test_memory_zarr_and_cluster_agree(tmp_path, method, cluster):
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("xarray")
    spots, reference = um.datasets.pbmc_spots(shape=(6, 8))
    bare = ad.AnnData(spots.X, obs=spots.obs[[]], var=spots.var[[]])
    bare.write_zarr(tmp_path / "x.zarr", chunks=(20, bare.n_vars))
    um.tl.deconvolve(bare, reference, groupby="cell_type", method=method, n_perms=5)
    expected = um.get.proportions(bare)

    def table():
        lazy = ad.experimental.read_lazy(tmp_path / "x.zarr")
        um.tl.deconvolve(lazy, reference, groupby="cell_type", method=method, n_perms=5)
        return um.get.proportions(lazy)

    np.testing.assert_allclose(table(), expected, atol=1e-6)
    with distributed.Client(cluster):
        np.testing.assert_allclose(table(), expected, atol=1e-6)

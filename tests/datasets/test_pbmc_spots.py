import numpy as np
import pytest
import scanpy as sc

import unmix as um
from unmix.datasets._pbmc_spots import _pbmc_cells


@pytest.fixture(scope="module")
def pbmc():
    return um.datasets.pbmc_spots()


def test_the_counts_have_the_totals_of_the_file():
    cells = sc.datasets.pbmc68k_reduced()
    counts = _pbmc_cells().X
    scaled = cells.raw.X.astype(float).expm1()
    unit = np.asarray(scaled.sum(axis=1)).ravel() / np.asarray(counts.sum(axis=1)).ravel()
    np.testing.assert_allclose(1e4 / unit, cells.obs["n_counts"], rtol=2e-3)


def test_spots_are_whole_counts_that_add_up_to_whole_cells(pbmc):
    spots, reference = pbmc
    for X in (spots.X, reference.X):
        assert X.format == "csr"
        assert (X.data % 1 == 0).all()
        assert X.data.min() >= 1
    truth = spots.obsm["truth_counts"]
    np.testing.assert_array_equal(truth.sum(axis=1), spots.obs["n_cells"])
    np.testing.assert_allclose(spots.obsm["truth_proportions"].sum(axis=1), 1)
    np.testing.assert_allclose(spots.obsm["truth_umi_fractions"].sum(axis=1), 1)
    np.testing.assert_array_equal(spots.obsm["truth_umi_fractions"] > 0, truth > 0)


def test_reference_has_every_type_under_its_own_name_and_no_cell_of_the_pool(pbmc):
    spots, reference = pbmc
    labels = sc.datasets.pbmc68k_reduced().obs["bulk_labels"]
    assert set(reference.obs["cell_type"]) == set(labels) == set(spots.uns["truth_proportions"]["names"])
    chosen = reference.obs["cell_type"].value_counts()
    np.testing.assert_array_equal(chosen, np.ceil(labels.value_counts()[chosen.index] / 2))


def test_spots_come_from_the_other_cells_only():
    spots, reference = um.datasets.pbmc_spots(cells_per_spot=1)
    cells = sc.datasets.pbmc68k_reduced()
    counts = _pbmc_cells().X.toarray()
    pool = counts[~cells.obs_names.isin(reference.obs_names)]
    rows = {row.tobytes() for row in pool}
    assert all(row.tobytes() in rows for row in spots.X.toarray())


def test_neighbours_are_more_alike_than_spots_far_away(pbmc):
    truth = pbmc[0].obsm["truth_proportions"].to_numpy().reshape(15, 20, -1)
    beside = np.abs(truth[:, 1:] - truth[:, :-1]).mean()
    far = np.abs(truth[:, 10:] - truth[:, :10]).mean()
    assert beside < 0.7 * far


def test_same_seed_same_spots_other_seed_other_spots(pbmc):
    again, _ = um.datasets.pbmc_spots(0)
    other, reference = um.datasets.pbmc_spots(np.random.default_rng(1), shape=(15, 20))
    assert (again.X != pbmc[0].X).nnz == 0
    assert (other.X != pbmc[0].X).nnz > 0
    assert list(reference.obs_names) != list(pbmc[1].obs_names)


def test_both_can_be_saved(pbmc, tmp_path):
    import anndata

    for adata, name in zip(pbmc, ("spots", "reference"), strict=True):
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        back = anndata.read_h5ad(tmp_path / f"{name}.h5ad")
        assert (back.X != adata.X).nnz == 0
    assert list(anndata.read_h5ad(tmp_path / "spots.h5ad").uns["truth_proportions"]["names"])[3] == "CD4+/CD25 T Reg"

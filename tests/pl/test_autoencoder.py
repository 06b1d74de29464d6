import matplotlib as mpl
import numpy as np
import pytest

import unmix as um

mpl.use("agg")


@pytest.fixture(scope="module")
def cells():
    _, cells = um.datasets.pbmc_spots()
    um.tl.autoencoder(cells, 5, likelihood="nb", max_epochs=4, denoise=["CD3D", "MS4A1"])
    return cells


def test_training_draws_what_is_stored(cells):
    losses, rate = um.pl.training(cells, show=False)
    history = cells.uns["ae"]["history"]
    drawn = {line.get_label(): line.get_ydata() for line in losses.get_lines()}
    np.testing.assert_allclose(drawn["training cells"], history["train"])
    np.testing.assert_allclose(drawn["held-out cells"], history["validation"])
    assert f"kept: epoch {cells.uns['ae']['best_epoch']}" in drawn
    np.testing.assert_allclose(rate.get_lines()[0].get_ydata(), history["learning_rate"])


def test_denoised_draws_counts_and_means_at_the_median_total(cells):
    before, after = um.pl.denoised(cells, ["CD3D", "MS4A1"], color="cell_type", show=False)
    assert len(before.collections) == cells.obs["cell_type"].nunique()
    drawn = np.sort(np.concatenate([np.asarray(c.get_offsets())[:, 0] for c in after.collections]))
    totals = np.asarray(cells.X.sum(1)).ravel()
    column = cells.layers["ae_denoised"][:, cells.var_names.get_loc("CD3D")].toarray().ravel()
    np.testing.assert_allclose(drawn, np.sort(np.log1p(column * np.median(totals) / totals)), rtol=1e-5)


def test_denoised_scales_only_what_is_at_the_own_total(cells):
    """Means at the median total are drawn as they are; real values without any scale."""
    cells = cells.copy()
    drawn = {}
    for library in (True, False):
        um.tl.denoise(cells, genes=["CD3D", "MS4A1"], library=library)
        drawn[library] = um.pl.denoised(cells, ["CD3D", "MS4A1"], show=False)[1].collections[0].get_offsets()
    np.testing.assert_allclose(drawn[True], drawn[False], rtol=1e-5)
    cells.layers["centred"] = cells.X.toarray() - 1.0
    um.tl.autoencoder(cells, 3, likelihood="gaussian", layer="centred", max_epochs=1, key_added="real", denoise=True)
    before, after = um.pl.denoised(cells, ["CD3D", "MS4A1"], key="real", layer="centred", show=False)
    at = cells.var_names.get_indexer(["CD3D", "MS4A1"])
    for panel, layer in ((before, "centred"), (after, "real_denoised")):
        np.testing.assert_allclose(panel.collections[0].get_offsets(), cells.layers[layer][:, at], rtol=1e-5)


def test_means_written_to_a_file_do_not_say_how_the_layer_is_scaled(cells, tmp_path):
    cells = cells.copy()
    um.tl.autoencoder(cells, 3, likelihood="nb", max_epochs=1, denoise=["CD3D", "MS4A1"])
    drawn = [um.pl.denoised(cells, ["CD3D", "MS4A1"], show=False)[1].collections[0].get_offsets()]
    um.tl.denoise(cells, library=False, out=tmp_path / "means.h5ad")
    drawn += [um.pl.denoised(cells, ["CD3D", "MS4A1"], show=False)[1].collections[0].get_offsets()]
    np.testing.assert_array_equal(*drawn)


def test_denoised_needs_the_totals_of_the_cells(cells):
    """Of two genes alone the totals are their own sums, and all points would lie on a line."""
    names = ["CD3D", "MS4A1"]
    renamed = cells.copy()
    renamed.var_names = [f"my {name}" for name in cells.var_names]
    um.pl.denoised(renamed, [f"my {name}" for name in names], show=False)
    with pytest.raises(ValueError, match="genes of the fit were taken out since"):
        um.pl.denoised(cells[:, names], names, show=False)
    drawn = [um.pl.denoised(part, names, show=False)[1].collections[0].get_offsets() for part in (cells, cells[::2])]
    shown = np.expm1(drawn[0][::2]) / np.expm1(drawn[1])  # up to the median of the totals
    np.testing.assert_allclose(shown, shown[0, 0], rtol=1e-4)


def test_refuses_what_is_not_there(cells):
    with pytest.raises(KeyError, match="no result of"):
        um.pl.training(cells, key="vae", show=False)
    changed = cells.copy()
    changed.uns["ae"]["best_epoch"] = [1, 2]
    with pytest.raises(ValueError, match="must be a number"):
        um.pl.training(changed, show=False)
    changed.uns["ae"]["design"] = "none"
    with pytest.raises(ValueError, match="'design' of the result must be a dict"):
        um.pl.denoised(changed, ["CD3D", "MS4A1"], show=False)
    with pytest.raises(ValueError, match="two names"):
        um.pl.denoised(cells, ["CD3D"], show=False)
    with pytest.raises(KeyError, match="no layer"):
        um.pl.denoised(cells, ["CD3D", "MS4A1"], key="vae", show=False)
    with pytest.raises(ValueError, match="were not denoised"):
        um.pl.denoised(cells, ["CD3D", "NKG7"], show=False)
    with pytest.raises(KeyError, match="lacks the genes"):
        um.pl.denoised(cells, ["CD3D", "nothing"], show=False)
    twice = cells.copy()
    twice.var_names = [*twice.var_names[:-1], "CD3D"]
    with pytest.raises(ValueError, match="must be unique"):
        um.pl.denoised(twice, ["CD3D", "MS4A1"], show=False)

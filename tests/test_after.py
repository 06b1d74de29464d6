"""What is done with results after a fit: tables are changed, objects put together, slots lost, fits repeated."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.same import difference, fingerprint

import unmix as um
from unmix._report.readers import read_results


@pytest.fixture(scope="module")
def tissue():
    """Spots and labelled cells of four types."""
    return um.datasets.simulate_spots(40, 60, 4, cells_per_type=20, rng=1)


@pytest.fixture(scope="module")
def fitted(tissue):
    spots, cells = (part.copy() for part in tissue)
    um.tl.deconvolve(spots, cells, groupby="cell_type")
    um.tl.factorize(spots, 2)
    um.tl.starfysh_archetypes(spots, 3, resolution=None)
    return spots


TABLES = {
    "proportions": lambda a: um.get.proportions(a),
    "of cells": lambda a: um.get.proportions(a, as_rna=False),
    "archetypes": lambda a: um.get.archetypes(a),
    "loadings": lambda a: um.get.loadings(a),
    "as_anndata": lambda a: um.get.as_anndata(a),
    "as_anndata of usages": lambda a: um.get.as_anndata(a, key="nmf"),
    "as_anndata of all that fits": lambda a: um.get.as_anndata(a, dropna=True),
}


@pytest.mark.parametrize("table", TABLES)
def test_what_is_done_to_a_table_does_not_change_the_object(fitted, table):
    adata = fitted.copy()
    before = fingerprint(adata)
    found = TABLES[table](adata)
    if isinstance(found, ad.AnnData):
        found.X[:] = -1
        found.obsm["spatial"][:] = -1
        found.obs["deconvolve_rmse"] = 0.0
    else:
        found[found < 1] = 0  # as one drops what is small
        found.to_numpy()[:] = -1
    assert not difference(before, fingerprint(adata), added=False)


def test_errors_of_a_run_whose_account_was_lost_are_not_those_of_the_next(fitted, tissue):
    """`anndata.concat` keeps obs and obsm and drops uns: what the next run does not write is not its own."""
    both = ad.concat([fitted[:20], fitted[20:]])
    assert "deconvolve_se" in both.obsm
    um.tl.deconvolve(both, tissue[1], groupby="cell_type", method="nnls")
    fresh = tissue[0].copy()
    um.tl.deconvolve(fresh, tissue[1], groupby="cell_type", method="nnls")
    assert list(um.get.proportions(both, tidy=True)) == ["obs_name", "cell_type", "proportion"]
    with pytest.raises(KeyError, match="holds no standard errors"):
        um.pl.proportions(both, kind="se", show=False)
    (told,), (expected,) = read_results(both, None), read_results(fresh, None)
    assert list(told.quantities) == list(expected.quantities) == ["proportion"]
    assert list(told.columns) == list(expected.columns)
    assert told.findings == expected.findings


@pytest.mark.parametrize(
    ("key", "lost"), [("nmf", "X_nmf"), ("archetypes", "archetypes"), ("deconvolve", "deconvolve")]
)
def test_a_table_that_was_lost_is_named(fitted, tissue, key, lost):
    """As by an inner join with spots that were not fitted."""
    both = ad.concat([fitted, tissue[0][:0]], uns_merge="first", merge="first")
    for use in (lambda: um.get.as_anndata(both, key=key), lambda: read_results(both, [key])):
        with pytest.raises(KeyError, match=rf"obsm\['{lost}'\] is missing, though uns says that a tool wrote it"):
            use()


def test_a_signature_that_was_lost_is_named(fitted):
    halves = ad.concat([fitted[:20], fitted[20:]], uns_merge="same")
    with pytest.raises(
        KeyError, match=r"varm\['deconvolve_signature'\] is missing, though uns says that a tool wrote it"
    ):
        read_results(halves, ["deconvolve"])
    halves = ad.concat([fitted[:20], fitted[20:]], uns_merge="same", merge="same")
    assert read_results(halves, ["deconvolve"])[0].table.equals(um.get.proportions(fitted))


def test_tables_whose_account_was_lost_are_named_and_what_to_do(fitted, tmp_path):
    parts = [fitted[:20], fitted[20:]]
    both, kept = ad.concat(parts), ad.concat(parts, uns_merge="same", merge="same")
    both.obsm["X_pca"] = both.obsm["spatial"]
    with pytest.raises(KeyError, match=r'tables of \[.*deconvolve.*\].*`uns_merge="same", merge="same"`') as told:
        um.report(both, tmp_path / "report.html")
    assert "pca" not in str(told.value)
    for use in (lambda: um.get.proportions(both), lambda: um.report(both, tmp_path / "r.html", keys="nmf")):
        with pytest.raises(KeyError, match=r"`anndata.concat` drops it"):
            use()
    um.report(kept, tmp_path / "report.html")
    del both.obsm
    with pytest.raises(KeyError, match=r"run `unmix.tl.deconvolve` or another tool first"):
        um.report(both, tmp_path / "r.html")


@pytest.mark.parametrize("table", ["proportions", "archetypes"])
def test_columns_that_were_put_in_another_order_keep_their_names(fitted, table):
    other = fitted.copy()
    for name in ("deconvolve", "deconvolve_se", "archetypes"):
        other.obsm[name] = other.obsm[name].iloc[:, ::-1]
    pd.testing.assert_frame_equal(TABLES[table](other), TABLES[table](fitted))
    pd.testing.assert_frame_equal(um.get.proportions(other, tidy=True), um.get.proportions(fitted, tidy=True))


def test_genes_that_were_added_have_no_say_in_enrichment(tissue):
    """As proteins beside the genes, joined by their outer names."""
    cells = tissue[1].copy()
    um.tl.metagenes(cells, 3, n_runs=3, max_distance=2.0)
    sets = {"first": list(cells.var_names[:20]), "last": list(cells.var_names[-20:])}
    proteins = ad.AnnData(np.ones((cells.n_obs, 3), np.float32), cells.obs[[]], pd.DataFrame(index=["p1", "p2", "p3"]))
    both = ad.concat([proteins, cells], axis=1, join="outer", merge="first", uns_merge="first")
    assert np.isnan(both.varm["metagenes_score"][:3]).all()
    pd.testing.assert_frame_equal(um.get.enrichment(both, sets), um.get.enrichment(cells, sets))


def drawn_anchors(adata):
    panel = um.pl.archetype_simplex(adata, show=False)[0]
    (marks,) = (c for c in panel.collections if c.get_label() == "anchors (spots)")
    return np.asarray(marks.get_offsets())


def test_anchors_are_where_they_were_whatever_the_spots_are_called(fitted):
    expected = drawn_anchors(fitted)
    other = fitted.copy()
    other.obs_names = [f"spot_{i % 20}" for i in range(40)]
    np.testing.assert_array_equal(drawn_anchors(other), expected)
    other.obs_names_make_unique()
    np.testing.assert_array_equal(drawn_anchors(other), expected)
    kept = (fitted.obs["archetypes_anchor"] != "archetype_1").to_numpy()
    assert 0 < len(drawn_anchors(fitted[kept])) < len(expected)
    del other.obs["archetypes_anchor"]
    with pytest.raises(KeyError, match=r"obs\['archetypes_anchor'\] is missing"):
        um.pl.archetype_simplex(other, show=False)


def test_what_two_fits_do_not_share_is_named(tissue, tmp_path):
    """As by a merge of uns that keeps what is the same in both."""
    pytest.importorskip("torch")
    parts = [tissue[0][:20].copy(), tissue[0][20:].copy()]
    for part in parts:
        um.tl.autoencoder(part, 2, likelihood="nb", max_epochs=1)
        um.tl.starfysh_archetypes(part, 2, resolution=None)
    both = ad.concat(parts, uns_merge="same", merge="same")
    with pytest.raises(KeyError, match=r"uns\['archetypes'\] lacks 'anchors'"):
        um.get.archetypes(both, what="anchors")
    for use in (lambda: um.pl.training(both, show=False), lambda: read_results(both, ["ae"])):
        with pytest.raises(KeyError, match="'history' lacks 'train'"):
            use()
    with pytest.raises(ValueError, match="so that it cannot be saved"):
        um.save(both, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_result_whose_names_were_lost_is_named(fitted):
    spoiled = fitted.copy()
    if "matching" not in spoiled.uns["archetypes"]:
        um.tl.starfysh_archetypes(spoiled, 2, resolution=None, signatures={"a": list(spoiled.var_names[:9])})
    spoiled.uns["archetypes"]["names"] = True
    with pytest.raises(ValueError, match="'names' of the result must be a list of names"):
        um.pl.signature_matching(spoiled, show=False)

"""`tl.deconvolve`: what it does with difficult input, and real tissue from another platform."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import unmix as um
from unmix._adata.read import CountsWarning
from unmix._adata.signatures import SignatureWarning


@pytest.fixture(scope="module")
def blood():
    return um.datasets.pbmc_spots()


@pytest.fixture
def spots(blood):
    return blood[0].copy()


def bulk(n=4):
    rng = np.random.default_rng(0)
    signature = pd.DataFrame(rng.gamma(1, 1, (30, 3)), index=[f"g{i}" for i in range(30)], columns=["a", "b/c", "d"])
    truth = rng.dirichlet(np.ones(3), n)
    mixtures = ad.AnnData(truth @ signature.to_numpy().T * 100, var=pd.DataFrame(index=signature.index))
    mixtures.obs_names = [f"s{i}" for i in range(n)]
    return mixtures, signature, truth


@pytest.mark.parametrize("method", ["nnls", "poisson", "simplex"])
@pytest.mark.filterwarnings("ignore::unmix._adata.read.CountsWarning")
def test_exact_mixtures_give_exact_proportions_under_their_own_names(method):
    mixtures, signature, truth = bulk()
    um.tl.deconvolve(mixtures, signature, method=method)
    table = um.get.proportions(mixtures)
    assert list(table.columns) == ["a", "b/c", "d"]
    np.testing.assert_allclose(table, truth, atol=1e-9)


@pytest.mark.parametrize("method", ["nnls", "simplex", "poisson", "nusvr_simplex"])
def test_depth_of_a_spot_and_order_of_genes_do_not_matter(spots, blood, method):
    part = spots[:20].copy()
    other = part[:, ::-1].copy()
    other.X = other.X * 3
    with pytest.warns(SignatureWarning, match="few cells"):
        um.tl.deconvolve(part, blood[1], groupby="cell_type", method=method)
    with pytest.warns(SignatureWarning, match="few cells"):
        um.tl.deconvolve(other, blood[1], groupby="cell_type", method=method)
    np.testing.assert_allclose(um.get.proportions(part), um.get.proportions(other), atol=1e-6)


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
def test_every_spot_comes_back_in_its_place(spots, blood):
    part = spots[:10].copy()
    part.X = sparse.diags_array((np.arange(10) != 4).astype(np.float32)) @ part.X
    um.tl.deconvolve(part, blood[1], groupby="cell_type", method="poisson")
    table = um.get.proportions(part)
    assert list(table.index) == list(part.obs_names)
    assert table.iloc[4].isna().all()
    assert part.obs["deconvolve_status"].iloc[4] == "no counts"
    assert table.drop(index=table.index[4]).notna().all().all()


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
def test_better_than_guessing_and_p_values_are_never_zero(spots, blood):
    truth = spots.obsm["truth_proportions"]
    um.tl.deconvolve(spots, blood[1], groupby="cell_type", method="poisson", n_perms=19)
    scores = um.metrics.evaluate(um.get.proportions(spots), truth)
    guess = pd.DataFrame(np.tile(truth.mean(), (len(truth), 1)), index=truth.index, columns=truth.columns)
    assert scores["rmse"] < 0.7 * um.metrics.evaluate(guess, truth)["rmse"]
    assert spots.obs["deconvolve_pval"].min() == 1 / 20
    assert (spots.obs["deconvolve_qval"] >= spots.obs["deconvolve_pval"]).all()


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
def test_shares_of_cells_and_of_rna_convert_into_each_other(spots, blood):
    um.tl.deconvolve(spots, blood[1], groupby="cell_type", method="poisson")
    um.tl.deconvolve(spots, blood[1], groupby="cell_type", method="poisson", as_rna=True, key_added="rna")
    np.testing.assert_allclose(um.get.proportions(spots, as_rna=True), um.get.proportions(spots, key="rna"), atol=1e-9)
    np.testing.assert_allclose(um.get.proportions(spots), um.get.proportions(spots, key="rna", as_rna=False), atol=1e-9)
    tidy = um.get.proportions(spots, tidy=True)
    assert len(tidy) == spots.n_obs * 10
    np.testing.assert_allclose(tidy["proportion"].to_numpy().reshape(-1, 10), um.get.proportions(spots))


def test_problems_with_the_reference_are_named():
    mixtures, signature, _ = bulk()
    with pytest.raises(ValueError, match="share no gene"):
        um.tl.deconvolve(mixtures, signature.rename(index=lambda g: f"x{g}"), method="nnls")
    silent = signature.copy()
    silent.loc[silent.idxmax(axis=1) == "d", "d"] = 0
    silent.loc["elsewhere"] = [0, 0, 9]
    with pytest.raises(ValueError, match="none of the markers of \\['d'\\]"):
        um.tl.deconvolve(mixtures, silent, method="nnls")
    with pytest.raises(ValueError, match="unique"):
        um.tl.deconvolve(mixtures, pd.concat([signature, signature]), method="nnls")
    with pytest.raises(ValueError, match="linear"):
        um.tl.deconvolve(mixtures, signature - 5, method="nnls")
    with pytest.raises(TypeError, match="DataFrame"):
        um.tl.deconvolve(mixtures, signature.to_numpy(), method="nnls")
    with pytest.raises(ValueError, match="one of"):
        um.tl.deconvolve(mixtures, signature, method="magic")
    with pytest.raises(ValueError, match="nusvr"):
        um.tl.deconvolve(mixtures, signature, method="nnls", absolute="sig.score")
    with pytest.raises(ValueError, match="n_markers"):
        um.tl.deconvolve(mixtures, signature, n_markers=(5, 2))
    assert not mixtures.obsm


def test_mistakes_with_cells_as_reference_are_named(spots, blood):
    cells = blood[1].copy()
    cells.obs["mito"] = np.linspace(0, 1, cells.n_obs)
    cells.obs["total"] = np.arange(cells.n_obs)
    for measured in ("mito", "total"):  # every value would be a type
        with pytest.raises(ValueError, match=f"'{measured}'.* measurements"):
            um.tl.deconvolve(spots, cells, groupby=measured)
    with pytest.raises(TypeError, match="given by name, as in groupby="):
        um.tl.deconvolve(spots, cells, "cell_type")
    with pytest.raises(KeyError, match="layers of the reference"):
        um.tl.deconvolve(spots, cells, groupby="cell_type", reference_layer="counts")
    with pytest.raises(KeyError, match="to_adata"):
        um.tl.deconvolve(spots, cells, groupby="cell_type", layer="raw")
    cells.var_names = [*cells.var_names[:1], *cells.var_names[:-1]]
    with pytest.raises(ValueError, match="in the reference"):
        um.tl.deconvolve(spots, cells, groupby="cell_type")
    other = blood[1].copy()
    other.var_names = [f"g{i}" if i else name for i, name in enumerate(spots.var_names)]
    with pytest.raises(ValueError, match="1 of .* shared.*symbols"):
        um.tl.deconvolve(spots, other, groupby="cell_type")


def test_warnings_name_collinear_types_lost_markers_and_case():
    mixtures, signature, _ = bulk()
    twins = signature.assign(e=2 * signature["a"])
    with pytest.warns(SignatureWarning, match="a and e"):
        um.tl.deconvolve(mixtures, twins, method="nnls")
    with pytest.warns(SignatureWarning, match="ignoring case"):
        um.tl.deconvolve(mixtures, signature.rename(index=str.upper), method="nnls")
    of_a = signature.index[signature.idxmax(axis=1) == "a"]
    few = mixtures[:, ~mixtures.var_names.isin(of_a[1:])].copy()
    with pytest.warns(SignatureWarning, match="more than half of the markers of \\['a'\\]"):
        um.tl.deconvolve(few, signature, method="nnls")


def test_values_that_are_no_counts_are_told_once_and_can_be_silenced(spots, blood, monkeypatch):
    part = spots[:5].copy()
    part.X = part.X * 0.3
    with pytest.warns(CountsWarning, match="whole numbers") as seen, pytest.warns(SignatureWarning):
        um.tl.deconvolve(part, blood[1], groupby="cell_type", method="poisson")
    assert sum(issubclass(w.category, CountsWarning) for w in seen) == 1
    monkeypatch.setattr(um.settings, "check_counts", False)
    with pytest.warns(SignatureWarning):
        um.tl.deconvolve(part, blood[1], groupby="cell_type", method="poisson")


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
@pytest.mark.parametrize("method", ["auto", "nnls"])
def test_a_tissue_without_any_fit_is_told(spots, blood, method):
    part = spots[:5].copy()
    part.X = part.X * 0
    with pytest.warns(CountsWarning, match=r"none of the 5 observations could be fitted \(no counts\)"):
        um.tl.deconvolve(part, blood[1], groupby="cell_type", method=method)
    assert um.get.proportions(part).isna().all().all()


def test_cibersort_of_the_original_script(shared_reference):
    folder = shared_reference / "cibersort_r"
    signature = pd.read_csv(folder / "signature.tsv", sep="\t", index_col=0)
    table = pd.read_csv(folder / "mixtures.tsv", sep="\t", index_col=0).T
    mixtures = ad.AnnData(
        table.to_numpy(float), obs=pd.DataFrame(index=table.index), var=pd.DataFrame(index=table.columns)
    )
    variants = {
        "r_relative_tight": {},
        "r_relative_qn_tight": {"quantile_normalize": True},
        "r_absolute_sigscore_tight": {"absolute": "sig.score"},
        "r_absolute_nosumto1_tight": {"absolute": "no.sumto1"},
    }
    for name, options in variants.items():
        expected = pd.read_csv(folder / f"{name}.tsv", sep="\t", index_col=0)
        um.tl.deconvolve(mixtures, signature, method="nusvr", **options)
        np.testing.assert_allclose(um.get.proportions(mixtures), expected[signature.columns], atol=2e-5, err_msg=name)
        np.testing.assert_allclose(mixtures.obs["deconvolve_correlation"], expected["Correlation"], atol=2e-5)
        np.testing.assert_allclose(mixtures.obs["deconvolve_rmse"], expected["RMSE"], atol=2e-5)
    um.tl.deconvolve(mixtures, signature, method="nusvr", n_perms=50)
    assert set(mixtures.obs["deconvolve_pval"].nlargest(2).index) == set(mixtures.obs_names[[22, 23]])


@pytest.mark.filterwarnings("ignore::unmix._adata.signatures.SignatureWarning")
@pytest.mark.parametrize("method", ["auto", "poisson"])
def test_layers_of_the_olfactory_bulb(shared_data, method):
    tissue = ad.read_h5ad(shared_data / "st_mob_rep11" / "spatial.h5ad")
    cells = ad.read_h5ad(shared_data / "seqfish_ob" / "cells.h5ad")
    um.tl.deconvolve(tissue, cells, groupby="cell_type", method=method)
    mean = um.get.proportions(tissue).groupby(tissue.obs["layer"].astype(str)).mean().drop(index="NA", errors="ignore")
    assert mean["Mitral/Tufted cells"].idxmax().endswith("Mitral Cell Layer")
    assert mean["Olfactory ensheathing cells"].idxmax().endswith("Olfactory Nerve Layer")
    assert mean["Interneuron"].idxmax().endswith("Granular Cell Layer")

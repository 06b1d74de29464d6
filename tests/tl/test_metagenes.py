"""`tl.metagenes`: planted programs, choice of their number, new cells, real blood cells."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um
from unmix._adata.runs import RunFolder


@pytest.fixture(scope="module")
def planted():
    r = np.random.default_rng(0)
    W, H = r.dirichlet([0.2] * 3, 300), r.gamma(0.2, 1, (3, 200))
    H /= H.sum(axis=1, keepdims=True)
    X = r.poisson(r.lognormal(6, 0.5, (300, 1)) * (W @ H)).astype(np.float32)
    X[5] = 0
    adata = AnnData(sparse.csr_matrix(X), obsm={"truth": W}, varm={"truth": H.T})
    adata.var_names = [f"g{i}" for i in range(200)]
    um.tl.metagenes(adata, [2, 3, 5], n_runs=15, n_top_genes=100)
    return adata


def matched(found, truth):
    return np.array([[np.corrcoef(f, t)[0, 1] for t in truth.T] for f in found.T])


def test_planted_programs_and_their_number_are_found(planted):
    assert planted.uns["metagenes"]["stability"]["silhouette"].argmax() == 1
    filled = np.arange(300) != 5
    usage = planted.obsm["X_metagenes"]
    assert matched(usage[filled], planted.obsm["truth"][filled]).max(axis=0).min() > 0.97
    assert matched(planted.varm["metagenes"], planted.varm["truth"]).max(axis=0).min() > 0.99
    np.testing.assert_allclose(usage[filled].sum(axis=1), 1, rtol=1e-5)
    assert np.isnan(usage[5]).all()
    assert (np.diff(np.nansum(usage, axis=0)) < 0).all()


@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_programs_of_a_sample_are_refitted_on_all_cells(planted, batch_key):
    adata = AnnData(planted.X, obs=pd.DataFrame({"batch": ["a", "b"] * 150}, index=planted.obs_names), var=planted.var)
    um.tl.metagenes(adata, 3, n_runs=10, n_top_genes=100, max_cells=150, batch_key=batch_key)
    filled = np.arange(300) != 5
    usage = adata.obsm["X_metagenes"]
    assert matched(usage[filled], planted.obsm["truth"][filled]).max(axis=0).min() > 0.95
    np.testing.assert_allclose(usage[filled].sum(axis=1), 1, rtol=1e-5)
    assert np.isnan(usage[5]).all()
    names = adata.uns["metagenes"]["consensus"]["names"]
    assert len(set(names)) == len(names) <= 150


def test_counts_may_be_divided_by_the_spread_of_counting_noise(planted):
    found = {}
    for unit in ("variance", "poisson"):
        adata = AnnData(planted.X, obs=planted.obs[[]], var=planted.var)
        um.tl.metagenes(adata, 3, n_runs=10, n_top_genes=100, unit=unit)
        assert matched(adata.varm["metagenes"], planted.varm["truth"]).max(axis=0).min() > 0.98
        new = um.tl.transform(AnnData(planted.X, var=planted.var), adata, key="metagenes", copy=True)
        np.testing.assert_allclose(new.obsm["X_metagenes"], adata.obsm["X_metagenes"], atol=1e-5)
        found[unit] = adata.uns["metagenes"]["scale"]
    used = (found["poisson"] > 0) & (found["variance"] > 0)
    total = np.maximum(np.asarray(planted.X.sum(axis=1)).ravel(), 1)
    mean = np.asarray((sparse.csr_array(planted.X) / total[:, None]).mean(axis=0)).ravel()
    ratio = found["poisson"][used] ** 2 * mean[used]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)


def test_top_genes_mark_their_program(planted):
    top = planted.uns["metagenes"]["top_genes"]
    profile = planted.varm["truth"] / planted.varm["truth"].sum(axis=1, keepdims=True)
    match = matched(planted.varm["metagenes"], planted.varm["truth"]).argmax(axis=1)
    for c in range(3):
        assert profile[planted.var_names.get_indexer(top[f"{c + 1}"][:10]), match[c]].mean() > 0.8


def test_transform_of_the_same_cells_gives_their_usages(planted):
    new = planted[:, ::-1].copy()
    um.tl.transform(new, planted, key="metagenes", key_added="again")
    np.testing.assert_allclose(new.obsm["X_again"], planted.obsm["X_metagenes"], atol=1e-5)


def test_auto_chooses_by_held_out_entries(planted):
    um.tl.metagenes(planted, "auto", n_runs=5, n_top_genes=100, key_added="auto", max_distance=2.0)
    assert planted.obsm["X_auto"].shape[1] == 3
    assert {"ranks", "held_out"} <= set(planted.uns["auto"]["selection"])


def test_an_interrupted_call_goes_on_where_it_was(planted, tmp_path, monkeypatch):
    options = {"n_runs": 6, "n_top_genes": 100, "max_distance": 2.0, "copy": True, "checkpoint": tmp_path, "n_jobs": 1}
    keep, done = RunFolder.keep, []

    def interrupted(self, number, run):
        keep(self, number, run)
        done.append(number)
        if len(done) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        um.tl.metagenes(planted, 3, **options)
    before = len(done)
    assert 3 <= before < 6
    resumed = um.tl.metagenes(planted, 3, **options)
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    whole = um.tl.metagenes(planted, 3, **options | {"checkpoint": None})
    np.testing.assert_array_equal(resumed.obsm["X_metagenes"], whole.obsm["X_metagenes"])
    um.tl.metagenes(planted, 3, **options | {"rng": 1})
    assert len(done) == 12
    assert len(list(tmp_path.iterdir())) == 2


def test_programs_are_free_of_what_sets_the_batches_apart():
    r = np.random.default_rng(0)
    W, H = r.dirichlet([0.2] * 3, 600), r.gamma(0.2, 1, (3, 200))
    H /= H.sum(axis=1, keepdims=True)
    batch = r.permuted(np.repeat([0, 1], 300))
    effect = np.zeros((2, 200))
    effect[1, :15] = 0.4 / 15
    X = r.poisson(r.lognormal(6, 0.3, (600, 1)) * (W @ H + effect[batch])).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(X), obs=pd.DataFrame({"batch": batch.astype(str)}, index=map(str, range(600))))
    share = {}
    for key in (None, "batch"):
        um.tl.metagenes(adata, 4, n_runs=10, n_top_genes=150, batch_key=key, max_distance=2.0)
        usage = adata.obsm["X_metagenes"]
        share[key] = max(np.corrcoef(usage[:, c], batch)[0, 1] ** 2 for c in range(4))
        assert matched(usage, W).max(axis=0).min() > 0.9
    assert share[None] > 0.5
    assert share["batch"] < 0.05
    with pytest.raises(ValueError, match="observations have no 'batch'"):
        um.tl.metagenes(AnnData(adata.X, obs=adata.obs.where(batch[:, None] > 0)), 2, batch_key="batch")
    with pytest.raises(KeyError, match="not a column of obs"):
        um.tl.metagenes(adata, 2, batch_key="nope")


def test_new_cells_are_freed_of_what_sets_their_batch_apart():
    r = np.random.default_rng(0)
    H = r.gamma(0.3, 1.0, (3, 200))
    H /= H.sum(axis=1, keepdims=True)
    W, effect = r.dirichlet(np.full(3, 0.3), 300), r.lognormal(0, 1.0, (3, 200))
    batch = np.arange(300) % 3
    effect[2] = 1
    X = r.poisson(r.lognormal(7, 0.3, (300, 1)) * (W @ H) * effect[batch]).astype(np.float32)
    obs = pd.DataFrame({"donor": np.array(["a", "b", "c"])[batch]}, index=map(str, range(300)))
    cells = AnnData(sparse.csr_matrix(X), obs=obs)
    um.tl.metagenes(cells, 3, n_runs=10, n_top_genes=150, batch_key="donor", max_distance=2.0)
    fit = cells.obsm["X_metagenes"]
    shuffled = cells[r.permutation(300), r.permutation(200)].copy()
    um.tl.transform(shuffled, cells, key="metagenes")
    back = pd.DataFrame(shuffled.obsm["X_metagenes"], shuffled.obs_names).loc[cells.obs_names]
    np.testing.assert_allclose(back, fit, atol=1e-6)
    few = cells[:30, ::2].copy()
    um.tl.transform(few, cells, key="metagenes")
    assert np.abs(few.obsm["X_metagenes"] - fit[:30]).max() < 0.3
    other = cells[batch == 0].copy()
    off = {}
    for name, donors in (("known", "a"), ("unknown", "z"), ("untold", None)):
        other.obs = other.obs.assign(donor=donors) if donors else other.obs[[]]
        um.tl.transform(other, cells, key="metagenes")
        off[name] = np.abs(other.obsm["X_metagenes"] - fit[batch == 0]).mean()
    assert off["known"] < 1e-6
    assert off["unknown"] == off["untold"] > 0.01


def test_gene_sets_name_their_program_and_the_consensus_is_stored(planted):
    top = planted.uns["metagenes"]["top_genes"]
    sets = {c: top[c][:10].tolist() for c in top}
    copy = um.tl.metagenes(planted, 3, n_runs=5, n_top_genes=100, net=sets, copy=True)
    table = um.get.enrichment(copy)
    leaders = table.groupby("program", sort=False).first()
    assert sorted(leaders["source"]) == ["1", "2", "3"]
    assert (leaders["qval"] < 1e-3).all()
    pd.testing.assert_frame_equal(table.reset_index(drop=True), um.get.enrichment(copy, sets), check_dtype=False)
    copy.var_names = [*copy.var_names[:-1], copy.var_names[0]]
    with pytest.raises(ValueError, match="gene names must be unique"):
        um.get.enrichment(copy, sets)
    with pytest.raises(KeyError, match="stores no enrichment"):
        um.get.enrichment(planted)
    stored = copy.uns["metagenes"]["consensus"]
    assert set(stored["names"]) == set(planted.obs_names) - {"5"}
    assert np.all(np.diag(stored["matrix"]) == 1)


def test_refusals(planted):
    with pytest.raises(ValueError, match="`n_components` must be"):
        um.tl.metagenes(planted, 0)
    with pytest.raises(ValueError, match="`unit` must be one of"):
        um.tl.metagenes(planted, 2, unit="nope")
    with pytest.raises(ValueError, match="`n_runs`"):
        um.tl.metagenes(planted, 2, n_runs=1)
    with pytest.raises(KeyError, match="do not exist"):
        um.tl.metagenes(planted, 2, genes=["g1", "nope"])


@pytest.mark.realdata
def test_programs_of_sorted_blood_cells_are_named_by_their_top_genes(shared_data):
    adata = ad.read_h5ad(next((shared_data / "pbmc_facs").glob("*.h5ad")))[::3].copy()
    adata.var_names = adata.var.iloc[:, 0].astype(str)
    adata.var_names_make_unique()
    um.tl.metagenes(adata, 8, n_runs=10, n_top_genes=1000, n_top=20)
    top = adata.uns["metagenes"]["top_genes"]
    programs = [set(top[c]) for c in top]
    for markers in ({"CD79A", "CD79B", "MS4A1"}, {"GNLY", "NKG7", "GZMB"}, {"LYZ", "CST3", "S100A9"}):
        assert any(len(markers & program) >= 2 for program in programs), (markers, top.head(8).to_string())


@pytest.mark.parametrize("unit", ["variance", "poisson"])
def test_a_gene_that_hardly_varies_is_harmless(planted, unit, monkeypatch):
    X = planted.X.toarray().astype(np.float64)
    X[:, 0] = 0.0
    X[0, 0] = 1e-40
    cells = AnnData(X, var=planted.var[[]])
    monkeypatch.setattr(um.settings, "check_counts", False)
    um.tl.metagenes(cells, 3, n_runs=3, unit=unit, max_distance=2.0)
    assert np.isfinite(cells.obsm["X_metagenes"][X.any(axis=1)]).all()


@pytest.mark.parametrize("n", [1, 2])
def test_what_no_measurement_gives_is_refused_before_it_overflows(planted, n):
    X = planted.X.toarray().astype(np.float64)
    X[0, :n] = 1e308
    with pytest.raises(ValueError, match="no measurement is so large"):
        um.tl.metagenes(AnnData(X, var=planted.var[[]]), 3, n_runs=3)


def test_a_gene_listed_twice_counts_once(planted):
    adata = AnnData(planted.X[:100], var=planted.var[[]])
    genes = [f"g{i}" for i in range(60)]
    results = [
        um.tl.metagenes(adata, 2, genes=listed, n_runs=3, max_distance=2.0, max_iter=50, copy=True)
        for listed in (genes, [*genes, *genes[:30]])
    ]
    np.testing.assert_array_equal(*(found.obsm["X_metagenes"] for found in results))


def test_scores_of_an_earlier_result_do_not_rank_another(planted):
    adata = AnnData(planted.X[:100], var=planted.var[[]])
    um.tl.metagenes(adata, 3, n_runs=3, n_top_genes=50, max_distance=2.0, max_iter=30, key_added="key")
    um.tl.factorize(adata, 3, key_added="key", tol=1e-3)
    best = um.get.loadings(adata, key="key").idxmax()
    top = um.get.loadings(adata, key="key", n_top=1)
    assert list(top["gene"]) == list(best)

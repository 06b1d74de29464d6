"""`tl.joint_nmf`: modalities and batches, written slots, prediction of a modality, treatment of a batch."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um
from unmix._adata import write as writing
from unmix.tl._joint_batches import MeasuredWarning

pytestmark = pytest.mark.filterwarnings("ignore::unmix.tl._joint_batches.MeasuredWarning")  # of `batches()`


def views():
    r = np.random.default_rng(1)
    W = r.dirichlet([0.2] * 3, 200)
    made = {}
    for name, m, size in (("rna", 60, 20.0), ("adt", 10, 500.0)):
        X = r.poisson(W @ r.gamma(0.3, size, (3, m))).astype(np.float32)
        made[name] = AnnData(sparse.csr_matrix(X))
        made[name].obs_names = [f"c{i}" for i in range(200)]
        made[name].var_names = [f"{name}{j}" for j in range(m)]
    return made


def test_a_missing_modality_is_predicted_from_the_other():
    data = views()
    truth = data["adt"][150:].X.toarray()
    data["adt"] = data["adt"][:150].copy()
    um.tl.joint_nmf(data, 3)
    predicted = data["rna"].obsm["X_joint_nmf"][150:] @ data["adt"].varm["joint_nmf"].T
    likeness = [np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, truth.T, strict=True)]
    assert np.median(likeness) > 0.9
    np.testing.assert_array_equal(data["rna"].obsm["X_joint_nmf"][:150], data["adt"].obsm["X_joint_nmf"])
    new = data["rna"][150:].copy()
    um.tl.transform(new, data["rna"], key="joint_nmf", key_added="new")
    np.testing.assert_allclose(new.obsm["X_new"], data["rna"].obsm["X_joint_nmf"][150:], rtol=0.05, atol=0.02)


def test_mudata_and_dict_agree():
    mudata = pytest.importorskip("mudata")
    with mudata.set_options(pull_on_update=False):
        whole = mudata.MuData(views())
    parts = views()
    um.tl.joint_nmf(whole, 3)
    um.tl.joint_nmf(parts, 3)
    np.testing.assert_array_equal(whole.obsm["X_joint_nmf"], parts["rna"].obsm["X_joint_nmf"])
    again = um.tl.joint_nmf(views(), 3, copy=True)
    np.testing.assert_array_equal(again["adt"].varm["joint_nmf"], parts["adt"].varm["joint_nmf"])


def test_cells_that_no_modality_has_any_more_get_nothing():
    mudata = pytest.importorskip("mudata")
    with mudata.set_options(pull_on_update=False):
        whole = mudata.MuData(views())
    for name in ("rna", "adt"):
        whole.mod[name] = whole.mod[name][:190].copy()  # without `update()`, `whole` still has 200 cells
    um.tl.joint_nmf(whole, 3, tol=1e-3)
    np.testing.assert_array_equal(whole.obsm["X_joint_nmf"][:190], whole["rna"].obsm["X_joint_nmf"])
    assert np.isnan(whole.obsm["X_joint_nmf"][190:]).all()


def test_modalities_of_any_name_are_predicted():
    made = views()
    data = {"RNA/counts": made["rna"], "ADT/raw": made["adt"]}
    um.tl.joint_nmf(data, 3, tol=1e-3, loss="kl")
    um.tl.transform(made["rna"], made["rna"], key="joint_nmf", predict="ADT_raw", key_added="new")
    assert made["rna"].obsm["new_ADT_raw"].shape == (200, 10)


def test_refusals():
    data = views()
    with pytest.raises(KeyError, match="no modalities"):
        um.tl.joint_nmf(data, 2, layer={"RNA": "counts"})
    with pytest.raises(TypeError, match="MuData"):
        um.tl.joint_nmf(np.ones((3, 2)), 2)
    with pytest.raises(ValueError, match="`batch_key` must name"):
        um.tl.joint_nmf(data["rna"], 2)
    with pytest.raises(TypeError, match="batches and modalities cannot be combined"):
        um.tl.joint_nmf(data, 2, batch_key="donor")
    with pytest.raises(ValueError, match="`loss` of batches must be one of"):
        um.tl.joint_nmf(data["rna"], 2, batch_key="donor", loss="poisson")
    with pytest.raises(ValueError, match="`online` needs loss="):
        um.tl.joint_nmf(data["rna"], 2, batch_key="donor", loss="kl", online=2)
    with pytest.raises(ValueError, match="each of"):
        um.tl.joint_nmf(data, 2, weights={"rna": 1.0})
    for weight in (0.0, np.inf, np.nan, -1.0):
        with pytest.raises(ValueError, match="not all of them 0"):
            um.tl.joint_nmf(data, 2, weights={"rna": weight, "adt": 0.0})
    with pytest.raises(ValueError, match="weight >= 0"):
        um.tl.joint_nmf(data, 2, weights="equal")
    with pytest.raises(ValueError, match="`loss` must be one of"):
        um.tl.joint_nmf(data, 2, loss={"rna": "kl", "adt": "poisson"})
    with pytest.raises(ValueError, match="`align`, `online` need `batch_key`"):
        um.tl.joint_nmf(data, 2, align=True, online=2)
    with pytest.raises(ValueError, match="`specificity`, `scale` need `batch_key`"):
        um.tl.joint_nmf(data, 2, specificity=1.0, scale=False)
    with pytest.raises(ValueError, match="`n_components` must be"):
        um.tl.joint_nmf(data, 0)
    with pytest.raises(KeyError, match="`batch_key` 'nothing'"):
        um.tl.joint_nmf(data["rna"], 2, batch_key="nothing")
    with pytest.raises(KeyError, match="layer"):
        um.tl.joint_nmf(data, 2, layer={"rna": "nothing"})
    empty = views()
    empty["adt"].X = np.zeros(empty["adt"].shape)
    with pytest.raises(ValueError, match="X of 'adt' holds nothing but zeros"):
        um.tl.joint_nmf(empty, 2)
    empty["adt"].obs["donor"] = np.arange(200) % 2
    with pytest.raises(ValueError, match="nothing but zeros"):
        um.tl.joint_nmf(empty["adt"], 2, batch_key="donor")
    data["adt"].obs_names = [f"other{i}" for i in range(200)]
    with pytest.raises(ValueError, match="same name"):
        um.tl.joint_nmf(data, 2)


@pytest.mark.parametrize("loss", ["frobenius", "kl", {"rna": "kl", "adt": "frobenius"}], ids=str)
def test_transform_predicts_the_missing_modality(loss, tmp_path):
    data = views()
    train = {name: part[:150].copy() for name, part in data.items()}
    um.tl.joint_nmf(train, 3, loss=loss)
    train["rna"].write_h5ad(tmp_path / "rna.h5ad")
    fitted, new = ad.read_h5ad(tmp_path / "rna.h5ad"), data["rna"][150:].copy()
    um.tl.transform(new, fitted, key="joint_nmf", predict="adt")
    predicted, truth = new.obsm["joint_nmf_adt"], data["adt"][150:].to_df()
    assert list(predicted.columns) == list(truth.columns)
    if loss == "kl":
        truth = truth.div(truth.sum(axis=1), axis=0)
    assert np.median([np.corrcoef(predicted[p], truth[p])[0, 1] for p in truth]) > 0.9
    own = data["rna"][:150].copy()
    um.tl.transform(own, fitted, key="joint_nmf")
    assert np.corrcoef(own.obsm["X_joint_nmf"].ravel(), fitted.obsm["X_joint_nmf"].ravel())[0, 1] > 0.98
    with pytest.raises(KeyError, match=r"can predict \['adt'\]"):
        um.tl.transform(new, fitted, key="joint_nmf", predict=["atac"])


def test_a_failure_while_writing_the_second_leaves_the_first(monkeypatch):
    data = views()
    data["rna"].obsm["X_joint_nmf"] = np.ones((200, 1))
    calls, current = iter(range(100)), writing._current

    def failing(*args):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return current(*args)

    monkeypatch.setattr(writing, "_current", failing)
    with pytest.raises(KeyboardInterrupt):
        um.tl.joint_nmf(data, 3)
    np.testing.assert_array_equal(data["rna"].obsm["X_joint_nmf"], np.ones((200, 1)))
    assert not data["rna"].varm.keys() | data["rna"].uns.keys() | data["adt"].obsm.keys() | data["adt"].uns.keys()


def test_layers_by_modality():
    data, same = views(), views()
    data["rna"].layers["counts"] = data["rna"].X.copy()
    data["rna"].X = np.zeros(data["rna"].shape, np.float32)
    um.tl.joint_nmf(data, 3, layer={"rna": "counts"})
    um.tl.joint_nmf(same, 3)
    np.testing.assert_array_equal(data["adt"].varm["joint_nmf"], same["adt"].varm["joint_nmf"])


def batches(n=240):
    """Two batches of the same three programs; the second has more of the last genes, and none of the first three."""
    r = np.random.default_rng(2)
    H, codes = r.gamma(0.3, 3, (3, 40)), np.arange(n) % 2
    W = r.dirichlet([0.3] * 3, n)
    X = r.poisson(W @ H + np.where(codes[:, None] == 1, np.where(np.arange(40) >= 36, 4.0, 0.0), 0.0))
    X[codes == 1, :3] = 0
    adata = AnnData(sparse.csr_matrix(X.astype(np.float32)))
    adata.var_names = [f"g{j}" for j in range(40)]
    adata.obs["batch"] = pd.Categorical(np.array(["a", "b"])[codes])
    return adata


def test_genes_that_one_batch_measured():
    adata, table = batches(), batches()
    um.tl.joint_nmf(adata, 3, batch_key="batch", measured="nonzero")
    assert not adata.varm["joint_nmf"][:3].any()
    assert adata.varm["joint_nmf_specific"][:3, :3].any()
    assert not adata.varm["joint_nmf_specific"][:3, 3:].any()
    of = {b: np.asarray((table[table.obs["batch"] == b].X > 0).sum(axis=0)).ravel() > 0 for b in "ab"}
    table.varm["seen"] = pd.DataFrame(of, index=table.var_names)
    um.tl.joint_nmf(table, 3, batch_key="batch", measured="seen")
    np.testing.assert_array_equal(table.varm["joint_nmf"], adata.varm["joint_nmf"])
    with pytest.raises(KeyError, match="it lacks"):
        um.tl.joint_nmf(table, 3, batch_key="batch", measured=table.varm["seen"][["a"]])
    with pytest.raises(ValueError, match="no batch measured"):
        um.tl.joint_nmf(table, 3, batch_key="batch", measured=table.varm["seen"] & False)
    with pytest.raises(ValueError, match="true or false of every gene"):
        um.tl.joint_nmf(table, 3, batch_key="batch", measured=table.varm["seen"].where(table.varm["seen"]))


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_zeros_of_an_outer_join_are_warned_of(loss):
    r = np.random.default_rng(4)
    X = r.poisson(r.dirichlet([0.3] * 3, 300) @ r.gamma(1, 3, (3, 200))).astype(np.float32)
    names, options = np.array([f"g{j}" for j in range(200)]), {"batch_key": "batch", "loss": loss, "tol": 1e-2}
    parts = [AnnData(sparse.csr_matrix(X[:150, :190])), AnnData(sparse.csr_matrix(X[150:, 5:]))]
    parts[0].var_names, parts[1].var_names = names[:190], names[5:]
    joined = ad.concat(parts, join="outer", label="batch", keys=["a", "b"], index_unique="-")
    with pytest.warns(MeasuredWarning, match=r"\('a' 10 of \d+, 'b' 5 of \d+\).*measured=\"nonzero\""):
        um.tl.joint_nmf(joined, 3, **options)
    zeros = joined.varm["joint_nmf_specific"]
    um.tl.joint_nmf(joined, 3, measured="all", **options)
    np.testing.assert_array_equal(joined.varm["joint_nmf_specific"], zeros)
    um.tl.joint_nmf(joined, 3, measured="nonzero", **options)


@pytest.mark.parametrize("silent", [0, 2])
def test_genes_that_are_silent_by_chance_or_by_sex_are_no_warning(silent):
    r = np.random.default_rng(5)
    X = r.poisson(r.dirichlet([0.3] * 3, 300) @ r.gamma(0.3, 1, (3, 600))).astype(np.float32)
    X[150:, np.argsort(-X.sum(axis=0))[:silent]] = 0
    adata = AnnData(
        sparse.csr_matrix(X), obs=pd.DataFrame({"batch": ["a", "b"] * 75 + ["c"] * 150}, index=map(str, range(300)))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        um.tl.joint_nmf(adata, 3, batch_key="batch", tol=1e-2)


def test_a_batch_is_added_to_a_fit():
    old, new = batches(), batches(300)[240:].copy()
    um.tl.joint_nmf(old, 3, batch_key="batch")
    new.obs["batch"] = pd.Categorical(["c"] * 60)
    um.tl.joint_nmf(new, 3, batch_key="batch", start=old, freeze=True)
    np.testing.assert_allclose(new.varm["joint_nmf"], old.varm["joint_nmf"], rtol=1e-6)
    assert list(new.uns["joint_nmf"]["batches"]) == ["c"]
    both = ad.concat([old, new])
    both.obs["batch"] = both.obs["batch"].astype(str)
    um.tl.joint_nmf(both, 3, batch_key="batch", start=old)
    assert both.varm["joint_nmf_specific"].shape == (40, 9)
    same = np.corrcoef(both.obsm["X_joint_nmf"][:240].ravel(), old.obsm["X_joint_nmf"].ravel())[0, 1]
    assert same > 0.95
    with pytest.raises(ValueError, match="4 components"):
        um.tl.joint_nmf(both, 4, batch_key="batch", start=old)
    with pytest.raises(ValueError, match="give `start=`"):
        um.tl.joint_nmf(both, 3, batch_key="batch", freeze=True)
    with pytest.raises(ValueError, match="at least two"):
        um.tl.joint_nmf(new, 3, batch_key="batch")


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_some_cells_of_a_batch_get_the_usages_of_the_fit(loss):
    options = {"batch_key": "batch", "loss": loss, "tol": 1e-9, "max_iter": 2000}
    old = batches()
    um.tl.joint_nmf(old, 3, **options)
    some = old[old.obs["batch"] == "b"][:25].copy()
    um.tl.joint_nmf(some, 3, start=old, freeze=True, **options)
    mapped = um.tl.transform(some, old, key="joint_nmf", key_added="new", copy=True)
    np.testing.assert_allclose(some.obsm["X_joint_nmf"], mapped.obsm["X_new"], atol=1e-3)


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_genes_that_the_start_does_not_know_get_loadings(loss):
    adata = batches()
    few = adata[:, :30].copy()
    um.tl.joint_nmf(few, 3, batch_key="batch", loss=loss)
    um.tl.joint_nmf(adata, 3, batch_key="batch", loss=loss, start=few)
    expressed = np.asarray(adata.X.sum(axis=0)).ravel() > 0
    assert (adata.varm["joint_nmf"][expressed] + adata.varm["joint_nmf_specific"][expressed, :3]).any(axis=1).all()
    um.tl.joint_nmf(adata, 3, batch_key="batch", loss=loss, start=few, freeze=True)
    assert not adata.varm["joint_nmf"][30:].any()
    assert adata.uns["joint_nmf"]["loss"][-1] > 0


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_what_only_a_new_batch_expresses_is_its_own_though_the_loadings_are_kept(loss):
    """By its likelihood a gene that the fit did not see stayed without loadings."""
    old, new = batches(), batches(300)[240:].copy()
    new.obs["batch"] = "c"
    X = new.X.toarray()
    X[:, 5] = np.random.default_rng(0).poisson(8, 60)
    new.X = sparse.csr_matrix(X)
    seen = old[:, old.var_names != "g5"].copy()
    um.tl.joint_nmf(seen, 3, batch_key="batch", loss=loss)
    um.tl.joint_nmf(new, 3, batch_key="batch", loss=loss, start=seen, freeze=True)
    own = um.get.joint_loadings(new, n_top=3).query("part == 'c' and component == 'all'")
    assert own["gene"].iloc[0] == "g5"
    explained = new.obsm["X_joint_nmf"] @ new.varm["joint_nmf_specific"][5]
    assert explained.mean() > 0


@pytest.mark.parametrize("loss", ["frobenius", "kl"])
def test_transform_knows_the_batches(loss):
    adata = batches()
    um.tl.joint_nmf(adata, 3, batch_key="batch", loss=loss, tol=1e-9, max_iter=10000)
    again = batches()
    um.tl.transform(again, adata, key="joint_nmf")
    np.testing.assert_allclose(again.obsm["X_joint_nmf"], adata.obsm["X_joint_nmf"], atol=0.05)
    del again.obs["batch"]
    um.tl.transform(again, adata, key="joint_nmf")
    assert np.corrcoef(again.obsm["X_joint_nmf"].ravel(), adata.obsm["X_joint_nmf"].ravel())[0, 1] > 0.9


def test_alignment_and_online_passes():
    adata = batches()
    um.tl.joint_nmf(adata, 3, batch_key="batch", align=True, online=3)
    aligned, plain = adata.obsm["X_joint_nmf_aligned"], adata.obsm["X_joint_nmf"]
    assert aligned.dtype == np.float32
    np.testing.assert_array_equal(aligned[::2], plain[::2])
    assert (aligned[1::2] != plain[1::2]).any()
    with pytest.raises(ValueError, match="`online` must be"):
        um.tl.joint_nmf(adata, 3, batch_key="batch", online=-1)


def test_batches_of_counts_are_fitted_by_their_likelihood():
    adata, new = batches(), batches(300)[240:].copy()
    um.tl.joint_nmf(adata, 3, batch_key="batch", loss="kl", measured="nonzero")
    assert adata.uns["joint_nmf"]["params"]["specificity"] == pytest.approx(1 / 3)
    assert not adata.varm["joint_nmf"][:3].any()
    assert (np.diff(adata.uns["joint_nmf"]["loss"]) <= 1e-8).all()
    new.obs["batch"] = pd.Categorical(["c"] * 60)
    um.tl.joint_nmf(new, 3, batch_key="batch", loss="kl", start=adata, freeze=True)
    np.testing.assert_allclose(new.varm["joint_nmf"], adata.varm["joint_nmf"])


@pytest.mark.realdata
def test_interferon_genes_are_the_stimulated_batchs_own(shared_data):
    import scanpy as sc

    adata = ad.read_h5ad(next((shared_data / "ifnb_2k").glob("*.h5ad")))
    adata.X = adata.X.astype(np.float32)
    sc.pp.filter_genes(adata, min_cells=50)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    um.tl.joint_nmf(adata, 10, batch_key="stim", tol=1e-4)
    assert list(adata.uns["joint_nmf"]["batches"]) == ["ctrl", "stim"]
    own = um.get.joint_loadings(adata, n_top=10).query("part == 'stim' and component == 'all'")
    assert {"ISG15", "IFI6", "IFIT1", "ISG20"} <= set(own["gene"]), own["gene"].tolist()


@pytest.mark.realdata
def test_proteins_of_held_out_cells_are_predicted(shared_data):
    import scanpy as sc

    rna, adt = (ad.read_h5ad(shared_data / "citeseq_pbmc500" / f"{name}.h5ad") for name in ("rna", "adt"))
    for part in (rna, adt):
        part.X = sparse.csr_matrix(part.X, dtype=np.float32)
        sc.pp.normalize_total(part)
        sc.pp.log1p(part)
    rna = rna[:, np.argsort(-np.asarray(rna.X.mean(axis=0)).ravel(), kind="stable")[:1500]].copy()
    train, test = np.arange(500) % 5 != 0, np.arange(500) % 5 == 0
    data = {"rna": rna[train].copy(), "adt": adt[train].copy()}
    um.tl.joint_nmf(data, 10, tol=1e-4)
    new = rna[test].copy()
    um.tl.transform(new, data["rna"], key="joint_nmf", predict="adt")
    predicted, truth = new.obsm["joint_nmf_adt"].to_numpy(), adt[test].X.toarray()
    mean = data["adt"].X.toarray().mean(axis=0)
    assert np.mean([np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, truth.T, strict=True) if t.std()]) > 0.3
    assert ((predicted - truth) ** 2).mean() < 0.75 * ((mean - truth) ** 2).mean()

"""`tl.joint_nmf`: modalities and batches, written slots, prediction of a modality, treatment of a batch."""

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import unmix as um


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


def test_refusals():
    data = views()
    with pytest.raises(TypeError, match="MuData"):
        um.tl.joint_nmf(np.ones((3, 2)), 2)
    with pytest.raises(ValueError, match="`batch_key` must name"):
        um.tl.joint_nmf(data["rna"], 2)
    with pytest.raises(ValueError, match="each of"):
        um.tl.joint_nmf(data, 2, weights={"rna": 1.0})
    data["adt"].obs_names = [f"other{i}" for i in range(200)]
    with pytest.raises(ValueError, match="same name"):
        um.tl.joint_nmf(data, 2)


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
    own = adata.varm["joint_nmf_specific"]
    lead = np.argsort(-(own[:, 10:] - own[:, :10]).max(axis=1))[:50]
    found = set(adata.var_names[lead]) & {"ISG15", "IFI6", "IFIT1", "ISG20"}
    assert len(found) >= 3, adata.var_names[lead].tolist()

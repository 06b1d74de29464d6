"""The picture and the table of a joint factorisation hold what is stored."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt

import unmix as um

mpl.use("Agg")


def make(m, seed):
    r = np.random.default_rng(seed)
    adata = AnnData(r.poisson(r.gamma(0.3, 1, (80, 3)) @ r.gamma(0.3, 9, (3, m))).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(80)], [f"g{i}" for i in range(m)]
    adata.obs["batch"] = pd.Categorical(["a", "b"] * 40)
    return adata


def test_batches(tmp_path):
    adata = make(40, 0)
    um.tl.joint_nmf(adata, 3, batch_key="batch", tol=1e-3)
    table = um.get.joint_loadings(adata)
    assert list(table["part"].unique()) == ["shared", "a", "b"]
    first = table[(table["part"] == "b") & (table["component"] == "2")]
    order = np.argsort(-adata.varm["joint_nmf_specific"][:, 4], kind="stable")
    assert first["gene"].tolist() == adata.var_names[order].tolist()
    entry = adata.uns["joint_nmf"]
    added = adata.varm["joint_nmf_specific"][:, :3] @ entry["mean_usage"][0] / entry["scales"][0]
    whole = table[(table["part"] == "a") & (table["component"] == "all")].set_index("gene")["loading"]
    np.testing.assert_allclose(whole[adata.var_names], added)
    axes = um.pl.joint_loadings(adata, components=[1, "all"], n_top=4, save=tmp_path / "x.png")
    assert [ax.get_title() for ax in axes[:3]] == ["shared, component 1", "a, component 1", "b, component 1"]
    assert [ax.get_title() for ax in axes[3:]] == ["a, all", "b, all"]
    np.testing.assert_allclose([p.get_width() for p in axes[0].patches], np.sort(adata.varm["joint_nmf"][:, 0])[:-5:-1])
    with pytest.raises(KeyError, match="`components` names"):
        um.pl.joint_loadings(adata, components=[7])
    with pytest.raises(ValueError, match="`components` is empty"):
        um.pl.joint_loadings(adata, components=[])
    plt.close("all")


def test_modalities():
    data = {"rna": make(40, 0), "adt": make(8, 1)}
    um.tl.joint_nmf(data, 3, tol=1e-3)
    axes = um.pl.joint_loadings(data, show=False)
    assert len(axes) == 6
    assert [t.get_text() for t in axes[1].get_yticklabels()] == um.get.joint_loadings(data["adt"], n_top=8)["gene"][
        :8
    ].tolist()
    plt.close("all")
    with pytest.raises(KeyError, match="keys with one"):
        um.get.joint_loadings({"rna": make(4, 0)})
